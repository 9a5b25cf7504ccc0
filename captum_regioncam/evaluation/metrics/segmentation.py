"""Mean IoU of seeds over all background thresholds, from one pass over the photos."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.arguments import real, whole
from captum_regioncam.evaluation.metrics.absent_classes import check_absent, over_classes
from captum_regioncam.extras import extra

with extra("eval"):
    from torchmetrics import Metric

__all__ = ["IGNORED", "SegmentationMetric", "row_blocks"]

IGNORED = 255
_BLOCK = 2**22  # pixels that are counted at once


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """Yield blocks of a photo's rows, so that what is counted of a large photo takes little memory at once."""
    rows = max(1, _BLOCK // max(1, width))
    for start in range(0, height, rows):
        yield slice(start, start + rows)


class SegmentationMetric(Metric):
    r"""IoU of label maps made from class activation maps, at every background threshold.

    At a threshold t, a pixel gets the class of its highest map if that map is above t, and otherwise the background.
    This is how the field makes label maps from seeds (IRN: t = 0.15; later work sweeps t). For each pixel, only the
    best class and its score matter. Counts by (true label, best class, thresholds below the score) therefore hold the
    exact confusion matrices of all thresholds at once. They are whole numbers, which merge over processes without
    rounding.

    Args:
        num_classes: C, without the background.
        threshold: the fixed threshold, in [0, 1]; it is swept as well.
        thresholds: the thresholds to sweep, in [0, 1]. Default: 0, 0.01, ... 1.
        absent: how the means treat classes that have no pixel in the ground truth: "ignore" leaves them out unless they
            are predicted (IRN), "zero" counts them as 0 (SEAM, MCTformer), and "ignore-predicted" always leaves them
            out (CLIP-ES, ToCo).
        kwargs: passed to torchmetrics' Metric.

    Raises:
        ValueError: ``num_classes`` is not a whole number above 0, a threshold is not a number in [0, 1], or ``absent``
            is none of these.

    Example::

        >>> metric = SegmentationMetric(num_classes=1, threshold=0.5)
        >>> metric.update(torch.tensor([[[0.9, 0.7, 0.2, 0.1]]]), torch.tensor([0]), torch.tensor([[1, 0, 0, 0]]))
        >>> result = metric.compute()
        >>> [round(float(result[name]), 3) for name in ("miou", "best_miou", "best_threshold")]
        [0.583, 1.0, 0.7]
    """

    full_state_update = False
    histogram: Tensor

    def __init__(
        self,
        num_classes: int,
        threshold: float = 0.15,
        thresholds: Sequence[float] = tuple(np.arange(101) / 100),
        *,
        absent: str = "ignore",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if whole(num_classes) < 1:
            raise ValueError(f"num_classes={num_classes!r}: expects at least one class besides the background.")
        for name, value in [("threshold", threshold), *(("thresholds", value) for value in thresholds)]:
            if not 0 <= real(value) <= 1:
                raise ValueError(f"{name}: expects numbers from 0 to 1, got {value!r}.")
        self.num_classes = whole(num_classes)
        self.threshold = real(threshold)
        self.absent = check_absent(absent)
        self.thresholds = torch.tensor(sorted({self.threshold, *map(real, thresholds)}), dtype=torch.float64)
        bins = len(self.thresholds) + 1
        counts = torch.zeros(num_classes + 1, num_classes, bins, dtype=torch.int64)
        self.add_state("histogram", counts, dist_reduce_fx="sum")

    def update(self, cams: Tensor, keys: Tensor | Sequence[int], labels: Tensor | npt.NDArray[Any]) -> None:
        """Count the pixels of one photo.

        Args:
            cams: (K, H, W) in [0, 1], one map for each class of the photo; where maps are equal, the first class wins.
            keys: (K,) their classes, counted without the background. With K = 0, everything is background.
            labels: (H, W) ground truth: 0 for the background, class + 1, and 255 for pixels that do not count.

        Raises:
            ValueError: shapes do not fit, a class is out of range, or a score is NaN.

        Example::

            >>> metric = SegmentationMetric(num_classes=20)
            >>> cams = torch.tensor([[[0.9, 0.1]], [[0.2, 0.6]]])  # (K, H, W) = (2, 1, 2)
            >>> metric.update(cams, keys=[7, 14], labels=torch.tensor([[8, 15]]))
            >>> metric.update_count
            1
        """
        self.histogram += self._photo(cams, keys, labels)

    def iou(self, cams: Tensor, keys: Tensor | Sequence[int], labels: Tensor | npt.NDArray[Any]) -> Tensor:
        """Return the IoU of each class in one photo, which is not counted.

        Args:
            cams: as in :meth:`update`.
            keys: as in :meth:`update`.
            labels: as in :meth:`update`.

        Returns:
            (T, C + 1) in [0, 1] at each of ``thresholds``, background first; NaN for classes that occur in neither
            ground truth nor prediction.

        Raises:
            ValueError: as in :meth:`update`.
        """
        return self._iou(self._photo(cams, keys, labels))

    def _photo(self, cams: Tensor, keys: Tensor | Sequence[int], labels: Tensor | npt.NDArray[Any]) -> Tensor:
        """Return what one photo adds to the histogram."""
        device = self.histogram.device
        cams = torch.as_tensor(cams, device=device)
        truth = torch.as_tensor(np.asarray(labels), device=device)
        classes = torch.as_tensor(keys, device=device).long()
        if cams.dim() != 3 or cams.shape[1:] != truth.shape or classes.shape != cams.shape[:1]:
            raise ValueError(
                f"cams of shape {tuple(cams.shape)}, keys {tuple(classes.shape)} and labels {tuple(truth.shape)} do "
                "not go together: expects (K, H, W), (K,) and (H, W)."
            )
        self._check("keys", classes, 0, self.num_classes - 1)
        counts = torch.zeros_like(self.histogram)
        for part in row_blocks(*truth.shape):
            counts += self._counts(cams[:, part], classes, truth[part].long())
        return counts

    def _counts(self, cams: Tensor, classes: Tensor, truth: Tensor) -> Tensor:
        """Return what some rows of a photo add to the histogram."""
        ignored = truth == IGNORED
        self._check("labels", truth.masked_fill(ignored, 0), 0, self.num_classes)
        if len(classes):
            scores, best = cams.max(0)
            if scores.isnan().any():
                raise ValueError("cams: some scores are NaN.")
            best = classes[best] if len(classes) > 1 else classes
            # A score above t thresholds is foreground at the first t of them.
            passed = torch.bucketize(scores, self.thresholds.to(scores.device, scores.dtype))
        else:
            best = passed = torch.zeros_like(truth)
        rows, *others = self.histogram.shape
        truth = truth.masked_fill(ignored, rows)  # one extra row, which is dropped
        cells = truth.mul_(others[0]).add_(best).mul_(others[1]).add_(passed)
        counts = torch.bincount(cells.flatten(), minlength=(rows + 1) * others[0] * others[1])
        return counts.view(rows + 1, *others)[:rows]

    def _check(self, name: str, values: Tensor, lowest: int, highest: int) -> None:
        if values.numel() and not (values.min() >= lowest and values.max() <= highest):
            raise ValueError(
                f"{name}: {int(values.min())} to {int(values.max())} are not classes from {lowest} to {highest} "
                f"(num_classes={self.num_classes})."
            )

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of all photos counted.

        Returns:
            ``miou`` at the fixed threshold; ``best_miou`` and its ``best_threshold`` (if several are best, the lowest);
            ``per_class`` (C + 1,) at the fixed threshold and ``best_per_class`` at the best, background first;
            ``thresholds`` (T,) and ``curve`` (T,), the mIoU at each. All of these are in [0, 1]. A class that is left
            out of the means is NaN. ``absent``: how many classes have no pixel in the ground truth.

        Example::

            >>> metric = SegmentationMetric(1, threshold=0.3, thresholds=[0.5, 0.7])
            >>> cams = torch.tensor([[[0.9, 0.7, 0.2, 0.1]]])
            >>> metric.update(cams, keys=[0], labels=torch.tensor([[1, 0, 0, 0]]))
            >>> metric.compute()["curve"]  # at 0.3, 0.5 and 0.7
            tensor([0.5833, 0.5833, 1.0000], dtype=torch.float64)
        """
        labels = self.histogram.sum((1, 2))  # (C + 1,)
        iou = over_classes(self._iou(self.histogram), labels, self.absent)
        curve = iou.nanmean(1)
        fixed = int((self.thresholds == self.threshold).nonzero())
        best = int(curve.nan_to_num(-1).argmax())
        return {
            "miou": curve[fixed],
            "best_miou": curve[best],
            "best_threshold": self.thresholds[best],
            "per_class": iou[fixed],
            "best_per_class": iou[best],
            "thresholds": self.thresholds,
            "curve": curve,
            "absent": (labels == 0).sum(),
        }

    @staticmethod
    def _iou(histogram: Tensor) -> Tensor:
        """Return the (T, C + 1) IoU that a histogram holds."""
        counts = histogram.double()
        labels = counts.sum((1, 2))  # (C + 1,)
        above = counts.flip(2).cumsum(2).flip(2)[..., 1:].permute(2, 0, 1)  # (T, truth, class): above each threshold
        predicted = above.sum(1)  # (T, C)
        background = labels.sum() - predicted.sum(1, keepdim=True)
        right_background = labels[0] - above[:, 0].sum(1, keepdim=True)
        right = torch.cat([right_background, above[:, 1:].diagonal(dim1=1, dim2=2)], dim=1)
        return right / (labels + torch.cat([background, predicted], dim=1) - right)
