"""Locks, so that only one process at a time changes a folder's record."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.files.outputs import OutputError
from captum_regioncam.files.stamps import is_regular

__all__ = ["LOCK", "is_held", "is_lock", "lock_of", "locked"]

LOCK = ".captum_regioncam.lock"


def lock_of(folder: Path, shard: tuple[int, int] | None = None) -> Path:
    """Return the file that a run locks while it writes to a folder; each shard has its own."""
    return folder / (LOCK if shard is None else f".captum_regioncam-shard-{shard[0]}-of-{shard[1]}.lock")


def is_lock(path: Path) -> bool:
    """Return whether a file may be a lock of this package's. Locks are always empty."""
    return is_regular(path) and not path.lstat().st_size


def is_held(path: Path) -> bool | None:
    """Return whether a process holds a lock; None if that cannot be found out here."""
    if not is_regular(path):
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return None


@contextmanager
def locked(folder: Path, argument: str, wait: float = 0, shard: tuple[int, int] | None = None) -> Iterator[None]:
    """Create a folder if it is missing, and keep other processes of this package from changing its record.

    Args:
        folder: the folder.
        argument: the argument with which the user named it, for errors.
        wait: how many seconds to wait for another process.
        shard: keep others only from this shard of the folder's results.

    Raises:
        ArgumentError: another process holds the lock for longer.
        OutputError: the folder cannot be written to.
    """
    path, named = lock_of(folder, shard), Argument(argument, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not is_lock(path):
            raise ArgumentError(named, f": {path} is not this package's. Choose another folder.")
        lock = FileLock(path)
        lock.acquire(timeout=wait)
    except Timeout:
        what = f"shard {shard[0]} of {shard[1]}" if shard else "it"
        raise ArgumentError(
            named, f": another run is writing to {what}. Wait for it, or choose another folder."
        ) from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror or error}).") from error
    try:
        yield
    finally:
        lock.release()
