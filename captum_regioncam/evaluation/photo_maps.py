"""The maps of a data set's photos, as a protocol makes them."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Identity

from captum_regioncam.cli.network import classifier_of, layers_named, stages_of, tried
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation import PhotoDataset, Sample, normalize
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.methods import Attribute, make_method
from captum_regioncam.evaluation.multiscale import input_sizes, irn_size, summed_maps
from captum_regioncam.evaluation.protocol import Protocol
from captum_regioncam.evaluation.runs.provenance import checkpoint_of
from captum_regioncam.network.outputs import describe
from captum_regioncam.stages import Stages

__all__ = ["Photo", "PhotoMaps", "PhotoReader", "make_photo_maps"]

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

    dataset: PhotoDataset
    classifier: Classifier
    scales: Sequence[float]

    def __call__(self, number: int) -> Photo:
        """Read a photo; the network sees nothing of one without classes."""
        sample = self.dataset[number]
        if not sample.keys:
            return Photo(sample)
        seen = self.classifier.seen(sample.photo, max(self.scales))
        sizes = input_sizes(self.classifier.input_size(*sample.photo.size), self.scales)
        return Photo(sample, [np.asarray(self.classifier.resized(seen, size)) for size in sizes])


@dataclass(frozen=True)
class PhotoMaps:
    """The maps of photos.

    Attributes:
        classifier: the network.
        stages: its layers.
        attributions: methods by name.
        protocol: scales, flips, normalisation and upsampling.
        checkpoint: the name and the hash of the network's weights, from when they were loaded.
    """

    classifier: Classifier
    stages: Stages
    attributions: Mapping[str, Attribute]
    protocol: Protocol
    checkpoint: Mapping[str, str]

    def reader(self, dataset: PhotoDataset) -> PhotoReader:
        """Return a reader of a data set's photos for these maps."""
        return PhotoReader(dataset, replace(self.classifier, model=Identity()), self.protocol.scales)

    def sums(self, method: str, photos: Sequence[Photo], sizes: Sequence[Sequence[Size] | None]) -> list[list[Tensor]]:
        """Return each photo's maps, (K, height, width) at each of its sizes, added over scales and flips.

        Args:
            method: the name of one of the attributions.
            photos: photos whose inputs have equal shapes.
            sizes: see :func:`~captum_regioncam.evaluation.multiscale.summed_maps`.
        """
        if not photos[0].inputs:  # no classes, so nothing to see
            return [[torch.zeros(0, *size) for size in of_photo or ()] for of_photo in sizes]
        times = input_sizes(self.classifier.input_size(*photos[0].sample.photo.size), self.protocol.scales).values()
        summed = summed_maps(
            self.attributions[method],
            zip(self._batches(photos), times, strict=True),
            [photo.sample.targets for photo in photos],
            flip=self.protocol.flip,
            sizes=sizes,
        )
        return [[maps.cpu() for maps in of_photo] for of_photo in summed]

    def _batches(self, photos: Sequence[Photo]) -> Iterator[Tensor]:
        for same_scale in zip(*(photo.inputs for photo in photos), strict=True):
            x = torch.cat([self.classifier.preprocess(pixels) for pixels in same_scale])
            yield x.to(self.classifier.device)

    def finished(
        self, method: str, photos: Sequence[Photo], sizes: Sequence[Size], coarse: Sequence[Size] = ()
    ) -> list[tuple[Tensor, ...]]:
        """Return each photo's maps in [0, 1], upsampled and normalised by the protocol.

        Args:
            method: the name of one of the attributions.
            photos: photos whose inputs have equal shapes.
            sizes: the height and width of each.
            coarse: a second, coarse grid for each.
        """
        upsampled = [irn_size(*size) if self.protocol.upsample == "irn" else size for size in sizes]
        grids = [list(of_photo) for of_photo in (zip(upsampled, coarse, strict=True) if coarse else zip(upsampled))]
        return [
            tuple(normalize(maps, self.protocol.normalize) for maps in (full[:, : size[0], : size[1]], *others))
            for size, (full, *others) in zip(sizes, self.sums(method, photos, grids), strict=True)
        ]

    @contextmanager
    def scores(self) -> Iterator[list[Tensor]]:
        """Collect the network's outputs meanwhile, so that a photo's scores need no extra pass."""
        outputs: list[Tensor] = []
        handle = self.classifier.model.register_forward_hook(lambda *call: outputs.append(call[-1].detach()))
        try:
            yield outputs
        finally:
            handle.remove()


def make_photo_maps(
    options: argparse.Namespace, methods: Sequence[str], protocol: Protocol, dataset: PhotoDataset
) -> PhotoMaps:
    """Build the network that the options name, choose its layers, and try the methods on noise of its input size.

    Args:
        options: the options of the command line.
        methods: the names of the methods.
        protocol: for the maps.
        dataset: the network's outputs must be its classes, except in a folder, where each photo names its own output.

    Raises:
        UsageError: there is no such network or layer, or it does not suit the data set or the methods.
    """
    classifier = classifier_of(options)
    checkpoint = checkpoint_of(classifier.model, options.weights)
    with tried(classifier) as probe:
        _check_scores(classifier, probe, None if options.dataset == "folder" else len(dataset.classes))
        stages = stages_of(classifier.model, probe, layers_named(classifier, options.layers))
        attributions = {
            method: make_method(method, classifier.model, stages, probe, contrast=options.contrast)
            for method in methods
        }
        for attribute in attributions.values():
            attribute(probe, [[0]])
    return PhotoMaps(classifier, stages, attributions, protocol, checkpoint)


def _check_scores(classifier: Classifier, probe: Tensor, classes: int | None) -> None:
    with torch.no_grad():
        scores = classifier.model(probe)
    shape = f"scores of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else describe(scores)
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        raise UsageError(f"--model: gives {shape}, not (N, classes) scores; wrap it in a factory that does.")
    if classes is not None and scores.shape[1] != classes:
        raise UsageError(
            f"--model: gives {shape}; the data set has {classes} classes, and the network's outputs must be these."
        )
