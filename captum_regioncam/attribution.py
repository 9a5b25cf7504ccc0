"""What LayerRegionCam and LayerCam share: Captum's constructor for several layers, and the way to their stages."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
from captum.attr._utils.attribution import GradientAttribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_regioncam.captum_hooks import TargetType, as_layers, record
from captum_regioncam.grids import ReshapeTransform
from captum_regioncam.stages import features_on_grid, gradients_on_grid
from captum_regioncam.targets import spread_targets

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

    @logged
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Attribute the target's score to the positions of the finest layer, in one forward and one backward pass.

        Args:
            inputs: (N, ...) tensor or tuple of tensors, as the model takes them.
            target: the class: an int, a one-element tensor, or one per example as a list or tensor; for outputs of more
                than two dimensions a tuple of indices, or a list of tuples. None if the model returns one score per
                example.
            additional_forward_args: what ``forward_func`` takes after the inputs; a tuple if several.
            attribute_to_layer_input: use what goes into the layers instead of what comes out.
            relu_attributions: changes nothing, as the map is never negative; it is here because LayerGradCam has it.
            attr_dim_summation: False keeps each layer's own map apart, along dim 1: LayerRegionCam's propagated one.
            grad_kwargs: go to :func:`torch.autograd.grad`. With ``create_graph`` the result stays in the graph.

        Returns:
            (N, 1, \*grid) in [0, 1], on the grid of the layer with the most positions; with
            ``attr_dim_summation=False`` (N, L, \*grid), in the order of the layers given. Detached (but for
            ``create_graph``), in the dtype of ``inputs``. Each example's map is independent of the others in the
            batch. A tuple of maps, as LayerGradCam's, where a single layer gives several tensors.

        Raises:
            LayerError: a layer is never reached, not on a grid, not finite, or without influence on the score.
            TargetError: the target is missing, out of range, or does not select one score per example.
            TypeError: ``forward_func`` does not return a tensor.

        Example::

            >>> cam.attribute(x, target=[281, 207]).shape  # a class for each of two examples
            torch.Size([2, 1, 112, 112])
            >>> cam.attribute(x, target=281, attr_dim_summation=False).shape  # five layers, each apart
            torch.Size([2, 5, 112, 112])
        """
        return self._attribute(
            inputs, [target], additional_forward_args, attribute_to_layer_input, grad_kwargs, attr_dim_summation
        )

    @logged
    def attribute_targets(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        targets: Iterable[Any] | Tensor,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        per_example: bool | None = None,
    ) -> Any:
        r"""Attribute several targets' scores, with one forward pass for all and one backward pass for each.

        What is computed of the features alone (their norms, for SIP) is computed once.

        Args:
            inputs: (N, ...) tensor or tuple of tensors, as the model takes them.
            targets: K targets, each in any form that ``attribute`` takes; or N lists of classes, of any lengths: the
                labels of each photo.
            additional_forward_args: what ``forward_func`` takes after the inputs; a tuple if several.
            attribute_to_layer_input: use what goes into the layers instead of what comes out.
            grad_kwargs: go to :func:`torch.autograd.grad`.
            per_example: says that ``targets`` are lists of an example each (True), or targets of the whole batch
                (False). None tells by their lengths, which N lists of N do not show: a loop over photos with labels
                says True.

        Returns:
            (N, K, \*grid) in [0, 1], equal to K calls of ``attribute`` side by side; for lists of an example each, a
            list of N tensors (K_n, \*grid). Tuples of these where a single layer gives several tensors.

        Raises:
            LayerError: as ``attribute``.
            TargetError: as ``attribute``; or there are no targets, they do not fit the batch, or could be meant in both
                ways.

        Example::

            >>> cam.attribute_targets(x, [281, 207]).shape  # two examples
            torch.Size([2, 2, 112, 112])
            >>> [maps.shape[0] for maps in cam.attribute_targets(x, [[281, 207, 340], [15]], per_example=True)]
            [3, 1]
        """
        first = inputs if isinstance(inputs, Tensor) else inputs[0]
        spread, counts = spread_targets(targets, len(first), per_example)
        result = self._attribute(inputs, spread, additional_forward_args, attribute_to_layer_input, grad_kwargs)
        if counts is None:
            return result
        if isinstance(result, tuple):
            return tuple([maps[:count] for maps, count in zip(part, counts, strict=True)] for part in result)
        return [maps[:count] for maps, count in zip(result, counts, strict=True)]

    def _attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        targets: Sequence[TargetType],
        additional_forward_args: object,
        attribute_to_layer_input: bool,
        grad_kwargs: dict[str, Any] | None,
        attr_dim_summation: bool = True,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run one forward pass and a backward pass a target, and fuse what they left at the layers."""
        grad_kwargs = grad_kwargs or {}
        create_graph = bool(grad_kwargs.get("create_graph"))
        transform = self.reshape_transform
        # The layers are read here, not in __init__: Captum's TCAV sets .layer between two calls.
        with record(
            self.forward_func,
            as_layers(self.layer),
            inputs,
            additional_forward_args,
            attribute_to_layer_input=attribute_to_layer_input,
            device_ids=self.device_ids,
            whole_graph=create_graph,
        ) as recording:
            features = features_on_grid(recording, transform, detach=not create_graph)
            device_type = features[0].device.type
            reduced: list[list[Tensor]] = []  # per target, one (N, 1, *grid) a layer

            def reduce(index: int, gradient: Tensor) -> Tensor:
                with torch.autocast(device_type, enabled=False):
                    return self._reduce(features[index], gradient)

            for index, target in enumerate(targets):
                retained = {} if index == len(targets) - 1 else {"retain_graph": True}
                options = {**grad_kwargs, **retained}
                reduced.append(gradients_on_grid(recording, target, transform, reduce, **options))
        first = inputs if isinstance(inputs, Tensor) else inputs[0]
        dtype = first.dtype if first.is_floating_point() else features[0].dtype
        with torch.autocast(device_type, enabled=False):
            stages = [(stage, torch.cat(maps, dim=1)) for stage, *maps in zip(features, *reduced, strict=True)]
            if recording.of_one_layer:
                return tuple(self._fuse([stage], attr_dim_summation).to(dtype) for stage in stages)
            return self._fuse(stages, attr_dim_summation).to(dtype)

    def _reduce(self, features: Tensor, gradients: Tensor) -> Tensor:
        r"""Reduce one layer's (N, C, \*grid) features and gradients to (N, 1, \*grid)."""
        raise NotImplementedError

    def _fuse(self, stages: list[tuple[Tensor, Tensor]], attr_dim_summation: bool) -> Tensor:
        r"""Fuse the layers' features and their K reduced maps: (N, K, \*finest grid), or one a layer along dim 1."""
        raise NotImplementedError
