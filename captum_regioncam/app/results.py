"""What the page shows of a photo's maps: pictures, masks and boxes, according to the controls."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from captum_regioncam.app.explainer import Explainer, Photo
from captum_regioncam.evaluation.titles import TITLES
from captum_regioncam.pictures import cut_out, overlay
from captum_regioncam.refinement import refine
from captum_regioncam.regions import to_boxes, to_mask
from captum_regioncam.visualization import SEEN

__all__ = ["BOXES", "VIEWS", "Result", "Settings", "maps_of", "results_of"]

VIEWS = ("overlay", "cut-out", "mask")
BOXES = ("none", "largest", "all")
_FRAME = "#ff1fd0"  # a colour that the maps do not have


@dataclass(frozen=True)
class Settings:
    """The settings of the controls.

    Attributes:
        classes: the numbers of the classes.
        methods: the names of the methods.
        contrast: Region-CAM's contrast.
        refine: whether the maps are refined with the photo.
        threshold: the mask is what lies above this share of a map's maximum.
        view: one of VIEWS.
        boxes: one of BOXES, around the mask's regions.
    """

    classes: tuple[int, ...]
    methods: tuple[str, ...]
    contrast: float = 4.0
    refine: bool = False
    threshold: float = 0.15
    view: str = "overlay"
    boxes: str = "none"


@dataclass(frozen=True)
class Result:
    """The result of one method and class.

    Attributes:
        method: the method's name.
        index: the number of the class.
        class_name: the first name of the class.
        probability: the probability of the class, in [0, 1].
        picture: (h, w, 3) uint8.
        share: how much of the photo the mask covers, in [0, 1].
        boxes: x0, y0, x1, y1 of the mask's regions, in pixels of what the network sees; the largest region first.
    """

    method: str
    index: int
    class_name: str
    probability: float
    picture: npt.NDArray[np.uint8]
    share: float
    boxes: list[list[int]]

    @property
    def title(self) -> str:
        """The method as its authors write it."""
        return TITLES.get(self.method, self.method)

    @property
    def is_seen(self) -> bool:
        """Whether the network sees the class at all."""
        return self.probability >= SEEN


def maps_of(
    explainer: Explainer, photo: Photo, settings: Settings, *, full: bool = False
) -> dict[tuple[str, int], Tensor]:
    """Return the (h, w) maps by method and class, with contrast, and refined if that is wanted.

    Args:
        explainer: the network.
        photo: the photo.
        settings: the settings of the controls.
        full: refine with the photo at its full size, instead of the size that the page shows. Such maps are not kept.
    """
    found = explainer.maps(photo, settings.classes, settings.methods)
    found = {key: one**settings.contrast if key[0] == "region-cam" else one for key, one in found.items()}
    if not settings.refine:
        return found
    if full:
        return {key: refine(one, photo.pixels) for key, one in found.items()}
    for method in settings.methods:
        power = settings.contrast if method == "region-cam" else None
        known = {index: photo.maps.get(("refined", method, index, power)) for index in settings.classes}
        if new := [index for index, one in known.items() if one is None]:
            refined = refine(torch.stack([found[method, index] for index in new]), photo.shown)
            known |= {index: one.clone() for index, one in zip(new, refined, strict=True)}
        for index, one in known.items():
            if one is not None:
                photo.maps.put(("refined", method, index, power), one)
                found[method, index] = one
    return found


def results_of(explainer: Explainer, photo: Photo, settings: Settings, *, full: bool = False) -> Iterator[Result]:
    """Yield the results, method by method within each class.

    Args:
        explainer: the network.
        photo: the photo.
        settings: the settings of the controls.
        full: give results at the photo's size, instead of the page's.
    """
    maps = maps_of(explainer, photo, settings, full=full)
    pixels = photo.pixels if full else photo.shown
    for index in settings.classes:
        for method in settings.methods:
            yield _result(explainer, photo, settings, method, index, maps[method, index], pixels)


def _result(
    explainer: Explainer, photo: Photo, settings: Settings, method: str, index: int, one: Tensor, pixels: Any
) -> Result:
    size = pixels.shape[:2]
    mask = to_mask(one, settings.threshold, size).numpy()
    [boxes] = to_boxes(one, settings.threshold, size, largest=settings.boxes != "all")
    if settings.view == "mask":
        picture = np.where(mask[:, :, None], np.uint8(255), np.zeros_like(pixels))
    else:
        picture = cut_out(pixels, mask) if settings.view == "cut-out" else overlay(pixels, one)
    if settings.boxes != "none":
        picture = _with_boxes(picture, boxes.tolist())
    (width, height), factors = photo.seen.size, np.array([photo.seen.width / size[1], photo.seen.height / size[0]] * 2)
    scaled = np.minimum((boxes.numpy() * factors).round().astype(int), [width, height, width, height])
    probability = photo.probabilities[index]
    return Result(
        method, index, explainer.classifier.class_name(index), probability, picture, float(mask.mean()), scaled.tolist()
    )


def _with_boxes(picture: npt.NDArray[np.uint8], boxes: list[list[int]]) -> npt.NDArray[np.uint8]:
    """Draw frames around boxes."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    width = max(2, round(min(image.size) / 100))
    for x0, y0, x1, y1 in boxes:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=_FRAME, width=width)
    return np.asarray(image)
