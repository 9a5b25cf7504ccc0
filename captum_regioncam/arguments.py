"""Numbers and sizes as arguments: converted, so that each function can check their range."""

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

__all__ = ["plane_size", "real", "whole"]


def real(value: Any) -> float:
    """Return a number as a float, also from a tensor or array without dimensions; NaN, in no range, for all else."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    return float(value) if isinstance(value, Real) else math.nan


def whole(value: Any) -> int:
    """Return a whole number above 0 unchanged, and 0 for anything else."""
    try:
        return max(0, operator.index(value))
    except TypeError:
        return 0


def plane_size(name: str, size: Any, order: str = "(height, width)") -> tuple[int, int]:
    """Return a size as two whole numbers above 0.

    Args:
        name: the argument's name, for the error.
        size: the argument's value.
        order: which of the two comes first, for the error.

    Raises:
        ValueError: ``size`` is something else.
    """
    sides = tuple(map(whole, size)) if isinstance(size, Iterable) else ()
    if len(sides) != 2 or not all(sides):
        raise ValueError(f"{name}={size!r}: expects {order}, two whole numbers above 0.")
    return sides
