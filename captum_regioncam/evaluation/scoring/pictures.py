"""Pictures of a photo's map and boxes, small enough for a gallery."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from captum_regioncam.pictures import overlay

__all__ = ["SIDE", "box_picture", "map_picture", "small"]

SIDE = 240
"""The longer side of a picture in a gallery, in pixels."""


def small(picture: Image.Image) -> Image.Image:
    """Return a picture whose longer side is at most ``SIDE``; the colours of label maps are not mixed."""
    scale = SIDE / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    is_indexed = picture.mode == "P"
    return picture.resize((width, height), Image.Resampling.NEAREST if is_indexed else Image.Resampling.LANCZOS)


def map_picture(photo: Image.Image, maps: Tensor) -> Image.Image:
    """Draw the highest of (K, height, width) maps over the photo."""
    seen = small(photo)
    highest = maps.amax(0) if len(maps) else maps.new_zeros(seen.height, seen.width)
    return Image.fromarray(overlay(np.asarray(seen), highest))


def box_picture(photo: Image.Image, boxes: Iterable[tuple[Sequence[float], str]]) -> Image.Image:
    """Draw boxes, (x0, y0, x1, y1) as fractions of the photo's sides with their colours, on the photo."""
    drawn = small(photo).copy()
    draw = ImageDraw.Draw(drawn)
    for (x0, y0, x1, y1), colour in boxes:
        width, height = drawn.size
        corners = (x0 * width, y0 * height, min(x1 * width, width - 1), min(y1 * height, height - 1))
        draw.rectangle(corners, outline="black", width=4)
        draw.rectangle(corners, outline=colour, width=2)
    return drawn
