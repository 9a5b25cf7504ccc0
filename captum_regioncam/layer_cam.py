"""LayerCAM, a baseline to compare Region-CAM with, which Captum lacks.

**CAM** (Zhou et al., CVPR 2016) needs no class of its own: on a network that ends in
global average pooling and a linear layer, Captum's ``LayerGradCam(model, last_layer).attribute(x, target,
relu_attributions=True)`` is the CAM times a constant (Selvaraju et al., ICCV 2017, section 3.1). Normalised, the two
maps are the same.
"""

import torch
from torch import Tensor

from captum_regioncam.attribution import MultiLayerAttribution
from captum_regioncam.method.grids import channel_chunks, finest_grid, min_max, resize, sum_of

__all__ = ["LayerCam"]


class LayerCam(MultiLayerAttribution):
    r"""LayerCAM (Jiang et al., IEEE TIP 2021): every position of a layer weighted by its own positive gradient.

    .. math:: M_i = \max\Big(0, \sum_k \max(0, G_{ki}) F_{ki}\Big)

    Each layer's map is min-max normalised and resized to the finest grid; several layers are fused by the maximum.

    Args:
        forward_func: the model, or any function around it that returns class scores before the softmax.
        layer: what :func:`~captum_regioncam.find_stages` returned; or one module, or an iterable or mapping
            {name: module}, in any order. The modules give (N, C, \*grid) tensors, where the grid is (height, width),
            (length,) or (depth, height, width).
        device_ids: the order of the devices, necessary only if ``forward_func`` wraps a DataParallel model.
        reshape_transform: turns a layer's tensor into (N, C, \*grid); a mapping {name: function} if the layers of a
            mapping need different ones. What ``find_stages`` returned brings its own.

    Raises:
        TypeError: ``layer`` contains something that is not a module.
        ValueError: ``layer`` is empty, or contains a module twice; or ``reshape_transform`` names a layer that is not
            there.

    Example::

        >>> cam = LayerCam(model, [model.layer3, model.layer4])
        >>> cam.attribute(x, target=281).shape
        torch.Size([2, 1, 14, 14])
    """

    def _reduce(self, features: Tensor, gradients: Tensor) -> Tensor:
        dtype = torch.promote_types(features.dtype, torch.float32)
        pairs = zip(*(channel_chunks(tensor.flatten(2)) for tensor in (features, gradients)), strict=True)
        activation = sum_of((f.to(dtype) * g.relu()).sum(1, keepdim=True) for f, g in pairs)
        return min_max(activation.relu()).view(len(features), 1, *features.shape[2:])

    def _fuse(
        self, features: list[Tensor], maps: list[Tensor], attr_dim_summation: bool, unreached: list[str]
    ) -> tuple[Tensor, list[Tensor]]:
        grid = finest_grid(stage.shape[2:] for stage in features)
        resized = [resize(layer_cam.to(maps[0].device), grid).clamp(0, 1) for layer_cam in maps]
        return torch.stack(resized).amax(0) if attr_dim_summation else torch.cat(resized, dim=1), maps
