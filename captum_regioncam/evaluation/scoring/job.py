"""What counting photos has in common, whatever is counted."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from torch import Tensor

from captum_regioncam.arguments import real
from captum_regioncam.evaluation.datasets.base import PhotoData, Sample
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.runs.job import Job
from captum_regioncam.evaluation.runs.progress import Progress
from captum_regioncam.evaluation.runs.report import Figures
from captum_regioncam.extras import extra

with extra("eval"):
    from torchmetrics import Metric

__all__ = ["Counts", "MapJob", "Maps", "ScoreJob"]

Maps = dict[str, Tensor]
"""A photo's maps: for each method (K, height, width), or (height, width) of one class."""
Result = TypeVar("Result")


class Counts(ABC):
    """What is counted of each method.

    Attributes:
        title: of the table of scores.
        columns: the scores in it, and what they are called there.
        axis: what the curves over the threshold show.
        metrics: what is counted, by name; its states are sums.
    """

    title: str
    columns: Mapping[str, str]
    axis: str
    metrics: Mapping[str, Metric]

    @abstractmethod
    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""


class ScoreJob(Job[Photo, Result]):
    """Counts photos.

    Attributes:
        counts: what is counted.
        description: what is scored, in words.
        settings: what the counts depend on, as JSON values.
        origin: what the report says of where the scores come from, as JSON values.
        progress: keeps the counts while the job runs.
    """

    counts: Counts
    description: str
    settings: dict[str, object]
    origin: Mapping[str, object]
    progress: Progress | None = None

    @abstractmethod
    def count(self, sample: Sample, result: Result) -> None:
        """Count a photo."""

    def is_done(self, number: int) -> bool:
        """Return whether an earlier session counted a photo."""
        return self.progress is not None and self.names[number] in self.progress.done

    def alike(self, item: Photo) -> Hashable:
        """Return the shapes of a photo's inputs."""
        return item.input_shapes

    def keep(self, number: int, item: Photo, result: Result) -> None:
        """Count a photo."""
        self.count(item.sample, result)
        if self.progress is not None:
            self.progress.add(self.names[number])


class MapJob(ScoreJob[Result]):
    """Counts the maps of photos.

    Args:
        data: the photos.
        maps: of the methods.
        contrast: of the method "region-cam".
    """

    def __init__(self, data: PhotoData, maps: PhotoMaps, contrast: float) -> None:
        self.names, self.batch = data.names, maps.protocol.batch
        self._data, self._maps = data, maps
        self.description, self.origin = maps.description, maps.origin(data)
        self.settings = maps.settings(data) | {"method": list(maps.attributions), "contrast": real(contrast)}

    def reader(self) -> Callable[[int], Photo]:
        """Return a reader of the photos."""
        return self._maps.reader(self._data)
