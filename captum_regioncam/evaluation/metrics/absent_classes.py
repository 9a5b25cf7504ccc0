"""How a mean over classes treats classes that are absent from the ground truth; pipelines differ in this."""

import torch
from torch import Tensor

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.metrics import ABSENT

__all__ = ["check_absent", "over_classes"]


def check_absent(absent: str) -> str:
    """Return ``absent`` unchanged if it is one of ``ABSENT``.

    Raises:
        ArgumentError: it is something else.
    """
    if absent not in ABSENT:
        raise ArgumentError(Argument("absent", absent), f": expects one of {', '.join(ABSENT)}.")
    return absent


def over_classes(values: Tensor, truth: Tensor, absent: str) -> Tensor:
    """Return values with NaN for the classes that do not count, so that ``nanmean`` averages over the others.

    Args:
        values: (..., C), NaN where a class has none.
        truth: (C,) the number of pixels of each class in the ground truth.
        absent: one of ``ABSENT``.
    """
    if absent == "zero":
        return values.nan_to_num(0)
    return values.masked_fill(truth == 0, torch.nan) if absent == "ignore-predicted" else values
