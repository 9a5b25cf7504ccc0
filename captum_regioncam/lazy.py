"""Packages whose public names are imported when they are used (PEP 562)."""

import importlib
import warnings
from collections.abc import Callable, Mapping

__all__ = ["lazily"]


def lazily(
    package: str, homes: Mapping[str, str], renamed: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Args:
        package: the package's name.
        homes: {public name: the module below the package that has it}.
        renamed: {old name: public name}; old names are deprecated, and ``__dir__`` does not list them.
    """
    public = renamed or {}

    def getattr_(name: str) -> object:
        if name in public:
            warnings.warn(
                f"{package}.{name} has been renamed: use {public[name]}. The old name will be removed in the next "
                "version.",
                DeprecationWarning,
                stacklevel=2,
            )
            name = public[name]
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    def dir_() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *homes})

    return getattr_, dir_
