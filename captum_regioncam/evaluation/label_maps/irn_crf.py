"""Dense CRF of labels, as IRN refines its seeds (Ahn et al., CVPR 2019)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.evaluation.label_maps.backgrounds import Constant
from captum_regioncam.evaluation.label_maps.crf_labelling import Confident, CrfLabelling
from captum_regioncam.evaluation.label_maps.dense_crf import Kernels, import_crf

__all__ = ["IrnCrf", "confident_labels", "crf_labels"]

_CERTAINTY = 0.7  # that IRN gives the labels of a label map


@dataclass(frozen=True)
class IrnCrf(CrfLabelling):
    """The refined label map of the maps and the background."""

    name = "irn"
    kernels = Kernels(sxy=50, srgb=5)
    thresholds = (0.05, 0.3)

    def unary(self, planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the energies of the best labels, all equally certain."""
        labels = planes.argmax(0).astype(np.int64)
        energies: npt.NDArray[np.float32] = import_crf().utils.unary_from_labels(
            labels, len(planes), _CERTAINTY, zero_unsure=False
        )
        return energies


def crf_labels(
    photo: Image.Image, high_res: npt.NDArray[Any], keys: npt.ArrayLike, threshold: float = 0.15
) -> npt.NDArray[np.uint8]:
    """Refine the label map of a seed as IRN does (Ahn et al., CVPR 2019, misc/imutils.py).

    Args:
        photo: the photo, an RGB image.
        high_res: (K, height, width) in [0, 1].
        keys: (K,) classes, counted without the background.
        threshold: the background threshold before the CRF, in [0, 1].

    Returns:
        (height, width) uint8, 0 for the background, otherwise key + 1.

    Raises:
        ImportError: pydensecrf2 is not installed.
        ValueError: a key is not in 0 to 253, or a score is NaN.

    Example::

        >>> seed = np.random.rand(1, 375, 500)
        >>> labels = crf_labels(photo, seed, keys=[7])
        >>> labels.shape, labels.dtype
        ((375, 500), dtype('uint8'))
    """
    return IrnCrf(Constant(threshold)).refined(photo, high_res, keys)


def confident_labels(
    photo: Image.Image,
    high_res: npt.NDArray[Any],
    keys: npt.ArrayLike,
    background: float = 0.05,
    foreground: float = 0.3,
) -> npt.NDArray[np.uint8]:
    """Label only pixels that are certain, as for IRN's training (step/cam_to_ir_label.py).

    Args:
        photo: the photo, an RGB image.
        high_res: (K, height, width) in [0, 1].
        keys: (K,) classes, counted without the background.
        background: pixels that are background at this threshold, after the CRF, are certain background.
        foreground: pixels that have a class at this threshold, after the CRF, are certain to have it.

    Returns:
        (height, width) uint8, 0, key + 1, or 255 where neither is certain.

    Raises:
        ImportError: pydensecrf2 is not installed.
        ValueError: a key is not in 0 to 253, or a score is NaN.

    Example::

        >>> seed = np.full((1, 375, 500), 0.2)
        >>> np.unique(confident_labels(photo, seed, keys=[7]))
        array([255], dtype=uint8)
    """
    return Confident(IrnCrf(Constant()), background, foreground).refined(photo, high_res, keys)
