"""How the files of data sets are found, checked and read."""

import glob
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.files.inputs import read_bytes
from captum_regioncam.files.photos import read_image, read_photo

__all__ = [
    "IGNORED",
    "MOST_CLASSES",
    "MissingSplitError",
    "MissingTruthError",
    "check_readable",
    "checked_names",
    "data_root",
    "first_files",
    "photo_of_size",
    "read_labels",
    "read_xml",
    "text_of",
    "whole_number",
]

IGNORED = 255
"""The label of pixels that do not count."""
MOST_CLASSES = 254
"""The most classes in an 8-bit label map: 0 is the background, and 255 marks pixels that do not count."""


class MissingSplitError(ValueError):
    """A data set has the right layout, but lacks the split."""


class MissingTruthError(ValueError):
    """A data set is in its layout, but has no masks."""


def data_root(
    root: str | os.PathLike[str],
    below: Iterable[str],
    wanted: Sequence[str],
    what: str,
    of_split: Sequence[str] = (),
    masks: str | None = None,
    hint: str = "",
) -> Path:
    """Find the folder that has the files and folders wanted.

    Args:
        root: the data set's folder.
        below: the folders in it that may be the right one.
        wanted: the files and folders that the right folder has.
        what: the layout, for errors.
        of_split: those of ``wanted`` whose names contain the split.
        masks: that of ``wanted`` which has the masks, if only scores need them.
        hint: what the layout is, for the error if more is missing.

    Raises:
        MissingSplitError: only ``of_split`` is missing.
        MissingTruthError: only ``masks`` is missing.
        ValueError: more is missing.
    """
    candidates = [Path(root) / part for part in below]
    best = max(candidates, key=lambda path: sum(os.path.exists(path / part) for part in wanted))
    if missing := [part for part in wanted if not os.path.exists(best / part)]:
        check_readable(best)
        if missing == [masks]:
            raise MissingTruthError(f"{best}: has no {masks}. Scores need {masks}/NAME.png.")
        kind = MissingSplitError if missing == list(of_split) else ValueError
        raise kind(f"{best}: not a {what} folder: has no {', no '.join(missing)}.{hint}")
    return best


def check_readable(path: Path) -> None:
    """Check that a path can be searched, so that files that are not found below it really do not exist."""
    try:
        os.scandir(path).close()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:  # a folder's name cannot contain a NUL
        raise ValueError(f"{path}: cannot be read ({error}).") from error


def checked_names(names: Sequence[str], source: str | Path, folder: str = "the data set's folder") -> list[str]:
    """Return the names unchanged if each names one file, inside the folder.

    Raises:
        ValueError: a name is listed twice, leads out of the folder, or cannot be the name of a file.
    """
    for name in names:
        path = Path(name)
        if "\0" in name:
            raise ValueError(f"{source}: {name!r} cannot be the name of a file.")
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
        raise ValueError(f"{path}: has {' x '.join(map(str, preferred.size))} pixels; its ground truth has {size}.")
    return fitting[0]


def read_labels(path: Path, classes: int) -> npt.NDArray[np.uint8]:
    """Read a label map: (height, width), 0 to ``classes`` and 255."""
    image = read_image(path)
    if image.mode not in ("P", "L"):
        raise ValueError(
            f"{path}: a label map has one number per pixel; this is {image.mode}. Save the labels as an indexed or "
            "8-bit grey PNG (mode P or L), not as colours."
        )
    labels: npt.NDArray[np.uint8] = np.array(image)
    if (unknown := labels[(labels > classes) & (labels < 255)]).size:
        raise ValueError(f"{path}: label {unknown[0]} is neither from 0 to {classes} nor 255.")
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
        raise ValueError(f"{type(value).__name__} instead of a number")
    if not (lowest <= number <= highest and number == int(number)):
        raise ValueError(f"{value!r:.40} is not a whole number from {lowest} to {highest}")
    return int(number)
