"""Runs over many photos: shared among processes, resumed, and not stopped by one photo that fails."""

import sys
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast

import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from captum_regioncam.cli.usage import UsageError
from captum_regioncam.errors import reason_of
from captum_regioncam.evaluation.runs.launcher import LauncherError, launched
from captum_regioncam.files.outputs import OutputError

__all__ = ["Worker", "visit", "workers"]

_HOPELESS = 10
_JOIN = timedelta(minutes=10)
Result = TypeVar("Result")
Photo = TypeVar("Photo")


@dataclass(frozen=True)
class Worker:
    """One of the processes that share a run.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        group: through which they exchange values.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    def share(self, photos: int) -> range:
        """Return the numbers of this worker's photos. Every photo belongs to exactly one worker."""
        return range(self.rank, photos, self.count)

    def gather(self, value: Result) -> list[Result]:
        """Return the values of all workers, in every worker."""
        gathered = [value] * self.count
        if self.count > 1:
            try:
                dist.all_gather_object(gathered, value, group=self.group)
            except RuntimeError as error:
                raise UsageError("another process of this run ended; its message says why.") from error
        return gathered

    def merge(self, value: dict[str, str]) -> dict[str, str]:
        """Merge the dicts of all workers."""
        return {key: item for part in self.gather(value) for key, item in part.items()}

    def together(self, prepare: Callable[[], Result]) -> Result:
        """Prepare something in every worker; if it fails in one, all of them end with its reason.

        Raises:
            UsageError: it failed.
        """
        result, problem = None, ""
        try:
            result = prepare()
        except (UsageError, OSError, ValueError, TypeError) as error:
            problem = reason_of(error)
        if problem := next(filter(None, self.gather(problem)), ""):
            raise UsageError(problem)
        return cast(Result, result)

    def from_first(self, prepare: Callable[[], Result]) -> Result:
        """Prepare something in the first worker, and return it in all of them; if it fails, all end with its reason.

        Raises:
            UsageError: it failed.
        """
        return cast(Result, self.gather(self.together(prepare if self.rank == 0 else lambda: None))[0])


@contextmanager
def workers() -> Iterator[Worker]:
    """Join the other processes if torchrun (or a launcher that sets its variables) started several.

    Raises:
        UsageError: the launcher's variables do not fit together, or the other processes cannot be reached.
    """
    rank, count = launched()
    if count == 1:
        yield Worker()
        return
    try:
        # A process that never starts is noticed soon, while one that works may be waited for a long time.
        dist.init_process_group("gloo", timeout=_JOIN)
        group = dist.new_group(timeout=timedelta(days=7))
    except (RuntimeError, ValueError) as error:
        raise LauncherError(
            f"WORLD_SIZE is {count}, but the other processes cannot be reached ({str(error).splitlines()[0]}). Start "
            "them with torchrun; for a run of one process, unset RANK and WORLD_SIZE."
        ) from error
    try:
        yield Worker(rank, count, group)
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class _Groups(Dataset[list[tuple[int, Any]]], Generic[Photo]):
    """Groups of photos, read together: (number, what was read) or (number, the error) for each."""

    load: Callable[[int], Photo]
    groups: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> list[tuple[int, Photo | Exception]]:
        return [(number, self._read(number)) for number in self.groups[index]]

    def _read(self, number: int) -> Photo | Exception:
        try:
            return self.load(number)
        except Exception as error:
            return ValueError(reason_of(error))


def visit(
    names: Sequence[str],
    worker: Worker,
    load: Callable[[int], Photo],
    compute: Callable[[list[Photo]], Sequence[Result]],
    keep: Callable[[int, Photo, Result], None],
    *,
    done: Collection[int] = (),
    batch: int = 1,
    alike: Callable[[Photo], Hashable] = lambda photo: None,
    readers: int = 0,
) -> dict[str, str]:
    """Visit this worker's photos; one that fails does not stop the others.

    Photos are visited in groups of neighbours. The groups are always the same, so that the results do not depend on the
    number of workers, nor on where an earlier run ended.

    Args:
        names: the names of all photos.
        worker: the worker whose share is visited.
        load: reads a photo by its number.
        compute: from photos to a result for each. It gets all photos of a group that are alike or, if that fails, one
            after the other.
        keep: writes or counts a result; not called for photos that are done.
        done: the numbers of photos whose results exist. A group that is done is not visited.
        batch: how many photos make a group.
        alike: what photos must have in common to be computed together.
        readers: processes that read photos ahead; 0 reads each when its turn comes.

    Returns:
        {name: reason} of the photos that failed, from all workers.

    Raises:
        UsageError: no photo succeeded; or the first 10 of a worker all failed, and none was done earlier.
        OutputError: a result could not be written; the other workers are not waited for.
    """
    done = set(done)
    groups = [range(start, min(start + batch, len(names))) for start in range(0, len(names), batch)]
    open_groups = [group for group in groups if not done.issuperset(group)]
    share = [open_groups[index] for index in worker.share(len(open_groups))]
    tasks: DataLoader[list[tuple[int, Any]]] = DataLoader(
        _Groups(load, share), batch_size=None, num_workers=readers, collate_fn=_as_it_is
    )
    failures: dict[str, str] = {}
    visited = 0
    every = 0.1 if sys.stderr.isatty() else 60  # seconds between lines of a log file
    total = sum(number not in done for group in share for number in group)
    with tqdm(total=total, unit="photo", disable=worker.rank > 0, mininterval=every) as progress:
        for group in tasks:
            for number, result in _computed(group, compute, alike):
                if number in done:
                    continue
                try:
                    if isinstance(result, Exception):
                        raise result
                    keep(number, *result)
                except OutputError:  # the next results would fail as well
                    raise
                except Exception as error:
                    failures[names[number]] = reason_of(error)
                visited += 1
                progress.update()
            if not done and len(failures) == visited >= _HOPELESS:
                break
    last = next(reversed(failures.values()), "")
    gave_up = list(filter(None, worker.gather(last if visited < total else "")))
    failures = worker.merge(failures)
    if gave_up:
        raise UsageError(f"the first {_HOPELESS} photos of a process all failed, one of them with: {gave_up[0]}")
    if names and len(failures) == len(names):
        raise UsageError(f"all photos failed, one of them with: {next(reversed(failures.values()))}")
    return failures


def _as_it_is(group: Any) -> Any:
    return group


def _computed(
    group: list[tuple[int, Any]], compute: Callable[[list[Any]], Sequence[Any]], alike: Callable[[Any], Hashable]
) -> Iterator[tuple[int, Any]]:
    """Yield (number, (photo, result)) or (number, error) for each photo of a group."""
    bins: dict[Hashable, list[tuple[int, Any]]] = {}
    for number, photo in group:
        if isinstance(photo, Exception):
            yield number, photo
        else:
            bins.setdefault(alike(photo), []).append((number, photo))
    for members in bins.values():
        results: Sequence[Any] | None = None
        problem = None
        try:
            results = list(compute([photo for _, photo in members]))
        except Exception as error:
            problem = ValueError(reason_of(error))  # without the traceback, which would keep the batch in memory
        if results is not None:
            for (number, photo), result in zip(members, results, strict=True):
                yield number, (photo, result)
        elif len(members) == 1:
            yield members[0][0], problem
        else:
            for member in members:
                yield from _computed([member], compute, alike)
