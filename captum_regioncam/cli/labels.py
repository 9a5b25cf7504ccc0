"""``captum-regioncam labels``: label maps from finished seeds, at any threshold, with or without dense CRF."""

import argparse
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from captum_regioncam.cli.data import open_dataset
from captum_regioncam.cli.network import report_failures
from captum_regioncam.errors import UsageError
from captum_regioncam.evaluation import (
    PhotoDataset,
    Sample,
    Seed,
    SegmentationScore,
    label_map,
    load_seed,
    save_label_map,
    save_overlay,
)
from captum_regioncam.evaluation.crf import confident_labels, crf_labels, crf_scores, import_crf
from captum_regioncam.evaluation.report import computed
from captum_regioncam.evaluation.result_folder import ResultFolder, recorded
from captum_regioncam.evaluation.runner import Worker, finished, visit, workers
from captum_regioncam.evaluation.seed_files import save_arrays

__all__ = ["NEED_DATASET", "LabelMaps", "run"]

NEED_DATASET = ("psa", "wsol")
"""Seed formats that do not always hold the photo's size or class."""


def run(options: argparse.Namespace) -> int:
    """Write label maps; return the exit status."""
    _check(options)
    names = sorted(
        path.relative_to(options.seeds).as_posix()[: -len(".npy")] for path in options.seeds.rglob("[!.]*.npy")
    )[: options.limit]
    if not names:
        raise UsageError(f"{options.seeds}: has no seeds (NAME.npy).")
    with workers() as worker:
        dataset = worker.together(lambda: _dataset(options))
        threshold, best = options.threshold, ""
        if threshold is None:
            threshold, miou = _best_threshold(options.seeds, names, dataset, worker)
            best = f" (the best: mIoU {100 * miou:.2f})"
        labels = LabelMaps(
            options.seeds,
            options.output,
            threshold=threshold,
            dataset=dataset,
            overlay=options.overlay,
            crf=options.crf,
            confident=options.confident,
            alphas=options.alpha,
        )
        failures = labels.write(names, worker, resume=options.resume)
    if worker.rank == 0:
        at = f" at {threshold:g}{best}" if labels.at_threshold else ""
        print(f"{len(names) - len(failures)} label maps{at} in {options.output}")
        report_failures(failures, len(names), "seeds failed")
    return int(bool(failures))


def _check(options: argparse.Namespace) -> None:
    """Check that the options go together, before anything is read."""
    if not options.seeds.is_dir():
        raise UsageError(f"{options.seeds}: no such folder of seeds.")
    for option, path in (("--output", options.output), ("--overlay", options.overlay)):
        if path and path.resolve() == options.seeds.resolve():
            raise UsageError(f"{option} {path}: is the folder of the seeds; choose another.")
    if options.overlay and options.overlay.resolve() == options.output.resolve():
        raise UsageError(f"--overlay {options.overlay}: is the folder of --output; choose another.")
    inside = options.output.resolve().is_relative_to(options.seeds.resolve())
    if options.crf == "psa" and inside:
        raise UsageError(f"--output {options.output}: is inside the folder of the seeds; choose another.")
    if options.confident and options.crf != "irn":
        raise UsageError("--confident: requires --crf irn.")
    if options.given(options, ["alpha"]) and options.crf != "psa":
        raise UsageError("--alpha: requires --crf psa.")
    if options.given(options, ["threshold"]) and (options.confident or options.crf == "psa"):
        other = "--confident" if options.confident else "--crf psa"
        raise UsageError(f"--threshold: cannot be used with {other}, which does not cut the maps there.")
    if options.split and options.dataset == "folder":
        raise UsageError("--split: --dataset folder has no splits.")
    if options.dataset and not options.root:
        raise UsageError("--dataset: requires --root.")
    if options.crf == "psa" and options.overlay:
        raise UsageError("--overlay: cannot be used with --crf psa, which writes scores and no label maps.")
    if options.crf:
        try:
            import_crf()
        except ImportError as error:
            raise UsageError(f"--crf: {error}") from error


def _dataset(options: argparse.Namespace) -> PhotoDataset | None:
    """Open the data set that the options name, or that the seeds were made from, if it is needed."""
    settings = recorded(options.seeds) or {}
    name, root = options.dataset or settings.get("dataset"), options.root or settings.get("root")
    truth = options.threshold is None
    wanted = truth or options.overlay or options.crf or options.root
    if not wanted and settings.get("format") not in NEED_DATASET:
        return None
    if not name or not root:
        raise UsageError(
            f"{options.seeds}: has no settings.json that names the photos of the seeds; give --dataset and --root."
        )
    split = options.split or (settings.get("split") if name == settings.get("dataset") else None)
    return open_dataset(name, root, split, settings.get("labels"), ground_truth=truth)


@dataclass(frozen=True)
class _Read:
    """A seed, and its sample if that was asked for."""

    seed: Seed
    sample: Sample | None


@dataclass(frozen=True)
class _SeedReader:
    folder: Path
    names: Sequence[str]
    dataset: PhotoDataset | None

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.dataset.names)} if self.dataset else {}

    def __call__(self, number: int) -> _Read:
        name = self.names[number]
        sample = None
        if self.dataset:
            if name not in self._numbers:
                raise ValueError(f"{name}: is not in the data set.")
            sample = self.dataset[self._numbers[name]]
        seed = load_seed(self.folder / f"{name}.npy", sample.keys or None if sample else None)
        size = (sample.photo.height, sample.photo.width) if sample else seed.high_res.shape[1:]
        if not len(seed.keys):
            if size == (1, 1):
                raise ValueError(f"{name}: has no classes and therefore no size; give --dataset and --root.")
            seed = Seed(seed.keys, seed.cam, np.zeros((0, *size), dtype=np.float32))
        if seed.high_res.shape[1:] != size:
            raise ValueError(
                f"{name}: its maps are {seed.high_res.shape[1:]}, its photo is {size} (height, width). Give the "
                "--dataset and --root that the seeds were made from."
            )
        return _Read(seed, sample)


def _best_threshold(
    folder: Path, names: Sequence[str], dataset: PhotoDataset | None, worker: Worker
) -> tuple[float, float]:
    """Return the threshold with the highest mIoU, and that mIoU."""
    assert dataset is not None
    score = SegmentationScore(len(dataset.classes))

    def keep(number: int, read: _Read, maps: torch.Tensor) -> None:
        assert read.sample is not None
        score.update(maps, read.seed.keys, read.sample.labels)  # type: ignore[arg-type]

    def compute(reads: list[_Read]) -> list[torch.Tensor]:
        return [torch.from_numpy(read.seed.high_res) for read in reads]

    failures = visit(names, worker, _SeedReader(folder, names, dataset), compute, keep)
    if worker.rank == 0:
        report_failures(failures, len(names), "seeds failed and do not count towards the threshold")
    result = computed(score)
    return float(result["best_threshold"]), float(result["best_miou"])


@dataclass(frozen=True)
class LabelMaps:
    """Label maps to write.

    Attributes:
        seeds: the folder of seeds.
        output: where NAME.png goes, or with ``crf="psa"`` alpha-A/NAME.npy.
        threshold: the background threshold.
        dataset: the photos, for overlays and CRF.
        overlay: where pictures over the photo go.
        crf: "irn", "psa" or None.
        confident: background and foreground thresholds of IRN's training labels, instead of ``threshold``.
        alphas: PSA's powers of the background.
        option: the name of ``output`` in errors.
    """

    seeds: Path
    output: Path
    threshold: float
    dataset: PhotoDataset | None = None
    overlay: Path | None = None
    crf: str | None = None
    confident: Sequence[float] | None = None
    alphas: Sequence[float] = ()
    option: str = "--output"

    @property
    def at_threshold(self) -> bool:
        """Whether the threshold is used."""
        return self.crf != "psa" and not self.confident

    def write(self, names: Sequence[str], worker: Worker, *, resume: bool) -> dict[str, str]:
        """Write the label maps of seeds, and return the failures. Results of another run are made again.

        Raises:
            UsageError: a folder is in use, or has pictures that this command did not write.
        """
        settings = self._settings()
        folders = [ResultFolder(self.option, self.output, "*.npy" if self.crf == "psa" else "*.png", settings)]
        if self.overlay:
            folders.append(ResultFolder("--overlay", self.overlay, "*.png", settings))

        def prepare(folder: ResultFolder) -> Callable[[], None]:
            def start() -> None:
                before = folder.before()
                if before is not None and before != folder.settings:  # none of them may pass for a result of this run
                    for path in list(folder.results()):
                        path.unlink()
                elif before is not None and not resume:
                    for path in (path for name in names for path in self._paths(name)):
                        path.unlink(missing_ok=True)

            return start

        def keep(number: int, read: _Read, made: list[Any]) -> None:
            for folder in folders:
                folder.record()
            paths = self._paths(names[number])
            if self.crf == "psa":
                numbers = [0, *(key + 1 for key in read.seed.keys.tolist())]
                for path, scores in zip(paths, made, strict=True):
                    save_arrays(path, dict(zip(numbers, scores, strict=True)))
                return
            output, *overlays = paths
            for path in overlays:
                assert read.sample is not None
                save_overlay(path, read.sample.photo, made[0])
            save_label_map(output, made[0])

        with contextlib.ExitStack() as held:
            for folder in folders:
                held.enter_context(folder.held(worker, prepare(folder)))
            done = finished(names, worker, lambda number: all(map(_is_whole, self._paths(names[number]))))
            reader = _SeedReader(self.seeds, names, self.dataset)
            return visit(names, worker, reader, lambda reads: [self._make(read) for read in reads], keep, done=done)

    def _paths(self, name: str) -> list[Path]:
        if self.crf == "psa":
            return [self.output / f"alpha-{alpha:g}" / f"{name}.npy" for alpha in self.alphas]
        return [folder / f"{name}.png" for folder in (self.output, self.overlay) if folder]

    def _settings(self) -> dict[str, Any]:
        made: dict[str, Any] = {"threshold": self.threshold} if self.at_threshold else {}
        if self.crf:
            made |= {"crf": self.crf, "confident": self.confident}
        if self.crf == "psa":
            made["alphas"] = list(self.alphas)
        made["seeds"] = str(self.seeds.resolve())
        return made | {"made_of": recorded(self.seeds)}

    def _make(self, read: _Read) -> list[Any]:
        keys, high_res = read.seed.keys.numpy(), read.seed.high_res
        if self.crf and len(keys):
            assert read.sample is not None
            photo = read.sample.photo
            if self.crf == "psa":
                return [crf_scores(photo, high_res, alpha) for alpha in self.alphas]
            if self.confident:
                return [confident_labels(photo, high_res, keys, *self.confident)]
            return [crf_labels(photo, high_res, keys, self.threshold)]
        if self.crf == "psa":
            return [np.ones((1, *high_res.shape[1:]), dtype=np.float32) for _ in self.alphas]
        return [label_map(high_res, keys, self.threshold)]


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == ".npy":
            load_seed(path)
        else:
            with Image.open(path) as image:
                image.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True
