"""Maps on 1-D, 2-D and 3-D grids: normalise, resize, pool; and what turns other layouts into grids.

Everywhere in this package a map is (N, K, *grid): N examples, K maps each, and one, two or three spatial dimensions.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "ReshapeTransform",
    "channel_chunks",
    "channels_last",
    "finest_grid",
    "fuse",
    "min_max",
    "pool",
    "resize",
    "tokens_to_grid",
]

ReshapeTransform = Callable[[Tensor], Tensor]

_RESIZE_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_POOLS: dict[int, Callable[[Tensor, Any], Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}

# A map whose range is below this many units in the last place of its values varies by rounding alone.
_ROUNDING_ULPS = 64
# A step of a reduction over channels copies at most this many elements: what a CPU's caches hold, and on an accelerator
# enough to fill it.
_CHUNK_ELEMENTS = {"cpu": 2**20}
_CHUNK_ELEMENTS_ELSEWHERE = 2**25


def min_max(maps: Tensor) -> Tensor:
    r"""Stretch every map onto [0, 1]: :math:`(x - \min x) / (\max x - \min x)`.

    Args:
        maps: (N, K, \*grid), finite.

    Returns:
        (N, K, \*grid): minimum 0 and maximum 1 in each map. A constant map (up to rounding) becomes 0 everywhere.
    """
    return _stretch(maps)[0]


def _stretch(maps: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :func:`min_max` of the maps, and which of them vary: (N, K, \*ones), bool."""
    positions = tuple(range(2, maps.dim()))
    low, high = maps.amin(positions, keepdim=True), maps.amax(positions, keepdim=True)
    span = high - low
    rounding = _ROUNDING_ULPS * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    varies = span > rounding
    return (maps - low) / torch.where(varies, span, torch.inf), varies


def resize(maps: Tensor, grid: Sequence[int]) -> Tensor:
    r"""Resize maps (bi-, tri-)linearly, ``align_corners=False``.

    Args:
        maps: (N, K, \*any grid).
        grid: the sizes to come, as many as the maps have spatial dimensions.

    Returns:
        (N, K, \*grid), within the range of ``maps``; ``maps`` itself where the grid is theirs already.
    """
    if tuple(maps.shape[2:]) == tuple(grid):
        return maps
    return F.interpolate(maps, size=tuple(grid), mode=_RESIZE_MODES[maps.dim() - 2], align_corners=False)


def pool(maps: Tensor, grid: Sequence[int]) -> Tensor:
    r"""Average maps down to a coarser grid (adaptive average pooling: the grids need not be nested).

    Args:
        maps: (N, K, \*any grid).
        grid: the sizes to come, as many as the maps have spatial dimensions.

    Returns:
        (N, K, \*grid), within the range of ``maps``; ``maps`` itself where the grid is theirs already.
    """
    if tuple(maps.shape[2:]) == tuple(grid):
        return maps
    return _POOLS[maps.dim() - 2](maps, tuple(grid))


def fuse(maps: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
    r"""Average normalised maps: the mean of :math:`N(S_l)` over the stages *l*, each resized to one grid.

    Step 3 (and, for propagated maps, step 5) of the method. A constant map carries nothing and is left out of the
    mean, per example.

    Args:
        maps: one (N, K, \*its own grid) tensor a stage.
        grid: the grid of the result.

    Returns:
        (N, K, \*grid) in [0, 1], on the first map's device; 0 everywhere where all maps of an example are constant.
    """
    device = maps[0].device
    normalised, varies = zip(*(_stretch(stage_maps.to(device)) for stage_maps in maps), strict=True)
    total = sum_of(resize(stage_maps, grid) for stage_maps in normalised)
    counted = sum_of(stage_varies.to(total.dtype) for stage_varies in varies)
    return (total / counted.clamp_min(1)).clamp(0, 1)  # rounding may leave it by one unit in the last place


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    """Add tensors of one shape without keeping them all."""
    iterator = iter(tensors)
    total = next(iterator)
    for tensor in iterator:
        total = total + tensor
    return total


def finest_grid(grids: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return the grid with the most positions; it does not depend on the order the grids come in."""
    return max((tuple(grid) for grid in grids), key=lambda grid: (math.prod(grid), grid))


def safe_squares(squared_norm: Tensor) -> Tensor:
    """Tell where a sum of squares has neither overflowed nor lost digits to underflow."""
    limits = torch.finfo(squared_norm.dtype)
    return (squared_norm > limits.tiny / limits.eps) & (squared_norm < limits.max)


def channel_chunks(features: Tensor) -> Iterator[Tensor]:
    r"""Walk over a stage's channels in chunks so small that a copy of each costs little memory and time.

    Args:
        features: (N, C, P).

    Yields:
        (N, c, P) views, in order, that together are ``features``: one channel each at least.
    """
    batch, _, positions = features.shape
    budget = _CHUNK_ELEMENTS.get(features.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
    yield from torch.split(features, max(1, budget // (batch * positions)), dim=1)


def channels_last(tensor: Tensor) -> Tensor:
    r"""Turn the layout of Swin and its like into this package's: a ``reshape_transform``.

    Args:
        tensor: (N, \*grid, C).

    Returns:
        (N, C, \*grid), a view.

    Example::

        >>> channels_last(torch.zeros(2, 14, 14, 384)).shape
        torch.Size([2, 384, 14, 14])
    """
    return tensor.movedim(-1, 1)


def tokens_to_grid(prefix_tokens: int = 1, grid: Sequence[int] | None = None) -> ReshapeTransform:
    r"""Make the ``reshape_transform`` of a vision transformer: tokens to their places on the image.

    Args:
        prefix_tokens: tokens before the patches (class token, distillation token, registers), which are dropped.
        grid: how many patches the image has along each dimension. Default: a square.

    Returns:
        A function from (N, prefix + P, C) to (N, C, \*grid).

    Raises:
        ValueError: when it is called on tokens that are no square, or not the product of ``grid``.

    Example::

        >>> tokens_to_grid()(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 14, 14])
    """

    def reshape(tokens: Tensor) -> Tensor:
        if tokens.dim() != 3:
            raise ValueError(f"tokens_to_grid: expects tokens of shape (N, tokens, C), got {tuple(tokens.shape)}.")
        patches = tokens.shape[1] - prefix_tokens
        side = math.isqrt(max(patches, 0))
        sizes = (side, side) if grid is None else tuple(grid)
        if patches < 1 or math.prod(sizes) != patches:
            wanted = "a square number" if grid is None else f"{' x '.join(map(str, sizes))} = {math.prod(sizes)}"
            raise ValueError(
                f"tokens_to_grid: {tokens.shape[1]} tokens less prefix_tokens={prefix_tokens} leave {patches} patches, "
                f"which is not {wanted}. Pass prefix_tokens=<class, distillation and register tokens of the model> "
                "and, for images that are not square, grid=(rows, columns)."
            )
        return tokens[:, prefix_tokens:].transpose(1, 2).reshape(len(tokens), -1, *sizes)

    return reshape
