"""The format of IRN, ReCAM, LPCAM and ToCo: a dict of ``keys`` and ``cam`` as tensors and ``high_res`` as an array.

ToCo's own files have no ``cam``, and its ``keys`` are an array. Files may also be without ``high_res``.
"""

from collections.abc import Sequence
from typing import Any

from captum_regioncam.evaluation.seeds.seed import Parts, Seed, as_float32, with_dimensions

__all__ = ["pack", "unpack"]


def pack(seed: Seed, dtype: str = "float32", high_res: bool = True) -> dict[str, Any]:
    """Return the content of a seed's file.

    Args:
        seed: the seed.
        dtype: the dtype of ``high_res``. ``cam`` stays in float32, because IRN multiplies it by tensors in float32.
        high_res: whether the file has ``high_res``.
    """
    content: dict[str, Any] = {"keys": seed.keys.cpu().long(), "cam": seed.cam.cpu().float()}
    return content | ({"high_res": as_float32(seed.high_res).astype(dtype)} if high_res else {})


def unpack(content: Any, keys: Sequence[int] | None) -> Parts | None:
    """Return the parts of a seed, or None if the content is not in this format."""
    if not isinstance(content, dict) or "attn_highres" in content:  # a file with both is CLIP-ES's
        return None
    high_res = [with_dimensions(3, content["high_res"])] if "high_res" in content else []
    cam = with_dimensions(3, content["cam"]) if "cam" in content else None
    return Parts(content["keys"], high_res, cam) if high_res or cam is not None else None
