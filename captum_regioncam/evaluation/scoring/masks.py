"""Maps, or seeds, against masks."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.arguments import real
from captum_regioncam.evaluation.datasets.base import PhotoData, Sample, index_of, source_of
from captum_regioncam.evaluation.metrics.pixels import PixelMetric
from captum_regioncam.evaluation.metrics.segmentation import SegmentationMetric
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.runs.folder import recorded
from captum_regioncam.evaluation.runs.report import Figures, computed, in_percent
from captum_regioncam.evaluation.scoring.job import Counts, MapJob, Maps, ScoreJob
from captum_regioncam.evaluation.seeds.reading import refined_seed, sample_seed
from captum_regioncam.evaluation.seeds.seed import Seed

__all__ = ["OF_ABSENT", "MaskCounts", "MaskJob", "SampleReader", "SeedJob", "files_in", "mask_of"]


OF_ABSENT = {"zero": ", absent classes as 0", "ignore-predicted": ", of the classes in the masks"}
"""What titles say of classes that the photos lack, unless they are left out."""


class MaskCounts(Counts):
    """mIoU of maps, and PxAP if there is one class."""

    columns = {"miou": "mIoU", "best_miou": "best mIoU", "best_threshold": "at", "pxap": "PxAP"}  # noqa: RUF012
    axis = "mIoU (%)"

    def __init__(
        self, methods: Iterable[str], classes: Sequence[str], threshold: float, absent: str = "ignore"
    ) -> None:
        self.title = f"mIoU (%) at threshold {threshold:g} and at the best{OF_ABSENT.get(absent, '')}"
        self._names = ["background", *classes]
        self._segmentation = {method: SegmentationMetric(len(classes), threshold, absent=absent) for method in methods}
        self._pixels = {method: PixelMetric() for method in methods} if len(classes) == 1 else {}
        self.metrics = {
            **{f"miou {method}": metric for method, metric in self._segmentation.items()},
            **{f"pxap {method}": metric for method, metric in self._pixels.items()},
        }

    def add(self, cams: Maps, keys: Tensor, labels: npt.NDArray[np.uint8]) -> None:
        """Count a photo's (K, height, width) maps of each method."""
        if not all(maps.isfinite().all() for maps in cams.values()):
            raise ValueError("the maps are not finite")
        for method, maps in cams.items():
            self._segmentation[method].update(maps, keys, labels)
            if self._pixels and len(maps):
                self._pixels[method].update(maps[0], labels)

    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""
        scores: Figures = {}
        for method, metric in self._segmentation.items():
            result = computed(metric)
            absent = int(result.pop("absent"))
            scores[method] = in_percent(result) | {"absent": absent}
            if absent:
                self.columns = {**MaskCounts.columns, "absent": "absent"}
            for name in ("per_class", "best_per_class"):
                values = in_percent({name: result[name]})[name]
                if isinstance(values, list):
                    scores[method][name] = dict(zip(self._names, values, strict=True))
            if self._pixels:
                scores[method] |= in_percent(computed(self._pixels[method]))
        return scores


class MaskJob(MapJob[Maps]):
    """Maps against masks."""

    def __init__(
        self, data: PhotoData, maps: PhotoMaps, contrast: float, threshold: float, absent: str = "ignore"
    ) -> None:
        super().__init__(data, maps, contrast)
        self.counts: MaskCounts = MaskCounts(maps.attributions, data.classes, threshold, absent)
        self.origin = {**self.origin, "absent": absent}
        self.settings["threshold"] = real(threshold)

    def compute(self, items: list[Photo]) -> list[Maps]:
        """Return the maps of each photo."""
        boxes = [self._seen(photo.sample) for photo in items]
        sizes = [(lower - upper, right - left) for left, upper, right, lower in boxes]
        by_method = {method: self._maps.maps(method, items, sizes) for method in self._maps.attributions}
        return [{method: found[index][0] for method, found in by_method.items()} for index in range(len(items))]

    def count(self, sample: Sample, result: Maps) -> None:
        """Count a photo's maps."""
        left, upper, right, lower = self._seen(sample)
        keys = torch.tensor(sample.keys, dtype=torch.long)
        self.counts.add(result, keys, mask_of(sample)[upper:lower, left:right])

    def _seen(self, sample: Sample) -> tuple[int, int, int, int]:
        return self._maps.classifier.seen_box(*sample.photo.size)


class SeedJob(ScoreJob[Seed]):
    """Seeds against masks."""

    def __init__(self, data: PhotoData, folder: Path, threshold: float, refine: bool, absent: str = "ignore") -> None:
        self.names = data.names
        self._data, self._folder, self._refine, self._method = data, folder, bool(refine), f"seeds in {folder}"
        self.counts: MaskCounts = MaskCounts([self._method], data.classes, threshold, absent)
        self.description = f"Seeds in {folder}{', refined with the photo' if refine else ''}"
        source = source_of(data)
        self.origin = {
            "refine": bool(refine),
            "absent": absent,
            **{name: source.get(name) for name in ("dataset", "split")},
        }
        self.settings = {
            "seeds": str(folder.resolve()), **source, "threshold": real(threshold), "made_of": recorded(folder),
            "index": index_of(data), "files": files_in(folder, data.names, ".npy"),
            **({"refine": True} if refine else {}),
        }  # fmt: skip

    def reader(self) -> Callable[[int], Photo]:
        """Return a reader of the photos."""
        return SampleReader(self._data)

    def compute(self, items: list[Photo]) -> list[Seed]:
        """Read each photo's seed, and refine it if that is wanted."""
        return [self._read(photo.sample) for photo in items]

    def _read(self, sample: Sample) -> Seed:
        seed = sample_seed(self._folder / f"{sample.name}.npy", sample)
        return refined_seed(seed, sample) if self._refine else seed

    def count(self, sample: Sample, result: Seed) -> None:
        """Count a seed."""
        mask = mask_of(sample)
        maps = torch.from_numpy(result.high_res) if len(result.keys) else torch.zeros(0, *mask.shape)
        self.counts.add({self._method: maps}, result.keys, mask)


@dataclass(frozen=True)
class SampleReader:
    """Reads photos, with their ground truth."""

    data: PhotoData

    def __call__(self, number: int) -> Photo:
        """Read a photo."""
        return Photo(self.data[number])


def mask_of(sample: Sample) -> npt.NDArray[np.uint8]:
    """Return a photo's mask.

    Raises:
        ValueError: it has none.
    """
    if sample.labels is None:
        raise ValueError("has no mask.")
    return sample.labels


def files_in(folder: Path, names: Sequence[str], ending: str) -> str:
    """Return a hash of the sizes and times of files, so that other files are not counted with these."""
    digest = hashlib.sha256()
    for name in names:
        with contextlib.suppress(OSError):
            found = (folder / f"{name}{ending}").stat()
            digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
