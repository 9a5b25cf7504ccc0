"""Maps, or seeds, against masks on a square: PxAP, as in wsolevaluation."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from captum_regioncam.arguments import real
from captum_regioncam.evaluation.datasets.base import PhotoData, Sample
from captum_regioncam.evaluation.label_maps.pictures import label_picture
from captum_regioncam.evaluation.metrics.pixels import PixelCurves
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.runs.per_photo import Curves, at_threshold, curves_of
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent
from captum_regioncam.evaluation.score_maps import score_map
from captum_regioncam.evaluation.scoring.job import Counts, MapJob, Maps, Pictures
from captum_regioncam.evaluation.scoring.masks import mask_of
from captum_regioncam.evaluation.scoring.pictures import map_picture
from captum_regioncam.evaluation.scoring.seeds import SeedFolders

__all__ = ["PixelJob"]


class PixelCounts(Counts):
    """How well the values of maps tell the objects' pixels from the others."""

    title = "Pixels on 224 x 224 (%), pooled over all photos"
    columns = {"pxap": "PxAP", "piou": "peak IoU", "best_threshold": "at"}  # noqa: RUF012
    axis = "IoU of the pixels (%)"
    photo_columns = ("threshold", "pxap", "iou")
    ranking, ranking_title, at = "iou", "IoU (%) of each photo, at the best threshold for all", "best_threshold"

    def __init__(self, methods: Iterable[str]) -> None:
        self.metrics: dict[str, PixelCurves] = {method: PixelCurves() for method in methods}

    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""
        return {method: in_percent(computed(metric)) for method, metric in self.metrics.items()}

    def photo_scores(self, curves: Curves, scores: Mapping[str, object]) -> dict[str, object]:
        """Return a photo's PxAP, and the IoU of its pixels at the best threshold of all photos."""
        threshold, thresholds = scores["best_threshold"], scores["thresholds"]
        found = at_threshold(curves, list(thresholds).index(threshold))  # type: ignore[call-overload]  # of floats
        return {"threshold": threshold, **{name: round(100 * value, 4) for name, value in found.items()}}


class PixelJob(MapJob[Maps]):
    """Maps, or seeds, against the masks of photos of one class each.

    Args:
        data: the photos and their masks.
        maps: the methods' maps; None to run no network.
        contrast: the contrast of the method "region-cam".
        seeds: finished seeds.
    """

    counts: PixelCounts

    def __init__(
        self, data: PhotoData, maps: PhotoMaps | None = None, contrast: float = 4.0, seeds: SeedFolders | None = None
    ) -> None:
        super().__init__(data, maps, contrast, seeds)
        self.counts = PixelCounts(self.rows)

    def compute(self, items: list[Photo]) -> list[Maps]:
        """Return each photo's maps, made on their own grids or read."""
        if not all(item.sample.keys for item in items):
            raise ValueError("has no class.")
        maps = self._maps
        made = {method: maps.grid_maps(method, items) for method in maps.attributions} if maps else {}
        return [
            {method: found[index][0] for method, found in made.items()} | self._seeds.class_maps(item.sample)
            for index, item in enumerate(items)
        ]

    def count(self, sample: Sample, result: Maps) -> None:
        """Count a photo's maps, resized (cubic) to the square of its mask."""
        mask = _object_of(sample)
        for method, cam in result.items():
            self.counts.metrics[method].update(torch.from_numpy(score_map(cam)), mask)

    def curves(self, sample: Sample, result: Maps) -> dict[str, Curves]:
        """Return a photo's PxAP, and its IoU at each threshold."""
        curves = {}
        for method, cam in result.items():
            alone = PixelCurves()
            alone.update(torch.from_numpy(score_map(cam)), _object_of(sample))
            found = computed(alone)
            iou = found["curve"]
            curves[method] = curves_of(["pxap", "iou"], torch.stack([found["pxap"].expand_as(iou), iou], 1))
        return curves

    def pictures(
        self,
        sample: Sample,
        result: Maps,
        scores: Mapping[str, Mapping[str, object]],
        of_photo: Mapping[str, Mapping[str, object]],
    ) -> tuple[Pictures, dict[str, Pictures]]:
        """Draw a photo and its mask; and each method's map, and its pixels at the best threshold."""
        drawn = {}
        for method, cam in result.items():
            values, threshold = score_map(cam), real(scores[method]["best_threshold"])
            drawn[method] = {
                "map": map_picture(sample.photo, cam[None]),
                "pixels": label_picture((values >= threshold).astype(np.uint8)),
            }
        return {"photo": sample.photo, "truth": label_picture(_object_of(sample))}, drawn


def _object_of(sample: Sample) -> npt.NDArray[np.uint8]:
    """Return the mask of a photo's class: 1 inside, 255 where pixels do not count."""
    labels = mask_of(sample)
    return np.where(labels == 255, 255, labels == sample.keys[0] + 1).astype(np.uint8)
