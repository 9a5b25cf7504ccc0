"""Methods that make maps: the named ones, which the command line offers, and any other attribution."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from captum.attr import LayerGradCam
from torch import Tensor
from torch.nn import Module

from captum_regioncam.errors import Argument, ArgumentError, LayerError
from captum_regioncam.evaluation.multiscale import Attribute, RegionCamMaps, checked_maps
from captum_regioncam.layer_cam import LayerCam
from captum_regioncam.method.sim import is_head_stage
from captum_regioncam.network.forward_pass import forward_pass
from captum_regioncam.network.outputs import describe
from captum_regioncam.network.targets import spread_labels
from captum_regioncam.region_cam import LayerRegionCam
from captum_regioncam.stages import Stages

__all__ = ["METHODS", "Attribute", "Method", "as_attribute", "describe_method", "make_method", "named_methods"]

Method = Any
"""The name of one of METHODS; a Captum attribution, ours or Captum's; or a function of (x, K targets) that returns
(N, K, h, w) maps."""


def _last(stages: Stages) -> tuple[Module, bool]:
    """Return the module of the last stage, and whether the stage is that module's input."""
    name, module = list(stages.items())[-1]
    return module, name in stages.at_input


def _needs_reshaping(stages: Stages) -> bool:
    """Return whether the last stage gives tokens or channels-last tensors."""
    transform = stages.reshape_transform
    return list(stages)[-1] in transform if isinstance(transform, Mapping) else transform is not None


def _grad_cam(model: Module, stages: Stages, **_: Any) -> Attribute:
    if _needs_reshaping(stages):
        raise LayerError(
            "grad-cam: Captum's LayerGradCam does not support tokens or channels-last tensors. Use layer-cam or "
            "region-cam."
        )
    layer, at_input = _last(stages)
    attribute = partial(LayerGradCam(model, layer).attribute, attribute_to_layer_input=at_input, relu_attributions=True)

    def grad_cam(x: Tensor, labels: Sequence[Sequence[int]]) -> list[Tensor]:
        targets, counts = spread_labels(labels, len(x))
        maps = torch.cat([attribute(x, target) for target in targets], dim=1)
        return [of_photo[:count] for of_photo, count in zip(maps, counts, strict=True)]

    return grad_cam


def _cam(model: Module, stages: Stages, probe: Tensor, **_: Any) -> Attribute:
    grad_cam = _grad_cam(model, stages)
    layer, at_input = _last(stages)
    with forward_pass(model, [layer], probe, at_input=[at_input]) as passed:
        if not is_head_stage(passed.gradients(0)[0]).all():
            raise LayerError(
                "cam: CAM needs global average pooling and a linear layer between the last layer and the scores, which "
                "this network does not have. Name the layer before the pooling last, or use grad-cam."
            )
    # Grad-CAM weights by the mean of the gradients over the positions, CAM by their sum. With sums, the maps of
    # different scales can be added.
    return lambda x, labels: [maps * maps[0].numel() for maps in grad_cam(x, labels)]


def _layer_cam(model: Module, stages: Stages, **_: Any) -> Attribute:
    return cast(Attribute, LayerCam(model, stages).attribute_labels)


def _region_cam(model: Module, stages: Stages, contrast: float, **_: Any) -> Attribute:
    return RegionCamMaps(LayerRegionCam(model, stages, contrast=contrast))


METHODS: dict[str, Callable[..., Attribute]] = {
    "cam": _cam,
    "grad-cam": _grad_cam,
    "layer-cam": _layer_cam,
    "region-cam": _region_cam,
}


def make_method(name: str, model: Module, stages: Stages, probe: Tensor, *, contrast: float = 4.0) -> Attribute:
    """Make a method. CAM and Grad-CAM use the last stage, the others all stages.

    Args:
        name: one of METHODS.
        model: (N, 3, height, width) to (N, classes) scores.
        stages: the layers.
        probe: (1, 3, height, width) of any content; CAM tries the network on it.
        contrast: Region-CAM's contrast.

    Raises:
        LayerError: the method does not work with these layers.
    """
    return METHODS[name](model, stages, probe=probe, contrast=contrast)


def named_methods(methods: Iterable[Method] | Mapping[str, Method]) -> dict[str, Method]:
    """Return methods by the names that their results get: those that the caller gives, or else their own.

    Raises:
        ArgumentError: there is none, one is not a method, or two have the same name.
    """
    if isinstance(methods, str):
        methods = [methods]
    pairs = list(methods.items() if isinstance(methods, Mapping) else ((name_of(one), one) for one in methods))
    if not pairs:
        raise ArgumentError(Argument("methods"), ": expects at least one method, got none.")
    for name, method in pairs:
        if isinstance(method, str) and method not in METHODS:
            raise ArgumentError(
                Argument("methods", method), f": expects one of {', '.join(METHODS)}, or an attribution."
            )
        if not isinstance(method, str) and not hasattr(method, "attribute") and not callable(method):
            raise ArgumentError(
                Argument("methods"), f": {name} is {describe(method)}, neither an attribution nor a function."
            )
    named = dict(pairs)
    if "provenance" in named:
        raise ArgumentError(Argument("methods"), ": provenance is reserved in reports. Use another name.")
    if len(named) < len(pairs):
        raise ArgumentError(Argument("methods"), ": two have the same name. Pass a dict of {name: method}.")
    return named


def name_of(method: Method) -> str:
    """Return a method's own name: that of a function, or of an attribution's class."""
    return method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)


def describe_method(method: Method, model: Module) -> str:
    """Return what a record says about a method: its name, or the class and the layers of an attribution.

    Only the name of a function is known, so a run can be resumed with another function of the same name.

    Args:
        method: the method.
        model: the network, which has the layers unless the attribution says otherwise.
    """
    if isinstance(method, str):
        return method
    owner = getattr(method, "forward_func", model)
    names = {module: name for name, module in owner.named_modules()} if isinstance(owner, Module) else {}
    layers = getattr(method, "layer", ())
    listed = (
        layers.values() if isinstance(layers, Mapping) else layers if isinstance(layers, (list, tuple)) else [layers]
    )
    modules = [names.get(one, type(one).__name__) for one in listed if isinstance(one, Module)]
    kind = method if hasattr(method, "__qualname__") else type(method)
    contrast = getattr(method, "contrast", None)
    powers = [f"contrast {contrast:g}"] if isinstance(contrast, float) else []
    return " ".join([f"{kind.__module__}:{kind.__qualname__}", *modules, *powers])


def as_attribute(method: Method) -> Attribute:
    """Turn an attribution or a function into a method that takes each photo's own classes.

    If a map has several channels or layers, they are added, as Captum's ``LayerAttribution`` does for channels.
    """
    if isinstance(method, LayerRegionCam):
        return RegionCamMaps(method)
    if hasattr(method, "attribute_labels"):
        return cast(Attribute, method.attribute_labels)
    if hasattr(method, "attribute"):
        return partial(_by_attribution, method)
    return partial(_by_function, method)


def _by_attribution(attribution: Any, x: Tensor, labels: Sequence[Sequence[int]]) -> list[Tensor]:
    targets, counts = spread_labels(labels, len(x))
    x = x.detach().requires_grad_()  # Captum warns if it has to do this itself
    maps = [checked_maps(attribution.attribute(x, target=target)).sum(1, keepdim=True) for target in targets]
    return [of_photo[:count] for of_photo, count in zip(torch.cat(maps, dim=1), counts, strict=True)]


def _by_function(function: Callable[..., Any], x: Tensor, labels: Sequence[Sequence[int]]) -> list[Tensor]:
    return [checked_maps(function(x[i : i + 1], list(own)))[0] for i, own in enumerate(labels)]
