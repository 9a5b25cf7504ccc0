"""What LayerRegionCam and LayerCam share: Captum's constructor for several layers, and the way to their stages."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch
from captum.attr._utils.attribution import GradientAttribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_regioncam.captum_hooks import TargetType, as_layers, record
from captum_regioncam.grids import ReshapeTransform
from captum_regioncam.stages import Stage, collect

__all__ = ["StageAttribution", "logged", "result_dtype"]

Method = TypeVar("Method", bound=Callable[..., Any])


def logged(method: Method) -> Method:
    """Decorate an ``attribute`` with Captum's ``log_usage`` and keep its type.

    NoiseTunnel, GuidedGradCam and TCAV call ``attribute.__wrapped__``, which this makes.
    """
    return cast(Method, log_usage(part_of_slo=True)(method))


class StageAttribution(LayerAttribution, GradientAttribution):
    r"""An attribution to the positions of one or several layers, from their features and gradients.

    Args:
        forward_func: the model, or any function around it.
        layer: one module or an iterable of modules.
        device_ids: the order of DataParallel's devices.
        reshape_transform: turns a layer's tensor into (N, C, \*grid).

    Raises:
        TypeError: ``layer`` has something that is no module.
        ValueError: ``layer`` has no module, or one twice.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | Iterable[Module],
        device_ids: list[int] | None = None,
        *,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        layers = as_layers(layer)
        LayerAttribution.__init__(self, forward_func, layers, device_ids)
        self.layer = layers[0] if len(layers) == 1 else layers
        GradientAttribution.__init__(self, forward_func)
        self.reshape_transform = reshape_transform

    def _stages(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType,
        additional_forward_args: object,
        attribute_to_layer_input: bool,
        grad_kwargs: dict[str, Any] | None,
    ) -> list[Stage]:
        # The layers are read here, not in __init__: Captum's TCAV sets .layer between two calls.
        with record(
            self.forward_func,
            as_layers(self.layer),
            inputs,
            additional_forward_args,
            attribute_to_layer_input=attribute_to_layer_input,
            device_ids=self.device_ids,
        ) as recording:
            return collect(recording, target, reshape_transform=self.reshape_transform, grad_kwargs=grad_kwargs)


def result_dtype(inputs: Tensor | tuple[Tensor, ...], stages: list[Stage]) -> torch.dtype:
    """Return the dtype of an attribution: that of the inputs, or of the features where the inputs are whole numbers."""
    first = inputs if isinstance(inputs, Tensor) else inputs[0]
    return first.dtype if first.is_floating_point() else stages[0].features.dtype
