"""Region-CAM as a Captum attribution."""

import warnings
from typing import Any

import torch
from torch import Tensor

from captum_regioncam.attribution import StageAttribution, logged
from captum_regioncam.captum_hooks import TargetType
from captum_regioncam.grids import finest_grid, fuse
from captum_regioncam.sim import semantic_information
from captum_regioncam.sip import propagate

__all__ = ["LayerRegionCam"]


class LayerRegionCam(StageAttribution):
    r"""Region-CAM: a map of the whole object, with edges where the object's edges are.

    Class activation maps weight features by gradients and light up the most discriminative parts. Region-CAM keeps the
    two apart. At every layer the gradients say where the class is (semantic information maps, averaged over the
    layers), and the features say which positions belong together: each position takes the average semantics of all
    positions that look like it (semantic information propagation). The mean of the propagated maps is the attribution:

    .. math:: S = \frac{1}{L}\sum_l N(S_l), \quad M = \frac{1}{L}\sum_l N\big(D_l^{-1} A_l S\big)

    with N the min-max normalisation, A the cosine affinity of positions and D its row sums. A is never built: the
    product is exact in time and memory linear in the number of positions.

    It stands wherever ``LayerGradCam`` stood, takes one layer or several, and its maps need no ReLU. It uses Cai and
    Abhayaratne, "Region-CAM" (arXiv 2510.25134); the documentation's page on the method says which line is the paper's
    and which is this package's.

    Args:
        forward_func: the model, or any function around it that returns class scores before the softmax.
        layer: one module or an iterable of modules, in any order, that give (N, C, \*grid) tensors with a grid of one,
            two or three dimensions. Several resolutions give the best maps; :func:`~captum_regioncam.find_stages`
            chooses them. A single last layer works as well.
        device_ids: the order of the devices, necessary only if ``forward_func`` wraps a DataParallel model.
        reshape_transform: turns a layer's tensor into (N, C, \*grid), for layers that give something else, such as
            :func:`~captum_regioncam.tokens_to_grid` or :func:`~captum_regioncam.channels_last`.

    Raises:
        TypeError: ``layer`` has something that is no module.
        ValueError: ``layer`` has no module, or one twice.

    Example::

        >>> model = torchvision.models.resnet50().eval()
        >>> x = torch.randn(2, 3, 224, 224)
        >>> cam = LayerRegionCam(model, find_stages(model, x).values())
        >>> attribution = cam.attribute(x, target=281)
        >>> attribution.shape  # the finest layer's grid
        torch.Size([2, 1, 112, 112])
        >>> LayerAttribution.interpolate(attribution, x.shape[2:], interpolate_mode="bilinear").shape
        torch.Size([2, 1, 224, 224])
    """

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
            attr_dim_summation: False keeps each layer's propagated map apart, along dim 1.
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

        Warns:
            UserWarning: an example's gradients or features say nothing at any layer; its map is 0 everywhere.
        """
        return self._attribute(
            inputs, [target], additional_forward_args, attribute_to_layer_input, grad_kwargs, attr_dim_summation
        )

    def _reduce(self, features: Tensor, gradients: Tensor) -> Tensor:
        return semantic_information(features, gradients)

    def _fuse(self, stages: list[tuple[Tensor, Tensor]], attr_dim_summation: bool) -> Tensor:
        grid = finest_grid(features.shape[2:] for features, _ in stages)
        semantics = fuse([information for _, information in stages], grid)
        propagated = [propagate(features, semantics) for features, _ in stages]
        attribution = fuse(propagated, grid)
        _warn_if_empty(semantics, attribution)
        if attr_dim_summation:
            return attribution
        apart = [fuse([stage_map], grid).to(attribution.device) for stage_map in propagated]
        return torch.cat(apart, dim=1)


_UNTOLD = (
    "at every layer the gradients of the target's score are zero or the same at every position, or where only they are "
    "(below global pooling) nothing speaks for the class. Attribute to scores before the softmax, which saturates, and "
    "to layers before the pooling"
)
_ALIKE = (
    "at every layer the features look alike at every position. Choose layers with more channels, or after an activation"
)


def _warn_if_empty(semantics: Tensor, attribution: Tensor) -> None:
    untold, blank = (maps.detach().flatten(2).amax(2) <= 0 for maps in (semantics, attribution))
    for empty, reason in ((untold, _UNTOLD), (blank & ~untold, _ALIKE)):
        examples = empty.any(1).nonzero().flatten().tolist()
        if examples:
            which = examples if empty.shape[1] == 1 else f"{examples} (of some targets)"
            warnings.warn(f"The maps of examples {which} of the batch are 0 everywhere: {reason}.", stacklevel=6)
