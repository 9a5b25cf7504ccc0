"""What all jobs that count photos have in common, whatever they count."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image
from torch import Tensor

from captum_regioncam.arguments import real
from captum_regioncam.evaluation.datasets.base import PhotoData, Sample, index_of, source_of
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.runs.job import Job
from captum_regioncam.evaluation.runs.per_photo import Curves, PhotoCounts
from captum_regioncam.evaluation.runs.progress import Progress
from captum_regioncam.evaluation.runs.report import Figures
from captum_regioncam.evaluation.scoring.seeds import SeedFolders
from captum_regioncam.extras import extra

with extra("eval"):
    from torchmetrics import Metric

__all__ = ["Counts", "MapJob", "Maps", "Pictures", "SampleReader", "ScoreJob"]

Result = TypeVar("Result")
Pictures = dict[str, Image.Image]
"""Pictures of one photo, by what they show."""
Maps = dict[str, Tensor]
"""A photo's map of its class, (height, width), for each method."""


class Counts(ABC):
    """What is counted of each method.

    Attributes:
        title: the title of the table of scores.
        columns: the scores in it, and their titles there.
        class_tables: the scores of each class, and the titles of their tables.
        axis: what the curves over the thresholds show.
        metrics: what is counted, by name; its states are sums.
        photo_columns: the scores of one photo.
        ranking: the photo's score that says which photos are the best.
        ranking_title: what it is, in words.
        at: the score of all photos that is the threshold of ``ranking``; None if there is no threshold.
    """

    title: str
    columns: Mapping[str, str]
    class_tables: Mapping[str, str] = {}
    axis: str
    metrics: Mapping[str, Metric]
    photo_columns: Sequence[str] = ()
    ranking: str = ""
    ranking_title: str = ""
    at: str | None = None

    @abstractmethod
    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""

    @abstractmethod
    def photo_scores(self, curves: Curves, scores: Mapping[str, object]) -> dict[str, object]:
        """Return one photo's scores, by the names in ``photo_columns``.

        Args:
            curves: the photo's curves, for one method.
            scores: the scores of all photos, for that method.
        """


class ScoreJob(Job[Photo, Result]):
    """Counts photos.

    Attributes:
        counts: what is counted.
        description: what is scored, in words.
        settings: what the counts depend on, as JSON values.
        origin: what the report says about where the scores come from, as JSON values.
        rows: the names of the rows in the table of scores: the methods, and whatever else has one.
        progress: keeps the counts while the job runs.
        photos: what is kept of each photo, by name; None to keep nothing.
    """

    counts: Counts
    description: str
    settings: dict[str, object]
    origin: Mapping[str, object]
    rows: Sequence[str] = ()
    progress: Progress | None = None
    photos: dict[str, PhotoCounts] | None = None
    _data: PhotoData

    @abstractmethod
    def count(self, sample: Sample, result: Result) -> None:
        """Count a photo."""

    @abstractmethod
    def curves(self, sample: Sample, result: Result) -> dict[str, Curves]:
        """Return a photo's scores at each threshold, for each method."""

    @abstractmethod
    def pictures(
        self,
        sample: Sample,
        result: Result,
        scores: Mapping[str, Mapping[str, object]],
        of_photo: Mapping[str, Mapping[str, object]],
    ) -> tuple[Pictures, dict[str, Pictures]]:
        """Draw a photo and its ground truth; and each method's map and labels, or box.

        Args:
            sample: the photo.
            result: the photo's result.
            scores: for each method, the scores of all photos.
            of_photo: for each method, the scores of this photo.
        """

    def is_done(self, number: int) -> bool:
        """Return whether an earlier session counted a photo."""
        return self.progress is not None and self.names[number] in self.progress.done

    def alike(self, item: Photo) -> Hashable:
        """Return the shapes of a photo's inputs."""
        return item.input_shapes

    def keep(self, number: int, item: Photo, result: Result) -> None:
        """Count a photo."""
        curves = {} if self.photos is None else self.curves(item.sample, result)
        self.count(item.sample, result)
        if self.photos is not None:
            classes = [self._data.classes[key] for key in item.sample.keys]
            self.photos[self.names[number]] = {"classes": classes, "curves": curves}
        if self.progress is not None:
            self.progress.add(self.names[number])


class MapJob(ScoreJob[Result]):
    """Counts the maps of photos: those that methods make, those of seeds, or both.

    Args:
        data: the photos.
        maps: the methods' maps; None to run no network.
        contrast: the contrast of the method "region-cam".
        seeds: finished seeds.
    """

    def __init__(
        self, data: PhotoData, maps: PhotoMaps | None, contrast: float = 4.0, seeds: SeedFolders | None = None
    ) -> None:
        self.names, self.batch = data.names, maps.protocol.batch if maps else 1
        self._data, self._maps, self._seeds = data, maps, seeds or SeedFolders({})
        self.rows = [*(maps.attributions if maps else ()), *(seeds.folders if seeds else ())]
        source = source_of(data)
        self.settings = {**source, "index": index_of(data)}
        self.origin = {name: source[name] for name in ("dataset", "split")}
        if maps:
            self.settings |= maps.settings(data) | {"method": list(maps.attributions), "contrast": real(contrast)}
            self.origin |= maps.origin(data)
        if seeds:
            self.settings |= {"seeds": seeds.settings(data), **({"refine": True} if seeds.refine else {})}
            self.origin = {"refine": seeds.refine, **self.origin, "seeds": seeds.origin()}
        self.description = "\n".join(part.description for part in (maps, seeds) if part)

    def reader(self) -> Callable[[int], Photo]:
        """Return a reader of the photos."""
        return self._maps.reader(self._data) if self._maps else SampleReader(self._data)

    def seen(self, sample: Sample) -> tuple[int, int, int, int]:
        """Return what is scored of a photo: its left, upper, right and lower edge."""
        return self._maps.classifier.seen_box(*sample.photo.size) if self._maps else (0, 0, *sample.photo.size)


@dataclass(frozen=True)
class SampleReader:
    """Reads photos, with their ground truth."""

    data: PhotoData

    def __call__(self, number: int) -> Photo:
        """Read a photo."""
        return Photo(self.data[number])
