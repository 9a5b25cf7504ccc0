"""Pickles of arrays and tensors, read without running them, in time and memory that their own length bounds."""

import math
import pickletools
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from captum_regioncam.files.inputs import MEGABYTE

__all__ = ["MOST_KEYS", "array_over", "read_pickle"]

MOST_KEYS = 65_536
"""A seed's classes are lower."""

_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_MOST_DIMENSIONS = 32  # of NumPy before 2.0
_TORCH_FORMAT = (0x1950A86A20F9469CFC6C, 1001)  # with which torch begins what is not a zip file


def read_pickle(content: memoryview) -> Any:
    """Read a pickle of dicts, lists, tuples, numbers, strings, arrays and tensors. Tensors become arrays too.

    The arrays are views of ``content``. Some may share memory, and strides of 0 make some larger than ``content``, so
    look at their sizes before you copy them.

    Raises:
        Exception: the pickle is broken, or refers to something else. Errors are of many types.
    """
    return _Reader(content).read()


def array_over(content: Any, shape: Any, dtype: Any, order: Any = "C") -> npt.NDArray[Any]:
    """Return an array of real numbers over the memory of bytes.

    Raises:
        ValueError: the shape does not fit the bytes, or the numbers are not real.
        TypeError: there is no such type of numbers.
    """
    kind = np.dtype(_of_type(str, dtype)[:32])
    if kind.kind not in "biuf":
        raise ValueError(f"holds an array of {kind}")
    sides = _whole_numbers(shape)
    size = len(_of_type((bytes, bytearray, memoryview), content))
    if size != math.prod(sides) * kind.itemsize or min(sides, default=0) < 0:
        raise ValueError(f"has {size} bytes for an array of shape {sides} and type {kind}")
    return np.ndarray(sides, kind, content, order="F" if order == "F" else "C")


def _of_type(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"has a {type(value).__name__} in the wrong place")
    return value


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if len(_of_type((list, tuple), values)) > _MOST_DIMENSIONS:
        raise ValueError(f"holds an array of {len(values)} dimensions")
    return tuple(_of_type(int, value) for value in values)


def _key(value: Any) -> str | int:
    """Check a key before it is hashed: a tuple's parts are hashed again wherever they are shared."""
    if isinstance(value, str) or (isinstance(value, int) and 0 <= value < MOST_KEYS):
        return value
    raise ValueError(f"has a key that is neither a name nor a class from 0 to {MOST_KEYS - 1}")


class _Named:
    """Stands in for an object that a pickle names: keeps what it is called with, and does nothing."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] | None = None) -> None:
        self.name, self.arguments, self.state = name, arguments, None


class _Source:
    """What pickletools reads from: small parts as bytes, large ones in place."""

    def __init__(self, content: memoryview) -> None:
        self.rest = content

    def read(self, count: int) -> bytes | memoryview:
        part, self.rest = self.rest[:count], self.rest[count:]
        return bytes(part) if count < 1024 else part

    def readline(self) -> bytes:
        """Read a line of a name, which is short."""
        return bytes(self.read(bytes(self.rest[:512]).find(b"\n") + 1))


class _Reader:
    """Reads one pickle. Python's own unpickler would allocate what the pickle says, and hash keys for hours."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._steps = min(2_000 + len(content) // 8, 200_000)  # each makes an object of up to 300 bytes
        self._bytes = MEGABYTE + 4 * len(content)  # of numbers that have to be converted
        self._made: dict[int, tuple[Any, Any]] = {}

    def read(self) -> Any:
        return self._built(self._parsed(_Source(self._content), _BUILDERS))

    def _parsed(self, source: _Source, known: Container[str]) -> Any:
        """Do the steps of a pickle, with stand-ins for the known objects that it names."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def after_mark() -> list[Any]:
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            return items

        steps: Iterator[tuple[Any, Any, Any]] = pickletools.genops(source)  # type: ignore[arg-type]
        for opcode, argument, _ in steps:
            self._steps -= 1
            if self._steps < 0:
                raise ValueError("has too many parts for its size")
            match name := opcode.name:
                case "PROTO" | "FRAME" | "STOP" | "BINPERSID":  # a persistent id stays the tuple that it is
                    pass
                case _ if name in _VALUES:
                    stack.append(argument)
                case _ if name in _CONSTANTS:
                    stack.append(_CONSTANTS[name])
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    items = [stack.pop() for _ in range(int(name[-1]))]
                    stack.append(tuple(reversed(items)))
                case "TUPLE":
                    stack.append(tuple(after_mark()))
                case "EMPTY_LIST":
                    stack.append([])
                case "APPEND" | "APPENDS":
                    items = after_mark() if name == "APPENDS" else [stack.pop()]
                    _of_type(list, stack[-1]).extend(items)
                case "EMPTY_DICT":
                    stack.append({})
                case "SETITEM" | "SETITEMS":
                    items = after_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                    for key, value in zip(items[::2], items[1::2], strict=True):
                        _of_type(dict, stack[-1])[key if isinstance(key, _Named) else _key(key)] = value
                case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                    memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL" | "STACK_GLOBAL":
                    words = argument.split(" ", 1) if name == "GLOBAL" else [stack.pop(-2), stack.pop()]
                    full = ".".join(words).replace("numpy._core", "numpy.core")
                    if full not in known:
                        raise ValueError(f"refers to {full[:100]}, which no seed needs")
                    stack.append(_Named(full))
                case "REDUCE":
                    arguments, called = _of_type(tuple, stack.pop()), _of_type(_Named, stack.pop())
                    stack.append(_Named(called.name, arguments))
                case "BUILD":
                    state = stack.pop()
                    _of_type(_Named, stack[-1]).state = state
                case _:
                    raise ValueError(f"is a pickle with {name}, which no seed needs")
        return stack.pop()

    def _built(self, value: Any) -> Any:
        """Build arrays, tensors and numbers from what the pickle says about them, each part once."""
        if not isinstance(value, (_Named, dict, list, tuple)):
            return value
        if id(value) not in self._made:
            self._made[id(value)] = value, self._build(value)  # the value too, so that its id stays its own
        return self._made[id(value)][1]

    def _build(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {_key(self._built(key)): self._built(part) for key, part in value.items()}
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
        source = _Source(memoryview(_of_type((bytes, memoryview), content)))
        magic, version, system, described, _ = (self._parsed(source, _STORAGES) for _ in range(5))
        if (magic, version) != _TORCH_FORMAT or not system.get("little_endian", True):
            raise ValueError("holds a tensor in an unknown format")
        _, storage, _, _, count, view = described
        if view is not None:
            raise ValueError("holds a view of a tensor's numbers")
        kind, numbers = _STORAGES[_of_type(_Named, storage).name], source.rest[8:]  # 8: the count
        if kind != "bfloat16":
            return array_over(numbers, [count], kind)
        self.spend(8 * len(numbers))
        return (array_over(numbers, [count], "<u2").astype(np.uint32) << 16).view(np.float32)


def _reconstructed(reader: _Reader, *_: Any, state: Any) -> Any:
    _, shape, dtype, is_fortran, content = state
    if isinstance(content, list):  # a 0-dimensional array that holds the dict
        (alone,) = content
        return alone
    return array_over(content, shape, dtype, "F" if is_fortran else "C")


def _dtype(reader: _Reader, name: Any, *_: Any, state: Any = None) -> str:
    byte_order = _of_type(str, state[1]) if state else "="
    return f"{byte_order if byte_order in ('<', '>') else ''}{_of_type(str, name)[:32]}"


def _encoded(reader: _Reader, text: Any, encoding: Any, state: Any = None) -> bytes:
    reader.spend(len(_of_type(str, text)))
    return bytes(text, "latin1")


def _scalar(reader: _Reader, dtype: Any, content: Any, state: Any = None) -> Any:
    return array_over(content, (), dtype).item()


def _frombuffer(
    reader: _Reader, content: Any, dtype: Any, shape: Any, order: Any, state: Any = None
) -> npt.NDArray[Any]:
    return array_over(content, shape, dtype, order)


def _ndarray(reader: _Reader, shape: Any, dtype: Any, content: Any, state: Any = None) -> npt.NDArray[Any]:
    return array_over(content, shape, dtype)


def _itself(reader: _Reader, content: Any, state: Any = None) -> Any:
    return content


def _dict(reader: _Reader, pairs: Any = (), state: Any = None) -> dict[Any, Any]:
    reader.spend(200 * len(_of_type((list, tuple), pairs)))
    return {_key(key): value for key, value in pairs}


def _tensor(
    reader: _Reader, storage: Any, offset: Any, size: Any, stride: Any, *_: Any, state: Any = None
) -> npt.NDArray[Any]:
    if not isinstance(storage, np.ndarray):
        raise ValueError(f"holds a tensor over {type(storage).__name__}")
    sides, steps = _whole_numbers(size), _whole_numbers(stride)
    last = _of_type(int, offset) + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
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
    "torch.storage._load_from_bytes": _Reader.storage,
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
