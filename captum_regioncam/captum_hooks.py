"""The one place that touches Captum's private helpers: features and gradients at many layers, in one forward pass.

Targets, arguments and the order of DataParallel's replicas are Captum's; the hooks are our own, and go away whatever
happens. The supported range of Captum is in setup.cfg.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock
from typing import Any, cast

import torch
from captum._utils.common import (
    _format_additional_forward_args,
    _format_tensor_into_tuples,
    _reduce_list,
    _run_forward,
    _select_targets,
    _sort_key_list,
)
from captum._utils.gradient import _extract_device_ids
from captum._utils.typing import TargetType
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn import Module, ModuleDict, ModuleList

from captum_regioncam.errors import LayerError, TargetError

__all__ = ["Recording", "TargetType", "as_layers", "eagerly", "record"]


@dataclass(frozen=True)
class Recording:
    """One forward pass: what it returned, and what went through the layers."""

    output: Tensor
    replicas: tuple[tuple[Tensor, ...], ...]
    """Each layer's tensor on every device that ran it: one, but for DataParallel."""
    of_one_layer: bool
    """Whether these are the several tensors of one layer, each of which LayerGradCam maps alone."""
    name: Callable[[int], str]
    """How errors call the layer of an index: found only when asked, as it takes a walk over the modules."""

    def features(self) -> list[Tensor]:
        r"""Return each layer's (N, C, \*grid) tensor, still part of the graph."""
        return [_gather(replicas) for replicas in self.replicas]

    def gradients(
        self, target: TargetType = None, reduce: Callable[[int, Tensor], Tensor] | None = None, **grad_kwargs: Any
    ) -> list[Tensor]:
        r"""Differentiate the target's score with respect to every layer, in one backward pass.

        Args:
            target: in any form that LayerGradCam takes.
            reduce: called with each layer's index and gradient during the backward pass, which then drops the gradient,
                so that not all of them are in memory together. None keeps them.
            grad_kwargs: go to :func:`torch.autograd.grad`.

        Returns:
            For each layer a tensor of its shape, or what ``reduce`` made of it.

        Raises:
            TargetError: the target does not select one score per example.
            LayerError: the score does not depend on a layer.
        """
        reduce = reduce or (lambda index, gradient: gradient)
        score = _select_score(self.output, target)
        if not score.requires_grad:
            raise LayerError(
                f"layer: the score does not depend on {' or '.join(map(self.name, range(len(self.replicas))))} "
                "through differentiable operations. "
                "Choose layers whose output reaches the score, and let no detach() or no_grad() come after them."
            )
        taken: list[list[Tensor | None]] = [[None] * len(tensors) for tensors in self.replicas]

        def take(index: int, replica: int, gradient: Tensor | None) -> None:
            if gradient is not None:
                alone = len(taken[index]) == 1
                taken[index][replica] = reduce(index, gradient) if alone else gradient

        options = {"grad_outputs": torch.ones_like(score), "allow_unused": True, **grad_kwargs}
        places = [(i, j, tensor) for i, tensors in enumerate(self.replicas) for j, tensor in enumerate(tensors)]
        with ExitStack() as hooks:
            for index, replica, tensor in places:
                hooks.callback(tensor.register_hook(partial(take, index, replica)).remove)
            torch.autograd.grad(score, self._sources, **options)
        if grad_kwargs.get("materialize_grads"):
            for index, replica, tensor in places:
                if taken[index][replica] is None:
                    take(index, replica, torch.zeros_like(tensor))
        unused = [self.name(index) for index, replica, _ in places if taken[index][replica] is None]
        if unused:
            raise LayerError(
                f"layer: the score of target {target!r} does not depend on {', '.join(unused)}. Choose layers whose "
                'output reaches the score, or pass grad_kwargs={"materialize_grads": True} to take zeros there.'
            )
        gradients = [cast(list[Tensor], replicas) for replicas in taken]
        return [
            replicas[0] if len(replicas) == 1 else reduce(index, _gather(replicas))
            for index, replicas in enumerate(gradients)
        ]

    @cached_property
    def _sources(self) -> list[Tensor]:
        """The layers' tensors that depend on no other layer's: a backward pass to them passes all the others."""
        tensors = [tensor for replicas in self.replicas for tensor in replicas]
        nodes = [get_gradient_edge(tensor).node for tensor in tensors]
        recorded = set(nodes)
        return [tensor for tensor, node in zip(tensors, nodes, strict=True) if not _reaches(node, recorded)]


def _reaches(node: Node, others: set[Node]) -> bool:
    """Tell whether the graph below a node has one of the others."""
    seen: set[Node] = set()
    pending = [node]
    while pending:
        for below, _ in pending.pop().next_functions:
            if below in others:
                return True
            if below is not None and below not in seen:
                seen.add(below)
                pending.append(below)
    return False


@contextmanager
def record(
    forward_func: Callable[..., Any],
    layers: Sequence[Module],
    inputs: Tensor | tuple[Tensor, ...],
    additional_forward_args: object = None,
    *,
    attribute_to_layer_input: bool = False,
    device_ids: list[int] | None = None,
    whole_graph: bool = False,
) -> Iterator[Recording]:
    """Run the forward pass once and keep what went through the layers, as long as the context lasts.

    On leaving, hooks and graph are gone and no input's ``requires_grad`` has changed. It works inside
    ``torch.no_grad()`` and ``torch.inference_mode()``, on frozen models as on trainable ones.

    Layers' gradients need no graph below the first layer that runs: its output starts the graph, as on a frozen model,
    and activations before it are freed as in inference.

    Args:
        forward_func: the model, or any function around it.
        layers: modules that the forward pass calls.
        inputs: as LayerGradCam takes them.
        additional_forward_args: as LayerGradCam takes them.
        attribute_to_layer_input: record what goes into the layers, not what comes out.
        device_ids: the order of DataParallel's devices, where ``forward_func`` does not tell it.
        whole_graph: keep the graph down to inputs and parameters, to differentiate what is made of the recording.

    Yields:
        The recording.

    Raises:
        LayerError: a layer is never reached, or one of several gives more than one tensor.
        ValueError: the batch is empty.
        TypeError: ``forward_func`` does not return a tensor.
    """
    with torch.inference_mode(False), torch.enable_grad(), eagerly():
        inputs = _trackable(_format_tensor_into_tuples(inputs))
        if any(tensor.dim() and not len(tensor) for tensor in inputs):
            raise ValueError(f"inputs: the batch is empty, {[tuple(tensor.shape) for tensor in inputs]}.")
        arguments = _format_additional_forward_args(additional_forward_args)
        arguments = None if arguments is None else _trackable(arguments)
        with _requires_grad_kept() as flipped:
            cut = not whole_graph and not attribute_to_layer_input
            saved, output = _forward(forward_func, layers, inputs, arguments, attribute_to_layer_input, cut, flipped)
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"forward_func returned {_describe(output)}, not a tensor of scores. Pass a function that picks "
                    "one score per example or per class, such as lambda x: model(x).logits or lambda x: model(x)[0]."
                )
            missed = [layer for layer in layers if layer not in saved]
            if missed:
                raise LayerError(_never_reached(missed, forward_func))
            device_ids = _extract_device_ids(forward_func, saved, device_ids)
            ordered = [
                [saved[layer][key] for key in _sort_key_list(list(saved[layer]), device_ids)] for layer in layers
            ]
            counts = [len(tensors[0]) for tensors in ordered]
            of_one_layer = len(layers) == 1 and counts[0] > 1
            for layer, count in zip(layers, counts, strict=True):
                if count != 1 and not of_one_layer:
                    raise LayerError(
                        f"layer {_name(layer, forward_func)} gives {count} tensors, which only a single "
                        "layer may. Choose a module inside or after it, or attribute to it alone."
                    )

            def name(index: int) -> str:
                called = _name(layers[0 if of_one_layer else index], forward_func)
                return f"{called}, tensor {index}," if of_one_layer else called

            replicas = tuple(
                tuple(tensors[index] for tensors in on_devices)
                for on_devices, count in zip(ordered, counts, strict=True)
                for index in range(count)
            )
            yield Recording(output, replicas, of_one_layer, name)


def as_layers(layer: Module | Iterable[Module] | Mapping[str, Module]) -> list[Module]:
    """Return the layers as a list, checked.

    Raises:
        TypeError: something among them is no module, or is TorchScript.
        ValueError: there are none, or one comes twice.
    """
    if isinstance(layer, Module) and not isinstance(layer, (ModuleList, ModuleDict)):
        layer = [layer]
    elif isinstance(layer, (Mapping, ModuleDict)):
        layer = layer.values()
    if isinstance(layer, str) or not isinstance(layer, Iterable):
        raise TypeError(f"layer: expects a torch.nn.Module or several, got {layer!r}. {_BY_NAME}")
    layers = list(layer)
    for module in layers:
        if not isinstance(module, Module):
            raise TypeError(f"layer: expects torch.nn.Modules, got {module!r} among them. {_BY_NAME}")
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"layer: {type(module).__name__} is TorchScript, which runs without the hooks that see features and "
                "gradients. Attribute to the eager model that was scripted or traced."
            )
    if not layers:
        raise ValueError("layer: expects at least one torch.nn.Module, got none. find_stages(model, x) finds them.")
    if len(set(layers)) < len(layers):
        twice = next(module for module in layers if layers.count(module) > 1)
        raise ValueError(f"layer: {type(twice).__name__} is given {layers.count(twice)} times; give every layer once.")
    return layers


_BY_NAME = "A layer known by its name is model.get_submodule(name)."


def _forward(
    forward_func: Callable[..., Any],
    layers: Sequence[Module],
    inputs: tuple[Tensor, ...],
    arguments: tuple[Any, ...] | None,
    attribute_to_layer_input: bool,
    cut: bool,
    flipped: list[Tensor],
) -> tuple[dict[Module, dict[torch.device, tuple[Tensor, ...]]], Any]:
    """Run the forward pass; keep what passes the layers, and of it the leaves that did not require gradients."""
    saved: dict[Module, dict[torch.device, tuple[Tensor, ...]]] = {}
    lock = Lock()  # DataParallel's replicas run in threads

    def hook_of(layer: Module) -> Callable[..., Any]:
        def hook(module: Module, args: Any, output: Any = None) -> Any:
            passed = args if attribute_to_layer_input else output
            several = isinstance(passed, (tuple, list))
            tensors = tuple(passed) if several else (passed,)
            if not tensors or not all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in tensors):
                what = "takes" if attribute_to_layer_input else "gives"
                raise LayerError(
                    f"layer {_name(layer, forward_func)} {what} {_describe(passed)}, not tensors of "
                    "floating point. Choose a module before or after it."
                )
            device = tensors[0].device
            with lock:
                first = all(device not in on_devices for on_devices in saved.values())
                saved.setdefault(layer, {})[device] = tensors
            if cut and first and not several and _made_here(passed, args):
                passed.detach_()  # in place: what the layer keeps of its output stays part of the graph
            for tensor in tensors:
                if tensor.is_leaf and not tensor.requires_grad:
                    flipped.append(tensor.requires_grad_())
            guarded = tuple(map(_guarded, tensors))
            return list(guarded) if isinstance(passed, list) else guarded if several else guarded[0]

        return hook

    before = attribute_to_layer_input
    register = [layer.register_forward_pre_hook if before else layer.register_forward_hook for layer in layers]
    handles = [add(hook_of(layer)) for add, layer in zip(register, layers, strict=True)]
    try:
        return saved, _run_forward(forward_func, inputs, additional_forward_args=arguments)
    finally:
        for handle in handles:
            handle.remove()


def _made_here(output: Tensor, args: tuple[Any, ...]) -> bool:
    """Tell whether a layer made its output: it is no parameter, no view, and not what the layer was given."""
    return not output.is_leaf and not output._is_view() and not any(output is arg for arg in args)


def _guarded(tensor: Tensor) -> Tensor:
    """Return the tensor for the network to go on with: in-place operations must not reach the one that is kept.

    A copy on write costs nothing where none follow; not every kind of memory can be shared so.
    """
    if tensor.device.type in ("cpu", "cuda"):
        with suppress(RuntimeError):
            return torch._lazy_clone(tensor)
    return tensor.clone()


@contextmanager
def eagerly() -> Iterator[None]:
    """Run compiled models eagerly: what they were compiled to does not run hooks that came later."""
    with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
        yield


def _describe(output: Any) -> str:
    """Say what a network returned: its type, and what it holds."""
    if isinstance(output, Mapping):
        return f"{type(output).__name__} of {', '.join(map(repr, output))}"
    if isinstance(output, (list, tuple)):
        return f"{type(output).__name__} of [{', '.join(map(_describe, output))}]"
    if isinstance(output, Tensor):
        return f"a {output.dtype} tensor of shape {tuple(output.shape)}"
    return type(output).__name__


def _never_reached(layers: Iterable[Module], forward_func: Callable[..., Any]) -> str:
    names = ", ".join(_name(layer, forward_func) for layer in layers)
    return (
        f"layer: the forward pass never reaches {names}. Choose modules that forward_func calls; find_stages(model, x) "
        "finds them."
    )


def _name(layer: Module, forward_func: Callable[..., Any]) -> str:
    modules = forward_func.named_modules() if isinstance(forward_func, Module) else ()
    names = (f"'{name}' ({type(layer).__name__})" for name, module in modules if module is layer and name)
    return next(names, type(layer).__name__)


def _gather(replicas: Sequence[Tensor]) -> Tensor:
    gathered: Tensor = replicas[0] if len(replicas) == 1 else _reduce_list(replicas)
    return gathered


def _trackable(tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy tensors made in inference mode, which autograd cannot save; leave all else."""
    return tuple(t.clone() if isinstance(t, Tensor) and t.is_inference() else t for t in tensors)


@contextmanager
def _requires_grad_kept() -> Iterator[list[Tensor]]:
    """Give a list for leaves that are to require no gradients again afterwards: an input or a parameter handed on."""
    leaves: list[Tensor] = []
    try:
        yield leaves
    finally:
        for leaf in leaves:
            leaf.requires_grad_(False)


def _select_score(output: Tensor, target: TargetType) -> Tensor:
    """Select the target's score: one number per example, by Captum's rules and with errors that say more."""
    shape = tuple(output.shape)
    if output.dim() == 0:
        raise TargetError("forward_func returned one number for the whole batch; it must return one score per example.")
    _check_class_range(output, target)
    try:
        score: Tensor = _select_targets(output, target)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise TargetError(
            f"target={target!r} selects nothing from forward_func's output of shape {shape} ({error}). Pass an int or "
            "one int per example for (N, classes), a tuple of indices or one tuple per example for more dimensions."
        ) from error
    if score[0].numel() != 1:
        chosen = "target is missing" if target is None else f"target={target!r} selects {score[0].numel()} scores"
        raise TargetError(
            f"{chosen}: forward_func's output of shape {shape} has several scores per example. Pass "
            "target=<class index>, or a tuple of indices where the output has more than two dimensions."
        )
    return score


def _check_class_range(output: Tensor, target: TargetType) -> None:
    """Catch a class out of range before it reaches the device, where CUDA would abort the process."""
    indices: list[Any] = target.flatten().tolist() if isinstance(target, Tensor) else [target]
    indices = list(target) if isinstance(target, list) else indices
    if output.dim() != 2 or not all(type(index) is int for index in indices):
        return
    classes = output.shape[1]
    lowest = 0 if isinstance(target, list) or len(indices) > 1 else -classes
    for index in indices:
        if not lowest <= index < classes:
            raise TargetError(
                f"target={index} is out of range: forward_func returns the scores of {classes} classes, "
                f"0 to {classes - 1}."
            )
