"""The scores of finished label maps, from one confusion matrix."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.arguments import whole
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.metrics import UNLABELLED
from captum_regioncam.evaluation.metrics.absent_classes import check_absent, over_classes
from captum_regioncam.evaluation.metrics.segmentation import IGNORED, row_blocks
from captum_regioncam.extras import extra

with extra("eval"):
    from torchmetrics import Metric
    from torchmetrics.functional.classification import multiclass_confusion_matrix

__all__ = ["LabelMapMetric"]


class LabelMapMetric(Metric):
    r"""IoU, precision, recall, FP and FN of label maps, pooled over all photos.

    Let a class have P predicted pixels and T pixels in the ground truth, of which TP are the same, and let U = P + T -
    TP. Its IoU is TP / U, its precision TP / P, its recall TP / T, its FP (P - TP) / U and its FN (T - TP) / U. FP and
    FN are those of IRN's ``eval_sem_seg.py`` and SEAM's ``evaluation.py``, so that IoU + FP + FN = 1.

    Args:
        num_classes: C, without the background.
        absent: how the means treat classes that have no pixel in the ground truth: "ignore" leaves them out unless they
            are predicted (IRN), "zero" counts them as 0 (SEAM, MCTformer), and "ignore-predicted" always leaves them
            out (CLIP-ES, ToCo).
        unlabelled: what a predicted 255 counts as: "background" (IRN, ReCAM); "missed", a pixel that is predicted as no
            class (SEAM, MCTformer); or "ignored", as if the ground truth were 255 there (ToCo's scores of pseudo
            labels).
        kwargs: passed to torchmetrics' Metric.

    Raises:
        ValueError: ``num_classes`` is not a whole number above 0, or ``absent`` or ``unlabelled`` is none of these.

    Example::

        >>> metric = LabelMapMetric(num_classes=1)
        >>> metric.update(torch.tensor([[1, 1, 0, 255]]), torch.tensor([[1, 0, 0, 0]]))
        >>> result = metric.compute()
        >>> [round(float(result[name]), 3) for name in ("miou", "pixel_accuracy", "fp", "fn", "unlabelled")]
        [0.583, 0.75, 0.25, 0.167, 0.25]
    """

    full_state_update = False
    confusion: Tensor

    def __init__(
        self, num_classes: int, *, absent: str = "ignore", unlabelled: str = "background", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if whole(num_classes) < 1:
            raise ValueError(f"num_classes={num_classes!r}: expects at least one class besides the background.")
        if unlabelled not in UNLABELLED:
            raise ArgumentError(Argument("unlabelled", unlabelled), f": expects one of {', '.join(UNLABELLED)}.")
        self.num_classes = whole(num_classes)
        self.absent, self.unlabelled = check_absent(absent), unlabelled
        counts = torch.zeros(self.num_classes + 1, self.num_classes + 2, dtype=torch.int64)
        self.add_state("confusion", counts, dist_reduce_fx="sum")

    def update(self, predicted: Tensor | npt.NDArray[Any], labels: Tensor | npt.NDArray[Any]) -> None:
        """Count the pixels of one photo.

        Args:
            predicted: (H, W): 0 for the background, class + 1, and 255 for pixels without a label.
            labels: (H, W) ground truth, likewise; 255 for pixels that do not count.

        Raises:
            ValueError: the shapes differ, or a label is out of range.

        Example::

            >>> metric = LabelMapMetric(num_classes=20)
            >>> predicted, labels = torch.tensor([[8, 8, 0]]), torch.tensor([[8, 255, 0]])
            >>> metric.update(predicted, labels)
            >>> int(metric.compute()["confusion"].sum())  # pixels
            2
        """
        device = self.confusion.device
        found, truth = (torch.as_tensor(np.asarray(values), device=device) for values in (predicted, labels))
        if found.dim() != 2 or found.shape != truth.shape:
            raise ValueError(
                f"predicted of shape {tuple(found.shape)} and labels of shape {tuple(truth.shape)} do not go together: "
                "expects (H, W) for both."
            )
        for name, values in (("predicted", found), ("labels", truth)):
            wrong = values[(values != IGNORED) & ((values < 0) | (values > self.num_classes))]
            if wrong.numel():
                raise ValueError(f"{name}: {int(wrong[0])} is neither from 0 to {self.num_classes} nor {IGNORED}.")
        none = self.num_classes + 1  # the column of pixels without a label
        for part in row_blocks(*truth.shape):
            rows = found[part].long()
            counts = multiclass_confusion_matrix(
                rows.masked_fill(rows == IGNORED, none),
                truth[part].long(),
                num_classes=none + 1,
                ignore_index=IGNORED,
                validate_args=False,
            )
            self.confusion += counts[:none]

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of all photos counted.

        Returns:
            ``miou``, ``precision``, ``recall``, ``fp`` and ``fn`` are means over the classes and the background,
            ``fp_foreground`` and ``fn_foreground`` means over the classes alone, as IRN prints them.
            ``pixel_accuracy``; ``background_in_foreground``: how much of the predicted foreground is background
            (ReCAM's ``among_predfg_bg``); ``unlabelled``: how much is predicted as 255. All of these are in [0, 1].
            ``per_class``, ``per_class_precision``, ``per_class_recall``, ``per_class_fp`` and ``per_class_fn``
            (C + 1,), background first, NaN for classes that are left out of the means. ``absent``: how many classes
            have no pixel in the ground truth. ``confusion`` (C + 1, C + 2): pixels by true and by predicted label; the
            last column is 255.

        Example::

            >>> metric = LabelMapMetric(num_classes=1)
            >>> metric.update(torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 0, 0, 0]]))
            >>> metric.compute()["per_class"]  # the background, and the class
            tensor([0.6667, 0.5000], dtype=torch.float64)
        """
        counts = self.confusion.clone()
        if self.unlabelled == "background":
            counts[:, 0] += counts[:, -1]
        if self.unlabelled != "missed":
            counts[:, -1] = 0
        truth = counts.sum(1).double()
        found, right = counts[:, : self.num_classes + 1].sum(0).double(), counts.diagonal().double()
        union = truth + found - right
        by_class = {
            "": right / union,
            "_precision": right / found,
            "_recall": right / truth,
            "_fp": (found - right) / union,
            "_fn": (truth - right) / union,
        }
        by_class = {name: over_classes(values, truth, self.absent) for name, values in by_class.items()}
        means = {name.removeprefix("_") or "miou": values.nanmean() for name, values in by_class.items()}
        return {
            **means,
            "fp_foreground": by_class["_fp"][1:].nanmean(),
            "fn_foreground": by_class["_fn"][1:].nanmean(),
            "pixel_accuracy": right.sum() / truth.sum(),
            "background_in_foreground": counts[0, 1 : self.num_classes + 1].sum() / found[1:].sum(),
            "unlabelled": self.confusion[:, -1].sum() / self.confusion.sum().double(),
            **{f"per_class{name}": values for name, values in by_class.items()},
            "absent": (truth == 0).sum(),
            "confusion": self.confusion.clone(),
        }
