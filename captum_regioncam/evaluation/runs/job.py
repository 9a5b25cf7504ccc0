"""A run over many photos: one that fails does not stop the others, and any number of processes share them."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from captum_regioncam.arguments import whole
from captum_regioncam.errors import Argument, ArgumentError, reason_of
from captum_regioncam.evaluation.runs.bar import progress_bar
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.files.outputs import OutputError

__all__ = ["Job", "first", "run"]

_log = logging.getLogger(__name__)
_HOPELESS = 10
_FEW, _SOON = 10, 10.0  # photos and seconds after which the remaining time is estimated
Item = TypeVar("Item")
Result = TypeVar("Result")
Group = list[tuple[int, Item | Exception]]


class Job(ABC, Generic[Item, Result]):
    """What a run does with each of its photos.

    Attributes:
        names: the photos' names.
        batch: how many consecutive photos make a group.
        readers: how many processes read photos ahead; 0 reads each when its turn comes.
        remaining: how many photos were not done when the run began, which sets it.
    """

    names: Sequence[str]
    batch: int = 1
    readers: int = 0
    remaining: int = 0

    @abstractmethod
    def reader(self) -> Callable[[int], Item]:
        """Return a function that reads a photo by its number. It may run in another process, so it holds no network."""

    def alike(self, item: Item) -> Hashable:
        """Return what photos must have in common to be computed together."""
        return None

    @abstractmethod
    def compute(self, items: list[Item]) -> Sequence[Result]:
        """Return a result for each photo: all of a group that are alike or, if that fails, one after the other."""

    @abstractmethod
    def keep(self, number: int, item: Item, result: Result) -> None:
        """Write or count a photo's result."""

    def is_done(self, number: int) -> bool:
        """Return whether a photo's result exists. A group that is done is not read."""
        return False


def first(names: Sequence[str], limit: int | None) -> list[str]:
    """Return the first ``limit`` names; all of them for None.

    Raises:
        ArgumentError: ``limit`` is not a whole number above 0.
    """
    if limit is not None and not whole(limit):
        raise ArgumentError(Argument("limit", limit), ": expects a whole number above 0, or None for all.")
    return list(names[: limit and whole(limit)])


def run(job: Job[Item, Result], worker: Worker, *, show_progress: bool = True) -> dict[str, str]:
    """Do this worker's share of a job.

    Photos are computed in groups of consecutive photos. The groups are always the same, so that the results depend
    neither on the number of workers nor on where an earlier run ended.

    Args:
        job: what to do.
        worker: the process whose share is done.
        show_progress: show a progress bar for the photos of all workers, in the first one.

    Returns:
        {name: reason} of the photos that failed, from all workers.

    Raises:
        ValueError: no photo succeeded; or the first 10 of a worker all failed, and none was done earlier.
        OutputError: a result could not be written; the other workers end as well.
        ConnectionError: another worker ended.
    """
    names = job.names
    # All workers use what the first one sees, so that their shares fit together.
    done = set(worker.from_first(lambda: [number for number in range(len(names)) if job.is_done(number)]))
    job.remaining = len(names) - len(done)
    groups = [range(start, min(start + job.batch, len(names))) for start in range(0, len(names), job.batch)]
    open_groups = [group for group in groups if not done.issuperset(group)]
    share = [open_groups[index] for index in worker.share(len(open_groups))]
    tasks: DataLoader[Group[Item]] = DataLoader(
        _Groups(job.reader(), share), batch_size=None, num_workers=job.readers, collate_fn=_as_it_is
    )
    failures: dict[str, str] = {}
    visited, before, start, is_told = 0, worker.photos, time.monotonic(), False
    total = sum(number not in done for group in share for number in group)
    hidden = not (worker.is_first and show_progress)
    with progress_bar(job.remaining, "photo", hidden=hidden) as progress:

        def show() -> None:
            nonlocal is_told
            of_all, seconds = max(visited, worker.photos - before), time.monotonic() - start
            progress.update(of_all - progress.n)
            if not hidden and not is_told and of_all >= _FEW and seconds >= _SOON:
                is_told = True
                left = round((job.remaining - of_all) * seconds / of_all / 60)
                if left:
                    _log.info("The remaining photos will take about %d h %d min.", *divmod(left, 60))

        for group in tasks:
            for number, result in _computed(group, job):
                if number in done:
                    continue
                try:
                    if isinstance(result, Exception):
                        raise result
                    job.keep(number, *result)
                except OutputError:  # the next results would fail as well
                    raise
                except Exception as error:
                    failures[names[number]] = reason_of(error)
                visited += 1
                worker.add(1)
                show()
            if not done and len(failures) == visited >= _HOPELESS:
                break
        last = next(reversed(failures.values()), "")
        gave_up = list(filter(None, worker.gather(last if visited < total else "", meanwhile=show)))
        show()
    failures = worker.merge(failures)
    if gave_up:
        raise ValueError(f"the first {_HOPELESS} photos of a process all failed, one of them with: {gave_up[0]}")
    if names and len(failures) == len(names):
        raise ValueError(f"all photos failed, one of them with: {next(reversed(failures.values()))}")
    return failures


@dataclass(frozen=True)
class _Groups(Dataset[Group[Item]], Generic[Item]):
    """Groups of photos, read together: (number, what was read) or (number, the error) for each."""

    read: Callable[[int], Item]
    groups: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Group[Item]:
        return [(number, self._read(number)) for number in self.groups[index]]

    def _read(self, number: int) -> Item | Exception:
        try:
            return self.read(number)
        except Exception as error:
            return ValueError(reason_of(error))


def _as_it_is(group: Group[Item]) -> Group[Item]:
    return group


def _computed(group: Group[Item], job: Job[Item, Result]) -> Iterator[tuple[int, tuple[Item, Result] | Exception]]:
    """Yield (number, (photo, result)) or (number, error) for each photo of a group."""
    bins: dict[Hashable, list[tuple[int, Item]]] = {}
    for number, item in group:
        if isinstance(item, Exception):
            yield number, item
        else:
            bins.setdefault(job.alike(item), []).append((number, item))
    for members in bins.values():
        results: Sequence[Result] | None = None
        problem = ValueError()
        try:
            results = list(job.compute([item for _, item in members]))
        except Exception as error:
            problem = ValueError(reason_of(error))  # without the traceback, which would keep the batch in memory
        if results is not None:
            for (number, item), result in zip(members, results, strict=True):
                yield number, (item, result)
        elif len(members) == 1:
            yield members[0][0], problem
        else:
            for number, item in members:
                yield from _computed([(number, item)], job)
