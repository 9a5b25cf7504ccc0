"""Maps on 1-D, 2-D and 3-D grids: normalise, resize, pool, fuse.

In the method and in the attributions, a map is (N, K, *grid): N examples, K maps each, and one, two or three spatial
dimensions.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "channel_chunks", "depth_weights", "finest_grid", "fuse", "min_max", "pool", "resize", "rounding", "safe_squares",
    "sum_of", "with_contrast",
]  # fmt: skip

_RESIZE_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_POOLS: dict[int, Callable[[Tensor, Any], Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}

# Values that should be equal differ by at most this many units in the last place.
_ROUNDING_ULPS = 64
# A step of a reduction over channels copies at most this many elements: as many as a CPU's caches hold, or enough to
# keep an accelerator busy.
_CHUNK_ELEMENTS = {"cpu": 2**20}
_CHUNK_ELEMENTS_ELSEWHERE = 2**25


def rounding(dtype: torch.dtype) -> float:
    """Return how far apart rounding alone may move values around 1 when a network computes in a dtype."""
    return _ROUNDING_ULPS * torch.finfo(torch.promote_types(dtype, torch.float32)).eps


def min_max(maps: Tensor, constant: Tensor | float | None = None) -> Tensor:
    r"""Stretch every map onto [0, 1]: :math:`(x - \min x) / (\max x - \min x)`.

    Args:
        maps: (N, K, \*grid), finite.
        constant: the range up to which a map counts as constant, one number or one per map. Default: the rounding of
            the map's largest value.

    Returns:
        (N, K, \*grid): minimum 0 and maximum 1 in each map. A constant map becomes 0 everywhere.
    """
    positions = tuple(range(2, maps.dim()))
    low, high = maps.amin(positions, keepdim=True), maps.amax(positions, keepdim=True)
    if constant is None:
        constant = rounding(maps.dtype) * torch.maximum(low.abs(), high.abs())
    span = high - low
    varies = span > constant
    return (maps - low).div_(torch.where(varies, span, 1)).mul_(varies)


def resize(maps: Tensor, grid: Sequence[int]) -> Tensor:
    r"""Resize maps (bi-, tri-)linearly, ``align_corners=False``.

    Args:
        maps: (N, K, \*any grid).
        grid: the new sizes, one for each spatial dimension.

    Returns:
        (N, K, \*grid), within the range of ``maps``; ``maps`` itself if it is on that grid already.
    """
    if tuple(maps.shape[2:]) == tuple(grid):
        return maps
    return F.interpolate(maps, size=tuple(grid), mode=_RESIZE_MODES[maps.dim() - 2], align_corners=False)


def pool(maps: Tensor, grid: Sequence[int]) -> Tensor:
    r"""Bring maps onto a stage's grid: average them down to a coarser grid, or resize them linearly to a finer one.

    The averaging is adaptive average pooling, so the grids need not be nested.

    Args:
        maps: (N, K, \*any grid).
        grid: the new sizes, one for each spatial dimension.

    Returns:
        (N, K, \*grid), within the range of ``maps``; ``maps`` itself if it is on that grid already.
    """
    if tuple(maps.shape[2:]) == tuple(grid):
        return maps
    finer = [max(sizes) for sizes in zip(maps.shape[2:], grid, strict=True)]
    return _POOLS[maps.dim() - 2](resize(maps, finer), tuple(grid))


def fuse(maps: Sequence[Tensor], grid: Sequence[int], weights: Sequence[float] | None = None) -> Tensor:
    r"""Average normalised maps: the mean of :math:`N(S_l)` over the stages *l*, each resized to one grid.

    Step 3 (and, for propagated maps, step 5) of the method. A constant map carries no information and is left out of
    the mean, per example.

    Args:
        maps: one (N, K, \*its own grid) tensor per stage, from :func:`min_max`.
        grid: the grid of the result.
        weights: the stages' weights in the mean, positive. Default: all equal.

    Returns:
        (N, K, \*grid) in [0, 1], on the first map's device; 0 everywhere if all maps of an example are constant.
    """
    maps = [stage_maps.to(maps[0].device) for stage_maps in maps]
    weights = weights or [1.0] * len(maps)
    total = sum_of(resize(stage_maps, grid) * weight for stage_maps, weight in zip(maps, weights, strict=True))
    positions = tuple(range(2, total.dim()))
    varying = [(stage_maps.amax(positions, keepdim=True) > 0).to(total.dtype) for stage_maps in maps]
    weight = sum_of(varies * weight for varies, weight in zip(varying, weights, strict=True))
    # Rounding may exceed [0, 1] by one unit in the last place.
    return (total / torch.where(weight > 0, weight, 1)).clamp(0, 1)


def with_contrast(maps: Tensor, contrast: float) -> Tensor:
    r"""Raise every map, divided by its maximum, to a power: :math:`(M / \max M)^{\text{contrast}}`.

    Step 6 of the method (ours). It comes last, after maps have been added and resized, so that dividing by the maximum
    once more, as IRN does, changes nothing.

    Args:
        maps: (N, K, \*grid), non-negative.
        contrast: the power; 1 only divides.

    Returns:
        (N, K, \*grid) in [0, 1]: maximum 1 in each map. A map that is 0 everywhere stays 0.
    """
    high = maps.amax(tuple(range(2, maps.dim())), keepdim=True)
    return (maps / torch.where(high > 0, high, 1)) ** contrast


def depth_weights(grids: Sequence[Sequence[int]]) -> list[float]:
    """Weight stages by the square root of their strides: the gradients of deeper stages say more about the class.

    Args:
        grids: the stages' grids, all with the same number of dimensions.

    Returns:
        One weight per stage: 1 for the finest, and 2 for a stage with a quarter of its resolution along each axis.
    """
    finest = math.prod(finest_grid(grids))
    return [(finest / math.prod(grid)) ** (0.5 / len(grid)) for grid in grids]


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    """Add tensors of one shape without keeping all of them in memory."""
    iterator = iter(tensors)
    total = next(iterator)
    for tensor in iterator:
        total = total + tensor
    return total


def finest_grid(grids: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return the grid with the most positions, independently of the order of the grids."""
    return max((tuple(grid) for grid in grids), key=lambda grid: (math.prod(grid), grid))


def safe_squares(squared_norm: Tensor) -> Tensor:
    """Return where a sum of squares has neither overflowed nor lost digits to underflow."""
    limits = torch.finfo(squared_norm.dtype)
    return (squared_norm > limits.tiny / limits.eps) & (squared_norm < limits.max)


def channel_chunks(features: Tensor) -> Iterator[Tensor]:
    r"""Split a stage's channels into chunks so small that copying one costs little memory and time.

    Args:
        features: (N, C, P).

    Yields:
        (N, c, P) views, in order, that together are ``features``. Each has at least one channel.
    """
    batch, _, positions = features.shape
    budget = _CHUNK_ELEMENTS.get(features.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
    yield from torch.split(features, max(1, budget // (batch * positions)), dim=1)
