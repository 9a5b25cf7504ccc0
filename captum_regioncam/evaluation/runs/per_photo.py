"""What is kept of each photo until the best threshold is known: its scores at every threshold."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

__all__ = ["Curves", "PhotoCounts", "at_threshold", "curves_of"]

Curves = tuple[list[str], Tensor, Tensor]
"""One method's scores of a photo: their S names; where runs of thresholds with equal scores begin, (R,); (R, S) scores.

Only lists, tensors and texts, so that they are kept with the counts of a run that is interrupted.
"""


class PhotoCounts(TypedDict):
    """What is kept of a photo: the names of its classes, and each method's curves."""

    classes: list[str]
    curves: dict[str, Curves]


def curves_of(names: Sequence[str], scores: Tensor) -> Curves:
    """Return a photo's scores without repetitions.

    Args:
        names: of the S scores.
        scores: (T, S), at each of T thresholds.

    Example::

        >>> curves_of(["iou"], torch.tensor([[0.5], [0.5], [0.25]]))
        (['iou'], tensor([0, 2]), tensor([[0.5000],
                [0.2500]]))
    """
    scores = scores.float()
    changed = (scores[1:].nan_to_num(-1) != scores[:-1].nan_to_num(-1)).any(1)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), changed.nonzero().flatten() + 1])
    return list(names), starts, scores[starts]


def at_threshold(curves: Curves, index: int) -> dict[str, float]:
    """Return the scores at one of the thresholds, by name; NaN where there is none.

    Example::

        >>> at_threshold(curves_of(["iou"], torch.tensor([[0.5], [0.5], [0.25]])), 1)
        {'iou': 0.5}
    """
    names, starts, scores = curves
    run = int(torch.searchsorted(starts, index, right=True)) - 1
    return dict(zip(names, scores[run].tolist(), strict=True))
