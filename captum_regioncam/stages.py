"""Stages: the features and gradients of layers, checked and on their grids."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from captum_regioncam.captum_hooks import Recording, TargetType
from captum_regioncam.errors import LayerError
from captum_regioncam.grids import ReshapeTransform

__all__ = ["features_on_grid", "gradients_on_grid"]


def features_on_grid(
    recording: Recording, reshape_transform: ReshapeTransform | None = None, *, detach: bool = True
) -> list[Tensor]:
    r"""Return what went through the layers of a forward pass, on their grids.

    Args:
        recording: a forward pass, from :func:`captum_regioncam.captum_hooks.record`.
        reshape_transform: turns a layer's tensor into (N, C, \*grid).
        detach: take the features out of the graph.

    Returns:
        One (N, C, \*grid) tensor a layer, in the layers' order.

    Raises:
        LayerError: a layer is not on a grid of 1 to 3 dimensions, or not finite, or the layers do not go together.
    """
    tensors = [tensor.detach() if detach else tensor for tensor in recording.features()]
    features = [
        _checked("features", recording, index, tensor, reshape_transform) for index, tensor in enumerate(tensors)
    ]
    if len(batches := {len(stage) for stage in features}) > 1:
        raise LayerError(
            f"layer: the layers see batches of different sizes, {sorted(batches)}. Choose layers of one kind."
        )
    if len(dimensions := {stage.dim() - 2 for stage in features}) > 1:
        raise LayerError(
            f"layer: the layers are on grids of different dimensions, {sorted(dimensions)}. "
            "Choose layers of one kind, or pass reshape_transform to bring them to one."
        )
    return features


def gradients_on_grid(
    recording: Recording,
    target: TargetType = None,
    reshape_transform: ReshapeTransform | None = None,
    reduce: Callable[[int, Tensor], Tensor] | None = None,
    **grad_kwargs: Any,
) -> list[Tensor]:
    r"""Differentiate a target's score with respect to every layer, in one backward pass.

    Args:
        recording: a forward pass, from :func:`captum_regioncam.captum_hooks.record`.
        target: in any form that LayerGradCam takes.
        reshape_transform: turns a layer's tensor into (N, C, \*grid).
        reduce: called with each layer's index and gradient as soon as it exists; the gradient is dropped after it. None
            keeps them all.
        grad_kwargs: go to :func:`torch.autograd.grad`.

    Returns:
        One (N, C, \*grid) tensor a layer, in the layers' order, or what ``reduce`` made of it.

    Raises:
        LayerError: a layer's gradients are not finite, or it has no influence on the score.
        TargetError: the target does not select one score per example.
    """

    def received(index: int, gradient: Tensor) -> Tensor:
        on_grid = _checked("gradients", recording, index, gradient, reshape_transform)
        return on_grid if reduce is None else reduce(index, on_grid)

    return recording.gradients(target, received, **grad_kwargs)


def _checked(
    what: str, recording: Recording, index: int, tensor: Tensor, reshape_transform: ReshapeTransform | None
) -> Tensor:
    on_grid = _on_grid(recording, index, tensor, reshape_transform)
    if not _is_finite(on_grid.detach()):
        raise LayerError(
            f"the {what} of layer {recording.name(index)} are not finite (NaN or infinite). {_NOT_FINITE[what]}"
        )
    return on_grid


def _is_finite(tensor: Tensor) -> bool:
    # A sum is one fast pass, and what is not finite shows in it; it may overflow, though, where its terms do not.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


_NOT_FINITE = {
    "features": "Check the inputs and the weights; in half precision, try float32 or bfloat16.",
    "gradients": "Check the forward function (a log, a division, a square root at 0?); in half precision, try float32.",
}


def _on_grid(recording: Recording, index: int, tensor: Tensor, reshape_transform: ReshapeTransform | None) -> Tensor:
    if reshape_transform is not None:
        batch, tensor = len(tensor), reshape_transform(tensor)
        if not isinstance(tensor, Tensor) or tensor.shape[:1] != (batch,):
            got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise LayerError(
                f"reshape_transform made {got} of layer {recording.name(index)}; it must return (N={batch}, C, *grid)."
            )
    if not 3 <= tensor.dim() <= 5:
        raise LayerError(
            f"layer {recording.name(index)} gives a tensor of shape {tuple(tensor.shape)}, which is not on a grid: "
            "(N, C, length), (N, C, height, width) or (N, C, depth, height, width). Choose a layer before the pooling, "
            "or pass reshape_transform=<function to (N, C, *grid)>, such as tokens_to_grid() for a vision transformer."
        )
    return tensor
