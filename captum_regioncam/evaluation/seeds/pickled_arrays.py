"""Arrays, tensors and numbers from pickles, built without calling anything that the pickles name."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from captum_regioncam.evaluation.seeds.safe_pickle import Named, Source, StepReader, checked_key, of_type
from captum_regioncam.files.inputs import MEGABYTE

__all__ = ["array_over", "read_pickle"]

_MOST_DIMENSIONS = 32  # NumPy's limit before 2.0
_TORCH_FORMAT = (0x1950A86A20F9469CFC6C, 1001)  # with which torch begins what is not a zip file


def read_pickle(content: memoryview) -> Any:
    """Read a pickle of dicts, lists, tuples, numbers, strings, arrays and tensors. Tensors become arrays too.

    The arrays are views of ``content``. Some may share memory, and strides of 0 make some larger than ``content``, so
    check their sizes before you copy them.

    Raises:
        Exception: the pickle is broken, or refers to something else. Errors have many types.
    """
    return _Builder(content).build()


def array_over(content: Any, shape: Any, dtype: Any, order: Any = "C") -> npt.NDArray[Any]:
    """Return an array of real numbers over the memory of bytes.

    Raises:
        ValueError: the shape does not fit the bytes, or the numbers are not real.
        TypeError: there is no such type of numbers.
    """
    kind = np.dtype(of_type(str, dtype)[:32])
    if kind.kind not in "biuf":
        raise ValueError(f"holds an array of {kind}")
    sides = _whole_numbers(shape)
    size = len(of_type((bytes, bytearray, memoryview), content))
    if size != math.prod(sides) * kind.itemsize or min(sides, default=0) < 0:
        raise ValueError(f"has {size} bytes for an array of shape {sides} and type {kind}")
    return np.ndarray(sides, kind, content, order="F" if order == "F" else "C")


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if len(of_type((list, tuple), values)) > _MOST_DIMENSIONS:
        raise ValueError(f"holds an array of {len(values)} dimensions")
    return tuple(of_type(int, value) for value in values)


class _Builder:
    """Builds what one pickle describes."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._steps = StepReader(min(2_000 + len(content) // 8, 200_000))
        self._bytes = MEGABYTE + 4 * len(content)  # of numbers that have to be converted
        self._made: dict[int, tuple[Any, Any]] = {}

    def build(self) -> Any:
        return self._built(self._steps.read(Source(self._content), _BUILDERS))

    def _built(self, value: Any) -> Any:
        """Build arrays, tensors and numbers from what the pickle says about them. Each part is built once."""
        if not isinstance(value, (Named, dict, list, tuple)):
            return value
        if id(value) not in self._made:
            self._made[id(value)] = value, self._build(value)  # the value too, so that its id stays its own
        return self._made[id(value)][1]

    def _build(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {checked_key(self._built(key)): self._built(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._built, value))
        if value.arguments is None:  # a class that is named as an argument
            return value
        return _BUILDERS[value.name](self, *map(self._built, value.arguments), state=self._built(value.state))

    def spend(self, count: int) -> None:
        self._bytes -= count
        if self._bytes < 0:
            raise ValueError("makes more than its size allows")

    def storage(self, content: Any, state: Any = None) -> npt.NDArray[Any]:
        """Read a tensor's numbers, as torch.save writes them without zip."""
        source = Source(memoryview(of_type((bytes, memoryview), content)))
        magic, version, system, described, _ = (self._steps.read(source, _STORAGES) for _ in range(5))
        if (magic, version) != _TORCH_FORMAT or not system.get("little_endian", True):
            raise ValueError("holds a tensor in an unknown format")
        _, storage, _, _, count, view = described
        if view is not None:
            raise ValueError("holds a view of a tensor's numbers")
        kind, numbers = _STORAGES[of_type(Named, storage).name], source.rest[8:]  # 8: the count
        if kind != "bfloat16":
            return array_over(numbers, [count], kind)
        self.spend(8 * len(numbers))
        return (array_over(numbers, [count], "<u2").astype(np.uint32) << 16).view(np.float32)


def _reconstructed(builder: _Builder, *_: Any, state: Any) -> Any:
    _, shape, dtype, is_fortran, content = state
    if isinstance(content, list):  # a 0-dimensional array that holds the dict
        (alone,) = content
        return alone
    return array_over(content, shape, dtype, "F" if is_fortran else "C")


def _dtype(builder: _Builder, name: Any, *_: Any, state: Any = None) -> str:
    byte_order = of_type(str, state[1]) if state else "="
    return f"{byte_order if byte_order in ('<', '>') else ''}{of_type(str, name)[:32]}"


def _encoded(builder: _Builder, text: Any, encoding: Any, state: Any = None) -> bytes:
    builder.spend(len(of_type(str, text)))
    return bytes(text, "latin1")


def _scalar(builder: _Builder, dtype: Any, content: Any, state: Any = None) -> Any:
    return array_over(content, (), dtype).item()


def _frombuffer(
    builder: _Builder, content: Any, dtype: Any, shape: Any, order: Any, state: Any = None
) -> npt.NDArray[Any]:
    return array_over(content, shape, dtype, order)


def _ndarray(builder: _Builder, shape: Any, dtype: Any, content: Any, state: Any = None) -> npt.NDArray[Any]:
    return array_over(content, shape, dtype)


def _itself(builder: _Builder, content: Any, state: Any = None) -> Any:
    return content


def _dict(builder: _Builder, pairs: Any = (), state: Any = None) -> dict[Any, Any]:
    builder.spend(200 * len(of_type((list, tuple), pairs)))
    return {checked_key(key): value for key, value in pairs}


def _tensor(
    builder: _Builder, storage: Any, offset: Any, size: Any, stride: Any, *_: Any, state: Any = None
) -> npt.NDArray[Any]:
    if not isinstance(storage, np.ndarray):
        raise ValueError(f"holds a tensor over {type(storage).__name__}")
    sides, steps = _whole_numbers(size), _whole_numbers(stride)
    last = of_type(int, offset) + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    if min((offset, *sides, *steps)) < 0 or (0 not in sides and last >= storage.size):
        raise ValueError(f"has {storage.size} numbers for a tensor of shape {sides}")
    if 0 in sides:
        return np.empty(sides, storage.dtype)
    return as_strided(storage[offset:], sides, [step * storage.itemsize for step in steps])


_BUILDERS: Mapping[str, Callable[..., Any]] = {
    "_codecs.encode": _encoded,  # bytes, in protocol 2
    "builtins.dict": _dict,
    "collections.OrderedDict": _dict,  # of a tensor's hooks
    "numpy.dtype": _dtype,
    "numpy.ndarray": _ndarray,
    "numpy.array": _itself,
    "numpy.core.multiarray._reconstruct": _reconstructed,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "torch.from_numpy": _itself,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _Builder.storage,
}
_STORAGES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "|i1",
    "torch.ByteStorage": "|u1",
    "torch.BoolStorage": "|b1",
}
