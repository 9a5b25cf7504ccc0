"""Maps, or seeds, against masks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.arguments import real
from captum_regioncam.evaluation.datasets.base import PhotoData, Sample
from captum_regioncam.evaluation.label_maps.pictures import label_picture
from captum_regioncam.evaluation.label_maps.threshold import label_map
from captum_regioncam.evaluation.metrics.pixels import PixelMetric
from captum_regioncam.evaluation.metrics.segmentation import SegmentationMetric
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.runs.per_photo import Curves, at_threshold, curves_of
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent
from captum_regioncam.evaluation.scoring.job import Counts, MapJob, Pictures
from captum_regioncam.evaluation.scoring.pictures import map_picture
from captum_regioncam.evaluation.scoring.seeds import SeedFolders
from captum_regioncam.evaluation.seeds.reading import refined_seed

__all__ = ["OF_ABSENT", "ClassMaps", "MaskCounts", "MaskJob", "mask_of"]

OF_ABSENT = {"zero": ", absent classes as 0", "ignore-predicted": ", of the classes in the masks"}
"""What titles say about classes that are in none of the masks, unless the default is used."""


class ClassMaps(NamedTuple):
    """A photo's maps.

    Attributes:
        maps: (K, height, width) in [0, 1].
        keys: (K,) their classes.
    """

    maps: Tensor
    keys: Tensor


class MaskCounts(Counts):
    """mIoU of maps, and PxAP if there is one class."""

    columns = {"miou": "mIoU", "best_miou": "best mIoU", "best_threshold": "at", "pxap": "PxAP"}  # noqa: RUF012
    axis = "mIoU (%)"
    ranking, ranking_title = "best_mean_iou", "Mean IoU (%) of each photo, at the best threshold for all"
    at = "best_threshold"

    def __init__(
        self, methods: Iterable[str], classes: Sequence[str], threshold: float, absent: str = "ignore"
    ) -> None:
        self.title = f"mIoU (%) at threshold {threshold:g} and at the best{OF_ABSENT.get(absent, '')}"
        self.class_tables = {
            "per_class": f"IoU (%) at threshold {threshold:g}",
            "best_per_class": "IoU (%) at the best threshold",
        }
        self.names = ["background", *classes]
        self.photo_columns = [
            "threshold", "mean_iou", "best_threshold", "best_mean_iou",
            *(f"{iou} {name}" for iou in ("iou", "best_iou") for name in self.names),
        ]  # fmt: skip
        self._segmentation = {method: SegmentationMetric(len(classes), threshold, absent=absent) for method in methods}
        self._pixels = {method: PixelMetric() for method in methods} if len(classes) == 1 else {}
        self.metrics = {
            **{f"miou {method}": metric for method, metric in self._segmentation.items()},
            **{f"pxap {method}": metric for method, metric in self._pixels.items()},
        }
        self._thresholds, self._fixed = SegmentationMetric(1, threshold).thresholds, real(threshold)

    def add(self, found: Mapping[str, ClassMaps], labels: npt.NDArray[np.uint8]) -> None:
        """Count a photo's maps of each method."""
        if not all(maps.isfinite().all() for maps, _ in found.values()):
            raise ValueError("the maps are not finite")
        for method, (maps, keys) in found.items():
            self._segmentation[method].update(maps, keys, labels)
            if self._pixels and len(maps):
                self._pixels[method].update(maps[0], labels)

    def curves(self, found: Mapping[str, ClassMaps], labels: npt.NDArray[np.uint8]) -> dict[str, Curves]:
        """Return the IoU of each class in the photo, for each method."""
        curves = {}
        for method, (maps, keys) in found.items():
            iou = self._segmentation[method].iou(maps, keys, labels)
            there = (~iou.isnan().all(0)).nonzero().flatten().tolist()
            curves[method] = curves_of([self.names[label] for label in there], iou[:, there])
        return curves

    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""
        scores: Figures = {}
        for method, metric in self._segmentation.items():
            result = computed(metric)
            absent = int(result.pop("absent"))
            scores[method] = in_percent(result) | {"absent": absent}
            if absent:
                self.columns = {**MaskCounts.columns, "absent": "absent"}
            for name in self.class_tables:
                values = in_percent({name: result[name]})[name]
                if isinstance(values, list):
                    scores[method][name] = dict(zip(self.names, values, strict=True))
            if self._pixels:
                scores[method] |= in_percent(computed(self._pixels[method]))
        return scores

    def photo_scores(self, curves: Curves, scores: Mapping[str, object]) -> dict[str, object]:
        """Return a photo's IoU of each class and their mean, at the fixed and the best threshold of all photos."""
        found: dict[str, object] = {}
        for prefix, threshold in (("", self._fixed), ("best_", real(scores["best_threshold"]))):
            index = int((self._thresholds == threshold).nonzero())
            iou = {name: 100 * value for name, value in at_threshold(curves, index).items() if value == value}
            found |= {
                f"{prefix}threshold": threshold,
                f"{prefix}mean_iou": round(sum(iou.values()) / len(iou), 4) if iou else None,
                **{f"{prefix}iou {name}": round(value, 4) for name, value in iou.items()},
            }
        return found


class MaskJob(MapJob[dict[str, ClassMaps]]):
    """Maps, or seeds, against masks.

    Args:
        data: the photos and their masks.
        threshold: the fixed threshold.
        maps: the methods' maps; None to run no network.
        contrast: the contrast of the method "region-cam".
        seeds: finished seeds.
        absent: how means treat classes that are in none of the masks; see :class:`SegmentationMetric`.
    """

    counts: MaskCounts

    def __init__(
        self,
        data: PhotoData,
        threshold: float,
        maps: PhotoMaps | None = None,
        contrast: float = 4.0,
        seeds: SeedFolders | None = None,
        absent: str = "ignore",
    ) -> None:
        super().__init__(data, maps, contrast, seeds)
        self.counts = MaskCounts(self.rows, data.classes, threshold, absent)
        self.origin = {**self.origin, "absent": absent}
        self.settings["threshold"] = real(threshold)

    def compute(self, items: list[Photo]) -> list[dict[str, ClassMaps]]:
        """Return the maps of each photo, made or read."""
        found: list[dict[str, ClassMaps]] = [{} for _ in items]
        if self._maps:
            boxes = [self.seen(photo.sample) for photo in items]
            sizes = [(lower - upper, right - left) for left, upper, right, lower in boxes]
            for method in self._maps.attributions:
                for of_photo, photo, (maps,) in zip(found, items, self._maps.maps(method, items, sizes), strict=True):
                    of_photo[method] = ClassMaps(maps, torch.tensor(photo.sample.keys, dtype=torch.long))
        for of_photo, photo in zip(found, items, strict=True):
            of_photo.update(self._read(photo.sample))
        return found

    def _read(self, sample: Sample) -> dict[str, ClassMaps]:
        """Read a photo's seeds, and refine them if that is wanted."""
        found = {}
        for name in self._seeds.folders:
            seed = self._seeds.read(name, sample)
            seed = refined_seed(seed, sample) if self._seeds.refine else seed
            size = (sample.photo.height, sample.photo.width)
            maps = torch.from_numpy(seed.high_res) if len(seed.keys) else torch.zeros(0, *size)
            found[name] = ClassMaps(maps, seed.keys)
        return found

    def count(self, sample: Sample, result: dict[str, ClassMaps]) -> None:
        """Count a photo's maps."""
        self.counts.add(result, self._mask(sample))

    def curves(self, sample: Sample, result: dict[str, ClassMaps]) -> dict[str, Curves]:
        """Return a photo's IoU at each threshold."""
        return self.counts.curves(result, self._mask(sample))

    def pictures(
        self,
        sample: Sample,
        result: dict[str, ClassMaps],
        scores: Mapping[str, Mapping[str, object]],
        of_photo: Mapping[str, Mapping[str, object]],
    ) -> tuple[Pictures, dict[str, Pictures]]:
        """Draw a photo and its mask; and each method's highest map, and its label map at its best threshold."""
        photo = sample.photo.crop(self.seen(sample))
        drawn = {}
        for method, (maps, keys) in result.items():
            threshold = real(scores[method]["best_threshold"])
            drawn[method] = {
                "map": map_picture(photo, maps),
                "labels": label_picture(label_map(maps.numpy(), keys.numpy(), threshold)),
            }
        return {"photo": photo, "truth": label_picture(self._mask(sample))}, drawn

    def _mask(self, sample: Sample) -> npt.NDArray[np.uint8]:
        left, upper, right, lower = self.seen(sample)
        return mask_of(sample)[upper:lower, left:right]


def mask_of(sample: Sample) -> npt.NDArray[np.uint8]:
    """Return a photo's mask.

    Raises:
        ValueError: it has none.
    """
    if sample.labels is None:
        raise ValueError("has no mask.")
    return sample.labels
