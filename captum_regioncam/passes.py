"""What the attribute methods run: one forward pass, then one backward pass for each target, and the maps of each layer.

A method of attribution is a subclass of :class:`~captum_regioncam.attribution.MultiLayerAttribution` that says how the
features and the gradients of a layer become a map (``_reduce``), and how the maps of all layers become one (``_fuse``).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from captum.attr import GradientAttribution, LayerAttribution
from torch import Tensor
from torch.nn import Module, ModuleDict

from captum_regioncam.errors import LayerError
from captum_regioncam.network.captum_private import progress
from captum_regioncam.network.forward_pass import ForwardPass, forward_pass
from captum_regioncam.network.layers import as_layers, check_finite, check_kinds
from captum_regioncam.network.reshape import ReshapeTransform, TokensToGrid, on_grid
from captum_regioncam.network.targets import TargetType
from captum_regioncam.stages import Stages

__all__ = ["LayerPasses", "Passes"]

OnItsGrid = Callable[[str, int, Tensor], Tensor]
"""A function from a tensor's name (for errors), the number of its layer and the tensor to (N, C, *grid)."""


@dataclass(frozen=True)
class Passes:
    r"""The results of the passes of one call.

    Attributes:
        features: each layer's (N, C, \*grid); if a single layer has several tensors, those of each tensor.
        maps: for each of the features, (N, K, \*grid) maps of the K targets.
        is_of_several_tensors: whether these are the tensors of a single layer. Each is attributed to separately.
        dtype: that of the inputs, or of the features if the inputs are integers.
        unreached: the names of the layers at whose patches the gradients are zero, but not at the tokens beside them.
    """

    features: list[Tensor]
    maps: list[Tensor]
    is_of_several_tensors: bool
    dtype: torch.dtype
    unreached: list[str]

    def check_one_tensor(self, method: str, remedy: str) -> None:
        """Check that no single layer has several tensors.

        Args:
            method: the method that needs one map for each layer, for the error.
            remedy: what to do instead.

        Raises:
            LayerError: a layer has several tensors.
        """
        if self.is_of_several_tensors:
            raise LayerError(
                f"{method}: the layer has {len(self.features)} tensors, each with a map of its own. {remedy}"
            )

    def parts(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Yield the features and the maps that are fused into one attribution."""
        if self.is_of_several_tensors:
            yield from (([features], [maps]) for features, maps in zip(self.features, self.maps, strict=True))
        else:
            yield self.features, self.maps


class LayerPasses(LayerAttribution, GradientAttribution):
    r"""The passes over a network, from which attributions to one or several layers are made.

    Args:
        forward_func: the model, or any function around it.
        layer: one module, an iterable of modules, a mapping of names to modules, or what
            :func:`~captum_regioncam.find_stages` returned.
        device_ids: the order of DataParallel's devices.
        reshape_transform: turns a layer's tensor into (N, C, \*grid); a mapping {name: function} if the layers of a
            mapping need different ones. Default: that of the stages, if ``layer`` is what ``find_stages`` returned.

    Raises:
        TypeError: ``layer`` contains something that is not a module.
        ValueError: ``layer`` is empty, or contains a module twice; or ``reshape_transform`` names a layer that is not
            there.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | Iterable[Module] | Mapping[str, Module],
        device_ids: list[int] | None = None,
        *,
        reshape_transform: ReshapeTransform | Mapping[str, ReshapeTransform] | None = None,
    ) -> None:
        layers = [module for module, _ in _as_layers(layer, forward_func)]
        LayerAttribution.__init__(self, forward_func, layers, device_ids)
        # A mapping keeps its names. Each call lists the modules anew, because Captum's TCAV sets .layer in between.
        if isinstance(layer, (Mapping, ModuleDict)):
            self.layer = layer if isinstance(layer, Stages) else dict(zip(layer, layers, strict=True))
        else:
            self.layer = layers[0] if len(layers) == 1 else layers
        GradientAttribution.__init__(self, forward_func)
        self.reshape_transform = reshape_transform
        if reshape_transform is None and isinstance(layer, Stages):
            self.reshape_transform = layer.reshape_transform
        self._transforms(())

    def _reduce(self, features: Tensor, gradients: Tensor) -> Tensor:
        r"""Reduce a layer's (N, C, \*grid) features and gradients to a normalised map (N, 1, \*grid)."""
        raise NotImplementedError

    def _fuse(
        self, features: list[Tensor], maps: list[Tensor], attr_dim_summation: bool, unreached: list[str]
    ) -> tuple[Tensor, list[Tensor]]:
        r"""Fuse the maps of all layers.

        Args:
            features: each layer's (N, C, \*its own grid).
            maps: each layer's reduced maps, (N, K, \*its own grid).
            attr_dim_summation: False keeps the layers' maps separate, along dim 1.
            unreached: as in :class:`Passes`.

        Returns:
            The attribution, (N, K, \*finest grid), or (N, L, \*finest grid) if K = 1 and the maps are kept separate.
            And the maps that it is made from, one for each layer, (N, K, \*its own grid) in [0, 1].
        """
        raise NotImplementedError

    def _run(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        targets: Sequence[TargetType],
        additional_forward_args: object,
        attribute_to_layer_input: bool,
        grad_kwargs: dict[str, Any] | None,
        show_progress: bool = False,
    ) -> Passes:
        """Run one forward pass, and one backward pass for each target."""
        grad_kwargs = grad_kwargs or {}
        create_graph = bool(grad_kwargs.get("create_graph"))
        unreached: list[str] = []
        with self._forward(inputs, additional_forward_args, attribute_to_layer_input) as (passed, on_its_grid):

            def reduce(index: int, gradient: Tensor) -> Tensor:
                on_grid = on_its_grid("gradients", index, gradient)
                if gradient.dim() == 3 and on_grid.numel() < gradient.numel() and not on_grid.any():
                    unreached.extend([passed.name(index)] * bool(gradient.any()))
                with torch.autocast(features[index].device.type, enabled=False):
                    return self._reduce(features[index], on_grid)

            features = _features(passed, on_its_grid, create_graph)
            reduced = []  # for each target, one (N, 1, *grid) map per layer
            # The graph is needed until the last target, and after that as long as the caller says.
            ways = [{**grad_kwargs, "retain_graph": True}] * (len(targets) - 1) + [grad_kwargs]
            todo = list(zip(targets, ways, strict=True))
            for target, how in progress(todo, desc=f"{type(self).__name__} targets") if show_progress else todo:
                reduced.append(passed.gradients(target, reduce, **how))
            is_of_several_tensors = passed.is_of_several_tensors
        with torch.autocast(features[0].device.type, enabled=False):
            maps = [torch.cat(of_targets, dim=1) for of_targets in zip(*reduced, strict=True)]
        dtype = _dtype(inputs, features)
        return Passes(features, maps, is_of_several_tensors, dtype, list(dict.fromkeys(unreached)))

    def _run_forward(
        self, inputs: Tensor | tuple[Tensor, ...], additional_forward_args: object, attribute_to_layer_input: bool
    ) -> Passes:
        """Run one forward pass, which saves nothing for backward passes: there are features, but no maps."""
        with self._forward(inputs, additional_forward_args, attribute_to_layer_input, differentiable=False) as (
            passed,
            on_its_grid,
        ):
            features = _features(passed, on_its_grid)
            return Passes(features, [], passed.is_of_several_tensors, _dtype(inputs, features), [])

    @contextmanager
    def _forward(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        additional_forward_args: object,
        attribute_to_layer_input: bool,
        *,
        differentiable: bool = True,
    ) -> Iterator[tuple[ForwardPass, OnItsGrid]]:
        """Run one forward pass, and yield it with a function that checks a layer's tensor and puts it on its grid."""
        layers = _as_layers(self.layer, self.forward_func)
        transforms = self._transforms(_tensors(inputs))
        with forward_pass(
            self.forward_func,
            [module for module, _ in layers],
            inputs,
            additional_forward_args,
            at_input=[attribute_to_layer_input or of_stage for _, of_stage in layers],
            device_ids=self.device_ids,
            differentiable=differentiable,
        ) as passed:

            def on_its_grid(what: str, index: int, tensor: Tensor) -> Tensor:
                name = partial(passed.name, index)
                tensor = on_grid(tensor, name, transforms[min(index, len(transforms) - 1)])
                check_finite(what, name, tensor)
                return tensor

            yield passed, on_its_grid

    def _transforms(self, inputs: Sequence[Tensor]) -> list[ReshapeTransform | None]:
        """Return each layer's transform, for these inputs."""
        names = list(self.layer) if isinstance(self.layer, (Mapping, ModuleDict)) else []
        own: Any = self.reshape_transform
        if isinstance(own, Mapping):
            if unknown := [name for name in own if name not in names]:
                raise ValueError(
                    f"reshape_transform: there is no layer {unknown[0]!r} among {names}. Pass the layers as a mapping "
                    "{name: module} with the same names, or one function for all."
                )
            transforms = [own.get(name) for name in names]
        else:
            transforms = [own] * len(_as_layers(self.layer, self.forward_func))
        return [one.for_inputs(inputs) if isinstance(one, TokensToGrid) else one for one in transforms]

    def _fused(self, passes: Passes, attr_dim_summation: bool = True) -> list[tuple[Tensor, list[Tensor]]]:
        """Fuse the layers' maps: once, or once for each tensor of a single layer that has several."""
        with torch.autocast(passes.features[0].device.type, enabled=False):
            return [
                self._fuse(features, maps, attr_dim_summation, passes.unreached) for features, maps in passes.parts()
            ]


def _as_layers(layer: Any, forward_func: Callable[..., Any]) -> list[tuple[Module, bool]]:
    return as_layers(layer, forward_func, layer.at_input if isinstance(layer, Stages) else ())


def _features(passed: ForwardPass, on_its_grid: OnItsGrid, keep_graph: bool = False) -> list[Tensor]:
    r"""Return each layer's (N, C, \*grid) features, checked."""
    tensors = (tensor if keep_graph else tensor.detach() for tensor in passed.features())
    features = [on_its_grid("features", index, tensor) for index, tensor in enumerate(tensors)]
    check_kinds(features)
    return features


def _dtype(inputs: Tensor | tuple[Tensor, ...], features: Sequence[Tensor]) -> torch.dtype:
    """Return the dtype of maps: that of the inputs, or of the features if the inputs are integers."""
    first = _tensors(inputs)[0]
    return first.dtype if first.is_floating_point() else features[0].dtype


def _tensors(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
