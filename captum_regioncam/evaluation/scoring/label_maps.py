"""Finished label maps against masks."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from captum_regioncam.evaluation.datasets.base import PhotoData, Sample, index_of, source_of
from captum_regioncam.evaluation.datasets.reading import read_labels
from captum_regioncam.evaluation.metrics.label_maps import LabelMapMetric
from captum_regioncam.evaluation.photo_maps import Photo
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent
from captum_regioncam.evaluation.scoring.job import Counts, ScoreJob
from captum_regioncam.evaluation.scoring.masks import OF_ABSENT, SampleReader, files_in, mask_of

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

    def __init__(self, method: str, classes: Sequence[str], absent: str, unlabelled: str) -> None:
        self.title = f"Scores (%) of label maps{_OF_UNLABELLED.get(unlabelled, '')}{OF_ABSENT.get(absent, '')}"
        self._method, self._names = method, ["background", *classes]
        self._metric = LabelMapMetric(len(classes), absent=absent, unlabelled=unlabelled)
        self.metrics = {f"label maps {method}": self._metric}

    def add(self, predicted: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """Count a photo's label map."""
        self._metric.update(predicted, labels)

    def scores(self) -> Figures:
        """Return the scores of all photos."""
        result = computed(self._metric)
        confusion, absent = result.pop("confusion"), int(result.pop("absent"))
        scores = in_percent(result)
        per_class = {name: scores.pop(name) for name in list(scores) if name.startswith("per_class")}
        named = {name: _by_name(self._names, values) for name, values in per_class.items()}
        classes = {
            name: {
                of.removeprefix("per_class_").replace("per_class", "iou"): values[name] for of, values in named.items()
            }
            for name in self._names
        }
        found, unlabelled = int(confusion[:, 1:-1].sum()), int(confusion[:, -1].sum())
        if absent:
            self.columns = {**self.columns, "absent": "absent"}
        if unlabelled:
            self.columns = {**self.columns, "unlabelled": "255"}
        if unlabelled and not found:
            _log.warning(
                "No pixel of the label maps has a class, but some are 255, which marks pixels without a label. Label "
                "maps hold 0 for the background, and class + 1."
            )
        more = {"absent": absent, "per_class": named["per_class"], "classes": classes, "confusion": confusion.tolist()}
        return {self._method: scores | more}


class LabelMapJob(ScoreJob[npt.NDArray[np.uint8]]):
    """Label maps against masks.

    Args:
        data: the photos and their masks.
        folder: of NAME.png.
        absent: see :class:`LabelMapMetric`, as for ``unlabelled``.
        unlabelled: what a predicted 255 counts as.
    """

    def __init__(self, data: PhotoData, folder: Path, absent: str, unlabelled: str) -> None:
        self.names = data.names
        self._data, self._folder, method = data, folder, f"label maps in {folder}"
        self.counts: LabelMapCounts = LabelMapCounts(method, data.classes, absent, unlabelled)
        self.description = f"Label maps in {folder}"
        source = source_of(data)
        self.origin = {
            "absent": absent, "unlabelled": unlabelled, **{name: source.get(name) for name in ("dataset", "split")},
        }  # fmt: skip
        self.settings = {
            "label_maps": str(folder.resolve()), **source, "index": index_of(data),
            "files": files_in(folder, data.names, ".png"),
        }  # fmt: skip

    def reader(self) -> Callable[[int], Photo]:
        """Return a reader of the photos."""
        return SampleReader(self._data)

    def compute(self, items: list[Photo]) -> list[npt.NDArray[np.uint8]]:
        """Read each photo's label map."""
        return [read_labels(self._folder / f"{photo.sample.name}.png", len(self._data.classes)) for photo in items]

    def count(self, sample: Sample, result: npt.NDArray[np.uint8]) -> None:
        """Count a label map."""
        mask = mask_of(sample)
        if result.shape != mask.shape:
            path = self._folder / f"{sample.name}.png"
            height, width = mask.shape
            raise ValueError(
                f"{path}: {result.shape[1]} x {result.shape[0]} pixels; its ground truth has {width} x {height}."
            )
        self.counts.add(result, mask)


def _by_name(names: Sequence[str], values: object) -> dict[str, object]:
    return dict(zip(names, values, strict=True)) if isinstance(values, list) else {}
