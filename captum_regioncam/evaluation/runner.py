"""Runs over many photos: shared out to processes, resumed, and never lost to one photo."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch.distributed as dist
from filelock import FileLock, Timeout
from tqdm import tqdm

from captum_regioncam.classifiers import UsageError
from captum_regioncam.files import written_whole

__all__ = ["Worker", "run_folder", "visit", "workers"]

_HOPELESS = 10
Result = TypeVar("Result")


@dataclass(frozen=True)
class Worker:
    """One of the processes that share a run.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    def share(self, photos: int) -> range:
        """Return the numbers of the photos that are this worker's: every photo is exactly one's."""
        return range(self.rank, photos, self.count)

    def gather(self, value: dict[str, str]) -> dict[str, str]:
        """Merge a dict of every worker's."""
        gathered: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(gathered, value)
        return {key: item for part in gathered for key, item in part.items()}

    def together(self, prepare: Callable[[], Result]) -> Result:
        """Prepare something in every worker; where it fails in one, all of them end with its reason.

        Raises:
            UsageError: it failed.
        """
        result, problem = None, {}
        try:
            result = prepare()
        except (UsageError, OSError, ValueError) as error:
            problem = {"problem": str(error)}
        if problem := self.gather(problem):
            raise UsageError(problem["problem"])
        return cast(Result, result)


@contextmanager
def workers() -> Iterator[Worker]:
    """Join the other processes where torchrun (or what sets its variables) started several."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Worker()
        return
    dist.init_process_group("gloo", timeout=timedelta(days=7))  # a worker may wait long for the slowest
    try:
        yield Worker(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


@contextmanager
def run_folder(folder: Path, settings: dict[str, Any], worker: Worker, *, resume: bool) -> Iterator[None]:
    """Hold a folder for one run: no other writes to it, and one that is resumed goes on with the same settings.

    Raises:
        UsageError: another run holds the folder, or it has results and ``resume`` is not asked for, or was made with
            other settings.
    """
    lock = FileLock(folder / ".lock")

    def take() -> None:
        if worker.rank > 0:
            return
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            problem = f"--output {folder}: another run is writing to it. Wait for it, or choose another folder."
            raise UsageError(problem) from None
        _prepare(folder, settings, resume)

    try:
        worker.together(take)
        yield
    finally:
        lock.release()


def _prepare(folder: Path, settings: dict[str, Any], resume: bool) -> None:
    record = folder / "settings.json"
    has_results = any(not path.name.startswith(".") for path in folder.rglob("*.npy"))
    if has_results and not record.exists():
        raise UsageError(f"--output {folder}: has .npy files that are not of this command. Choose another folder.")
    if has_results:  # a run that ended before its first result binds nobody
        try:
            before = dict(json.loads(record.read_text()))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{record}: cannot be read ({error}). Choose another folder.") from error
        changed = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        if changed:
            name = changed[0]
            raise UsageError(
                f"--output {folder}: was made with {name} = {before.get(name)!r}, now it is {settings.get(name)!r}. "
                "Choose another folder."
            )
        if not resume:
            raise UsageError(f"--output {folder}: has results already. Pass --resume to go on, or another folder.")
    for unfinished in folder.glob(".*-*.npy"):  # of a run that was killed
        unfinished.unlink()
    with written_whole(record) as temporary:
        temporary.write_text(json.dumps(settings, indent=1))


def visit(
    names: Sequence[str], worker: Worker, step: Callable[[int], None], *, done: Callable[[int], bool] | None = None
) -> dict[str, str]:
    """Do a step for each of this worker's photos; one that fails does not stop the others.

    Args:
        names: of all photos.
        worker: whose share to visit.
        step: what to do with the photo of a number.
        done: tells which photos need no visit.

    Returns:
        The reasons of the photos that failed, of all workers. A worker whose first 10 photos all fail tries no others.

    Raises:
        UsageError: no photo succeeded.
    """
    failures: dict[str, str] = {}
    share = worker.share(len(names))
    every = 0.1 if sys.stderr.isatty() else 60  # seconds between lines of a log file
    for visited, index in enumerate(tqdm(share, unit="photo", disable=worker.rank > 0, mininterval=every), start=1):
        try:
            if not (done and done(index)):
                step(index)
        except Exception as error:
            failures[names[index]] = str(error) or type(error).__name__
            if len(failures) == visited == _HOPELESS:
                failures |= {names[i]: f"not tried, as the first {visited} photos all failed" for i in share[visited:]}
                break
    last = next((reason for reason in reversed(failures.values()) if not reason.startswith("not tried")), "")
    reasons = worker.gather({str(worker.rank): last} if last else {})
    failures = worker.gather(failures)
    if names and len(failures) == len(names):
        raise UsageError(f"all photos that were tried failed, one of them with: {next(iter(reasons.values()))}")
    return failures
