"""Data sets in the layouts they are distributed in: each gives a photo, its classes and its ground truth."""

import contextlib
import io
import json
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset

from captum_regioncam.files import read_photo

__all__ = ["VOC_CLASSES", "Coco", "Ilsvrc2012", "PhotoDataset", "PhotoFolder", "Sample", "Voc2012"]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Sample:
    """One photo.

    Attributes:
        name: the photo's, unique in the data set; seeds are called after it.
        photo: RGB.
        keys: its classes, counted without the background.
        targets: for each key the network's output.
        labels: (height, width) 0 for the background, key + 1, and 255 for what does not count; None where unknown.
        boxes: (B, 4) x0, y0, x1, y1 in the photo's pixels, not rounded; None where unknown.

    Example::

        >>> Sample("2007_000032", photo=Image.new("RGB", (500, 375)), keys=[0, 14], targets=[0, 14]).labels is None
        True
    """

    name: str
    photo: Image.Image
    keys: list[int]
    targets: list[int]
    labels: npt.NDArray[np.uint8] | None = None
    boxes: npt.NDArray[np.float64] | None = None


class PhotoDataset(Dataset[Sample]):
    """What the data sets have in common.

    Ground truth of the benchmarks is of the stored pixels, as their reference code reads them; where only the photo
    turned by its EXIF orientation has the size of the ground truth, that is taken. A :class:`PhotoFolder` turns photos.

    Attributes:
        names: one a photo, in the order of the samples.
        classes: names of the keys.

    Raises:
        ValueError: on construction the layout is incomplete (the message says what is missing where); on access a file
            of the photo is missing, truncated or does not fit.

    Example::

        >>> dataset = Voc2012("VOCdevkit/VOC2012", split="train")
        >>> len(dataset) == len(dataset.names)
        True
        >>> for sample in dataset:
        ...     print(sample.name, sample.photo.size, sample.keys)
        ...     break
        2007_000001 (60, 44) [0, 1]
    """

    names: Sequence[str]
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)


class Voc2012(PhotoDataset):
    """PASCAL VOC 2012: JPEGImages/, SegmentationClass/, Annotations/ and ImageSets/Segmentation/SPLIT.txt.

    Args:
        root: VOCdevkit/VOC2012, or a folder above it.
        split: train, val, or any other list there; one of the augmented set (train_aug) names each photo's mask.
        labels_from: the photo's classes are those of its "xml" or of its "mask".
        ground_truth: read the masks.

    Raises:
        ValueError: as :class:`PhotoDataset`.

    Example::

        >>> sample = Voc2012("VOCdevkit/VOC2012", split="train")[0]
        >>> [VOC_CLASSES[key] for key in sample.keys], sample.labels.shape
        (['aeroplane', 'bicycle'], (44, 60))
    """

    classes = VOC_CLASSES

    def __init__(
        self, root: str | os.PathLike[str], split: str = "train", labels_from: str = "xml", ground_truth: bool = True
    ) -> None:
        if labels_from not in ("xml", "mask"):
            raise ValueError(f"labels_from={labels_from!r}: expects 'xml' or 'mask'.")
        wanted = ["JPEGImages", f"ImageSets/Segmentation/{split}.txt"]
        wanted += ["Annotations"] if labels_from == "xml" else []
        wanted += ["SegmentationClass"] if (ground_truth or labels_from == "mask") and "aug" not in split else []
        self.root = _root(root, ["", "VOC2012", "VOCdevkit/VOC2012"], wanted, "VOC 2012")
        self.labels_from, self.ground_truth = labels_from, ground_truth
        lines = [line.split() for line in (self.root / wanted[1]).read_text().splitlines() if line.strip()]
        self.names = [Path(line[0]).stem for line in lines]
        # Lists of the augmented set hold the paths of photo and mask.
        masks = [
            line[1].lstrip("/") if len(line) > 1 else f"SegmentationClass/{Path(line[0]).stem}.png" for line in lines
        ]
        self._masks = [self.root / mask for mask in masks]

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        labels = None
        if self.ground_truth or self.labels_from == "mask":
            labels = _read_labels(self._masks[index], len(self.classes))
        if self.labels_from == "xml":
            path = self.root / "Annotations" / f"{name}.xml"
            found = {_text(item, "name", path) for item in _read_xml(path).iter("object")}
            if unknown := found - set(self.classes):
                raise ValueError(f"{path}: {', '.join(sorted(unknown))}: no classes of VOC 2012.")
            keys = [key for key, name_ in enumerate(self.classes) if name_ in found]
        else:
            keys = [int(label) - 1 for label in np.unique(labels) if 0 < label < 255]  # type: ignore[arg-type]
        size = None if labels is None else (labels.shape[1], labels.shape[0])
        photo = _photo_of_size(self.root / "JPEGImages" / f"{name}.jpg", size)
        return Sample(name, photo, keys, keys, labels if self.ground_truth else None)


class Coco(PhotoDataset):
    """MS COCO 2014 or 2017: SPLIT/ and annotations/instances_SPLIT.json, read by pycocotools.

    The semantic mask is drawn of all instances, crowds too, the larger first, so that what lies on something else stays
    visible.

    Args:
        root: the folder of both.
        split: such as train2014 or val2017.
        ground_truth: draw the masks.

    Raises:
        ValueError: as :class:`PhotoDataset`.

    Example::

        >>> dataset = Coco("coco", split="val2014")
        >>> [dataset.classes[key] for key in dataset[2].keys]
        ['red', 'green']
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "val2014", ground_truth: bool = True) -> None:
        from pycocotools.coco import COCO

        annotations = f"annotations/instances_{split}.json"
        self.root = _root(root, ["", "coco"], [split, annotations], "COCO")
        self.split, self.ground_truth = split, ground_truth
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                self.coco = COCO(str(self.root / annotations))
            except (ValueError, KeyError, AssertionError) as error:
                raise ValueError(f"{self.root / annotations}: cannot be read ({error!r}).") from error
        categories = self.coco.loadCats(sorted(self.coco.getCatIds()))
        self.classes = [category["name"] for category in categories]
        self._keys = {category["id"]: key for key, category in enumerate(categories)}
        self._images = self.coco.loadImgs(sorted(self.coco.getImgIds()))
        self.names = [Path(image["file_name"]).stem for image in self._images]

    def __getitem__(self, index: int) -> Sample:
        image = self._images[index]
        size = (image["width"], image["height"])
        photo = _photo_of_size(self.root / self.split / image["file_name"], size)
        instances = self.coco.loadAnns(self.coco.getAnnIds(imgIds=image["id"]))
        keys = sorted({self._keys[instance["category_id"]] for instance in instances})
        labels = None
        if self.ground_truth:
            labels = np.zeros((image["height"], image["width"]), dtype=np.uint8)
            for instance in sorted(instances, key=lambda instance: -instance["area"]):
                labels[self.coco.annToMask(instance) > 0] = self._keys[instance["category_id"]] + 1
        return Sample(self.names[index], photo, keys, keys, labels)


class Ilsvrc2012(PhotoDataset):
    """ILSVRC2012's validation photos with their boxes.

    Looked for below the root: the photos (*.JPEG, in one folder or in one a class) in ILSVRC2012_img_val/, val/ or
    Data/CLS-LOC/val/; the boxes (ILSVRC2012_val_*.xml) in Annotations/CLS-LOC/val/, bbox/val/, bbox/ or val/; and the
    classes, which the network's outputs are numbered by, as sorted WordNet ids in LOC_synset_mapping.txt,
    synset_words.txt or synsets.txt, or as the names of the photos' folders.

    Args:
        root: the folder of these, or of an ILSVRC/ with them.

    Raises:
        ValueError: as :class:`PhotoDataset`.

    Example::

        >>> sample = Ilsvrc2012("ILSVRC2012")[0]
        >>> sample.name, sample.boxes
        ('ILSVRC2012_val_00000001', array([[ 4.,  8., 21., 29.]]))
    """

    _PHOTOS = ("ILSVRC2012_img_val", "Data/CLS-LOC/val", "val")
    _BOXES = ("Annotations/CLS-LOC/val", "ILSVRC2012_bbox_val_v3/val", "bbox/val", "bbox", "val")
    _SYNSETS = ("LOC_synset_mapping.txt", "synset_words.txt", "synsets.txt")

    def __init__(self, root: str | os.PathLike[str]) -> None:
        roots = [Path(root), Path(root) / "ILSVRC"]
        photos = {path.stem: path for path in _first(roots, self._PHOTOS, ("*.JPEG", "*/*.JPEG"))}
        self._boxes = {path.stem: path for path in _first(roots, self._BOXES, ("*.xml", "*/*.xml"))}
        lists = _first(roots, (".",), self._SYNSETS)
        folders = {path.parent.name for path in photos.values() if path.parent.name.startswith("n")}
        ids = {line.split()[0] for line in lists[0].read_text().splitlines() if line.strip()} if lists else folders
        missing = {
            f"*.JPEG in {' or '.join(self._PHOTOS)}": photos,
            f"*.xml in {' or '.join(self._BOXES)}": self._boxes,
            f"one of {', '.join(self._SYNSETS)}": ids,
        }
        if absent := [what for what, found in missing.items() if not found]:
            raise ValueError(f"{root}: not ILSVRC2012's validation set: has no {'; no '.join(absent)}.")
        self.classes = sorted(ids)
        self._keys = {synset: key for key, synset in enumerate(self.classes)}
        self._photos = [photos[name] for name in sorted(photos)]
        self.names = [path.stem for path in self._photos]

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        if name not in self._boxes:
            raise ValueError(f"{name}: has no {name}.xml among the boxes.")
        path = self._boxes[name]
        tree = _read_xml(path)
        try:
            size = (int(_text(tree, "size/width", path)), int(_text(tree, "size/height", path)))
            objects = list(tree.iter("object"))
            corners = ("xmin", "ymin", "xmax", "ymax")
            boxes = [[int(float(_text(item, f"bndbox/{corner}", path))) for corner in corners] for item in objects]
        except ValueError as error:
            raise error if str(path) in str(error) else ValueError(f"{path}: {error}.") from error
        synsets = {_text(item, "name", path) for item in objects}
        if len(synsets) != 1 or not synsets <= set(self.classes):
            raise ValueError(f"{path}: names {', '.join(sorted(synsets)) or 'no object'}; expects one known class.")
        key = self._keys[synsets.pop()]
        photo = _photo_of_size(self._photos[index], size, resized=True)
        in_photo = np.array(boxes) * [*photo.size, *photo.size] / [*size, *size]
        return Sample(name, photo, [key], [key], boxes=in_photo)


class PhotoFolder(PhotoDataset):
    """Photos of one object each: images/, masks/NAME.png and index.json, a list of {"name": ..., "target": class}.

    Masks are bright (above 127) on the object. All objects are one class, "foreground".

    Args:
        root: the folder of the three.
        ground_truth: read the masks.

    Raises:
        ValueError: as :class:`PhotoDataset`.

    Example::

        >>> sample = PhotoFolder("photos")[0]
        >>> sample.targets, float(sample.labels.mean().round(2))
        ([0], 0.15)
    """

    classes = ("foreground",)

    def __init__(self, root: str | os.PathLike[str], ground_truth: bool = True) -> None:
        self.root = _root(root, [""], ["images", "index.json", *(["masks"] if ground_truth else [])], "photo")
        self.ground_truth = ground_truth
        path = self.root / "index.json"
        try:
            entries = json.loads(path.read_text())
            self._targets = {str(entry["name"]): int(entry["target"]) for entry in entries}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path}: expects a list of {{"name": ..., "target": ...}} ({error!r}).') from error
        self.names = list(self._targets)
        images = [path for path in sorted((self.root / "images").iterdir()) if path.suffix.lower() in _SUFFIXES]
        self._photos = {path.stem: path for path in images}
        if len(self._photos) < len(images):
            twice = Counter(path.stem for path in images).most_common(1)[0][0]
            raise ValueError(f"{self.root / 'images'}: {twice} is the name of several photos.")

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        if name not in self._photos:
            raise ValueError(f"{self.root / 'images'}: has no photo {name}, which index.json lists.")
        labels = None
        if self.ground_truth:
            path = self.root / "masks" / f"{name}.png"
            mask = np.asarray(_open(path).convert("L"))
            if 0 < mask.max() <= 127:
                raise ValueError(f"{path}: its brightest pixel is {mask.max()}; expects 255 (above 127) on the object.")
            labels = (mask > 127).astype(np.uint8)
        size = None if labels is None else (labels.shape[1], labels.shape[0])
        photo = _photo_of_size(self._photos[name], size, upright=True)
        return Sample(name, photo, [0], [self._targets[name]], labels)


def _root(root: str | os.PathLike[str], below: Iterable[str], wanted: Sequence[str], what: str) -> Path:
    """Find the folder that has what is wanted."""
    candidates = [Path(root) / part for part in below]
    best = max(candidates, key=lambda path: sum((path / part).exists() for part in wanted))
    if missing := [part for part in wanted if not (best / part).exists()]:
        raise ValueError(f"{best}: not a {what} folder: has no {', no '.join(missing)}.")
    return best


def _first(roots: Iterable[Path], folders: Iterable[str], patterns: Sequence[str]) -> list[Path]:
    """Return the files that match the first pattern that any do, in the first folder that has some."""
    found = (sorted((root / part).glob(pattern)) for root in roots for part in folders for pattern in patterns)
    return next((paths for paths in found if paths), [])


def _photo_of_size(
    path: Path, size: tuple[int, int] | None, *, upright: bool = False, resized: bool = False
) -> Image.Image:
    """Read a photo as it is stored or, preferably if ``upright``, as EXIF turns it: which has its ground truth's size.

    ``resized`` also takes one of another size but the same proportions.
    """
    preferred = read_photo(path, upright=upright)
    if size is None or preferred.size == size:  # and nearly every photo has been read once
        return preferred
    other = read_photo(path, upright=not upright)
    fitting = [other] if other.size == size else []
    if resized:
        both = (preferred, other)
        fitting += [photo for photo in both if abs(photo.width * size[1] / (photo.height * size[0]) - 1) < 0.02]
    if not fitting:
        raise ValueError(f"{path}: {' x '.join(map(str, preferred.size))} pixels; its ground truth has {size}.")
    return fitting[0]


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def _read_labels(path: Path, classes: int) -> npt.NDArray[np.uint8]:
    image = _open(path)
    if image.mode not in ("P", "L"):
        raise ValueError(f"{path}: a label map has one number a pixel; this is {image.mode}.")
    labels: npt.NDArray[np.uint8] = np.array(image)
    if (unknown := labels[(labels > classes) & (labels < 255)]).size:
        raise ValueError(f"{path}: label {unknown[0]} is none of 0 to {classes} and 255.")
    return labels


def _read_xml(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ValueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def _text(element: Any, tag: str, path: Path) -> str:
    text: str | None = element.findtext(tag)
    if not text:
        raise ValueError(f"{path}: has an element without {tag}.")
    return text.strip()
