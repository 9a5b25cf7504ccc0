"""Seed files: a photo's maps in the formats that the pipelines of weakly supervised segmentation and localisation read.

Files that are written refer only to names that all of NumPy 1.17 to 2.x have, so that pipelines of any age can open
them. Files that are read are never executed.
"""

import io
import math
import operator
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.errors import reason_of
from captum_regioncam.evaluation.multiscale import seed_grid
from captum_regioncam.evaluation.seeds.safe_pickle import MOST_KEYS, array_over, read_pickle
from captum_regioncam.files.inputs import MEGABYTE, read_bytes
from captum_regioncam.files.outputs import write_whole
from captum_regioncam.method.grids import resize

__all__ = ["FORMATS", "Seed", "encode_arrays", "encode_seed", "load_seed", "save_seed"]


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


def _irn(seed: Seed) -> dict[str, Any]:
    return {"keys": seed.keys.cpu().long(), "cam": seed.cam.cpu().float(), "high_res": _float32(seed.high_res)}


def _psa(seed: Seed) -> dict[int, Any]:
    return dict(zip(seed.keys.tolist(), _float32(seed.high_res), strict=True))


def _clip_es(seed: Seed) -> dict[str, Any]:
    return {"keys": seed.keys.cpu().long().numpy(), "attn_highres": seed.high_res.astype(np.float16)}


def _wsol(seed: Seed) -> npt.NDArray[np.float32]:
    if len(seed.keys) != 1:
        raise ValueError(f"seed: the format wsol holds one map per photo, not {len(seed.keys)}.")
    return _float32(seed.high_res[0])


FORMATS: dict[str, Callable[[Seed], Any]] = {"irn": _irn, "psa": _psa, "clip-es": _clip_es, "wsol": _wsol}
"""The content of a file, by the name of its format."""


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
    return _npy(FORMATS[format](seed))


def encode_arrays(arrays: Mapping[int, npt.NDArray[np.float32]]) -> bytes:
    """Return the content of a file of {number: (H, W) float32}, as PSA keeps its maps: 0 is the background."""
    return _npy({number: _float32(array) for number, array in arrays.items()})


def _npy(content: Any) -> bytes:
    file = io.BytesIO()
    if isinstance(content, np.ndarray):
        np.save(file, content)
    else:  # a 0-dimensional array that holds the dict, as numpy.save would write it
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\x80\x03" + _call("numpy", "array", content) + b".")
    return file.getvalue()


def _float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32)


def _pickled(value: Any) -> bytes:
    """Pickle a value (protocol 3). NumPy's own pickles name modules that other versions of NumPy do not have."""
    if isinstance(value, dict):
        return b"}(" + b"".join(_pickled(part) for item in value.items() for part in item) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_pickled, value)) + b"t"
    if isinstance(value, str):
        encoded = value.encode()
        return b"X" + struct.pack("<I", len(encoded)) + encoded
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, Tensor):
        return _call("torch", "from_numpy", value.numpy())
    if isinstance(value, _Raw):
        array = value.array
        return _call("numpy", "ndarray", array.shape, array.dtype.str, array.tobytes())
    return _call("numpy", "array", _Raw(value))  # a copy, as an array over bytes is read-only


@dataclass(frozen=True)
class _Raw:
    array: npt.NDArray[Any]


def _call(module: str, name: str, *arguments: Any) -> bytes:
    return f"c{module}\n{name}\n".encode() + _pickled(arguments) + b"R"


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
        seed = _seed(_content(content), keys, min(max_bytes, MEGABYTE + 8 * len(content)))
        height, width = seed.high_res.shape[1:]
        if 4 * height * width > max_bytes:  # without classes, the size is all that there is
            raise ValueError(f"is of a photo of {height} x {width} pixels; pass a higher max_bytes")
    except Exception as error:  # of many types, if the file is broken
        reason = f"has no {error}" if isinstance(error, KeyError) else reason_of(error)
        raise ValueError(f"{path}: not a whole seed file ({reason}).") from error
    return seed


def _content(content: bytes) -> Any:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"is in version {version} of the format")
    length, read_header = _HEADERS[version]
    if struct.unpack_from(length, content, file.tell())[0] > _LONGEST_HEADER:
        raise ValueError("has a header that is too long")
    shape, fortran, dtype = read_header(file)
    rest = memoryview(content)[file.tell() :]
    if not dtype.hasobject:
        return array_over(rest, shape, dtype.str, "F" if fortran else "C")
    if shape != ():
        raise ValueError(f"holds {math.prod(shape)} objects, not a dict")
    return read_pickle(rest)


def _seed(content: Any, keys: Sequence[int] | None, most: int) -> Seed:
    """Make a seed whose maps take at most so many bytes."""
    if isinstance(content, np.ndarray) and content.ndim == 2 and content.dtype.kind == "f":
        return _complete(list(map(int, keys or [0])), [content[None]], None, most)
    if not isinstance(content, dict):
        what = f"an array of {content.dtype}" if isinstance(content, np.ndarray) else type(content).__name__
        raise ValueError(f"holds {what}, not a dict")
    if "attn_highres" in content:
        return _complete(content["keys"], [_array(content["attn_highres"], 3)], None, most)
    if all(isinstance(key, int) for key in content):
        maps = [_array(one, 2)[None] for one in content.values()]
        return _complete(list(content), maps or [np.zeros((0, 1, 1))], None, most)
    return _complete(content["keys"], [_array(content["high_res"], 3)], _array(content["cam"], 3), most)


def _complete(keys: Any, maps: Sequence[npt.NDArray[Any]], cam: npt.NDArray[Any] | None, most: int) -> Seed:
    classes, high_res = _classes(keys), _joined(maps, most)
    count, height, width = high_res.shape
    if len(classes) != count or (count and not height * width):
        raise ValueError(f"has {len(classes)} keys for maps of shape {high_res.shape}")
    if len(set(classes)) < count:
        raise ValueError("has a key twice")
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


def _array(value: Any, dimensions: int) -> npt.NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.ndim != dimensions:
        what = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise ValueError(f"has {what} for maps")
    return value


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


_HEADERS: Mapping[tuple[int, int], tuple[str, Callable[[Any], Any]]] = {
    (1, 0): ("<H", np.lib.format.read_array_header_1_0),
    (2, 0): ("<I", np.lib.format.read_array_header_2_0),
}
_LONGEST_HEADER = 10_000  # as NumPy has it since 1.24
