"""The background threshold with the highest mIoU."""

from collections.abc import Callable

import torch
from torch import Tensor

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.metrics.segmentation import SegmentationMetric
from captum_regioncam.evaluation.runs.job import Job, run
from captum_regioncam.evaluation.runs.report import computed
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.seeds.reading import SeedItem, SeedReader

__all__ = ["best_threshold"]


def best_threshold(seeds: SeedReader, worker: Worker, show_progress: bool) -> tuple[float, float, dict[str, str]]:
    """Return the threshold with the highest mIoU, that mIoU, and the failures."""
    if seeds.data is None:
        raise ArgumentError(Argument("threshold", "best"), ": requires ", Argument("data"), ", with masks.")
    job = _Count(seeds, len(seeds.data.classes))
    failures = run(job, worker, show_progress=show_progress)
    result = computed(job.score)
    return float(result["best_threshold"]), float(result["best_miou"]), failures


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
        if item.sample is None or item.sample.labels is None:
            raise ValueError("has no mask.")
        self.score.update(result, item.seed.keys, item.sample.labels)
