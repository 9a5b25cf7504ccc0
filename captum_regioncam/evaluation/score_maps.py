"""Score maps: maps as wsolevaluation compares them with boxes and masks (Choe et al., CVPR 2020)."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.extras import extra
from captum_regioncam.method.grids import min_max

__all__ = ["SIDE", "score_map", "stretched"]

SIDE = 224
"""The side of the square on which maps and boxes are compared, in pixels."""


def score_map(cam: Tensor, side: int = SIDE) -> npt.NDArray[np.float32]:
    """Resize a map (cubic), and stretch it from its minimum to its maximum onto [0, 1].

    Args:
        cam: (H, W) map.
        side: the height and width of the result.

    Returns:
        (side, side) in [0, 1]; zeros if the map is constant or has a value that is not finite.

    Raises:
        ValueError: the map has another shape.
        ImportError: OpenCV is not installed.
    """
    with extra("eval"):
        import cv2
    if cam.dim() != 2:
        raise ValueError(f"cam of shape {tuple(cam.shape)}: expects (H, W).")
    if not cam.isfinite().all():
        return np.zeros((side, side), dtype=np.float32)
    pixels = cv2.resize(cam.detach().float().cpu().numpy(), (side, side), interpolation=cv2.INTER_CUBIC)
    scores: npt.NDArray[np.float32] = stretched(torch.from_numpy(pixels)).numpy()
    return scores


def stretched(cam: Tensor) -> Tensor:
    """Return an (H, W) map stretched onto 0 to 1; zeros if it is constant or has a NaN."""
    cam = cam.detach().float()
    return min_max(cam[None, None])[0, 0] if cam.isfinite().all() else torch.zeros_like(cam)
