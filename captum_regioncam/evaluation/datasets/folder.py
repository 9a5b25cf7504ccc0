"""A folder of your own photos."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from captum_regioncam.evaluation.datasets.base import PhotoDataset, Sample
from captum_regioncam.evaluation.datasets.reading import checked_names, data_root, photo_of_size, whole_number
from captum_regioncam.files.inputs import read_json
from captum_regioncam.files.photos import PHOTO_SUFFIXES, read_image

__all__ = ["PhotoFolder"]

_HINT = (
    ' Put the photos at images/NAME.jpg, and list each with the number of its class in index.json: [{"name": "NAME", '
    '"target": 285}].'
)


class PhotoFolder(PhotoDataset):
    """Photos of one object each: images/, masks/NAME.png and index.json, a list of {"name": ..., "target": class}.

    A name is the photo's path below images/, with or without its ending. Masks are bright (above 127) on the object.
    All objects are one class, "foreground".

    Args:
        root: the folder that contains all three.
        ground_truth: read the masks.

    Raises:
        ValueError: as in :class:`PhotoDataset`.

    Example::

        >>> sample = PhotoFolder("photos")[0]
        >>> sample.targets, float(sample.labels.mean().round(2))
        ([0], 0.15)
    """

    classes = ("foreground",)
    outputs = None

    def __init__(self, root: str | os.PathLike[str], ground_truth: bool = True) -> None:
        wanted = ["images", "index.json", *(["masks"] if ground_truth else [])]
        self.root = data_root(root, [""], wanted, "photo", masks="masks", hint=_HINT)
        self.ground_truth = ground_truth
        index = self.root / "index.json"
        self.index_files = [index]
        entries = read_json(index)
        try:
            if not isinstance(entries, list) or not all(isinstance(entry["name"], (str, int)) for entry in entries):
                raise TypeError("not a list, or a name that is not a text")
            names = [str(entry["name"]) for entry in entries]
            self._targets = [whole_number(entry["target"]) for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{index}: expects a list of {{"name": ..., "target": ...}} ({error!r}).') from error
        self.names = checked_names(names, index, f"{self.root / 'images'}")
        self._photos: defaultdict[str, list[Path]] = defaultdict(list)
        for path in sorted(_files(self.root / "images")):
            if path.suffix.lower() in PHOTO_SUFFIXES:
                relative = path.relative_to(self.root / "images")
                self._photos[relative.as_posix()].append(path)
                self._photos[relative.with_suffix("").as_posix()].append(path)
        if several := next((name for name in self.names if len(self._photos.get(name, ())) > 1), None):
            raise ValueError(f"{self.root / 'images'}: {several} is the name of several photos; add the ending.")

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        if name not in self._photos:
            raise ValueError(f"{self.root / 'images'}: has no photo {name}, which index.json lists.")
        [photo] = self._photos[name]
        labels = None
        if self.ground_truth:
            path = self.root / "masks" / f"{name}.png"
            if not os.path.exists(path):
                path = (self.root / "masks" / photo.relative_to(self.root / "images")).with_suffix(".png")
            mask = np.asarray(read_image(path, "L"))
            if 0 < mask.max() <= 127:
                raise ValueError(f"{path}: its brightest pixel is {mask.max()}; expects 255 (above 127) on the object.")
            labels = (mask > 127).astype(np.uint8)
        size = None if labels is None else (labels.shape[1], labels.shape[0])
        image = photo_of_size(photo, size, upright=True)
        return Sample(name, image, [0], [self._targets[index]], labels)

    @property
    def has_truth(self) -> bool:
        """Whether there are masks."""
        return os.path.isdir(self.root / "masks")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder. Folders that cannot be listed are skipped."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)
