"""The counts of an evaluation, kept in files while it runs, so that it can continue after an interruption."""

import contextlib
import hashlib
import io
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.runs.locks import LOCK, locked
from captum_regioncam.evaluation.runs.per_photo import Packed, PhotoCounts, pack, unpack
from captum_regioncam.evaluation.runs.record import Record, Run
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.runs.writer import Writer
from captum_regioncam.extras import extra
from captum_regioncam.files.outputs import OutputError
from captum_regioncam.files.text import counted

with extra("eval"):
    from torchmetrics import Metric

__all__ = ["Progress"]

_log = logging.getLogger(__name__)
_SHARE = 0.01  # of the time may be spent on saving
_LEAST = 0.5  # seconds between saves


class _Counts(TypedDict):
    """What a file holds: the photos that are counted, the states of the metrics, and what is kept of each photo."""

    names: list[str]
    states: dict[str, dict[str, Tensor]]
    photos: Packed


class Progress:
    """The counts of a run, in a folder that its settings name. Every worker of every session has its own file.

    Args:
        home: the folder in which to make it.
        settings: the run's settings, as JSON values. A run with other settings has another folder.
        metrics: what is counted, by name. The metrics' states must be sums.
        worker: this process.
        resume: continue where an earlier run with the same settings ended.
        photos: what is kept of each photo, by name; None if nothing is.

    Attributes:
        done: the names of the photos that earlier sessions counted.

    Raises:
        ValueError: another process is running the same evaluation; or an interrupted run has counted photos, and
            ``resume`` is False; or a file is broken.
    """

    def __init__(
        self,
        home: Path,
        settings: Mapping[str, object],
        metrics: Mapping[str, Metric],
        worker: Worker,
        *,
        resume: bool,
        photos: dict[str, PhotoCounts] | None = None,
    ) -> None:
        self.settings = json.loads(json.dumps(settings))
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self.folder, self.metrics, self.worker = home / f"evaluate-{key}", metrics, worker
        self.photos = photos
        self._lock = contextlib.ExitStack()
        self._before: list[_Counts] = []
        names, session, token = worker.from_first(lambda: self._open(resume))
        self._writer = None if token is None else Writer(self.folder, token, worker.rank)
        self._file = f"{session:06d}-{worker.rank}.pt"
        self.done: frozenset[str] = frozenset(names)
        self._names: list[str] = []
        self._saved, self._cost = time.monotonic(), 0.0

    def _open(self, resume: bool) -> tuple[list[str], int, str | None]:
        """Return the names that are already counted, this session's number, and its token if the folder can be used."""
        try:
            self._lock.enter_context(locked(self.folder, "progress"))
            record = Record.read(self.folder)
            run = next(iter(record.of("evaluate")), Run("evaluate", self.settings))
            self._before = [self._load(record, name) for name in sorted(run.results) if record.exists(name)]
            names = [name for content in self._before for name in content["names"]]
            if names and not resume:
                raise ArgumentError(
                    f"an interrupted run with these settings has counted {counted(len(names), 'photo')}. Pass ",
                    Argument("resume", True),
                    f" to continue, or delete {self.folder} to start again.",
                )
            token = record.begin(run, {}, self.worker.count)
        except ValueError:
            self.close()
            raise
        except OutputError as error:
            self._before = []  # because their photos are counted again
            _log.warning("Progress cannot be saved, so this run cannot be resumed: %s", error)
            return [], 0, None
        if resume:
            _log.warning("%s %s already counted.", counted(len(names), "photo"), "is" if len(names) == 1 else "are")
        return names, len(run.sessions), token

    def _load(self, record: Record, name: str) -> _Counts:
        path = self.folder / name
        try:
            if not record.is_as_written(name, record.listing()):
                raise ValueError("it has changed since it was written")
            content: _Counts = torch.load(path, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path}: cannot be read ({error}). Delete the folder and start again.") from error
        return content

    def add(self, name: str) -> None:
        """Note that a photo has been counted, and save all counts if the last save was long enough ago."""
        self._names.append(name)
        if self._writer is not None and time.monotonic() - self._saved > max(_LEAST, self._cost / _SHARE):
            start = time.monotonic()
            states = {key: metric.metric_state for key, metric in self.metrics.items()}
            content = io.BytesIO()
            kept = {} if self.photos is None else {"photos": pack(self.photos)}
            torch.save({"names": self._names, "states": states, **kept}, content)
            try:
                self._writer.write(self._file, content.getvalue())
            except (OutputError, ValueError) as error:
                _log.warning("Progress is no longer saved: %s", error)
                self._writer = None
            self._saved = time.monotonic()
            self._cost = self._saved - start

    def finish(self) -> None:
        """Add what earlier sessions counted, in the first worker, before all workers compute the scores."""
        for content in self._before:
            if self.photos is not None:
                self.photos.update(unpack(content["photos"]))
            for key, states in content["states"].items():
                metric = self.metrics[key]
                for name, value in states.items():
                    setattr(metric, name, getattr(metric, name) + value.to(metric.device))

    def remove(self) -> None:
        """Remove the files once the scores are safe, and the folders if nothing else is in them."""
        self.worker.gather(None)  # now no other worker is still saving
        if not self.worker.is_first:
            return
        with contextlib.suppress(ValueError, OSError):
            record = Record.read(self.folder)
            for run in record.of("evaluate"):
                record.remove(run)
                if run.writing:
                    record.end(run.writing.token)
            if not record.runs:
                (self.folder / LOCK).unlink()
        self.close()
        with contextlib.suppress(OSError):
            for folder in (self.folder, self.folder.parent):  # other evaluations keep their folders in the second
                folder.rmdir()

    def close(self) -> None:
        """Let other runs use the folder."""
        self._lock.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
