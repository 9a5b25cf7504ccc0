"""A photo's seed, and the parts of it that a file holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

__all__ = ["Parts", "Seed", "as_float32", "with_dimensions"]


@dataclass(frozen=True)
class Seed:
    """The maps of one photo's classes.

    Attributes:
        keys: (K,) classes, counted without the background.
        cam: (K, ceil(height / 4), ceil(width / 4)) float32 in [0, 1].
        high_res: (K, height, width) float32 in [0, 1].

    Example::

        >>> maps = torch.rand(2, 375, 500)
        >>> seed = Seed(torch.tensor([7, 14]), torch.rand(2, 94, 125), maps.numpy())  # cat and person of VOC
        >>> seed.high_res.shape
        (2, 375, 500)
    """

    keys: Tensor
    cam: Tensor
    high_res: npt.NDArray[np.float32]


class Parts(NamedTuple):
    """What a file holds of a seed, neither copied nor checked.

    Attributes:
        keys: K classes, as a list or an array.
        high_res: arrays (k, height, width), K maps together; no arrays if the file has only ``cam``.
        cam: (K, height, width) coarse maps; None if the format has none.
        of_any_size: whether ``high_res`` may have another size than the photo.
    """

    keys: Any
    high_res: Sequence[npt.NDArray[Any]]
    cam: npt.NDArray[Any] | None = None
    of_any_size: bool = False


def as_float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return an array as float32, row by row in memory."""
    return np.ascontiguousarray(values, dtype=np.float32)


def with_dimensions(count: int, value: Any) -> npt.NDArray[Any]:
    """Return a file's array unchanged if it has ``count`` dimensions.

    Raises:
        ValueError: it has another number of dimensions, or is not an array.
    """
    if not isinstance(value, np.ndarray) or value.ndim != count:
        what = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise ValueError(f"has {what} for maps")
    return value
