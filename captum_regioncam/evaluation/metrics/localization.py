"""Boxes of class activation maps: MaxBoxAcc, MaxBoxAccV2, Loc1, Loc5 and GT-known.

As in Choe et al., "Evaluating weakly supervised object localization methods right" (CVPR 2020).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_regioncam.arguments import plane_size, real, whole
from captum_regioncam.evaluation.score_maps import SIDE, score_map
from captum_regioncam.extras import extra

with extra("eval"):
    import cv2
    from torchmetrics import Metric

__all__ = ["BOXES", "LocalizationMetric", "squash_boxes"]

BOXES = ("contour", "rectangle")
_IOU_THRESHOLDS = (0.3, 0.5, 0.7)

Boxes = npt.NDArray[np.int64]


class LocalizationMetric(Metric):
    r"""How often the box around a map's high values matches the object's box.

    The map is resized (cubic) to ``side`` x ``side``, min-max normalised and converted to whole numbers from 0 to 255.
    At each threshold t, the pixels above int(t * maximum) are outlined, and the outlines' bounding rectangles are
    compared with the true boxes. IoU includes the pixels of both edges.

    Args:
        step: the thresholds are 0, step, 2 step, ... below 1; final scores use 0.001.
        threshold: the threshold for GT-known, Loc1 and Loc5, in [0, 1). Default: that of the best MaxBoxAcc. LayerCAM
            (Jiang et al., TIP 2021) uses 0.15, with ``box="rectangle"``.
        box: which contour gives the one box of all scores but MaxBoxAccV2: the one with the largest area ("contour"),
            or with the largest bounding rectangle ("rectangle").
        side: the side, in pixels, of the square on which map and boxes are compared.
        kwargs: passed to torchmetrics' Metric.

    Raises:
        ValueError: ``step``, ``threshold``, ``box`` or ``side`` is out of range.

    Example::

        >>> cam = torch.zeros(224, 224)
        >>> cam[50:100, 20:120] = 1
        >>> metric = LocalizationMetric()
        >>> metric.update(cam, torch.tensor([[20, 50, 120, 100]]), rank=1)
        >>> {name: float(metric.compute()[name]) for name in ("gt_known", "loc1", "loc5")}
        {'gt_known': 1.0, 'loc1': 0.0, 'loc5': 1.0}
    """

    full_state_update = False
    hits: Tensor
    hits_of_any: Tensor
    photos: Tensor

    def __init__(
        self,
        step: float = 0.01,
        threshold: float | None = None,
        box: str = "contour",
        side: int = SIDE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < real(step) < 1:
            raise ValueError(f"step={step!r}: expects a number between 0 and 1.")
        if threshold is not None and not 0 <= real(threshold) < 1:
            raise ValueError(f"threshold={threshold!r}: expects a number in [0, 1).")
        if box not in BOXES:
            raise ValueError(f"box={box!r}: expects one of {', '.join(BOXES)}.")
        if whole(side) < 1:
            raise ValueError(f"side={side!r}: expects a whole number of pixels above 0.")
        self.threshold = None if threshold is None else real(threshold)
        self.box, self.side = box, whole(side)
        swept = np.arange(0, 1, real(step))
        self.thresholds = swept if self.threshold is None else np.unique([*swept, self.threshold])
        count = len(self.thresholds)
        # Hits of the one box at IoU 0.5: all, those in the top 1, those in the top 5. Hits of any box, at each IoU.
        self.add_state("hits", torch.zeros(3, count, dtype=torch.int64), dist_reduce_fx="sum")
        any_hits = torch.zeros(len(_IOU_THRESHOLDS), count, dtype=torch.int64)
        self.add_state("hits_of_any", any_hits, dist_reduce_fx="sum")
        self.add_state("photos", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, cam: Tensor, boxes: Tensor | Boxes, rank: int = 0) -> None:
        """Count one photo.

        Args:
            cam: (H, W) map of the true class. A constant map, or one with a NaN, counts as zeros.
            boxes: (B, 4) x0, y0, x1, y1 on the square of ``side`` pixels (see :func:`squash_boxes`).
            rank: how many classes score above the true one.

        Raises:
            ValueError: shapes do not fit, or there is no box.

        Example::

            >>> metric = LocalizationMetric()
            >>> boxes = squash_boxes([[45, 84, 268, 167]], size=(500, 375))
            >>> metric.update(torch.rand(224, 224), boxes)
            >>> int(metric.photos)
            1
        """
        true = _true(boxes)
        pixels = _as_bytes(cam, self.side)
        limits = (self.thresholds * pixels.max()).astype(int)
        of_one = np.zeros(len(limits), dtype=bool)
        of_any = np.zeros((len(_IOU_THRESHOLDS), len(limits)), dtype=bool)
        for limit in np.unique(limits):  # many thresholds become the same whole number
            estimated, one = self._boxes(pixels > limit)
            iou = _iou(estimated, true)
            of_one[limits == limit] = iou[one].max() >= 0.5
            of_any[:, limits == limit] = (iou.max() >= np.array(_IOU_THRESHOLDS))[:, None]
        device = self.hits.device
        hit = torch.from_numpy(of_one).to(device)
        self.hits += torch.stack([hit, hit & (rank < 1), hit & (rank < 5)])
        self.hits_of_any += torch.from_numpy(of_any).to(device)
        self.photos += 1

    def box_at(self, cam: Tensor, boxes: Tensor | Boxes) -> tuple[Boxes, npt.NDArray[np.float64]]:
        """Return the one box of one photo's map at each threshold. The photo is not counted.

        Args:
            cam: as in :meth:`update`.
            boxes: as in :meth:`update`.

        Returns:
            (T, 4) x0, y0, x1, y1 at each of ``thresholds``, on the square of ``side`` pixels; and (T,) its IoU with the
            true box that it fits best, in [0, 1].

        Raises:
            ValueError: as in :meth:`update`.
        """
        true, pixels = _true(boxes), _as_bytes(cam, self.side)
        limits, places = np.unique((self.thresholds * pixels.max()).astype(int), return_inverse=True)
        outlined = [self._boxes(pixels > limit) for limit in limits]
        chosen = np.stack([estimated[one] for estimated, one in outlined])
        return chosen[places], _iou(chosen, true).max(1)[places]

    def _boxes(self, mask: npt.NDArray[np.bool_]) -> tuple[Boxes, int]:
        """Return the contours' bounding boxes, (B, 4), and the index of the one box."""
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        if not contours:
            return np.zeros((1, 4), dtype=np.int64), 0
        x, y, width, height = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.int64).T
        areas = width * height if self.box == "rectangle" else [cv2.contourArea(contour) for contour in contours]
        last = self.side - 1
        return np.stack([x, y, np.minimum(x + width, last), np.minimum(y + height, last)], axis=1), int(
            np.argmax(areas)
        )

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of all photos counted.

        Returns:
            ``max_box_acc``, ``max_box_acc_v2``; ``gt_known``, ``loc1`` and ``loc5`` at ``threshold``; ``thresholds``
            (T,), the ``curve`` (T,) of GT-known and the ``curves_v2`` (3, T) at IoU 0.3, 0.5 and 0.7. All in [0, 1];
            NaN without photos.

        Example::

            >>> cam = torch.zeros(224, 224)
            >>> cam[50:100, 20:120] = 1
            >>> metric = LocalizationMetric(step=0.25)
            >>> metric.update(cam, torch.tensor([[20, 50, 120, 100]]))
            >>> metric.update(cam, torch.tensor([[0, 0, 200, 200]]))
            >>> metric.compute()["curve"]
            tensor([0.5000, 0.5000, 0.5000, 0.5000])
        """
        gt_known, loc1, loc5 = self.hits / self.photos
        of_any = self.hits_of_any / self.photos
        at = int(gt_known.nan_to_num(-1).argmax())
        if self.threshold is not None:
            at = int(np.flatnonzero(self.thresholds == self.threshold)[0])
        return {
            "max_box_acc": gt_known.max(),
            "max_box_acc_v2": of_any.amax(1).mean(),
            "threshold": torch.tensor(self.thresholds[at]),
            "gt_known": gt_known[at],
            "loc1": loc1[at],
            "loc5": loc5[at],
            "thresholds": torch.from_numpy(self.thresholds),
            "curve": gt_known,
            "curves_v2": of_any,
        }


def squash_boxes(boxes: npt.ArrayLike, size: tuple[int, int], side: int = SIDE) -> Boxes:
    """Scale boxes along with a photo that is squashed to a square.

    Args:
        boxes: (B, 4) x0, y0, x1, y1 in pixels of the photo.
        size: the photo's width and height.
        side: the side of the square, in pixels.

    Returns:
        (B, 4), truncated to whole pixels.

    Raises:
        ValueError: ``size`` is not two whole numbers above 0.

    Example::

        >>> squash_boxes([[10, 10, 499, 374]], size=(500, 375))
        array([[  4,   5, 223, 223]])
    """
    width, height = plane_size("size", size, "(width, height)")
    scaled: Boxes = (np.asarray(boxes, dtype=float) * side / [width, height, width, height]).astype(np.int64)
    return scaled


def _true(boxes: Tensor | Boxes) -> npt.NDArray[Any]:
    true = np.asarray(boxes)
    if true.ndim != 2 or true.shape[1] != 4 or not len(true):
        raise ValueError(f"boxes of shape {true.shape}: expects (B, 4) with at least one box.")
    return true


def _as_bytes(cam: Tensor, side: int) -> npt.NDArray[np.uint8]:
    as_bytes: npt.NDArray[np.uint8] = (score_map(cam, side) * 255).astype(np.uint8)
    return as_bytes


def _iou(estimated: Boxes, true: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the IoU of (A, 4) with (B, 4) boxes, both edges included: (A, B)."""
    a, b = estimated[:, None], true[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    both = sides.clip(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2] + 1).prod(-1) for boxes in (a, b)]
    iou: npt.NDArray[np.float64] = both / (areas[0] + areas[1] - both)
    return iou
