"""Label maps as pictures: indexed PNGs in the form of PASCAL VOC, and overlays on the photo."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.files.outputs import write_whole
from captum_regioncam.files.photos import encode_image

__all__ = ["encode_label_map", "encode_overlay", "label_picture", "save_label_map", "save_overlay"]


def save_label_map(path: str | os.PathLike[str], labels: npt.NDArray[np.uint8]) -> None:
    """Write labels, completely or not at all, as an indexed PNG with the palette of PASCAL VOC.

    Args:
        path: the file; missing folders are created.
        labels: (height, width) uint8: 0 for the background, class + 1, and 255 for pixels that do not count.

    Raises:
        OSError: the file cannot be written.

    Example::

        >>> save_label_map("2007_000032.png", np.array([[0, 8], [15, 255]], dtype=np.uint8))
        >>> Image.open("2007_000032.png").convert("RGB").getpixel((1, 0))  # VOC's colour of a cat
        (64, 0, 0)
    """
    write_whole(path, encode_label_map(labels))


def encode_label_map(labels: npt.NDArray[np.uint8]) -> bytes:
    """Return the content of a label map's PNG; see :func:`save_label_map`."""
    return encode_image(label_picture(labels))


def label_picture(labels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return (height, width) labels as an indexed image with the palette of PASCAL VOC."""
    image = Image.fromarray(labels)
    image.putpalette(_voc_palette())
    return image


def save_overlay(path: str | os.PathLike[str], photo: Image.Image, labels: npt.NDArray[np.uint8]) -> None:
    """Write labels over their photo, half transparent, in the colours of PASCAL VOC; the background stays as it is.

    Args:
        path: the file, which ends in .png or .jpg; it is written completely or not at all.
        photo: the photo, at the labels' size.
        labels: (height, width) uint8, 255 for pixels that do not count.

    Raises:
        ValueError: the sizes differ.
        OSError: the file cannot be written.

    Example::

        >>> save_overlay("overlay.png", Image.new("RGB", (2, 1)), np.array([[0, 8]], dtype=np.uint8))
        >>> Image.open("overlay.png").getpixel((1, 0))
        (32, 0, 0)
    """
    write_whole(
        path, encode_overlay(photo, labels, "JPEG" if Path(path).suffix.lower() in (".jpg", ".jpeg") else "PNG")
    )


def encode_overlay(photo: Image.Image, labels: npt.NDArray[np.uint8], format: str = "PNG") -> bytes:
    """Return the content of a picture of labels over their photo; see :func:`save_overlay`."""
    if photo.size != (labels.shape[1], labels.shape[0]):
        raise ValueError(f"photo: {photo.width} x {photo.height} pixels; the labels are {labels.shape[::-1]}.")
    pixels = np.asarray(photo.convert("RGB"))
    colours = np.array(_voc_palette(), dtype=np.uint8).reshape(-1, 3)[labels]
    blended = np.where(labels[:, :, None] > 0, (pixels.astype(np.uint16) + colours) // 2, pixels).astype(np.uint8)
    return encode_image(Image.fromarray(blended), format)


def _voc_palette() -> list[int]:
    """Return VOC's colours: bits 0, 3, 6 of a label are the high bits of red, 1, 4, 7 of green, 2, 5 of blue."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=int)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= (labels >> (3 * place + channel) & 1) << (7 - place)
    return [int(value) for value in colours.flatten()]
