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

__all__ = ["StageAttribution", "logged"]

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
        reshape_transform: turns a layer's tensor into (N, C, \*grid); default what :func:`find_stages` found, if
            ``layer`` comes from there.

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
        self.reshape_transform = reshape_transform or getattr(layer, "reshape_transform", None)

    def _attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType,
        additional_forward_args: object,
        attribute_to_layer_input: bool,
        attr_dim_summation: bool,
        grad_kwargs: dict[str, Any] | None,
    ) -> Tensor | tuple[Tensor, ...]:
        # The layers are read here, not in __init__: Captum's TCAV sets .layer between two calls.
        with record(
            self.forward_func,
            as_layers(self.layer),
            inputs,
            additional_forward_args,
            attribute_to_layer_input=attribute_to_layer_input,
            device_ids=self.device_ids,
        ) as recording:
            stages = collect(recording, target, reshape_transform=self.reshape_transform, grad_kwargs=grad_kwargs)
        first = inputs if isinstance(inputs, Tensor) else inputs[0]
        dtype = first.dtype if first.is_floating_point() else stages[0].features.dtype
        with torch.autocast(stages[0].features.device.type, enabled=False):
            if recording.of_one_layer:
                return tuple(self._map([stage], attr_dim_summation).to(dtype) for stage in stages)
            return self._map(stages, attr_dim_summation).to(dtype)

    def _map(self, stages: list[Stage], attr_dim_summation: bool) -> Tensor:
        r"""Draw the map of the stages: (N, 1, \*finest grid), or one a stage along dim 1."""
        raise NotImplementedError
