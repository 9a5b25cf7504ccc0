"""Pixel-adaptive mask refinement (PAMR): every position takes the values of the neighbours that have its colour."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["refine_maps"]

_LONGEST = 320  # positions along the longer side of the grid that maps are refined on
_DILATIONS = (1, 2, 4, 8, 12, 24)
_OFFSETS = [
    (row * dilation, column * dilation)
    for dilation in _DILATIONS
    for row in (-1, 0, 1)
    for column in (-1, 0, 1)
    if row or column
]
_WINDOW = 9 * len(_DILATIONS)  # values from which a deviation is computed: each 3 x 3 window has the centre as well


def refine_maps(maps: Tensor, photos: Tensor, iterations: int = 10) -> Tensor:
    r"""Average every map with the neighbours that have the same colour in the photo, several times.

    .. math:: M_i \leftarrow \sum_n w_{in} M_n, \quad
        w_i = \operatorname{softmax}_n \Big(-\frac{1}{C} \sum_c \frac{|x_{cn} - x_{ci}|}{0.1 s_{ci} + 10^{-8}}\Big)

    The 48 neighbours n of a position i are those of 3 x 3 windows with dilations 1, 2, 4, 8, 12 and 24. Beyond the
    edges, the outermost values are repeated. :math:`s_{ci}` is the standard deviation of channel c in these windows.

    Step 8 of the method (Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020). The
    neighbours are views of one padded tensor and are never stacked. Besides the result, one photo at a time takes the
    memory of its 48 weights on a grid of at most 320 x 320, and of a few copies of its maps on that grid.

    Args:
        maps: (N, K, h, w), float32 or float64, finite. They are computed in this dtype.
        photos: (N, C, H, W) on the same device, of any real dtype, in any range and with any normalisation; or
            (1, C, H, W), one photo for all maps.
        iterations: how often the average is taken; 0 only resizes the maps.

    Returns:
        (N, K, H, W), each map within its own range.
    """
    size = photos.shape[2:]
    if not iterations:
        refined = _resized(maps, size)
    elif len(photos) == 1:
        refined = _of_one_photo(maps.flatten(0, 1), photos[0], iterations).view(*maps.shape[:2], *size)
    else:
        pairs = zip(maps, photos, strict=True)
        refined = torch.stack([_of_one_photo(of_photo, photo, iterations) for of_photo, photo in pairs])
    return refined.clamp(maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True))  # rounding may exceed these


def _of_one_photo(maps: Tensor, photo: Tensor, iterations: int) -> Tensor:
    """(K, h, w) and (C, H, W) to (K, H, W)."""
    size = photo.shape[1:]
    grid = [max(1, round(side * min(1, _LONGEST / max(size)))) for side in size]
    weights = _weights(_shrunk(photo, grid, maps.dtype))
    refined = _resized(maps[None], grid)[0].contiguous()
    for _ in range(iterations):
        refined = _step(refined, weights)
    return _resized(refined[None], size)[0]


def _weights(photo: Tensor) -> Tensor:
    """(C, H, W) to (48, H, W), which add up to 1 at each position."""
    total, squares, difference = torch.zeros_like(photo), torch.zeros_like(photo), torch.empty_like(photo)
    views = list(_neighbours(photo))
    for view in views:
        torch.sub(view, photo, out=difference)
        total.add_(difference)
        squares.addcmul_(difference, difference)
    # The six centres differ by 0 from themselves. As differences are taken from the centre, which is in the window six
    # times, the variance is at least a tenth of their mean square: the subtraction loses no more than a digit.
    variance = (squares - total.square_().div_(_WINDOW)).clamp_min_(0).div_(_WINDOW - 1)
    scale = -1 / (len(photo) * (0.1 * variance.sqrt_() + 1e-8))
    weights = photo.new_empty(len(views), *photo.shape[1:])
    for weight, view in zip(weights, views, strict=True):
        torch.sub(view, photo, out=difference)
        torch.sum(difference.abs_().mul_(scale), 0, out=weight)
    # For the same reason, all exponents are above -74 and their largest is above -32: nothing under- or overflows.
    weights.exp_()
    return weights.div_(weights.sum(0))


def _step(maps: Tensor, weights: Tensor) -> Tensor:
    """(K, H, W) and (48, H, W) to the weighted means of the neighbours, (K, H, W)."""
    means = torch.zeros_like(maps)
    for weight, view in zip(weights, _neighbours(maps), strict=True):
        means.addcmul_(view, weight)
    return means


def _neighbours(planes: Tensor) -> Iterator[Tensor]:
    """Yield the 48 neighbours of (C, H, W) values, each a (C, H, W) view of one padded tensor."""
    height, width = planes.shape[1:]
    margin = max(_DILATIONS)
    padded = F.pad(planes, [margin] * 4, mode="replicate")
    for row, column in _OFFSETS:
        top, left = margin + row, margin + column
        yield padded[:, top : top + height, left : left + width]


def _shrunk(photo: Tensor, grid: list[int], dtype: torch.dtype) -> Tensor:
    r"""(C, H, W) to (C, \*grid) in a dtype.

    Each channel is shrunk in float64 (float32 on devices without it). Rounding in float32 would leave noise where the
    photo is flat, and the weights there would follow the noise, however small it is.
    """
    if list(photo.shape[1:]) == grid:
        return photo.to(dtype).contiguous()
    exact = torch.float32 if photo.device.type == "mps" else torch.float64
    return torch.cat([_resized(channel[None, None].to(exact), grid)[0].to(dtype) for channel in photo])


def _resized(maps: Tensor, grid: list[int] | torch.Size) -> Tensor:
    r"""Resize (N, K, h, w) maps to (N, K, \*grid) bilinearly; average where they shrink."""
    shrinks = any(new < old for new, old in zip(grid, maps.shape[2:], strict=True))
    return F.interpolate(maps, size=tuple(grid), mode="bilinear", align_corners=False, antialias=shrinks)
