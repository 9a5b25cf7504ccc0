"""The results as HTML: a figure for each method and class, with its methods side by side."""

import base64
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.app.results import Result
from captum_regioncam.files.photos import encode_image

__all__ = ["figures", "message", "probability_text"]

_COLUMNS = 3  # of one method's classes, or of one class's methods


def figures(results: Sequence[Result]) -> str:
    """Return the figures, in a row for each class if there are several classes and methods."""
    methods = len({one.method for one in results})
    several = methods > 1 and methods < len(results)
    columns = methods if several else min(_COLUMNS, len(results))
    content = "".join(map(_figure, results))
    return f'<div class="figures" style="--columns: {columns}; --narrow: {min(2, columns)}">{content}</div>'


def message(text: str, kind: str = "hint") -> str:
    """Return a message in place of the figures: a "hint" or a "problem"."""
    role = ' role="alert"' if kind == "problem" else ""
    return f'<p class="{kind}"{role}>{escape(text)}</p>'


def probability_text(probability: float) -> str:
    """Return a probability as text."""
    return f"{probability:.1%}" if probability >= 0.001 else "below 0.1%"


def _figure(one: Result) -> str:
    name = f"{one.class_name} ({one.index})"
    warning = "" if one.is_seen else '<p class="warning">The network does not see this class: its map says little.</p>'
    boxes = f"; box {', '.join(map(str, one.boxes[0]))}" if one.boxes else ""
    rest = f" and {len(one.boxes) - 1} more" if len(one.boxes) > 1 else ""
    return (
        f'<figure><img src="{_data(one.picture)}" alt="{escape(f"{one.title} of {name}")}">'
        f"<figcaption><strong>{escape(name)}</strong> {probability_text(one.probability)}"
        f'<span class="method">{escape(one.title)}</span>{warning}'
        f"<small>Mask: {one.share:.0%} of the photo{boxes}{rest}</small></figcaption></figure>"
    )


def _data(picture: npt.NDArray[np.uint8]) -> str:
    content = encode_image(Image.fromarray(picture), "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
