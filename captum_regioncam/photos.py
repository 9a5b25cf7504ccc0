"""Photos in: upright RGB images, read from the formats that are named here alone."""

import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["PHOTO_SUFFIXES", "read_photo", "resized"]

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_photo(path: str | os.PathLike[str], *, upright: bool = True) -> Image.Image:
    """Read an image file as 8-bit RGB, on white where it is transparent.

    Args:
        path: the file.
        upright: turn the photo as its EXIF orientation says.

    Raises:
        ValueError: the file is missing, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            return _as_rgb(ImageOps.exif_transpose(image) if upright else image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not an image that Pillow can read.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read ({reason}).") from error


def _as_rgb(image: Image.Image) -> Image.Image:
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
