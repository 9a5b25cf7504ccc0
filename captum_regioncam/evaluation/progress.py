"""The counts of an evaluation, kept in files while it runs, so that it can continue after an interruption."""

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torchmetrics import Metric

from captum_regioncam.errors import UsageError
from captum_regioncam.evaluation.runner import Worker
from captum_regioncam.files import remove_unfinished, written_whole

__all__ = ["Progress"]

_SHARE = 0.01  # of the time may go into saving
_LEAST = 0.5  # seconds between saves


class Progress:
    """The counts of a run, in a folder that its settings name. Every worker of every session has its own file.

    Args:
        home: the folder in which to make it.
        settings: the run's settings, as JSON values. A run with other settings has another folder.
        metrics: what is counted, by name. The metrics' states must be sums.
        worker: this process.
        resume: continue where an earlier run with the same settings ended.

    Attributes:
        done: the names of the photos that earlier sessions counted.

    Raises:
        UsageError: another process is running the same evaluation; or an interrupted run has counted photos, and
            ``resume`` is False; or a file is broken.
    """

    def __init__(
        self, home: Path, settings: Mapping[str, Any], metrics: Mapping[str, Metric], worker: Worker, *, resume: bool
    ) -> None:
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self.folder, self.metrics, self.worker = home / f"evaluate-{key}", metrics, worker
        self._lock = FileLock(self.folder / ".lock")
        self._before: list[dict[str, Any]] = []
        found = worker.together(lambda: self._open(resume) if worker.rank == 0 else ([], 0, True))
        names, self._session, self._usable = worker.gather(found)[0]
        self.done: frozenset[str] = frozenset(names)
        self._names: list[str] = []
        self._saved, self._cost = time.monotonic(), 0.0

    def _open(self, resume: bool) -> tuple[list[str], int, bool]:
        """Return the names that are already counted, this session's number, and whether the folder can be used."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{self.folder}: another process is already running this evaluation. Wait for it."
            ) from None
        except OSError as error:
            print(
                f"Progress cannot be kept in {self.folder} ({error.strerror}), so --resume will not work.",
                file=sys.stderr,
            )
            return [], 0, False
        remove_unfinished(self.folder)
        files = sorted(self.folder.glob("[!.]*.pt"))
        try:
            self._before = [torch.load(path, weights_only=True) for path in files]
        except Exception as error:
            raise UsageError(f"{self.folder}: cannot be read ({error}). Delete it and start again.") from error
        names = [name for content in self._before for name in content["names"]]
        if names and not resume:
            raise UsageError(
                f"an interrupted run of this command has counted {len(names):,} photos. Pass --resume to continue, or "
                f"delete {self.folder} to start again."
            )
        if resume:
            print(f"{len(names):,} photos are already counted.", file=sys.stderr)
        return names, len(files), True

    def add(self, name: str) -> None:
        """Note that a photo is counted, and save all counts if the last save was long enough ago."""
        self._names.append(name)
        if self._usable and time.monotonic() - self._saved > max(_LEAST, self._cost / _SHARE):
            start = time.monotonic()
            states = {key: metric.metric_state for key, metric in self.metrics.items()}
            try:
                with written_whole(self.folder / f"{self._session:06d}-{self.worker.rank}.pt") as temporary:
                    torch.save({"names": self._names, "states": states}, temporary)
            except (OSError, RuntimeError) as error:  # torch raises its own if the disk is full
                print(f"Progress is no longer kept in {self.folder} ({error}).", file=sys.stderr)
                self._usable = False
            self._saved = time.monotonic()
            self._cost = self._saved - start

    def finish(self) -> None:
        """Add the counts of earlier sessions to the metrics, in the first worker, before all workers compute."""
        for content in self._before:
            for key, states in content["states"].items():
                metric = self.metrics[key]
                for name, value in states.items():
                    setattr(metric, name, getattr(metric, name) + value.to(metric.device))

    def remove(self) -> None:
        """Remove the files once the scores are safe."""
        if self._lock.is_locked:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.release()
            with contextlib.suppress(OSError):  # other evaluations keep their folders there
                self.folder.parent.rmdir()
