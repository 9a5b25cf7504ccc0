"""PASCAL VOC 2012."""

import os
from pathlib import Path

import numpy as np

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoDataset, Sample
from captum_regioncam.evaluation.datasets.reading import (
    checked_names,
    data_root,
    photo_of_size,
    read_labels,
    read_xml,
    text_of,
)
from captum_regioncam.files.inputs import read_text

__all__ = ["VOC_CLASSES", "Voc2012"]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Voc2012(PhotoDataset):
    """PASCAL VOC 2012: JPEGImages/, SegmentationClass/, Annotations/ and ImageSets/Segmentation/SPLIT.txt.

    A list whose name contains "aug", such as train_aug (10,582 photos), belongs to the augmented set (Hariharan et al.,
    ICCV 2011). The masks of this set are in SegmentationClassAug/, which WSSS repositories distribute. The lines of the
    list name photos, or the paths of photo and mask, as in "/JPEGImages/2007_000032.jpg
    /SegmentationClassAug/2007_000032.png".

    Args:
        root: VOCdevkit/VOC2012, or a folder above it.
        split: train, val, train_aug, or any other list in ImageSets/Segmentation/.
        labels_from: take a photo's classes from its "xml" or its "mask". In the augmented set, a photo without an XML
            file gets the classes of its mask.
        ground_truth: read the masks.

    Raises:
        ArgumentError: ``labels_from`` is something else.
        ValueError: as in :class:`PhotoDataset`.

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
            raise ArgumentError(Argument("labels_from", labels_from), ": expects 'xml' or 'mask'.")
        wanted = ["JPEGImages", f"ImageSets/Segmentation/{split}.txt"]
        self._augmented = "aug" in split
        folder = "SegmentationClassAug" if self._augmented else "SegmentationClass"
        masks = folder if ground_truth and labels_from == "xml" else None  # the classes need no masks
        if not self._augmented:
            wanted += ["Annotations"] if labels_from == "xml" else []
            wanted += [folder] if ground_truth or labels_from == "mask" else []
        self.root = data_root(root, ["", "VOC2012", "VOCdevkit/VOC2012"], wanted, "VOC 2012", wanted[1:2], masks)
        self.labels_from, self.ground_truth = labels_from, ground_truth
        self.index_files = [self.root / wanted[1]]
        lines = [line.split() for line in read_text(self.root / wanted[1]).splitlines() if line.strip()]
        self.names = checked_names([Path(line[0]).stem for line in lines], self.root / wanted[1])
        # Lists of the augmented set may hold the paths of photo and mask.
        files = [line[1].lstrip("/") if len(line) > 1 else f"{folder}/{Path(line[0]).stem}.png" for line in lines]
        self._masks = [self.root / mask for mask in checked_names(files, self.root / wanted[1])]
        if self._augmented:
            self._check_augmented(split)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        path = self.root / "Annotations" / f"{name}.xml"
        of_xml = self.labels_from == "xml" and (not self._augmented or os.path.lexists(path))
        labels = None
        if self.ground_truth or not of_xml:
            labels = read_labels(self._masks[index], len(self.classes))
        if of_xml:
            found = {text_of(item, "name", path) for item in read_xml(path).iter("object")}
            if unknown := found - set(self.classes):
                raise ValueError(f"{path}: {', '.join(sorted(unknown))}: not among the classes of VOC 2012.")
            keys = [key for key, name_ in enumerate(self.classes) if name_ in found]
        else:
            keys = [int(label) - 1 for label in np.unique(labels) if 0 < label < 255]  # type: ignore[arg-type]
        size = None if labels is None else (labels.shape[1], labels.shape[0])
        photo = photo_of_size(self.root / "JPEGImages" / f"{name}.jpg", size)
        return Sample(name, photo, keys, keys, labels if self.ground_truth else None)

    @property
    def has_truth(self) -> bool:
        """Whether the first photo has a mask: those of the test split have none."""
        return bool(self._masks) and os.path.exists(self._masks[0])

    def _check_augmented(self, split: str) -> None:
        """Check before the first photo that the augmented set's masks are there, if they are needed."""
        if not self.ground_truth and self.labels_from == "xml" and os.path.isdir(self.root / "Annotations"):
            return
        for folder in dict.fromkeys(mask.parent for mask in self._masks):
            if not os.path.isdir(folder):
                raise ValueError(
                    f"{self.root}: has no {folder.relative_to(self.root).as_posix()}, the masks of {split}. WSSS "
                    "repositories distribute them as SegmentationClassAug."
                )
