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
import torch.nn.functional as F

from captum_regioncam.arguments import plane_size
from captum_regioncam.errors import Argument, ArgumentError, reason_of
from captum_regioncam.evaluation.multiscale import seed_grid
from captum_regioncam.evaluation.seeds import DTYPES, FORMATS, SMALLER
from captum_regioncam.evaluation.seeds.npy import decode_npy, encode_npy
from captum_regioncam.evaluation.seeds.psa import are_crf_scores
from captum_regioncam.evaluation.seeds.safe_pickle import MOST_KEYS
from captum_regioncam.evaluation.seeds.seed import Parts, Seed, as_float32
from captum_regioncam.files.inputs import MEGABYTE, read_bytes
from captum_regioncam.files.outputs import write_whole
from captum_regioncam.method.grids import resize

__all__ = ["CrfScoresError", "check_format", "encode_arrays", "encode_seed", "load_seed", "save_seed"]


class CrfScoresError(ValueError):
    """A file contains class scores after PSA's dense CRF, not a seed."""


def save_seed(
    path: str | os.PathLike[str],
    seed: Seed,
    format: str = "irn",
    *,
    dtype: str = "float32",
    high_res: bool = True,
) -> None:
    """Write a seed. The file is written completely or not at all.

    Args:
        path: the file, which ends in .npy; missing folders are created.
        seed: the seed.
        format: "irn" (IRN, ReCAM, LPCAM, ToCo): a dict of ``keys`` and ``cam`` as tensors and ``high_res`` as an array;
            "psa" (PSA, SEAM, MCTformer, S2C): a dict of an (H, W) array for each class, counted from 0 without the
            background; "clip-es" (CLIP-ES): a dict of ``keys`` and ``attn_highres`` in float16; "wsol"
            (wsolevaluation): the one map, resized (cubic) to (224, 224), and stretched from its minimum to its maximum.
        dtype: the dtype of ``high_res`` in the format "irn": "float32" or "float16". ``cam`` is always float32.
        high_res: whether a file in the format "irn" has ``high_res``. IRN's label maps are made from ``cam`` alone.

    Raises:
        ArgumentError: the format is none of these, or has no such ``dtype`` or cannot be without ``high_res``.
        ValueError: the shapes do not go together, or "wsol" does not get one map.
        ImportError: "wsol" needs OpenCV, which is not installed.
        OSError: the file cannot be written.

    Example::

        >>> seed = Seed(torch.tensor([7]), torch.rand(1, 2, 3), np.random.rand(1, 8, 12))
        >>> save_seed("2007_000032.npy", seed)
        >>> sorted(np.load("2007_000032.npy", allow_pickle=True).item())  # as IRN's scripts read it
        ['cam', 'high_res', 'keys']
    """
    write_whole(path, encode_seed(seed, format, dtype, high_res))


def check_format(format: str, dtype: str = "float32", high_res: bool = True) -> None:
    """Check that seeds can be written in this way; see :func:`save_seed`.

    Raises:
        ArgumentError: they cannot.
    """
    if format not in FORMATS:
        raise ArgumentError(Argument("format", format), f": expects one of {', '.join(FORMATS)}.")
    if dtype not in DTYPES:
        raise ArgumentError(Argument("dtype", dtype), f": expects one of {', '.join(DTYPES)}.")
    changed = [] if dtype == "float32" else [Argument("dtype", dtype)]
    changed += [] if high_res else [Argument("high_res", False)]
    if changed and format not in SMALLER:
        raise ArgumentError(
            changed[0], ": applies only to ", Argument("format", ", ".join(SMALLER)), f", not to {format}."
        )
    if len(changed) > 1:
        raise ArgumentError(changed[0], ": cannot be used with ", changed[1], ", because cam is always in float32.")


def encode_seed(seed: Seed, format: str = "irn", dtype: str = "float32", high_res: bool = True) -> bytes:
    """Return the content of a seed's file; see :func:`save_seed`."""
    check_format(format, dtype, high_res)
    count, height, width = seed.high_res.shape
    if seed.keys.shape != (count,) or tuple(seed.cam.shape) != (count, *seed_grid(height, width)):
        raise ValueError(
            f"seed: keys {tuple(seed.keys.shape)}, cam {tuple(seed.cam.shape)} and high_res {seed.high_res.shape} do "
            f"not go together: expects (K,), (K, ceil(H / 4), ceil(W / 4)) and (K, H, W)."
        )
    options = {"dtype": dtype, "high_res": high_res} if format in SMALLER else {}
    return encode_npy(_module(format).pack(seed, **options))


def _module(format: str) -> ModuleType:
    return importlib.import_module(FORMATS[format])


def encode_arrays(arrays: Mapping[int, npt.NDArray[np.float32]]) -> bytes:
    """Return the content of a file of {number: (H, W) float32}, as PSA keeps its maps: 0 is the background."""
    return encode_npy({number: as_float32(array) for number, array in arrays.items()})


def load_seed(
    path: str | os.PathLike[str],
    keys: Sequence[int] | None = None,
    *,
    size: tuple[int, int] | None = None,
    max_bytes: int = 512 * MEGABYTE,
) -> Seed:
    """Read a seed in any of the formats, ours or the pipelines' own. Nothing that a pickle names is ever called.

    Args:
        path: the file.
        keys: the class of the map in a "wsol" file, which does not hold it. Default: class 0.
        size: the photo's height and width, for files that do not hold them. The map of a "wsol" file is resized
            (bilinear) to it; by default it stays (224, 224). An "irn" file without ``high_res`` can only be read with
            it: ``cam`` is upsampled by 4 (bilinear) and cropped to the photo, as IRN does.
        max_bytes: the largest size of the file, and of its maps as float32, in bytes. Whatever ``max_bytes`` is, the
            maps take at most a small multiple of the file's size.

    Returns:
        The seed. If the format has no ``cam``, it is made from ``high_res``. A "psa" file without classes does not hold
        the photo's size: its maps are (0, 1, 1).

    Raises:
        ValueError: the file is missing, truncated, too large or not a seed; it has no ``high_res`` and ``size`` is not
            given; a class occurs twice or is not in 0 to 65,535; or a value is NaN or infinite.

    Example::

        >>> save_seed("2007_000032.npy", Seed(torch.tensor([7]), torch.rand(1, 2, 3), np.random.rand(1, 8, 12)))
        >>> load_seed("2007_000032.npy").keys
        tensor([7])
    """
    size = None if size is None else plane_size("size", size, "(height, width)")
    content = read_bytes(path, max_bytes, remedy="Pass a higher max_bytes.")
    try:
        format, parts = _parts(decode_npy(content), keys)
        most = min(max_bytes, MEGABYTE + (8 if parts.high_res else 32) * len(content))
        seed = _complete(parts, size, most)
        height, width = seed.high_res.shape[1:]
        if 4 * height * width > max_bytes:  # without classes, the size is all that the file holds
            raise ValueError(f"is of a photo of {height} x {width} pixels; pass a higher max_bytes")
    except Exception as error:  # broken files cause errors of many types
        reason = f"has no {error}" if isinstance(error, KeyError) else reason_of(error)
        raise ValueError(f"{path}: not a whole seed file ({reason}).") from error
    if format == "psa" and are_crf_scores(seed):
        raise CrfScoresError(
            f"{path}: holds class scores after a dense CRF, not a seed: class 0 is the background, and the scores add "
            "up to 1 at every pixel. PSA and SEAM train on them. Give the seeds that they were made from."
        )
    return seed


def _parts(content: Any, keys: Sequence[int] | None) -> tuple[str, Parts]:
    """Unpack the content of a file by the first format that recognises it."""
    for format in FORMATS:
        parts: Parts | None = _module(format).unpack(content, keys)
        if parts is not None:
            return format, parts
    if isinstance(content, dict):
        what = f"a dict of {', '.join(f'{key!r:.40}' for key in [*content][:5])}"
    elif isinstance(content, np.ndarray):
        what = f"an array of {content.dtype} of shape {content.shape}"
    else:
        what = f"a {type(content).__name__}"
    raise ValueError(f"holds {what}, which is in none of the formats {', '.join(FORMATS)}")


def _complete(parts: Parts, size: tuple[int, int] | None, most: int) -> Seed:
    """Make a seed from maps that take at most ``most`` bytes."""
    classes, high_res = _classes(parts.keys), _full_size(parts, size, most)
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


def _full_size(parts: Parts, size: tuple[int, int] | None, most: int) -> npt.NDArray[np.float32]:
    """Return the maps (K, height, width), of the photo's size if that is known."""
    if parts.high_res:
        maps = _joined(parts.high_res, most)
        return resize(torch.from_numpy(maps)[None], size)[0].numpy() if parts.of_any_size and size else maps
    if parts.cam is None or size is None:
        raise ValueError("has no high_res; give the size of its photo, or the data set of the seeds")
    height, width = size
    if not len(parts.cam):
        return np.zeros((0, height, width), dtype=np.float32)
    if parts.cam.shape[1:] != seed_grid(height, width):
        raise ValueError(f"has a cam of shape {parts.cam.shape}, but its photo is {size} (height, width)")
    coarse = torch.from_numpy(_joined([parts.cam], most // 16))  # upsampled, it takes 16 times as much
    upsampled = F.interpolate(coarse[None], scale_factor=4, mode="bilinear")[0, :, :height, :width]
    return as_float32(upsampled.numpy())


def _classes(keys: Any) -> list[int]:
    many = keys.size if isinstance(keys, np.ndarray) else len(keys)
    if many > MOST_KEYS:
        raise ValueError(f"has {many} keys")
    classes = [int(key) for key in keys]
    if any(map(operator.ne, classes, keys)) or not all(0 <= key < MOST_KEYS for key in classes):
        raise ValueError(f"has a key that is not a class from 0 to {MOST_KEYS - 1}")
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
