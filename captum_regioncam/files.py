"""Results out: files that are written completely or not at all, and only where nothing else is lost."""

import io
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

__all__ = ["MARK", "UNFINISHED", "OutputError", "check_output", "encode_figure", "is_stream", "write_whole"]

MARK = "written by captum_regioncam"
"""What every file that a user names as an output (``--json``, ``--plot``) says of itself: it may be replaced."""
_NEAR = 1 << 16
UNFINISHED = ".captum_regioncam-"
"""How the names of files begin that are still being written."""


class OutputError(Exception):
    """A result cannot be written; the message names the file and the reason."""


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that appears, or replaces an older one, only once it is complete.

    Missing folders are created. A symlink is followed, and a file that is replaced hands on its permissions. A FIFO, a
    character device or ``/dev/stdout`` gets the bytes.

    Raises:
        OutputError: the file cannot be written. Nothing is left behind, and an older file stays.
    """
    try:
        if is_stream(path):
            with open(path, "wb") as stream:
                stream.write(content)
            return
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and not stat.S_ISREG(mode):
            raise OutputError(f"{path}: is not a regular file; choose another name.")
        if mode is not None and not mode & 0o222:
            raise OutputError(f"{path}: is write-protected; choose another name.")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{UNFINISHED}{secrets.token_hex(8)}"
        try:
            temporary.open("xb").close()
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            temporary.write_bytes(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}).") from error


def check_output(path: Path) -> None:
    """Check, before a long run, that a file named by the user can be written, and that nothing is lost by it.

    Raises:
        OutputError: there is a file that this package did not write, or none can be written there.
    """
    if is_stream(path):
        return
    target = Path(os.path.realpath(path))
    if target.name.startswith(".captum_regioncam"):
        raise OutputError(f"{path}: is a name that this package keeps for its records; choose another name.")
    try:
        if target.is_dir():
            raise OutputError(f"{path}: is a folder; give a file to write.")
        if blocked := next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None):
            raise OutputError(f"{path}: cannot be written, as {blocked} is a file.")
        if target.exists() and not _says_it_is_ours(target):
            raise OutputError(f"{path}: is a file that this package did not write; choose another name.")
        if target.exists() and not target.stat().st_mode & 0o222:
            raise OutputError(f"{path}: is write-protected; choose another name.")
        target.parent.mkdir(parents=True, exist_ok=True)
        probe = target.parent / f"{UNFINISHED}{secrets.token_hex(8)}"
        try:
            probe.write_bytes(bytes(4096))  # the only sure way to know that the folder can be written to
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error


def encode_figure(figure: Figure, path: Path, **options: Any) -> bytes:
    """Return the content of a picture in the format that a path's ending names, PNG if it has none, with our mark.

    Args:
        figure: the figure.
        path: where it will go.
        options: passed to ``savefig``.
    """
    ending = path.suffix[1:].lower() or "png"
    if ending in ("jpg", "jpeg"):
        options |= {"pil_kwargs": {"comment": MARK}}
    else:
        options |= {"metadata": {"Software" if ending == "png" else "Creator": MARK}}
    content = io.BytesIO()
    figure.savefig(content, format=ending, **options)
    return content.getvalue()


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Return whether a path takes bytes without being a file that could be replaced: a FIFO, a device, /dev/stdout."""
    if str(path).startswith(("/dev/std", "/dev/fd/", "/proc/self/fd/")):  # also where it is redirected to a file
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _says_it_is_ours(path: Path) -> bool:
    """Return whether a file has the mark, near its beginning or its end, which is where each format keeps it."""
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        beginning = file.read(_NEAR)
        file.seek(max(0, path.stat().st_size - _NEAR))
        return MARK.encode() in beginning + file.read(_NEAR)
