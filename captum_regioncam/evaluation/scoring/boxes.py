"""Maps, or seeds, against boxes."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from captum_regioncam.arguments import real
from captum_regioncam.evaluation.datasets.base import PhotoData, Sample
from captum_regioncam.evaluation.metrics.localization import LocalizationMetric, squash_boxes
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.runs.per_photo import Curves, at_threshold, curves_of
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent
from captum_regioncam.evaluation.scoring.job import Counts, MapJob, Maps, Pictures
from captum_regioncam.evaluation.scoring.pictures import box_picture, map_picture
from captum_regioncam.evaluation.scoring.seeds import SeedFolders

__all__ = ["BoxCounts", "BoxJob"]

_CORNERS = ("x0", "y0", "x1", "y1")


class BoxCounts(Counts):
    """How often a box fits. Methods without ranks have no Loc1 and Loc5."""

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
    photo_columns = ("threshold", "gt_known", "iou", *_CORNERS)
    ranking, ranking_title, at = "iou", "IoU (%) of each photo's box", "threshold"

    def __init__(
        self, methods: Iterable[str], step: float, threshold: float | None, box: str, unranked: Collection[str] = ()
    ) -> None:
        self.metrics: dict[str, LocalizationMetric] = {
            method: LocalizationMetric(step, threshold, box) for method in methods
        }
        self._unranked = unranked

    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""
        scores = {method: in_percent(computed(metric)) for method, metric in self.metrics.items()}
        for method in self._unranked:
            del scores[method]["loc1"], scores[method]["loc5"]
        return scores

    def curves(self, cams: Maps, boxes: npt.NDArray[np.int64]) -> dict[str, Curves]:
        """Return the photo's one box, and its IoU, for each method."""
        curves = {}
        for method, cam in cams.items():
            chosen, iou = self.metrics[method].box_at(cam, boxes)
            curves[method] = curves_of(["iou", *_CORNERS], torch.from_numpy(np.column_stack([iou, chosen])))
        return curves

    def photo_scores(self, curves: Curves, scores: Mapping[str, object]) -> dict[str, object]:
        """Return whether a photo's box fits, at the threshold of all photos; its IoU, and its corners on the square."""
        threshold, thresholds = scores["threshold"], scores["thresholds"]
        found = at_threshold(curves, list(thresholds).index(threshold))  # type: ignore[call-overload]  # of floats
        iou = found["iou"]
        corners = {corner: int(found[corner]) for corner in _CORNERS}
        return {"threshold": threshold, "gt_known": int(iou >= 0.5), "iou": round(100 * iou, 4), **corners}


class BoxJob(MapJob[tuple[Maps, int]]):
    """Maps, or seeds, against boxes. A photo's result also holds how many classes score above its own.

    Args:
        data: the photos and their boxes.
        step: the step between thresholds; see :class:`LocalizationMetric`.
        threshold: the threshold for GT-known, Loc1 and Loc5.
        box: which box counts if there are several.
        maps: the methods' maps; None to run no network.
        contrast: the contrast of the method "region-cam".
        seeds: finished seeds, which have no Loc1 and Loc5.
    """

    counts: BoxCounts

    def __init__(
        self,
        data: PhotoData,
        step: float,
        threshold: float | None,
        box: str,
        maps: PhotoMaps | None = None,
        contrast: float = 4.0,
        seeds: SeedFolders | None = None,
    ) -> None:
        super().__init__(data, maps, contrast, seeds)
        self.counts = BoxCounts(self.rows, step, threshold, box, seeds.folders if seeds else ())
        self.settings["boxes"] = [step, threshold, box]

    def compute(self, items: list[Photo]) -> list[tuple[Maps, int]]:
        """Return the maps of each photo, and the rank of its class."""
        if not all(item.sample.keys for item in items):
            raise ValueError("has no class.")
        made = self._made(items) if self._maps else [({}, 0) for _ in items]
        return [
            (maps | self._seeds.class_maps(item.sample), rank) for (maps, rank), item in zip(made, items, strict=True)
        ]

    def _made(self, items: list[Photo]) -> list[tuple[Maps, int]]:
        assert self._maps is not None
        with self._maps.class_scores(items) as scores:
            by_method = {method: self._maps.grid_maps(method, items) for method in self._maps.attributions}
        ranks = [int((own > own[item.sample.targets[0]]).sum()) for own, item in zip(scores[0], items, strict=False)]
        return [({method: found[i][0] for method, found in by_method.items()}, rank) for i, rank in enumerate(ranks)]

    def count(self, sample: Sample, result: tuple[Maps, int]) -> None:
        """Count a photo's maps."""
        boxes, (cams, rank) = _boxes(sample), result
        for method, cam in cams.items():
            self.counts.metrics[method].update(cam, boxes, rank)

    def curves(self, sample: Sample, result: tuple[Maps, int]) -> dict[str, Curves]:
        """Return a photo's box at each threshold."""
        return self.counts.curves(result[0], _boxes(sample))

    def pictures(
        self,
        sample: Sample,
        result: tuple[Maps, int],
        scores: Mapping[str, Mapping[str, object]],
        of_photo: Mapping[str, Mapping[str, object]],
    ) -> tuple[Pictures, dict[str, Pictures]]:
        """Draw a photo, and its boxes on it; and each method's map, and its one box beside the true ones."""
        side = next(iter(self.counts.metrics.values())).side
        true = [([value / side for value in box], "#00c853") for box in _boxes(sample).tolist()]
        drawn = {}
        for method, cam in result[0].items():
            corners = [real(of_photo[method][corner]) / side for corner in _CORNERS]
            drawn[method] = {
                "map": map_picture(sample.photo, cam[None]),
                "box": box_picture(sample.photo, [*true, (corners, "#ff1744")]),
            }
        return {"photo": sample.photo, "truth": box_picture(sample.photo, true)}, drawn


def _boxes(sample: Sample) -> npt.NDArray[np.int64]:
    if sample.boxes is None:
        raise ValueError("has no boxes.")
    return squash_boxes(sample.boxes, sample.photo.size)
