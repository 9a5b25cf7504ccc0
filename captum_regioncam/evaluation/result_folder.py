"""A folder of results: one run at a time, one set of settings, and nothing of anybody else's touched."""

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captum_regioncam.errors import UsageError
from captum_regioncam.evaluation.runner import Worker
from captum_regioncam.evaluation.seed_files import load_seed
from captum_regioncam.files import OutputError
from captum_regioncam.photos import is_whole_image
from captum_regioncam.record import Record, Run, Writer, locked, stamp_of

__all__ = ["ResultFolder", "Results", "recorded"]

_OF_0_2 = "settings.json"
_KEYS_OF_0_2 = ({"dataset", "model", "layers", "method"}, {"seeds", "made_of"})


def recorded(folder: Path) -> dict[str, Any] | None:
    """Return the settings that the results in a folder were made with; None if none are recorded.

    Raises:
        UsageError: the record is broken.
    """
    runs = [run for run in Record.read(folder).runs if run.command in ("seeds", "labels")]
    return runs[-1].settings if runs else _settings_of_0_2(folder)


def _settings_of_0_2(folder: Path) -> dict[str, Any] | None:
    """Return the settings that version 0.2 recorded; a ``settings.json`` of anybody else is none of ours."""
    path = folder / _OF_0_2
    with suppress(OSError, ValueError, RecursionError):
        if 0 < (stamp_of(path) or (0, 0))[0] < 1 << 20:
            content = json.loads(path.read_bytes())
            if isinstance(content, dict) and any(keys <= content.keys() for keys in _KEYS_OF_0_2):
                return content
    return None


@dataclass
class Results:
    """The results of a run, as one of its processes sees them.

    Attributes:
        done: the names of the results that exist, as they were written.
        changed: {name: message} of those that somebody changed since. They stay as they are.
        writer: writes this process's results.
        written: how many results this process wrote.
    """

    done: frozenset[str]
    changed: dict[str, str]
    writer: Writer
    written: int = 0

    def write(self, name: str, content: bytes) -> None:
        """Write a result; see :meth:`captum_regioncam.record.Writer.write`."""
        self.writer.write(name, content)
        self.written += 1


@dataclass
class ResultFolder:
    """A folder that only one run at a time writes results to.

    Attributes:
        option: the command line's option, for errors.
        path: the folder.
        command: the command that writes.
        settings: as JSON values, without those that do not change the results.
        names: the paths of all results below the folder.
        replaces: whether a run with other settings replaces the results of the last one; otherwise it is refused.
        inputs: the real paths of files that are read, which are never written.
        per_photo: how many of the results belong to one photo.
    """

    option: str
    path: Path
    command: str
    settings: dict[str, Any]
    names: Sequence[str]
    replaces: bool = False
    inputs: Collection[Path] = ()
    per_photo: int = 1
    _lock: ExitStack = field(default_factory=ExitStack, init=False)

    @contextmanager
    def held(self, worker: Worker, session: dict[str, Any], *, resume: bool) -> Iterator[Results]:
        """Keep other runs out, check and record what will be written, and end the record when all is.

        Args:
            worker: this process; the first one keeps the record.
            session: where the results come from.
            resume: keep what an earlier session with the same settings wrote.

        Raises:
            UsageError: another run holds the folder, something of somebody else's is in the way, or the results in it
                were made with other settings.
        """
        start = time.monotonic()
        token = ""
        try:
            token, done, changed, stamps = worker.gather(worker.together(lambda: self._begin(worker, session, resume)))[
                0
            ]
            results = Results(frozenset(done), changed, Writer(self.path, token, worker.rank, stamps))
            yield results
            written = sum(worker.gather(results.written))  # every process has written all that it will
            if worker.rank == 0:
                self._end(token, written, start)
                token = ""
        finally:
            if token and worker.rank == 0 and worker.count == 1:  # of several, others may still be writing
                with suppress(UsageError, OutputError):
                    self._end(token, results.written, start)
            self._lock.close()

    def _begin(self, worker: Worker, session: dict[str, Any], resume: bool) -> tuple[Any, ...]:
        """Return a session's token, what is done, messages about what has changed, and the stamps of what is done."""
        if worker.rank > 0:
            return ()
        self._plan(resume)  # so that a run that is refused leaves nothing behind, not even a lock
        self._lock.enter_context(locked(self.path, self.option))
        record, run, of_0_2 = self._plan(resume)
        if self.replaces and run.settings != self._settings:  # none of these may pass for a result of this run
            record.remove(run)
            run.settings, run.sessions = self._settings, []
        elif self.replaces and not resume:
            record.remove(run, self.names)
        present = [name for name in self.names if record.exists(name)]
        done = [name for name in present if record.is_ours(name) or (name in of_0_2 and _is_whole(self.path / name))]
        changed = {
            name: f"{self.path / name} is not as this command wrote it, and stays as it is. Delete it to have it made "
            "again."
            for name in sorted(set(present) - set(done))
        }
        stamps = {name: record.stamps(name) for name in done}
        return record.begin(run, session, worker.count), done, changed, stamps

    def _plan(self, resume: bool) -> tuple[Record, Run, set[str]]:
        """Return the folder's record, the run that this one continues or replaces, and the names that 0.2 wrote.

        Raises:
            UsageError: the run is refused.
        """
        record = Record.read(self.path)
        known = (run for run in record.of(self.command) if any(map(record.exists, run.results)))
        run = next(known, None)  # where all its results are gone, the settings do not matter
        if run is not None and not self.replaces:
            self._check(run.settings, self._settings, resume)
        unlisted = {name for name in self.names if record.exists(name) and not record.stamps(name)}
        of_0_2: set[str] = set()
        if unlisted and (before := _settings_of_0_2(self.path)) is not None:
            self._check(before, {name: self._settings.get(name) for name in before}, resume)
            of_0_2 = unlisted
        for name in self.names:
            if name not in of_0_2 and (foreign := record.foreign([name])) and not record.stamps(foreign):
                raise UsageError(
                    f"{self.option} {self.path}: has {foreign}, which this command did not write. "
                    "Choose another folder."
                )
            if self.inputs and (self.path / name).resolve() in self.inputs:
                raise UsageError(
                    f"{self.option} {self.path}: {name} is a file that this command reads. Choose another folder."
                )
        return record, run or Run(self.command, self._settings), of_0_2

    @property
    def _settings(self) -> dict[str, Any]:
        """The settings as they are when they have been written and read."""
        settings: dict[str, Any] = json.loads(json.dumps(self.settings))
        return settings

    def _check(self, before: dict[str, Any], now: dict[str, Any], resume: bool) -> None:
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changed:
            raise UsageError(
                f"{self.option} {self.path}: was made with {changed[0]} = {before.get(changed[0])!r}, now it is "
                f"{now.get(changed[0])!r}. Choose another folder."
            )
        if not resume:
            raise UsageError(
                f"{self.option} {self.path}: has results already. Pass --resume to continue, or choose another folder."
            )

    def _end(self, token: str, written: int, start: float) -> None:
        outcome = {"photos": written // self.per_photo, "seconds": round(time.monotonic() - start, 1)}
        Record.read(self.path).end(token, **outcome)


def _is_whole(path: Path) -> bool:
    """Return whether a seed or a picture that version 0.2 may have written can be read."""
    try:
        if path.suffix != ".npy":
            return is_whole_image(path)
        load_seed(path)
    except ValueError:
        return False
    return True
