"""The format of PSA, SEAM, MCTformer and S2C: a dict of an (H, W) array for each class, counted from 0.

What PSA's CRF writes (``label_maps/psa_crf.py``) looks the same, but counts classes from 1, because 0 is the
background. It is not a seed: see :func:`are_crf_scores`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from captum_regioncam.evaluation.seeds.seed import Parts, Seed, as_float32, with_dimensions

__all__ = ["are_crf_scores", "pack", "unpack"]


def pack(seed: Seed) -> dict[int, Any]:
    """Return the content of a seed's file."""
    return dict(zip(seed.keys.tolist(), as_float32(seed.high_res), strict=True))


def unpack(content: Any, keys: Sequence[int] | None) -> Parts | None:
    """Return the parts of a seed, or None if the content is not in this format. Without classes, it has no size."""
    if not isinstance(content, dict) or not all(isinstance(key, int) for key in content):
        return None
    maps = [with_dimensions(2, one)[None] for one in content.values()]
    return Parts(list(content), maps or [np.zeros((0, 1, 1))])


def are_crf_scores(seed: Seed) -> bool:
    """Return whether a file in this format holds not a seed, but scores after PSA's or SEAM's dense CRF.

    These have the background as class 0, and add up to 1 at every pixel. A seed with class 0 does not: each of its maps
    is divided by its own maximum, so that wherever one is at its maximum, all others would have to be 0. The scores of
    a photo without classes, {0: ones}, cannot be told from a seed.
    """
    if len(seed.keys) < 2 or 0 not in seed.keys:
        return False
    return bool(np.allclose(seed.high_res.sum(0), 1, rtol=0, atol=2e-3))  # also in float16
