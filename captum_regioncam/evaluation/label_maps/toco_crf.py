"""Dense CRF of scores, as ToCo refines its maps (Ru et al., CVPR 2023)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_regioncam.evaluation.label_maps.crf_labelling import CrfLabelling
from captum_regioncam.evaluation.label_maps.dense_crf import Kernels, import_crf

__all__ = ["TocoCrf"]


@dataclass(frozen=True)
class TocoCrf(CrfLabelling):
    """The most likely labels after the CRF of ``infer_cam_crf_label.py``, which takes the softmax of the maps."""

    name = "toco"
    kernels = Kernels(sxy=36, srgb=3, weight=4, smooth_sxy=3, smooth_weight=3)
    thresholds = (0.25, 0.7)

    def unary(self, planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the energies of the softmax of the maps and the background."""
        scaled = np.exp(planes - planes.max(0))
        energies: npt.NDArray[np.float32] = import_crf().utils.unary_from_softmax(scaled / scaled.sum(0))
        return energies
