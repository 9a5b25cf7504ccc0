"""What the data sets have in common: a sample, and how files are found, checked and read."""

import glob
import hashlib
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset

from captum_regioncam.files.inputs import read_bytes
from captum_regioncam.files.photos import read_image, read_photo
from captum_regioncam.files.stamps import sha256

__all__ = [
    "PhotoData",
    "PhotoDataset",
    "Sample",
    "check_readable",
    "checked_names",
    "data_root",
    "fingerprint_of",
    "first_files",
    "photo_of_size",
    "read_labels",
    "read_xml",
    "source_of",
    "text_of",
    "whole_number",
]


@dataclass(frozen=True)
class Sample:
    """One photo.

    Attributes:
        name: the photo's name, unique in the data set; seeds are named after it.
        photo: RGB.
        keys: its classes, counted without the background.
        targets: for each key, the index of the network's output.
        labels: (height, width) 0 for the background, key + 1, and 255 for pixels that do not count; None if unknown.
        boxes: (B, 4) x0, y0, x1, y1 in the photo's pixels, not rounded; None if unknown.

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


class PhotoData(Protocol):
    """What a data set of your own must have: ``names``, ``classes``, and samples by number. Its class does not matter.

    It may also have ``index_files``, the paths of the files that list its photos and classes, and ``source``, a mapping
    with the keys that :func:`open_dataset` gives it and JSON values. They are for the record of a run, so that no run
    is resumed with other data. Processes that read photos ahead need a data set that can be pickled.

    Attributes:
        names: one per photo, in the order of the samples.
        classes: names of the keys.

    Example::

        >>> class Cats:
        ...     names, classes = ["tabby", "tiger"], ["cat"]
        ...     def __getitem__(self, index):
        ...         return Sample(self.names[index], Image.new("RGB", (500, 375)), keys=[0], targets=[281 + index])
        >>> data: PhotoData = Cats()
        >>> data[1].targets
        [282]
    """

    @property
    def names(self) -> Sequence[str]:
        """One per photo, in the order of the samples."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the keys."""

    def __getitem__(self, index: int, /) -> Sample:
        """Read a photo by its number."""


class PhotoDataset(Dataset[Sample]):
    """What the data sets have in common.

    The benchmarks' ground truth belongs to the stored pixels, as their reference code reads them. If only the photo
    turned by its EXIF orientation has the size of the ground truth, the turned photo is used. A :class:`PhotoFolder`
    always turns its photos by their EXIF orientation.

    Attributes:
        names: one per photo, in the order of the samples.
        classes: names of the keys.
        source: where the data set comes from; empty unless :func:`open_dataset` opened it.

    Raises:
        ValueError: on construction, if the layout is incomplete (the message says what is missing, and where); on
            access, if a file of the photo is missing, truncated or does not fit.

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
    index_files: Sequence[Path] = ()
    """The files that list the photos, their classes or targets."""
    source: Mapping[str, object] = {}

    def __len__(self) -> int:
        return len(self.names)

    def fingerprint(self) -> str:
        """Return a hash of the names, the classes and the files that list them: it changes when the index does."""
        return fingerprint_of(self.names, self.classes, self.index_files)


def fingerprint_of(names: Sequence[str], classes: Sequence[str], index_files: Iterable[Path] = ()) -> str:
    """Return a hash of a data set's names, its classes and the contents of the files that list them.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256(repr((list(names), list(classes))).encode("utf-8", "surrogateescape"))
    for path in index_files:
        digest.update(sha256(path).encode())
    return digest.hexdigest()[:16]


def source_of(data: PhotoData) -> dict[str, object]:
    """Return where a data set comes from, under the names of :func:`open_dataset`; None for what it does not say.

    The ``dataset`` of one without a source is its class, as ``package.module:Class``.
    """
    source = getattr(data, "source", None) or {"dataset": f"{type(data).__module__}:{type(data).__qualname__}"}
    return {name: source.get(name) for name in ("dataset", "root", "split", "labels")}


def data_root(root: str | os.PathLike[str], below: Iterable[str], wanted: Sequence[str], what: str) -> Path:
    """Find the folder that has the files and folders wanted."""
    candidates = [Path(root) / part for part in below]
    best = max(candidates, key=lambda path: sum(os.path.exists(path / part) for part in wanted))
    if missing := [part for part in wanted if not os.path.exists(best / part)]:
        check_readable(best)
        raise ValueError(f"{best}: not a {what} folder: has no {', no '.join(missing)}.")
    return best


def check_readable(path: Path) -> None:
    """Check that nothing but absence keeps files from being found below a path."""
    try:
        os.scandir(path).close()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:  # no folder has a NUL in its name
        raise ValueError(f"{path}: cannot be read ({error}).") from error


def checked_names(names: Sequence[str], source: Path, folder: str = "the data set's folder") -> list[str]:
    """Return the names unchanged if each names one file, inside the folder.

    Raises:
        ValueError: a name is listed twice, leads out of the folder, or is none that a file can have.
    """
    for name in names:
        path = Path(name)
        if "\0" in name:
            raise ValueError(f"{source}: {name!r} is no name of a file.")
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{source}: {name!r} leads out of {folder}.")
    if len(set(names)) < len(names):
        twice, times = Counter(names).most_common(1)[0]
        raise ValueError(f"{source}: {twice} is the name of {times} photos; each needs a name of its own.")
    return list(names)


def first_files(roots: Iterable[Path], folders: Iterable[str], patterns: Sequence[str]) -> list[Path]:
    """Return the files in the first folder that has matching files, by the first pattern that matches any.

    What cannot be listed, such as a folder without permission or a link to itself, has no files.
    """
    places = ((root / part, pattern) for root in roots for part in folders for pattern in patterns)
    found = (sorted(place / name for name in glob.glob(pattern, root_dir=place)) for place, pattern in places)
    return next((paths for paths in found if paths), [])


def photo_of_size(
    path: Path, size: tuple[int, int] | None, *, upright: bool = False, resized: bool = False
) -> Image.Image:
    """Read a photo as it is stored, or as EXIF turns it: whichever has the size of its ground truth.

    ``upright`` prefers the turned photo. ``resized`` also accepts another size with the same proportions.
    """
    preferred = read_photo(path, upright=upright)
    if size is None or preferred.size == size:  # nearly every photo is read only once
        return preferred
    other = read_photo(path, upright=not upright)
    fitting = [other] if other.size == size else []
    if resized:
        both = (preferred, other)
        fitting += [photo for photo in both if abs(photo.width * size[1] / (photo.height * size[0]) - 1) < 0.02]
    if not fitting:
        raise ValueError(f"{path}: {' x '.join(map(str, preferred.size))} pixels; its ground truth has {size}.")
    return fitting[0]


def read_labels(path: Path, classes: int) -> npt.NDArray[np.uint8]:
    """Read a label map: (height, width), 0 to ``classes`` and 255."""
    image = read_image(path)
    if image.mode not in ("P", "L"):
        raise ValueError(f"{path}: a label map has one number per pixel; this is {image.mode}.")
    labels: npt.NDArray[np.uint8] = np.array(image)
    if (unknown := labels[(labels > classes) & (labels < 255)]).size:
        raise ValueError(f"{path}: label {unknown[0]} is none of 0 to {classes} and 255.")
    return labels


def read_xml(path: Path) -> ElementTree.Element:
    """Read an XML file without a document type, whose entities could expand without end."""
    content = read_bytes(path)
    if b"<!DOCTYPE" in content.replace(b"\0", b""):  # in UTF-16 too; other encodings that expat reads extend ASCII
        raise ValueError(f"{path}: cannot be read (declares a document type, which no annotation needs).")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # of an encoding that is unknown
        raise ValueError(f"{path}: cannot be read ({error}).") from error


def text_of(element: Any, tag: str, path: Path) -> str:
    """Return the text of an element inside another."""
    text: str = (element.findtext(tag) or "").strip()
    if not text:
        raise ValueError(f"{path}: has an element without {tag}.")
    return text


def whole_number(value: Any, lowest: int = 0, highest: int = (1 << 31) - 1) -> int:
    """Return a whole number that an annotation gives as 3, 3.0 or "3".

    Raises:
        ValueError: it is something else, or out of range.
    """
    number = float(value) if isinstance(value, str) else value
    if not isinstance(number, (int, float)):
        raise ValueError(f"{type(value).__name__} where a number belongs")
    if not (lowest <= number <= highest and number == int(number)):
        raise ValueError(f"{value!r:.40} is no whole number from {lowest} to {highest}")
    return int(number)
