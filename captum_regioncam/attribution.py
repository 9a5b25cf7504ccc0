"""The attribute methods that LayerRegionCam and LayerCam share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from captum.log import log_usage
from torch import Tensor
from torch.nn import ModuleDict

from captum_regioncam.network.targets import TargetType, as_target, list_targets, spread_labels
from captum_regioncam.passes import LayerPasses, Passes

__all__ = ["MultiLayerAttribution", "logged"]

Method = TypeVar("Method", bound=Callable[..., Any])


def logged(method: Method) -> Method:
    """Decorate an attribute method with Captum's ``log_usage`` and keep its type.

    NoiseTunnel, GuidedGradCam and TCAV call ``attribute.__wrapped__``, which the decorator provides.
    """
    return cast(Method, log_usage(part_of_slo=True)(method))


class MultiLayerAttribution(LayerPasses):
    """The methods that attribute a score to the positions of one or several layers."""

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
            attr_dim_summation: False keeps the layers' maps separate, along dim 1, each resized to the finest grid. For
                LayerRegionCam, these are the propagated maps. The option is LayerGradCam's; ``attribute_layers`` gives
                each layer's map at its own grid, by name.
            grad_kwargs: passed to :func:`torch.autograd.grad`. With ``create_graph`` the result stays in the graph.

        Returns:
            (N, 1, \*grid) in [0, 1], on the grid of the layer with the most positions. It is (N, 1, height, width) for
            images, (N, 1, length) for signals and (N, 1, depth, height, width) for volumes. With
            ``attr_dim_summation=False``, (N, L, \*grid), in the order of the layers given. Detached (except with
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
        passes = self._run(inputs, [as_target(target)], additional_forward_args, attribute_to_layer_input, grad_kwargs)
        return self._attribution(passes, attr_dim_summation)

    @logged
    def attribute_layers(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> dict[Any, Tensor]:
        r"""Return the map of each layer at its own grid, in one forward and one backward pass.

        ``attribute`` resizes and fuses these maps. For LayerRegionCam, they are the propagated maps, without
        ``contrast``.

        Args:
            inputs: (N, ...) tensor or tuple of tensors, as the model takes them.
            target: the class, in any form that ``attribute`` takes.
            additional_forward_args: what ``forward_func`` takes after the inputs; a tuple if several.
            attribute_to_layer_input: use the layers' inputs instead of their outputs.
            grad_kwargs: passed to :func:`torch.autograd.grad`.

        Returns:
            A dict with the (N, 1, \*grid) map of each layer, in [0, 1], in the order of the layers given. The grid is
            the layer's own, such as (height, width), and so is the device; the dtype is that of ``inputs``. The keys
            are the names that ``find_stages`` found, or those of the mapping that was given as ``layer``; otherwise
            they are 0, 1, 2 and so on. A map that would be constant is 0 everywhere.

        Raises:
            LayerError: as in ``attribute``; or a single layer gives several tensors.
            TargetError: as in ``attribute``.
            TypeError: as in ``attribute``.

        Example::

            >>> {name: tuple(one.shape) for name, one in cam.attribute_layers(x, target=281).items()}
            {'relu': (2, 1, 112, 112), 'layer1': (2, 1, 56, 56), 'layer2': (2, 1, 28, 28), 'layer3': (2, 1, 14, 14),
            'layer4': (2, 1, 7, 7)}
        """
        passes = self._run(inputs, [as_target(target)], additional_forward_args, attribute_to_layer_input, grad_kwargs)
        passes.check_one_tensor("attribute_layers", "attribute(..., attr_dim_summation=False) returns these maps.")
        ((_, layer_maps),) = self._fused(passes)
        names = self.layer if isinstance(self.layer, (Mapping, ModuleDict)) else range(len(layer_maps))
        return {name: layer_map.to(passes.dtype) for name, layer_map in zip(names, layer_maps, strict=True)}

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
            (N, K, \*grid) in [0, 1], such as (N, K, height, width), equal to the maps of K ``attribute`` calls side by
            side. A tuple of these if a single layer gives several tensors.

        Raises:
            LayerError: as in ``attribute``.
            TargetError: as in ``attribute``; or there are no targets.

        Example::

            >>> cam.attribute_targets(x, [281, 207]).shape  # two examples
            torch.Size([2, 2, 112, 112])
        """
        passes = self._run(
            inputs, list_targets(targets), additional_forward_args, attribute_to_layer_input, grad_kwargs, show_progress
        )
        return self._attribution(passes)

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
            A list of N tensors (K_n, \*grid) in [0, 1], such as (K_n, height, width). A tuple of such lists if a single
            layer gives several tensors.

        Raises:
            LayerError: as in ``attribute``.
            TargetError: as in ``attribute``; or an example has no sequence of labels, or there is no label at all.

        Example::

            >>> [maps.shape for maps in cam.attribute_labels(x, [[281, 207, 340], [15]])]
            [torch.Size([3, 112, 112]), torch.Size([1, 112, 112])]
        """
        batch = len(inputs if isinstance(inputs, Tensor) else inputs[0])
        targets, counts = spread_labels(labels, batch)
        passes = self._run(
            inputs, targets, additional_forward_args, attribute_to_layer_input, grad_kwargs, show_progress
        )

        def own(maps: Tensor) -> list[Tensor]:
            return [example[:count] for example, count in zip(maps, counts, strict=True)]

        attribution = self._attribution(passes)
        return tuple(map(own, attribution)) if isinstance(attribution, tuple) else own(attribution)

    def _attribution(self, passes: Passes, attr_dim_summation: bool = True) -> Tensor | tuple[Tensor, ...]:
        """Return the attribution in the dtype of the inputs; a tuple of them if a single layer has several tensors."""
        fused = tuple(attribution.to(passes.dtype) for attribution, _ in self._fused(passes, attr_dim_summation))
        return fused if passes.is_of_several_tensors else fused[0]
