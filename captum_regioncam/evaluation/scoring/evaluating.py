"""``evaluate`` and ``evaluate_seeds``: methods, finished seeds, or both, in one table."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

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
from captum_regioncam.evaluation.scoring.masks import MaskJob
from captum_regioncam.evaluation.scoring.outputs import Outputs
from captum_regioncam.evaluation.scoring.seeds import SeedFolders, Seeds

__all__ = ["evaluate", "evaluate_seeds"]


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
    box: str = "contour",
    box_threshold: float | None = None,
    step: float = 0.01,
    limit: int | None = None,
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
    """Score methods side by side: mIoU of label maps on photos with masks, or boxes on photos with boxes.

    A photo that fails does not stop the others. Processes that torchrun started share the photos; each returns the
    scores of all.

    Args:
        classifier: the network.
        data: the photos, their classes, and their masks; or boxes, if its ``truth`` is "boxes".
        methods: each the name of a method ("region-cam", "layer-cam", "grad-cam" or "cam"), an attribution of this
            package or of Captum, or a function of (x, targets) that returns (N, K, h, w) maps; or a dict that names
            them.
        seeds: folders of finished seeds, which get rows beside the methods; see :func:`evaluate_seeds`.
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
        csv: a file for a line of scores for each method; see :meth:`Report.to_csv`. It must not exist yet.
        latex: a file for the table in LaTeX; see :meth:`Report.to_latex`.
        per_class: also write the scores of each class to ``csv`` and ``latex``.
        per_photo: a file for a line of scores for each photo and method; see :meth:`Report.photos_to_csv`. It must not
            exist yet.
        gallery: a folder, new or empty or with an older gallery, for pictures of each method's best, median and worst
            twenty photos: METHOD-best.png, METHOD-median.png, METHOD-worst.png, and index.html with all of them.
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
    of_boxes = _of_boxes(data)
    if (classifier.resize or protocol.resize) == "crop" and (of_boxes or seeds is not None):
        what = "the boxes are for whole photos" if of_boxes else "the seeds are of whole photos"
        raise ArgumentError(Argument("resize", "crop"), f": {what}; choose squash, short or keep.")

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
        folders = None if seeds is None else SeedFolders.of(seeds, refine)
        if twice := sorted(set(named) & set(folders.folders if folders else ())):
            raise ArgumentError(Argument("seeds"), f": {twice[0]} is the name of a method, too; choose another name.")
        return folders

    outputs = Outputs(json, plot, csv, latex, per_class, per_photo, gallery)
    counting = Counting(limit, readers, outputs, progress, resume, show_progress, about)
    with workers() as worker:
        worker.together(partial(counting.check, data))
        folders = worker.together(make_seeds)
        maps = worker.together(make_maps)
        if of_boxes:
            return counting.of(
                worker.together(lambda: BoxJob(data, step, box_threshold, box, maps, contrast, folders)), worker
            )
        return counting.of(worker.together(lambda: MaskJob(data, threshold, maps, contrast, folders)), worker)


def evaluate_seeds(
    seeds: Seeds,
    data: PhotoData,
    *,
    refine: bool = False,
    threshold: float = 0.15,
    box: str = "contour",
    box_threshold: float | None = None,
    step: float = 0.01,
    limit: int | None = None,
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
        data: the photos and their masks; or boxes, if its ``truth`` is "boxes". Without a network, boxes have no Loc1
            and Loc5.
        refine: first refine the maps with the photo; see :func:`~captum_regioncam.refine`.
        threshold: the background threshold of ``miou``, in [0, 1]; all are swept as well.
        box: as in :func:`evaluate`.
        box_threshold: as in :func:`evaluate`.
        step: as in :func:`evaluate`.
        limit: only the first so many photos.
        readers: how many processes read photos ahead.
        json: a file for what :meth:`Report.to_dict` returns.
        plot: a file for the score over the threshold.
        csv: as in :func:`evaluate`.
        latex: as in :func:`evaluate`.
        per_class: as in :func:`evaluate`.
        per_photo: as in :func:`evaluate`.
        gallery: as in :func:`evaluate`.
        progress: as in :func:`evaluate`.
        resume: as in :func:`evaluate`.
        show_progress: show a bar.
        about: more for the report to say of where the scores come from, as JSON values.

    Raises:
        ArgumentError: there is no such folder, one is given twice, its seeds are refined already, or a run was
            interrupted and ``resume`` is False.
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
        folders = worker.together(lambda: SeedFolders.of(seeds, refine))
        if _of_boxes(data):
            return counting.of(worker.together(lambda: BoxJob(data, step, box_threshold, box, seeds=folders)), worker)
        return counting.of(worker.together(lambda: MaskJob(data, threshold, seeds=folders)), worker)


def _of_boxes(data: PhotoData) -> bool:
    return bool(getattr(data, "truth", "masks") == "boxes")
