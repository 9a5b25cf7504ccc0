"""The format of IRN, ReCAM, LPCAM and ToCo: a dict of ``keys`` and ``cam`` as tensors and ``high_res`` as an array."""

from collections.abc import Sequence
from typing import Any

from captum_regioncam.evaluation.seeds.seed import Parts, Seed, as_float32, with_dimensions

__all__ = ["pack", "unpack"]


def pack(seed: Seed) -> dict[str, Any]:
    """Return the content of a seed's file."""
    return {"keys": seed.keys.cpu().long(), "cam": seed.cam.cpu().float(), "high_res": as_float32(seed.high_res)}


def unpack(content: Any, keys: Sequence[int] | None) -> Parts | None:
    """Return the parts of a seed, or None if the content is not in this format."""
    if not isinstance(content, dict) or "high_res" not in content or "attn_highres" in content:  # CLIP-ES's, if both
        return None
    return Parts(content["keys"], [with_dimensions(3, content["high_res"])], with_dimensions(3, content["cam"]))
