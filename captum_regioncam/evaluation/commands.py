"""What ``captum-regioncam seeds`` and ``captum-regioncam evaluate`` do."""

import argparse
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from captum_regioncam.arguments import classifier_of, layers_named, report_failures, stages_of, usable_device
from captum_regioncam.classifiers import Classifier, UsageError
from captum_regioncam.evaluation.datasets import Coco, Ilsvrc2012, PhotoDataset, PhotoFolder, Sample, Voc2012
from captum_regioncam.evaluation.label_maps import label_map, save_label_map
from captum_regioncam.evaluation.localization import LocalizationScore, PixelAveragePrecision, squash_boxes
from captum_regioncam.evaluation.multiscale import multiscale_maps, normalize
from captum_regioncam.evaluation.report import (
    Figures,
    computed,
    in_percent,
    print_table,
    write_figures,
)
from captum_regioncam.evaluation.runner import run_folder, visit, workers
from captum_regioncam.evaluation.seed_files import Seed, load_seed, save_seed, seed_grid
from captum_regioncam.evaluation.segmentation import SegmentationScore
from captum_regioncam.methods import METHODS, TITLES, Attribute
from captum_regioncam.stages import Stages

__all__ = ["evaluate", "seeds"]

_SPLITS = {"voc": "train", "coco": "val2014"}


def seeds(options: argparse.Namespace) -> int:
    """Write seed files; return the exit status."""
    recorded = ["dataset", "split", "labels", "model", "weights", "layers", "size", "mean", "std", "resize"]
    recorded += ["method", "contrast", "scales", "flip", "normalize", "format"]
    settings = {name: getattr(options, name) for name in recorded} | {"root": str(Path(options.root).resolve())}

    def prepare() -> tuple[PhotoDataset, _Maps]:
        dataset = _dataset(options, ground_truth=False)
        return dataset, _maps(options, dataset)

    with workers() as worker:
        dataset, maps = worker.together(prepare)
        names = dataset.names[: options.limit]

        def outputs(index: int) -> tuple[Path, Path | None]:
            name = names[index]
            return options.output / f"{name}.npy", options.label_maps and options.label_maps / f"{name}.png"

        def save_labels(path: Path, seed: Seed) -> None:
            save_label_map(path, label_map(seed.high_res, seed.keys, options.threshold))

        def done(index: int) -> bool:
            path, labels = outputs(index)
            try:
                seed = load_seed(path)
            except ValueError:
                return False
            if labels:  # perhaps at another threshold than before
                save_labels(labels, seed)
            return True

        def step(index: int) -> None:
            sample = dataset[index]
            maps.prepare(sample.photo)
            height, width = sample.photo.height, sample.photo.width
            summed = maps(sample, options.method, [seed_grid(height, width), (height, width)])
            cam, high_res = (normalize(part, options.normalize) for part in summed)
            seed = Seed(torch.tensor(sample.keys, dtype=torch.long), cam, high_res.numpy())
            path, labels = outputs(index)
            save_seed(path, seed, options.format)
            if labels:
                save_labels(labels, seed)

        with run_folder(options.output, settings, worker, resume=options.resume):
            failures = visit(names, worker, step, done=done if options.resume else None)
    if worker.rank == 0:
        print(f"{len(names) - len(failures)} seeds of {TITLES[options.method]} in {options.output}")
        report_failures(failures, len(names), "photos failed and count for nothing")
    return int(bool(failures))


def evaluate(options: argparse.Namespace) -> int:
    """Score methods; return the exit status."""

    def prepare() -> tuple[PhotoDataset, _Localization | _Segmentation]:
        dataset = _dataset(options, ground_truth=True)
        return dataset, (_Localization if options.dataset == "ilsvrc" else _Segmentation)(options, dataset)

    with workers() as worker:
        dataset, run = worker.together(prepare)
        names = dataset.names[: options.limit]
        failures = visit(names, worker, lambda index: run.add(dataset[index]))
        figures = run.figures()  # every worker takes part in the sums
    if worker.rank == 0:
        report_failures(failures, len(names), "photos failed and count for nothing")
        for row in figures.values():
            row.update(photos=len(names) - len(failures), failed=len(failures))
        print_table(run.title, run.columns, figures)
        write_figures(options, figures, run.axis)
    return int(bool(failures))


@dataclass
class _Maps:
    """The maps of photos, by method; stages are looked for on the first photo."""

    classifier: Classifier
    device: torch.device
    named: list[str] | None
    scales: Sequence[float]
    flip: bool
    contrast: float
    classes: int | None
    """How many outputs the network has to have; None for any number."""

    def __post_init__(self) -> None:
        self.classifier.model.to(self.device)
        self._named = layers_named(self.classifier.model, self.named)
        self._stages: Stages | None = None
        self._attributions: dict[str, Attribute] = {}

    def prepare(self, photo: Image.Image) -> None:
        """Find the stages, and see that the network has an output for each class, once, on the first photo.

        Raises:
            UsageError: it has more or fewer.
        """
        if self._stages is not None:
            return
        x = self.classifier.preprocess(self.classifier.fit(photo)[1]).to(self.device)
        if self.classes is not None:
            self._check_classes(x, self.classes)
        self._stages = stages_of(self.classifier.model, x, self._named)

    def _check_classes(self, x: Tensor, classes: int) -> None:
        with torch.no_grad():
            scores = self.classifier.model(x)
        if scores.dim() != 2 or scores.shape[1] != classes:
            raise UsageError(
                f"--model: gives scores of shape {tuple(scores.shape)}; the data set has {classes} classes, and the "
                "network's outputs have to be these."
            )

    def __call__(self, sample: Sample, method: str, sizes: Sequence[tuple[int, int]] | None = None) -> list[Tensor]:
        """Return a photo's (K, height, width) maps at each of the sizes."""
        if not sample.keys:
            return [torch.zeros(0, *size) for size in sizes or ()]
        photo = sample.photo.crop(self.classifier.seen_box(*sample.photo.size))
        return [
            maps.cpu()
            for maps in multiscale_maps(
                functools.partial(self._attribute, method),
                photo,
                sample.targets,
                self.classifier.preprocess,
                scales=self.scales,
                flip=self.flip,
                input_size=self.classifier.input_size(*sample.photo.size),
                sizes=sizes,
            )
        ]

    def _attribute(self, method: str, x: Tensor, targets: Sequence[int]) -> Tensor:
        x = x.to(self.device)
        assert self._stages is not None, "prepare() comes first"
        if method not in self._attributions:
            self._attributions[method] = METHODS[method](self.classifier.model, self._stages, contrast=self.contrast)
        return self._attributions[method](x, targets)

    @contextmanager
    def scores(self) -> Iterator[list[Tensor]]:
        """Keep what the network returns meanwhile, so that a photo's scores need no pass of their own."""
        outputs: list[Tensor] = []
        handle = self.classifier.model.register_forward_hook(lambda *call: outputs.append(call[-1].detach()))
        try:
            yield outputs
        finally:
            handle.remove()


def _maps(options: argparse.Namespace, dataset: PhotoDataset) -> _Maps:
    classifier, device = classifier_of(options), usable_device(options.device)
    if device.type == "cuda" and device.index is None:  # a launcher may show each process one device, or all of them
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    # A folder's photos say themselves which of the network's outputs is theirs.
    classes = None if options.dataset == "folder" else len(dataset.classes)
    return _Maps(classifier, device, options.layers, options.scales, options.flip, options.contrast, classes)


def _dataset(options: argparse.Namespace, ground_truth: bool) -> PhotoDataset:
    split = options.split or _SPLITS.get(options.dataset, "")
    make: dict[str, Callable[[], PhotoDataset]] = {
        "voc": lambda: Voc2012(options.root, split, options.labels, ground_truth),
        "coco": lambda: Coco(options.root, split, ground_truth),
        "ilsvrc": lambda: Ilsvrc2012(options.root),
        "folder": lambda: PhotoFolder(options.root, ground_truth),
    }
    try:
        return make[options.dataset]()
    except ValueError as error:
        raise UsageError(f"--root: {error}") from error


class _Segmentation:
    """mIoU by method, of maps or of seed files."""

    columns: ClassVar = {"miou": "mIoU", "best_miou": "best mIoU", "best_threshold": "at", "pxap": "PxAP"}
    axis = "mIoU (%)"

    def __init__(self, options: argparse.Namespace, dataset: PhotoDataset) -> None:
        self.seeds, self.normalize = options.seeds, options.normalize
        self.maps = None if options.seeds else _maps(options, dataset)
        self.title = f"mIoU (%) at threshold {options.threshold:g} and at the best"
        rows = [f"seeds in {options.seeds}"] if options.seeds else options.method
        classes = len(dataset.classes)
        self.names = ["background", *dataset.classes]
        self.scores = {row: SegmentationScore(classes, options.threshold) for row in rows}
        self.pixels = {row: PixelAveragePrecision() for row in rows} if classes == 1 else {}

    def add(self, sample: Sample) -> None:
        assert sample.labels is not None
        labels, keys = sample.labels, torch.tensor(sample.keys, dtype=torch.long)
        cams: dict[str, Tensor] = {}
        if self.maps is None:
            seed = load_seed(self.seeds / f"{sample.name}.npy", sample.keys or None)
            keys = seed.keys
            maps = torch.from_numpy(seed.high_res) if len(keys) else torch.zeros(0, *labels.shape)
            cams = dict.fromkeys(self.scores, maps)
        else:
            self.maps.prepare(sample.photo)
            left, upper, right, lower = self.maps.classifier.seen_box(labels.shape[1], labels.shape[0])
            labels = labels[upper:lower, left:right]
            for row in self.scores:
                summed = self.maps(sample, row, [(labels.shape[0], labels.shape[1])])[0]
                cams[row] = normalize(summed, self.normalize)
        if not all(maps.isfinite().all() for maps in cams.values()):
            raise ValueError("the maps are not finite")
        for row, maps in cams.items():  # only now, so that a photo counts for all methods or for none
            self.scores[row].update(maps, keys, labels)
            if self.pixels and len(maps):
                self.pixels[row].update(maps[0], labels)

    def figures(self) -> Figures:
        figures: Figures = {}
        for row, score in self.scores.items():
            result = in_percent(computed(score))
            for name in ("per_class", "best_per_class"):
                result[name] = dict(zip(self.names, result[name], strict=True))
            figures[row] = result
            if self.pixels:
                figures[row]["pxap"] = in_percent({"pxap": computed(self.pixels[row])})["pxap"]
        return figures


class _Localization:
    """Boxes by method."""

    title = "Localisation (%), one box a photo at IoU 0.5"
    columns: ClassVar = {
        "max_box_acc": "MaxBoxAcc",
        "max_box_acc_v2": "MaxBoxAccV2",
        "gt_known": "GT-known",
        "loc1": "Loc1",
        "loc5": "Loc5",
        "threshold": "at",
    }
    axis = "GT-known (%)"

    def __init__(self, options: argparse.Namespace, dataset: PhotoDataset) -> None:
        self.maps = _maps(options, dataset)
        arguments = (options.step, options.box_threshold, options.box)
        self.scores = {row: LocalizationScore(*arguments) for row in options.method}

    def add(self, sample: Sample) -> None:
        assert sample.boxes is not None
        boxes = squash_boxes(sample.boxes, sample.photo.size)
        self.maps.prepare(sample.photo)
        with self.maps.scores() as outputs:
            cams = {row: self.maps(sample, row)[0][0] for row in self.scores}
        scores = outputs[0][0]  # of the scale nearest to 1, unflipped
        rank = int((scores > scores[sample.targets[0]]).sum())
        for row, cam in cams.items():
            self.scores[row].update(cam, boxes, rank)

    def figures(self) -> Figures:
        return {row: in_percent(computed(score)) for row, score in self.scores.items()}
