"""The methods that the command line compares, by name."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from captum.attr import LayerGradCam
from torch import Tensor
from torch.nn import Module

from captum_regioncam.errors import LayerError
from captum_regioncam.layer_cam import LayerCam
from captum_regioncam.method.sim import is_head_stage
from captum_regioncam.network.forward_pass import forward_pass
from captum_regioncam.network.targets import spread_labels
from captum_regioncam.region_cam import LayerRegionCam
from captum_regioncam.stages import Stages

__all__ = ["METHODS", "TITLES", "Attribute", "make_method"]

Attribute = Callable[[Tensor, Sequence[Sequence[int]]], list[Tensor]]
"""From (N, 3, height, width) and the classes of each of the N photos to N tensors (K_n, *grid)."""


def _last(stages: Stages) -> tuple[Module, bool]:
    """Return the module of the last stage, and whether the stage is that module's input."""
    name, module = list(stages.items())[-1]
    return module, name in stages.at_input


def _grad_cam(model: Module, stages: Stages, **_: Any) -> Attribute:
    if stages.reshape_transform is not None:
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
    with forward_pass(model, [layer], probe, at_input=[layer] if at_input else []) as passed:
        if not is_head_stage(passed.gradients(0)[0]).all():
            raise LayerError(
                "cam: CAM needs global average pooling and a linear layer between the last layer and the scores, which "
                "this network does not have. Give the layer before the pooling last, or use grad-cam."
            )
    # Grad-CAM weights by the mean of the gradients over the positions, CAM by their sum. With sums, the maps of
    # different scales can be added.
    return lambda x, labels: [maps * maps[0].numel() for maps in grad_cam(x, labels)]


def _layer_cam(model: Module, stages: Stages, **_: Any) -> Attribute:
    return cast(Attribute, LayerCam(model, stages).attribute_labels)


def _region_cam(model: Module, stages: Stages, contrast: float, **_: Any) -> Attribute:
    return cast(Attribute, LayerRegionCam(model, stages, contrast=contrast).attribute_labels)


METHODS: dict[str, Callable[..., Attribute]] = {
    "cam": _cam,
    "grad-cam": _grad_cam,
    "layer-cam": _layer_cam,
    "region-cam": _region_cam,
}
TITLES = {"cam": "CAM", "grad-cam": "Grad-CAM", "layer-cam": "LayerCAM", "region-cam": "Region-CAM"}


def make_method(name: str, model: Module, stages: Stages, probe: Tensor, *, contrast: float = 3.0) -> Attribute:
    """Make a method. CAM and Grad-CAM use the last stage, the others all stages.

    Args:
        name: one of METHODS.
        model: (N, 3, height, width) to (N, classes) scores.
        stages: the layers.
        probe: (1, 3, height, width) of any content; CAM tries the network on it.
        contrast: Region-CAM's.

    Raises:
        LayerError: the method does not work with these layers.
    """
    return METHODS[name](model, stages, probe=probe, contrast=contrast)
