"""Importing what users name in their own modules: factories, and classes of checkpoints."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import cast

__all__ = ["current_folder_last", "module_named", "named_object"]


@contextmanager
def current_folder_last() -> Iterator[None]:
    """Let imports find what lies in the current folder, after everything that is installed."""
    sys.path.append(entry := "")
    try:
        yield
    finally:
        if entry in sys.path:  # remove the last one, so that an entry of the user's stays
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(entry)]


def module_named(name: str) -> ModuleType:
    """Import a module by its dotted name, or from a file, such as "examples/irn_resnet50.py".

    Raises:
        Exception: whatever the module raises; an ImportError or an OSError if there is no such module.
    """
    if not name.endswith(".py"):
        return importlib.import_module(name)
    loader = SourceFileLoader(f"{__name__}.{Path(name).stem}", name)
    module = module_from_spec(cast(ModuleSpec, spec_from_loader(loader.name, loader)))
    loader.exec_module(module)
    return module


def named_object(name: str) -> object:
    """Import what has a dotted name, such as "argparse.Namespace".

    Raises:
        Exception: whatever its module raises; an ImportError or an AttributeError if there is no such name.
    """
    module, *inside = name.split(".")
    with current_folder_last():
        found: object = importlib.import_module(module)
        for part in inside:
            module = f"{module}.{part}"
            if not hasattr(found, part):
                importlib.import_module(module)
            found = getattr(found, part)
    return found
