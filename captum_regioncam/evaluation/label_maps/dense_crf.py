"""Dense CRF: labels that follow the photo's edges.

The model is that of Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials"
(NIPS 2011), in their own implementation, which pydensecrf2 wraps.
"""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Kernels", "import_crf", "inference"]

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


@dataclass(frozen=True)
class Kernels:
    """What makes neighbours likely to have the same label.

    Attributes:
        sxy: how far the photo's colours reach, in pixels.
        srgb: how far apart colours may be and still count as alike, in levels of 0 to 255.
        weight: the weight of the colours.
        smooth_sxy: how far smoothness reaches, whatever the colours, in pixels.
        smooth_weight: the weight of smoothness.
    """

    sxy: float
    srgb: float
    weight: float = 10
    smooth_sxy: float = 3
    smooth_weight: float = 3


def inference(
    pixels: npt.NDArray[np.uint8], unary: npt.NDArray[np.float32], count: int, kernels: Kernels
) -> npt.NDArray[np.float32]:
    """Return the (count, height, width) probabilities of the labels, after 10 steps.

    Args:
        pixels: (height, width, 3), writable; the order of the colours changes the probabilities a little.
        unary: the labels' energies, as pydensecrf makes them.
        count: the number of labels.
        kernels: what makes neighbours likely to have the same label.

    Raises:
        ImportError: pydensecrf2 is not installed.
    """
    height, width = pixels.shape[:2]
    model = import_crf().densecrf.DenseCRF2D(width, height, count)
    model.setUnaryEnergy(np.ascontiguousarray(unary))
    model.addPairwiseGaussian(sxy=kernels.smooth_sxy, compat=kernels.smooth_weight)
    model.addPairwiseBilateral(sxy=kernels.sxy, srgb=kernels.srgb, rgbim=pixels, compat=kernels.weight)
    scores: npt.NDArray[np.float32] = np.array(model.inference(_STEPS), dtype=np.float32)
    return scores.reshape(count, height, width)
