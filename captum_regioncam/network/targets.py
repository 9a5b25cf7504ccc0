"""Targets: the score that a target selects, and the forms in which several targets come."""

import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_regioncam.errors import TargetError
from captum_regioncam.network.captum_private import TargetType, _select_targets

__all__ = ["TargetType", "as_target", "list_targets", "select_score", "spread_labels"]

_NUMBERS = (
    "For a 0 or 1 for each class, pass the numbers of the classes: attribute_targets(x, "
    "torch.as_tensor(row).nonzero().flatten()), or, if each example has its own row, attribute_labels(x, "
    "[row.nonzero().flatten().tolist() for row in torch.as_tensor(rows)])."
)
_NOT_INTEGERS = f"a class is an integer. Pass integers. {_NUMBERS}"


class _OfRow(int):
    """A class 0 or 1 from a row of zeros and ones. If the row has one for each class, it is not a list of classes."""

    row: list[int]


def _as_row(classes: list[Any]) -> list[Any]:
    """Let classes remember their row if it has three or more, all of them 0 or 1, so that one class occurs twice.

    A row of two may mean the classes 0 and 1. A target with one class per example is not such a row, because a batch
    may have any classes.
    """
    if len(classes) < 3 or not _are_flags(classes):
        return classes
    row = [_OfRow(index) for index in classes]
    for index in row:
        index.row = classes
    return row


def _are_flags(row: Any) -> bool:
    return isinstance(row, (list, tuple)) and all(isinstance(index, int) and index in (0, 1) for index in row)


def as_target(target: Any) -> TargetType:
    """Turn NumPy's scalars and arrays into ints and lists, and copy tensors that were made in inference mode.

    Everything else is left as it is: int, list, tuple, tensor or None, as LayerGradCam takes them.

    Raises:
        TargetError: there is a number in it that is not an integer.
    """
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            is_flags = target.dim() > 1 or (target.dim() and ((target == 0) | (target == 1)).all())
            remedy = _NOT_INTEGERS if is_flags else "a class is an integer. Pass target.long() if it holds integers."
            raise TargetError(f"target={target!r}: {remedy}")
        return target.clone() if target.is_inference() else target
    if hasattr(target, "tolist"):
        return as_target(target.tolist())
    if isinstance(target, (list, tuple)):
        if len(target) > 1 and all(isinstance(part, (bool, float)) and part in (0, 1) for part in target):
            raise TargetError(f"target={reprlib.repr(target)}: {_NOT_INTEGERS}")
        target = type(target)(as_target(part) for part in target) if type(target) in (list, tuple) else target
    elif isinstance(target, (bool, float, complex)):
        raise TargetError(f"target={target!r}: a class is an integer. Pass int(target) if that is the class.")
    result: TargetType = target
    return result


def select_score(output: Tensor, target: Any) -> Tensor:
    """Select the target's score: one number per example.

    Args:
        output: (N, ...) what the forward function returned.
        target: in any form that LayerGradCam takes.

    Returns:
        (N,) or (N, 1, ...): one number per example.

    Raises:
        TargetError: the target does not select one score per example.
    """
    shape, target = tuple(output.shape), as_target(target)
    if output.dim() == 0:
        raise TargetError("forward_func returned one number for the whole batch; it must return one score per example.")
    if not output.numel():
        raise TargetError(f"forward_func returned an empty tensor, of shape {shape}; it must return scores.")
    _check_class_range(output, target)
    try:
        score: Tensor = _select_targets(output, target)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if output.dim() == 1:
            raise TargetError(
                f"target={target!r}: forward_func returned one score per example, a tensor of shape {shape}, so "
                "there is nothing to select. Pass target=None."
            ) from error
        if output.dim() == 2:
            rows = target.tolist() if isinstance(target, Tensor) else target
            is_nested = isinstance(rows, list) and all(isinstance(row, (list, tuple)) for row in rows)
            _refuse_flags(rows if is_nested else [rows], shape[1])
        raise TargetError(
            f"target={target!r} selects nothing from forward_func's output of shape {shape} ({error}). Pass an int or "
            "one int per example for (N, classes), a tuple of indices or one tuple per example for more dimensions."
        ) from error
    if score[0].numel() != 1:
        chosen = "target is missing" if target is None else f"target={target!r} selects {score[0].numel()} scores"
        remedy = "target=<class index>, or target=model(x).argmax(1) for the most likely class of each example."
        if output.dim() > 2:
            remedy = (
                f"a tuple of {output.dim() - 1} indices, such as target={(0,) * (output.dim() - 1)}, or one tuple per "
                "example; for a class's score over a region, wrap the network in segmentation_score."
            )
        raise TargetError(
            f"{chosen}: forward_func's output of shape {shape} has several scores per example. Pass {remedy}"
        )
    return score


def list_targets(targets: Iterable[Any] | Tensor) -> list[TargetType]:
    """List K targets, each in a form that LayerGradCam takes.

    Args:
        targets: K targets that apply to all examples, or a (K,) tensor or array of classes.

    Raises:
        TargetError: there are none, or ``targets`` is not a sequence.
    """
    shape = tuple(getattr(targets, "shape", (1,)))
    if len(shape) != 1:
        raise TargetError(f"targets: got an array of shape {shape}; pass K targets, or (K,) classes. {_NUMBERS}")
    if isinstance(targets, (str, bytes, dict)) or not isinstance(targets, Iterable):
        raise TargetError(f"targets={targets!r}: expects a sequence of targets, such as [281, 207].")
    listed: Any = as_target(targets.tolist() if hasattr(targets, "tolist") else list(targets))
    if not listed:
        raise TargetError("targets is empty: pass at least one target.")
    return _as_row(listed)


def spread_labels(labels: Iterable[Any], batch: int) -> tuple[list[TargetType], list[int]]:
    """Spread each example's own labels over targets of the whole batch.

    Args:
        labels: N sequences of any lengths: the labels of each example, each an int or a tuple of indices.
        batch: N.

    Returns:
        As many targets as the longest sequence has labels, and the number of labels of each example. An example with
        fewer labels repeats its last one; an example without labels gets another example's.

    Raises:
        TargetError: an example has no sequence of labels, or there is no label at all.
    """
    if isinstance(labels, (str, bytes, dict)) or not isinstance(labels, Iterable):
        raise TargetError(f"labels={labels!r}: expects a list of labels for each example, such as [[281, 207], [15]].")
    listed: list[Any] = [as_target(own.tolist() if isinstance(own, Tensor) else own) for own in labels]
    if len(listed) != batch or not all(isinstance(own, (list, tuple)) for own in listed):
        raise TargetError(
            f"labels: expects a list for each of the {batch} examples, got {listed!r}. Targets that apply to all "
            "examples go to attribute_targets."
        )
    counts = [len(own) for own in listed]
    if not any(counts):
        raise TargetError(f"labels={listed!r}: expects at least one label.")
    filler = next(own[0] for own in listed if own)
    listed = [_as_row(list(own)) for own in listed]
    return [[own[min(k, len(own) - 1)] if own else filler for own in listed] for k in range(max(counts))], counts


def _check_class_range(output: Tensor, target: TargetType) -> None:
    """Catch a class out of range before it reaches the device, where CUDA would abort the process."""
    indices: Sequence[Any] = target.flatten().tolist() if isinstance(target, Tensor) else [target]
    indices = list(target) if isinstance(target, list) else indices
    if output.dim() != 2 or not all(isinstance(index, int) for index in indices):
        return
    classes = output.shape[1]
    _refuse_flags([getattr(index, "row", None) for index in indices], classes)
    lowest = 0 if isinstance(target, list) or len(indices) > 1 else -classes
    for index in indices:
        if not lowest <= index < classes:
            raise TargetError(
                f"target={index} is out of range: forward_func returns "
                + (
                    f"the scores of {classes} classes, 0 to {classes - 1}."
                    if classes > 1
                    else "the score of class 0 only."
                )
                + f" One int for all examples may count from the end, -1 to -{classes}; a list may not." * (index < 0)
                + f" Pass {index + classes}." * (-classes <= index < 0)
            )


def _refuse_flags(rows: Sequence[Any], classes: int) -> None:
    """Refuse rows with a 0 or 1 for each class."""
    if rows and classes > 2 and all(_are_flags(row) and len(row) == classes for row in rows):
        raise TargetError(
            f"target={reprlib.repr(rows[0])} has as many numbers as there are classes, all of them 0 or 1. {_NUMBERS}"
        )
