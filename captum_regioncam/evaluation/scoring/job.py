"""A job that counts photos, whatever is counted."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import TypeVar

from torch import Tensor

from captum_regioncam.evaluation.datasets.base import Sample
from captum_regioncam.evaluation.photo_maps import Photo
from captum_regioncam.evaluation.runs.job import Job
from captum_regioncam.evaluation.runs.progress import Progress
from captum_regioncam.evaluation.runs.report import Figures
from captum_regioncam.extras import extra

with extra("eval"):
    from torchmetrics import Metric

__all__ = ["Maps", "ScoreJob"]

Maps = dict[str, Tensor]
"""A photo's maps: for each method (K, height, width), or (height, width) of one class."""
Result = TypeVar("Result")


class ScoreJob(Job[Photo, Result]):
    """Counts photos.

    Attributes:
        title: of the table of scores.
        columns: the scores in it, and what they are called there.
        axis: what the curves over the threshold show.
        description: what is scored, in words.
        metrics: what is counted, by name; its states are sums.
        settings: what the counts depend on, as JSON values.
        origin: what the report says of where the scores come from, as JSON values.
        progress: keeps the counts while the job runs.
    """

    title: str
    columns: Mapping[str, str]
    axis: str
    description: str
    metrics: dict[str, Metric]
    settings: dict[str, object]
    origin: Mapping[str, object]
    progress: Progress | None = None

    @abstractmethod
    def count(self, sample: Sample, result: Result) -> None:
        """Count a photo."""

    @abstractmethod
    def scores(self) -> Figures:
        """Return the scores of all photos, for each method."""

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
