"""Sample photos and a network for examples. They come with installed packages, so nothing is downloaded.

Example::

    >>> from captum_regioncam.samples import TARGETS, photo
    >>> {name: (TARGETS[name], photo(name).size) for name in ("cat", "cup")}
    {'cat': (285, (451, 300)), 'cup': (967, (600, 400))}
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import cbook
from PIL import Image, ImageDraw

from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.files.photos import read_photo

__all__ = ["TARGETS", "load_demo_model", "outline", "photo"]

TARGETS = {"cat": 285, "cup": 967, "motorcycle": 665, "rocket": 657, "portrait": 652}
"""Names of the photos, and the classes of ImageNet that they show, such as "Egyptian cat" and "espresso"."""

_FILES: dict[str, Callable[[], Path]] = {
    "cat": lambda: _of_skimage("chelsea.png"),
    "cup": lambda: _of_skimage("coffee.png"),
    "motorcycle": lambda: _of_skimage("motorcycle_left.png"),
    "rocket": lambda: _of_skimage("rocket.jpg"),
    "portrait": lambda: Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))),
}
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


def load_demo_model() -> Classifier:
    """Load EfficientNet-Lite0 with its ImageNet weights, about 75 % top-1.

    Returns:
        The network as ``model``, and ``transform``, which turns a photo into its input; see
        :class:`~captum_regioncam.evaluation.Classifier`.

    Raises:
        ArgumentError: the packages of the extra ``demo`` are not installed.

    Example::

        >>> from captum_regioncam.samples import load_demo_model, photo
        >>> demo = load_demo_model()
        >>> scores = demo.model(demo.transform(photo("cat")))
        >>> demo.class_name(int(scores.argmax()))
        'Egyptian cat'
    """
    return Classifier.load()


def photo(name: str) -> Image.Image:
    """Open a sample photo.

    Args:
        name: one of TARGETS.

    Returns:
        The photo, RGB.

    Raises:
        ValueError: there is no photo of that name.
        ImportError: scikit-image is not installed.

    Example::

        >>> from captum_regioncam.samples import photo
        >>> photo("cat").size
        (451, 300)
    """
    if name not in _FILES:
        raise ValueError(f"name={name!r}: expects one of {', '.join(_FILES)}.")
    return read_photo(_FILES[name]())


def outline(name: str) -> npt.NDArray[np.bool_]:
    """Return where the object is: a polygon drawn by hand, good to a few per cent.

    Args:
        name: "cat", "cup" or "motorcycle".

    Returns:
        (height, width) bool, at the photo's size.

    Raises:
        ValueError: there is no outline of that name.
        ImportError: scikit-image is not installed.

    Example::

        >>> from captum_regioncam.samples import outline
        >>> outline("cat").shape
        (300, 451)
    """
    if name not in _OUTLINES:
        raise ValueError(f"name={name!r}: expects one of {', '.join(_OUTLINES)}.")
    mask = Image.new("1", photo(name).size)
    ImageDraw.Draw(mask).polygon(_OUTLINES[name], fill=1)
    return np.array(mask)


def _of_skimage(file: str) -> Path:
    try:
        import skimage
    except ImportError as error:
        raise ImportError(f'{file} comes with scikit-image: pip install "captum_regioncam[demo]" ({error}).') from error
    return Path(skimage.__file__).parent / "data" / file
