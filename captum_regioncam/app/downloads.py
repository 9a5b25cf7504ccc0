"""The files that the page offers: pictures, maps and masks, at the photo's size."""

import io
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from captum_regioncam.app.explainer import Explainer, Photo
from captum_regioncam.app.results import Settings, maps_of, results_of
from captum_regioncam.evaluation.explanations.names import mask_name, overlay_name
from captum_regioncam.evaluation.explanations.pictures import encode_maps
from captum_regioncam.files.inputs import MEGABYTE
from captum_regioncam.files.outputs import fits
from captum_regioncam.files.photos import encode_image

__all__ = ["FILES", "maps_file", "masks_file", "pictures_file"]

_MOST_BYTES = 512 * MEGABYTE  # of a .npy file


def pictures_file(explainer: Explainer, photo: Photo, settings: Settings) -> tuple[str, bytes]:
    """Return the name and the content of NAME_METHOD_CLASS.png, or of a .zip with one for each method and class."""
    return _packed(photo, "pictures", _pictures(explainer, photo, settings, overlay_name))


def masks_file(explainer: Explainer, photo: Photo, settings: Settings) -> tuple[str, bytes]:
    """Return the name and the content of NAME_METHOD_CLASS_mask.png, 0 and 255, or of a .zip with several."""
    masks = _pictures(explainer, photo, replace(settings, view="mask", boxes="none"), mask_name, mode="L")
    return _packed(photo, "masks", masks)


def maps_file(explainer: Explainer, photo: Photo, settings: Settings) -> tuple[str, bytes]:
    """Return the name and the content of NAME_cam.npy: float32 (methods, classes, height, width).

    Raises:
        ValueError: it would be larger than 512 MB.
    """
    width, height = photo.seen.size
    size = 4 * width * height * len(settings.methods) * len(settings.classes)
    if size > _MOST_BYTES:
        raise ValueError(
            f"The maps would take {size // MEGABYTE} MB; at most {_MOST_BYTES // MEGABYTE} MB are allowed. Choose "
            "fewer classes or methods, or a smaller photo."
        )
    maps = maps_of(explainer, photo, settings, full=True)
    stacked = {method: torch.stack([maps[method, index] for index in settings.classes]) for method in settings.methods}
    return fits(Path(photo.name).stem, "_cam.npy"), encode_maps(stacked, (height, width))


FILES: dict[str, Callable[[Explainer, Photo, Settings], tuple[str, bytes]]] = {
    "pictures": pictures_file,
    "maps": maps_file,
    "masks": masks_file,
}


def _pictures(
    explainer: Explainer, photo: Photo, settings: Settings, named: Callable[[str, str, int], str], mode: str = "RGB"
) -> Iterable[tuple[str, bytes]]:
    """Yield the names and contents of pictures. Each is encoded when it is needed, to save memory with large photos."""
    for one in results_of(explainer, photo, settings, full=True):
        name = named(fits(Path(photo.name).stem, "_cam.png"), one.method, one.index)
        yield name, encode_image(Image.fromarray(one.picture).convert(mode))


def _packed(photo: Photo, what: str, files: Iterable[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Return a single file as it is, and several in a .zip."""
    (name, file), *others = files
    if not others:
        return name, file
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for one, inside in [(name, file), *others]:
            archive.writestr(one, inside)
    return fits(Path(photo.name).stem, f"_{what}.zip"), content.getvalue()
