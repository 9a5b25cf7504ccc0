"""The format of CLIP-ES: a dict of two arrays, ``keys`` and ``attn_highres``, the maps in float16."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from captum_regioncam.evaluation.seeds.seed import Parts, Seed, with_dimensions

__all__ = ["pack", "unpack"]


def pack(seed: Seed) -> dict[str, Any]:
    """Return the content of a seed's file."""
    return {"keys": seed.keys.cpu().long().numpy(), "attn_highres": seed.high_res.astype(np.float16)}


def unpack(content: Any, keys: Sequence[int] | None) -> Parts | None:
    """Return the parts of a seed, or None if the content is not in this format."""
    if not isinstance(content, dict) or "attn_highres" not in content:
        return None
    return Parts(content["keys"], [with_dimensions(3, content["attn_highres"])])
