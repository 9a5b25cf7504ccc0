"""Stages: a layer's features and gradients, on a grid."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_regioncam.captum_hooks import Recording, TargetType
from captum_regioncam.errors import LayerError
from captum_regioncam.grids import ReshapeTransform

__all__ = ["Stage", "collect"]


class Stage(NamedTuple):
    r"""One layer's features and their gradients, on a grid: (N, C, \*grid) both."""

    features: Tensor
    gradients: Tensor


def collect(
    recording: Recording,
    target: TargetType = None,
    *,
    reshape_transform: ReshapeTransform | None = None,
    grad_kwargs: dict[str, Any] | None = None,
) -> list[Stage]:
    r"""Differentiate a target's score and pair each layer's features with their gradients.

    Args:
        recording: a forward pass, from :func:`captum_regioncam.captum_hooks.record`.
        target: in any form that LayerGradCam takes.
        reshape_transform: turns a layer's tensor into (N, C, \*grid).
        grad_kwargs: go to :func:`torch.autograd.grad`; with ``create_graph`` the stages stay in the graph, else they
            are detached.

    Returns:
        One stage a layer, in the layers' order.

    Raises:
        LayerError: a layer is not on a grid of 1 to 3 dimensions, not finite, or without influence on the score.
        TargetError: the target does not select one score per example.
    """
    features = recording.features()
    gradients = recording.gradients(target, **(grad_kwargs or {}))
    if not (grad_kwargs or {}).get("create_graph"):
        features = [tensor.detach() for tensor in features]
    stages = []
    for name, *pair in zip(recording.names, features, gradients, strict=True):
        on_grid = [_on_grid(name, tensor, reshape_transform) for tensor in pair]
        for what, tensor in zip(("features", "gradients"), on_grid, strict=True):
            if not torch.stack(torch.aminmax(tensor.detach())).isfinite().all():
                raise LayerError(f"the {what} of layer {name} are not finite (NaN or infinite). {_NOT_FINITE[what]}")
        stages.append(Stage(*on_grid))
    if len(batches := {len(stage.features) for stage in stages}) > 1:
        raise LayerError(
            f"layer: the layers see batches of different sizes, {sorted(batches)}. Choose layers of one kind."
        )
    if len(dimensions := {stage.features.dim() - 2 for stage in stages}) > 1:
        raise LayerError(
            f"layer: the layers are on grids of different dimensions, {sorted(dimensions)}. "
            "Choose layers of one kind, or pass reshape_transform to bring them to one."
        )
    return stages


_NOT_FINITE = {
    "features": "Check the inputs and the weights; in half precision, try float32 or bfloat16.",
    "gradients": "Check the forward function (a log, a division, a square root at 0?); in half precision, try float32.",
}


def _on_grid(name: str, tensor: Tensor, reshape_transform: ReshapeTransform | None) -> Tensor:
    if reshape_transform is not None:
        batch, tensor = len(tensor), reshape_transform(tensor)
        if not isinstance(tensor, Tensor) or tensor.shape[:1] != (batch,):
            got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise LayerError(f"reshape_transform made {got} of layer {name}; it must return (N={batch}, C, *grid).")
    if not 3 <= tensor.dim() <= 5:
        raise LayerError(
            f"layer {name} gives a tensor of shape {tuple(tensor.shape)}, which is not on a grid: (N, C, length), "
            "(N, C, height, width) or (N, C, depth, height, width). Choose a layer before the pooling, or pass "
            "reshape_transform=<function to (N, C, *grid)>, such as tokens_to_grid() for a vision transformer."
        )
    return tensor
