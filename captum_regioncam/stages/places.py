"""Where a tensor answers to changes of the input: which of its dimensions are places, and in which order.

The input is changed in one band after another along one of its axes, a quarter of it at a time. A tensor that says what
is where changes most at the band's own place, and so shows which of its dimensions goes along that axis.
"""

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["BANDS", "answers", "are_in_place", "at_own_place", "per_dimension", "sharpness"]

BANDS = 4
_ALIKE = 0.03


def answers(tensor: Tensor) -> list[Tensor]:
    """Measure how a tensor answers to the bands, along each of its dimensions.

    Args:
        tensor: (1 + BANDS, ...) for the input as it is, and with each band changed.

    Returns:
        For each dimension after the first, (BANDS, its size): the sum of the absolute changes.
    """
    tensor = tensor.detach()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    return per_dimension((tensor[1:].float() - tensor[:1].float()).abs_())


def per_dimension(values: Tensor) -> list[Tensor]:
    """Sum (n, ...) values of at least three dimensions over all but one of those after the first: (n, its size)."""
    over_second = values.sum(1)  # a pass over all values is slow: two are enough
    rest = range(1, over_second.dim())
    others = ([other for other in rest if other != one] for one in rest)
    return [values.flatten(2).sum(2), *(over_second.sum(dims) if dims else over_second for dims in others)]


def at_own_place(along: Tensor) -> float:
    """Return the share of the positions' answers that goes to the bands at their own places: from 0 to 1.

    Args:
        along: (BANDS, L) the answers along an axis, or (BANDS, L, M) if there are M positions beside each other.
    """
    shares = _shares(along if along.dim() > 2 else along[..., None])
    return float((shares * _covered(along.shape[1])[..., None]).sum(0).mean())


def are_in_place(along: Tensor) -> bool | None:
    """Return whether the positions along an axis answer most to the bands at their own places.

    The receptive fields of deep layers are wide, so that a position may answer more to the band beside its own. But if
    the order is right, their own bands' share is not far below what it would be in the best of all orders.

    Args:
        along: as above.

    Returns:
        None if they answer to all bands alike, or are fewer than the bands, which tells nothing about the order.
    """
    if along.shape[1] < BANDS:
        return None
    best = sharpness(along) - 1 / BANDS
    return at_own_place(along) - 1 / BANDS > best / 2 if best > _ALIKE else None


def sharpness(along: Tensor) -> float:
    """Return the share of the positions' answers that goes to the band that each answers to most: from 1/4 to 1."""
    return float(_shares(along).amax(0).mean())


def _shares(along: Tensor) -> Tensor:
    """Divide each position's answers among the bands, after dividing each band's answers by their sum."""
    along = along.double().cpu()
    relative = along / along.sum(list(range(1, along.dim())), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    total = relative.sum(0, keepdim=True)
    return torch.where(total > 0, relative / total.clamp_min(torch.finfo(torch.float64).tiny), 1 / BANDS)


@lru_cache
def _covered(size: int) -> Tensor:
    """Return how much of each of the positions along an axis lies in each band: (BANDS, size), columns sum to 1."""
    edges = torch.arange(size + 1, dtype=torch.float64) * BANDS / size
    bands = torch.arange(BANDS, dtype=torch.float64)[:, None]
    inside = torch.minimum(edges[1:], bands + 1) - torch.maximum(edges[:-1], bands)
    return inside.clamp_min(0) * size / BANDS
