"""A folder of seeds that a run is still filling, or did not finish filling: how far it is, and waiting for it."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.runs.bar import progress_bar
from captum_regioncam.evaluation.runs.locks import is_held, lock_of
from captum_regioncam.evaluation.runs.record import Record, Run
from captum_regioncam.files.text import counted

__all__ = ["Unfinished", "await_seeds", "unfinished"]

_PAUSE = 3.0  # seconds between two checks of a folder


@dataclass(frozen=True)
class Unfinished:
    """How far the runs that write the seeds of a folder are.

    Attributes:
        present: how many seeds exist.
        total: how many there will be.
        writing: the runs that are writing, as far as their locks tell.
        died: the runs that began, but neither finished nor are still writing.
        missing: the numbers of the shards that have not begun.
        shards: how many shards there are; 0 if the photos are not divided into shards.
    """

    present: int
    total: int
    writing: Sequence[Run]
    died: Sequence[Run]
    missing: Sequence[int] = ()
    shards: int = 0

    def __str__(self) -> str:
        parts = [f"{self.present:,} of {counted(self.total, 'seed')}"]
        for runs, what in ((self.writing, "being written"), (self.died, "interrupted")):
            if numbers := [run.shard[0] for run in runs if run.shard]:
                parts.append(f"{_shards(numbers)} of {self.shards} {'is' if len(numbers) == 1 else 'are'} {what}")
        if self.missing:
            has = "has" if len(self.missing) == 1 else "have"
            parts.append(f"{_shards(self.missing)} of {self.shards} {has} not begun")
        return "; ".join(parts)


def unfinished(folder: Path) -> Unfinished | None:
    """Return how far a folder of seeds is; None if it is complete, or if there is no record that tells.

    A run that finished is complete: the photos without seeds failed.

    Raises:
        ValueError: the record is broken.
    """
    held = {run.shard: is_held(lock_of(folder, run.shard)) for run in Record.read(folder).of("seeds")}
    record = Record.read(folder)  # after the locks: a run that has ended meanwhile is complete in it
    runs = record.of("seeds")
    total = runs[-1].total if runs else None
    shards = max((run.shard[1] for run in runs if run.shard), default=0)
    parts = [run for run in runs if run.shard] if shards else runs[-1:]
    missing = sorted(set(range(1, shards + 1)) - {run.shard[0] for run in parts if run.shard})
    of_open = [run for run in parts if not run.is_whole]
    present = sum(map(record.exists, record.listing("seeds")))
    if total is None or present >= total or not (of_open or missing):
        return None

    def is_writing(run: Run) -> bool:
        known = held.get(run.shard, True)  # a run that is not in it has only just begun
        return run.is_writing() if known is None else known

    writing = [run for run in of_open if is_writing(run)]
    return Unfinished(present, total, writing, [run for run in of_open if run not in writing], missing, shards)


def await_seeds(
    folder: Path, names: Sequence[str] | None, limit: int | None, *, wait: bool, show_progress: bool
) -> None:
    """Make sure that the seeds that are needed exist, or wait for them.

    Args:
        folder: the folder of seeds.
        names: the names of the seeds that are needed; None for any.
        limit: with ``names=None``, how many are needed; None for all.
        wait: wait for the runs that write them, and for shards that have not begun.
        show_progress: show a progress bar.

    Raises:
        ArgumentError: seeds are missing, and no run is writing them, or ``wait`` is False.
    """

    def found() -> Unfinished | None:
        state = unfinished(folder)
        if names is not None:
            return None if state and all((folder / f"{name}.npy").exists() for name in names) else state
        return None if state and limit is not None and limit <= state.present else state

    state = found()
    hidden = not (state and wait and show_progress)
    with progress_bar(state.total if state else 0, "seed", hidden=hidden, what="waiting") as bar:
        while state is not None:
            if state.died or not wait:
                raise ArgumentError(Argument("seeds", folder), f": has {state}. ", *_remedy(state))
            bar.update(state.present - bar.n)
            time.sleep(_PAUSE)
            state = found()


def _remedy(state: Unfinished) -> list[str | Argument]:
    if not state.died:
        what = "the run that writes them" if state.writing else "them"
        begin = f"Start {_shards(state.missing)}. " if state.missing else ""
        return [f"{begin}Pass ", Argument("wait", True), f" to wait for {what}."]
    line = state.died[0].sessions[-1].get("command_line") if state.died[0].sessions else None
    if not (isinstance(line, list) and line[:1] == ["captum-regioncam"]):
        return ["The run that wrote them was interrupted. Call it again with ", Argument("resume", True), "."]
    words = [str(word) for word in line] + ([] if "--resume" in line else ["--resume"])
    return [f"The run that wrote them was interrupted. Continue it: {shlex.join(words)}"]


def _shards(numbers: Sequence[int]) -> str:
    """Return "shard 3", or "shards 1-4, 9"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return f"shard{'s' * (len(numbers) > 1)} {', '.join('-'.join(map(str, ends)) for ends in ranges)}"
