"""Dense CRF of scores, as CLIP-ES refines its maps (Lin et al., CVPR 2023)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.evaluation.label_maps.crf_labelling import CrfLabelling
from captum_regioncam.evaluation.label_maps.dense_crf import Kernels, import_crf

__all__ = ["ClipEsCrf"]

_MEAN = np.array([104.008, 116.669, 122.675], dtype=np.float32)  # BGR


@dataclass(frozen=True)
class ClipEsCrf(CrfLabelling):
    """The most likely labels after the CRF of ``eval_cam_with_crf.py``, which takes the maps as probabilities.

    Attributes:
        background: the background's map; CLIP-ES's is :class:`Power`, 1 - the highest map.
        confidence: pixels whose label has a lower probability after the CRF are 255; CLIP-ES trains with 0.95.
    """

    name = "clip-es"
    kernels = Kernels(sxy=67, srgb=3, weight=4, smooth_sxy=1, smooth_weight=3)

    confidence: float | None = None

    def settings(self) -> dict[str, object]:
        """Return what the files depend on."""
        return {**super().settings(), "confident": self.confidence}

    def unary(self, planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the energies of the maps, as if they were probabilities."""
        energies: npt.NDArray[np.float32] = import_crf().utils.unary_from_softmax(planes)
        return energies

    def pixels(self, photo: Image.Image) -> npt.NDArray[np.uint8]:
        """Return BGR pixels less their mean; negative values wrap around, as they do in CLIP-ES's script."""
        centred = np.asarray(photo.convert("RGB"), dtype=np.float32)[:, :, ::-1] - _MEAN
        return np.ascontiguousarray(centred.astype(np.int64).astype(np.uint8))

    def cut(self, scores: npt.NDArray[np.float32], named: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the most likely labels, and 255 where their probability is below ``confidence``."""
        labels = super().cut(scores, named)
        if self.confidence is not None:
            labels[scores.max(0) < self.confidence] = 255
        return labels
