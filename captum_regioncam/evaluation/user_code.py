"""What the user names in modules of their own: factories, and classes of checkpoints."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["current_folder_last", "named_object"]


@contextmanager
def current_folder_last() -> Iterator[None]:
    """Let imports find what lies in the current folder, after everything that is installed."""
    sys.path.append(entry := "")
    try:
        yield
    finally:
        if entry in sys.path:  # the last of them, so that one of the user's stays
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(entry)]


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
