"""``evaluate`` and ``evaluate_seeds``: photos counted, and their scores computed and written."""

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from captum_regioncam.arguments import whole
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.datasets.base import PhotoData, source_of
from captum_regioncam.evaluation.methods import Method, named_methods
from captum_regioncam.evaluation.photo_maps import PhotoMaps
from captum_regioncam.evaluation.protocol import Protocol
from captum_regioncam.evaluation.runs.job import first, run
from captum_regioncam.evaluation.runs.progress import Progress
from captum_regioncam.evaluation.runs.provenance import provenance
from captum_regioncam.evaluation.runs.report import Report
from captum_regioncam.evaluation.runs.workers import Worker, workers
from captum_regioncam.evaluation.runs.written import check_named
from captum_regioncam.evaluation.scoring.boxes import BoxJob
from captum_regioncam.evaluation.scoring.job import ScoreJob
from captum_regioncam.evaluation.scoring.masks import MaskJob, SeedJob
from captum_regioncam.evaluation.seeds.reading import check_refine
from captum_regioncam.evaluation.seeds.waiting import await_seeds
from captum_regioncam.evaluation.titles import TITLES
from captum_regioncam.files.outputs import check_picture

__all__ = ["evaluate", "evaluate_seeds"]

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


def evaluate(
    classifier: Classifier,
    data: PhotoData,
    methods: Iterable[Method] | Mapping[str, Method] = ("region-cam",),
    *,
    protocol: Protocol | None = None,
    layers: Sequence[str] | None = None,
    reshape: str | None = None,
    contrast: float = 4.0,
    refine: bool = False,
    precision: str = "float32",
    threshold: float = 0.15,
    box: str = "contour",
    box_threshold: float | None = None,
    step: float = 0.01,
    limit: int | None = None,
    readers: int = 0,
    json: str | os.PathLike[str] | None = None,
    plot: str | os.PathLike[str] | None = None,
    progress: str | os.PathLike[str] | None = None,
    resume: bool = False,
    show_progress: bool = True,
    about: Mapping[str, object] | None = None,
) -> Report:
    """Score methods side by side: mIoU of label maps on photos with masks, or boxes on photos with boxes.

    A photo that fails does not stop the others. Processes that torchrun started share the photos; each returns the
    scores of all.

    Args:
        classifier: the network.
        data: the photos, their classes, and their masks; or boxes, if its ``truth`` is "boxes".
        methods: each the name of a method ("region-cam", "layer-cam", "grad-cam" or "cam"), an attribution of this
            package or of Captum, or a function of (x, targets) that returns (N, K, h, w) maps; or a dict that names
            them.
        protocol: scales, flips, normalisation and upsampling. Default: IRN's for the layouts "voc" and "coco", Choe et
            al.'s for "ilsvrc", and otherwise one scale.
        layers: dotted names of the layers that methods given by name read. Default: the stages found.
        reshape: the layout of these layers: "tokens:1", with the number of tokens before the patches, "tokens:1:100",
            with that of the tokens after them, too, or "channels-last". Default: it is measured.
        contrast: of the method "region-cam".
        refine: refine the maps with the photo, so that they follow its edges; see :func:`~captum_regioncam.refine`.
            This is for masks; boxes are better without.
        precision: of the network's passes: "float32", or "bfloat16" or "float16" under autocast. Maps are float32.
        threshold: the background threshold of ``miou``, in [0, 1]; all are swept as well.
        box: which box of several counts; see :class:`LocalizationMetric`.
        box_threshold: the threshold of GT-known, Loc1 and Loc5. Default: the best one.
        step: between the thresholds of boxes.
        limit: only the first so many photos.
        readers: how many processes read photos ahead.
        json: a file for what :meth:`Report.to_dict` returns.
        plot: a file for the score over the threshold.
        progress: a folder in which to keep what is counted until the scores are there (and in ``json`` and ``plot``).
        resume: continue where the same call, with the same ``progress``, was interrupted.
        show_progress: show a bar.
        about: more for the report to say of where the scores come from, as JSON values.

    Raises:
        ArgumentError: the network does not suit the data or the methods, arguments do not go together, or a run was
            interrupted and ``resume`` is False.
        ValueError: all photos failed.
        OSError: a file cannot be written.

    Example::

        >>> data = open_dataset("folder", "photos")
        >>> classifier = Classifier.load("torchvision:resnet18", "none", size=64)
        >>> report = evaluate(classifier, data, ["region-cam", "grad-cam"], show_progress=False)
        >>> list(report.scores), report.scores["grad-cam"]["photos"]
        (['region-cam', 'grad-cam'], 4)
    """
    named = named_methods(methods)
    protocol = Protocol.of(data) if protocol is None else protocol
    of_boxes = getattr(data, "truth", "masks") == "boxes"
    if of_boxes and (classifier.resize or protocol.resize) == "crop":
        raise ArgumentError(
            Argument("resize", "crop"), ": the boxes are for whole photos; choose squash, short or keep."
        )

    def make_maps() -> PhotoMaps:
        outputs = getattr(data, "outputs", None)
        return PhotoMaps.of(
            classifier,
            named,
            protocol,
            layers=layers,
            reshape=reshape,
            contrast=contrast,
            refine=refine,
            precision=precision,
            outputs=outputs,
        )

    counting = _Run(limit, readers, json, plot, progress, resume, show_progress, about)
    with workers() as worker:
        worker.together(partial(counting.check, data))
        maps = worker.together(make_maps)
        if of_boxes:
            return counting.of(worker.together(lambda: BoxJob(data, maps, contrast, step, box_threshold, box)), worker)
        return counting.of(worker.together(lambda: MaskJob(data, maps, contrast, threshold)), worker)


def evaluate_seeds(
    seeds: str | os.PathLike[str],
    data: PhotoData,
    *,
    refine: bool = False,
    threshold: float = 0.15,
    limit: int | None = None,
    wait: bool = False,
    readers: int = 0,
    json: str | os.PathLike[str] | None = None,
    plot: str | os.PathLike[str] | None = None,
    progress: str | os.PathLike[str] | None = None,
    resume: bool = False,
    show_progress: bool = True,
    about: Mapping[str, object] | None = None,
) -> Report:
    """Score finished seeds against masks: mIoU of their label maps. No network is run.

    Args:
        seeds: the folder of NAME.npy, in any format.
        data: the photos and their masks.
        refine: first refine the maps with the photo; see :func:`~captum_regioncam.refine`.
        threshold: the background threshold of ``miou``, in [0, 1]; all are swept as well.
        limit: only the first so many photos.
        wait: if runs are still writing the seeds, wait until they have finished. Otherwise, that is an error.
        readers: how many processes read photos ahead.
        json: a file for what :meth:`Report.to_dict` returns.
        plot: a file for the score over the threshold.
        progress: as in :func:`evaluate`.
        resume: as in :func:`evaluate`.
        show_progress: show a bar.
        about: more for the report to say of where the scores come from, as JSON values.

    Raises:
        ArgumentError: there is no such folder, a run has not finished writing the seeds, they are refined already, or
            a run was interrupted and ``resume`` is False.
        ValueError: all seeds failed.
        OSError: a file cannot be written.

    Example::

        >>> data = Voc2012("VOCdevkit/VOC2012")
        >>> report = evaluate_seeds("seeds", data, show_progress=False)
        >>> 0 <= report.scores["seeds in seeds"]["best_miou"] <= 100
        True
    """
    folder = Path(seeds)

    def check() -> None:
        counting.check(data)
        if not folder.is_dir():
            raise ArgumentError(Argument("seeds", folder), ": no such folder.")
        check_refine(folder, refine)

    def make_job() -> SeedJob:
        return SeedJob(data, folder, threshold, refine)

    counting = _Run(limit, readers, json, plot, progress, resume, show_progress, about)
    with workers() as worker:
        worker.together(check)
        names = first(data.names, limit)
        worker.from_first(partial(await_seeds, folder, names, None, wait=wait, show_progress=show_progress))
        return counting.of(worker.together(make_job), worker)


@dataclass(frozen=True)
class _Run:
    """How photos are counted, and where the scores go; see :func:`evaluate`."""

    limit: int | None
    readers: int
    json: str | os.PathLike[str] | None
    plot: str | os.PathLike[str] | None
    progress: str | os.PathLike[str] | None
    resume: bool
    show_progress: bool
    about: Mapping[str, object] | None

    def check(self, data: PhotoData) -> None:
        """Check that the files that will be written take no input's place, nor each other's."""
        names = first(data.names, self.limit)
        if len(set(names)) < len(names):
            raise ArgumentError(Argument("data"), ": two photos have the same name.")
        if self.resume and self.progress is None:
            raise ArgumentError(
                Argument("resume", True), ": requires ", Argument("progress"), ", the folder of the counts."
            )
        if self.plot is not None:
            check_picture("plot", Path(self.plot))
        root = source_of(data)["root"]
        home = Path(os.path.realpath(str(root))) if root else None
        stems = {Path(name).stem for name in data.names} if home else set()
        targets = {}
        for name, path in (("json", self.json), ("plot", self.plot)):
            if path is None:
                continue
            check_named(Path(path))
            target = targets[name] = Path(os.path.realpath(path))
            if home and target.exists() and target.is_relative_to(home) and target.stem in stems:
                raise ArgumentError(
                    Argument(name, path), ": may be a photo or a mask of the data set; choose another name."
                )
        if len(targets) > len(set(targets.values())):
            raise ArgumentError(
                Argument("plot", self.plot), ": is the file of ", Argument("json"), "; choose another name."
            )

    def of(self, job: ScoreJob[Result], worker: Worker) -> Report:
        """Count the photos, and compute and write the scores."""
        start = time.monotonic()
        job.names, job.readers = first(job.names, self.limit), self.readers
        for metric in job.counts.metrics.values():
            metric.process_group = worker.group  # the default one may be NCCL's, which has no CPU
        if worker.is_first:
            _log.info("%s", job.description)
        if self.progress is None:
            failures = run(job, worker, show_progress=self.show_progress)
            return self._report(job, failures, start, worker)
        settings = job.settings | {"limit": self.limit and whole(self.limit), "command": "evaluate"}
        with Progress(Path(self.progress), settings, job.counts.metrics, worker, resume=self.resume) as counts:
            job.progress = counts
            failures = run(job, worker, show_progress=self.show_progress)
            counts.finish()
            report = self._report(job, failures, start, worker)
            counts.remove()
        return report

    def _report(self, job: ScoreJob[Result], failures: Mapping[str, str], start: float, worker: Worker) -> Report:
        scores = job.counts.scores()  # every worker takes part in the sums
        counted = len(job.names) - len(failures)
        origin = {
            **job.origin,
            "photos": counted,
            "failures": dict(failures),
            "seconds": round(time.monotonic() - start, 1),
            **(self.about or {}),
        }
        scores = {method: row | {"photos": counted, "failed": len(failures)} for method, row in scores.items()}
        counts = job.counts
        report = Report(scores, failures, provenance(origin), counts.title, counts.columns, counts.axis, TITLES)
        worker.from_first(partial(self._write, report))
        return report

    def _write(self, report: Report) -> None:
        """Write the files; if that fails, at least tell the scores."""
        try:
            if self.json is not None:
                report.to_json(self.json)
            if self.plot is not None:
                report.plot(self.plot)
        except OSError:
            _log.info("%s", report.table())
            raise
