"""One forward pass, watched: which modules run, in which order and inside which others, and what they give."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module, Sequential

from captum_regioncam.network.turns import turn
from captum_regioncam.stages.snapshot import Snapshot

__all__ = ["Call", "watch"]


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        name: the module's dotted name.
        kind: the name of its class.
        parents: the dotted names of the modules that it runs inside, from the outermost.
        is_sequential: whether the module is a plain container.
        is_linear: whether it works on the last dimension.
        is_innermost: whether no modules run inside it.
        has_parameters: whether it, or a module inside it, has parameters, including packed ones.
        started: how many innermost modules had ended when it started.
        input_shape: the shape of the first tensor that comes in.
        input_rectified: whether its only input is a tensor that is nowhere negative, somewhere 0, and elsewhere
            positive. Gates (sigmoids) are 0 nowhere.
        ended: how many innermost modules had ended when it ended, itself included.
        shape: the shape of the output; empty if that is not a single tensor of real numbers.
        rectified: whether the output is such a tensor.
        computes: False for pooling, padding and the like, and for a container that only passes on the output of one.
        last_inside: the latest call directly inside this one, while it runs: its output, and whether it computes.
        answers: for each axis of the input that was tried, how the output answers to changes along it, by each of its
            dimensions after the batch (:mod:`~captum_regioncam.stages.places`).
        is_reached: whether the scores depend on the output; None if that is not known.
        gradient: at how many places the scores' gradient is not zero, (1, size) for each of its dimensions after the
            batch; empty if that is not known.
    """

    name: str
    kind: str
    parents: tuple[str, ...]
    is_sequential: bool
    is_linear: bool
    is_innermost: bool
    has_parameters: bool
    started: int
    input_shape: tuple[int, ...]
    input_rectified: bool
    ended: int = 0
    shape: tuple[int, ...] = ()
    rectified: bool = False
    computes: bool = True
    last_inside: tuple[Any, bool] = (None, True)
    answers: dict[int, list[Tensor]] = field(default_factory=dict)
    is_reached: bool | None = None
    gradient: list[Tensor] = field(default_factory=list)


@contextmanager
def watch(
    model: Module,
    inputs: Sequence[Any],
    note: Callable[[Call, Tensor], None] | None = None,
    *,
    gradients: bool = False,
    probing: bool = False,
) -> Iterator[tuple[list[Call], Any]]:
    """Run the model once, in evaluation mode.

    What its modules hold (training modes, buffers, caches), the random state and hooks are restored when the context
    ends. Threads take turns, also with those that attribute. Calls by other threads are not watched, nor is a run of
    the model inside this one, such as a hook may start.

    Args:
        model: the network.
        inputs: its inputs.
        note: is called with each call that gives a single tensor of real numbers, and with that tensor.
        gradients: whether autograd records the run.
        probing: whether to raise an error if the run changes a tensor of the model's.

    Yields:
        The calls of its modules, in the order in which they end, and what the model returned.

    Raises:
        RuntimeError: the run changed a tensor. The tensor has been restored, but the calls may depend on the change.
    """
    ended = 0
    stack: list[Call] = []
    calls: list[Call] = []

    def is_watched() -> bool:
        return own.is_current and get_ident() == own.thread

    def enter(name: str) -> Callable[..., None]:
        def hook(module: Module, args: Any) -> None:
            if not is_watched():
                return
            stack.append(
                Call(
                    name,
                    type(module).__name__,
                    tuple(call.name for call in stack if call.name),
                    is_sequential=isinstance(module, Sequential),
                    is_linear=isinstance(module, Linear) or type(module).__name__ == "Linear",  # a quantised one
                    is_innermost=_is_innermost(module),
                    has_parameters=_has_parameters(module),
                    started=ended,
                    input_shape=next((tuple(value.shape) for value in args if isinstance(value, Tensor)), ()),
                    input_rectified=len(args) == 1 and _is_rectified(args[0]),
                )
            )

        return hook

    def leave(module: Module, args: Any, output: Any) -> None:
        nonlocal ended
        if not is_watched():
            return
        is_inside_a_run = sum(not call.name for call in stack) > 1  # a run of the whole model inside its run
        call = stack.pop()
        if is_inside_a_run:
            return
        ended += call.is_innermost
        call.ended = ended
        alone = output[0] if isinstance(output, (tuple, list)) and len(output) == 1 else output
        call.shape = tuple(alone.shape) if isinstance(alone, Tensor) and not alone.is_complex() else ()
        call.rectified = _is_rectified(alone)
        (inner_output, inner_computes), call.last_inside = call.last_inside, (None, True)
        rearranges = _only_rearranges(module)
        call.computes = not rearranges and (alone is not inner_output or inner_computes)
        idle = rearranges and any(alone is argument for argument in args)  # dropout and identity, in evaluation mode
        if stack and not idle:
            stack[-1].last_inside = (alone, call.computes)
        if note is not None and call.shape:
            note(call, alone)
        calls.append(call)

    devices = {value.device for value in inputs if isinstance(value, Tensor) and value.is_cuda}
    with turn() as own, torch.random.fork_rng(devices=list(devices)), torch.inference_mode(False):
        before = Snapshot(model)
        own.at_end(before.restore)
        for name, module in model.named_modules():
            module.training = False
            own.at_end(module.register_forward_pre_hook(enter(name)).remove)
            own.at_end(module.register_forward_hook(leave).remove)
        with torch.set_grad_enabled(gradients):
            output = model(*inputs)
            if probing and before.tensors_differ():
                raise RuntimeError(f"{type(model).__name__} changes its buffers, or other tensors that it keeps.")
            yield calls, output


def _is_rectified(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.dim() <= 2 or not value.numel() or value.is_complex():
        return False
    value = value.dequantize() if value.is_quantized else value
    return bool(value.amin() == 0) and bool(value.amax() > 0)


def _is_innermost(module: Module) -> bool:
    """Return whether a module has no modules inside, or only the one that holds the weights of a quantised module."""
    return all(name == "_packed_params" for name, _ in module.named_children())


def _has_parameters(module: Module) -> bool:
    """Return whether a module, or one inside it, has parameters; those of quantised modules are packed."""
    packed = (hasattr(inside, "_packed_params") for inside in module.modules())
    return next(module.parameters(), None) is not None or any(packed)


_REARRANGES = re.compile("pool|pad|drop|identity|flatten|stochasticdepth|permute", re.IGNORECASE)


def _only_rearranges(module: Module) -> bool:
    return bool(_REARRANGES.search(type(module).__name__)) and not _has_parameters(module)
