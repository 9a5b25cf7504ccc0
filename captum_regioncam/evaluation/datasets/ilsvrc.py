"""ILSVRC2012: photos with boxes."""

import os
from pathlib import Path

import numpy as np

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoDataset, Sample
from captum_regioncam.evaluation.datasets.reading import (
    check_readable,
    first_files,
    photo_of_size,
    read_xml,
    text_of,
    whole_number,
)
from captum_regioncam.evaluation.datasets.wsol import WsolIlsvrc, has_metadata
from captum_regioncam.files.inputs import read_text

__all__ = ["Ilsvrc2012"]


class Ilsvrc2012(PhotoDataset):
    """ILSVRC2012's validation photos with their boxes.

    They are searched for below the root: the photos (``*.JPEG``, in one folder or in one folder per class) in
    ILSVRC2012_img_val/, val/ or Data/CLS-LOC/val/; the boxes (``ILSVRC2012_val_*.xml``) in Annotations/CLS-LOC/val/,
    ILSVRC2012_bbox_val_v3/val/, bbox/val/, bbox/ or val/; and the classes in LOC_synset_mapping.txt, synset_words.txt
    or synsets.txt, or else in the names of the photos' folders. The classes' sorted WordNet ids number the network's
    outputs.

    They are also read as wsolevaluation lays them out, from metadata/ILSVRC/SPLIT/ and dataset/ILSVRC/. Photos are then
    named by their image ids, and classes by their numbers.

    Args:
        root: the folder that contains these, or an ILSVRC/ folder with them; or one with metadata/ILSVRC/.
        split: the split in wsolevaluation's layout: "test" (default), which is ILSVRC2012's validation set, or "val",
            which is ImageNetV2.

    Raises:
        ArgumentError: ``split`` is given, but there is no metadata/ILSVRC/.
        ValueError: as in :class:`PhotoDataset`.

    Example::

        >>> sample = Ilsvrc2012("ILSVRC2012")[0]
        >>> sample.name, sample.boxes
        ('ILSVRC2012_val_00000001', array([[ 4.,  8., 21., 29.]]))
    """

    truth = "boxes"
    _PHOTOS = ("ILSVRC2012_img_val", "Data/CLS-LOC/val", "val")
    _BOXES = ("Annotations/CLS-LOC/val", "ILSVRC2012_bbox_val_v3/val", "bbox/val", "bbox", "val")
    _SYNSETS = ("LOC_synset_mapping.txt", "synset_words.txt", "synsets.txt")

    def __init__(self, root: str | os.PathLike[str], split: str | None = None) -> None:
        check_readable(Path(root))
        self._wsol = WsolIlsvrc(root, split or "test") if has_metadata(root, "ILSVRC") else None
        if self._wsol is not None:
            self.names, self.classes = self._wsol.names, self._wsol.classes
            self.index_files = self._wsol.index_files
            return
        if split is not None:
            raise ArgumentError(
                Argument("split", split), ": only wsolevaluation's layout has splits, and ",
                Argument("root", root), " has no metadata/ILSVRC/.",
            )  # fmt: skip
        roots = [Path(root), Path(root) / "ILSVRC"]
        photos = {path.stem: path for path in first_files(roots, self._PHOTOS, ("*.JPEG", "*/*.JPEG"))}
        self._boxes = {path.stem: path for path in first_files(roots, self._BOXES, ("*.xml", "*/*.xml"))}
        lists = first_files(roots, (".",), self._SYNSETS)
        folders = {path.parent.name for path in photos.values() if path.parent.name.startswith("n")}
        ids = {line.split()[0] for line in read_text(lists[0]).splitlines() if line.strip()} if lists else folders
        missing = {
            f"*.JPEG in {' or '.join(self._PHOTOS)}": photos,
            f"*.xml in {' or '.join(self._BOXES)}": self._boxes,
            f"one of {', '.join(self._SYNSETS)}": ids,
        }
        if absent := [what for what, found in missing.items() if not found]:
            raise ValueError(f"{root}: not ILSVRC2012's validation set: has no {'; no '.join(absent)}.")
        self.classes = sorted(ids)
        self.index_files = lists[:1]
        self._keys = {synset: key for key, synset in enumerate(self.classes)}
        self._photos = [photos[name] for name in sorted(photos)]
        self.names = [path.stem for path in self._photos]

    @property
    def image_ids(self) -> list[str]:
        """What wsolevaluation calls the photos: ``val/NAME.JPEG``, whichever folders they are in."""
        if self._wsol is not None:
            return list(self._wsol.names)
        return [f"val/{path.name}" for path in self._photos]

    def __getitem__(self, index: int) -> Sample:
        if self._wsol is not None:
            return self._wsol[index]
        name = self.names[index]
        if name not in self._boxes:
            raise ValueError(f"{name}: has no {name}.xml among the boxes.")
        path = self._boxes[name]
        tree = read_xml(path)
        try:
            width, height = (whole_number(text_of(tree, f"size/{side}", path), 1) for side in ("width", "height"))
            objects = list(tree.iter("object"))
            corners = ("xmin", "ymin", "xmax", "ymax")
            boxes = [[_pixel(text_of(item, f"bndbox/{corner}", path)) for corner in corners] for item in objects]
        except ValueError as error:
            raise error if str(path) in str(error) else ValueError(f"{path}: {error}.") from error
        synsets = {text_of(item, "name", path) for item in objects}
        if len(synsets) != 1 or not synsets <= set(self.classes):
            raise ValueError(f"{path}: names {', '.join(sorted(synsets)) or 'no object'}; expects one known class.")
        key = self._keys[synsets.pop()]
        photo = photo_of_size(self._photos[index], (width, height), resized=True)
        in_photo = np.array(boxes) * [*photo.size, *photo.size] / [width, height, width, height]
        return Sample(name, photo, [key], [key], boxes=in_photo)


def _pixel(text: str) -> int:
    """Return a coordinate without its fraction. Some boxes reach beyond their photo."""
    value = float(text)
    if not abs(value) <= 1_000_000:
        raise ValueError(f"{text:.40} is not a coordinate in a photo")
    return int(value)
