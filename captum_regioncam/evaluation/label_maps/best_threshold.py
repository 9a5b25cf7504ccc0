"""The background threshold with the highest mIoU, before or after a CRF."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.label_maps.strategy import Labelling
from captum_regioncam.evaluation.metrics.label_maps import LabelMapMetric
from captum_regioncam.evaluation.metrics.segmentation import SegmentationMetric
from captum_regioncam.evaluation.runs.job import Job, run
from captum_regioncam.evaluation.runs.report import computed
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.seeds.reading import SeedItem, SeedReader

__all__ = ["Best", "best_after", "best_threshold"]

_log = logging.getLogger(__name__)
_STEPS = (0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Best:
    """The best threshold.

    Attributes:
        threshold: the threshold, in [0, 1].
        miou: the mIoU at this threshold, in [0, 1].
        failures: {name: reason} of the seeds that do not count.
        curve: {threshold: mIoU} of the thresholds that were tried after a CRF.
    """

    threshold: float
    miou: float
    failures: dict[str, str]
    curve: dict[float, float] | None = None


def best_threshold(seeds: SeedReader, worker: Worker, show_progress: bool) -> Best:
    """Return the best of the thresholds 0, 0.01, ... 1 for the maps without a CRF, from one pass over the seeds.

    Raises:
        ArgumentError: there is no ground truth.
        ValueError: all seeds failed.
    """
    if seeds.data is None:
        raise ArgumentError(Argument("threshold", "best"), ": requires ", Argument("data"), ", with masks.")
    job = _Count(seeds, len(seeds.data.classes))
    job.score.process_group = worker.group
    failures = run(job, worker, show_progress=show_progress)
    result = computed(job.score)
    return Best(float(result["best_threshold"]), float(result["best_miou"]), failures)


def best_after(at: Callable[[float], Labelling], seeds: SeedReader, worker: Worker, show_progress: bool) -> Best:
    """Return the best threshold for the label maps of a strategy, such as a CRF.

    Each threshold costs a CRF of each photo. The search therefore climbs from the best threshold without a CRF, in
    steps of 0.05, 0.02 and 0.01, until neither neighbour is better. If the mIoU has a single peak, the search finds it.

    Args:
        at: returns the strategy at a threshold.
        seeds: the seeds, with ground truth.
        worker: the process whose share is done.
        show_progress: show a progress bar for each round.

    Raises:
        ArgumentError: there is no ground truth.
        ValueError: all seeds failed.
    """
    before = best_threshold(seeds, worker, show_progress)
    best, curve, failures = before.threshold, dict[float, float](), before.failures
    for step in _STEPS:
        while tried := [t for t in _around(best, step) if t not in curve]:
            job = _CountLabels(seeds, {t: at(t) for t in tried}, worker)
            failures = failures | run(job, worker, show_progress=show_progress)
            curve |= job.mious()
            best = max(sorted(curve), key=curve.__getitem__)  # if several are best, the lowest
            if worker.is_first:
                found = ", ".join(f"{100 * curve[t]:.2f} at {t:g}" for t in tried)
                _log.info("mIoU after the CRF: %s", found)
    return Best(best, curve[best], failures, dict(sorted(curve.items())))


def _around(threshold: float, step: float) -> list[float]:
    near = (round(threshold + distance, 4) for distance in (-step, 0, step))
    return [one for one in near if 0 <= one <= 1]


class _Count(Job[SeedItem, Tensor]):
    """Counts seeds at all thresholds."""

    def __init__(self, seeds: SeedReader, classes: int) -> None:
        self.names, self._seeds = seeds.names, seeds
        self.score = SegmentationMetric(classes)

    def reader(self) -> Callable[[int], SeedItem]:
        return self._seeds

    def compute(self, items: list[SeedItem]) -> list[Tensor]:
        return [torch.from_numpy(read.seed.high_res) for read in items]

    def keep(self, number: int, item: SeedItem, result: Tensor) -> None:
        self.score.update(result, item.seed.keys, _mask(item))


class _CountLabels(Job[SeedItem, list[npt.NDArray[np.uint8]]]):
    """Counts the label maps of seeds, made in several ways."""

    def __init__(self, seeds: SeedReader, ways: dict[float, Labelling], worker: Worker) -> None:
        self.names, self._seeds, self._ways = seeds.names, seeds, ways
        classes = len(seeds.data.classes) if seeds.data else 0
        self._scores = {threshold: LabelMapMetric(classes, process_group=worker.group) for threshold in ways}

    def mious(self) -> dict[float, float]:
        """Return the mIoU of each way; every worker takes part in the sums."""
        return {threshold: float(computed(score)["miou"].nan_to_num(0)) for threshold, score in self._scores.items()}

    def reader(self) -> Callable[[int], SeedItem]:
        return self._seeds

    def compute(self, items: list[SeedItem]) -> Sequence[list[npt.NDArray[np.uint8]]]:
        return [
            [way.labels_of(read.seed, read.sample.photo if read.sample else None) for way in self._ways.values()]
            for read in items
        ]

    def keep(self, number: int, item: SeedItem, result: list[npt.NDArray[np.uint8]]) -> None:
        mask = _mask(item)
        for score, labels in zip(self._scores.values(), result, strict=True):
            score.update(labels, mask)


def _mask(item: SeedItem) -> npt.NDArray[np.uint8]:
    if item.sample is None or item.sample.labels is None:
        raise ValueError("has no mask.")
    return item.sample.labels
