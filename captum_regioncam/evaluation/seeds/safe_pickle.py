"""Following the steps of a pickle without running them, in time and memory that their number bounds."""

import pickletools
from collections.abc import Container, Iterator, Mapping
from typing import Any

__all__ = ["MOST_KEYS", "Named", "Source", "StepReader", "checked_key", "of_type"]

MOST_KEYS = 65_536
"""The classes of a seed are below this number, and there are no more of them than this."""

_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def of_type(kind: Any, value: Any) -> Any:
    """Return a value unchanged if it has a type, or one of a tuple of types.

    Raises:
        ValueError: it has another type.
    """
    if not isinstance(value, kind):
        raise ValueError(f"has a {type(value).__name__} in the wrong place")
    return value


def checked_key(value: Any) -> str | int:
    """Return a key unchanged if it is safe to hash: hashing nested tuples that share parts could take for ever.

    Raises:
        ValueError: it is neither a text nor a class.
    """
    if isinstance(value, str) or (isinstance(value, int) and 0 <= value < MOST_KEYS):
        return value
    raise ValueError(f"has a key that is neither a name nor a class from 0 to {MOST_KEYS - 1}")


class Named:
    """Stands in for an object that a pickle names: keeps what it is called with, and does nothing."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] | None = None) -> None:
        self.name, self.arguments, self.state = name, arguments, None


class Source:
    """What pickletools reads from: small parts as bytes, large ones in place."""

    def __init__(self, content: memoryview) -> None:
        self.rest = content

    def read(self, count: int) -> bytes | memoryview:
        """Return the next ``count`` bytes, or as many as are left."""
        part, self.rest = self.rest[:count], self.rest[count:]
        return bytes(part) if count < 1024 else part

    def readline(self) -> bytes:
        """Read a line of a name, which is short."""
        return bytes(self.read(bytes(self.rest[:512]).find(b"\n") + 1))


class StepReader:
    """Reads pickles. Python's own unpickler would allocate whatever a pickle says, and could hash keys for hours.

    Args:
        steps: the largest number of steps of all pickles together; each makes an object of up to 300 bytes.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def read(self, source: Source, known: Container[str]) -> Any:
        """Follow the steps of a pickle, with a :class:`Named` for each object that it names.

        Args:
            source: begins with the pickle, and afterwards with what follows it.
            known: the names that it may use.

        Raises:
            Exception: the pickle is broken, or names something else. Errors have many types.
        """
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def after_mark() -> list[Any]:
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            return items

        steps: Iterator[tuple[Any, Any, Any]] = pickletools.genops(source)  # type: ignore[arg-type]  # it only reads
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
                    of_type(list, stack[-1]).extend(items)
                case "EMPTY_DICT":
                    stack.append({})
                case "SETITEM" | "SETITEMS":
                    items = after_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                    for key, value in zip(items[::2], items[1::2], strict=True):
                        of_type(dict, stack[-1])[key if isinstance(key, Named) else checked_key(key)] = value
                case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                    memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL" | "STACK_GLOBAL":
                    words = argument.split(" ", 1) if name == "GLOBAL" else [stack.pop(-2), stack.pop()]
                    full = ".".join(words).replace("numpy._core", "numpy.core")
                    if full not in known:
                        raise ValueError(f"refers to {full[:100]}, which no seed needs")
                    stack.append(Named(full))
                case "REDUCE":
                    arguments, called = of_type(tuple, stack.pop()), of_type(Named, stack.pop())
                    stack.append(Named(called.name, arguments))
                case "BUILD":
                    state = stack.pop()
                    of_type(Named, stack[-1]).state = state
                case _:
                    raise ValueError(f"is a pickle with {name}, which no seed needs")
        return stack.pop()
