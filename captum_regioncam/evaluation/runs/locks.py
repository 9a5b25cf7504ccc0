"""One process at a time changes a folder's record."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.files.outputs import OutputError
from captum_regioncam.files.stamps import is_regular

__all__ = ["LOCK", "locked"]

LOCK = ".captum_regioncam.lock"


@contextmanager
def locked(folder: Path, argument: str, wait: float = 0) -> Iterator[None]:
    """Create a folder if it is missing, and keep other processes of this package from changing its record.

    Args:
        folder: the folder.
        argument: that the user named it with, for errors.
        wait: how many seconds to wait for another process.

    Raises:
        ArgumentError: another process holds the lock for longer.
        OutputError: the folder cannot be written to.
    """
    path, named = folder / LOCK, Argument(argument, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and (not is_regular(path) or path.lstat().st_size):  # ours is always empty
            raise ArgumentError(named, f": {path} is not this package's. Choose another folder.")
        lock = FileLock(path)
        lock.acquire(timeout=wait)
    except Timeout:
        raise ArgumentError(named, ": another run is writing to it. Wait for it, or choose another folder.") from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror or error}).") from error
    try:
        yield
    finally:
        lock.release()
