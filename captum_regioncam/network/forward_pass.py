"""One forward pass with Captum's own hooks: the tensors that passed the layers, and their gradients for each target.

One call, with the layers A and B::

    inputs
      | copies that require gradients, so that frozen networks have a graph too
      v
    network ... A ----- clone of A ----- ... B ----- clone of B ----- ... scores (N, classes)
                |                            |                               |
                | Captum's hook              | Captum's hook                 | target
                v                            v                               v
             tensor A <------------------ tensor B <----- backward pass ----- score (N,)
                | hook of the tensor         | hook of the tensor
                v                            v
             gradient A                   gradient B
                | reduce                     | reduce: one gradient is alive at a time
                v                            v
             map A                        map B

- **What a hook keeps** is the layer's own tensor, as it came out of the layer. The network goes on with a clone, which
  it may change in place (:mod:`~captum_regioncam.network.taps`).
- **What a backward pass needs** is the scores and these tensors: the fields of :class:`ForwardPass`. It runs to the
  tensors that depend on no other, here A, and passes the others on its way (:mod:`~captum_regioncam.network.graph`).
- **What is cleaned up**, also after an error: when the forward pass ends, Captum's hooks; when a backward pass ends,
  the hooks of the tensors; when the context ends, autograd's modes, and the ``requires_grad`` flags that Captum's hooks
  have set on tensors of the network.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Module

from captum_regioncam.errors import LayerError
from captum_regioncam.network.captum_private import (
    TargetType,
    _format_additional_forward_args,
    _format_tensor_into_tuples,
    _reduce_list,
)
from captum_regioncam.network.graph import differentiate, sources
from captum_regioncam.network.layers import as_tensors
from captum_regioncam.network.outputs import as_scores, layer_name
from captum_regioncam.network.taps import run_tapped
from captum_regioncam.network.targets import select_score

__all__ = ["ForwardPass", "forward_pass"]

_LAST_RUN = "If a layer runs several times, even if a hook runs the network again, only its last run counts."


@dataclass(frozen=True)
class ForwardPass:
    """The result of one forward pass, from which any number of backward passes can start.

    Attributes:
        forward_func: the model, or any function around it.
        layers: the modules that it called.
        output: what it returned, from which targets select scores; anything, if no backward passes follow.
        tensors: each layer's tensor on every device that ran it: one, except with DataParallel. They are still part of
            the graph. If a single layer has several tensors, one entry for each.
    """

    forward_func: Callable[..., Any]
    layers: Sequence[Module]
    output: Tensor
    tensors: Sequence[Sequence[Tensor]]

    @property
    def is_of_several_tensors(self) -> bool:
        """Whether these are several tensors of one layer, each of which LayerGradCam maps separately."""
        return len(self.tensors) != len(self.layers)

    def name(self, index: int) -> str:
        """Return a layer's name for errors."""
        if self.is_of_several_tensors:
            return f"{layer_name(self.layers[0], self.forward_func)}, tensor {index},"
        return layer_name(self.layers[index], self.forward_func)

    def features(self) -> list[Tensor]:
        r"""Return each layer's (N, C, \*grid) tensor."""
        return [_joined(replicas) for replicas in self.tensors]

    def gradients(
        self, target: TargetType, reduce: Callable[[int, Tensor], Tensor] | None = None, **grad_kwargs: Any
    ) -> list[Tensor]:
        """Differentiate the target's score with respect to every layer, in one backward pass.

        Args:
            target: in any form that LayerGradCam takes.
            reduce: called with each layer's index and gradient during the backward pass, which then drops the gradient,
                so that only one layer's gradient is in memory at a time. None keeps the gradients.
            grad_kwargs: passed to :func:`torch.autograd.grad`.

        Returns:
            The result of ``reduce`` for each layer's gradient.

        Raises:
            TargetError: the target does not select one score per example.
            LayerError: the score does not depend on a layer.
        """
        reduce = reduce or (lambda index, gradient: gradient)
        score = self._score(target)
        places = {(i, j): tensor for i, replicas in enumerate(self.tensors) for j, tensor in enumerate(replicas)}
        reduced: dict[tuple[int, int], Tensor] = {}

        def receive(index: int, replica: int, gradient: Tensor | None) -> None:
            if gradient is not None:
                alone = len(self.tensors[index]) == 1
                reduced[index, replica] = reduce(index, gradient) if alone else gradient

        with ExitStack() as clean_up:
            for place, tensor in places.items():
                clean_up.callback(tensor.register_hook(partial(receive, *place)).remove)
            differentiate(score, self._sources, **grad_kwargs)
        unused = [place for place in places if place not in reduced]
        if unused and not grad_kwargs.get("materialize_grads"):
            raise LayerError(
                f"layer: the score of target {target!r} does not depend on "
                f"{', '.join(self.name(index) for index, _ in unused)}. Choose layers whose "
                "output reaches the score without quantised modules on the way, or pass "
                f'grad_kwargs={{"materialize_grads": True}} to use zeros there. {_LAST_RUN}'
            )
        for place in unused:
            receive(*place, torch.zeros_like(places[place]))
        parts = [[reduced[i, j] for j in range(len(replicas))] for i, replicas in enumerate(self.tensors)]
        return [own[0] if len(own) == 1 else reduce(index, _joined(own)) for index, own in enumerate(parts)]

    def _score(self, target: TargetType) -> Tensor:
        score = select_score(self.output, target)
        if not score.requires_grad:
            raise LayerError(
                f"layer: the score does not depend on {' or '.join(map(self.name, range(len(self.tensors))))} "
                "through differentiable operations. Choose layers whose output reaches the score, without detach(), "
                f"no_grad() or quantised modules on the way. {_LAST_RUN}"
            )
        return score

    @cached_property
    def _sources(self) -> list[Tensor]:
        return sources([tensor for replicas in self.tensors for tensor in replicas])


@contextmanager
def forward_pass(
    forward_func: Callable[..., Any],
    layers: Sequence[Module],
    inputs: Tensor | tuple[Tensor, ...],
    additional_forward_args: object = None,
    *,
    at_input: Sequence[bool] = (),
    device_ids: list[int] | None = None,
    differentiable: bool = True,
) -> Iterator[ForwardPass]:
    """Run the forward pass once. Any number of backward passes can follow while the context lasts.

    Frozen and trainable networks give the same gradients, because the inputs require gradients here. It works inside
    ``torch.no_grad()`` and ``torch.inference_mode()``.

    Threads that call it take turns. The hooks ignore calls by a thread that runs the same network directly at the same
    time. They also ignore calls of a run of the network inside its own forward pass, which a user's hook may start.

    Args:
        forward_func: the model, or any function around it.
        layers: modules that the forward pass calls. A module may occur twice, for its input and for its output.
        inputs: as LayerGradCam takes them. They are not changed.
        additional_forward_args: as LayerGradCam takes them.
        at_input: for each layer, whether its input is kept instead of its output. Default: the output of all.
        device_ids: the order of DataParallel's devices, needed if ``forward_func`` does not tell it.
        differentiable: whether backward passes follow. If not, nothing is saved for them, so that the pass takes no
            more memory than under ``no_grad``. Gradients are still enabled, because without them some layers, of torch
            and of other packages, take another code path with other rounding and without hooks.

    Yields:
        The result of the forward pass.

    Raises:
        LayerError: a layer is never reached, gives something other than floating-point tensors, or is one of several
            and gives more than one tensor.
        ValueError: the batch is empty.
        TypeError: ``forward_func`` does not return a tensor of real numbers.
    """
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as clean_up:
        if not differentiable:
            clean_up.enter_context(saved_tensors_hooks(_drop, _refuse))
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs  # of images, for a detector
        inputs = _format_tensor_into_tuples(inputs)
        if not all(isinstance(tensor, Tensor) for tensor in inputs):
            kinds = ", ".join(type(tensor).__name__ for tensor in inputs)
            raise TypeError(f"inputs: expects tensors, got {kinds}. Pass others in additional_forward_args.")
        inputs = tuple(map(_differentiable, inputs))
        if any(tensor.dim() and not len(tensor) for tensor in inputs):
            raise ValueError(f"inputs: the batch is empty, {[tuple(tensor.shape) for tensor in inputs]}.")
        arguments = _format_additional_forward_args(additional_forward_args) or ()

        def check(layer: Module, is_input: bool, passed: Any) -> None:
            name = partial(layer_name, layer, forward_func)
            for tensor in as_tensors(passed, name, at_input=is_input, alone=len(layers) == 1):
                if not tensor.requires_grad:  # of an integer input or a frozen parameter: Captum's hook will change it
                    clean_up.callback(tensor.requires_grad_, False)

        output, tensors = run_tapped(
            lambda *args: as_scores(forward_func(*args)) if differentiable else forward_func(*args),
            (*inputs, *map(_outside_inference_mode, arguments)),
            list(zip(layers, at_input or [False] * len(layers), strict=True)),
            network=forward_func,
            check=check,
            device_ids=device_ids,
        )
        yield ForwardPass(forward_func, layers, output, tensors)


def _differentiable(tensor: Tensor) -> Tensor:
    """Return an input that requires gradients and may be changed in place; the caller's own tensor is not changed."""
    tensor = _outside_inference_mode(tensor)
    if tensor.requires_grad or not tensor.is_floating_point():
        return tensor
    return tensor.detach().requires_grad_().clone()


def _drop(tensor: Tensor) -> None:
    """Save nothing of a tensor for backward passes."""


def _refuse(saved: None) -> Tensor:
    raise RuntimeError("the network runs a backward pass inside its forward pass, for which nothing was saved.")


def _outside_inference_mode(value: Any) -> Any:
    """Copy a tensor that was made in inference mode, which autograd cannot save; return anything else as it is."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _joined(replicas: Sequence[Tensor]) -> Tensor:
    joined: Tensor = replicas[0] if len(replicas) == 1 else _reduce_list(replicas)
    return joined
