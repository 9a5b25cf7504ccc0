"""A folder of results: one run at a time, one set of settings, nothing half-written."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from captum_regioncam.errors import UsageError
from captum_regioncam.evaluation.runner import Worker
from captum_regioncam.files import remove_unfinished, written_whole

__all__ = ["ResultFolder", "recorded"]

_RECORD = "settings.json"


def recorded(folder: Path) -> dict[str, Any] | None:
    """Return the settings that the results in a folder were made with; None if none are recorded.

    Raises:
        UsageError: the record is broken.
    """
    record = folder / _RECORD
    try:
        return dict(json.loads(record.read_text())) if record.exists() else None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{record}: cannot be read ({error}). Choose another folder.") from error


@dataclass
class ResultFolder:
    """A folder that only one run at a time writes results to, with the settings they were made with.

    Attributes:
        option: the command line's option, for errors.
        path: the folder.
        pattern: the pattern of the results' names.
        settings: as JSON values, without those that do not change the results.
    """

    option: str
    path: Path
    pattern: str
    settings: dict[str, Any]
    _recorded: bool = field(default=False, init=False)

    @contextmanager
    def held(self, worker: Worker, prepare: Callable[[], None]) -> Iterator[None]:
        """Keep other runs out, prepare the folder in the first worker, and remove what a killed run left half-written.

        Raises:
            UsageError: another run holds the folder, or what ``prepare`` raises.
        """
        lock = FileLock(self.path / ".lock")

        def take() -> None:
            if worker.rank > 0:
                return
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                problem = (
                    f"{self.option} {self.path}: another run is writing to it. Wait for it, or choose another folder."
                )
                raise UsageError(problem) from None
            prepare()
            remove_unfinished(self.path)

        try:
            worker.together(take)
            yield
        finally:
            lock.release()

    def results(self) -> Iterable[Path]:
        """Return the results in the folder, of any run."""
        return (path for path in self.path.rglob(self.pattern) if not path.name.startswith("."))

    def before(self) -> dict[str, Any] | None:
        """Return the settings of the results in the folder; None if there are no results.

        Raises:
            UsageError: there are results that this command did not write.
        """
        if next(iter(self.results()), None) is None:  # the settings of a run without results do not matter
            return None
        settings = recorded(self.path)
        if settings is None:
            raise UsageError(
                f"{self.option} {self.path}: has {self.pattern[1:]} files that this command did not write. Choose "
                "another folder."
            )
        return settings

    def check(self, resume: bool) -> None:
        """Check that this run may add its results to those in the folder.

        Raises:
            UsageError: those were made with other settings, or there are some and ``resume`` is False.
        """
        before = self.before()
        if before is None:
            return
        changed = [name for name in {**before, **self.settings} if before.get(name) != self.settings.get(name)]
        if changed:
            was, now = (settings.get(changed[0]) for settings in (before, self.settings))
            raise UsageError(
                f"{self.option} {self.path}: was made with {changed[0]} = {was!r}, now it is {now!r}. Choose another "
                "folder."
            )
        if not resume:
            raise UsageError(
                f"{self.option} {self.path}: has results already. Pass --resume to continue, or choose another folder."
            )

    def record(self) -> None:
        """Write the settings, before the first result."""
        if not self._recorded:
            with written_whole(self.path / _RECORD) as temporary:
                temporary.write_text(json.dumps(self.settings, indent=1))
            self._recorded = True
