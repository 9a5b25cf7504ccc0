"""The format of wsolevaluation: a (224, 224) array, the map of a photo's one class, which the file does not name.

Its evaluation.py takes no other size: it resizes boxes and masks to 224 x 224, but not the maps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from captum_regioncam.evaluation.score_maps import score_map
from captum_regioncam.evaluation.seeds.seed import Parts, Seed, as_float32

__all__ = ["pack", "unpack"]


def pack(seed: Seed) -> npt.NDArray[np.float32]:
    """Return the content of a seed's file: its map resized (cubic) and stretched onto 0 to 1.

    Raises:
        ValueError: the seed does not have one class.
        ImportError: OpenCV is not installed.
    """
    if len(seed.keys) != 1:
        raise ValueError(f"seed: the format wsol holds one map per photo, not {len(seed.keys)}.")
    return score_map(torch.from_numpy(as_float32(seed.high_res[0])))


def unpack(content: Any, keys: Sequence[int] | None) -> Parts | None:
    """Return the parts of a seed, or None if the content is not in this format. Without keys, its class is 0.

    Maps of all sizes are read, because earlier versions wrote them at the photo's size.
    """
    if not isinstance(content, np.ndarray) or content.ndim != 2 or content.dtype.kind != "f":
        return None
    return Parts(list(map(int, keys or [0])), [content[None]], of_any_size=True)
