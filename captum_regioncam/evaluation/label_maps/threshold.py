"""Label maps from the maps alone: each pixel's best class, or the background where no map is above the background's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.evaluation.datasets.reading import MOST_CLASSES
from captum_regioncam.evaluation.label_maps.backgrounds import Background, Constant
from captum_regioncam.evaluation.label_maps.strategy import Labelling
from captum_regioncam.evaluation.seeds.seed import Seed

__all__ = ["BestClass", "class_labels", "label_map"]


@dataclass(frozen=True)
class BestClass(Labelling):
    """The best class or the background, without a CRF."""

    background: Background

    needs_photo = False

    def settings(self) -> dict[str, object]:
        """Return what the files depend on."""
        return self.background.settings()

    def labels(self, seed: Seed, photo: Image.Image | None) -> npt.NDArray[np.uint8]:
        """Return (height, width) labels."""
        labels: npt.NDArray[np.uint8] = class_labels(seed.keys.numpy())[self.background.planes(seed.high_res).argmax(0)]
        return labels


def class_labels(keys: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return the labels of the background and of classes: (K + 1,) 0, then key + 1.

    Raises:
        ValueError: a key is not in 0 to 253.
    """
    classes = np.asarray(keys, dtype=np.int64)
    if len(classes) and not 0 <= classes.min() <= classes.max() < MOST_CLASSES:
        raise ValueError(f"keys={classes.tolist()}: an 8-bit label map holds classes 0 to {MOST_CLASSES - 1}.")
    return np.concatenate([[0], classes + 1]).astype(np.uint8)


def label_map(
    high_res: npt.NDArray[np.floating[Any]], keys: npt.ArrayLike, threshold: float = 0.15
) -> npt.NDArray[np.uint8]:
    """Give each pixel its best class, or the background where no map is above a threshold.

    Args:
        high_res: (K, height, width) in [0, 1].
        keys: (K,) classes, counted without the background.
        threshold: the background threshold, in [0, 1]; a pixel at the threshold is background. IRN's is 0.15.

    Returns:
        (height, width) uint8, 0 for the background, otherwise key + 1.

    Raises:
        ValueError: a key is not in 0 to 253, or a score is NaN.

    Example::

        >>> label_map(np.array([[[0.1, 0.2, 0.9]], [[0.0, 0.3, 0.5]]]), keys=[7, 14])
        array([[ 0, 15,  8]], dtype=uint8)
    """
    best: npt.NDArray[np.uint8] = class_labels(keys)[Constant(threshold).planes(high_res).argmax(0)]
    return best
