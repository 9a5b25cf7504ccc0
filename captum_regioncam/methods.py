"""The methods that the command line compares, by their names there."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from captum.attr import LayerGradCam
from torch import Tensor
from torch.nn import Module

from captum_regioncam.errors import LayerError
from captum_regioncam.forward_pass import forward_pass
from captum_regioncam.layer_cam import LayerCam
from captum_regioncam.region_cam import LayerRegionCam
from captum_regioncam.sim import is_head_stage
from captum_regioncam.stages import Stages

__all__ = ["METHODS", "TITLES", "Attribute"]

Attribute = Callable[[Tensor, Sequence[int]], Tensor]
"""From (N, 3, height, width) and K classes to (N, K, *grid) maps."""


def _last(stages: Stages) -> tuple[Module, bool]:
    """Return the last stage, and whether it is the input of that module."""
    name, module = list(stages.items())[-1]
    return module, name in stages.at_input


def _grad_cam(model: Module, stages: Stages, **_: Any) -> Attribute:
    if stages.reshape_transform is not None:
        raise LayerError("grad-cam: Captum's LayerGradCam knows no tokens and no channels-last tensors.")
    layer, at_input = _last(stages)
    attribute = partial(LayerGradCam(model, layer).attribute, attribute_to_layer_input=at_input, relu_attributions=True)
    return lambda x, targets: torch.cat([attribute(x, target) for target in targets], dim=1)


def _cam(model: Module, stages: Stages, **_: Any) -> Attribute:
    grad_cam = _grad_cam(model, stages)
    layer, at_input = _last(stages)
    checked = False

    def cam(x: Tensor, targets: Sequence[int]) -> Tensor:
        nonlocal checked
        if not checked:
            with forward_pass(model, [layer], x, at_input=[layer] if at_input else []) as passed:
                if not is_head_stage(passed.gradients(targets[0])[0]).all():
                    raise LayerError(
                        "cam: the network does not go from the last layer to the scores by global average pooling and "
                        "a linear layer, which CAM needs. Give that layer last, or use grad-cam."
                    )
            checked = True
        maps = grad_cam(x, targets)
        # Grad-CAM's weights are means of gradients over the positions, CAM's their sums: so maps of all scales add up.
        return maps * maps[0, 0].numel()

    return cam


def _layer_cam(model: Module, stages: Stages, **_: Any) -> Attribute:
    cam: Any = LayerCam(model, stages)
    return cast(Attribute, cam.attribute_targets)


def _region_cam(model: Module, stages: Stages, **options: Any) -> Attribute:
    cam: Any = LayerRegionCam(model, stages, **options)
    return cast(Attribute, cam.attribute_targets)


METHODS: dict[str, Callable[..., Attribute]] = {
    "cam": _cam,
    "grad-cam": _grad_cam,
    "layer-cam": _layer_cam,
    "region-cam": _region_cam,
}
"""What makes each method, of a model and its stages: CAM and Grad-CAM take the last. ``contrast`` is Region-CAM's."""

TITLES = {"cam": "CAM", "grad-cam": "Grad-CAM", "layer-cam": "LayerCAM", "region-cam": "Region-CAM"}
