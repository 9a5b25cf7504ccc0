"""Several targets of one photo: the forms in which they come, as one target a backward pass."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from captum_regioncam.captum_hooks import TargetType
from captum_regioncam.errors import TargetError

__all__ = ["spread_targets"]


def spread_targets(
    targets: Iterable[Any] | Tensor, batch: int, per_example: bool | None = None
) -> tuple[list[TargetType], list[int] | None]:
    """Bring targets into K forms that LayerGradCam takes, one a backward pass.

    Args:
        targets: K targets for all examples, or N lists, one an example, of any lengths.
        batch: N.
        per_example: says which of the two it is; needed only for N lists of N.

    Returns:
        The K targets, and None; or, for lists of an example each, as many targets as the longest has, filled up for the
        others, and how many are each example's own.

    Raises:
        TargetError: there are none, they do not fit the batch, or could be meant in both ways.
    """
    if isinstance(targets, Tensor) and targets.dim() != 1:
        raise TargetError(f"targets: a tensor of shape {tuple(targets.shape)}; give (K,) classes, or a list of lists.")
    if isinstance(targets, (str, bytes, dict)) or not isinstance(targets, Iterable):
        raise TargetError(f"targets={targets!r}: expects a sequence of targets, such as [281, 207].")
    listed = [_as_list(target) for target in (targets.tolist() if isinstance(targets, Tensor) else targets)]
    if not listed:
        raise TargetError("targets is empty: give at least one target.")
    if per_example is None:
        per_example = _are_per_example(listed, batch)
    if not per_example:
        return listed, None
    if len(listed) != batch or not all(isinstance(own, list) for own in listed):
        raise TargetError(f"targets: expects a list for each of the {batch} examples, got {listed!r}.")
    counts = [len(own) for own in listed]
    if not any(counts):
        raise TargetError(f"targets={listed!r} is empty: give at least one example a target.")
    filler = next(own[0] for own in listed if own)
    return [[own[min(k, len(own) - 1)] if own else filler for own in listed] for k in range(max(counts))], counts


def _as_list(target: Any) -> Any:
    """Turn NumPy's arrays and scalars into what LayerGradCam takes; leave all else."""
    return target.tolist() if hasattr(target, "tolist") and not isinstance(target, Tensor) else target


def _are_per_example(targets: Sequence[Any], batch: int) -> bool:
    if not all(isinstance(target, list) for target in targets):
        return False
    fits = [len(target) == batch for target in targets]
    if len(targets) != batch:
        if not all(fits):
            raise TargetError(
                f"targets: {len(targets)} lists for {batch} examples. Give a list of classes for each example, or "
                "targets that apply to all of them."
            )
        return False
    if batch > 1 and all(fits):
        raise TargetError(
            f"targets={targets!r} could be {batch} targets of {batch} examples each, or {batch} lists, one an example. "
            "Say which: per_example=False or per_example=True."
        )
    return True
