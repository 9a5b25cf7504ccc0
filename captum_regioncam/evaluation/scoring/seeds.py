"""Folders of finished seeds, which are scored beside methods or on their own."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoData, Sample, image_ids_of
from captum_regioncam.evaluation.runs.folder import recorded
from captum_regioncam.evaluation.runs.job import first
from captum_regioncam.evaluation.scoring.fingerprint import fingerprint
from captum_regioncam.evaluation.seeds.files import load_seed
from captum_regioncam.evaluation.seeds.reading import check_are_seeds, check_refine, sample_seed, seeds_in
from captum_regioncam.evaluation.seeds.seed import Seed
from captum_regioncam.evaluation.seeds.waiting import await_seeds
from captum_regioncam.files.photos import PHOTO_SUFFIXES
from captum_regioncam.refinement import refine as refined

__all__ = ["SeedFolders", "Seeds", "row_of"]

Seeds = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]]
"""One folder of seeds, several, or a dict that names them."""


def row_of(folder: Path) -> str:
    """Return the name, in the table of scores, of a folder that the user does not name."""
    return f"seeds in {folder}"


@dataclass(frozen=True)
class SeedFolders:
    """Folders of seeds, by their names in the table of scores.

    Attributes:
        folders: for each name, the folder of NAME.npy.
        refine: whether their maps are refined with the photos.
    """

    folders: Mapping[str, Path]
    refine: bool = False

    @classmethod
    def of(cls, seeds: Seeds, refine: bool, photos: Sequence[str]) -> "SeedFolders":
        """Check and name the folders that a user gives, which have the seeds of these photos.

        Raises:
            ArgumentError: there is no such folder, one is given twice, its seeds are refined already, or it has class
                scores after a dense CRF.
        """
        if isinstance(seeds, Mapping):
            folders = {str(name): Path(folder) for name, folder in seeds.items()}
        else:
            given = [seeds] if isinstance(seeds, (str, os.PathLike)) else list(seeds)
            folders = {}
            for folder in map(Path, given):
                if folder.resolve() in {other.resolve() for other in folders.values()}:
                    raise ArgumentError(Argument("seeds", folder), ": is given twice.")
                folders[row_of(folder)] = folder
        if not folders:
            raise ArgumentError(Argument("seeds", None), ": expects at least one folder.")
        for folder in folders.values():
            if not folder.is_dir():
                raise ArgumentError(Argument("seeds", folder), ": no such folder.")
            check_refine(folder, refine)
            check_are_seeds(folder, photos)
        return cls(folders, bool(refine))

    def wait_for(self, data: PhotoData, limit: int | None, *, wait: bool, show_progress: bool) -> None:
        """Make sure that the seeds of the first ``limit`` photos exist, or wait for them; see :func:`await_seeds`."""
        for folder in self.folders.values():
            is_of_images = (recorded(folder) or {}).get("format") == "wsol"
            names = first(image_ids_of(data) if is_of_images else data.names, limit)
            await_seeds(folder, names, None, wait=wait, show_progress=show_progress)

    @property
    def description(self) -> str:
        """What is scored, in words."""
        folders = ", ".join(map(str, self.folders.values()))
        return f"Seeds in {folders}{', refined with the photo' if self.refine else ''}"

    def settings(self, data: PhotoData) -> dict[str, object]:
        """Return what the scores depend on, as JSON values."""
        return {
            name: {
                "folder": str(folder.resolve()),
                "made_of": recorded(folder),
                "files": fingerprint((photo, self.path(name, photo)) for photo in data.names),
            }
            for name, folder in self.folders.items()
        }

    def origin(self) -> dict[str, object]:
        """Return what the report says about where the seeds come from, as JSON values."""
        return {name: {"folder": str(folder), "made_of": recorded(folder)} for name, folder in self.folders.items()}

    def read(self, name: str, sample: Sample) -> Seed:
        """Read one folder's seed of a photo.

        Raises:
            ValueError: there is none, or it cannot be read.
        """
        return sample_seed(self.path(name, sample.name), sample)

    def class_maps(self, sample: Sample) -> dict[str, Tensor]:
        """Read each folder's map of a photo's class, and refine it if that is wanted.

        Returns:
            (height, width) each: the photo's, or (224, 224) of a score map.

        Raises:
            ValueError: there is none, or it cannot be read.
        """
        return {name: self._class_map(name, sample) for name in self.folders}

    def _class_map(self, name: str, sample: Sample) -> Tensor:
        path = self.path(name, sample.name)
        try:
            seed = load_seed(path, sample.keys)
        except ValueError:  # the file may need the photo's size
            seed = sample_seed(path, sample)
        if sample.keys[0] not in seed.keys:
            raise ValueError(f"{path}: has no map of class {sample.keys[0]}.")
        maps = torch.from_numpy(seed.high_res[seed.keys.tolist().index(sample.keys[0])])
        return refined(maps[None], sample.photo)[0] if self.refine else maps

    def path(self, name: str, photo: str) -> Path:
        """Return the file of a photo's seed: NAME.npy or, as wsolevaluation has it, NAME.JPEG.npy in any folder."""
        path = self.folders[name] / f"{photo}.npy"
        return path if path.exists() else self._of_image_ids[name].get(photo, path)

    @cached_property
    def _of_image_ids(self) -> dict[str, dict[str, Path]]:
        """For each folder, the seeds that are named after a photo's file, such as val/NAME.JPEG, by NAME."""
        found: dict[str, dict[str, Path]] = {name: {} for name in self.folders}
        for name, folder in self.folders.items():
            for seed in sorted(seeds_in(folder)):
                image = PurePosixPath(seed)
                if image.suffix.lower() in PHOTO_SUFFIXES:
                    for photo in (image.with_suffix("").as_posix(), image.stem):
                        found[name].setdefault(photo, folder / f"{seed}.npy")
        return found
