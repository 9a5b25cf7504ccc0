"""Maps against boxes."""

from collections.abc import Iterable

from captum_regioncam.evaluation.datasets.base import PhotoData, Sample
from captum_regioncam.evaluation.metrics.localization import LocalizationMetric, squash_boxes
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent
from captum_regioncam.evaluation.scoring.job import Counts, MapJob, Maps

__all__ = ["BoxJob"]


class BoxCounts(Counts):
    """How often a box fits."""

    title = "Localisation (%), one box per photo at IoU 0.5"
    columns = {  # noqa: RUF012
        "max_box_acc": "MaxBoxAcc",
        "max_box_acc_v2": "MaxBoxAccV2",
        "gt_known": "GT-known",
        "loc1": "Loc1",
        "loc5": "Loc5",
        "threshold": "at",
    }
    axis = "GT-known (%)"

    def __init__(self, methods: Iterable[str], step: float, threshold: float | None, box: str) -> None:
        self.metrics: dict[str, LocalizationMetric] = {
            method: LocalizationMetric(step, threshold, box) for method in methods
        }

    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""
        return {method: in_percent(computed(metric)) for method, metric in self.metrics.items()}


class BoxJob(MapJob[tuple[Maps, int]]):
    """Maps against boxes. A photo's result also holds how many classes score above its own.

    Args:
        data: the photos and their boxes.
        maps: of the methods.
        contrast: of the method "region-cam".
        step: see :class:`LocalizationMetric`, as for the others.
        threshold: for GT-known, Loc1 and Loc5.
        box: which box of several counts.
    """

    def __init__(
        self,
        data: PhotoData,
        maps: PhotoMaps,
        contrast: float,
        step: float,
        threshold: float | None,
        box: str,
    ) -> None:
        super().__init__(data, maps, contrast)
        self.counts: BoxCounts = BoxCounts(maps.attributions, step, threshold, box)
        self.settings["boxes"] = [step, threshold, box]

    def compute(self, items: list[Photo]) -> list[tuple[Maps, int]]:
        """Return the maps of each photo, and the rank of its class."""
        if not items[0].inputs:
            raise ValueError("has no class.")
        with self._maps.class_scores(items) as scores:
            by_method = {method: self._maps.grid_maps(method, items) for method in self._maps.attributions}
        ranks = [int((own > own[item.sample.targets[0]]).sum()) for own, item in zip(scores[0], items, strict=False)]
        return [({method: found[i][0] for method, found in by_method.items()}, rank) for i, rank in enumerate(ranks)]

    def count(self, sample: Sample, result: tuple[Maps, int]) -> None:
        """Count a photo's maps."""
        if sample.boxes is None:
            raise ValueError("has no boxes.")
        boxes = squash_boxes(sample.boxes, sample.photo.size)
        cams, rank = result
        for method, cam in cams.items():
            self.counts.metrics[method].update(cam, boxes, rank)
