"""Maps whose edges follow the photo's."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captum_regioncam.arguments import real, whole
from captum_regioncam.method.pamr import refine_maps

# The module cannot be called refine: whoever imported it would find it as captum_regioncam.refine, not the function.
__all__ = ["refine"]

_LARGEST = 1e16  # pixels, so that the sums of their squares fit into float32


def refine(
    attribution: Tensor | npt.NDArray[Any], photo: Tensor | npt.NDArray[Any] | Image.Image, iterations: int = 10
) -> Tensor:
    r"""Refine maps with their photo, so that their edges follow the photo's.

    Every position takes the weighted mean of 48 neighbours near and far, several times. Neighbours of a similar colour
    have higher weights, where the contrast around the position decides what is similar. This is PAMR, the
    pixel-adaptive mask refinement of Araslanov and Roth ("Single-Stage Semantic Segmentation from Image Labels", CVPR
    2020), on a grid of the photo whose longer side is at most 320:

    .. math:: M_i \leftarrow \sum_n w_{in} M_n, \quad
        w_i = \operatorname{softmax}_n \Big(-\frac{1}{C} \sum_c \frac{|x_{cn} - x_{ci}|}{0.1 s_{ci} + 10^{-8}}\Big)

    Here x is the photo, s the standard deviation of channel c around position i, and n runs over 3 x 3 windows with
    dilations 1, 2, 4, 8, 12 and 24, without their centre.

    Use it before :func:`to_mask`. For boxes (:func:`to_boxes`), unrefined maps are better: boxes that are filled lose
    about one point of mIoU when the maps are refined.

    Args:
        attribution: (..., h, w) maps of one photo, such as the (1, K, h, w) of
            :meth:`LayerRegionCam.attribute_targets`; or the (N, K, h, w) maps of N photos.
        photo: a (3, H, W) tensor, an (H, W, 3) or (H, W) array, or a PIL image; or an (N, 3, H, W) tensor of N photos.
            Pixels may have any range and normalisation, so the network's inputs will do.
        iterations: how often the mean is taken; 0 only resizes the maps.

    Returns:
        (..., H, W) maps, detached, each within the range that it had before. They are not divided by their maximum
        again. The dtype is that of ``attribution``, or float32 for integers.

    Raises:
        ValueError: ``iterations`` is not a whole number of at least 0, ``attribution`` or ``photo`` has another shape
            or is not finite, or their numbers of photos differ.

    Example::

        >>> attribution.shape, photo.size
        (torch.Size([1, 1, 112, 112]), (500, 375))
        >>> refined = refine(attribution, photo)
        >>> refined.shape
        torch.Size([1, 1, 375, 500])
        >>> mask = to_mask(refined)
    """
    steps = whole(iterations)
    if not steps and real(iterations) != 0:
        raise ValueError(f"iterations={iterations!r}: expects a whole number, 0 or more.")
    maps, photos = _as_maps(attribution), _as_photos(photo)
    if len(photos) > 1 and (maps.dim() != 4 or len(maps) != len(photos)):
        raise ValueError(
            f"attribution: expects the (N, K, h, w) maps of the {len(photos)} photos; got shape {tuple(maps.shape)}. "
            "Refine the maps of each photo separately."
        )
    dtype = maps.dtype if maps.is_floating_point() else torch.float32
    computed = maps.to(torch.promote_types(dtype, torch.float32))
    batch = computed if len(photos) > 1 else computed.reshape(1, -1, *maps.shape[-2:])
    if photos.is_floating_point():
        photos = photos.to(computed.dtype)  # not all devices have the float64 of NumPy's arrays
    with torch.no_grad(), torch.autocast(maps.device.type, enabled=False):
        refined = refine_maps(batch, photos.to(maps.device), steps)
    return refined.view(*maps.shape[:-2], *refined.shape[-2:]).to(dtype)


def _as_maps(attribution: Tensor | npt.NDArray[Any]) -> Tensor:
    maps = _as_tensor(attribution)
    if maps.dim() < 2 or not maps.numel() or maps.is_complex():
        raise ValueError(
            f"attribution: expects (..., h, w) maps of real numbers; got shape {tuple(maps.shape)}, {maps.dtype}."
        )
    if not maps.isfinite().all():
        raise ValueError("attribution: the maps are not finite (NaN or infinite).")
    return maps


def _as_photos(photo: Tensor | npt.NDArray[Any] | Image.Image) -> Tensor:
    """Return (N, C, H, W) in the pixels' own dtype and range."""
    if isinstance(photo, Image.Image):
        photo = _pixels(photo)
    pixels = _as_tensor(photo)
    if isinstance(photo, Tensor):
        photos = pixels[(None,) * (4 - pixels.dim())] if 2 <= pixels.dim() <= 3 else pixels
    else:
        photos = pixels.permute(2, 0, 1)[None] if pixels.dim() == 3 else pixels[None, None]
    if photos.dim() != 4 or photos.shape[1] not in (1, 3) or not photos.numel() or photos.is_complex():
        raise ValueError(
            "photo: expects a (3, H, W) or (N, 3, H, W) tensor, or an (H, W, 3) or (H, W) array; got shape "
            f"{tuple(pixels.shape)}, {pixels.dtype}. Signals and volumes cannot be refined."
        )
    if photos.is_floating_point():
        low, high = (float(value) for value in photos.aminmax())
        if not (low > -_LARGEST and high < _LARGEST):
            raise ValueError(f"photo: values from {low:.3g} to {high:.3g}; expects finite ones, below 1e16.")
    return photos


def _pixels(photo: Image.Image) -> npt.NDArray[Any]:
    """Return (H, W, 3) colours, or (H, W) levels of what Pillow would clip to 8 bits."""
    if photo.mode[0] in "IF":
        return np.array(photo, np.float32)
    if photo.mode == "P":
        photo = photo.convert("RGBA")  # without Pillow's warning about transparent colours
    return np.array(photo.convert("RGB"))


def _as_tensor(values: Tensor | npt.NDArray[Any]) -> Tensor:
    """Return a detached tensor, also of arrays that are read-only or mirrored."""
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, order="C"))
