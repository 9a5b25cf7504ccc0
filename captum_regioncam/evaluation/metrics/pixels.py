"""Pixels of class activation maps: PxAP.

As in Choe et al., "Evaluating weakly supervised object localization methods right" (CVPR 2020).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.arguments import whole
from captum_regioncam.evaluation.metrics.segmentation import IGNORED, row_blocks
from captum_regioncam.evaluation.score_maps import stretched
from captum_regioncam.extras import extra

with extra("eval"):
    from torchmetrics import Metric

__all__ = ["PixelCurves", "PixelMetric"]


class _PixelCounts(Metric):
    """Histograms of a map's values, inside and outside of the objects, pooled over all photos."""

    full_state_update = False
    inside: Tensor
    outside: Tensor

    def __init__(self, bins: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if whole(bins) < 1:
            raise ValueError(f"bins={bins!r}: expects at least 1.")
        self.bins = whole(bins)
        for name in ("inside", "outside"):
            self.add_state(name, torch.zeros(self.bins + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, cam: Tensor, mask: Tensor | npt.NDArray[Any]) -> None:
        """Count the pixels of one photo.

        Args:
            cam: (H, W) map. A constant map, or one with a NaN, counts as zeros.
            mask: (H, W), 1 or True on the object, 0 elsewhere, 255 for pixels that do not count.

        Raises:
            ValueError: shapes do not fit, or the mask has other values.

        Example::

            >>> metric = PixelMetric()
            >>> metric.update(torch.rand(224, 224), torch.randint(2, (224, 224)))
            >>> metric.update_count
            1
        """
        truth = torch.as_tensor(np.asarray(mask)).to(self.inside.device)
        if cam.dim() != 2 or cam.shape != truth.shape:
            raise ValueError(f"cam {tuple(cam.shape)} and mask {tuple(truth.shape)}: expects (H, W) for both.")
        values = stretched(cam).to(truth.device)
        counts = truth.new_zeros(3, self.bins + 1, dtype=torch.int64)
        for part in row_blocks(*truth.shape):
            bins = (values[part].double() * self.bins).int()
            cells = bins.add_(truth[part] == 1, alpha=self.bins + 1)
            cells.add_(truth[part] == IGNORED, alpha=2 * (self.bins + 1))
            counts += torch.bincount(cells.flatten(), minlength=counts.numel()).view(3, -1)
        if counts[0].sum() != (truth == 0).sum():
            raise ValueError("mask: expects only the values 0, 1 and 255.")
        self.outside += counts[0]
        self.inside += counts[1]

    def _true_and_false(self) -> tuple[Tensor, Tensor]:
        """Return how many pixels are at or above each threshold, from 1 down to 0: true and false ones."""
        return self.inside.flip(0).cumsum(0).double(), self.outside.flip(0).cumsum(0).double()

    def _average_precision(self) -> Tensor:
        true, false = self._true_and_false()
        precision, recall = true / (true + false).clamp_min(1), true / self.inside.sum()
        return (precision * recall.diff(prepend=recall.new_zeros(1))).sum()


class PixelMetric(_PixelCounts):
    """PxAP: the average precision of a map's values as a detector of the object's pixels, pooled over all photos.

    The maps are min-max normalised; precision and recall are taken at the thresholds 0, 1 / bins, ... 1, and the
    average precision is the sum of precision times the step in recall.

    Args:
        bins: the number of threshold steps.
        kwargs: passed to torchmetrics' Metric.

    Raises:
        ValueError: ``bins`` is not a whole number above 0.

    Example::

        >>> metric = PixelMetric()
        >>> metric.update(torch.tensor([[0.0, 0.4], [0.6, 1.0]]), torch.tensor([[0, 0], [1, 1]]))
        >>> float(metric.compute())
        1.0
    """

    def compute(self) -> Tensor:
        """Return the average precision in [0, 1]; NaN if no pixel belonged to an object.

        Example::

            >>> metric, cam = PixelMetric(), torch.tensor([[0.0, 0.4], [0.6, 1.0]])
            >>> metric.update(cam, mask=torch.tensor([[0, 1], [0, 1]]))
            >>> metric.compute()
            tensor(0.8333, dtype=torch.float64)
        """
        return self._average_precision()


class PixelCurves(_PixelCounts):
    """PxAP, and the IoU of the pixels at or above each threshold with those of the objects."""

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of all photos counted, in [0, 1]; NaN if no pixel belonged to an object.

        Returns:
            ``pxap``; the highest IoU, ``piou``, and the ``best_threshold`` that gives it; the ``thresholds``
            (bins + 1,) and the ``curve`` of the IoU, (bins + 1,).
        """
        true, false = (counts.flip(0) for counts in self._true_and_false())
        iou = true / (self.inside.sum() + false)
        iou[self.inside.sum() == 0] = torch.nan
        thresholds = torch.arange(self.bins + 1, dtype=torch.float64) / self.bins
        return {
            "pxap": self._average_precision(),
            "piou": iou.max(),
            "best_threshold": thresholds[int(iou.nan_to_num(-1).argmax())],
            "thresholds": thresholds,
            "curve": iou,
        }
