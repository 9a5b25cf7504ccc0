"""Maps against boxes."""

from collections.abc import Callable, Mapping

from captum_regioncam.arguments import real
from captum_regioncam.evaluation.datasets.base import PhotoData, Sample
from captum_regioncam.evaluation.metrics.localization import LocalizationMetric, squash_boxes
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent
from captum_regioncam.evaluation.scoring.job import Maps, ScoreJob

__all__ = ["BoxJob"]


class BoxJob(ScoreJob[tuple[Maps, int]]):
    """Maps against boxes. A photo's result also holds how many classes score above its own.

    Args:
        data: the photos and their boxes.
        maps: of the methods.
        contrast: of the method "region-cam".
        step: see :class:`LocalizationMetric`, as for the others.
        threshold: for GT-known, Loc1 and Loc5.
        box: which box of several counts.
    """

    title = "Localisation (%), one box per photo at IoU 0.5"
    columns: Mapping[str, str] = {
        "max_box_acc": "MaxBoxAcc",
        "max_box_acc_v2": "MaxBoxAccV2",
        "gt_known": "GT-known",
        "loc1": "Loc1",
        "loc5": "Loc5",
        "threshold": "at",
    }
    axis = "GT-known (%)"

    def __init__(
        self,
        data: PhotoData,
        maps: PhotoMaps,
        contrast: float,
        step: float,
        threshold: float | None,
        box: str,
    ) -> None:
        self.names, self.batch = data.names, maps.protocol.batch
        self._data, self._maps = data, maps
        self._scores = {method: LocalizationMetric(step, threshold, box) for method in maps.attributions}
        self.metrics, self.description = dict(self._scores), maps.description
        self.settings, self.origin = maps.settings(data) | {"boxes": [step, threshold, box]}, maps.origin(data)
        self.settings |= {"method": list(maps.attributions), "contrast": real(contrast)}

    def reader(self) -> Callable[[int], Photo]:
        """Return a reader of the photos."""
        return self._maps.reader(self._data)

    def compute(self, items: list[Photo]) -> list[tuple[Maps, int]]:
        """Return the maps of each photo, and the rank of its class."""
        if not items[0].inputs:
            raise ValueError("has no class.")
        nowhere: list[None] = [None] * len(items)
        with self._maps.class_scores(items) as scores:
            by_method = {method: self._maps.sums(method, items, nowhere) for method in self._maps.attributions}
        ranks = [int((own > own[item.sample.targets[0]]).sum()) for own, item in zip(scores[0], items, strict=False)]
        return [({method: found[i][0][0] for method, found in by_method.items()}, rank) for i, rank in enumerate(ranks)]

    def count(self, sample: Sample, result: tuple[Maps, int]) -> None:
        """Count a photo's maps."""
        if sample.boxes is None:
            raise ValueError("has no boxes.")
        boxes = squash_boxes(sample.boxes, sample.photo.size)
        cams, rank = result
        for method, cam in cams.items():
            self._scores[method].update(cam, boxes, rank)

    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""
        return {method: in_percent(computed(score)) for method, score in self._scores.items()}
