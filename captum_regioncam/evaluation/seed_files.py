"""Seed files: a photo's maps in the formats that the pipelines of weakly supervised segmentation and localisation read.

Files that are written refer only to names that all of NumPy 1.17 to 2.x have, so that pipelines of any age can open
them. Files that are read are never executed.
"""

import io
import math
import os
import pickle
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.evaluation.maps import seed_grid
from captum_regioncam.files import write_whole
from captum_regioncam.grids import resize

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
        OutputError: the file cannot be written.

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


def load_seed(path: str | os.PathLike[str], keys: Sequence[int] | None = None) -> Seed:
    """Read a seed in any of the formats, ours or the pipelines' own. Nothing that a pickle names is ever called.

    Args:
        path: the file.
        keys: the class of the map in a "wsol" file, which does not hold it. Default: class 0.

    Returns:
        The seed. If the format has no ``cam``, it is made from ``high_res``. A "psa" file without classes does not hold
        the photo's size: its maps are (0, 1, 1).

    Raises:
        ValueError: the file is missing, truncated, or not a seed.

    Example::

        >>> save_seed("2007_000032.npy", Seed(torch.tensor([7]), torch.rand(1, 2, 3), np.random.rand(1, 8, 12)))
        >>> load_seed("2007_000032.npy").keys
        tensor([7])
    """
    try:
        with open(path, "rb") as file:
            return _seed(_content(file), keys)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not a whole seed file ({reason}).") from error


def _content(file: Any) -> Any:
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = header[version](file)
    if dtype.hasobject:
        if shape != ():
            raise ValueError(f"holds {math.prod(shape)} objects, not a dict")
        return _built(_Unpickler(file).load())
    return _array(shape, dtype.str, file.read(), "F" if fortran else "C")


def _seed(content: Any, keys: Sequence[int] | None) -> Seed:
    if isinstance(content, np.ndarray) and content.ndim == 2 and content.dtype.kind == "f":
        return _complete(keys or [0], content[None])
    if not isinstance(content, dict):
        what = f"an array of {content.dtype}" if isinstance(content, np.ndarray) else type(content).__name__
        raise ValueError(f"holds {what}, not a dict")
    if "attn_highres" in content:
        return _complete(content["keys"], content["attn_highres"])
    if all(isinstance(key, int) for key in content):
        return _complete(list(content), np.stack(list(content.values())) if content else np.zeros((0, 1, 1)))
    return _complete(content["keys"], content["high_res"], content["cam"])


def _complete(keys: Any, high_res: Any, cam: Any = None) -> Seed:
    high_res = np.asarray(high_res, dtype=np.float32)
    keys = torch.as_tensor(keys).long()
    if high_res.ndim != 3 or keys.shape != (len(high_res),):
        raise ValueError(f"has {keys.numel()} keys for maps of shape {high_res.shape}")
    if cam is None:
        grid = seed_grid(*high_res.shape[1:])
        cam = resize(torch.from_numpy(high_res)[None], grid)[0] if len(high_res) else torch.zeros(0, *grid)
    return Seed(keys, torch.as_tensor(cam).float(), high_res)


class _Named:
    """Stands in for an object that a pickle names. It is called in its place, keeps the arguments and does nothing."""

    def __init__(self, name: str, arguments: tuple[Any, ...] | None = None, state: Any = None) -> None:
        self.name, self.arguments, self.state = name, arguments, state

    def __call__(self, *arguments: Any) -> "_Named":
        return _Named(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Read a pickle into dicts, lists, numbers, and stand-ins for the rest."""

    def find_class(self, module: str, name: str) -> Any:
        known = f"{module.replace('numpy._core', 'numpy.core')}.{name}"
        if known not in _BUILDERS:
            raise ValueError(f"refers to {module}.{name}, which no seed needs")
        return _Named(known)


def _built(value: Any) -> Any:
    """Build arrays, tensors and numbers from what a pickle says about them."""
    if isinstance(value, _Named):
        if value.arguments is None:  # a class that is named as an argument
            return value
        return _BUILDERS[value.name](*map(_built, value.arguments), state=_built(value.state))
    if isinstance(value, dict):
        return {_built(key): _built(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_built, value))
    return value


def _array(shape: Sequence[int], dtype: str, content: bytes, order: str = "C") -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    if kind.kind not in "biuf":
        raise ValueError(f"holds an array of {kind}")
    if len(content) != math.prod(shape) * kind.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"has {len(content)} bytes for an array of shape {tuple(shape)} and type {kind}")
    return np.frombuffer(content, kind).copy().reshape(shape, order="F" if order == "F" else "C")


def _reconstructed(*_: Any, state: Any) -> Any:
    _, shape, dtype, is_fortran, content = state
    if isinstance(content, list):  # a 0-dimensional array that holds the dict
        (alone,) = content
        return alone
    return _array(shape, dtype, content, "F" if is_fortran else "C")


def _dtype(name: str, *_: Any, state: Any = None) -> str:
    byte_order = state[1] if state else "="
    return f"{byte_order if byte_order in '<>' else ''}{name}"


def _scalar(dtype: str, content: bytes, state: Any = None) -> Any:
    return _array((), dtype, content).item()


def _storage(content: bytes, state: Any = None) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(
    storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any, state: Any = None
) -> Tensor:
    if not isinstance(storage, torch.storage.TypedStorage):
        raise ValueError(f"holds a tensor over {type(storage).__name__}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # but torch.save still writes it
        empty, untyped = torch.empty(0, dtype=storage.dtype), storage.untyped()
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    numbers = untyped.nbytes() // empty.element_size()
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= numbers):
        raise ValueError(f"has {numbers} numbers for a tensor of shape {tuple(size)}")
    return empty.set_(untyped, offset, tuple(size), tuple(stride))


_BUILDERS: Mapping[str, Callable[..., Any]] = {
    "_codecs.encode": lambda text, encoding, state=None: text.encode("latin1"),  # bytes, in protocol 2
    "builtins.dict": lambda *parts, state: dict(*parts),
    "collections.OrderedDict": lambda *parts, state: dict(*parts),
    "numpy.dtype": _dtype,
    "numpy.ndarray": lambda shape, dtype, content, state=None: _array(shape, dtype, content),
    "numpy.array": lambda content, state=None: content,
    "numpy.core.multiarray._reconstruct": _reconstructed,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": lambda content, dtype, shape, order, state=None: _array(
        shape, dtype, bytes(content), order
    ),
    "torch.from_numpy": lambda array, state=None: torch.from_numpy(array),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
}
