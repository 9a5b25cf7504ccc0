"""wsolevaluation's data sets (Choe et al., CVPR 2020): its metadata/, and photos and masks in its dataset/."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from captum_regioncam.evaluation.datasets.base import PhotoDataset, Sample
from captum_regioncam.evaluation.datasets.reading import (
    IGNORED,
    checked_names,
    data_root,
    photo_of_size,
    whole_number,
)
from captum_regioncam.files.inputs import read_text
from captum_regioncam.files.photos import read_image

__all__ = ["Cub200", "OpenImages30k", "WsolDataset", "WsolIlsvrc", "has_metadata"]

Row = TypeVar("Row")


class WsolDataset(PhotoDataset):
    """One of wsolevaluation's data sets: metadata/NAME/SPLIT/*.txt and dataset/NAME/.

    A photo's name is its image id, with its folders and its extension, as wsolevaluation names score maps. Its classes
    are numbered as there, and so are the network's outputs.

    Attributes:
        title: what wsolevaluation calls the data set.
        count: how many classes it has.
    """

    title: str
    count: int

    _truth_files: Sequence[str] = ()

    def __init__(self, root: str | os.PathLike[str], split: str = "test", ground_truth: bool = True) -> None:
        self.ground_truth = ground_truth
        files = ["image_ids", "class_labels", *(self._truth_files if ground_truth else ())]
        wanted = [f"dataset/{self.title}", *(f"metadata/{self.title}/{split}/{file}.txt" for file in files)]
        self.root = data_root(root, [""], wanted, f"wsolevaluation {self.title}", of_split=wanted[1:])
        self.index_files = [self.root / file for file in wanted[1:]]
        lines = read_text(self.index_files[0]).splitlines()
        self.names = checked_names([line.strip() for line in lines if line.strip()], self.index_files[0])
        self._keys = dict(_rows(self.index_files[1], 2, lambda fields: whole_number(fields[0], 0, self.count - 1)))
        named = {key: self._class_name(name, key) for name, key in self._keys.items()}
        self.classes = [named.get(key, str(key)) for key in range(self.count)]
        if ground_truth:
            self._read_truth()

    @property
    def has_truth(self) -> bool:
        """Whether the split's lists of boxes or masks are there: some splits have none."""
        return all((self.index_files[0].parent / f"{file}.txt").exists() for file in self._truth_files)

    def _class_name(self, name: str, key: int) -> str:
        """Return the name of a photo's class, which is that of the photo's folder."""
        return re.sub(r"^\d+\.", "", Path(name).parent.name) or str(key)

    def _read_truth(self) -> None:
        """Read the lists of boxes or masks."""

    def _key(self, name: str) -> int:
        if name not in self._keys:
            raise ValueError(f"{name}: has no line in {self.index_files[1]}.")
        return self._keys[name]

    def _photo(self, name: str) -> Path:
        return self.root / "dataset" / self.title / name


class _WsolBoxes(WsolDataset):
    """Photos with boxes, in the pixels of the sizes that image_sizes.txt gives."""

    truth = "boxes"
    _truth_files = ("localization", "image_sizes")

    def _read_truth(self) -> None:
        boxes, sizes = self.index_files[2:]
        self._boxes = _together(_rows(boxes, 5, lambda fields: [whole_number(field) for field in fields]))
        self._sizes = dict(_rows(sizes, 3, lambda fields: [whole_number(field, 1) for field in fields]))

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        key = self._key(name)
        if not self.ground_truth:
            return Sample(name, photo_of_size(self._photo(name), None), [key], [key])
        for path, found in zip(self.index_files[2:], (self._boxes, self._sizes), strict=True):
            if name not in found:
                raise ValueError(f"{name}: has no line in {path}.")
        width, height = self._sizes[name]
        photo = photo_of_size(self._photo(name), (width, height), resized=True)
        in_photo = np.array(self._boxes[name]) * [*photo.size, *photo.size] / [width, height, width, height]
        return Sample(name, photo, [key], [key], boxes=in_photo)


class Cub200(_WsolBoxes):
    """CUB-200-2011 as wsolevaluation lays it out: photos of birds with boxes.

    They are in metadata/CUB/SPLIT/ (image_ids.txt, class_labels.txt, localization.txt and image_sizes.txt) and in
    dataset/CUB/, below which image ids are paths.

    Args:
        root: the folder that contains metadata/ and dataset/, such as a clone of wsolevaluation.
        split: "test", "val" (CUBV2, for the choice of thresholds) or "train".
        ground_truth: read the boxes.

    Raises:
        ValueError: as in :class:`PhotoDataset`.

    Example::

        >>> sample = Cub200("wsolevaluation", split="test")[0]
        >>> sample.name, sample.keys, sample.boxes
        ('001.Red_bird/0.jpg', [0], array([[ 4.,  8., 21., 29.]]))
    """

    title, count = "CUB", 200


class WsolIlsvrc(_WsolBoxes):
    """ILSVRC as wsolevaluation lays it out, for :class:`~captum_regioncam.evaluation.Ilsvrc2012`.

    The split "test" is ILSVRC2012's validation set, and "val" is ImageNetV2.
    """

    title, count = "ILSVRC", 1000

    def _class_name(self, name: str, key: int) -> str:
        return str(key)  # photos lie in one folder, or in folders of numbers


class OpenImages30k(WsolDataset):
    """OpenImages30k as wsolevaluation lays it out: photos of one class each, with the masks of its objects.

    They are in metadata/OpenImages/SPLIT/ (image_ids.txt, class_labels.txt and localization.txt) and in
    dataset/OpenImages/, below which image ids, masks and ignored regions are paths.

    The ``labels`` of a sample are on the square of 224 x 224 pixels on which :func:`evaluate` counts PxAP, as in
    wsolevaluation: each mask is resized to this square (nearest pixel), and all masks are united. The region to be
    ignored is 255 outside of them.

    Args:
        root: the folder that contains metadata/ and dataset/, such as a clone of wsolevaluation.
        split: "test", "val" or "train", whose photos have no masks.
        ground_truth: read the masks.

    Raises:
        ValueError: as in :class:`PhotoDataset`.

    Example::

        >>> sample = OpenImages30k("wsolevaluation", split="test")[0]
        >>> sample.name, sample.keys, sample.labels.shape
        ('test/0bt_c3/0.jpg', [0], (224, 224))
    """

    title, count, truth = "OpenImages", 100, "pixels"
    _truth_files = ("localization",)

    def _read_truth(self) -> None:
        path = self.index_files[2]
        rows = list(_rows(path, 3, lambda fields: fields))
        for name in (name for _, fields in rows for name in fields if name):
            checked_names([name], path)
        self._masks = _together(rows)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        key = self._key(name)
        photo = photo_of_size(self._photo(name), None)
        return Sample(name, photo, [key], [key], self._labels(name, key) if self.ground_truth else None)

    def _labels(self, name: str, key: int) -> npt.NDArray[np.uint8]:
        if name not in self._masks:
            raise ValueError(f"{name}: has no line in {self.index_files[2]}.")
        ignored, *more = (ignored for _, ignored in self._masks[name])
        if any(more):
            raise ValueError(f"{self.index_files[2]}: names a region to be ignored after the first line of {name}.")
        inside = np.any([self._on_square(mask) for mask, _ in self._masks[name]], axis=0)
        labels = np.where(inside, key + 1, 0).astype(np.uint8)
        if ignored:
            labels[self._on_square(ignored) & ~inside] = IGNORED
        return labels

    def _on_square(self, mask: str, side: int = 224) -> npt.NDArray[np.bool_]:
        """Read a mask at the pixels that OpenCV considers nearest to those of a square: those up and to the left."""
        pixels = np.asarray(read_image(self._photo(mask), "L"))
        steps = (np.arange(side) * (1 / (side / length)) for length in pixels.shape)  # rounded as in OpenCV
        rows, columns = (np.minimum(at.astype(int), length - 1) for at, length in zip(steps, pixels.shape, strict=True))
        found: npt.NDArray[np.bool_] = pixels[rows][:, columns] > 0
        return found


def has_metadata(root: str | os.PathLike[str], title: str) -> bool:
    """Return whether a folder has wsolevaluation's metadata of a data set."""
    return os.path.isdir(Path(root) / "metadata" / title)


def _rows(path: Path, fields: int, parse: Callable[[list[str]], Row]) -> list[tuple[str, Row]]:
    """Read lines of an image id and its values, separated by commas."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        name, *rest = line.strip().split(",")
        try:
            if len(rest) != fields - 1:
                raise ValueError(f"{len(rest) + 1} fields instead of {fields}")
            rows.append((name, parse(rest)))
        except ValueError as error:
            raise ValueError(f"{path}: line {number} cannot be read ({error}).") from error
    return rows


def _together(rows: Iterable[tuple[str, Row]]) -> Mapping[str, list[Row]]:
    """Collect the rows of each image id."""
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for name, row in rows:
        found[name].append(row)
    return dict(found)
