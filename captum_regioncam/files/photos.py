"""Reading photos: upright RGB images, only in the formats that are named here."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from captum_regioncam.errors import reason_of
from captum_regioncam.files.inputs import open_file

__all__ = ["PHOTO_SUFFIXES", "as_rgb", "encode_image", "is_whole_image", "read_image", "read_photo", "resized"]

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

# Whatever a file's name is, Pillow goes by its first bytes, and would start Ghostscript for a PostScript file.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")  # "JPEG" opens MPO as well


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image file. Whatever Pillow raises for it, here or in the body, becomes a ValueError that names it."""
    with open_file(path) as file:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                yield image
        except UnidentifiedImageError as error:
            raise ValueError(f"{path}: not an image that can be read ({', '.join(_FORMATS)}).") from error
        except Exception as error:  # decoders raise nearly everything for broken files
            raise ValueError(f"{path}: cannot be read ({reason_of(error)}).") from error


def read_photo(path: str | os.PathLike[str], *, upright: bool = True, most_pixels: int | None = None) -> Image.Image:
    """Read an image file as 8-bit RGB, on white where it is transparent. The first picture of an animation is read.

    Args:
        path: the file.
        upright: turn the photo as its EXIF orientation says.
        most_pixels: how many pixels it may have; a larger photo is not decoded. Default: Pillow's own limit.

    Raises:
        ValueError: the file is missing, not a regular file, truncated, too large or not an image.

    Example::

        >>> photo = read_photo("photos/images/photo_0.jpg")
        >>> photo.mode, photo.size
        ('RGB', (60, 44))
    """
    with _opened(path) as image:
        if most_pixels is not None and image.width * image.height > most_pixels:
            raise ValueError(f"it has {image.width} x {image.height} pixels; at most {most_pixels:,} are allowed")
        return as_rgb(ImageOps.exif_transpose(image) if upright else image)


def read_image(path: str | os.PathLike[str], mode: str | None = None) -> Image.Image:
    """Read an image file, such as a mask, as it is or converted to a mode.

    Raises:
        ValueError: as in :func:`read_photo`, or the image cannot be converted.
    """
    with _opened(path) as image:
        image.load()
        return image.convert(mode) if mode else image


def is_whole_image(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is an image that can be read to its end."""
    try:
        read_image(path)
    except ValueError:
        return False
    return True


def encode_image(image: Image.Image, format: str = "PNG") -> bytes:
    """Return the content of an image's file."""
    content = io.BytesIO()
    image.save(content, format=format)
    return content.getvalue()


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB, including what Pillow itself would clip (16 bits per pixel) or uncover (transparent pixels)."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 0xFFFF:
            raise ValueError(f"{pixels.min()} to {pixels.max()} are not 8-bit or 16-bit pixels")
        return Image.fromarray((pixels // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def resized(
    photo: Image.Image, size: tuple[int, int], resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """Resize a photo to a width and height; return the photo itself if it has them already."""
    return photo if photo.size == size else photo.resize(size, resample)
