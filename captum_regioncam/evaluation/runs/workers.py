"""The processes that share a run, if torchrun (or a launcher that sets its variables) started several."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch.distributed as dist

from captum_regioncam.errors import ArgumentError, reason_of
from captum_regioncam.evaluation.runs.launcher import LauncherError, launched
from captum_regioncam.evaluation.runs.monitor import ENDED, Monitor
from captum_regioncam.files.outputs import OutputError

__all__ = ["Worker", "workers"]

_JOIN = timedelta(minutes=10)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Worker:
    """One of the processes that share a run.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        group: the process group through which they exchange values.
        monitor: notices when another process dies.
    """

    rank: int = 0
    count: int = 1
    group: dist.ProcessGroup | None = None
    monitor: Monitor | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and keeps the records."""
        return self.rank == 0

    def share(self, photos: int) -> range:
        """Return the numbers of this worker's photos. Every photo belongs to exactly one worker."""
        return range(self.rank, photos, self.count)

    @property
    def photos(self) -> int:
        """How many photos all workers have done, in this job and in earlier ones, as far as this worker knows."""
        return self.monitor.photos if self.monitor else 0

    def add(self, photos: int) -> None:
        """Let the others know of photos that this worker has done.

        Raises:
            ConnectionError: another process of the run ended.
        """
        if self.monitor:
            self.monitor.add(photos)

    def gather(self, value: Value, meanwhile: Callable[[], object] = lambda: None) -> list[Value]:
        """Return the values of all workers, in every worker.

        Args:
            value: this worker's value.
            meanwhile: what to do a few times a second while other workers are not there yet.

        Raises:
            ConnectionError: another process of the run ended.
        """
        gathered = [value] * self.count
        if self.monitor:
            self.monitor.meet(meanwhile)
            try:
                dist.all_gather_object(gathered, value, group=self.group)
            except RuntimeError as error:
                raise ConnectionError(ENDED) from error
        return gathered

    def merge(self, value: dict[str, str]) -> dict[str, str]:
        """Merge the dicts of all workers."""
        return {key: item for part in self.gather(value) for key, item in part.items()}

    def together(self, prepare: Callable[[], Value]) -> Value:
        """Prepare something in every worker; if it fails in one, all of them end with its reason.

        Raises:
            ArgumentError: it failed.
            ImportError, OutputError: it failed here, because a package is missing or something cannot be written.
        """
        result: Value | None = None
        problem: Exception | None = None
        try:
            result = prepare()
        except (OSError, ValueError, TypeError, ImportError) as error:
            problem = error
        parts = problem.parts if isinstance(problem, ArgumentError) else (reason_of(problem),) if problem else ()
        parts = next(filter(None, self.gather(parts)), ())
        if isinstance(problem, (ImportError, OutputError)):
            raise problem
        if parts:
            raise ArgumentError(*parts) from problem
        return cast(Value, result)

    def from_first(self, prepare: Callable[[], Value]) -> Value:
        """Prepare something in the first worker, and return it in all of them; if it fails, all end with its reason.

        Raises:
            ArgumentError, ImportError, OutputError: it failed.
        """
        return cast(Value, self.gather(self.together(prepare if self.is_first else lambda: None))[0])


_joined: list[Worker] = []
"""This process, while it shares a run."""


@contextmanager
def workers() -> Iterator[Worker]:
    """Join the other processes of a run. Processes that the user's own code has joined stay joined.

    Raises:
        LauncherError: the launcher's variables do not fit together, or the other processes cannot be reached.
    """
    if _joined:
        yield _joined[0]
        return
    ours = not (dist.is_available() and dist.is_initialized())
    count = launched()[1] if ours else dist.get_world_size()
    if count == 1:
        yield Worker()
        return
    try:
        if ours:
            dist.init_process_group("gloo", timeout=_JOIN)
        group, monitor = dist.new_group(backend="gloo", timeout=_JOIN), Monitor(count)
    except (RuntimeError, ValueError) as error:
        raise LauncherError(
            f"WORLD_SIZE is {count}, but the other processes cannot be reached ({str(error).splitlines()[0]}). Start "
            "them with torchrun; for a run of one process, unset RANK and WORLD_SIZE."
        ) from error
    worker = Worker(dist.get_rank(), count, group, monitor)
    _joined.append(worker)
    failed = True
    try:
        yield worker
        failed = False
    finally:
        _joined.clear()
        monitor.leave(failed=failed)
        for own in (None,) if ours else (group, monitor.group):
            dist.destroy_process_group(own)
