"""The photos that a user names: files, and folders of them."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation.runs.written import written_below
from captum_regioncam.files.photos import PHOTO_SUFFIXES
from captum_regioncam.files.text import counted

__all__ = ["photos_in"]

_log = logging.getLogger(__name__)


def photos_in(images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[list[str], dict[str, str]]:
    """Return the photos, with each folder replaced by the photos in it, and {folder: why it cannot be read}.

    In a folder, hidden files and pictures that this package wrote do not count as photos.
    """
    files: list[str] = []
    images = [images] if isinstance(images, (str, os.PathLike)) else images
    failures = {}
    for image in (os.fspath(image) for image in images):
        if not os.path.isdir(image):
            files.append(image)
            continue
        written = written_below(Path(image))
        try:
            entries = sorted(Path(image).iterdir())
        except OSError as error:
            failures[image] = f"cannot be read ({error.strerror})."
            continue
        photos = list(filter(_is_photo, entries))
        inside = [str(path) for path in photos if Path(os.path.realpath(path)) not in written]
        if len(inside) < len(photos):
            skipped = counted(len(photos) - len(inside), "picture")
            _log.warning("%s: skipping %s that this package wrote.", image, skipped)
        if not inside:
            raise ArgumentError(f"{image}: the folder has no image files ({', '.join(PHOTO_SUFFIXES)}).")
        files += inside
    return list(dict.fromkeys(files)), failures


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and os.path.isfile(path)
