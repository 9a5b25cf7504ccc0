"""What is kept of each photo until the best threshold is known: the photo's scores at every threshold."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor

__all__ = ["Curves", "Packed", "PhotoCounts", "at_threshold", "curves_of", "pack", "unpack"]

Curves = tuple[list[str], Tensor, Tensor]
"""One method's scores of a photo: their S names; (R,) where runs of thresholds with equal scores begin; (R, S)."""


class PhotoCounts(TypedDict):
    """What is kept of a photo: the names of its classes, and each method's curves."""

    classes: list[str]
    curves: dict[str, Curves]


class Packed(TypedDict):
    """What is kept of many photos, in few tensors, so that a file of them is written and read at once."""

    index: list[tuple[str, list[str], list[tuple[str, list[str], int]]]]
    starts: Tensor
    scores: Tensor


def curves_of(names: Sequence[str], scores: Tensor) -> Curves:
    """Return a photo's scores without repetitions.

    Args:
        names: the names of the S scores.
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


def pack(photos: Mapping[str, PhotoCounts]) -> Packed:
    """Return what is kept of photos, by name, in a form for a file."""
    curves = [of for photo in photos.values() for of in photo["curves"].values()]
    return {
        "index": [
            (name, photo["classes"], [(method, of[0], len(of[1])) for method, of in photo["curves"].items()])
            for name, photo in photos.items()
        ],
        "starts": torch.cat([starts for _, starts, _ in curves]) if curves else torch.zeros(0, dtype=torch.long),
        "scores": torch.cat([scores.flatten() for *_, scores in curves]) if curves else torch.zeros(0),
    }


def unpack(packed: Packed) -> dict[str, PhotoCounts]:
    """Return what :func:`pack` was given.

    Example::

        >>> photos = {"a": PhotoCounts(classes=["cat"], curves={"cam": curves_of(["iou"], torch.tensor([[0.5]]))})}
        >>> unpack(pack(photos))
        {'a': {'classes': ['cat'], 'curves': {'cam': (['iou'], tensor([0]), tensor([[0.5000]]))}}}
    """
    starts, scores = packed["starts"], packed["scores"]
    photos: dict[str, PhotoCounts] = {}
    for name, classes, methods in packed["index"]:
        photos[name] = {"classes": classes, "curves": {}}
        for method, names, runs in methods:
            own = scores[: runs * len(names)].view(runs, len(names))
            photos[name]["curves"][method] = names, starts[:runs], own
            starts, scores = starts[runs:], scores[runs * len(names) :]
    return photos
