"""``evaluate``, ``evaluate_seeds`` and ``evaluate_label_maps``: methods, seeds or label maps in one table."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.datasets.base import PhotoData
from captum_regioncam.evaluation.methods import Method, named_methods
from captum_regioncam.evaluation.photo_maps import PhotoMaps
from captum_regioncam.evaluation.protocol import Protocol
from captum_regioncam.evaluation.runs.report import Report
from captum_regioncam.evaluation.runs.workers import workers
from captum_regioncam.evaluation.scoring.boxes import BoxJob
from captum_regioncam.evaluation.scoring.counting import Counting
from captum_regioncam.evaluation.scoring.job import ScoreJob
from captum_regioncam.evaluation.scoring.label_maps import LabelMapJob
from captum_regioncam.evaluation.scoring.masks import MaskJob
from captum_regioncam.evaluation.scoring.outputs import Outputs
from captum_regioncam.evaluation.scoring.pixels import PixelJob
from captum_regioncam.evaluation.scoring.seeds import SeedFolders, Seeds

__all__ = ["evaluate", "evaluate_label_maps", "evaluate_seeds"]


def evaluate(
    classifier: Classifier,
    data: PhotoData,
    methods: Iterable[Method] | Mapping[str, Method] = ("region-cam",),
    *,
    seeds: Seeds | None = None,
    protocol: Protocol | None = None,
    layers: Sequence[str] | None = None,
    reshape: str | None = None,
    contrast: float = 4.0,
    refine: bool = False,
    precision: str = "float32",
    threshold: float = 0.15,
    absent: str = "ignore",
    box: str = "contour",
    box_threshold: float | None = None,
    step: float = 0.01,
    limit: int | None = None,
    wait: bool = False,
    readers: int = 0,
    json: str | os.PathLike[str] | None = None,
    plot: str | os.PathLike[str] | None = None,
    csv: str | os.PathLike[str] | None = None,
    latex: str | os.PathLike[str] | None = None,
    per_class: bool = False,
    per_photo: str | os.PathLike[str] | None = None,
    gallery: str | os.PathLike[str] | None = None,
    progress: str | os.PathLike[str] | None = None,
    resume: bool = False,
    show_progress: bool = True,
    about: Mapping[str, object] | None = None,
) -> Report:
    """Score methods side by side: by mIoU, by boxes or by PxAP, depending on the ground truth of the photos.

    A photo that fails does not stop the others. Processes that torchrun started share the photos; each of them returns
    the scores of all photos.

    Args:
        classifier: the network.
        data: the photos, their classes, and their ground truth: masks; boxes, if its ``truth`` is "boxes"; or masks for
            PxAP, if it is "pixels".
        methods: each the name of a method ("region-cam", "layer-cam", "grad-cam" or "cam"), an attribution of this
            package or of Captum, or a function of (x, targets) that returns (N, K, h, w) maps; or a dict that names
            them.
        seeds: folders of finished seeds, which get rows beside the methods; see :func:`evaluate_seeds`.
        protocol: scales, flips, normalisation and upsampling. Default: IRN's for the layouts "voc" and "coco", Choe et
            al.'s for "ilsvrc", and otherwise one scale.
        layers: dotted names of the layers that methods given by name read. Default: the stages found.
        reshape: the layout of these layers: "channels-last", or "tokens:N" or "tokens:N:M" with N tokens before the
            patches and M after them. Default: it is measured.
        contrast: the contrast of the method "region-cam"; see :class:`~captum_regioncam.LayerRegionCam`.
        refine: refine the maps with the photo, so that they follow its edges; see :func:`~captum_regioncam.refine`.
            This improves masks, but not boxes.
        precision: the precision of the network's passes: "float32", or "bfloat16" or "float16" under autocast. Maps
            are float32.
        threshold: the background threshold of ``miou``, in [0, 1]. The thresholds from 0 to 1 are tried as well.
        absent: how ``miou`` treats classes that are in none of the masks: "ignore", "zero" or "ignore-predicted"; see
            :class:`SegmentationMetric`.
        box: which box counts if there are several: "contour" or "rectangle"; see :class:`LocalizationMetric`.
        box_threshold: the threshold for GT-known, Loc1 and Loc5, in [0, 1). Default: the best one.
        step: the step between the thresholds of boxes, between 0 and 1.
        limit: only the first ``limit`` photos. Default: all.
        wait: if runs are still writing ``seeds``, wait until they have finished. Otherwise, this is an error.
        readers: how many processes read photos ahead.
        json: a file for what :meth:`Report.to_dict` returns.
        plot: a file for a plot of the score at each threshold.
        csv: a file for a line of scores for each method; see :meth:`Report.to_csv`. It must not exist yet.
        latex: a file for the table in LaTeX; see :meth:`Report.to_latex`.
        per_class: also write the scores of each class to ``csv`` and ``latex``.
        per_photo: a file for a line of scores for each photo and method; see :meth:`Report.photos_to_csv`. It must not
            exist yet.
        gallery: a folder, new or empty or with an older gallery, for pictures of each method's best, median and worst
            twenty photos: METHOD-best.png, METHOD-median.png, METHOD-worst.png, and index.html with all of them.
        progress: a folder in which the counts are saved until the scores, and their files, are complete.
        resume: continue where an earlier run of the same call, with the same ``progress``, was interrupted.
        show_progress: show a progress bar.
        about: further entries for the report's provenance, as JSON values.

    Returns:
        The scores of each method, in percent, and the photos that failed.

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
    truth = _truth_of(data)
    if (classifier.resize or protocol.resize) == "crop" and (truth != "masks" or seeds is not None):
        what = {"masks": "seeds are of", "boxes": "boxes are for", "pixels": "masks are for"}[truth]
        raise ArgumentError(Argument("resize", "crop"), f": the {what} whole photos; choose squash, short or keep.")

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

    def make_seeds() -> SeedFolders | None:
        folders = None if seeds is None else SeedFolders.of(seeds, refine, data.names)
        if twice := sorted(set(named) & set(folders.folders if folders else ())):
            raise ArgumentError(Argument("seeds"), f": {twice[0]} is the name of a method, too; choose another name.")
        return folders

    outputs = Outputs(json, plot, csv, latex, per_class, per_photo, gallery)
    counting = Counting(limit, readers, outputs, progress, resume, show_progress, about)
    with workers() as worker:
        worker.together(partial(counting.check, data))
        folders = worker.together(make_seeds)
        if folders is not None:
            worker.from_first(partial(folders.wait_for, data, limit, wait=wait, show_progress=show_progress))
        maps = worker.together(make_maps)
        job = worker.together(lambda: _job(data, maps, contrast, folders, threshold, absent, step, box_threshold, box))
        return counting.of(job, worker)


def evaluate_seeds(
    seeds: Seeds,
    data: PhotoData,
    *,
    refine: bool = False,
    threshold: float = 0.15,
    absent: str = "ignore",
    box: str = "contour",
    box_threshold: float | None = None,
    step: float = 0.01,
    limit: int | None = None,
    wait: bool = False,
    readers: int = 0,
    json: str | os.PathLike[str] | None = None,
    plot: str | os.PathLike[str] | None = None,
    csv: str | os.PathLike[str] | None = None,
    latex: str | os.PathLike[str] | None = None,
    per_class: bool = False,
    per_photo: str | os.PathLike[str] | None = None,
    gallery: str | os.PathLike[str] | None = None,
    progress: str | os.PathLike[str] | None = None,
    resume: bool = False,
    show_progress: bool = True,
    about: Mapping[str, object] | None = None,
) -> Report:
    """Score finished seeds side by side: mIoU of their label maps, or their boxes. No network is run.

    Args:
        seeds: the folder of NAME.npy, in any format, or several folders; or a dict that names them. Otherwise each is
            called "seeds in FOLDER", with the folder as it is given. For boxes, the files may also be called
            NAME.JPEG.npy, in any folder inside, as wsolevaluation has them.
        data: the photos, and their ground truth: masks; boxes, if its ``truth`` is "boxes"; or masks for PxAP, if it is
            "pixels". Without a network, there are no Loc1 and Loc5 for boxes.
        refine: first refine the maps with the photo; see :func:`~captum_regioncam.refine`.
        threshold: the background threshold of ``miou``, in [0, 1]. The thresholds from 0 to 1 are tried as well.
        absent: how ``miou`` treats classes that are in none of the masks: "ignore", "zero" or "ignore-predicted"; see
            :class:`SegmentationMetric`.
        box: as in :func:`evaluate`.
        box_threshold: as in :func:`evaluate`.
        step: as in :func:`evaluate`.
        limit: only the first ``limit`` photos. Default: all.
        wait: if runs are still writing the seeds, wait until they have finished. Otherwise, this is an error.
        readers: how many processes read photos ahead.
        json: as in :func:`evaluate`.
        plot: as in :func:`evaluate`.
        csv: as in :func:`evaluate`.
        latex: as in :func:`evaluate`.
        per_class: as in :func:`evaluate`.
        per_photo: as in :func:`evaluate`.
        gallery: as in :func:`evaluate`.
        progress: as in :func:`evaluate`.
        resume: as in :func:`evaluate`.
        show_progress: show a progress bar.
        about: as in :func:`evaluate`.

    Returns:
        The scores of each folder, in percent, and the photos that failed.

    Raises:
        ArgumentError: there is no such folder, one is given twice, a run has not finished writing its seeds, they are
            already refined or are scores after a dense CRF, or a run was interrupted and ``resume`` is False.
        ValueError: all seeds failed.
        OSError: a file cannot be written.

    Example::

        >>> data = Voc2012("VOCdevkit/VOC2012")
        >>> report = evaluate_seeds("seeds", data, show_progress=False)
        >>> 0 <= report.scores["seeds in seeds"]["best_miou"] <= 100
        True
    """
    outputs = Outputs(json, plot, csv, latex, per_class, per_photo, gallery)
    counting = Counting(limit, readers, outputs, progress, resume, show_progress, about)
    with workers() as worker:
        worker.together(partial(counting.check, data))
        folders = worker.together(lambda: SeedFolders.of(seeds, refine, data.names))
        worker.from_first(partial(folders.wait_for, data, limit, wait=wait, show_progress=show_progress))
        job = worker.together(lambda: _job(data, None, 0, folders, threshold, absent, step, box_threshold, box))
        return counting.of(job, worker)


def evaluate_label_maps(
    label_maps: str | os.PathLike[str],
    data: PhotoData,
    *,
    absent: str = "ignore",
    unlabelled: str = "background",
    limit: int | None = None,
    readers: int = 0,
    json: str | os.PathLike[str] | None = None,
    csv: str | os.PathLike[str] | None = None,
    latex: str | os.PathLike[str] | None = None,
    per_class: bool = False,
    per_photo: str | os.PathLike[str] | None = None,
    gallery: str | os.PathLike[str] | None = None,
    progress: str | os.PathLike[str] | None = None,
    resume: bool = False,
    show_progress: bool = True,
    about: Mapping[str, object] | None = None,
) -> Report:
    """Score finished label maps against masks: those of a CRF, of IRN or of a trained network. No network is run.

    A label map fails if it is missing, or has another size or other labels; it does not stop the others.

    Args:
        label_maps: the folder with a label map NAME.png for each photo: indexed or 8-bit grey, 0 for the background,
            class + 1, and 255 for pixels without a label.
        data: the photos and their masks, in which 255 does not count.
        absent: how the means treat classes that are in none of the masks: "ignore", "zero" or "ignore-predicted"; see
            :class:`LabelMapMetric`.
        unlabelled: what a predicted 255 counts as: "background" (default), "missed" or "ignored"; see
            :class:`LabelMapMetric`.
        limit: only the first ``limit`` photos. Default: all.
        readers: how many processes read photos ahead.
        json: as in :func:`evaluate`.
        csv: as in :func:`evaluate`.
        latex: as in :func:`evaluate`.
        per_class: as in :func:`evaluate`.
        per_photo: as in :func:`evaluate`.
        gallery: as in :func:`evaluate`.
        progress: as in :func:`evaluate`.
        resume: as in :func:`evaluate`.
        show_progress: show a progress bar.
        about: as in :func:`evaluate`.

    Returns:
        The scores of :meth:`LabelMapMetric.compute`, in percent. ``per_class`` (the IoU), ``per_class_precision``,
        ``per_class_recall``, ``per_class_fp`` and ``per_class_fn`` are dicts by the name of the class; ``confusion`` is
        in pixels.

    Raises:
        ArgumentError: there is no such folder, or a run was interrupted and ``resume`` is False.
        ValueError: all label maps failed.
        OSError: a file cannot be written.

    Example::

        >>> data = Voc2012("VOCdevkit/VOC2012")
        >>> report = evaluate_label_maps("VOCdevkit/VOC2012/SegmentationClass", data, show_progress=False)
        >>> [scores] = report.scores.values()
        >>> scores["miou"], scores["fp"], scores["per_class_recall"]["bicycle"]
        (100.0, 0.0, 100.0)
    """
    folder = Path(label_maps)

    def make_job() -> LabelMapJob:
        if not folder.is_dir():
            raise ArgumentError(Argument("label_maps", folder), ": no such folder.")
        return LabelMapJob(data, folder, absent, unlabelled)

    outputs = Outputs(json, None, csv, latex, per_class, per_photo, gallery)
    counting = Counting(limit, readers, outputs, progress, resume, show_progress, about)
    with workers() as worker:
        worker.together(partial(counting.check, data))
        return counting.of(worker.together(make_job), worker)


def _job(
    data: PhotoData,
    maps: PhotoMaps | None,
    contrast: float,
    seeds: SeedFolders | None,
    threshold: float,
    absent: str,
    step: float,
    box_threshold: float | None,
    box: str,
) -> ScoreJob[Any]:
    """Return the job that counts photos with this ground truth."""
    truth = _truth_of(data)
    if truth == "pixels":
        return PixelJob(data, maps, contrast, seeds)
    if truth == "boxes":
        return BoxJob(data, step, box_threshold, box, maps, contrast, seeds)
    return MaskJob(data, threshold, maps, contrast, seeds, absent)


def _truth_of(data: PhotoData) -> str:
    return str(getattr(data, "truth", "masks"))
