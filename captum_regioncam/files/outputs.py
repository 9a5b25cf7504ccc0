"""Writing results: files are written completely or not at all, and only where nothing else is lost."""

import hashlib
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_regioncam.errors import Argument, ArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "MARK", "UNFINISHED", "OutputError", "check_folder", "check_output", "check_picture", "encode_figure", "fits",
    "is_stream", "write_output", "write_whole",
]  # fmt: skip

MARK = "written by captum_regioncam"
"""What this package writes into every file that a user names as an output (``--json``), so that it may be replaced."""
UNFINISHED = ".captum_regioncam-"
"""How the names of unfinished files, and of journals of what is written, begin."""

_SIGNS = {
    b"{": b'"written_by": "' + MARK.encode(),
    b"\x89PNG": b"Software\0" + MARK.encode(),
    b"\xff\xd8": b"\xff\xfe",  # JPEG's comment, whose length is followed by the mark
    b"%PDF": b"/Creator (" + MARK.encode(),
    b"% ": b"% " + MARK.encode(),  # LaTeX
    b"<?xml": b"<dc:title>" + MARK.encode(),
}
"""How files of each format begin, and where they have the mark."""
_NEAR = 1 << 16  # bytes from a file's ends, where the mark is
_PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
_LONGEST_NAME = 255  # bytes
_DESCRIPTOR = re.compile(r"/(?:dev/fd|proc/self/fd)/([0-9]+)|/dev/(stdout)|/dev/(stderr)")


class OutputError(OSError):
    """A result cannot be written; the message names the file and the reason."""


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that appears, or replaces an older one, only once it is complete.

    Missing folders are created. A symlink is followed, and a file that is replaced hands on its permissions. A FIFO, a
    character device or an open file such as ``/dev/stdout`` gets the bytes, at its end.

    Raises:
        OutputError: the file cannot be written. Nothing is left behind, and an older file stays.
    """
    with _told(path):
        if is_stream(path):
            _write_through(path, content)
            return
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{UNFINISHED}{secrets.token_hex(8)}"
        try:
            temporary.open("xb").close()
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            temporary.write_bytes(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Make errors name the output, unless they do so already."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}).") from error


def _target(path: str | os.PathLike[str]) -> Path:
    """Return the file that a path leads to, after checking that it can be replaced or created."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"{path}: is a folder; give a file to write.")
    if blocked := next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None):
        raise OutputError(f"{path}: cannot be written, because {blocked} is a file.")
    if os.path.lexists(target):
        mode = target.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise OutputError(f"{path}: is not a regular file; choose another name.")
        if not mode & 0o222:
            raise OutputError(f"{path}: is write-protected; choose another name.")
    return target


def _write_through(path: str | os.PathLike[str], content: bytes) -> None:
    if (named := _DESCRIPTOR.fullmatch(str(path))) is None:
        with open(os.open(path, os.O_WRONLY), "wb") as stream:
            stream.write(content)
        return
    number, is_stdout, _ = named.groups()
    sys.stdout.flush()  # what was printed comes first
    sys.stderr.flush()
    with open(os.dup(int(number) if number else 1 if is_stdout else 2), "wb") as stream:
        stream.write(content)


def check_output(path: Path) -> None:
    """Check, before a long run and again at its end, that an output the user named can be written and nothing is lost.

    Raises:
        OutputError: there is a file that this package did not write, or the file cannot be written.
    """
    if is_stream(path):
        return
    with _told(path):
        target = _target(path)
        if target.name.startswith(".captum_regioncam"):
            raise OutputError(f"{path}: is a name that this package reserves for its records; choose another name.")
        if target.exists() and not _has_mark(target):
            raise OutputError(
                f"{path}: is a file that this package did not write (version 0.2 did not mark its files); move it, or "
                "choose another name."
            )
        check_folder(target.parent, str(path))


def check_picture(argument: str, path: Path) -> None:
    """Check that a picture can be written to a path: a file, in a format that matplotlib writes.

    Raises:
        ArgumentError: it cannot.
    """
    if path.is_dir() or path.suffix.lower() not in ("", *_PICTURES):
        raise ArgumentError(Argument(argument, path), ": expects a file to write, .png, .jpg, .pdf or .svg.")


def check_folder(folder: Path, named: str | None = None) -> None:
    """Check that files can be written to a folder, which may not exist yet. Nothing is left behind.

    Args:
        folder: the folder.
        named: what the user named, for the error. Default: the folder.

    Raises:
        OutputError: they cannot be written.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    probe = there / f"{UNFINISHED}{secrets.token_hex(8)}"
    with _told(named or folder):
        try:
            probe.write_bytes(bytes(4096))  # the only sure way to know
        finally:
            probe.unlink(missing_ok=True)


def write_output(path: Path, content: bytes) -> None:
    """Write an output that the user named, unless a file that this package did not write has appeared there meanwhile.

    Raises:
        OutputError: one has appeared, or the file cannot be written.
    """
    check_output(path)
    write_whole(path, content)


def encode_figure(figure: "Figure", path: Path, **options: Any) -> bytes:
    """Return the content of a picture, with our mark, in the format that a path's ending names, or else as PNG.

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
    if _DESCRIPTOR.fullmatch(str(path)):  # even if it is redirected to a file
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def fits(stem: str, ending: str) -> str:
    """Join a stem and an ending into a name of at most 255 bytes; a stem that is too long is cut, and gets a hash."""
    room = _LONGEST_NAME - len(os.fsencode(ending))
    whole = os.fsencode(stem)
    if len(whole) <= room:
        return stem + ending
    mark = "~" + hashlib.sha256(whole).hexdigest()[:8]
    return whole[: room - len(mark)].decode(errors="ignore") + mark + ending


def _has_mark(path: Path) -> bool:
    """Return whether a file says that this package wrote it, at the place that its format has for that."""
    with path.open("rb") as file:
        beginning = file.read(_NEAR)
        file.seek(max(0, path.stat().st_size - _NEAR))
        near = beginning + file.read(_NEAR)
    sign = next((sign for begins, sign in _SIGNS.items() if beginning.startswith(begins)), None)
    return sign is not None and sign in near and MARK.encode() in near
