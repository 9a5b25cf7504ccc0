"""The methods that the command line compares, by their names there."""

from collections.abc import Callable, Sequence
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


def _grad_cam(model: Module, layers: Stages) -> Attribute:
    if layers.reshape_transform is not None:
        raise LayerError("grad-cam: Captum's LayerGradCam knows no tokens and no channels-last tensors.")
    cam = LayerGradCam(model, list(layers.values())[-1])
    return lambda x, targets: torch.cat([cam.attribute(x, t, relu_attributions=True) for t in targets], dim=1)


def _cam(model: Module, layers: Stages) -> Attribute:
    grad_cam = _grad_cam(model, layers)
    checked = False

    def cam(x: Tensor, targets: Sequence[int]) -> Tensor:
        nonlocal checked
        if not checked:
            with forward_pass(model, [list(layers.values())[-1]], x) as passed:
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


def _layer_cam(model: Module, layers: Stages) -> Attribute:
    cam: Any = LayerCam(model, layers)
    return cast(Attribute, cam.attribute_targets)


def _region_cam(model: Module, layers: Stages) -> Attribute:
    cam: Any = LayerRegionCam(model, layers)
    return cast(Attribute, cam.attribute_targets)


METHODS: dict[str, Callable[[Module, Stages], Attribute]] = {
    "cam": _cam,
    "grad-cam": _grad_cam,
    "layer-cam": _layer_cam,
    "region-cam": _region_cam,
}
"""What makes each method of a model and its layers, shallow to deep: CAM and Grad-CAM take the last layer."""

TITLES = {"cam": "CAM", "grad-cam": "Grad-CAM", "layer-cam": "LayerCAM", "region-cam": "Region-CAM"}
