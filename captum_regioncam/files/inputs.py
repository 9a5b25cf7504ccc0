"""Reading files: only regular files, of a bounded size, with errors that name them."""

import json
import os
import stat
from typing import Any, BinaryIO

__all__ = ["MEGABYTE", "open_file", "read_bytes", "read_json", "read_text"]

MEGABYTE = 1 << 20

# Opening a FIFO would wait for a writer. Only Windows has, and needs, O_BINARY.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file, or a symbolic link to one, to read bytes. Nothing else is ever waited for.

    Raises:
        ValueError: it is missing, unreadable or not a regular file, or no file can have such a name.
    """
    try:
        mode = os.stat(path).st_mode  # before it is opened: the writer of a FIFO would notice
        if stat.S_ISREG(mode):
            handle = os.open(path, _FLAGS)
            mode = os.fstat(handle).st_mode  # the name may have become another file's
            if stat.S_ISREG(mode):
                return os.fdopen(handle, "rb")
            os.close(handle)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:  # no file has a NUL, or half of a surrogate pair, in its name
        raise ValueError(f"{path}: cannot be read ({error}).") from error
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    raise ValueError(f"{path}: cannot be read (it is {kind}, not a regular file).")


def read_bytes(path: str | os.PathLike[str], most: int = 16 * MEGABYTE, *, remedy: str = "") -> bytes:
    """Read a regular file whole.

    Args:
        path: the file.
        most: the largest number of bytes that is read into memory.
        remedy: how to read more, for the error.

    Raises:
        ValueError: it cannot be read, or is larger.
    """
    with open_file(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                limit = f"is larger than {most / MEGABYTE:g} MB, the most that is read of such a file."
                raise ValueError(f"{path}: {limit} {remedy}".rstrip())
            content = file.read(size + 1)  # a larger number would be allocated
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(content) > size:
        raise ValueError(f"{path}: cannot be read (it grew meanwhile).")
    return content


def read_text(path: str | os.PathLike[str], most: int = 256 * MEGABYTE) -> str:
    """Read a text file, in UTF-8 with or without a byte-order mark.

    Raises:
        ValueError: it cannot be read, is larger than ``most`` bytes, or is not UTF-8.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start}).") from error


def read_json(path: str | os.PathLike[str], most: int = 2048 * MEGABYTE) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it cannot be read, is larger than ``most`` bytes, or is not JSON.
    """
    text = read_text(path, most)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path}: cannot be read (it is nested too deeply).") from error
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read ({error}).") from error
