"""Maps of photos, one after the other, from one network and its layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.explanations.files import Explained
from captum_regioncam.evaluation.explanations.pictures import probabilities_of
from captum_regioncam.evaluation.layer_choice import choose_layers
from captum_regioncam.evaluation.methods import Attribute, Method, as_attribute, make_method
from captum_regioncam.evaluation.precision import computed_in
from captum_regioncam.files.photos import read_photo
from captum_regioncam.refinement import refine as refined
from captum_regioncam.stages.finder import Stages

__all__ = ["PhotoExplainer"]


@dataclass
class PhotoExplainer:
    """Explains photos; the layers are chosen with the first of them."""

    classifier: Classifier
    methods: Mapping[str, Method]
    targets: Sequence[int]
    layers: Sequence[str] | None
    reshape: str | None
    contrast: float
    refine: bool
    precision: str
    memory_format: torch.memory_format
    stages: Stages | None = None
    attributions: dict[str, Attribute] = field(default_factory=dict)

    def __call__(self, photo: str) -> Explained:
        """Return the maps of a photo, by its file."""
        seen, fitted = self.classifier.fit(read_photo(photo))
        device = self.classifier.device
        x = self.classifier.preprocess(fitted).to(device).contiguous(memory_format=self.memory_format)
        with computed_in(self.precision, device):
            probabilities = probabilities_of(self.classifier, x)
        classes = list(self.targets) or [int(probabilities.argmax())]
        self.attributions = self.attributions or {name: self._made(method, x) for name, method in self.methods.items()}
        with computed_in(self.precision, device):
            maps = {name: attribute(x, [classes])[0].float() for name, attribute in self.attributions.items()}
        if self.refine:
            maps = {name: refined(one, seen) for name, one in maps.items()}
        return Explained(np.asarray(seen), maps, {index: float(probabilities[index]) for index in classes})

    def _made(self, method: Method, x: Tensor) -> Attribute:
        if not isinstance(method, str):
            return as_attribute(method)
        self.stages = self.stages or choose_layers(self.classifier, self.layers, x, self.reshape)
        return make_method(method, self.classifier.model, self.stages, x, contrast=self.contrast)
