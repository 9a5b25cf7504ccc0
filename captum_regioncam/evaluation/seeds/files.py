"""Seed files: a photo's maps in the formats that the pipelines of weakly supervised segmentation and localisation read.

:mod:`captum_regioncam.evaluation.seeds` says how to add a format.
"""

import importlib
import operator
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from captum_regioncam.errors import reason_of
from captum_regioncam.evaluation.multiscale import seed_grid
from captum_regioncam.evaluation.seeds import FORMATS
from captum_regioncam.evaluation.seeds.npy import decode_npy, encode_npy
from captum_regioncam.evaluation.seeds.safe_pickle import MOST_KEYS
from captum_regioncam.evaluation.seeds.seed import Parts, Seed, as_float32
from captum_regioncam.files.inputs import MEGABYTE, read_bytes
from captum_regioncam.files.outputs import write_whole
from captum_regioncam.method.grids import resize

__all__ = ["encode_arrays", "encode_seed", "load_seed", "save_seed"]


def save_seed(path: str | os.PathLike[str], seed: Seed, format: str = "irn") -> None:
    """Write a seed. The file is written completely or not at all.

    Args:
        path: ending in .npy; missing folders are created.
        seed: what to write.
        format: "irn" (IRN, ReCAM, LPCAM, ToCo): a dict of ``keys`` and ``cam`` as tensors and ``high_res`` as an array;
            "psa" (PSA, SEAM, MCTformer, S2C): a dict of an (H, W) array for each class, counted from 0 without the
            background; "clip-es" (CLIP-ES): a dict of ``keys`` and ``attn_highres`` in float16; "wsol"
            (wsolevaluation): the one map, (H, W).

    Raises:
        ValueError: the format is none of these, the shapes do not go together, or "wsol" does not get one map.
        OSError: the file cannot be written.

    Example::

        >>> seed = Seed(torch.tensor([7]), torch.rand(1, 2, 3), np.random.rand(1, 8, 12))
        >>> save_seed("2007_000032.npy", seed)
        >>> sorted(np.load("2007_000032.npy", allow_pickle=True).item())  # as IRN's scripts read it
        ['cam', 'high_res', 'keys']
    """
    write_whole(path, encode_seed(seed, format))


def encode_seed(seed: Seed, format: str = "irn") -> bytes:
    """Return the content of a seed's file; see :func:`save_seed`."""
    if format not in FORMATS:
        raise ValueError(f"format={format!r}: expects one of {', '.join(FORMATS)}.")
    count, height, width = seed.high_res.shape
    if seed.keys.shape != (count,) or tuple(seed.cam.shape) != (count, *seed_grid(height, width)):
        raise ValueError(
            f"seed: keys {tuple(seed.keys.shape)}, cam {tuple(seed.cam.shape)} and high_res {seed.high_res.shape} do "
            f"not go together: expects (K,), (K, ceil(H / 4), ceil(W / 4)) and (K, H, W)."
        )
    return encode_npy(_module(format).pack(seed))


def _module(format: str) -> ModuleType:
    return importlib.import_module(FORMATS[format])


def encode_arrays(arrays: Mapping[int, npt.NDArray[np.float32]]) -> bytes:
    """Return the content of a file of {number: (H, W) float32}, as PSA keeps its maps: 0 is the background."""
    return encode_npy({number: as_float32(array) for number, array in arrays.items()})


def load_seed(
    path: str | os.PathLike[str], keys: Sequence[int] | None = None, *, max_bytes: int = 512 * MEGABYTE
) -> Seed:
    """Read a seed in any of the formats, ours or the pipelines' own. Nothing that a pickle names is ever called.

    Args:
        path: the file.
        keys: the class of the map in a "wsol" file, which does not hold it. Default: class 0.
        max_bytes: the largest file, and the most memory for the maps that it holds, as float32. Whatever ``max_bytes``
            is, that memory is at most a small multiple of the file's size.

    Returns:
        The seed. If the format has no ``cam``, it is made from ``high_res``. A "psa" file without classes does not hold
        the photo's size: its maps are (0, 1, 1).

    Raises:
        ValueError: the file is missing, truncated, too large or not a seed; a class is twice in it or not in 0 to
            65,535; or a value is NaN or infinite.

    Example::

        >>> save_seed("2007_000032.npy", Seed(torch.tensor([7]), torch.rand(1, 2, 3), np.random.rand(1, 8, 12)))
        >>> load_seed("2007_000032.npy").keys
        tensor([7])
    """
    content = read_bytes(path, max_bytes, remedy="Pass a higher max_bytes.")
    try:
        parts = _parts(decode_npy(content), keys)
        seed = _complete(parts, min(max_bytes, MEGABYTE + 8 * len(content)))
        height, width = seed.high_res.shape[1:]
        if 4 * height * width > max_bytes:  # without classes, the size is all that there is
            raise ValueError(f"is of a photo of {height} x {width} pixels; pass a higher max_bytes")
    except Exception as error:  # of many types, if the file is broken
        reason = f"has no {error}" if isinstance(error, KeyError) else reason_of(error)
        raise ValueError(f"{path}: not a whole seed file ({reason}).") from error
    return seed


def _parts(content: Any, keys: Sequence[int] | None) -> Parts:
    """Unpack the content of a file by the first format that recognises it."""
    for format in FORMATS:
        parts: Parts | None = _module(format).unpack(content, keys)
        if parts is not None:
            return parts
    if isinstance(content, dict):
        what = f"a dict of {', '.join(f'{key!r:.40}' for key in [*content][:5])}"
    elif isinstance(content, np.ndarray):
        what = f"an array of {content.dtype} of shape {content.shape}"
    else:
        what = f"a {type(content).__name__}"
    raise ValueError(f"holds {what}, which is in none of the formats {', '.join(FORMATS)}")


def _complete(parts: Parts, most: int) -> Seed:
    """Make a seed whose maps take at most so many bytes."""
    classes, high_res = _classes(parts.keys), _joined(parts.high_res, most)
    count, height, width = high_res.shape
    if len(classes) != count or (count and not height * width):
        raise ValueError(f"has {len(classes)} keys for maps of shape {high_res.shape}")
    if len(set(classes)) < count:
        raise ValueError("has a key twice")
    cam = parts.cam
    if cam is None:
        grid = seed_grid(height, width)
        coarse = resize(torch.from_numpy(high_res)[None], grid)[0] if count else torch.zeros(0, *grid)
    elif len(cam) == count and (not count or (0 < cam.shape[1] <= height and 0 < cam.shape[2] <= width)):
        coarse = torch.from_numpy(_joined([cam], most))
    else:
        raise ValueError(f"has a cam of shape {cam.shape} for maps of shape {high_res.shape}")
    return Seed(torch.tensor(classes, dtype=torch.long), coarse, high_res)


def _classes(keys: Any) -> list[int]:
    many = keys.size if isinstance(keys, np.ndarray) else len(keys)
    if many > MOST_KEYS:
        raise ValueError(f"has {many} keys")
    classes = [int(key) for key in keys]
    if any(map(operator.ne, classes, keys)) or not all(0 <= key < MOST_KEYS for key in classes):
        raise ValueError(f"has a key that is no class from 0 to {MOST_KEYS - 1}")
    return classes


def _joined(maps: Sequence[npt.NDArray[Any]], most: int) -> npt.NDArray[np.float32]:
    """Copy maps into one array."""
    size = sum(4 * one.size for one in maps)
    if size > most:  # an array may be larger than the memory that it is a view of
        raise ValueError(f"makes {size:,} bytes of maps; its own size and max_bytes allow {most:,}")
    with np.errstate(over="ignore"):
        joined = np.concatenate(maps, dtype=np.float32, casting="unsafe")
    if not np.isfinite(joined).all():
        raise ValueError("has values that are NaN or infinite")
    return joined
