"""``captum-regioncam labels``: label maps from finished seeds, at any threshold, with or without dense CRF."""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_regioncam.cli.data import open_dataset, origin
from captum_regioncam.cli.network import report_failures
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation import (
    PhotoDataset,
    Sample,
    Seed,
    SegmentationMetric,
    label_map,
    load_seed,
)
from captum_regioncam.evaluation.label_maps.crf import confident_labels, crf_labels, crf_scores, import_crf
from captum_regioncam.evaluation.label_maps.threshold import encode_label_map, encode_overlay
from captum_regioncam.evaluation.runs.folder import ResultFolder, Results, held, recorded
from captum_regioncam.evaluation.runs.record import RECORD
from captum_regioncam.evaluation.runs.report import computed
from captum_regioncam.evaluation.runs.workers import Worker, visit, workers
from captum_regioncam.evaluation.seeds.files import encode_arrays

__all__ = ["NEED_DATASET", "LabelMaps", "run"]

NEED_DATASET = ("psa", "wsol")
"""Seed formats that do not always hold the photo's size or class."""


def run(options: argparse.Namespace) -> int:
    """Write label maps; return the exit status."""
    _check(options)
    names = sorted(_seeds_in(options.seeds))[: options.limit]
    if not names:
        inside = sorted(path.parent.name for path in options.seeds.glob(f"*/{RECORD}"))
        others = f" Seeds may be in {', '.join(inside)}, which have records of their own." if inside else ""
        raise UsageError(f"{options.seeds}: has no seeds (NAME.npy).{others}")
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
        session = origin(options, made_of=recorded(options.seeds))
        failures = labels.write(names, worker, session, resume=options.resume)
    if worker.rank == 0:
        at = f" at {threshold:g}{best}" if labels.at_threshold else ""
        say(f"{len(names) - len(failures)} label maps{at} in {options.output}")
        report_failures(failures, len(names), "seeds failed")
    return int(bool(failures))


def _seeds_in(folder: Path) -> Iterator[str]:
    """Yield the names of the seeds in and below a folder, but not of what another run wrote into a folder inside it."""
    for home, inside, files in os.walk(folder, onerror=_cannot_be_read):
        inside[:] = [name for name in inside if not os.path.lexists(Path(home, name, RECORD))]
        for file in files:
            if file.endswith(".npy") and not file.startswith("."):
                yield Path(home, file).relative_to(folder).as_posix().removesuffix(".npy")


def _cannot_be_read(error: OSError) -> None:
    say(f"{error.filename}: cannot be read ({error.strerror}); the seeds in it are left out.", error=True)


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
            f"{options.seeds}: has no record that names the photos of the seeds; give --dataset and --root."
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
        if self.dataset and (seed.keys >= len(self.dataset.classes)).any():
            last = len(self.dataset.classes) - 1
            raise ValueError(f"{name}: has class {int(seed.keys.max())}, but the data set's are 0 to {last}.")
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
    score = SegmentationMetric(len(dataset.classes))

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

    def check(self, names: Sequence[str], *, resume: bool) -> None:
        """Check that the label maps can be written. Nothing is changed or left behind.

        Raises:
            UsageError: a folder has files of these names that this command did not write.
            OutputError: a folder cannot be written to.
        """
        for folder in self._folders(names):
            folder.check(resume=resume)

    def write(self, names: Sequence[str], worker: Worker, session: dict[str, Any], *, resume: bool) -> dict[str, str]:
        """Write the label maps of seeds, and return the failures. Results of another run of this are made again.

        Raises:
            UsageError, OutputError: as in ``check``, or a folder is in use.
        """
        places = [self._places(name) for name in names]
        folders = self._folders(names)
        with held(folders, worker, session, resume=resume) as found:
            results = {folder.path: of_folder for folder, of_folder in zip(folders, found, strict=True)}

            def keep(number: int, read: _Read, contents: list[bytes]) -> None:
                for (path, file), content in zip(places[number], contents, strict=True):
                    if not self._is_done(names[number], path, file, results[path]):
                        results[path].write(file, content)

            left = {
                name: results[path].changed[file]
                for name, of_seed in zip(names, places, strict=True)
                for path, file in of_seed
                if file in results[path].changed
            }
            done = [
                number
                for number, (name, of_seed) in enumerate(zip(names, places, strict=True))
                if name in left or all(self._is_done(name, path, file, results[path]) for path, file in of_seed)
            ]
            reader = _SeedReader(self.seeds, names, self.dataset)
            failures = visit(names, worker, reader, lambda reads: [self._make(read) for read in reads], keep, done=done)
            return left | failures

    def _folders(self, names: Sequence[str]) -> list[ResultFolder]:
        inside = self.output.resolve().is_relative_to(self.seeds.resolve())
        inputs = {(self.seeds / f"{name}.npy").resolve() for name in names} if inside else set()
        settings = self._settings()
        return [
            ResultFolder(
                option,
                path,
                "labels",
                settings,
                [file for name in names for home, file in self._places(name) if home == path],
                replaces=True,
                inputs=inputs,
                per_photo=len(self.alphas) if self.crf == "psa" else 1,
            )
            for option, path in ((self.option, self.output), ("--overlay", self.overlay))
            if path
        ]

    def _is_done(self, name: str, folder: Path, file: str, results: Results) -> bool:
        """Return whether a result is there, and no older than its seed, if it may be made again."""
        if file not in results.done:
            return False
        if file not in results.writer.stamps:
            return True
        return (self.seeds / f"{name}.npy").stat().st_mtime_ns <= (folder / file).stat().st_mtime_ns

    def _places(self, name: str) -> list[tuple[Path, str]]:
        """Return where a seed's results go: folders, and names in them."""
        if self.crf == "psa":
            return [(self.output, f"alpha-{alpha:g}/{name}.npy") for alpha in self.alphas]
        return [(folder, f"{name}.png") for folder in (self.output, self.overlay) if folder]

    def _settings(self) -> dict[str, Any]:
        made: dict[str, Any] = {"threshold": self.threshold} if self.at_threshold else {}
        if self.crf:
            made |= {"crf": self.crf, "confident": self.confident}
        if self.crf == "psa":
            made["alphas"] = list(self.alphas)
        made["seeds"] = str(self.seeds.resolve())
        return made | {"made_of": recorded(self.seeds)}

    def _make(self, read: _Read) -> list[bytes]:
        """Return the contents of a seed's results, in the order of their places."""
        keys, high_res = read.seed.keys.numpy(), read.seed.high_res
        photo = read.sample.photo if read.sample else None
        if self.crf == "psa":
            assert photo is not None
            nothing = np.ones((1, *high_res.shape[1:]), dtype=np.float32)
            scores = [crf_scores(photo, high_res, alpha) if len(keys) else nothing for alpha in self.alphas]
            return [encode_arrays(dict(zip([0, *(keys + 1).tolist()], one, strict=True))) for one in scores]
        if not self.crf or not len(keys):
            labels = label_map(high_res, keys, self.threshold)
        elif self.confident:
            assert photo is not None
            labels = confident_labels(photo, high_res, keys, *self.confident)
        else:
            assert photo is not None
            labels = crf_labels(photo, high_res, keys, self.threshold)
        contents = [encode_label_map(labels)]
        if self.overlay:
            assert photo is not None
            contents.append(encode_overlay(photo, labels))
        return contents
