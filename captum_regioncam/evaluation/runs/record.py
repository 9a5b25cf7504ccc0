"""The record of a folder: which of its files this package wrote. Only these are ever removed or replaced.

The record is ``.captum_regioncam.json``. While a run writes, each of its processes notes every result in a journal of
its own *before* the result appears, with the stamp that the result will have. So the record holds after the process was
killed at any moment, and a file that somebody changed or put there is never taken for a result.
"""

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from captum_regioncam.evaluation.runs.locks import is_held, lock_of
from captum_regioncam.evaluation.runs.writer import journal_of, noted_in, unfinished_of
from captum_regioncam.files.inputs import read_json
from captum_regioncam.files.outputs import OutputError, write_whole
from captum_regioncam.files.stamps import Stamp, as_stamp, is_as_written, is_regular

__all__ = ["MOST_SHARDS", "RECORD", "Listing", "Record", "Run", "Session", "Shard"]

RECORD = ".captum_regioncam.json"
_FORMAT = 1
_LARGEST = 1 << 28  # bytes of a record: millions of results
_MOST_PROCESSES = 4096
_MOST_SESSIONS = 100
MOST_SHARDS = 10_000
_LONGEST = 7 * 24 * 3600  # seconds after which a session on another host counts as ended

Shard = tuple[int, int]
"""(3, 16) is the third of 16 shards."""
Listing = Mapping[str, Sequence[Stamp]]
"""The listed names, with their stamps: none if the file has changed or is gone."""


@dataclass(frozen=True)
class Session:
    """The session of a run that is writing.

    Attributes:
        token: what the names of its journals contain.
        processes: how many processes it has.
        host, pid: where the first of them runs.
        since: when it began, in seconds since 1970.
    """

    token: str
    processes: int
    host: str
    pid: int
    since: int

    def is_alive(self) -> bool:
        """Return whether the session may still be running."""
        if self.host != socket.gethostname():
            return time.time() - self.since < _LONGEST
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return True

    def files(self, folder: Path) -> list[Path]:
        """Return the session's journals and unfinished files."""
        ranks = range(self.processes)
        return [of(folder, self.token, rank) for rank in ranks for of in (journal_of, unfinished_of)]


@dataclass
class Run:
    """What one command did in a folder, in one or several sessions with the same settings.

    Attributes:
        command: the command's name.
        settings: what the results depend on, as JSON values.
        sessions: the provenance of the sessions, at most the last 100.
        results: for each file that the run wrote, by its path below the folder, its stamps: one; several if the process
            was killed while it replaced the file; none if somebody changed the file before the settings changed.
        writing: the session that has not ended.
        shard: which of how many shards of the photos the run wrote; None for all photos.
    """

    command: str
    settings: dict[str, object]
    sessions: list[dict[str, object]] = field(default_factory=list)
    results: dict[str, list[Stamp]] = field(default_factory=dict)
    writing: Session | None = None
    shard: Shard | None = None

    @property
    def total(self) -> int | None:
        """How many photos the last session, or all shards together, had to do; None if it did not say."""
        total = self.sessions[-1].get("total") if self.sessions else None
        return total if isinstance(total, int) else None

    @property
    def is_whole(self) -> bool:
        """Whether the last session finished; if so, photos without results failed."""
        return self.writing is None and bool(self.sessions) and "failures" in self.sessions[-1]

    def is_writing(self) -> bool:
        """Return whether a session of the run may still be running."""
        return self.writing is not None and self.writing.is_alive()


@dataclass
class Record:
    """The runs that wrote to a folder."""

    folder: Path
    runs: list[Run]

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read a folder's record and the journals that it names; without a record, there are no runs.

        Raises:
            ValueError: there is a file of that name that is not a record.
        """
        path = folder / RECORD
        if not os.path.lexists(path):
            return cls(folder, [])
        try:
            if not is_regular(path):
                raise ValueError("it is not a regular file")
            content = read_json(path, _LARGEST)
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}, but this version reads {_FORMAT}")
            runs = [_as_run(item) for item in content["runs"]]
            for run in runs:
                for journal in run.writing.files(folder)[::2] if run.writing else ():
                    for name, stamp in noted_in(journal):
                        run.results.setdefault(_inside(name), []).append(stamp)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"{path}: is not a record that this package can read ({error}). Choose another folder."
            ) from error
        return cls(folder, runs)

    def of(self, command: str) -> list[Run]:
        """Return the runs of a command."""
        return [run for run in self.runs if run.command == command]

    def listing(self, command: str | None = None) -> dict[str, list[Stamp]]:
        """Return all names that any run lists, or any run of a command."""
        found: dict[str, list[Stamp]] = {}
        for run in self.runs if command is None else self.of(command):
            for name, stamps in run.results.items():
                found.setdefault(name, []).extend(stamps)
        return found

    def exists(self, name: str) -> bool:
        """Return whether there is a file of that name, whoever wrote it."""
        return os.path.lexists(self.folder / name)

    def is_as_written(self, name: str, listing: Listing) -> bool:
        """Return whether a file is listed and has not changed since it was written."""
        return is_as_written(self.folder / name, listing.get(name, ()))

    def is_ours(self, name: str, listing: Listing) -> bool:
        """Return whether a file may be removed or replaced: it is as written, not write-protected and in the folder.

        Files in a folder inside it that is a link to elsewhere, or that has a record of its own, do not count.
        """
        path = self.folder / name
        if not self.is_as_written(name, listing) or not path.stat().st_mode & 0o222:
            return False
        inside = PurePosixPath(name).parents[:-1]
        return not any((self.folder / part).is_symlink() or self._has_record(part) for part in inside)

    def obstacle(self, names: Iterable[str], listing: Listing) -> str | None:
        """Say what is in the way of the first of the names that cannot be written; None if all can."""
        for name in names:
            if name not in listing and self.exists(name):
                return f"has {name}, which this package did not write. Move it, or choose another folder"
            for part in PurePosixPath(name).parents[:-1]:
                if self.exists(part.as_posix()) and not (self.folder / part).is_dir():
                    return f"has {part}, which is not a folder. Move it, or choose another folder"
                if self._has_record(part):
                    return f"{part} in it holds results of its own ({part}/{RECORD}). Choose another folder"
        return None

    def remove(self, run: Run, names: Iterable[str] | None = None) -> None:
        """Remove a run's results, or those of the given names. What has changed stays, and stays listed as changed."""
        for name in list(run.results if names is None else names):
            if name in run.results and self.is_ours(name, run.results):
                (self.folder / name).unlink()
            if name in run.results:
                run.results[name] = []
                if not self.exists(name):
                    del run.results[name]

    def begin(self, run: Run, session: Mapping[str, object], processes: int = 1) -> str:
        """Add a session to a run, save, and return the session's token."""
        self._settle([other for other in self.runs if other is run or not self._is_writing(other)])
        if run not in self.runs:
            self.runs.append(run)
        token = secrets.token_hex(8)
        before = ({key: value for key, value in one.items() if key != "failures"} for one in run.sessions)
        run.sessions = [*before, dict(session)][-_MOST_SESSIONS:]
        run.writing = Session(token, processes, socket.gethostname(), os.getpid(), int(time.time()))
        self.save()
        return token

    def end(self, token: str, **outcome: object) -> None:
        """End a session: note its outcome, and drop runs that have no results left.

        Raises:
            OutputError: somebody removed the record meanwhile, or it cannot be written.
        """
        run = next((run for run in self.runs if run.writing and run.writing.token == token), None)
        if run is None:
            raise OutputError(f"{self.folder}: its record {RECORD} was removed meanwhile.")
        run.sessions[-1] |= outcome
        for other in (other for other in self.runs if other is not run):
            for name in run.results.keys() & other.results.keys():  # the file that exists is one run's or the other's
                loser = other if self.is_as_written(name, run.results) else run
                del loser.results[name]
        self._settle([run])
        self.runs = [other for other in self.runs if other.results or other.writing]
        self.save()

    def forget(self, run: Run) -> None:
        """End a run's session, if a killed process left one, and list its results no longer."""
        self._settle([run])
        self.runs.remove(run)

    def save(self) -> None:
        """Write the record; without runs, remove it."""
        if not self.runs:
            (self.folder / RECORD).unlink(missing_ok=True)
            return
        runs = [asdict(run) for run in self.runs]
        for run in (run for run in runs if run["shard"] is None):
            del run["shard"]  # so that earlier versions can read it
        content = {"format": _FORMAT, "runs": runs}
        write_whole(self.folder / RECORD, json.dumps(content, indent=1, default=str).encode())

    def _settle(self, runs: list[Run]) -> None:
        """End the sessions of runs: take their journals into the record, and only then remove them."""
        sessions = [run.writing for run in runs if run.writing]
        for run in (run for run in runs if run.writing):
            for name, stamps in run.results.items():
                latest = [stamp for stamp in stamps if is_as_written(self.folder / name, [stamp])]
                run.results[name] = (latest or stamps)[-1:]
        if sessions:
            self.save()
        for session in sessions:
            for path in session.files(self.folder):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        for run in runs:
            run.writing = None

    def _is_writing(self, run: Run) -> bool:
        return run.is_writing() or (run.shard is not None and bool(is_held(lock_of(self.folder, run.shard))))

    def _has_record(self, part: PurePosixPath) -> bool:
        return os.path.lexists(self.folder / part / RECORD)


def _as_run(item: object) -> Run:
    """Check what a record says about a run; a record may come from anywhere."""
    if not isinstance(item, dict):
        raise ValueError("a run is not a dict")
    run = Run(**item)
    if not (isinstance(run.command, str) and isinstance(run.settings, dict) and isinstance(run.sessions, list)):
        raise ValueError("a run has no command, settings or sessions")
    run.results = {_inside(name): [as_stamp(value) for value in stamps] for name, stamps in run.results.items()}
    run.shard = None if item.get("shard") is None else _as_shard(*item["shard"])
    run.writing = None if item.get("writing") is None else _as_session(**item["writing"])
    return run


def _as_session(token: str, processes: int, host: str, pid: int, since: int) -> Session:
    bytes.fromhex(token)
    return Session(token, min(int(processes), _MOST_PROCESSES), str(host), min(int(pid), 1 << 30), int(since))


def _as_shard(index: int, count: int) -> Shard:
    if not 1 <= int(index) <= int(count) <= MOST_SHARDS:
        raise ValueError(f"there is no shard {index} of {count}")
    return int(index), int(count)


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{name!r} leads out of the folder")
    return name
