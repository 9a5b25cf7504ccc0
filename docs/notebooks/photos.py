"""What the notebooks share: photos that are inside packages, and their objects' outlines, drawn roughly by hand."""

from pathlib import Path

import numpy as np
import skimage
from matplotlib import cbook
from PIL import Image, ImageDraw

_SKIMAGE = Path(skimage.__file__).parent / "data"
_FILES = {
    "cat": lambda: _SKIMAGE / "chelsea.png",
    "cup": lambda: _SKIMAGE / "coffee.png",
    "motorcycle": lambda: _SKIMAGE / "motorcycle_left.png",
    "rocket": lambda: _SKIMAGE / "rocket.jpg",
    "portrait": lambda: cbook.get_sample_data("grace_hopper.jpg", asfileobj=False),
}
TARGETS = {"cat": 285, "cup": 967, "motorcycle": 665, "rocket": 657, "portrait": 652}
"""Egyptian cat, espresso, moped, missile and military uniform of ImageNet's classes."""

_OUTLINES = {
    "cat": [
        *[(38, 0), (400, 0), (388, 45), (356, 85), (366, 150), (348, 205), (332, 250), (322, 300)],
        *[(0, 300), (0, 150), (30, 100)],
    ],
    "cup": [
        *[(77, 190), (95, 130), (140, 85), (178, 72), (175, 45), (210, 22), (285, 17), (360, 25), (405, 55)],
        *[(408, 95), (440, 120), (470, 170), (477, 220), (460, 290), (410, 345), (340, 378), (270, 388)],
        *[(190, 360), (120, 310), (85, 250)],
    ],
    "motorcycle": [
        *[(90, 215), (143, 160), (243, 186), (407, 160), (429, 129), (508, 93), (560, 122), (572, 186)],
        *[(629, 265), (683, 357), (672, 443), (572, 415), (508, 343), (443, 386), (343, 386), (264, 372)],
        *[(215, 400), (133, 357), (122, 272)],
    ],
}


def photo(name):
    """Return a photo by its name in TARGETS, RGB."""
    return Image.open(_FILES[name]()).convert("RGB")


def outline(name):
    """Return where the object is, (height, width) bool: a polygon drawn by hand, good to a few per cent."""
    mask = Image.new("1", photo(name).size)
    ImageDraw.Draw(mask).polygon(_OUTLINES[name], fill=1)
    return np.array(mask)
