"""Files of an array or a dict in NumPy's .npy format.

Those that are written refer only to names that all of NumPy 1.17 to 2.x have, so that pipelines of any age can open
them. Those that are read are never executed.
"""

import io
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from captum_regioncam.evaluation.seeds.pickled_arrays import array_over, read_pickle

__all__ = ["decode_npy", "encode_npy"]

_HEADERS: Mapping[tuple[int, int], tuple[str, Callable[[Any], Any]]] = {
    (1, 0): ("<H", np.lib.format.read_array_header_1_0),
    (2, 0): ("<I", np.lib.format.read_array_header_2_0),
}
_LONGEST_HEADER = 10_000  # NumPy's own limit since 1.24


def encode_npy(content: Any) -> bytes:
    """Return a file of an array, or of a dict of texts, whole numbers, arrays and tensors."""
    file = io.BytesIO()
    if isinstance(content, np.ndarray):
        np.save(file, content)
    else:  # a 0-dimensional array that holds the dict, as numpy.save would write it
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\x80\x03" + _call("numpy", "array", content) + b".")
    return file.getvalue()


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


def decode_npy(content: bytes) -> Any:
    """Return what a file holds; see :func:`~captum_regioncam.evaluation.seeds.pickled_arrays.read_pickle`.

    Raises:
        Exception: the file is broken, or holds something other than numbers or one object. Errors have many types.
    """
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
