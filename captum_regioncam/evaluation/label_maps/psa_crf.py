"""Dense CRF of scores, as PSA refines its seeds (Ahn and Kwak, CVPR 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_regioncam.evaluation.label_maps.backgrounds import Power
from captum_regioncam.evaluation.label_maps.dense_crf import Kernels, import_crf, inference
from captum_regioncam.evaluation.label_maps.strategy import Strategy, needed
from captum_regioncam.evaluation.seeds.files import encode_arrays
from captum_regioncam.evaluation.seeds.seed import Seed

__all__ = ["PsaCrf", "crf_scores"]

_KERNELS = Kernels(sxy=80, srgb=13)


@dataclass(frozen=True)
class PsaCrf(Strategy):
    """Refined scores, {0: background, class + 1: map}, for each of several powers of the background.

    They are not seeds, whose classes are counted without the background: :func:`load_seed` rejects them.
    """

    alphas: Sequence[float] = (4.0, 24.0)

    has_overlays = False

    def settings(self) -> dict[str, object]:
        """Return what the files depend on."""
        return {"crf": "psa", "confident": None, "alphas": list(self.alphas)}

    def files(self, name: str) -> list[str]:
        """Return a path for each power: alpha-A/NAME.npy."""
        return [f"alpha-{alpha:g}/{name}.npy" for alpha in self.alphas]

    def contents(self, seed: Seed, photo: Image.Image | None, *, overlay: bool) -> list[bytes]:
        """Return the scores for each power."""
        keys, high_res = seed.keys.numpy(), seed.high_res
        if not len(keys):  # everything is background
            scores = [np.ones((1, *high_res.shape[1:]), dtype=np.float32)] * len(self.alphas)
        else:
            scores = [crf_scores(needed(photo), high_res, alpha) for alpha in self.alphas]
        labels = [0, *(keys + 1).tolist()]
        return [encode_arrays(dict(zip(labels, of_alpha, strict=True))) for of_alpha in scores]


def crf_scores(photo: Image.Image, high_res: npt.NDArray[Any], alpha: float) -> npt.NDArray[np.float32]:
    """Refine the scores of a seed as PSA does (Ahn and Kwak, CVPR 2018, infer_cls.py).

    The background's score is (1 - the highest map) to the power of ``alpha``. A higher ``alpha`` gives less background.

    Args:
        photo: the photo, an RGB image.
        high_res: (K, height, width) in [0, 1], at least one map.
        alpha: the power, above 0; PSA uses a low one (4) and a high one (24).

    Returns:
        (K + 1, height, width) in [0, 1], the background first.

    Raises:
        ImportError: pydensecrf2 is not installed.

    Example::

        >>> crf_scores(photo, np.random.rand(1, 375, 500), alpha=4).shape
        (2, 375, 500)
    """
    planes = Power(alpha).planes(np.asarray(high_res, dtype=np.float32))
    unary = import_crf().utils.unary_from_softmax(planes)
    return inference(np.array(photo.convert("RGB"), dtype=np.uint8), unary, len(planes), _KERNELS)
