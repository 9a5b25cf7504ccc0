"""Writing a run's results: each is noted in a journal before it appears, and never replaces another's file."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from captum_regioncam.files.inputs import read_bytes
from captum_regioncam.files.outputs import UNFINISHED, OutputError
from captum_regioncam.files.stamps import Stamp, as_stamp, is_as_written, is_regular, stamp

__all__ = ["Writer", "journal_of", "noted_in", "unfinished_of"]

_NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
_LARGEST = 1 << 28  # bytes of a journal: millions of results


@dataclass(frozen=True)
class Writer:
    """Writes one process's results.

    Attributes:
        folder: where the results go.
        token: the session's token.
        rank: the process's rank.
        stamps: the stamps of the results that may be replaced.
    """

    folder: Path
    token: str
    rank: int = 0
    stamps: dict[str, list[Stamp]] = field(default_factory=dict)

    def write(self, name: str, content: bytes) -> None:
        """Write a result: note it, then let it appear, complete. It replaces only what the record lists.

        Raises:
            ValueError: there is a file of that name that this package did not write, or that has changed since.
            OutputError: it cannot be written.
        """
        path = self.folder / name
        temporary = unfinished_of(self.folder, self.token, self.rank)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not os.path.lexists(path)
            if not is_new and not is_as_written(path, self.stamps.get(name, ())):
                raise _taken(path)
            with temporary.open("xb") as file:
                file.write(content)
            if not is_new:
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            own = stamp(temporary, content)
            with journal_of(self.folder, self.token, self.rank).open("a") as journal:
                journal.write(json.dumps([name, *own]) + "\n")
            self.stamps.setdefault(name, []).append(own)
            if is_new:
                _appear(temporary, path)
            else:
                temporary.replace(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _taken(path: Path) -> ValueError:
    return ValueError(f"{path}: is a file that this command did not write; it stays as it is. Move it, or delete it.")


def _appear(temporary: Path, path: Path) -> None:
    """Give a file its name, unless another file has taken the name meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            path.open("xb").close()  # a file system without hard links: take the name first
        except FileExistsError:
            raise _taken(path) from None
        temporary.replace(path)


def journal_of(folder: Path, token: str, rank: int) -> Path:
    """Return the journal of a session's process."""
    return folder / f"{UNFINISHED}{token}-{rank}.jsonl"


def unfinished_of(folder: Path, token: str, rank: int) -> Path:
    """Return the file that a session's process has not finished writing."""
    return folder / f"{UNFINISHED}{token}-{rank}.tmp"


def noted_in(journal: Path) -> Iterator[tuple[str, Stamp]]:
    """Yield what a journal notes. If the process was killed while writing the last line, that result never appeared."""
    if not is_regular(journal):
        return
    for line in read_bytes(journal, _LARGEST).splitlines():
        with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
            name, *rest = json.loads(line)
            yield str(name), as_stamp(rest)
