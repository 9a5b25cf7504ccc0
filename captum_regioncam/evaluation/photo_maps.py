"""The maps of a data set's photos, as a protocol makes them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Identity

from captum_regioncam.errors import Argument, ArgumentError, reason_of
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.datasets.base import PhotoData, Sample, index_of, source_of
from captum_regioncam.evaluation.layer_choice import check_mode, choose_layers, tried
from captum_regioncam.evaluation.memory_format import format_for
from captum_regioncam.evaluation.methods import (
    Attribute,
    Method,
    as_attribute,
    describe_method,
    make_method,
    named_methods,
)
from captum_regioncam.evaluation.multiscale import input_sizes, irn_size, normalize, summed_maps
from captum_regioncam.evaluation.precision import check_precision, computed_in, tried_in
from captum_regioncam.evaluation.protocol import Protocol
from captum_regioncam.evaluation.runs.provenance import checkpoint_of, device_name
from captum_regioncam.evaluation.score_check import check_scores
from captum_regioncam.method.grids import pool
from captum_regioncam.refinement import refine as refined
from captum_regioncam.stages.finder import Stages

__all__ = ["Photo", "PhotoMaps", "PhotoReader"]

Size = tuple[int, int]


@dataclass(frozen=True)
class Photo:
    """A sample, and what the network sees of it: (height, width, 3) uint8 pixels for each size of its input."""

    sample: Sample
    inputs: Sequence[npt.NDArray[np.uint8]] = ()

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the inputs; photos with equal shapes go through the network together."""
        return tuple(pixels.shape for pixels in self.inputs)


@dataclass(frozen=True)
class PhotoReader:
    """Reads a photo by its number and resizes it. It holds no network, so it can run in any process."""

    dataset: PhotoData
    classifier: Classifier
    scales: Sequence[float]

    def __call__(self, number: int) -> Photo:
        """Read a photo; the network does not see photos without classes."""
        sample = self.dataset[number]
        if not sample.keys:
            return Photo(sample)
        seen = self.classifier.seen(sample.photo, max(self.scales))
        sizes = input_sizes(self.classifier.input_size(*sample.photo.size), self.scales)
        return Photo(sample, [np.asarray(self.classifier.resized(seen, one.size)) for one in sizes])


@dataclass(frozen=True)
class PhotoMaps:
    """The maps of photos.

    Attributes:
        classifier: the network.
        stages: the layers that methods given by name read; None if there is no such method.
        attributions: the methods.
        described: for records, a description of each method that does not go by its own name.
        runs_network: whether all methods were given by name, so that they run the classifier's network.
        protocol: scales, flips, normalisation and upsampling.
        checkpoint: the name and the hash of the network's weights when they were loaded.
        reshape: the layout of the layers, if it was given.
        refine: whether maps are refined with their photos.
        precision: the precision of the network's passes.
        memory_format: the memory format of the network's inputs.
    """

    classifier: Classifier
    stages: Stages | None
    attributions: Mapping[str, Attribute]
    described: Mapping[str, str]
    runs_network: bool
    protocol: Protocol
    checkpoint: Mapping[str, str]
    reshape: str | None = None
    refine: bool = False
    precision: str = "float32"
    memory_format: torch.memory_format = torch.contiguous_format

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        methods: Iterable[Method] | Mapping[str, Method],
        protocol: Protocol | None = None,
        *,
        layers: Sequence[str] | None = None,
        reshape: str | None = None,
        contrast: float = 4.0,
        refine: bool = False,
        precision: str = "float32",
        outputs: int | None = None,
    ) -> "PhotoMaps":
        """Choose the layers, and try the network and the methods on noise of its input size.

        Args:
            classifier: the network.
            methods: names or attributions, or a dict of {name: either}.
            protocol: scales, flips, normalisation and upsampling.
            layers: dotted names, for methods given by name. Default: the stages.
            reshape: their layout; see :func:`choose_layers`.
            contrast: the contrast of the method "region-cam".
            refine: refine the maps with their photos; see :func:`~captum_regioncam.refine`.
            precision: the precision of the network's passes. The layers are always chosen in float32.
            outputs: how many classes the network must have; None for any number.

        Raises:
            ArgumentError: the network fails, is in training mode, or does not suit the methods, the outputs or the
                precision.
        """
        check_precision(precision)
        named = named_methods(methods)
        protocol = Protocol() if protocol is None else protocol
        resize = classifier.resize or protocol.resize
        classifier, protocol = replace(classifier, resize=resize), replace(protocol, resize=resize)
        check_mode(classifier)
        checkpoint = checkpoint_of(classifier.model, classifier.weights)
        own = {name: method for name, method in named.items() if not isinstance(method, str)}
        described = {
            name: describe_method(method, classifier.model) for name, method in named.items() if name != method
        }
        attributions: dict[str, Attribute] = {name: as_attribute(method) for name, method in own.items()}
        with tried(classifier) as probe:
            check_scores(classifier, probe, outputs)
            stages = choose_layers(classifier, layers, probe, reshape) if len(own) < len(named) else None
            if stages is not None:
                for name in (name for name in named if name not in own):
                    attributions[name] = make_method(named[name], classifier.model, stages, probe, contrast=contrast)
                    attributions[name](probe, [[0]])
        for name in own:
            _try(name, attributions[name], probe)
        in_order = {name: attributions[name] for name in named}

        def run(x: Tensor) -> None:
            for attribute in in_order.values():
                attribute(x, [[0]])

        memory_format = format_for(run, probe)
        if precision != "float32":
            with tried_in(precision, classifier.device):
                run(probe.contiguous(memory_format=memory_format))
        return cls(
            classifier=classifier,
            stages=stages,
            attributions=in_order,
            described=described,
            runs_network=not own,
            protocol=protocol,
            checkpoint=checkpoint,
            reshape=reshape,
            refine=bool(refine),
            precision=precision,
            memory_format=memory_format,
        )

    @property
    def layer_names(self) -> list[str]:
        """The layers' names, shallow to deep."""
        return [] if self.stages is None else self.stages.describe().split(", ")

    @property
    def description(self) -> str:
        """What makes the maps, in words."""
        layers = f"Layers: {', '.join(self.layer_names)}\n" if self.layer_names else ""
        return f"{layers}{self.steps}"

    @property
    def steps(self) -> str:
        """What is done to a photo and its maps, in words."""
        refined = "; refined with the photo" if self.refine else ""
        return f"{self.protocol}{refined}{'' if self.precision == 'float32' else f'; passes in {self.precision}'}"

    def settings(self, data: PhotoData) -> dict[str, object]:
        """Return what the maps depend on, besides the methods, as JSON values."""
        network = self.classifier.settings
        if "sha256" in self.checkpoint:  # of a file, so that a run never continues with other weights
            network["weights"] = f"{network['weights']} (sha256 {self.checkpoint['sha256'][:16]})"
        protocol = {name: getattr(self.protocol, name) for name in ("resize", "flip", "upsample", "normalize", "batch")}
        return {
            **source_of(data),
            **network,
            **protocol,
            "scales": list(self.protocol.scales),
            "layers": self.layer_names,
            "index": index_of(data),
            "checkpoint": self.checkpoint.get("state_dict_sha256"),
            **({"attributions": dict(self.described)} if self.described else {}),
            **({} if self.reshape is None else {"reshape": self.reshape}),
            **({"refine": True} if self.refine else {}),
            **({} if self.precision == "float32" else {"precision": self.precision}),
        }

    def origin(self, data: PhotoData) -> dict[str, object]:
        """Return what a record says about where the maps come from, as JSON values."""
        source = source_of(data)
        return {
            "model": self.classifier.settings["model"],
            "checkpoint": dict(self.checkpoint),
            "layers": self.layer_names,
            "protocol": str(self.protocol),
            "refine": self.refine,
            "precision": self.precision,
            "device": device_name(self.classifier.device),
            **{name: source[name] for name in ("dataset", "split")},
        }

    def reader(self, dataset: PhotoData) -> PhotoReader:
        """Return a reader of a data set's photos for these maps."""
        return PhotoReader(dataset, replace(self.classifier, model=Identity()), self.protocol.scales)

    def sums(self, method: str, photos: Sequence[Photo], sizes: Sequence[Sequence[Size] | None]) -> list[list[Tensor]]:
        """Return each photo's maps, (K, height, width) at each of its sizes, added over scales and flips.

        Args:
            method: the name of one of the attributions.
            photos: photos whose inputs have equal shapes.
            sizes: see :func:`~captum_regioncam.evaluation.multiscale.summed_maps`.
        """
        if not photos[0].inputs:  # no classes, so nothing to run
            return [[torch.zeros(0, *size) for size in of_photo or ()] for of_photo in sizes]
        inputs = input_sizes(self.classifier.input_size(*photos[0].sample.photo.size), self.protocol.scales)
        with computed_in(self.precision, self.classifier.device):
            summed = summed_maps(
                self.attributions[method],
                zip(self._batches(photos), inputs, strict=True),
                [photo.sample.targets for photo in photos],
                flip=self.protocol.flip,
                sizes=sizes,
            )
        return [[maps.cpu() for maps in of_photo] for of_photo in summed]

    def _batches(self, photos: Sequence[Photo]) -> Iterator[Tensor]:
        for same_scale in zip(*(photo.inputs for photo in photos), strict=True):
            x = torch.cat([self.classifier.preprocess(pixels) for pixels in same_scale])
            yield x.to(self.classifier.device).contiguous(memory_format=self.memory_format)

    def maps(
        self, method: str, photos: Sequence[Photo], sizes: Sequence[Size], coarse: Sequence[Size] = ()
    ) -> list[tuple[Tensor, ...]]:
        """Return each photo's maps in [0, 1], upsampled and normalised by the protocol, and refined if that is wanted.

        Args:
            method: the name of one of the attributions.
            photos: photos whose inputs have equal shapes.
            sizes: the height and width of what the network sees of each, at the photo's resolution.
            coarse: a second, coarse grid for each. Refined maps are averaged down to it.
        """
        upsampled = [irn_size(*size) if self.protocol.upsample == "irn" else size for size in sizes]
        is_summed = bool(coarse) and not self.refine
        grids = [list(of_photo) for of_photo in (zip(upsampled, coarse, strict=True) if is_summed else zip(upsampled))]
        normalized = [
            tuple(normalize(maps, self.protocol.normalize) for maps in (full[:, : size[0], : size[1]], *others))
            for size, (full, *others) in zip(sizes, self.sums(method, photos, grids), strict=True)
        ]
        if not self.refine:
            return normalized
        fine = [self.refined(maps, photo.sample) for (maps,), photo in zip(normalized, photos, strict=True)]
        if not coarse:
            return [(maps,) for maps in fine]
        return [(maps, pool(maps[None], grid)[0]) for maps, grid in zip(fine, coarse, strict=True)]

    def grid_maps(self, method: str, photos: Sequence[Photo]) -> list[Tensor]:
        """Return each photo's maps (K, h, w) on their own grid, added over scales and flips, and refined if wanted.

        Boxes and score maps are made from these; they are not normalised. Refined maps are at the photo's resolution.

        Args:
            method: the name of one of the attributions.
            photos: photos with classes, whose inputs have equal shapes.
        """
        sums = self.sums(method, photos, [None] * len(photos))
        return [self.refined(maps, photo.sample) for [maps], photo in zip(sums, photos, strict=True)]

    def refined(self, maps: Tensor, sample: Sample) -> Tensor:
        """Refine (K, height, width) maps with what the network sees of their photo (step 8 of the method), or not."""
        if not self.refine or not len(maps):
            return maps
        seen = sample.photo.crop(self.classifier.seen_box(*sample.photo.size))
        return refined(maps.to(self.classifier.device), seen).cpu()

    @contextmanager
    def class_scores(self, photos: Sequence[Photo]) -> Iterator[list[Tensor]]:
        """Collect the network's (N, classes) scores of photos: those of the scale nearest to 1 come first.

        Methods given by name run the network, so that the scores need no extra pass; others may run anything.
        """
        if not self.runs_network:
            with torch.no_grad(), computed_in(self.precision, self.classifier.device):
                scores = self.classifier.model(next(self._batches(photos)))
            yield [scores]
            return
        outputs: list[Tensor] = []
        handle = self.classifier.model.register_forward_hook(lambda *call: outputs.append(call[-1].detach()))
        try:
            yield outputs
        finally:
            handle.remove()


def _try(name: str, attribute: Attribute, probe: Tensor) -> None:
    try:
        attribute(probe, [[0]])
    except Exception as error:
        shape = " x ".join(map(str, probe.shape[1:]))
        raise ArgumentError(
            Argument("methods"), f": {name} fails on an input of {shape} ({reason_of(error)})."
        ) from error
