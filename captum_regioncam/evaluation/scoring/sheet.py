"""A contact sheet: photos with their pictures beside each other, in one image."""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from captum_regioncam.files.text import printable

__all__ = ["Entry", "sheet"]

_WIDTH, _HEIGHT = 200, 150  # of a picture's place
_GAP, _LINE, _TITLE = 8, 40, 48
_COLUMNS = 2
_INK, _GREY, _PAPER = "#111111", "#666666", "white"


class Entry(NamedTuple):
    """A photo on a contact sheet.

    Attributes:
        name: the photo's name.
        classes: the names of its classes.
        score: its score, in percent.
        pictures: its encoded pictures, by what they show.
    """

    name: str
    classes: str
    score: float
    pictures: Mapping[str, bytes]


def sheet(title: str, entries: Sequence[Entry]) -> Image.Image:
    """Draw a contact sheet, two photos per line, each with its pictures side by side under its name and score.

    Args:
        title: the title above the photos.
        entries: the photos, line by line.
    """
    most = max((len(entry.pictures) for entry in entries), default=1)
    columns = min(_COLUMNS, max(1, len(entries)))
    wide, high = most * (_WIDTH + _GAP) + 2 * _GAP, _LINE + _HEIGHT + 2 * _GAP
    lines = -(-len(entries) // columns)
    image = Image.new("RGB", (columns * wide + _GAP, _TITLE + lines * high + _GAP), _PAPER)
    draw = ImageDraw.Draw(image)
    shown = ", ".join(entries[0].pictures) if entries else ""
    _write(draw, (2 * _GAP, 14), title, _font(18, bold=True), image.width - 4 * _GAP)
    start = 2 * _GAP + draw.textlength(title, _font(18, bold=True)) + 3 * _GAP
    _write(draw, (start, 18), shown, _font(13), image.width - start, _GREY)
    for number, entry in enumerate(entries):
        left, top = number % columns * wide + 2 * _GAP, _TITLE + number // columns * high
        right = left + most * (_WIDTH + _GAP) - _GAP
        score = f"IoU {entry.score:.1f}"
        length = draw.textlength(score, _font(14, bold=True))
        draw.text((right - length, top), score, fill=_INK, font=_font(14, bold=True))
        _write(draw, (left, top), entry.name, _font(13), right - length - left - _GAP)
        _write(draw, (left, top + 18), entry.classes, _font(12), right - left, _GREY)
        for place, content in enumerate(entry.pictures.values()):
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
                picture = opened.convert("RGB")
            picture.thumbnail((_WIDTH, _HEIGHT))
            x = left + place * (_WIDTH + _GAP) + (_WIDTH - picture.width) // 2
            image.paste(picture, (x, top + _LINE + (_HEIGHT - picture.height) // 2))
    return image


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont,
    room: float,
    fill: str = _INK,
) -> None:
    """Write one line of text, cut if it is longer than there is room for."""
    text = printable(text).replace("\n", " ")
    if draw.textlength(text, font) > room:
        while text and draw.textlength(f"{text}…", font) > room:
            text = text[:-1]
        text += "…"
    draw.text(place, text, fill=fill, font=font)


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which is the same everywhere."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), size)
