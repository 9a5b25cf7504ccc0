"""Counting photos, and computing and writing their scores."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from captum_regioncam.arguments import whole
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoData
from captum_regioncam.evaluation.runs.job import first, run
from captum_regioncam.evaluation.runs.progress import Progress
from captum_regioncam.evaluation.runs.provenance import provenance
from captum_regioncam.evaluation.runs.report import Figures, Report
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.scoring.gallery import Gallery
from captum_regioncam.evaluation.scoring.job import ScoreJob
from captum_regioncam.evaluation.scoring.outputs import Outputs
from captum_regioncam.evaluation.titles import TITLES

__all__ = ["Counting"]

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Counting:
    """How photos are counted, and where the scores go; see :func:`~captum_regioncam.evaluation.evaluate`."""

    limit: int | None
    readers: int
    outputs: Outputs
    progress: str | os.PathLike[str] | None
    resume: bool
    show_progress: bool
    about: Mapping[str, object] | None

    def check(self, data: PhotoData) -> None:
        """Check the names of the photos, and the files that will be written."""
        names = first(data.names, self.limit)
        if len(set(names)) < len(names):
            raise ArgumentError(Argument("data"), ": two photos have the same name.")
        if self.resume and self.progress is None:
            raise ArgumentError(
                Argument("resume", True), ": requires ", Argument("progress"), ", the folder of the counts."
            )
        self.outputs.check(data)

    def of(self, job: ScoreJob[Result], worker: Worker) -> Report:
        """Count the photos, and compute and write the scores."""
        start = time.monotonic()
        job.names, job.readers = first(job.names, self.limit), self.readers
        job.photos = {} if self.outputs.need_photos else None
        for metric in job.counts.metrics.values():
            metric.process_group = worker.group  # the default one may be NCCL's, which has no CPU
        gallery = None if self.outputs.gallery is None else Gallery(Path(self.outputs.gallery), job, worker)
        if gallery is not None:
            worker.from_first(gallery.check)
        if worker.is_first:
            _log.info("%s", job.description)
        if self.progress is None:
            failures = run(job, worker, show_progress=self.show_progress)
            return self._report(job, failures, start, worker, gallery)
        settings = job.settings | {"limit": self.limit and whole(self.limit), "command": "evaluate"}
        if job.photos is not None:
            settings["per_photo"] = True  # counts without the scores of each photo are of no use then
        home, metrics = Path(self.progress), job.counts.metrics
        with Progress(home, settings, metrics, worker, resume=self.resume, photos=job.photos) as counts:
            job.progress = counts
            failures = run(job, worker, show_progress=self.show_progress)
            counts.finish()
            report = self._report(job, failures, start, worker, gallery)
            counts.remove()
        return report

    def _report(
        self,
        job: ScoreJob[Result],
        failures: Mapping[str, str],
        start: float,
        worker: Worker,
        gallery: Gallery[Result] | None,
    ) -> Report:
        scores = job.counts.scores()  # every worker takes part in the sums
        photos = _photos(job, scores, worker)
        counted = len(job.names) - len(failures)
        seconds = time.monotonic() - start
        origin = {
            **job.origin,
            "photos": counted,
            "failures": dict(failures),
            "seconds": round(seconds, 1),
            **(self.about or {}),
        }
        scores = {method: row | {"photos": counted, "failed": len(failures)} for method, row in scores.items()}
        counts = job.counts
        report = Report(
            scores, failures, provenance(origin), counts.title, counts.columns, counts.axis, TITLES,
            counts.class_tables, photos, counts.photo_columns, job.remaining, seconds,
        )  # fmt: skip
        worker.from_first(partial(self._write, report))
        if gallery is not None:
            gallery.write(report, show_progress=self.show_progress)
        return report

    def _write(self, report: Report) -> None:
        """Write the files; if that fails, log the scores, so that they are not lost."""
        try:
            self.outputs.write(report)
        except OSError:
            _log.info("%s", report.table())
            raise


def _photos(job: ScoreJob[Result], scores: Figures, worker: Worker) -> list[dict[str, object]]:
    """Return the scores of each photo and method, in the order of the photos. Each worker knows only its own share."""
    if job.photos is None:
        return []
    found = {
        name: [
            {"method": method, "classes": "; ".join(photo["classes"])} | job.counts.photo_scores(of, scores[method])
            for method, of in photo["curves"].items()
        ]
        for name, photo in job.photos.items()
    }
    everywhere = {name: rows for part in worker.gather(found) for name, rows in part.items()}
    return [{"photo": name} | row for name in job.names for row in everywhere.get(name, ())]
