"""What an evaluation has counted, kept in files while it runs, so that it can go on after an interruption."""

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
from captum_regioncam.files import written_whole

__all__ = ["Progress"]

_SHARE = 0.01  # of the time may go into saving
_LEAST = 0.5  # seconds between savings


class Progress:
    """The counts of a run, in a folder that its settings name; every worker of every session has a file of its own.

    Args:
        home: where the folder goes.
        settings: of the run, as JSON has them. A run with others has another folder.
        metrics: what is counted, by name. Their states have to be sums.
        worker: of this process.
        resume: go on where an earlier run with the same settings ended; otherwise what it counted is dropped.

    Attributes:
        done: the names of the photos that earlier sessions counted.

    Raises:
        UsageError: another process runs the same, or a file is broken.
    """

    def __init__(
        self, home: Path, settings: Mapping[str, Any], metrics: Mapping[str, Metric], worker: Worker, *, resume: bool
    ) -> None:
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self.folder, self.metrics, self.worker = home / f"evaluate-{key}", metrics, worker
        self._lock = FileLock(self.folder / ".lock")
        found = worker.together(lambda: self._open(resume) if worker.rank == 0 else ({}, 0, True))
        names, self._session, self._usable = worker.gather(found)[0]
        self.done: frozenset[str] = frozenset(names)
        self._names: list[str] = []
        self._saved, self._cost = time.monotonic(), 0.0

    def _open(self, resume: bool) -> tuple[list[str], int, bool]:
        """Return the names that are counted already, this session's number, and whether the folder can be used."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"{self.folder}: another process runs the same evaluation. Wait for it.") from None
        except OSError as error:
            print(f"Progress cannot be kept in {self.folder} ({error.strerror}): no --resume.", file=sys.stderr)
            return [], 0, False
        names = [name for content in self._contents() for name in content["names"]]
        if names and not resume:
            print(f"Dropped {len(names):,} photos of an interrupted run; --resume goes on instead.", file=sys.stderr)
            for path in self._files():
                path.unlink()
            names = []
        elif resume:
            print(f"{len(names):,} photos are counted already.", file=sys.stderr)
        return names, len(self._files()), True

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.pt"))

    def _contents(self, before: int | None = None) -> list[dict[str, Any]]:
        """Return what is in the files, of the sessions before one."""
        files = [path for path in self._files() if before is None or int(path.name.split("-")[0]) < before]
        try:
            return [torch.load(path, weights_only=True) for path in files]
        except Exception as error:
            raise UsageError(f"{self.folder}: cannot be read ({error}). Remove it, and start anew.") from error

    def add(self, name: str) -> None:
        """Note that a photo is counted, and save all counts where the last time is long enough ago."""
        self._names.append(name)
        if self._usable and time.monotonic() - self._saved > max(_LEAST, self._cost / _SHARE):
            start = time.monotonic()
            states = {key: metric.metric_state for key, metric in self.metrics.items()}
            with written_whole(self.folder / f"{self._session:06d}-{self.worker.rank}.pt") as temporary:
                torch.save({"names": self._names, "states": states}, temporary)
            self._saved = time.monotonic()
            self._cost = self._saved - start

    def finish(self) -> None:
        """Add what earlier sessions counted to the metrics. All workers call this before they compute."""
        if self.worker.rank > 0 or not self.done:
            return
        for content in self._contents(before=self._session):
            for key, states in content["states"].items():
                metric = self.metrics[key]
                for name, value in states.items():
                    setattr(metric, name, getattr(metric, name) + value.to(metric.device))

    def remove(self) -> None:
        """Remove the files: the figures are there."""
        if self.worker.rank == 0 and self._usable:
            self._lock.release()
            shutil.rmtree(self.folder, ignore_errors=True)
            if not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()
