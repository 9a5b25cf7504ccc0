"""The files that explain a photo, besides its picture: arrays, overlays and masks; and the boxes of its maps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captum_regioncam.arguments import real
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.explanations.names import mask_name, npy_name, overlay_name
from captum_regioncam.evaluation.explanations.pictures import encode_maps
from captum_regioncam.files.photos import encode_image
from captum_regioncam.pictures import overlay as laid_over
from captum_regioncam.regions import to_boxes, to_mask

__all__ = ["Explained", "PhotoFiles"]


@dataclass(frozen=True)
class Explained:
    """A photo's maps.

    Attributes:
        pixels: (height, width, 3) what the network sees.
        maps: for each method, (K, *grid).
        probabilities: the probabilities of the K classes.
    """

    pixels: npt.NDArray[np.uint8]
    maps: Mapping[str, Tensor]
    probabilities: Mapping[int, float]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class PhotoFiles:
    """What is written of each photo; see :func:`~captum_regioncam.evaluation.write_explanations`."""

    save_npy: bool
    overlay: bool
    masks: bool
    boxes: bool
    threshold: float | str

    def check(self) -> None:
        """Check, before the first photo, that maps can be cut at the threshold.

        Raises:
            ValueError: the threshold is out of range.
            ImportError: OpenCV is needed, and it is not installed.
        """
        empty = torch.zeros(1, 1)
        if self.masks:
            to_mask(empty, self.threshold)
        if self.boxes:
            to_boxes(empty, self.threshold)

    def settings(self) -> dict[str, object]:
        """Return what masks and boxes depend on, as JSON values."""
        if not (self.masks or self.boxes):
            return {}
        return {"threshold": self.threshold if isinstance(self.threshold, str) else real(self.threshold)}

    def names(self, pictures: Iterable[str], methods: Sequence[str], classes: Sequence[int]) -> Iterator[str]:
        """Yield the names of the pictures and of the files beside them, as far as the classes are known."""
        for picture in pictures:
            yield picture
            if self.save_npy:
                yield npy_name(picture)
            if self.overlay:
                yield from (overlay_name(picture, method, index) for method in methods for index in classes)
            if self.masks:
                yield from (mask_name(picture, method, index) for method in methods for index in classes)

    def contents(self, picture: str, found: Explained) -> Iterator[tuple[str, bytes]]:
        """Yield the names and the contents of the files beside a picture."""
        if self.save_npy:
            yield npy_name(picture), encode_maps(found.maps, found.size)
        for method, maps in found.maps.items():
            for index, one in zip(found.probabilities, maps, strict=True):
                if self.overlay:
                    image = Image.fromarray(laid_over(found.pixels, one))
                    yield overlay_name(picture, method, index), encode_image(image)
                if self.masks:
                    mask = to_mask(one, self.threshold, found.size).numpy()
                    image = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
                    yield mask_name(picture, method, index), encode_image(image)

    def described(self, found: Explained, classifier: Classifier) -> list[dict[str, object]]:
        """Return what the manifest says of each class: index, name, probability, and the boxes of each method."""
        classes: list[dict[str, object]] = [
            {"index": index, "name": classifier.class_name(index), "probability": round(p, 6)}
            for index, p in found.probabilities.items()
        ]
        if self.boxes:
            boxes = {
                method: to_boxes(maps, self.threshold, found.size, largest=False) for method, maps in found.maps.items()
            }
            for place, of_class in enumerate(classes):
                of_class["boxes"] = {method: of_method[place].tolist() for method, of_method in boxes.items()}
        return classes
