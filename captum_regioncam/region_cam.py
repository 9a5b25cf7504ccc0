"""Region-CAM as a Captum attribution."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_regioncam.attribution import MultiLayerAttribution, logged
from captum_regioncam.method.grids import (
    depth_weights,
    finest_grid,
    fuse,
    min_max,
    resize,
    rounding,
    with_contrast,
)
from captum_regioncam.method.sim import semantic_information
from captum_regioncam.method.sip import propagate
from captum_regioncam.network.outputs import describe
from captum_regioncam.network.reshape import ReshapeTransform
from captum_regioncam.network.targets import list_targets
from captum_regioncam.passes import Passes

__all__ = ["LayerRegionCam"]


class LayerRegionCam(MultiLayerAttribution):
    r"""Region-CAM: a map of the whole object, with edges where the object's edges are.

    Class activation maps weight features by gradients and light up the most discriminative parts. Region-CAM keeps the
    two apart. At every layer the gradients say where the class is (semantic information maps, averaged over the
    layers), and the features say which positions belong together: each position takes the average semantics of all
    positions that look like it (semantic information propagation). The attribution is the mean of the propagated maps,
    divided by its maximum and raised to a power that gives it contrast:

    .. math:: S = \frac{\sum_l w_l N(S_l)}{\sum_l w_l}, \quad M = \frac{1}{L}\sum_l N\big(D_l^{-1} A_l S\big), \quad
        \text{attribution} = \Big(\frac{M}{\max M}\Big)^{\text{contrast}}

    N is the min-max normalisation, w the square root of a layer's stride, A the cosine affinity of positions and D its
    row sums. A is never built: the product is exact, in time and memory linear in the number of positions.

    It is a drop-in replacement for ``LayerGradCam``, takes one layer or several, and its maps need no ReLU. The method
    is based on Cai and Abhayaratne, "Region-CAM" (arXiv 2510.25134); the documentation's page on the method says which
    line is the paper's and which is this package's.

    Its two halves are methods of their own: :meth:`semantics` says where the class is, and :meth:`propagate` spreads
    this, or semantics from anywhere else, to what looks alike.

    Several threads may attribute to one network: their forward passes take turns, and those of ``find_stages`` with
    them. A process may be forked meanwhile. If the network runs itself again inside its forward pass, for example in a
    hook, the attribution is that of the outer run.

    Args:
        forward_func: the model, or any function around it that returns class scores before the softmax.
        layer: what :func:`~captum_regioncam.find_stages` returned, which gives the best maps; or one module, or an
            iterable or mapping {name: module}, in any order. The modules give (N, C, \*grid) tensors, where the grid is
            (height, width), (length,) or (depth, height, width). The last layer alone works as well.
        device_ids: the order of the devices, necessary only if ``forward_func`` wraps a DataParallel model.
        reshape_transform: a function that turns a layer's tensor into (N, C, \*grid), for layers that give something
            else: :func:`~captum_regioncam.tokens_to_grid`, :func:`~captum_regioncam.channels_last` or your own. If the
            layers of a mapping need different ones, a mapping {name: function} of those that need one. What
            ``find_stages`` returned brings its own.
        contrast: the power that the mean of the propagated maps, divided by its maximum, is raised to. Every position
            shares some features with the object, so the mean is high everywhere. Its fourth power (default) brings the
            background down to the low thresholds at which seeds and masks are cut, 0.15 to 0.3. A power does not change
            the order of values within a map. 1 only divides by the maximum.

    Raises:
        TypeError: ``layer`` contains something that is not a module.
        ValueError: ``layer`` is empty, or contains a module twice; ``reshape_transform`` names a layer that is not
            there; or ``contrast`` is not a positive number.

    Warns:
        UserWarning: in ``attribute``, if an example's gradients or features say nothing at any layer: its map is then 0
            everywhere. Also if a layer runs several times: its last call counts.

    Example::

        >>> model = torchvision.models.resnet50().eval()
        >>> x = torch.randn(2, 3, 224, 224)
        >>> cam = LayerRegionCam(model, find_stages(model, x))
        >>> attribution = cam.attribute(x, target=281)
        >>> attribution.shape  # the finest layer's grid
        torch.Size([2, 1, 112, 112])
        >>> LayerAttribution.interpolate(attribution, x.shape[2:], interpolate_mode="bilinear").shape
        torch.Size([2, 1, 224, 224])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | Iterable[Module] | Mapping[str, Module],
        device_ids: list[int] | None = None,
        *,
        reshape_transform: ReshapeTransform | Mapping[str, ReshapeTransform] | None = None,
        contrast: float = 4.0,
    ) -> None:
        super().__init__(forward_func, layer, device_ids, reshape_transform=reshape_transform)
        power: Any = contrast
        if getattr(power, "ndim", None) == 0:
            power = power.item()  # a number from NumPy or torch
        if isinstance(power, bool) or not isinstance(power, Real) or not 0 < float(power) < math.inf:
            raise ValueError(f"contrast={contrast!r}: expects a positive number; 1 only divides by the maximum.")
        self.contrast = float(power)

    def _reduce(self, features: Tensor, gradients: Tensor) -> Tensor:
        semantics = semantic_information(features, gradients)
        constant = rounding(features.dtype) * semantics.amax(tuple(range(2, semantics.dim())), keepdim=True)
        return min_max(semantics, constant).to(torch.promote_types(features.dtype, torch.float32))

    def _fuse(
        self, features: list[Tensor], maps: list[Tensor], attr_dim_summation: bool, unreached: list[str]
    ) -> tuple[Tensor, list[Tensor]]:
        mean, propagated = _propagated(features, _semantics(features, maps, unreached))
        if attr_dim_summation:
            return with_contrast(mean, self.contrast), propagated
        return torch.cat([resize(stage_map.to(mean.device), mean.shape[2:]) for stage_map in propagated], 1), propagated

    @logged
    def semantics(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        targets: Iterable[Any] | Tensor,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> Tensor:
        r"""Return where the gradients say that the targets are: the first half of the method (the SIM extractor).

        There is one forward pass for all targets, and one backward pass for each. ``propagate`` is the second half.
        The semantics may be changed in between, for example multiplied by those of another scale.

        Args:
            inputs: (N, ...) tensor or tuple of tensors, as the model takes them.
            targets: K targets, each in any form that ``attribute`` takes.
            additional_forward_args: what ``forward_func`` takes after the inputs; a tuple if several.
            attribute_to_layer_input: use the layers' inputs instead of their outputs.
            grad_kwargs: passed to :func:`torch.autograd.grad`.
            show_progress: show how many of the backward passes are done.

        Returns:
            (N, K, \*grid) in [0, 1], on the finest layer's grid. It is the weighted mean S of the layers' normalised
            semantic information maps. In float32, or in float64 if the features are; detached (except with
            ``create_graph``). 0 everywhere if the gradients of a target say nothing at any layer.

        Raises:
            LayerError: as in ``attribute``; or a single layer gives several tensors.
            TargetError: as in ``attribute``; or there are no targets.

        Warns:
            UserWarning: the gradients say nothing at any layer.

        Example::

            >>> semantics = cam.semantics(x, [281, 207])
            >>> semantics.shape  # two examples, two classes
            torch.Size([2, 2, 112, 112])
            >>> maps = cam.propagate(x, semantics)  # attribute_targets gives (maps / their maximum) ** contrast
        """
        semantics, _ = self.halves(
            inputs, targets, additional_forward_args, attribute_to_layer_input, grad_kwargs, show_progress
        )
        return semantics

    @logged
    def propagate(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        semantics: Tensor,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
    ) -> Tensor:
        r"""Spread semantics to what looks alike: the second half of the method (the SIP aggregator).

        There is one forward pass, which saves nothing for backward passes. The semantics may come from anywhere: from
        :meth:`semantics` at another size of the input, from Captum's Occlusion or IntegratedGradients, from another
        network, or from a scribble. Only their proportions count: multiplying them by a number changes nothing.

        Args:
            inputs: (N, ...) tensor or tuple of tensors, as the model takes them; the network may return anything.
            semantics: (N, K, \*any grid) finite numbers, 0 where there is nothing of a target: positions without
                features get 0. Their grid covers the whole input, like those of the layers. They are averaged down to
                each layer's grid, or resized linearly where they are coarser.
            additional_forward_args: what ``forward_func`` takes after the inputs; a tuple if several.
            attribute_to_layer_input: use the layers' inputs instead of their outputs.

        Returns:
            (N, K, \*grid) in [0, 1], on the finest layer's grid for these inputs, in the dtype of ``inputs``, detached.
            It is the mean M of the propagated maps, without ``contrast``.

        Raises:
            LayerError: a layer is never reached, is not on a grid, or is not finite; or a single layer gives several
                tensors.
            ValueError: ``semantics`` has another shape, or is not finite.

        Warns:
            UserWarning: semantics or features are the same at every position: the map is then 0 everywhere.

        Example::

            >>> scribble = torch.zeros(2, 1, 224, 224)
            >>> scribble[..., 100:120, 80:90] = 1
            >>> cam.propagate(x, scribble).shape  # where the features are like those under the scribble
            torch.Size([2, 1, 112, 112])
        """
        passes = self._run_forward(inputs, additional_forward_args, attribute_to_layer_input)
        passes.check_one_tensor("propagate", _ONE)
        return self._propagated(passes, _checked(semantics, passes.features))

    def halves(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        targets: Iterable[Any] | Tensor,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""Return the semantics, and a function that propagates semantics through the features of the same pass.

        This saves the forward pass of ``propagate`` if you change semantics and then propagate them through the same
        inputs.

        Args:
            inputs: as in ``semantics``.
            targets: as in ``semantics``.
            additional_forward_args: as in ``semantics``.
            attribute_to_layer_input: as in ``semantics``.
            grad_kwargs: as in ``semantics``.
            show_progress: as in ``semantics``.

        Returns:
            What :meth:`semantics` returns, and a function from (N, K, \*any grid) semantics to what :meth:`propagate`
            returns. It holds the layers' features (with ``create_graph``, in the graph).

        Raises:
            LayerError: as in ``semantics``.
            TargetError: as in ``semantics``.

        Example::

            >>> semantics, propagate = cam.halves(x, [281, 207])
            >>> propagate(semantics**2).shape
            torch.Size([2, 2, 112, 112])
        """
        passes = self._run(
            inputs, list_targets(targets), additional_forward_args, attribute_to_layer_input, grad_kwargs, show_progress
        )
        passes.check_one_tensor("semantics", _ONE)
        with torch.autocast(passes.features[0].device.type, enabled=False):
            semantics = _semantics(passes.features, passes.maps, passes.unreached)
        return semantics, lambda changed: self._propagated(passes, _checked(changed, passes.features))

    @staticmethod
    def _propagated(passes: Passes, semantics: Tensor) -> Tensor:
        with torch.autocast(semantics.device.type, enabled=False):
            return _propagated(passes.features, semantics)[0].to(passes.dtype)


def _semantics(features: Sequence[Tensor], maps: Sequence[Tensor], unreached: Sequence[str]) -> Tensor:
    """Fuse the layers' semantic information maps on the finest grid."""
    grids = [stage.shape[2:] for stage in features]
    semantics = fuse(maps, finest_grid(grids), depth_weights(grids))
    told = _UNREACHED.format(layers=", ".join(unreached)) if unreached else _UNTOLD
    _warn_if_empty(semantics.detach().flatten(2).amax(2) <= 0, told)
    return semantics


def _propagated(features: Sequence[Tensor], semantics: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Propagate semantics through each layer's features; return the mean of the maps, and the layers' own maps."""
    propagated = [min_max(propagate(stage, semantics.to(stage.device)), rounding(stage.dtype)) for stage in features]
    mean = fuse(propagated, finest_grid(stage.shape[2:] for stage in features))
    blank, varies = (maps.detach().flatten(2) for maps in (mean, semantics))
    _warn_if_empty((blank.amax(2) <= 0) & (varies.amax(2) > varies.amin(2)), _ALIKE)
    return mean, propagated


def _checked(semantics: Any, features: Sequence[Tensor]) -> Tensor:
    """Return the semantics that a user gives, on the features' device."""
    batch, dimensions = len(features[0]), features[0].dim() - 2
    grid = ", ".join(_AXES[-dimensions:])
    if not isinstance(semantics, Tensor) or semantics.dim() != 2 + dimensions or len(semantics) != batch:
        raise ValueError(
            f"semantics: expects ({batch}, K, {grid}) numbers for these inputs, got {describe(semantics)}."
        )
    if not semantics.numel() or not semantics.isfinite().all():
        raise ValueError(f"semantics: expects finite numbers; {describe(semantics)} has others, or none.")
    checked = semantics.detach().to(features[0].device, torch.promote_types(semantics.dtype, torch.float32))
    positions = tuple(range(2, checked.dim()))
    varies = checked.amax(positions, keepdim=True) > checked.amin(positions, keepdim=True)
    _warn_if_empty(~varies.flatten(1), _SAME)
    return checked * varies


_ONE = "Choose a module that gives one."
_AXES = ("depth", "height", "width")
_UNTOLD = (
    "at every layer the gradients of the target's score are zero or the same at every position, and layers just below "
    "global pooling show no sign of the class. Attribute to scores before the softmax, which saturates, and to layers "
    "before the pooling"
)
_ALIKE = (
    "at every layer the features look alike at every position. Choose layers with more channels, or after an activation"
)


_SAME = "the semantics are the same at every position"
_UNREACHED = (
    "the gradients of the target's score are zero at the patches of {layers}, but not at the tokens beside them. "
    "After the attention of a vision transformer's last block, the patches do not reach the class token. Take that "
    "block's first norm, as find_stages does"
)


def _warn_if_empty(empty: Tensor, reason: str) -> None:
    examples = empty.any(1).nonzero().flatten().tolist()
    if examples:
        which = examples if empty.shape[1] == 1 else f"{examples} (of some targets)"
        warnings.warn(f"The maps of examples {which} of the batch are 0 everywhere: {reason}.", stacklevel=2)
