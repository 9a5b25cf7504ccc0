"""A folder of results: for one run at a time, with one set of settings. Nobody else's files are touched."""

import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.runs.locks import is_held, is_lock, lock_of, locked
from captum_regioncam.evaluation.runs.record import Record, Run, Shard
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.runs.writer import Writer
from captum_regioncam.files.inputs import read_json
from captum_regioncam.files.outputs import check_folder
from captum_regioncam.files.photos import is_whole_image
from captum_regioncam.files.stamps import Stamp
from captum_regioncam.files.text import counted

__all__ = ["ResultFolder", "Results", "held", "recorded"]

_log = logging.getLogger(__name__)
_MOMENT = 0.5  # seconds to wait for another process that checks whether the folder is in use
_PATIENCE = 60  # seconds to wait for another shard that changes the record
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
    """Return the settings that version 0.2 recorded; None if ``settings.json`` is not this package's."""
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
        changed: {name: message} of results that somebody has changed since. They stay as they are.
        writer: writes this process's results.
        written: how many results this process wrote.
        failures: {name: reason} of the photos that failed in any process, once the run has ended.
    """

    done: frozenset[str]
    changed: dict[str, str]
    writer: Writer
    written: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)

    def write(self, name: str, content: bytes) -> None:
        """Write a result; see :meth:`captum_regioncam.evaluation.runs.writer.Writer.write`."""
        self.writer.write(name, content)
        self.written += 1


@dataclass
class ResultFolder:
    """A folder that only one run at a time writes results to, or one for each shard of the photos.

    Attributes:
        argument: the argument with which the user named the folder, for errors.
        path: the folder.
        command: the command that writes.
        settings: the settings that change the results, as JSON values.
        names: the paths of all results below the folder.
        replaces: whether a run with other settings replaces the results of the last one; if not, it is refused.
        inputs: the real paths of files that are read, which are never written.
        per_photo: how many of the results belong to one photo.
        is_whole: tells whether a file that version 0.2, which kept no record, may have written can be read.
        shard: which of how many shards of the results the run writes; ``names`` are those of the shard.
        total: how many photos all shards have together, for the record.
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
    shard: Shard | None = None
    total: int | None = None

    def check(self, *, resume: bool) -> None:
        """Check that a run may begin. Nothing is changed or left behind.

        Raises:
            ArgumentError: a file that this package did not write is in the way, or the results were made with other
                settings.
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
        settings: dict[str, object] = json.loads(json.dumps(self.settings))  # as they will be read later
        if self.shard is None:
            run = self._run(record, settings, resume)
        else:
            run = self._run_of_shard(self.shard, record, settings, resume)
        listing = record.listing()
        unlisted = {name for name in self.names if name not in listing and record.exists(name)}
        of_0_2: set[str] = set()
        if unlisted and (before := _settings_of_0_2(self.path)) is not None:
            self._check(before, {name: settings.get(name) for name in before})
            self._check_resume(resume)
            of_0_2 = unlisted
        if obstacle := record.obstacle((name for name in self.names if name not in of_0_2), listing):
            raise ArgumentError(self._named, f": {obstacle}.")
        if self.inputs:
            for name in self.names:
                if (self.path / name).resolve() in self.inputs:
                    raise ArgumentError(self._named, f": {name} is also read as an input. Choose another folder.")
        return _Plan(record, run or Run(self.command, settings, shard=self.shard), settings, of_0_2)

    def _run(self, record: Record, settings: Mapping[str, object], resume: bool) -> Run | None:
        """Return the run that a run without shards continues or replaces: any shard's, if none is being written."""
        known = [run for run in record.of(self.command) if any(map(record.exists, run.results))]
        as_written = (run for run in known if any(record.is_as_written(name, run.results) for name in run.results))
        run = next(as_written, known[0] if known else None)
        if run is not None and not self.replaces:
            self._check(run.settings, settings)
            self._check_resume(resume)
        for shard in (other.shard for other in record.of(self.command) if other.shard):
            if is_held(lock_of(self.path, shard)):
                raise ArgumentError(self._named, f": shard {shard[0]} of {shard[1]} is being written. Wait for it.")
        return run

    def _run_of_shard(self, shard: Shard, record: Record, settings: Mapping[str, object], resume: bool) -> Run | None:
        """Return the run that a shard continues. Other shards need the same settings and number of shards."""
        for run in record.of(self.command):
            beside = run.shard is not None and run.shard != shard
            if not any(map(record.exists, run.results)) and not (beside and is_held(lock_of(self.path, run.shard))):
                continue
            self._check(run.settings, settings)
            if run.shard is None or run.shard == shard:
                self._check_resume(resume)
            elif run.shard[1] != shard[1]:
                raise ArgumentError(
                    self._named,
                    f": was made in {run.shard[1]} shards, which does not match ",
                    Argument("shard", shard),
                    ". Choose another folder, or continue without shards.",
                )
            elif run.total != self.total:
                raise ArgumentError(
                    self._named,
                    f": its other shards are of {counted(run.total or 0, 'photo')}, and this one is of {self.total}. "
                    "Pass the same ",
                    Argument("limit"),
                    ".",
                )
        alike = (run for run in record.of(self.command) if run.shard == shard and run.settings == settings)
        return next(alike, None)

    def begin(self, plan: "_Plan", session: Mapping[str, object], processes: int, *, resume: bool) -> "_Begun":
        """Remove what the run replaces, and record what it will write. The folder must be locked."""
        record, run = plan.record, plan.run
        if run.settings != plan.settings:  # none of these may pass for a result of this run
            replaced = sum(map(record.exists, run.results))
            _log.warning("%s: replacing %s of other settings.", self.path, counted(replaced, "result"))
            record.remove(run)
            run.settings, run.sessions = plan.settings, []
        elif self.replaces and not resume:
            record.remove(run, self.names)
        locks = [lock_of(self.path, other.shard) for other in record.of(self.command) if other.shard]
        for other in [other for other in record.of(self.command) if other is not run]:
            if other.settings != run.settings:  # of results that are gone
                run.results |= {name: [] for name in other.results if name not in run.results and record.exists(name)}
                record.forget(other)
            elif self.shard is None:  # of shards, all of which this run takes over
                for name, theirs in other.results.items():
                    run.results.setdefault(name, []).extend(theirs)
                record.forget(other)
        if self.shard is None:
            run.shard = None
            for lock in filter(is_lock, locks):  # of shards that died
                lock.unlink()
        listed = run.results | record.listing(self.command)
        present = [name for name in self.names if record.exists(name)]
        done = [
            name
            for name in present
            if record.is_as_written(name, listed) or (name in plan.of_0_2 and self.is_whole(self.path / name))
        ]
        changed = {
            name: f"{self.path / name} has changed since this command wrote it, and stays as it is. Delete it to have "
            "it made again."
            for name in sorted(set(present) - set(done))
        }
        stamps = {name: listed[name] for name in done if record.is_ours(name, listed)}
        told = session if self.total is None else {**session, "total": self.total}
        return _Begun(record.begin(run, told, processes), frozenset(done), changed, stamps)

    def end(self, token: str, **outcome: object) -> None:
        """End the session in the record, and remove the lock of a shard while this process holds it."""
        with self.changing():
            Record.read(self.path).end(token, **outcome)
            if self.shard is not None:
                with suppress(OSError):
                    lock_of(self.path, self.shard).unlink()

    def changing(self) -> AbstractContextManager[None]:
        """Keep other shards from changing the record; a run without shards has locked the folder already."""
        return nullcontext() if self.shard is None else locked(self.path, self.argument, wait=_PATIENCE)

    def _check(self, before: Mapping[str, object], now: Mapping[str, object]) -> None:
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changed:
            raise ArgumentError(
                self._named,
                f": was made with {changed[0]} = {before.get(changed[0])!r}, but now it is {now.get(changed[0])!r}. "
                "Choose another folder.",
            )

    def _check_resume(self, resume: bool) -> None:
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
    """Keep other runs out of folders, check and record what will be written, and finally complete the records.

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
        with ExitStack() as meanwhile:
            for folder in folders:
                if folder.shard is None:
                    locks.enter_context(locked(folder.path, folder.argument, wait=_MOMENT))
                else:
                    meanwhile.enter_context(folder.changing())
            plans = [folder.plan(resume=resume) for folder in folders]
            for folder in folders:
                if folder.shard is not None:
                    locks.enter_context(locked(folder.path, folder.argument, wait=_MOMENT, shard=folder.shard))
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

        def end(written: list[int], **outcome: object) -> None:
            seconds = round(time.monotonic() - start, 1)
            for folder, one, count in zip(folders, begun, written, strict=True):
                folder.end(one.token, photos=count // folder.per_photo, seconds=seconds, **outcome)

        try:
            yield results
        except BaseException:
            if worker.count == 1:  # of several processes, others may still be writing
                with suppress(ValueError, OSError):
                    end([one.written for one in results])
            raise
        written = worker.gather([one.written for one in results])  # every process has finished writing
        if worker.is_first:
            failures = dict(results[0].failures)
            end([sum(of_folder) for of_folder in zip(*written, strict=True)], failed=len(failures), failures=failures)
