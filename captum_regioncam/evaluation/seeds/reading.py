"""A folder of seeds: their names, what they were made from, and each seed with its photo."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets import LAYOUTS, open_dataset
from captum_regioncam.evaluation.datasets.base import PhotoData, PhotoDataset, Sample, image_ids_of
from captum_regioncam.evaluation.datasets.reading import MissingTruthError
from captum_regioncam.evaluation.runs.folder import recorded
from captum_regioncam.evaluation.runs.record import RECORD
from captum_regioncam.evaluation.seeds.files import CrfScoresError, load_seed
from captum_regioncam.evaluation.seeds.seed import Seed
from captum_regioncam.method.grids import pool
from captum_regioncam.refinement import refine as refined

__all__ = [
    "SeedItem", "SeedReader", "check_are_seeds", "check_refine", "is_whole_scores", "is_whole_seed", "named_data",
    "recorded_data", "refined_seed", "sample_seed", "seeds_in",
]  # fmt: skip

_log = logging.getLogger(__name__)


def seeds_in(folder: Path) -> Iterator[str]:
    """Yield the names of the seeds in and below a folder, except those that another run wrote into a folder inside."""
    for home, inside, files in os.walk(folder, onerror=_cannot_be_read):
        inside[:] = [name for name in inside if not os.path.lexists(Path(home, name, RECORD))]
        for file in files:
            if file.endswith(".npy") and not file.startswith("."):
                yield Path(home, file).relative_to(folder).as_posix().removesuffix(".npy")


def _cannot_be_read(error: OSError) -> None:
    _log.warning("%s: cannot be read (%s); the seeds in it are left out.", error.filename, error.strerror)


class Named(TypedDict):
    """The arguments of :func:`open_dataset`, except for ``ground_truth``."""

    name: str
    root: str
    split: str | None
    labels_from: str | None
    masks: str | None
    crowds: str | None


def named_data(
    seeds: Path,
    name: str | None = None,
    root: str | None = None,
    split: str | None = None,
    *,
    masks: str | None = None,
    crowds: str | None = None,
) -> Named:
    """Return which data set seeds were made from, as their record says, unless it is named.

    Its masks are those of the record too, if it names the same layout and neither ``masks`` nor ``crowds`` is given.

    Raises:
        ArgumentError: there is no such record.
    """
    settings = recorded(seeds) or {}
    dataset, place = name or settings.get("dataset"), root or settings.get("root")
    if not isinstance(dataset, str) or not isinstance(place, str) or dataset not in LAYOUTS:
        raise ArgumentError(f"{seeds}: has no record that names the photos of the seeds; give ", Argument("data"), ".")
    split = split or (str(settings["split"]) if settings.get("split") and dataset == settings.get("dataset") else None)
    labels = settings.get("labels")
    if masks is None and crowds is None and dataset == settings.get("dataset"):
        masks, crowds = (str(settings[one]) if settings.get(one) else None for one in ("masks", "crowds"))
    labels_from = str(labels) if labels and LAYOUTS[dataset].labels_from else None
    return {
        "name": dataset, "root": place, "split": split, "labels_from": labels_from, "masks": masks, "crowds": crowds
    }  # fmt: skip


def recorded_data(
    seeds: Path,
    name: str | None = None,
    root: str | None = None,
    split: str | None = None,
    *,
    ground_truth: bool,
    masks: str | None = None,
    crowds: str | None = None,
) -> PhotoDataset:
    """Open the data set that :func:`named_data` returns.

    Raises:
        ArgumentError: there is no such record, or the data set cannot be opened, or has no masks for the best
            threshold.
    """
    named = named_data(seeds, name, root, split, masks=masks, crowds=crowds)
    try:
        return open_dataset(**named, ground_truth=ground_truth)
    except ArgumentError as error:
        if not isinstance(error.__cause__, MissingTruthError):
            raise
        raise ArgumentError(f"{error.__cause__} Without masks, give a number instead of 'best'.") from error


@dataclass(frozen=True)
class SeedItem:
    """A seed, and its sample if there is a data set."""

    seed: Seed
    sample: Sample | None


@dataclass(frozen=True)
class SeedReader:
    """Reads the seeds of a folder, with their samples if there is a data set.

    Attributes:
        folder: the folder of the seeds.
        names: the names of the seeds.
        data: the photos.
        refine: whether the maps are refined with the photos.
    """

    folder: Path
    names: Sequence[str]
    data: PhotoData | None
    refine: bool = False

    @cached_property
    def _numbers(self) -> dict[str, int]:
        if self.data is None:
            return {}
        names = [*image_ids_of(self.data), *self.data.names]  # score maps of wsolevaluation are named after image ids
        return {name: number % len(self.data.names) for number, name in enumerate(names)}

    def __call__(self, number: int) -> SeedItem:
        """Read a seed, and its sample if there is a data set; they must fit."""
        name = self.names[number]
        sample = None
        if self.data is not None:
            if name not in self._numbers:
                raise ValueError(f"{name}: is not in the data set.")
            sample = self.data[self._numbers[name]]
        path = self.folder / f"{name}.npy"
        seed = sample_seed(path, sample) if sample else load_seed(path)
        if self.data is not None and (seed.keys >= len(self.data.classes)).any():
            last = len(self.data.classes) - 1
            raise ValueError(f"{name}: has class {int(seed.keys.max())}, but the data set's are 0 to {last}.")
        size = (sample.photo.height, sample.photo.width) if sample else seed.high_res.shape[1:]
        if not len(seed.keys):
            if size == (1, 1):
                raise ValueError(f"{name}: has no classes and therefore no size; give the seeds' data set.")
            seed = Seed(seed.keys, seed.cam, np.zeros((0, *size), dtype=np.float32))
        if sample is not None:
            _check_size(seed, sample)
        if self.refine:
            if sample is None:
                raise ValueError(f"{name}: has no photo to be refined with.")
            seed = refined_seed(seed, sample)
        return SeedItem(seed, sample)


def sample_seed(path: Path, sample: Sample) -> Seed:
    """Read the seed of a photo. If its file does not hold the class or the size, they are taken from the photo.

    Raises:
        ValueError: as in :func:`load_seed`.
    """
    return load_seed(path, sample.keys or None, size=(sample.photo.height, sample.photo.width))


def check_are_seeds(folder: Path, names: Sequence[str]) -> None:
    """Check, by the first file of a folder, that it does not have class scores after a dense CRF.

    Raises:
        ArgumentError: it has such scores.
    """
    path = next((path for name in names if (path := folder / f"{name}.npy").is_file()), None)
    if path is None:
        return
    try:
        load_seed(path)
    except CrfScoresError as error:
        raise ArgumentError(Argument("seeds", folder), f": {error}") from error
    except ValueError:  # this file is broken, which will be reported later
        pass


def check_refine(folder: Path, refine: bool) -> None:
    """Check that seeds are not refined twice.

    Raises:
        ArgumentError: they are to be refined, and their record says that they were.
    """
    if refine and (recorded(folder) or {}).get("refine"):
        raise ArgumentError(Argument("refine", True), f": the seeds in {folder} were refined when they were made.")


def refined_seed(seed: Seed, sample: Sample) -> Seed:
    """Refine a seed's maps with its photo (step 8 of the method).

    Raises:
        ValueError: the seed is of another photo's size.
    """
    if not len(seed.keys):
        return seed
    _check_size(seed, sample)
    maps = refined(seed.high_res, sample.photo)
    return Seed(seed.keys, pool(maps[None], seed.cam.shape[1:])[0], maps.numpy())


def _check_size(seed: Seed, sample: Sample) -> None:
    size = sample.photo.height, sample.photo.width
    if seed.high_res.shape[1:] != size:
        raise ValueError(
            f"{sample.name}: its maps are {seed.high_res.shape[1:]}, but its photo is {size} (height, width). Give the "
            "data set that the seeds were made from."
        )


def is_whole_seed(path: Path) -> bool:
    """Return whether a seed can be read."""
    try:
        load_seed(path)
    except ValueError:
        return False
    return True


def is_whole_scores(path: Path) -> bool:
    """Return whether a file of class scores after PSA's dense CRF can be read."""
    try:
        load_seed(path)
    except CrfScoresError:
        return True
    except ValueError:
        return False
    return True  # of a photo without classes
