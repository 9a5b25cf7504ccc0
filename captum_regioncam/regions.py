"""From a map to a mask, and to boxes around its regions."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_regioncam.arguments import real
from captum_regioncam.pictures import Size, size_of

__all__ = ["to_boxes", "to_mask"]

_LEVELS = 255


def to_mask(attribution: Tensor | npt.NDArray[Any], threshold: float | str = 0.15, size: Size | None = None) -> Tensor:
    """Cut a map at a threshold.

    Args:
        attribution: (..., h, w) maps, non-negative, such as the (N, K, h, w) of
            :meth:`LayerRegionCam.attribute_targets`.
        threshold: the region is what lies above this share of a map's maximum; seeds of weakly supervised segmentation
            are cut at 0.15. Or "otsu": each map is cut at the threshold that best separates its high values from its
            low ones (Otsu, 1979), found by OpenCV.
        size: the size to upsample the maps to (bilinear) before the cut: the photo, as a PIL image, an (H, W, 3) array
            or a (3, H, W) tensor; or its height and width. Default: the map's own.

    Returns:
        (..., height, width) bool. A map that is 0 everywhere has no region.

    Raises:
        ValueError: ``threshold`` is neither in [0, 1) nor "otsu", the maps are not finite or have another shape, or
            ``size`` is neither a photo nor two numbers above 0.
        ImportError: "otsu" needs OpenCV, which is not installed.

    Example::

        >>> to_mask(torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.8, 1.0]]))
        tensor([[False, False,  True],
                [ True,  True,  True]])
    """
    by_otsu = isinstance(threshold, str) and threshold == "otsu"
    share = real(threshold)
    if not by_otsu and not 0 <= share < 1:
        raise ValueError(f"threshold={threshold!r}: expects a number in [0, 1), or 'otsu'.")
    maps = _upsampled(attribution, size)
    relative = maps / maps.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    if by_otsu:
        flat = relative.reshape(-1, *maps.shape[-2:])
        return torch.stack([one > _otsu(one) for one in flat]).view(maps.shape)
    return relative > share


def to_boxes(
    attribution: Tensor | npt.NDArray[Any],
    threshold: float | str = 0.15,
    size: Size | None = None,
    *,
    largest: bool = True,
) -> list[Tensor]:
    """Put boxes around the connected regions of maps.

    Args:
        attribution: (..., h, w) maps.
        threshold: as in :func:`to_mask`.
        size: as in :func:`to_mask`.
        largest: return only the region with the largest area; otherwise all regions, the largest first.

    Returns:
        For each map, in order, (B, 4) boxes x0, y0, x1, y1 in pixels. As in torchvision, x1 and y1 lie just outside
        the region. A map without a region has no boxes: (0, 4).

    Raises:
        ValueError: as in :func:`to_mask`.
        ImportError: OpenCV is not installed.

    Example::

        >>> attribution = torch.zeros(1, 1, 6, 8)
        >>> attribution[0, 0, 1:3, 2:7] = 1
        >>> to_boxes(attribution)
        [tensor([[2, 1, 7, 3]])]
    """
    cv2 = _opencv("to_boxes")
    masks = to_mask(attribution, threshold, size)
    found = []
    for mask in masks.reshape(-1, *masks.shape[-2:]).numpy().astype(np.uint8):
        _, _, regions, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        x, y, width, height, area = regions[1:].T  # the first is the background
        boxes = np.stack([x, y, x + width, y + height], axis=1)[np.argsort(-area, kind="stable")]
        found.append(torch.from_numpy(boxes[: 1 if largest else None].astype(np.int64)))
    return found


def _upsampled(attribution: Tensor | npt.NDArray[Any], size: Size | None) -> Tensor:
    maps = torch.as_tensor(attribution).detach().float().cpu()
    if maps.dim() < 2 or not maps.numel():
        raise ValueError(f"attribution: expects (..., h, w) maps; got shape {tuple(maps.shape)}.")
    if not maps.isfinite().all():
        raise ValueError("attribution: the maps are not finite (NaN or infinite).")
    if size is None:
        return maps
    height, width = size_of(size)
    upsampled: Tensor = LayerAttribution.interpolate(
        maps.reshape(1, -1, *maps.shape[-2:]), (height, width), interpolate_mode="bilinear"
    )
    return upsampled.view(*maps.shape[:-2], height, width)


def _otsu(relative: Tensor) -> float:
    cv2 = _opencv("threshold='otsu'")
    level, _ = cv2.threshold((relative.clamp(0, 1) * _LEVELS).round().byte().numpy(), 0, 1, cv2.THRESH_OTSU)
    return float(level + 0.5) / _LEVELS


def _opencv(what: str) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f'{what} needs OpenCV: pip install "captum_regioncam[regions]" ({error}).') from error
    return cv2
