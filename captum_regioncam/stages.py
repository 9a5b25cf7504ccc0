"""Stages: what a network has at each resolution, and where in the network that is."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from captum_regioncam.captum_hooks import Recording, TargetType
from captum_regioncam.errors import LayerError
from captum_regioncam.grids import ReshapeTransform

__all__ = ["Stage", "collect", "find_stages"]


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
        tensor = reshape_transform(tensor)
    if not 3 <= tensor.dim() <= 5:
        raise LayerError(
            f"layer {name} gives a tensor of shape {tuple(tensor.shape)}, which is not on a grid: (N, C, length), "
            "(N, C, height, width) or (N, C, depth, height, width). Choose a layer before the pooling, or pass "
            "reshape_transform=<function to (N, C, *grid)>, such as tokens_to_grid() for a vision transformer."
        )
    return tensor


def find_stages(model: Module, *inputs: Any, min_stride: int = 2) -> dict[str, Module]:
    r"""Find the module that ends each resolution of a convolutional network, shallow to deep.

    One forward pass, in evaluation mode and without gradients, watches which module puts out which grid. Grids count
    as one resolution when they are one power of two below the input, to the nearest (112 and 113 of 224). Of all
    modules at a resolution that one is taken which is the least deep inside blocks, and of those the last: a block
    before its insides, and never what a later block does before it goes down. No stages are: pooling, padding, dropout
    and identity modules or what only hands their output on; modules that run more than once, as a hook on them would
    see another tensor; single positions; and what is not (N, C, \*grid) like the input.

    Args:
        model: the network.
        inputs: one batch as the model takes it; the first tensor with spatial dimensions sets the scale.
        min_stride: the finest resolution wanted, as input size over output size. From stride 2 there are the object's
            edges; 1 adds the input's own resolution where the network computes there.

    Returns:
        {dotted name: module}, from the finest to the coarsest resolution. Its ``values()`` are what
        :class:`~captum_regioncam.LayerRegionCam` takes as ``layer``.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: ``inputs`` has no batch of images, volumes or signals, ``min_stride`` is below 1, or the network
            shows no stage.

    Example::

        >>> list(find_stages(torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224)))
        ['relu', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: find_stages expects a torch.nn.Module, got {type(model).__name__}.")
    if min_stride < 1:
        raise ValueError(f"min_stride={min_stride}: a stride is 1 or more.")
    like = next((value for value in inputs if isinstance(value, Tensor) and 3 <= value.dim() <= 5), None)
    if like is None:
        raise ValueError("inputs: find_stages expects the model's inputs, one of them of shape (N, C, *grid).")
    calls = _watch(model, inputs, like)
    octaves = defaultdict(list)
    for call in calls:
        if call.octave is not None and call.octave >= round(math.log2(min_stride)):
            octaves[call.octave].append(call)
    within: dict[str, set[int]] = defaultdict(set)
    for call in calls:
        for name in (*call.parents, call.name):
            within[name] |= set() if call.octave is None else {call.octave}
    times = Counter(call.name for call in calls)

    def depth(call: _Call) -> int:
        # A container that runs through three resolutions or more is a trunk ("features"): its parts are the blocks.
        return sum(len(within[name]) < 3 for name in call.parents)

    chosen = []
    for octave in sorted(octaves):
        candidates = [call for call in octaves[octave] if call.computes and call.name and times[call.name] == 1]
        if candidates:
            least = min(map(depth, candidates))
            chosen.append([call.name for call in candidates if depth(call) == least][-1])
    if not chosen:
        raise ValueError(
            f"find_stages: no module of {type(model).__name__} gives (N, C, *grid) at stride {min_stride} or more for "
            f"an input of shape {tuple(like.shape)}. Name the layers yourself; where they give tokens or channels-last "
            "tensors, pass LayerRegionCam a reshape_transform as well."
        )
    return {name: model.get_submodule(name) for name in chosen}


@dataclass
class _Call:
    """One call of a module during the watched forward pass."""

    name: str
    parents: tuple[str, ...]
    octave: int | None = None
    """How many times the grid is half the input's, to the nearest; None where the output is on no such grid."""
    computes: bool = True
    """False for pooling, padding and the like, and for a container that hands on the output of one."""
    last_inside: tuple[Any, bool] = (None, True)
    """The latest call directly inside, while this one runs: its output, and whether it computes."""


_NO_STAGE = re.compile("pool|pad|drop|identity|flatten|stochasticdepth", re.IGNORECASE)


def _is_no_stage(module: Module) -> bool:
    return bool(_NO_STAGE.search(type(module).__name__)) and next(module.parameters(), None) is None


def _octave(output: Any, like: Tensor) -> int | None:
    if not isinstance(output, Tensor) or output.dim() != like.dim() or output.shape[0] != like.shape[0]:
        return None
    grid = output.shape[2:]
    if math.prod(grid) <= 1:
        return None
    octaves = [math.log2(whole / part) for whole, part in zip(like.shape[2:], grid, strict=True)]
    # Height and width shrink alike; where they do not, a channels-last tensor is read wrongly.
    return None if max(octaves) - min(octaves) > 0.5 else round(sum(octaves) / len(octaves))


def _watch(model: Module, inputs: Sequence[Any], like: Tensor) -> list[_Call]:
    """Run the model and list the calls of its modules, in the order in which they end."""
    stack: list[_Call] = []
    calls: list[_Call] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(module: Module, args: Any) -> None:
            stack.append(_Call(name, tuple(call.name for call in stack if call.name)))

        return hook

    def leave(module: Module, args: Any, output: Any) -> None:
        call = stack.pop()
        call.octave = _octave(output, like)
        (inner_output, inner_computes), call.last_inside = call.last_inside, (None, True)
        no_stage = _is_no_stage(module)
        call.computes = not no_stage and (output is not inner_output or inner_computes)
        idle = no_stage and any(output is argument for argument in args)  # dropout and identity, in evaluation mode
        if stack and not idle:
            stack[-1].last_inside = (output, call.computes)
        calls.append(call)

    with _left_as_it_was(model, inputs), torch.no_grad():
        hooks = []
        try:
            for name, module in model.named_modules():
                hooks.append(module.register_forward_pre_hook(enter(name)))
                hooks.append(module.register_forward_hook(leave))
            model(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
    return calls


@contextmanager
def _left_as_it_was(model: Module, inputs: Sequence[Any]) -> Iterator[None]:
    """Evaluation mode for a while, with the modes and the random state as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    devices = {value.device for value in inputs if isinstance(value, Tensor) and value.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            for module in modes:
                module.training = False
            yield
        finally:
            for module, training in modes.items():
                module.training = training
