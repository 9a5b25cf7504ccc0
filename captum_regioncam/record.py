"""The record of a folder: which of its files this package wrote. Only these are ever removed or replaced.

The record is ``.captum_regioncam.json``. While a run writes, each of its processes notes every result in a journal of
its own *before* the result appears, with the size and the time that the result will have. So the record holds after
the process was killed at any moment, and a file that somebody changed or put there is never taken for a result.
"""

import contextlib
import hashlib
import json
import os
import secrets
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from captum_regioncam.errors import UsageError
from captum_regioncam.files import UNFINISHED, OutputError, write_whole
from captum_regioncam.inputs import read_json

__all__ = ["LOCK", "RECORD", "Record", "Run", "Writer", "fits", "listed", "locked", "stamp_of"]

RECORD = ".captum_regioncam.json"
LOCK = ".captum_regioncam.lock"
_FORMAT = 1
_LARGEST = 1 << 28  # bytes of a record: millions of results
_LONGEST_NAME = 255  # bytes
_MOST_PROCESSES = 4096

Stamp = tuple[int, int]
"""A file's size, and the time of its last change in nanoseconds."""


@dataclass
class Run:
    """What one command did in a folder, in one or several sessions with the same settings.

    Attributes:
        command: the command's name.
        settings: what the results depend on, as JSON values.
        sessions: the provenance of each session.
        results: for each file that the run wrote, by its path below the folder, its stamp; several where the process
            was killed while it replaced the file.
        writing: the session that has not ended: its ``token`` and ``processes``, and its ``host`` and ``pid``.
    """

    command: str
    settings: dict[str, Any]
    sessions: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, list[Stamp]] = field(default_factory=dict)
    writing: dict[str, Any] | None = None

    def is_alive(self) -> bool:
        """Return whether the session that has not ended may still be running."""
        if self.writing is None:
            return False
        if self.writing["host"] != socket.gethostname() or self.writing["pid"] == os.getpid():
            return True
        try:
            os.kill(self.writing["pid"], 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return True


@dataclass
class Record:
    """The runs that wrote to a folder."""

    folder: Path
    runs: list[Run]

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read a folder's record and the journals that it names; without a record, there are no runs.

        Raises:
            UsageError: there is a file of that name that is not a record.
        """
        path = folder / RECORD
        if not os.path.lexists(path):
            return cls(folder, [])
        try:
            if stamp_of(path) is None:
                raise ValueError("it is not a regular file")
            content = read_json(path, _LARGEST)
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}, and this version reads {_FORMAT}")
            runs = [_as_run(item) for item in content["runs"]]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{path}: is not a record that this package can read ({error}). Choose another folder."
            ) from error
        for run in runs:
            for journal in _journals(folder, run):
                for name, stamp in _lines(journal):
                    run.results.setdefault(name, []).append(stamp)
        return cls(folder, runs)

    def of(self, command: str) -> list[Run]:
        """Return the runs of a command."""
        return [run for run in self.runs if run.command == command]

    def stamps(self, name: str) -> list[Stamp]:
        """Return the stamps under which a file is listed."""
        return [stamp for run in self.runs for stamp in run.results.get(name, ())]

    def is_ours(self, name: str) -> bool:
        """Return whether a file is listed, and as it was when it was written."""
        return stamp_of(self.folder / name) in self.stamps(name) and not self._is_below_another(name)

    def exists(self, name: str) -> bool:
        """Return whether there is a file of that name, anybody's."""
        return os.path.lexists(self.folder / name)

    def foreign(self, names: Iterable[str]) -> str | None:
        """Return the first of some names that is taken by something that this package did not write as it is."""
        for name in names:
            above = [parent.as_posix() for parent in PurePosixPath(name).parents[:-1]]
            if self.exists(name) and not self.is_ours(name):
                return name
            for parent in above:
                if self.exists(parent) and not (self.folder / parent).is_dir():
                    return parent
            if self._is_below_another(name):
                return f"{above[-1]}/{RECORD}"
        return None

    def remove(self, run: Run, names: Iterable[str] | None = None) -> None:
        """Remove a run's results, or those of the given names. What has changed since is left where it is."""
        for name in list(run.results if names is None else names):
            if name in run.results and (not self.exists(name) or self.is_ours(name)):
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / name).unlink()
                del run.results[name]

    def begin(self, run: Run, session: dict[str, Any], processes: int = 1) -> str:
        """Add a session to a run, save, and return the session's token."""
        for other in self.runs:
            if not other.is_alive() or other is run:
                self.settle(other)
        if run not in self.runs:
            self.runs.append(run)
        token = secrets.token_hex(8)
        run.sessions.append(session)
        run.writing = {"token": token, "processes": processes, "host": socket.gethostname(), "pid": os.getpid()}
        self.save()
        return token

    def end(self, token: str, **outcome: Any) -> None:
        """End a session: note its outcome, and drop runs that have no results left."""
        run = next(run for run in self.runs if run.writing and run.writing["token"] == token)
        run.sessions[-1] |= outcome
        self.settle(run)
        for other in self.runs:
            if other is not run:
                for name in run.results.keys() & other.results.keys():
                    del other.results[name]
        self.runs = [other for other in self.runs if other.results or other.writing]
        self.save()

    def save(self) -> None:
        """Write the record; without runs, remove it."""
        if not self.runs:
            (self.folder / RECORD).unlink(missing_ok=True)
            return
        content = {"format": _FORMAT, "runs": [asdict(run) for run in self.runs]}
        write_whole(self.folder / RECORD, json.dumps(content, indent=1, default=str).encode())

    def settle(self, run: Run) -> None:
        """End a run's session: take its journals into the record, and remove them and what was never finished."""
        for name, stamps in run.results.items():
            now = stamp_of(self.folder / name)
            run.results[name] = [now] if now in stamps else stamps[-1:]
        if run.writing is not None:
            for path in (*_journals(self.folder, run), *_unfinished(self.folder, run)):
                path.unlink(missing_ok=True)
            run.writing = None

    def _is_below_another(self, name: str) -> bool:
        return any((self.folder / parent / RECORD).exists() for parent in PurePosixPath(name).parents[:-1])


@dataclass(frozen=True)
class Writer:
    """Writes one process's results.

    Attributes:
        folder: where the results go.
        token: of the session.
        rank: of the process.
        stamps: the stamps of the results that may be replaced.
    """

    folder: Path
    token: str
    rank: int = 0
    stamps: dict[str, list[Stamp]] = field(default_factory=dict)

    def write(self, name: str, content: bytes) -> None:
        """Write a result: note it, then let it appear, complete. It replaces only what the record lists.

        Raises:
            ValueError: there is a file of that name that this package did not write as it is.
            OutputError: it cannot be written.
        """
        path = self.folder / name
        temporary = self.folder / _temporary(self.token, self.rank)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(content)
            before = stamp_of(path)
            is_new = not os.path.lexists(path)
            if not is_new and before not in self.stamps.get(name, ()):
                raise ValueError(f"{path}: is a file that this command did not write; it stays as it is.")
            if before:
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            stamp = stamp_of(temporary)
            assert stamp is not None
            with (self.folder / _journal(self.token, self.rank)).open("a") as journal:
                journal.write(json.dumps([name, *stamp]) + "\n")
            self.stamps.setdefault(name, []).append(stamp)
            if is_new:
                _appear(temporary, path)
            else:
                temporary.replace(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, option: str, wait: float = 0) -> Iterator[None]:
    """Create a folder if it is missing, and keep other processes of this package from changing its record.

    Args:
        folder: the folder.
        option: what the user calls it, for errors.
        wait: how many seconds to wait for another process.

    Raises:
        UsageError: another process holds the lock for longer.
        OutputError: the folder cannot be written to.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (os.path.lexists(path) and stamp_of(path) is None) or (stamp_of(path) or (0,))[0]:  # ours is always empty
            raise UsageError(f"{option} {folder}: {path} is not this package's. Choose another folder.")
        lock = FileLock(path)
        lock.acquire(timeout=wait)
    except Timeout:
        raise UsageError(
            f"{option} {folder}: another run is writing to it. Wait for it, or choose another folder."
        ) from None
    except OSError as error:
        raise OutputError(f"{option} {folder}: cannot be written to ({error.strerror or error}).") from error
    try:
        yield
    finally:
        lock.release()


def listed(folder: Path) -> set[Path]:
    """Return the real paths of all results that the records of a folder, and of those above it, list."""
    real = Path(os.path.realpath(folder))
    found: set[Path] = set()
    for home in (real, *real.parents):
        with contextlib.suppress(UsageError):
            found |= {home / name for run in Record.read(home).runs for name in run.results}
    return found


def fits(stem: str, ending: str) -> str:
    """Join a stem and an ending to a name of at most 255 bytes; a stem that is too long is cut, and gets a hash."""
    room = _LONGEST_NAME - len(os.fsencode(ending))
    whole = os.fsencode(stem)
    if len(whole) <= room:
        return stem + ending
    mark = "~" + hashlib.sha256(whole).hexdigest()[:8]
    return whole[: room - len(mark)].decode(errors="ignore") + mark + ending


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a regular file; None of anything else."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _appear(temporary: Path, path: Path) -> None:
    """Give a file its name, unless that was taken meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise ValueError(f"{path}: is a file that this command did not write; it stays as it is.") from None
    except OSError:  # a file system without hard links
        temporary.rename(path)


def _as_run(item: dict[str, Any]) -> Run:
    """Check what a record says of a run; a record may come from anybody."""
    run = Run(**item)
    run.results = {
        _inside(name): [(int(size), int(time)) for size, time in stamps] for name, stamps in run.results.items()
    }
    if run.writing is not None:
        bytes.fromhex(run.writing["token"])
        run.writing = {
            "token": run.writing["token"],
            "processes": min(int(run.writing["processes"]), _MOST_PROCESSES),
            "host": str(run.writing["host"]),
            "pid": int(run.writing["pid"]),
        }
    if not isinstance(run.command, str) or not isinstance(run.settings, dict) or not isinstance(run.sessions, list):
        raise ValueError("a run has no command, settings or sessions")
    return run


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{name!r} leads out of the folder")
    return name


def _journal(token: str, rank: int) -> str:
    return f"{UNFINISHED}{token}-{rank}.jsonl"


def _temporary(token: str, rank: int) -> str:
    return f"{UNFINISHED}{token}-{rank}.tmp"


def _journals(folder: Path, run: Run) -> list[Path]:
    return (
        []
        if run.writing is None
        else [folder / _journal(run.writing["token"], rank) for rank in range(run.writing["processes"])]
    )


def _unfinished(folder: Path, run: Run) -> list[Path]:
    return (
        []
        if run.writing is None
        else [folder / _temporary(run.writing["token"], rank) for rank in range(run.writing["processes"])]
    )


def _lines(journal: Path) -> Iterator[tuple[str, Stamp]]:
    """Yield what a journal notes. If its process was killed amid its last line, that result never appeared."""
    if stamp_of(journal) is None:
        return
    for line in journal.read_text().splitlines():
        with contextlib.suppress(ValueError):
            name, size, time = json.loads(line)
            yield _inside(name), (int(size), int(time))
