"""Dense CRF of labels, as IRN refines its seeds (Ahn et al., CVPR 2019)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.evaluation.label_maps.dense_crf import import_crf, inference
from captum_regioncam.evaluation.label_maps.strategy import Labelling, needed
from captum_regioncam.evaluation.label_maps.threshold import class_labels, label_map
from captum_regioncam.evaluation.seeds.seed import Seed

__all__ = ["ConfidentCrf", "IrnCrf", "confident_labels", "crf_labels"]

_CERTAINTY = 0.7  # of a label map's labels, in IRN


@dataclass(frozen=True)
class IrnCrf(Labelling):
    """The label map at one background threshold, refined."""

    threshold: float = 0.15

    def settings(self) -> dict[str, object]:
        """Return what the files depend on."""
        return {"threshold": self.threshold, "crf": "irn", "confident": None}

    def labels(self, seed: Seed, photo: Image.Image | None) -> npt.NDArray[np.uint8]:
        """Return (height, width) labels."""
        return crf_labels(needed(photo), seed.high_res, seed.keys.numpy(), self.threshold)


@dataclass(frozen=True)
class ConfidentCrf(Labelling):
    """Labels where they are certain, and 255 elsewhere, for IRN's training."""

    background: float = 0.05
    foreground: float = 0.3

    def settings(self) -> dict[str, object]:
        """Return what the files depend on."""
        return {"crf": "irn", "confident": [self.background, self.foreground]}

    def labels(self, seed: Seed, photo: Image.Image | None) -> npt.NDArray[np.uint8]:
        """Return (height, width) labels."""
        return confident_labels(needed(photo), seed.high_res, seed.keys.numpy(), self.background, self.foreground)


def crf_labels(
    photo: Image.Image, high_res: npt.NDArray[Any], keys: npt.ArrayLike, threshold: float = 0.15
) -> npt.NDArray[np.uint8]:
    """Refine the label map of a seed as IRN does (Ahn et al., CVPR 2019, misc/imutils.py).

    Args:
        photo: RGB.
        high_res: (K, height, width) in [0, 1].
        keys: (K,) classes, counted without the background.
        threshold: the background threshold, before the CRF.

    Returns:
        (height, width): 0 for the background, otherwise key + 1.

    Raises:
        ImportError: pydensecrf2 is not installed.
        ValueError: a key is not in 0 to 253, or a score is NaN.

    Example::

        >>> seed = np.random.rand(1, 375, 500)
        >>> labels = crf_labels(photo, seed, keys=[7])
        >>> labels.shape, labels.dtype
        ((375, 500), dtype('uint8'))
    """
    named, planes = class_labels(keys), np.arange(len(high_res))
    labels = label_map(np.asarray(high_res), planes, threshold)
    crf = import_crf()
    unary = crf.utils.unary_from_labels(labels.astype(np.int64), len(planes) + 1, _CERTAINTY, zero_unsure=False)
    scores = inference(photo, unary, len(planes) + 1, sxy=50, srgb=5)
    refined: npt.NDArray[np.uint8] = named[scores.argmax(0)]
    return refined


def confident_labels(
    photo: Image.Image,
    high_res: npt.NDArray[Any],
    keys: npt.ArrayLike,
    background: float = 0.05,
    foreground: float = 0.3,
) -> npt.NDArray[np.uint8]:
    """Label only pixels that are certain, as for IRN's training (step/cam_to_ir_label.py).

    Args:
        photo: RGB.
        high_res: (K, height, width) in [0, 1].
        keys: (K,) classes, counted without the background.
        background: pixels that are background at this threshold, after the CRF, are certain background.
        foreground: pixels that have a class at this threshold, after the CRF, are certain to have it.

    Returns:
        (height, width): 0, key + 1, or 255 where neither is certain.

    Raises:
        ImportError: pydensecrf2 is not installed.
        ValueError: a key is not in 0 to 253, or a score is NaN.

    Example::

        >>> seed = np.full((1, 375, 500), 0.2)
        >>> np.unique(confident_labels(photo, seed, keys=[7]))
        array([255], dtype=uint8)
    """
    sure = crf_labels(photo, high_res, keys, foreground)
    perhaps = crf_labels(photo, high_res, keys, background)
    labels: npt.NDArray[np.uint8] = np.where(sure > 0, sure, np.where(perhaps > 0, 255, 0)).astype(np.uint8)
    return labels
