"""The layers that a user names, and checks of the tensors that pass them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict, ModuleList

from captum_regioncam.errors import LayerError
from captum_regioncam.network.outputs import describe, layer_name

__all__ = ["as_layers", "as_tensors", "check_finite", "check_kinds"]

_BY_NAME = "To get a layer by its name, use model.get_submodule(name)."
_NOT_FINITE = {
    "features": "Check the inputs and the weights; in half precision, try float32 or bfloat16.",
    "gradients": "Check the forward function (a log, division or square root at 0?); in half precision, try float32.",
}


def as_layers(
    layer: Module | Iterable[Module] | Mapping[str, Module],
    forward_func: Callable[..., Any] | None = None,
    at_input: Collection[str] = (),
) -> list[tuple[Module, bool]]:
    """Return the layers as a list, checked, each with whether its input is meant.

    Args:
        layer: as users give them.
        forward_func: if this is a module, errors name the layers by their dotted names in it.
        at_input: the names in a mapping whose module's input is meant; the module may occur for its output, too.

    Raises:
        TypeError: one of them is not a module, or is TorchScript.
        ValueError: there are none, or one is given twice.
    """
    ends: Iterable[bool] = ()
    if isinstance(layer, Module) and not isinstance(layer, (ModuleList, ModuleDict)):
        layer = [layer]
    elif isinstance(layer, (Mapping, ModuleDict)):
        ends = [name in at_input for name in layer]
        layer = layer.values()
    if isinstance(layer, str) or not isinstance(layer, Iterable):
        raise TypeError(f"layer: expects a torch.nn.Module or several, got {layer!r}. {_BY_NAME}")
    modules = list(layer)
    for module in modules:
        if not isinstance(module, Module):
            raise TypeError(f"layer: expects torch.nn.Modules, got {module!r} among them. {_BY_NAME}")
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"layer: {layer_name(module, forward_func)} is TorchScript, which runs without the hooks that see "
                "features and gradients. Attribute to the eager model that was scripted or traced."
            )
    if not modules:
        raise ValueError("layer: expects at least one torch.nn.Module, got none. find_stages(model, x) finds them.")
    layers = list(zip(modules, ends or [False] * len(modules), strict=True))
    if twice := next((one for one in layers if layers.count(one) > 1), None):
        name = type(twice[0]).__name__
        raise ValueError(f"layer: {name} is given {layers.count(twice)} times; give every layer once.")
    return layers


def as_tensors(passed: Any, name: Callable[[], str], *, at_input: bool, alone: bool) -> tuple[Tensor, ...]:
    """Return the tensors that pass a layer, checked.

    Args:
        passed: what a hook of the layer sees.
        name: returns the layer's name for errors.
        at_input: whether ``passed`` is the layer's input; otherwise it is the output.
        alone: whether this is the only layer. Only then may it have several tensors.

    Raises:
        LayerError: there are several, or something other than floating-point tensors.
    """
    tensors = tuple(passed) if isinstance(passed, (tuple, list)) else (passed,)
    does = "takes" if at_input else "gives"
    if not tensors or not all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in tensors):
        quantised = any(isinstance(tensor, Tensor) and tensor.is_quantized for tensor in tensors)
        instead = "Attribute to the network before quantisation" if quantised else "Choose a module before or after it"
        raise LayerError(f"layer {name()} {does} {describe(passed)}, not floating-point tensors. {instead}.")
    if len(tensors) > 1 and not alone:
        raise LayerError(
            f"layer {name()} {does} {len(tensors)} tensors, which only a single layer may. Choose a module inside or "
            "after it, or attribute to it alone."
        )
    return tensors


def check_kinds(features: list[Tensor]) -> None:
    """Check that the layers go together: they have one batch size, and grids with the same number of dimensions.

    Raises:
        LayerError: they do not go together.
    """
    if len(batches := {len(stage) for stage in features}) > 1:
        raise LayerError(
            f"layer: the layers see batches of different sizes, {sorted(batches)}. Choose layers of one kind."
        )
    if len(dimensions := {stage.dim() - 2 for stage in features}) > 1:
        raise LayerError(
            f"layer: the layers are on grids of different dimensions, {sorted(dimensions)}. "
            "Choose layers of one kind, or pass a reshape_transform that brings them onto grids of one kind."
        )


def check_finite(what: str, name: Callable[[], str], tensor: Tensor) -> None:
    """Check that a layer's features or gradients are finite.

    Raises:
        LayerError: they are not.
    """
    tensor = tensor.detach()
    # A sum is one fast pass, and it shows any term that is not finite. But it may also overflow when all terms are.
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise LayerError(f"the {what} of layer {name()} are not finite (NaN or infinite). {_NOT_FINITE[what]}")
