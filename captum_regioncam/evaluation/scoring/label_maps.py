"""Finished label maps against masks."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from captum_regioncam.evaluation.datasets.base import PhotoData, Sample, index_of, source_of
from captum_regioncam.evaluation.datasets.reading import read_labels
from captum_regioncam.evaluation.label_maps.pictures import label_picture
from captum_regioncam.evaluation.metrics.label_maps import LabelMapMetric
from captum_regioncam.evaluation.photo_maps import Photo
from captum_regioncam.evaluation.runs.per_photo import Curves, at_threshold, curves_of
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent
from captum_regioncam.evaluation.scoring.fingerprint import fingerprint
from captum_regioncam.evaluation.scoring.job import Counts, Pictures, SampleReader, ScoreJob
from captum_regioncam.evaluation.scoring.masks import OF_ABSENT, mask_of

__all__ = ["LabelMapJob"]

_log = logging.getLogger(__name__)
_OF_UNLABELLED = {"missed": ", 255 as missed", "ignored": ", 255 left out"}


class LabelMapCounts(Counts):
    """IoU, precision, recall, FP and FN of label maps."""

    columns = {  # noqa: RUF012
        "miou": "mIoU",
        "pixel_accuracy": "accuracy",
        "precision": "precision",
        "recall": "recall",
        "fp": "FP",
        "fn": "FN",
    }
    axis = "mIoU (%)"
    class_tables = {  # noqa: RUF012
        "per_class": "IoU (%)",
        "per_class_precision": "Precision (%)",
        "per_class_recall": "Recall (%)",
        "per_class_fp": "FP (%)",
        "per_class_fn": "FN (%)",
    }
    ranking, ranking_title = "mean_iou", "Mean IoU (%) of each photo"

    def __init__(self, method: str, classes: Sequence[str], absent: str, unlabelled: str) -> None:
        self.title = f"Scores (%) of label maps{_OF_UNLABELLED.get(unlabelled, '')}{OF_ABSENT.get(absent, '')}"
        self._method, self.names = method, ["background", *classes]
        self.photo_columns = ["mean_iou", *(f"iou {name}" for name in self.names)]
        self._unlabelled = unlabelled
        self._metric = self._new_metric(absent)
        self.metrics = {f"label maps {method}": self._metric}

    def _new_metric(self, absent: str) -> LabelMapMetric:
        return LabelMapMetric(len(self.names) - 1, absent=absent, unlabelled=self._unlabelled)

    def add(self, predicted: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """Count a photo's label map."""
        self._metric.update(predicted, labels)

    def scores(self) -> Figures:
        """Return the scores of all photos."""
        result = computed(self._metric)
        confusion, absent = result.pop("confusion"), int(result.pop("absent"))
        scores = in_percent(result)
        per_class = {name: _by_name(self.names, scores.pop(name)) for name in self.class_tables}
        found, unlabelled = int(confusion[:, 1:-1].sum()), int(confusion[:, -1].sum())
        if absent:
            self.columns = {**self.columns, "absent": "absent"}
        if unlabelled:
            self.columns = {**self.columns, "unlabelled": "255"}
        if unlabelled and not found:
            _log.warning(
                "No pixel of the label maps has a class, but some are 255, which marks pixels without a label. Label "
                "maps hold 0 for the background, and the number of the class, from 1."
            )
        return {self._method: scores | {"absent": absent, **per_class, "confusion": confusion.tolist()}}

    def curves(self, predicted: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> dict[str, Curves]:
        """Return the IoU of each class in the photo. There is no threshold, so the curves have only one point."""
        alone = self._new_metric("ignore")
        alone.update(predicted, labels)
        iou = alone.compute()["per_class"]
        there = (~iou.isnan()).nonzero().flatten().tolist()
        return {self._method: curves_of([self.names[label] for label in there], iou[None, there])}

    def photo_scores(self, curves: Curves, scores: Mapping[str, object]) -> dict[str, object]:
        """Return a photo's IoU of each class, and their mean."""
        iou = {name: 100 * value for name, value in at_threshold(curves, 0).items()}
        mean = round(sum(iou.values()) / len(iou), 4) if iou else None
        return {"mean_iou": mean, **{f"iou {name}": round(value, 4) for name, value in iou.items()}}


class LabelMapJob(ScoreJob[npt.NDArray[np.uint8]]):
    """Label maps against masks.

    Args:
        data: the photos and their masks.
        folder: the folder of NAME.png.
        absent: see :class:`LabelMapMetric`.
        unlabelled: see :class:`LabelMapMetric`.
    """

    def __init__(self, data: PhotoData, folder: Path, absent: str, unlabelled: str) -> None:
        self.names = data.names
        self._data, self._folder, method = data, folder, f"label maps in {folder}"
        self.rows = [method]
        self.counts: LabelMapCounts = LabelMapCounts(method, data.classes, absent, unlabelled)
        self.description = f"Label maps in {folder}"
        source = source_of(data)
        self.origin = {
            "absent": absent, "unlabelled": unlabelled, **{name: source.get(name) for name in ("dataset", "split")},
        }  # fmt: skip
        self.settings = {
            "label_maps": str(folder.resolve()), "unlabelled": unlabelled, **source, "index": index_of(data),
            "files": fingerprint((name, folder / f"{name}.png") for name in data.names),
        }  # fmt: skip

    def reader(self) -> Callable[[int], Photo]:
        """Return a reader of the photos."""
        return SampleReader(self._data)

    def compute(self, items: list[Photo]) -> list[npt.NDArray[np.uint8]]:
        """Read each photo's label map."""
        return [read_labels(self._folder / f"{photo.sample.name}.png", len(self._data.classes)) for photo in items]

    def count(self, sample: Sample, result: npt.NDArray[np.uint8]) -> None:
        """Count a label map."""
        self.counts.add(result, self._mask(sample, result))

    def curves(self, sample: Sample, result: npt.NDArray[np.uint8]) -> dict[str, Curves]:
        """Return a photo's IoU."""
        return self.counts.curves(result, self._mask(sample, result))

    def pictures(
        self,
        sample: Sample,
        result: npt.NDArray[np.uint8],
        scores: Mapping[str, Mapping[str, object]],
        of_photo: Mapping[str, Mapping[str, object]],
    ) -> tuple[Pictures, dict[str, Pictures]]:
        """Draw a photo, its mask and its label map."""
        shared = {"photo": sample.photo, "truth": label_picture(mask_of(sample))}
        return shared, {method: {"labels": label_picture(result)} for method in self.rows}

    def _mask(self, sample: Sample, result: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the mask of a label map, which must have its size."""
        mask = mask_of(sample)
        if result.shape != mask.shape:
            path = self._folder / f"{sample.name}.png"
            height, width = mask.shape
            raise ValueError(
                f"{path}: has {result.shape[1]} x {result.shape[0]} pixels; its ground truth has {width} x {height}."
            )
        return mask


def _by_name(names: Sequence[str], values: object) -> dict[str, object]:
    return dict(zip(names, values, strict=True)) if isinstance(values, list) else {}
