"""Maps against masks on a square: PxAP, as in wsolevaluation."""

from collections.abc import Iterable

import numpy as np
import torch

from captum_regioncam.evaluation.datasets.base import PhotoData, Sample
from captum_regioncam.evaluation.metrics.pixels import PixelCurves
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent
from captum_regioncam.evaluation.score_maps import score_map
from captum_regioncam.evaluation.scoring.job import Counts, MapJob, Maps

__all__ = ["PixelJob"]


class PixelCounts(Counts):
    """How well a map's values tell the object's pixels from the others."""

    title = "Pixels on 224 x 224 (%), pooled over all photos"
    columns = {"pxap": "PxAP", "piou": "peak IoU", "best_threshold": "at"}  # noqa: RUF012
    axis = "IoU of the pixels (%)"

    def __init__(self, methods: Iterable[str]) -> None:
        self.metrics: dict[str, PixelCurves] = {method: PixelCurves() for method in methods}

    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""
        return {method: in_percent(computed(metric)) for method, metric in self.metrics.items()}


class PixelJob(MapJob[Maps]):
    """Maps against the masks of photos of one class each."""

    def __init__(self, data: PhotoData, maps: PhotoMaps, contrast: float) -> None:
        super().__init__(data, maps, contrast)
        self.counts: PixelCounts = PixelCounts(maps.attributions)

    def compute(self, items: list[Photo]) -> list[Maps]:
        """Return each photo's maps, on their own grids."""
        if not items[0].inputs:
            raise ValueError("has no class.")
        grids: list[None] = [None] * len(items)
        by_method = {method: self._maps.sums(method, items, grids) for method in self._maps.attributions}
        return [
            {method: self._maps.refined(found[i][0], item.sample)[0] for method, found in by_method.items()}
            for i, item in enumerate(items)
        ]

    def count(self, sample: Sample, result: Maps) -> None:
        """Count a photo's maps, resized (cubic) to the square of its mask."""
        if sample.labels is None:
            raise ValueError("has no mask.")
        mask = np.where(sample.labels == 255, 255, sample.labels == sample.keys[0] + 1)
        for method, cam in result.items():
            self.counts.metrics[method].update(torch.from_numpy(score_map(cam)), mask)
