"""The format of wsolevaluation: an (H, W) array, the map of a photo's one class, which the file does not name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_regioncam.evaluation.seeds.seed import Parts, Seed, as_float32

__all__ = ["pack", "unpack"]


def pack(seed: Seed) -> npt.NDArray[np.float32]:
    """Return the content of a seed's file.

    Raises:
        ValueError: the seed does not have one class.
    """
    if len(seed.keys) != 1:
        raise ValueError(f"seed: the format wsol holds one map per photo, not {len(seed.keys)}.")
    return as_float32(seed.high_res[0])


def unpack(content: Any, keys: Sequence[int] | None) -> Parts | None:
    """Return the parts of a seed, or None if the content is not in this format. Without keys, its class is 0."""
    if not isinstance(content, np.ndarray) or content.ndim != 2 or content.dtype.kind != "f":
        return None
    return Parts(list(map(int, keys or [0])), [content[None]])
