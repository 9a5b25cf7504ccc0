"""What all strategies that turn seeds into label maps have in common."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.evaluation.label_maps.pictures import encode_label_map, encode_overlay
from captum_regioncam.evaluation.seeds.seed import Seed

__all__ = ["Labelling", "Strategy", "needed"]


class Strategy(ABC):
    """A way to turn a seed into files.

    Attributes:
        needs_photo: whether it looks at the photo.
        has_overlays: whether it gives labels that can be drawn over the photo.
    """

    needs_photo: ClassVar[bool] = True
    has_overlays: ClassVar[bool] = True

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Return what the files depend on, besides the seed and the photo, as JSON values."""

    @abstractmethod
    def files(self, name: str) -> list[str]:
        """Return the paths of a seed's files, below the output's folder."""

    @abstractmethod
    def contents(self, seed: Seed, photo: Image.Image | None, *, overlay: bool) -> list[bytes]:
        """Return the contents of a seed's files, and with ``overlay`` a picture of the labels over the photo, last.

        Args:
            seed: the seed.
            photo: its photo; may be None if neither the strategy nor the overlay needs it.
            overlay: whether to draw the picture.
        """


class Labelling(Strategy):
    """A strategy that gives each pixel one label."""

    @abstractmethod
    def labels(self, seed: Seed, photo: Image.Image | None) -> npt.NDArray[np.uint8]:
        """Return the labels of a seed with classes.

        Returns:
            (height, width): 0 for the background, otherwise key + 1; 255 for pixels that do not count.
        """

    def labels_of(self, seed: Seed, photo: Image.Image | None) -> npt.NDArray[np.uint8]:
        """Return the labels of any seed; without classes, everything is background."""
        return self.labels(seed, photo) if len(seed.keys) else np.zeros(seed.high_res.shape[1:], dtype=np.uint8)

    def files(self, name: str) -> list[str]:
        """Return the path of the label map: NAME.png."""
        return [f"{name}.png"]

    def contents(self, seed: Seed, photo: Image.Image | None, *, overlay: bool) -> list[bytes]:
        """Return the label map, and the overlay if it is wanted."""
        labels = self.labels_of(seed, photo)
        contents = [encode_label_map(labels)]
        if overlay and photo is not None:
            contents.append(encode_overlay(photo, labels))
        return contents


def needed(photo: Image.Image | None) -> Image.Image:
    """Return the photo of a strategy that looks at it.

    Raises:
        ValueError: there is none.
    """
    if photo is None:
        raise ValueError("has no photo.")
    return photo
