"""Numbers and sizes that functions are given: read, so that each function can check their range."""

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

__all__ = ["plane_size", "real", "whole"]


def real(value: Any) -> float:
    """Return a number, also from a tensor or an array without dimensions; NaN, which no range holds, for the rest."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    return float(value) if isinstance(value, Real) else math.nan


def whole(value: Any) -> int:
    """Return a whole number above 0, and 0 for anything else."""
    try:
        return max(0, operator.index(value))
    except TypeError:
        return 0


def plane_size(name: str, size: Any, order: str = "(height, width)") -> tuple[int, int]:
    """Return a size as two whole numbers above 0.

    Args:
        name: the argument, for the error.
        size: what was given for it.
        order: which of the two comes first, for the error.

    Raises:
        ValueError: it is something else.
    """
    sides = tuple(map(whole, size)) if isinstance(size, Iterable) else ()
    if len(sides) != 2 or not all(sides):
        raise ValueError(f"{name}={size!r}: expects {order}, two whole numbers above 0.")
    return sides
