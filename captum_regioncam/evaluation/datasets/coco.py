"""MS COCO 2014 and 2017."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoDataset, Sample
from captum_regioncam.evaluation.datasets.reading import (
    IGNORED,
    MOST_CLASSES,
    check_readable,
    checked_names,
    data_root,
    photo_of_size,
    read_labels,
    whole_number,
)
from captum_regioncam.files.inputs import read_json

__all__ = ["CROWDS", "Coco"]

CROWDS = ("include", "ignore")

_LONGEST_OUTLINE = 1_000_000  # in pixels; pycocotools takes about 100 bytes for each


class Coco(PhotoDataset):
    """MS COCO 2014 or 2017: SPLIT/ and annotations/instances_SPLIT.json.

    The semantic mask is drawn by pycocotools from all instances, including crowds. Larger instances are drawn first, so
    that objects on top of others stay visible. ``masks`` names finished masks instead, in the layouts that WSSS
    repositories distribute:

    - ``NAME.png``, named after the photo, such as COCO_train2014_000000000009.png (CLIP-ES, ToCo);
    - ``000000000009.png``, the photo's id with 12 digits (MCTformer's and others' coco_seg_anno/);
    - ``9.png``, the photo's id (ReCAM, LPCAM).

    They are in the folder itself, or below it in SPLIT/, or in SPLIT/ without the year, such as train/. They number the
    classes from 1 in the order of COCO's category ids, so 1 to 80; 255 does not count.

    Args:
        root: the folder that contains SPLIT/ and annotations/.
        split: the split, such as train2014 or val2017.
        ground_truth: draw or read the masks, of at most 254 classes.
        masks: a folder of finished masks. Default: the masks are drawn.
        crowds: what a crowd region is in a mask that is drawn: "include" draws it like an instance, as the masks that
            WSSS repositories distribute do; "ignore" gives 255 to its pixels, unless another instance is there. The
            photo's classes include those of its crowds either way.

    Raises:
        ArgumentError: ``crowds`` is something else, or "ignore" for finished masks; or ``masks`` has none for the
            split.
        ValueError: as in :class:`PhotoDataset`. An annotation that is broken is an error of its photo alone, and so is
            a mask that is missing or that has a class which the photo's annotations do not have.

    Example::

        >>> dataset = Coco("coco", split="val2014")
        >>> [dataset.classes[key] for key in dataset[2].keys]
        ['red', 'green']
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "val2014",
        ground_truth: bool = True,
        masks: str | os.PathLike[str] | None = None,
        crowds: str = "include",
    ) -> None:
        if crowds not in CROWDS:
            raise ArgumentError(Argument("crowds", crowds), f": expects one of {', '.join(CROWDS)}.")
        if masks is not None and crowds != "include":
            raise ArgumentError(
                Argument("crowds", crowds), ": applies to masks that are drawn; leave out ", Argument("masks"), "."
            )
        annotations = f"annotations/instances_{split}.json"
        self.root = data_root(root, ["", "coco"], [split, annotations], "COCO", of_split=[split, annotations])
        self.split, self.ground_truth, self.crowds = split, ground_truth, crowds
        self._path = self.root / annotations
        self._masks = None if masks is None else Path(masks)
        self.index_files = [self._path]
        content = read_json(self._path)
        with _errors_in(f"{self._path}: cannot be read"):
            categories, self._images = _by_id(content["categories"]), _by_id(content["images"])
            self.classes = [_text(category["name"]) for category in categories]
            self._keys = {category["id"]: key for key, category in enumerate(categories)}
            names = [Path(_text(image["file_name"])).with_suffix("").as_posix() for image in self._images]
            self._instances: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in self._images}
            for instance in content.get("annotations", ()):
                self._instances.setdefault(_id(instance["image_id"]), []).append(instance)
        self.names = checked_names(names, self._path)
        if ground_truth and len(self.classes) > MOST_CLASSES:
            raise ValueError(
                f"{self._path}: has {len(self.classes)} categories, but 8-bit masks hold {MOST_CLASSES} classes. With "
                "ground_truth=False, its photos can be read."
            )
        if ground_truth and self._masks is not None:
            self._check_masks(self._masks)

    def __getitem__(self, index: int) -> Sample:
        image, name = self._images[index], self.names[index]
        with _errors_in(f"{self._path}: has a broken entry for {name}"):
            width, height = (whole_number(image[side], 1) for side in ("width", "height"))
            instances = self._instances[image["id"]]
            keys = sorted(set(map(self._key, instances)))
        photo = photo_of_size(self.root / self.split / image["file_name"], (width, height))
        labels = None
        if self.ground_truth and self._masks is not None:
            labels = self._read(self._masks, index, keys, (height, width))
        elif self.ground_truth:
            with _errors_in(f"{self._path}: has a broken annotation of {name}"):
                labels = self._drawn(instances, height, width)
        return Sample(name, photo, keys, keys, labels)

    def _drawn(self, instances: list[dict[str, Any]], height: int, width: int) -> npt.NDArray[np.uint8]:
        def turn(instance: dict[str, Any]) -> tuple[bool, float]:
            return ignored(instance), _area(instance)

        def ignored(instance: dict[str, Any]) -> bool:
            return self.crowds == "ignore" and bool(instance.get("iscrowd"))

        labels = np.zeros((height, width), dtype=np.uint8)
        for instance in sorted(instances, key=turn, reverse=True):
            label = IGNORED if ignored(instance) else self._key(instance) + 1
            labels[_mask(instance["segmentation"], height, width)] = label
        return labels

    def _read(self, folder: Path, index: int, keys: list[int], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Read a photo's finished mask, which must be one of this photo."""
        candidates = list(self._candidates(folder, index))
        path = next(filter(os.path.exists, candidates), candidates[0])
        labels = read_labels(path, len(self.classes))
        if labels.shape != size:
            raise ValueError(f"{path}: has {labels.shape} pixels (height, width), but its photo has {size}.")
        found = np.unique(labels)
        if unknown := [int(label) for label in found if 0 < label < IGNORED and label - 1 not in keys]:
            raise ValueError(
                f"{path}: has label {unknown[0]} ({self.classes[unknown[0] - 1]}), which {self._path.name} does not "
                "have in this photo. Masks must number the classes from 1 in the order of the category ids."
            )
        return labels

    def _candidates(self, folder: Path, index: int) -> Iterator[Path]:
        """Yield where a photo's finished mask may be."""
        name, identity = self.names[index], self._images[index]["id"]
        numbers = [f"{identity:012d}", f"{identity}"] if isinstance(identity, int) else []
        for place in dict.fromkeys((".", self.split, self.split.rstrip("0123456789"))):
            yield from (folder / place / f"{file}.png" for file in (name, *numbers))

    def _check_masks(self, folder: Path) -> None:
        """Check before the first photo that the folder contains masks of this split."""
        if any(os.path.exists(path) for index in range(len(self.names)) for path in self._candidates(folder, index)):
            return
        check_readable(folder)
        names = ", ".join(path.relative_to(folder).as_posix() for path in self._candidates(folder, 0))
        raise ArgumentError(Argument("masks", folder), f": has no mask of {self.split}, such as {names}.")

    def _key(self, instance: dict[str, Any]) -> int:
        category = _id(instance["category_id"])
        if category not in self._keys:
            raise ValueError(f"{category!r:.40} is the id of no category")
        return self._keys[category]


@contextmanager
def _errors_in(what: str) -> Iterator[None]:
    """Turn the errors of code that expects JSON of another form into a ValueError that says what is broken."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{what} ({reason}).") from error


def _by_id(records: Any) -> list[dict[str, Any]]:
    counts = Counter(_id(record["id"]) for record in records)
    if several := [one for one, count in counts.items() if count > 1]:
        raise ValueError(f"the id {several[0]!r:.40} is given twice")
    return sorted(records, key=lambda record: record["id"])


def _id(value: Any) -> Any:
    if not isinstance(value, (int, float, str)) or value != value:
        raise ValueError(f"an id that is {'not a number' if value != value else type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a name that is {type(value).__name__}")
    return value


def _area(instance: dict[str, Any]) -> float:
    area = instance["area"]
    if not isinstance(area, (int, float)) or area != area:
        raise ValueError("an area that is not a number")
    return area


def _mask(segmentation: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Draw an instance, after the checks that pycocotools does not make: it would crash, or read beyond its memory."""
    if isinstance(segmentation, list):
        from pycocotools import mask

        _check_polygons(segmentation, height, width)
        drawn: npt.NDArray[np.bool_] = mask.decode(mask.merge(mask.frPyObjects(segmentation, height, width))) > 0
        return drawn
    if segmentation["size"] != [height, width]:
        raise ValueError(f"run lengths for a size other than {height} x {width}")
    counts = segmentation["counts"]
    runs = [whole_number(count) for count in (_counts(counts) if isinstance(counts, str) else counts)]
    if sum(runs) != height * width:
        raise ValueError(f"run lengths of {sum(runs)} pixels instead of {height} x {width}")
    return np.repeat(np.arange(len(runs)) % 2 > 0, runs).reshape(width, height).T


def _check_polygons(polygons: list[Any], height: int, width: int) -> None:
    if not polygons:
        raise ValueError("no polygon")
    length = 0.0
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon that is not a list of x, y, x, y, x, y and so on")
        for start, side in enumerate((width, height)):
            values = polygon[start::2]
            for value in values:
                if not isinstance(value, (int, float)) or not -side <= value <= 2 * side:
                    raise ValueError(f"the coordinate {value!r:.40} in a photo of {width} x {height} pixels")
            length += float(np.abs(np.diff(values, append=values[0])).sum())
    if length > _LONGEST_OUTLINE:
        raise ValueError(f"an outline of {length:.0f} pixels")


def _counts(text: str) -> list[int]:
    """Decode COCO's compressed run lengths: 5 bits per character and, from the fourth on, differences to two before."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode():
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("broken compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more follow
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths that end early")
    return counts
