"""What LayerRegionCam and LayerCam share: Captum's constructor for several layers, and the attribute methods."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import torch
from captum.attr._utils.attribution import GradientAttribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_regioncam.network.captum_private import progress
from captum_regioncam.network.forward_pass import forward_pass
from captum_regioncam.network.layers import as_layers, check_finite, check_kinds
from captum_regioncam.network.reshape import ReshapeTransform, TokensToGrid, on_grid
from captum_regioncam.network.targets import TargetType, as_target, list_targets, spread_labels
from captum_regioncam.stages import Stages

__all__ = ["MultiLayerAttribution", "logged"]

Method = TypeVar("Method", bound=Callable[..., Any])


def logged(method: Method) -> Method:
    """Decorate an attribute method with Captum's ``log_usage`` and keep its type.

    NoiseTunnel, GuidedGradCam and TCAV call ``attribute.__wrapped__``, which the decorator provides.
    """
    return cast(Method, log_usage(part_of_slo=True)(method))


class MultiLayerAttribution(LayerAttribution, GradientAttribution):
    r"""An attribution to the positions of one or several layers, from their features and gradients.

    Args:
        forward_func: the model, or any function around it.
        layer: one module, an iterable of modules, or what :func:`~captum_regioncam.find_stages` returned.
        device_ids: the order of DataParallel's devices.
        reshape_transform: turns a layer's tensor into (N, C, \*grid). Default: that of the stages, if ``layer`` is
            what ``find_stages`` returned.

    Raises:
        TypeError: ``layer`` contains something that is not a module.
        ValueError: ``layer`` is empty, or contains a module twice.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | Iterable[Module] | Mapping[str, Module],
        device_ids: list[int] | None = None,
        *,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        layers = as_layers(layer)
        LayerAttribution.__init__(self, forward_func, layers, device_ids)
        self.layer = layer if isinstance(layer, Stages) else layers[0] if len(layers) == 1 else layers
        GradientAttribution.__init__(self, forward_func)
        self.reshape_transform = reshape_transform
        if reshape_transform is None and isinstance(layer, Stages):
            self.reshape_transform = layer.reshape_transform

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
            attribute_to_layer_input: use the layers' inputs instead of their outputs.
            relu_attributions: has no effect, as the map is never negative; kept for compatibility with LayerGradCam.
            attr_dim_summation: False keeps the layers' maps separate, along dim 1. For LayerRegionCam, these are the
                propagated maps.
            grad_kwargs: passed to :func:`torch.autograd.grad`. With ``create_graph`` the result stays in the graph.

        Returns:
            (N, 1, \*grid) in [0, 1], on the grid of the layer with the most positions; with
            ``attr_dim_summation=False`` (N, L, \*grid), in the order of the layers given. Detached (except with
            ``create_graph``), in the dtype of ``inputs``. Each example's map is independent of the others in the
            batch. A tuple of maps, as in LayerGradCam, if a single layer gives several tensors.

        Raises:
            LayerError: a layer is never reached, is not on a grid, is not finite, or does not influence the score.
            TargetError: the target is missing, out of range, or does not select one score per example.
            TypeError: ``forward_func`` does not return a tensor.

        Example::

            >>> cam.attribute(x, target=[281, 207]).shape  # a class for each of two examples
            torch.Size([2, 1, 112, 112])
            >>> cam.attribute(x, target=281, attr_dim_summation=False).shape  # one map for each of five layers
            torch.Size([2, 5, 112, 112])
        """
        return self._attribute(
            inputs,
            [as_target(target)],
            additional_forward_args,
            attribute_to_layer_input,
            grad_kwargs,
            attr_dim_summation,
        )

    @logged
    def attribute_targets(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        targets: Iterable[Any] | Tensor,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Attribute the scores of several targets, with one forward pass for all and one backward pass for each.

        Args:
            inputs: (N, ...) tensor or tuple of tensors, as the model takes them.
            targets: K targets, each in any form that ``attribute`` takes.
            additional_forward_args: what ``forward_func`` takes after the inputs; a tuple if several.
            attribute_to_layer_input: use the layers' inputs instead of their outputs.
            grad_kwargs: passed to :func:`torch.autograd.grad`.
            show_progress: show how many targets are done, as Captum's slow attributions do.

        Returns:
            (N, K, \*grid) in [0, 1], equal to the maps of K ``attribute`` calls side by side. A tuple of these if a
            single layer gives several tensors.

        Raises:
            LayerError: as in ``attribute``.
            TargetError: as in ``attribute``; or there are no targets.

        Example::

            >>> cam.attribute_targets(x, [281, 207]).shape  # two examples
            torch.Size([2, 2, 112, 112])
        """
        return self._attribute(
            inputs,
            list_targets(targets),
            additional_forward_args,
            attribute_to_layer_input,
            grad_kwargs,
            show_progress=show_progress,
        )

    @logged
    def attribute_labels(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        labels: Iterable[Any],
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> list[Tensor] | tuple[list[Tensor], ...]:
        r"""Attribute the scores of each example's own labels, with one forward pass for all.

        The example with the most labels sets the number of backward passes.

        Args:
            inputs: (N, ...) tensor or tuple of tensors, as the model takes them.
            labels: N sequences of any lengths: the labels of each example, each an int, or a tuple of indices for
                outputs of more than two dimensions.
            additional_forward_args: what ``forward_func`` takes after the inputs; a tuple if several.
            attribute_to_layer_input: use the layers' inputs instead of their outputs.
            grad_kwargs: passed to :func:`torch.autograd.grad`.
            show_progress: show how many of the backward passes are done.

        Returns:
            A list of N tensors (K_n, \*grid) in [0, 1]. A tuple of such lists if a single layer gives several tensors.

        Raises:
            LayerError: as in ``attribute``.
            TargetError: as in ``attribute``; or an example has no sequence of labels, or there is no label at all.

        Example::

            >>> [maps.shape for maps in cam.attribute_labels(x, [[281, 207, 340], [15]])]
            [torch.Size([3, 112, 112]), torch.Size([1, 112, 112])]
        """
        batch = len(inputs if isinstance(inputs, Tensor) else inputs[0])
        targets, counts = spread_labels(labels, batch)
        result = self._attribute(
            inputs,
            targets,
            additional_forward_args,
            attribute_to_layer_input,
            grad_kwargs,
            show_progress=show_progress,
        )

        def own(maps: Tensor) -> list[Tensor]:
            return [example[:count] for example, count in zip(maps, counts, strict=True)]

        return tuple(map(own, result)) if isinstance(result, tuple) else own(result)

    def _attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        targets: Sequence[TargetType],
        additional_forward_args: object,
        attribute_to_layer_input: bool,
        grad_kwargs: dict[str, Any] | None,
        attr_dim_summation: bool = True,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run one forward pass and one backward pass per target, and fuse the layers' maps."""
        grad_kwargs = grad_kwargs or {}
        create_graph = bool(grad_kwargs.get("create_graph"))
        shown = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        layers = as_layers(self.layer)  # here, not in __init__: Captum's TCAV sets .layer between two calls
        at_input = layers if attribute_to_layer_input else []
        if isinstance(self.layer, Stages) and not attribute_to_layer_input:
            at_input = [self.layer[name] for name in self.layer.at_input]
        transform = self.reshape_transform
        if isinstance(transform, TokensToGrid):
            transform = transform.for_inputs(shown)
        with forward_pass(
            self.forward_func,
            layers,
            inputs,
            additional_forward_args,
            at_input=at_input,
            device_ids=self.device_ids,
        ) as passed:

            def checked(what: str, index: int, tensor: Tensor) -> Tensor:
                name = partial(passed.name, index)
                tensor = on_grid(tensor, name, transform)
                check_finite(what, name, tensor)
                return tensor

            def reduce(index: int, gradient: Tensor) -> Tensor:
                with torch.autocast(features[index].device.type, enabled=False):
                    return self._reduce(features[index], checked("gradients", index, gradient))

            features = [
                checked("features", index, tensor if create_graph else tensor.detach())
                for index, tensor in enumerate(passed.features())
            ]
            check_kinds(features)
            reduced = []  # for each target, one (N, 1, *grid) map per layer
            # The graph is needed until the last target, and after that as long as the caller says.
            ways = [{**grad_kwargs, "retain_graph": True}] * (len(targets) - 1) + [grad_kwargs]
            todo = list(zip(targets, ways, strict=True))
            for target, how in progress(todo, desc=f"{type(self).__name__} targets") if show_progress else todo:
                reduced.append(passed.gradients(target, reduce, **how))
            is_of_several_tensors = passed.is_of_several_tensors
        dtype = shown[0].dtype if shown[0].is_floating_point() else features[0].dtype
        with torch.autocast(features[0].device.type, enabled=False):
            maps = [torch.cat(of_targets, dim=1) for of_targets in zip(*reduced, strict=True)]
            if is_of_several_tensors:
                parts = zip(features, maps, strict=True)
                return tuple(self._fuse([part], [own], attr_dim_summation).to(dtype) for part, own in parts)
            return self._fuse(features, maps, attr_dim_summation).to(dtype)

    def _reduce(self, features: Tensor, gradients: Tensor) -> Tensor:
        r"""Reduce a layer's (N, C, \*grid) features and gradients to a normalised map (N, 1, \*grid)."""
        raise NotImplementedError

    def _fuse(self, features: list[Tensor], maps: list[Tensor], attr_dim_summation: bool) -> Tensor:
        r"""Fuse the layers' features and K reduced maps: (N, K, \*finest grid), or one map per layer along dim 1."""
        raise NotImplementedError
