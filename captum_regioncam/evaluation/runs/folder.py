"""A folder of results: one run at a time, one set of settings, and nothing of anybody else's touched."""

import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.runs.locks import locked
from captum_regioncam.evaluation.runs.record import Record, Run
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.runs.writer import Writer
from captum_regioncam.files.inputs import read_json
from captum_regioncam.files.outputs import check_folder
from captum_regioncam.files.photos import is_whole_image
from captum_regioncam.files.stamps import Stamp

__all__ = ["ResultFolder", "Results", "held", "recorded"]

_log = logging.getLogger(__name__)
_OF_0_2 = "settings.json"
_LARGEST_OF_0_2 = 1 << 20
_KEYS_OF_0_2 = ({"dataset", "model", "layers", "method"}, {"seeds", "made_of"})


def recorded(folder: Path) -> dict[str, object] | None:
    """Return the settings that the seeds in a folder were made with; None if none are recorded.

    Raises:
        ValueError: the record is broken.
    """
    runs = Record.read(folder).of("seeds")
    return runs[-1].settings if runs else _settings_of_0_2(folder)


def _settings_of_0_2(folder: Path) -> dict[str, object] | None:
    """Return the settings that version 0.2 recorded; a ``settings.json`` of anybody else is none of ours."""
    with suppress(ValueError):
        content = read_json(folder / _OF_0_2, _LARGEST_OF_0_2)
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
        """Write a result; see :meth:`captum_regioncam.evaluation.runs.writer.Writer.write`."""
        self.writer.write(name, content)
        self.written += 1


@dataclass
class ResultFolder:
    """A folder that only one run at a time writes results to.

    Attributes:
        argument: that the user named the folder with, for errors.
        path: the folder.
        command: the command that writes.
        settings: as JSON values, without those that do not change the results.
        names: the paths of all results below the folder.
        replaces: whether a run with other settings replaces the results of the last one; otherwise it is refused.
        inputs: the real paths of files that are read, which are never written.
        per_photo: how many of the results belong to one photo.
        is_whole: tells whether a file that version 0.2, which kept no record, may have written can be read.
    """

    argument: str
    path: Path
    command: str
    settings: Mapping[str, object]
    names: Sequence[str]
    replaces: bool = False
    inputs: Collection[Path] = ()
    per_photo: int = 1
    is_whole: Callable[[Path], bool] = is_whole_image

    def check(self, *, resume: bool) -> None:
        """Check that a run may begin. Nothing is changed or left behind.

        Raises:
            ArgumentError: something of somebody else's is in the way, or the results were made with other settings.
            OutputError: the folder cannot be written to.
        """
        self.plan(resume=resume)
        check_folder(self.path)

    def plan(self, *, resume: bool) -> "_Plan":
        """Read the folder's record, and find the run that this one continues or replaces.

        Raises:
            ArgumentError: as in ``check``.
        """
        record = Record.read(self.path)
        settings: dict[str, object] = json.loads(json.dumps(self.settings))  # as they will be read
        known = [run for run in record.of(self.command) if any(map(record.exists, run.results))]
        as_written = (run for run in known if any(record.is_as_written(name, run.results) for name in run.results))
        run = next(as_written, known[0] if known else None)
        if run is not None and not self.replaces:
            self._check(run.settings, settings, resume)
        listing = record.listing()
        unlisted = {name for name in self.names if name not in listing and record.exists(name)}
        of_0_2: set[str] = set()
        if unlisted and (before := _settings_of_0_2(self.path)) is not None:
            self._check(before, {name: settings.get(name) for name in before}, resume)
            of_0_2 = unlisted
        if obstacle := record.obstacle((name for name in self.names if name not in of_0_2), listing):
            raise ArgumentError(self._named, f": {obstacle}.")
        if self.inputs:
            for name in self.names:
                if (self.path / name).resolve() in self.inputs:
                    raise ArgumentError(self._named, f": {name} is a file that is read, too. Choose another folder.")
        return _Plan(record, run or Run(self.command, settings), settings, of_0_2)

    def begin(self, plan: "_Plan", session: Mapping[str, object], processes: int, *, resume: bool) -> "_Begun":
        """Remove what the run replaces, and record what it will write. Only while the folder is locked."""
        record, run = plan.record, plan.run
        if run.settings != plan.settings:  # none of these may pass for a result of this run
            replaced = sum(map(record.exists, run.results))
            _log.warning("%s: replaces %s results of other settings.", self.path, f"{replaced:,}")
            record.remove(run)
            run.settings, run.sessions = plan.settings, []
        elif self.replaces and not resume:
            record.remove(run, self.names)
        for other in [other for other in record.of(self.command) if other is not run]:  # of results that are gone
            run.results |= {name: [] for name in other.results if name not in run.results and record.exists(name)}
            record.forget(other)
        present = [name for name in self.names if record.exists(name)]
        done = [
            name
            for name in present
            if record.is_as_written(name, run.results) or (name in plan.of_0_2 and self.is_whole(self.path / name))
        ]
        changed = {
            name: f"{self.path / name} is not as this command wrote it, and stays as it is. Delete it to have it made "
            "again."
            for name in sorted(set(present) - set(done))
        }
        stamps = {name: run.results[name] for name in done if record.is_ours(name, run.results)}
        return _Begun(record.begin(run, session, processes), frozenset(done), changed, stamps)

    def _check(self, before: Mapping[str, object], now: Mapping[str, object], resume: bool) -> None:
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changed:
            raise ArgumentError(
                self._named,
                f": was made with {changed[0]} = {before.get(changed[0])!r}, now it is {now.get(changed[0])!r}. Choose "
                "another folder.",
            )
        if not resume:
            raise ArgumentError(
                self._named,
                ": has results already. Pass ",
                Argument("resume", True),
                " to continue, or choose another folder.",
            )

    @property
    def _named(self) -> Argument:
        return Argument(self.argument, self.path)


@dataclass(frozen=True)
class _Plan:
    record: Record
    run: Run
    settings: dict[str, object]
    of_0_2: set[str]


@dataclass(frozen=True)
class _Begun:
    token: str
    done: frozenset[str]
    changed: dict[str, str]
    stamps: dict[str, list[Stamp]]


@contextmanager
def held(
    folders: Sequence[ResultFolder], worker: Worker, session: Mapping[str, object], *, resume: bool
) -> Iterator[list[Results]]:
    """Keep other runs out of folders, check and record what will be written, and end the records when all is.

    Nothing is removed from any of the folders before all of them have been checked.

    Args:
        folders: the folders of one run.
        worker: this process; the first one keeps the records.
        session: where the results come from.
        resume: keep what an earlier session with the same settings wrote.

    Yields:
        The results in each folder.

    Raises:
        ArgumentError: as in :meth:`ResultFolder.check`, or another run holds a folder.
        OutputError: a folder cannot be written to.
    """
    start = time.monotonic()
    locks = ExitStack()

    def begin() -> list[_Begun]:
        for folder in folders:
            folder.check(resume=resume)
        for folder in folders:
            locks.enter_context(locked(folder.path, folder.argument))
        plans = [folder.plan(resume=resume) for folder in folders]
        return [
            folder.begin(plan, session, worker.count, resume=resume)
            for folder, plan in zip(folders, plans, strict=True)
        ]

    with locks:
        begun = worker.from_first(begin)
        results = [
            Results(one.done, one.changed, Writer(folder.path, one.token, worker.rank, one.stamps))
            for folder, one in zip(folders, begun, strict=True)
        ]

        def end(written: list[int]) -> None:
            seconds = round(time.monotonic() - start, 1)
            for folder, one, count in zip(folders, begun, written, strict=True):
                Record.read(folder.path).end(one.token, photos=count // folder.per_photo, seconds=seconds)

        try:
            yield results
        except BaseException:
            if worker.count == 1:  # of several processes, others may still be writing
                with suppress(ValueError, OSError):
                    end([one.written for one in results])
            raise
        written = worker.gather([one.written for one in results])  # every process has written all that it will
        if worker.is_first:
            end([sum(of_folder) for of_folder in zip(*written, strict=True)])
