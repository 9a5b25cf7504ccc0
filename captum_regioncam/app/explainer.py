"""The network behind the page, and the photos that are shown to it, with their maps."""

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captum_regioncam.errors import Argument, ArgumentError, LayerError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.explanations.pictures import probabilities_of
from captum_regioncam.evaluation.layer_choice import check_layers, check_mode, choose_layers, tried
from captum_regioncam.evaluation.memory_format import format_for
from captum_regioncam.evaluation.methods import METHODS, Attribute, make_method
from captum_regioncam.evaluation.precision import check_precision, computed_in, tried_in
from captum_regioncam.evaluation.score_check import check_scores
from captum_regioncam.files.inputs import MEGABYTE
from captum_regioncam.files.photos import read_photo
from captum_regioncam.files.text import printable
from captum_regioncam.pictures import shrunk

__all__ = ["MOST_BYTES", "MOST_PIXELS", "Explainer", "MapCache", "Photo"]

MOST_BYTES = 20 * MEGABYTE
"""The largest size of a photo's file."""
MOST_PIXELS = 25_000_000
"""The most pixels of a photo."""
_SHOWN = 700_000  # pixels of a photo in the page


class MapCache:
    """Maps by any key, within a number of bytes; the maps that were used longest ago are dropped first.

    Args:
        most: the number of bytes.
    """

    def __init__(self, most: int = 64 * MEGABYTE) -> None:
        self.most = most
        self._maps: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()  # several calls of one session may run at the same time

    def get(self, key: Hashable) -> Tensor | None:
        """Return a map, or None."""
        with self._lock:
            if key in self._maps:
                self._maps.move_to_end(key)
            return self._maps.get(key)

    def put(self, key: Hashable, one: Tensor) -> None:
        """Keep a map."""
        with self._lock:
            self._maps[key] = one
            self._maps.move_to_end(key)
            while self.bytes > self.most:
                self._maps.popitem(last=False)

    @property
    def bytes(self) -> int:
        """How many bytes the maps take."""
        return sum(one.numel() * one.element_size() for one in self._maps.values())


@dataclass(frozen=True)
class Photo:
    """A photo that was shown to the network.

    Attributes:
        name: its file's name.
        seen: the part of it that the network sees, at the photo's resolution.
        fitted: the same at the network's resolution.
        probabilities: the probability of each class.
        maps: the maps that have been computed so far.
    """

    name: str
    seen: Image.Image
    fitted: Image.Image
    probabilities: Sequence[float]
    maps: MapCache = field(default_factory=MapCache)

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """What the network sees, at the photo's resolution: (height, width, 3)."""
        return np.asarray(self.seen)

    @cached_property
    def shown(self) -> npt.NDArray[np.uint8]:
        """The same, with at most as many pixels as the page shows."""
        return shrunk(self.pixels, _SHOWN)

    def likeliest(self, count: int) -> list[int]:
        """Return the most likely classes, the most likely first."""
        order = np.argsort(-np.asarray(self.probabilities), kind="stable")
        return [int(index) for index in order[:count]]


@dataclass(frozen=True)
class Explainer:
    """A network with the methods that work on it.

    Attributes:
        classifier: the network.
        attributions: the methods by name. Region-CAM's maps are made with contrast 1, so that any other is a power of
            them.
        missing: for each of the other methods, why it does not work on this network.
        precision: the precision of the network's passes.
        memory_format: the memory format of the network's inputs.
    """

    classifier: Classifier
    attributions: Mapping[str, Attribute]
    missing: Mapping[str, str]
    precision: str = "float32"
    memory_format: torch.memory_format = torch.contiguous_format
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        *,
        layers: Sequence[str] | None = None,
        reshape: str | None = None,
        precision: str = "float32",
    ) -> "Explainer":
        """Choose the layers, and try the network and all methods on noise; see :func:`write_explanations`.

        Raises:
            ArgumentError: the network fails, or no method works on it.
        """
        check_precision(precision)
        check_mode(classifier)
        check_layers(classifier, layers)
        attributions: dict[str, Attribute] = {}
        missing = {}
        with tried(classifier) as probe:
            check_scores(classifier, probe)
            stages = choose_layers(classifier, layers, probe, reshape)
            for name in METHODS:
                try:
                    attribute = make_method(name, classifier.model, stages, probe, contrast=1.0)
                    attribute(probe, [[0]])
                    attributions[name] = attribute
                except LayerError as error:
                    missing[name] = str(error)
            if not attributions:
                raise ArgumentError(Argument("model"), f": no method works on it. {'; '.join(missing.values())}")
        run = partial(probabilities_of, classifier)
        memory_format = format_for(run, probe)
        if precision != "float32":
            with tried_in(precision, classifier.device):
                run(probe.contiguous(memory_format=memory_format))
        return cls(classifier, attributions, missing, precision, memory_format)

    def show(self, path: str | os.PathLike[str], name: str | None = None) -> Photo:
        """Show the network a photo.

        Args:
            path: the photo's file.
            name: the name that the user knows the file by. Default: the last part of the path.

        Raises:
            ValueError: the file is too large, is not a photo, or has too many pixels; the message names it.
        """
        name = printable(Path(path).name if name is None else name)
        try:
            if (size := os.path.getsize(path)) > MOST_BYTES:
                raise ValueError(f"{name}: has {size / MEGABYTE:.1f} MB; at most {MOST_BYTES // MEGABYTE} are allowed.")
            photo = read_photo(path, most_pixels=MOST_PIXELS)
            seen, fitted = self.classifier.fit(photo)
        except (ValueError, OSError) as error:
            reason = str(error).replace(os.fspath(path), name)
            raise ValueError(reason if name in reason else f"{name}: {reason}") from error
        with self._turn, computed_in(self.precision, self.classifier.device):
            probabilities = probabilities_of(self.classifier, self._input(fitted))
        return Photo(name, seen, fitted, probabilities.tolist())

    def maps(self, photo: Photo, classes: Sequence[int], methods: Iterable[str]) -> dict[tuple[str, int], Tensor]:
        """Return a photo's (h, w) float32 maps by method and class. The network runs only for those that are new.

        Photos take turns: each gets the whole processor, so that it is done sooner.
        """
        keys = [(method, index) for method in methods for index in classes]
        with self._turn, computed_in(self.precision, self.classifier.device):
            found = {key: one for key in keys if (one := photo.maps.get(key)) is not None}
            for method in dict.fromkeys(method for method, _ in keys):
                if new := [index for index in classes if (method, index) not in found]:
                    maps = self.attributions[method](self._input(photo.fitted), [new])[0].detach().float().cpu()
                    found |= {(method, index): one.clone() for index, one in zip(new, maps, strict=True)}
        for key in keys:
            photo.maps.put(key, found[key])
        return {key: found[key] for key in keys}

    def _input(self, fitted: Image.Image) -> Tensor:
        x = self.classifier.preprocess(fitted).to(self.classifier.device)
        return x.contiguous(memory_format=self.memory_format)
