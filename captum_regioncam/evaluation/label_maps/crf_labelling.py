"""Label maps after a dense CRF: what the strategies of the pipelines have in common."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.evaluation.label_maps.backgrounds import Background, Constant
from captum_regioncam.evaluation.label_maps.dense_crf import Kernels, inference
from captum_regioncam.evaluation.label_maps.strategy import Labelling, needed
from captum_regioncam.evaluation.label_maps.threshold import class_labels
from captum_regioncam.evaluation.seeds.seed import Seed

__all__ = ["Confident", "CrfLabelling"]


@dataclass(frozen=True)
class CrfLabelling(Labelling):
    """The most likely labels after a dense CRF of the maps and the background's map.

    Attributes:
        name: the name of its pipeline, as ``crf`` takes it.
        kernels: the kernels of the CRF.
        thresholds: the background and foreground thresholds at which its pipeline makes confident labels.
        background: the background's map, before the CRF.
    """

    name: ClassVar[str]
    kernels: ClassVar[Kernels]
    thresholds: ClassVar[tuple[float, float] | None] = None

    background: Background

    @abstractmethod
    def unary(self, planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the energies of (K + 1, height, width) maps, the background first, as pydensecrf makes them."""

    def pixels(self, photo: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the (height, width, 3) pixels that the CRF looks at."""
        return np.array(photo.convert("RGB"), dtype=np.uint8)

    def settings(self) -> dict[str, object]:
        """Return what the files depend on."""
        return {**self.background.settings(), "crf": self.name, "confident": None}

    def labels(self, seed: Seed, photo: Image.Image | None) -> npt.NDArray[np.uint8]:
        """Return (height, width) labels."""
        return self.refined(needed(photo), seed.high_res, seed.keys.numpy())

    def refined(self, photo: Image.Image, high_res: npt.NDArray[Any], keys: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return (height, width) labels: 0 for the background, otherwise key + 1.

        Args:
            photo: the photo, an RGB image.
            high_res: (K, height, width) in [0, 1], at least one map.
            keys: (K,) classes, counted without the background.

        Raises:
            ImportError: pydensecrf2 is not installed.
            ValueError: a key is not in 0 to 253, or a score is NaN.
        """
        named = class_labels(keys)
        planes = self.background.planes(np.asarray(high_res))
        return self.cut(inference(self.pixels(photo), self.unary(planes), len(planes), self.kernels), named)

    def cut(self, scores: npt.NDArray[np.float32], named: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return (height, width) labels of the (K + 1, height, width) probabilities after the CRF.

        Args:
            scores: the probabilities, the background first.
            named: (K + 1,) their labels.
        """
        labels: npt.NDArray[np.uint8] = named[scores.argmax(0)]
        return labels


@dataclass(frozen=True)
class Confident(Labelling):
    """Labels that are the same at a low and at a high threshold, and 255 elsewhere, for training.

    Attributes:
        crf: the strategy at one threshold.
        low: pixels that are background at this threshold, after the CRF, are certain background.
        high: pixels that have a class at this threshold, after the CRF, are certain to have it.
    """

    crf: CrfLabelling
    low: float
    high: float

    def settings(self) -> dict[str, object]:
        """Return what the files depend on."""
        return {"crf": self.crf.name, "confident": [self.low, self.high]}

    def labels(self, seed: Seed, photo: Image.Image | None) -> npt.NDArray[np.uint8]:
        """Return (height, width) labels."""
        return self.refined(needed(photo), seed.high_res, seed.keys.numpy())

    def refined(self, photo: Image.Image, high_res: npt.NDArray[Any], keys: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return (height, width) labels: 0, key + 1, or 255; see :meth:`CrfLabelling.refined`."""
        sure, perhaps = (
            replace(self.crf, background=Constant(threshold)).refined(photo, high_res, keys)
            for threshold in (self.high, self.low)
        )
        labels: npt.NDArray[np.uint8] = np.where(sure > 0, sure, np.where(perhaps > 0, 255, 0)).astype(np.uint8)
        return labels
