"""Scores of networks that return more than (N, classes), for use as a Captum ``forward_func``.

The wrappers made here can be pickled and copied if the network can. Making them does not change the network.
"""

import warnings
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from captum_regioncam.arguments import real
from captum_regioncam.errors import LayerError
from captum_regioncam.network.outputs import describe, first_tensor

__all__ = ["box_score", "class_scores", "segmentation_score", "similarity_score"]

_DENSE = range(3, 6)  # dimensions of (N, classes, *grid)


class _Score(Module):
    """A network and a score of its output. The layers are the network's own, whose training modes are not changed."""

    def __init__(self, model: Callable[..., Any], score: Callable[..., Tensor], **options: Any) -> None:
        super().__init__()
        self.model, self.score = model, partial(score, **options)
        self.training = model.training if isinstance(model, Module) else False

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        """Return the network's score."""
        return self.score(self.model(*inputs, **keywords))


class _RegionScore(_Score):
    """A segmentation network, and a score over a region."""

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        """Return the network's score."""
        scores = _scores(self.model(*inputs, **keywords), _DENSE)
        if scores.shape[1:] in [value.shape[2:] for value in inputs if isinstance(value, Tensor)]:
            raise ValueError(  # whose rows would be read as classes
                f"the network returned a tensor of shape {tuple(scores.shape)}, the size of its input without a "
                "dimension for the classes. Pass a function that adds it, such as lambda x: model(x)[:, None]."
            )
        return self.score(scores)


class _BoxScore(_Score):
    """A detector, which takes a list of images, and a score of its detections."""

    def forward(self, images: Tensor | Sequence[Tensor], *others: Any, **keywords: Any) -> Tensor:
        """Return the detector's score."""
        if isinstance(images, Tensor) and images.dim() == 3:  # the first of a tuple of images
            images, others = (images, *others), ()
        return self.score(self.model(list(images), *others, **keywords), images)


def class_scores(model: Callable[..., Any]) -> Module:
    """Take the class scores from a network's output.

    Args:
        model: returns a tensor; or an object or a dict with ``logits`` (transformers) or ``out`` (torchvision); or a
            tuple or dict whose first tensor holds the scores (Inception and GoogLeNet in training mode). A loss before
            them (transformers' networks with labels), which has no dimensions, is passed over.

    Returns:
        A module that takes the inputs of ``model`` and returns that tensor. It is a ``forward_func`` for any Captum
        attribution. The layers to attribute to are those of ``model``.

    Raises:
        TypeError: when called, if the output contains no tensor.

    Example::

        >>> from types import SimpleNamespace
        >>> network = lambda x: SimpleNamespace(logits=model(x))
        >>> scores = class_scores(network)
        >>> LayerRegionCam(scores, model.layer4).attribute(x, target=281).shape
        torch.Size([2, 1, 7, 7])
    """
    return _Score(model, _scores)


def segmentation_score(
    model: Callable[..., Any], class_index: int, mask: Tensor | npt.ArrayLike | None = None
) -> Module:
    r"""Sum the scores of a class over a region, so that a segmentation network can be explained like a classifier.

    Args:
        model: returns (N, classes, \*grid) logits, in any form that :func:`class_scores` takes. The grid is (length,),
            (height, width) or (depth, height, width). Of several unnamed tensors, the first of those with the most
            dimensions counts.
        class_index: the class; 0 for a network of one channel, whose logit is above 0 at the object.
        mask: (\*grid) or (N, \*grid) tensor, array or nested list; scores count where it is True, or a number other
            than 0. Default: where the class scores highest, or where the logit of the only channel is above 0. In
            examples that have no such position, all positions count.

    Returns:
        A module that returns (N,) scores. Attribute without a target.

    Raises:
        ValueError: ``class_index`` is not an integer, or the mask has something other than numbers; or, when called,
            the output has another shape or no such class, or the mask does not fit.
        TypeError: when called, if the output contains no tensor.

    Example::

        >>> segmenter = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
        >>> score = segmentation_score(segmenter.eval(), class_index=8)
        >>> LayerRegionCam(score, segmenter.backbone["16"]).attribute(x).shape
        torch.Size([2, 1, 14, 14])
    """
    if isinstance(class_index, bool) or not isinstance(class_index, Integral):
        raise ValueError(f"class_index={class_index!r}: a class is an integer.")
    if mask is not None and not isinstance(mask, Tensor):
        values = np.asarray(mask)
        if values.dtype.kind not in "biuf":
            raise ValueError(f"mask: expects True and False, or numbers; got {values.dtype}.")
        mask = torch.as_tensor(values != 0)
    return _RegionScore(model, _in_region, class_index=int(class_index), mask=None if mask is None else mask != 0)


def box_score(
    detector: Callable[..., Any],
    boxes: Tensor | npt.ArrayLike,
    labels: Tensor | npt.ArrayLike | None = None,
    *,
    min_iou: float = 0.5,
) -> Module:
    """Take the scores of given boxes, so that a detector's detections can be explained.

    Args:
        detector: a torchvision detector in evaluation mode, from a list of images to a list of dicts of ``boxes``,
            ``labels`` and ``scores``.
        boxes: (B, 4) x0, y0, x1, y1, such as those that the detector found in the photo.
        labels: (B,) classes that the detections must have. Default: any.
        min_iou: the IoU in [0, 1] from which a detection belongs to a box. If there are several detections, the one
            with the highest IoU counts.

    Returns:
        A module that takes (N, 3, height, width), or a list or tuple of N images, and returns (N, B) scores, 0 for
        boxes that are not detected. The target is the index of the box.

    Raises:
        ValueError: the boxes have another shape or no area, the labels have another shape, or ``min_iou`` is not in
            [0, 1].
        TypeError: when called, if the detector returns something else.
        LayerError: when called with images that require gradients, if nothing is detected, so that no score depends on
            them.

    Warns:
        UserWarning: in the backward pass from a box that no detection matches. It describes the nearest detection.

    Example::

        >>> class Detector(torch.nn.Module):  # such as torchvision's fasterrcnn_resnet50_fpn
        ...     def forward(self, images):
        ...         scores = model(torch.stack(list(images))).softmax(1)[:, :1]
        ...         boxes = torch.tensor([[10.0, 20.0, 110.0, 220.0]])
        ...         return [{"boxes": boxes, "labels": torch.tensor([3]), "scores": one} for one in scores]
        >>> score = box_score(Detector(), torch.tensor([[12.0, 20.0, 110.0, 215.0]]))
        >>> LayerRegionCam(score, model.layer4).attribute(x, target=0).shape
        torch.Size([2, 1, 7, 7])
    """
    boxes = torch.as_tensor(boxes).detach()
    if boxes.dim() != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise ValueError(f"boxes of shape {tuple(boxes.shape)}: expects (B, 4) with at least one box.")
    for k, box in enumerate(boxes.tolist()):
        if not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"boxes[{k}]={box}: expects x0, y0, x1, y1 with x0 < x1 and y0 < y1.")
    classes = None if labels is None else torch.as_tensor(labels)
    if classes is not None and classes.shape != (len(boxes),):
        raise ValueError(f"labels of shape {tuple(classes.shape)}: expects one for each of the {len(boxes)} boxes.")
    if not 0 <= real(min_iou) <= 1:
        raise ValueError(f"min_iou={min_iou!r}: expects a number from 0 to 1.")

    return _BoxScore(detector, _of_boxes, boxes=boxes, labels=classes, min_iou=real(min_iou))


def similarity_score(encoder: Callable[..., Any], embeddings: Tensor) -> Module:
    """Compare images with embeddings, such as CLIP's embeddings of texts, or the embedding of another photo.

    Args:
        encoder: a function from images to (N, D) embeddings, in any form that :func:`class_scores` takes, or as
            ``image_embeds``. Of several unnamed tensors, the first with two dimensions counts.
        embeddings: (K, D) or (D,).

    Returns:
        A module that returns (N, K) cosine similarities in [-1, 1]. The target is the index of the embedding.

    Raises:
        ValueError: when called, if the encoder's embeddings have another length.
        TypeError: when called, if the output contains no tensor.

    Example::

        >>> score = similarity_score(model, torch.randn(3, 1000))
        >>> LayerRegionCam(score, model.layer4).attribute(x, target=2).shape
        torch.Size([2, 1, 7, 7])
    """
    reference = F.normalize(torch.atleast_2d(embeddings).detach(), dim=-1)

    return _Score(encoder, _cosines, reference=reference)


def _scores(output: Any, dimensions: Container[int] = ()) -> Tensor:
    """Find the scores in a network's output."""
    if isinstance(output, Tensor):
        return output
    if (found := first_tensor(output, dimensions)) is None:
        remedy = "Is a return statement missing?" if output is None else "Pass a function that returns them."
        raise TypeError(f"the network returned {describe(output)}: there is no tensor of scores in it. {remedy}")
    return found[1]


def _in_region(scores: Tensor, class_index: int, mask: Tensor | None) -> Tensor:
    """Sum a class's scores over the mask, or over where the network finds the class: (N,)."""
    returned = f"class_index={class_index}: the network returned a tensor of shape {tuple(scores.shape)}"
    if scores.dim() not in _DENSE:
        raise ValueError(f"{returned}; expects (N, classes, *grid) with a grid of 1 to 3 dimensions.")
    count, classes, *grid = scores.shape
    if not 0 <= class_index < classes:
        numbers = f"classes are 0 to {classes - 1}" if classes > 1 else "only class is 0"
        raise ValueError(f"{returned}, whose {numbers}.")
    own = scores[:, class_index]
    if mask is None:
        region = scores.argmax(1) == class_index if classes > 1 else own > 0
        region = region | ~region.flatten(1).any(1).view(-1, *[1] * len(grid))
    elif list(mask.shape) in (grid, [count, *grid], [1, *grid]):
        region = mask.to(scores.device)
    else:
        raise ValueError(
            f"mask of shape {tuple(mask.shape)}: the network scores {tuple(grid)} positions of {count} examples; "
            f"expects {tuple(grid)} or {(count, *grid)}. torch.nn.functional.interpolate resizes masks."
        )
    return (own * region).flatten(1).sum(1)


def _of_boxes(
    detections: Any, images: Iterable[Tensor], boxes: Tensor, labels: Tensor | None, min_iou: float
) -> Tensor:
    """Take the score of the detection nearest to each box, or 0: (N, B)."""
    keys = {"boxes", "scores"} if labels is None else {"boxes", "labels", "scores"}
    photos = detections if isinstance(detections, (list, tuple)) else [detections]
    if photos is not detections or not all(isinstance(one, Mapping) and keys <= one.keys() for one in photos):
        raise TypeError(
            f"the detector returned {describe(detections)}; expects a list with a dict of "
            f"{', '.join(map(repr, sorted(keys)))} for each photo, as from torchvision's detectors in evaluation mode."
        )
    rows, missed = [], {}  # missed[example, box]
    for n, detected in enumerate(photos):
        found = detected["boxes"].detach()
        iou = fits = _iou(boxes.to(found), found)
        if labels is not None:
            fits = iou * (labels.to(found.device)[:, None] == detected["labels"][None])
        best, nearest = F.pad(fits, (0, 1)).max(1)  # padded with a detection that matches nothing, as there may be none
        matches = (best >= min_iou) & (best > 0)
        rows.append(F.pad(detected["scores"], (0, 1))[nearest] * matches)
        for k in (~matches).nonzero().flatten().tolist() if torch.is_grad_enabled() else ():
            near = "nothing is detected"
            if len(found):
                near = f"nearest: {_in_words(detected, int(iou[k].argmax()))}, IoU {iou[k].max():.2f}"
            box = _in_words({"boxes": boxes, "labels": labels}, k)
            missed[n, k] = f"box {k} of example {n}, {box} ({near})"
    scores = torch.stack(rows)
    if missed and scores.requires_grad:
        scores.register_hook(partial(_warn, missed))
    elif len(missed) == scores.numel() and any(image.requires_grad for image in images):
        raise LayerError(_missing(missed.values()))
    return scores


def _warn(missed: Mapping[tuple[int, int], str], gradient: Tensor) -> None:
    """Warn of the boxes that are attributed to, which have a gradient, although no detection matches them."""
    if attributed := [missed[n, k] for n, k in gradient.nonzero().tolist() if (n, k) in missed]:
        warnings.warn(_missing(attributed), stacklevel=2)


def _missing(boxes: Collection[str]) -> str:
    """Say which boxes are missing, the first three of them in words, and what to do."""
    more = f" and {len(boxes) - 3} more" * (len(boxes) > 3)
    return (
        f"box_score: no detection matches {', '.join(list(boxes)[:3])}{more}. There is no score to attribute. Pass "
        "boxes (x0, y0, x1, y1) in pixels, and labels, that the detector finds in these photos, or a lower min_iou."
    )


def _in_words(detections: Mapping[str, Any], index: int) -> str:
    """Describe a box or detection: [0.0, 1.0, 9.0, 8.0], label 3, score 0.92."""
    words = [str([round(side, 1) for side in detections["boxes"][index].tolist()])]
    for key in ("labels", "scores"):
        if detections.get(key) is not None:
            words.append(f"{key[:-1]} {round(detections[key][index].item(), 2)}")
    return ", ".join(words)


def _cosines(output: Any, reference: Tensor) -> Tensor:
    """Compare embeddings with those of reference, (K, D), which are normalised: (N, K)."""
    images = _scores(output, dimensions=(2,))
    if images.dim() != 2 or images.shape[1] != reference.shape[1]:
        raise ValueError(
            f"embeddings of shape {tuple(reference.shape)}: the encoder returned a tensor of shape "
            f"{tuple(images.shape)}; expects (N, {reference.shape[1]})."
        )
    return F.normalize(images, dim=-1) @ reference.to(images).T


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of (A, 4) with (B, 4) boxes: (A, B)."""
    sides = torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])
    both = sides.clamp_min(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return both / (areas[0][:, None] + areas[1][None] - both)
