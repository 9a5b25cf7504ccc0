"""The format of PSA, SEAM, MCTformer and S2C: a dict of an (H, W) array for each class, counted from 0.

What PSA's CRF writes (``label_maps/psa_crf.py``) looks the same, but counts from 1, as it has the background
as 0. It is no seed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from captum_regioncam.evaluation.seeds.seed import Parts, Seed, as_float32, with_dimensions

__all__ = ["pack", "unpack"]


def pack(seed: Seed) -> dict[int, Any]:
    """Return the content of a seed's file."""
    return dict(zip(seed.keys.tolist(), as_float32(seed.high_res), strict=True))


def unpack(content: Any, keys: Sequence[int] | None) -> Parts | None:
    """Return the parts of a seed, or None if the content is not in this format. Without classes, it has no size."""
    if not isinstance(content, dict) or not all(isinstance(key, int) for key in content):
        return None
    maps = [with_dimensions(2, one)[None] for one in content.values()]
    return Parts(list(content), maps or [np.zeros((0, 1, 1))])
