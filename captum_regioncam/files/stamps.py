"""How a file is recognised: by its size and either the time of its last change or, after a copy, its content."""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Stamp", "as_stamp", "is_as_written", "is_regular", "sha256", "stamp"]

Stamp = tuple[int, int, str]
"""A file's size, the time of its last change in nanoseconds, and the SHA-256 of its content."""


def stamp(path: Path, content: bytes) -> Stamp:
    """Return the stamp of a file that holds some content."""
    found = path.lstat()
    return found.st_size, found.st_mtime_ns, hashlib.sha256(content).hexdigest()


def is_as_written(path: Path, stamps: Sequence[Stamp]) -> bool:
    """Return whether a file is as one of its stamps says. Its content is read only if its time has changed."""
    try:
        found = path.lstat()
        alike = [stamp for stamp in stamps if stamp[0] == found.st_size and stat.S_ISREG(found.st_mode)]
        if any(stamp[1] == found.st_mtime_ns for stamp in alike):
            return True
        return bool(alike) and sha256(path) in {stamp[2] for stamp in alike}
    except (OSError, ValueError):
        return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Return whether there is a regular file at a path, not a link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def as_stamp(value: Any) -> Stamp:
    """Return a stamp from what JSON made of it.

    Raises:
        ValueError, TypeError, OverflowError: it is something else.
    """
    size, time, digest = value
    return int(size), int(time), str(digest)
