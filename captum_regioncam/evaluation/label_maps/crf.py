"""Dense CRF: labels and scores that follow the photo's edges, as IRN and PSA refine their seeds.

The model is that of Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials"
(NIPS 2011), in their own implementation, which pydensecrf2 wraps.
"""

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.evaluation.label_maps.threshold import class_labels, label_map

__all__ = ["confident_labels", "crf_labels", "crf_scores", "import_crf"]

_STEPS = 10
_CERTAINTY = 0.7  # of a label map's labels, in IRN


def import_crf() -> Any:
    """Return pydensecrf.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        importlib.import_module("pydensecrf.densecrf")
        importlib.import_module("pydensecrf.utils")
    except ImportError as error:
        raise ImportError(
            f'dense CRF needs: pip install "captum_regioncam[crf]" ({error}). Installation compiles pydensecrf2, '
            "which needs a C++ compiler and Python's headers (Debian: g++ and python3-dev)."
        ) from error
    return importlib.import_module("pydensecrf")


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
    scores = _inference(photo, unary, len(planes) + 1, sxy=50, srgb=5)
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


def crf_scores(photo: Image.Image, high_res: npt.NDArray[Any], alpha: float) -> npt.NDArray[np.float32]:
    """Refine the scores of a seed as PSA does (Ahn and Kwak, CVPR 2018, infer_cls.py).

    The background's score is (1 - the highest map) to the power of ``alpha``. A higher ``alpha`` gives less background.

    Args:
        photo: RGB.
        high_res: (K, height, width) in [0, 1], at least one map.
        alpha: PSA uses a low one (4) and a high one (24).

    Returns:
        (K + 1, height, width) in [0, 1], the background first.

    Raises:
        ImportError: pydensecrf2 is not installed.

    Example::

        >>> crf_scores(photo, np.random.rand(1, 375, 500), alpha=4).shape
        (2, 375, 500)
    """
    maps = np.asarray(high_res, dtype=np.float32)
    background = (1 - maps.max(0, keepdims=True)) ** alpha
    unary = import_crf().utils.unary_from_softmax(np.concatenate([background, maps]))
    return _inference(photo, unary, len(maps) + 1, sxy=80, srgb=13)


def _inference(
    photo: Image.Image, unary: npt.NDArray[np.float32], count: int, sxy: float, srgb: float
) -> npt.NDArray[np.float32]:
    model = import_crf().densecrf.DenseCRF2D(photo.width, photo.height, count)
    model.setUnaryEnergy(np.ascontiguousarray(unary))
    model.addPairwiseGaussian(sxy=3, compat=3)
    pixels = np.array(photo.convert("RGB"), dtype=np.uint8)
    model.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=pixels, compat=10)
    scores: npt.NDArray[np.float32] = np.array(model.inference(_STEPS), dtype=np.float32)
    return scores.reshape(count, photo.height, photo.width)
