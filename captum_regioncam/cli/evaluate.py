"""``captum-regioncam evaluate``: methods, or finished seeds, scored on photos with masks or boxes."""

import argparse
import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric

from captum_regioncam.cli.data import check_contrast, dataset_of, made_of, origin, protocol_of, readers_of
from captum_regioncam.cli.network import report_failures
from captum_regioncam.cli.parser import MAP_OPTIONS
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.cli.values import check_picture
from captum_regioncam.evaluation import PhotoDataset, Sample, load_seed, squash_boxes
from captum_regioncam.evaluation.metrics.localization import LocalizationMetric
from captum_regioncam.evaluation.metrics.pixels import PixelMetric
from captum_regioncam.evaluation.metrics.segmentation import SegmentationMetric
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps, make_photo_maps
from captum_regioncam.evaluation.runs.folder import recorded
from captum_regioncam.evaluation.runs.progress import Progress
from captum_regioncam.evaluation.runs.record import check_named
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent, print_table, write_figures
from captum_regioncam.evaluation.runs.workers import visit, workers

__all__ = ["run"]

PROGRESS = Path(".captum_regioncam")
"""Where runs keep what they have counted, in the working directory."""


def run(options: argparse.Namespace) -> int:
    """Score methods or seeds; return the exit status."""
    start = time.monotonic()
    _check(options)

    def prepare() -> tuple[PhotoDataset, _Scoring]:
        dataset = dataset_of(options, ground_truth=True)
        _check_files(options, dataset)
        return dataset, _scoring(options, dataset)

    with workers() as worker:
        dataset, scoring = worker.together(prepare)
        names = dataset.names[: options.limit]
        if worker.rank == 0:
            say(scoring.describe)
        settings = scoring.settings | {"limit": options.limit, "command": "evaluate"}
        progress = Progress(PROGRESS, settings, scoring.metrics, worker, resume=options.resume)
        try:
            done = {number for number, name in enumerate(names) if name in progress.done}

            def keep(number: int, photo: Photo, maps: Any) -> None:
                scoring.count(photo.sample, maps)
                progress.add(photo.sample.name)

            failures = visit(
                names,
                worker,
                scoring.reader(dataset),
                scoring.maps_of,
                keep,
                done=done,
                batch=options.batch,
                alike=lambda photo: photo.input_shapes,
                readers=readers_of(options),
            )
            progress.finish()
            figures = scoring.figures()  # every worker takes part in the sums
            if worker.rank == 0:
                report_failures(failures, len(names), "photos failed and were left out")
                for row in figures.values():
                    row.update(photos=len(names) - len(failures), failed=len(failures))
                print_table(scoring.title, scoring.columns, figures)
                about = origin(
                    options, getattr(scoring, "maps", None), photos=len(names) - len(failures), failures=failures,
                    seconds=round(time.monotonic() - start, 1),
                )  # fmt: skip
                write_figures(figures, scoring.axis, about, options.json, options.plot)
            progress.remove()
        finally:
            progress.close()
    return int(bool(failures))


def _check(options: argparse.Namespace) -> None:
    """Before a long run, reject options that would make it fail or that would have no effect."""
    if options.plot:
        check_picture("--plot", options.plot)
    if options.dataset == "ilsvrc" and options.resize == "crop":
        raise UsageError("--resize crop: the boxes are for whole photos; choose squash, short or keep.")
    check_contrast(options, options.method)
    if seeds := getattr(options, "seeds", None):
        if not seeds.is_dir():
            raise UsageError(f"--seeds {seeds}: no such folder.")
        if given := options.given(options, MAP_OPTIONS):
            raise UsageError(f"--{given[0]}: cannot be used with --seeds, which are scored as they are.")


def _check_files(options: argparse.Namespace, dataset: PhotoDataset) -> None:
    """Check that the files that will be written take no input's place, nor each other's."""
    files = {option: path for option, path in (("--json", options.json), ("--plot", options.plot)) if path}
    root = Path(os.path.realpath(options.root))
    stems = {Path(name).stem for name in dataset.names}
    for option, path in files.items():
        check_named(path)
        target = Path(os.path.realpath(path))
        if target.exists() and target.is_relative_to(root) and target.stem in stems:
            raise UsageError(f"{option} {path}: may be a photo or a mask of the data set; choose another name.")
    if len(files) == 2 and len({os.path.realpath(path) for path in files.values()}) == 1:
        raise UsageError(f"--plot {options.plot}: is the file of --json; choose another name.")


class _Scoring(Protocol):
    """What is scored, and how."""

    title: str
    axis: str
    columns: ClassVar[dict[str, str]]
    describe: str
    metrics: dict[str, Metric]
    settings: dict[str, Any]

    def reader(self, dataset: PhotoDataset) -> Any:
        """Return a function that reads a photo by its number."""

    def maps_of(self, photos: list[Photo]) -> list[Any]:
        """Return what is scored for each photo."""

    def count(self, sample: Sample, maps: Any) -> None:
        """Count a photo for all methods or, if it fails, for none."""

    def figures(self) -> Figures:
        """Return the scores of all photos."""


def _scoring(options: argparse.Namespace, dataset: PhotoDataset) -> _Scoring:
    if getattr(options, "seeds", None):
        return _Seeds(options, dataset)
    maps = make_photo_maps(options, options.method, protocol_of(options), dataset)
    return (_Localization if options.dataset == "ilsvrc" else _Segmentation)(options, dataset, maps)


class _Masks:
    """mIoU of any maps, and PxAP if there is one class."""

    columns: ClassVar = {"miou": "mIoU", "best_miou": "best mIoU", "best_threshold": "at", "pxap": "PxAP"}
    axis = "mIoU (%)"

    def __init__(self, options: argparse.Namespace, dataset: PhotoDataset, rows: Sequence[str]) -> None:
        self.title = f"mIoU (%) at threshold {options.threshold:g} and at the best"
        classes = len(dataset.classes)
        self.names = ["background", *dataset.classes]
        self.scores = {row: SegmentationMetric(classes, options.threshold) for row in rows}
        self.pixels = {row: PixelMetric() for row in rows} if classes == 1 else {}
        self.metrics: dict[str, Metric] = {f"miou {row}": score for row, score in self.scores.items()}
        self.metrics |= {f"pxap {row}": score for row, score in self.pixels.items()}

    def add(self, cams: dict[str, Tensor], keys: Tensor, labels: Any) -> None:
        """Count a photo's (K, height, width) maps for each row."""
        if not all(maps.isfinite().all() for maps in cams.values()):
            raise ValueError("the maps are not finite")
        for row, maps in cams.items():
            self.scores[row].update(maps, keys, labels)
            if self.pixels and len(maps):
                self.pixels[row].update(maps[0], labels)

    def figures(self) -> Figures:
        """Return the scores of all photos."""
        figures: Figures = {}
        for row, score in self.scores.items():
            result = in_percent(computed(score))
            for name in ("per_class", "best_per_class"):
                result[name] = dict(zip(self.names, result[name], strict=True))
            figures[row] = result
            if self.pixels:
                figures[row]["pxap"] = in_percent({"pxap": computed(self.pixels[row])})["pxap"]
        return figures


class _Seeds(_Masks):
    """Seed files against masks."""

    def __init__(self, options: argparse.Namespace, dataset: PhotoDataset) -> None:
        self.folder = options.seeds
        super().__init__(options, dataset, [f"seeds in {self.folder}"])
        self.describe = f"Seeds in {self.folder}"
        self.settings = {
            "seeds": str(self.folder.resolve()), "root": str(Path(options.root).resolve()),
            "dataset": options.dataset, "split": getattr(options, "split", None), "threshold": options.threshold,
            "labels": getattr(options, "labels", None), "made_of": recorded(self.folder),
            "index": dataset.fingerprint(), "files": _files_in(self.folder, dataset.names),
        }  # fmt: skip

    def reader(self, dataset: PhotoDataset) -> Any:
        return _SampleReader(dataset)

    def maps_of(self, photos: list[Photo]) -> list[Any]:
        return [load_seed(self.folder / f"{photo.sample.name}.npy", photo.sample.keys or None) for photo in photos]

    def count(self, sample: Sample, seed: Any) -> None:
        assert sample.labels is not None
        maps = torch.from_numpy(seed.high_res) if len(seed.keys) else torch.zeros(0, *sample.labels.shape)
        self.add(dict.fromkeys(self.scores, maps), seed.keys, sample.labels)


def _files_in(folder: Path, names: Sequence[str]) -> str:
    """Return a hash of the sizes and times of the seeds, so that other seeds are not counted with these."""
    digest = hashlib.sha256()
    for name in names:
        with contextlib.suppress(OSError):
            found = (folder / f"{name}.npy").stat()
            digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _SampleReader:
    dataset: PhotoDataset

    def __call__(self, number: int) -> Photo:
        return Photo(self.dataset[number])


class _Segmentation(_Masks):
    """Maps against masks."""

    def __init__(self, options: argparse.Namespace, dataset: PhotoDataset, maps: PhotoMaps) -> None:
        super().__init__(options, dataset, options.method)
        self.maps, self.reader = maps, maps.reader
        self.describe = f"Layers: {maps.stages.describe()}\n{maps.protocol}"
        self.settings = made_of(options, maps, dataset) | {"threshold": options.threshold}

    def _box(self, sample: Sample) -> tuple[int, int, int, int]:
        return self.maps.classifier.seen_box(*sample.photo.size)

    def maps_of(self, photos: list[Photo]) -> list[Any]:
        boxes = [self._box(photo.sample) for photo in photos]
        sizes = [(lower - upper, right - left) for left, upper, right, lower in boxes]
        by_row = {row: self.maps.finished(row, photos, sizes) for row in self.scores}
        return [{row: found[index][0] for row, found in by_row.items()} for index in range(len(photos))]

    def count(self, sample: Sample, cams: dict[str, Tensor]) -> None:
        assert sample.labels is not None
        left, upper, right, lower = self._box(sample)
        keys = torch.tensor(sample.keys, dtype=torch.long)
        self.add(cams, keys, sample.labels[upper:lower, left:right])


class _Localization:
    """Maps against boxes."""

    title = "Localisation (%), one box per photo at IoU 0.5"
    columns: ClassVar = {
        "max_box_acc": "MaxBoxAcc",
        "max_box_acc_v2": "MaxBoxAccV2",
        "gt_known": "GT-known",
        "loc1": "Loc1",
        "loc5": "Loc5",
        "threshold": "at",
    }
    axis = "GT-known (%)"

    def __init__(self, options: argparse.Namespace, dataset: PhotoDataset, maps: PhotoMaps) -> None:
        self.maps, self.reader = maps, maps.reader
        arguments = (options.step, options.box_threshold, options.box)
        self.scores = {row: LocalizationMetric(*arguments) for row in options.method}
        self.metrics: dict[str, Metric] = dict(self.scores)
        self.describe = f"Layers: {maps.stages.describe()}\n{maps.protocol}"
        self.settings = made_of(options, maps, dataset) | {"boxes": arguments}

    def maps_of(self, photos: list[Photo]) -> list[Any]:
        with self.maps.scores() as outputs:
            by_row = {row: self.maps.sums(row, photos, [None] * len(photos)) for row in self.scores}
        scores = outputs[0]  # of the scale nearest to 1, the unflipped photos first
        ranks = [int((own > own[photo.sample.targets[0]]).sum()) for own, photo in zip(scores, photos, strict=False)]
        return [({row: found[i][0][0] for row, found in by_row.items()}, rank) for i, rank in enumerate(ranks)]

    def count(self, sample: Sample, found: tuple[dict[str, Tensor], int]) -> None:
        assert sample.boxes is not None
        boxes = squash_boxes(sample.boxes, sample.photo.size)
        cams, rank = found
        for row, cam in cams.items():
            self.scores[row].update(cam, boxes, rank)

    def figures(self) -> Figures:
        return {row: in_percent(computed(score)) for row, score in self.scores.items()}
