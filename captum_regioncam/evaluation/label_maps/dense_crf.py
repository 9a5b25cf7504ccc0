"""Dense CRF: labels that follow the photo's edges.

The model is that of Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials"
(NIPS 2011), in their own implementation, which pydensecrf2 wraps.
"""

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["import_crf", "inference"]

_STEPS = 10


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


def inference(
    photo: Image.Image, unary: npt.NDArray[np.float32], count: int, sxy: float, srgb: float
) -> npt.NDArray[np.float32]:
    """Return the (count, height, width) scores of the labels.

    Args:
        photo: RGB.
        unary: the labels' energies, as pydensecrf makes them.
        count: of the labels.
        sxy: how far the photo's colours reach, in pixels.
        srgb: how far apart colours count as alike.

    Raises:
        ImportError: pydensecrf2 is not installed.
    """
    model = import_crf().densecrf.DenseCRF2D(photo.width, photo.height, count)
    model.setUnaryEnergy(np.ascontiguousarray(unary))
    model.addPairwiseGaussian(sxy=3, compat=3)
    pixels = np.array(photo.convert("RGB"), dtype=np.uint8)
    model.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=pixels, compat=10)
    scores: npt.NDArray[np.float32] = np.array(model.inference(_STEPS), dtype=np.float32)
    return scores.reshape(count, photo.height, photo.width)
