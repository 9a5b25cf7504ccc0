"""Region-CAM as a Captum attribution."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_regioncam.attribution import MultiLayerAttribution
from captum_regioncam.method.grids import depth_weights, finest_grid, fuse, min_max, resize, rounding
from captum_regioncam.method.sim import semantic_information
from captum_regioncam.method.sip import propagate
from captum_regioncam.network.reshape import ReshapeTransform

__all__ = ["LayerRegionCam"]


class LayerRegionCam(MultiLayerAttribution):
    r"""Region-CAM: a map of the whole object, with edges where the object's edges are.

    Class activation maps weight features by gradients and light up the most discriminative parts. Region-CAM keeps the
    two apart. At every layer the gradients say where the class is (semantic information maps, averaged over the
    layers), and the features say which positions belong together: each position takes the average semantics of all
    positions that look like it (semantic information propagation). The attribution is the mean of the propagated maps,
    raised to a power that gives it contrast:

    .. math:: S = \frac{\sum_l w_l N(S_l)}{\sum_l w_l}, \quad M = \frac{1}{L}\sum_l N\big(D_l^{-1} A_l S\big), \quad
        \text{attribution} = M^{\text{contrast}}

    N is the min-max normalisation, w the square root of a layer's stride, A the cosine affinity of positions and D its
    row sums. A is never built: the product is exact, in time and memory linear in the number of positions.

    It is a drop-in replacement for ``LayerGradCam``, takes one layer or several, and its maps need no ReLU. The method
    is based on Cai and Abhayaratne, "Region-CAM" (arXiv 2510.25134); the documentation's page on the method says which
    line is the paper's and which is this package's.

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
        contrast: the power that the mean of the propagated maps is raised to. Every position shares some features with
            the object, so the mean is high everywhere. Its third power (default) brings the background down to the low
            thresholds at which seeds and masks are cut, 0.15 to 0.3. A power does not change the order of values within
            a map. 1 gives the mean itself.

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
        contrast: float = 3.0,
    ) -> None:
        super().__init__(forward_func, layer, device_ids, reshape_transform=reshape_transform)
        power: Any = contrast
        if getattr(power, "ndim", None) == 0:
            power = power.item()  # a number of NumPy's or torch's
        if isinstance(power, bool) or not isinstance(power, Real) or not 0 < float(power) < math.inf:
            raise ValueError(f"contrast={contrast!r}: expects a positive number; 1 gives the plain mean of the maps.")
        self.contrast = float(power)

    def _reduce(self, features: Tensor, gradients: Tensor) -> Tensor:
        semantics = semantic_information(features, gradients)
        constant = rounding(features.dtype) * semantics.amax(tuple(range(2, semantics.dim())), keepdim=True)
        return min_max(semantics, constant).to(torch.promote_types(features.dtype, torch.float32))

    def _fuse(
        self, features: list[Tensor], maps: list[Tensor], attr_dim_summation: bool, unreached: list[str]
    ) -> tuple[Tensor, list[Tensor]]:
        grids = [stage.shape[2:] for stage in features]
        grid = finest_grid(grids)
        semantics = fuse(maps, grid, depth_weights(grids))
        propagated = [
            min_max(propagate(stage, semantics.to(stage.device)), rounding(stage.dtype)) for stage in features
        ]
        mean = fuse(propagated, grid)
        _warn_if_empty(semantics, mean, unreached)
        if attr_dim_summation:
            return mean**self.contrast, propagated
        return torch.cat([resize(stage_map.to(mean.device), grid) for stage_map in propagated], dim=1), propagated


_UNTOLD = (
    "at every layer the gradients of the target's score are zero or the same at every position, and layers just below "
    "global pooling show no sign of the class. Attribute to scores before the softmax, which saturates, and to layers "
    "before the pooling"
)
_ALIKE = (
    "at every layer the features look alike at every position. Choose layers with more channels, or after an activation"
)


_UNREACHED = (
    "the gradients of the target's score are zero at the patches of {layers}, but not at the tokens beside them. "
    "After the attention of a vision transformer's last block, the patches do not reach the class token. Take that "
    "block's first norm, as find_stages does"
)


def _warn_if_empty(semantics: Tensor, attribution: Tensor, unreached: list[str]) -> None:
    untold, blank = (maps.detach().flatten(2).amax(2) <= 0 for maps in (semantics, attribution))
    told = _UNREACHED.format(layers=", ".join(unreached)) if unreached else _UNTOLD
    for empty, reason in ((untold, told), (blank & ~untold, _ALIKE)):
        examples = empty.any(1).nonzero().flatten().tolist()
        if examples:
            which = examples if empty.shape[1] == 1 else f"{examples} (of some targets)"
            warnings.warn(f"The maps of examples {which} of the batch are 0 everywhere: {reason}.", stacklevel=2)
