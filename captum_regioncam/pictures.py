"""Photos and maps as arrays: checked, at one size, and blended."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from captum.attr import LayerAttribution
from matplotlib.colors import Colormap
from torch import Tensor

from captum_regioncam.arguments import plane_size
from captum_regioncam.method.grids import min_max
from captum_regioncam.network.captum_private import _cumulative_sum_threshold, _normalize_scale

__all__ = ["Image", "Map", "as_map", "as_photos", "cut_out", "overlay", "shrunk", "size_of", "to_hwc"]

Image = Tensor | npt.NDArray[Any] | PIL.Image.Image
Map = Tensor | npt.NDArray[Any]
Size = tuple[int, int] | Image
"""A height and a width, or the photo that has them."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's and JPEG's grey
_BLOCK = 2**20  # pixels that are blended at once
# Pixels from which the end of the colour scale is computed: as many as float32, in which Captum adds them, can count.
_SORTED = 2**24


def overlay(
    image: Image, attribution: Map, *, cmap: str | Colormap = "jet", alpha: float = 0.5, outlier_perc: float = 2
) -> npt.NDArray[np.uint8]:
    """Blend a map's colours over its photo.

    Args:
        image: the photo, in any form that :func:`show_attributions` takes.
        attribution: (h, w), (1, h, w) or (1, 1, h, w), of any size; upsampled bilinearly, clipped at 0 and stretched
            onto [0, 1].
        cmap: a matplotlib colour map.
        alpha: opacity of the map in [0, 1].
        outlier_perc: as in :func:`show_attributions`.

    Returns:
        (H, W, 3) uint8, at the photo's size.

    Raises:
        ValueError: as in :func:`show_attributions`; or ``alpha`` is not in [0, 1], or there are several photos.

    Example::

        >>> overlay(photo, attribution).shape
        (375, 500, 3)
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: expects a number from 0 to 1.")
    photo, *others = as_photos(image)
    if others:
        raise ValueError(f"image: overlay takes one photo, got {1 + len(others)}; call it for each photo and its map.")
    height, width = photo.shape[:2]
    values = as_map("attribution", attribution, (height, width))
    step = math.ceil(math.sqrt(values.size / _SORTED))
    sample = values[::step, ::step]
    highest = _cumulative_sum_threshold(sample, 100.0 - outlier_perc) if sample.any() else 1.0
    colours = mpl.colormaps[cmap] if isinstance(cmap, str) else cmap
    blended = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _BLOCK // width)
    for part in (slice(start, start + rows) for start in range(0, height, rows)):
        coloured = colours(_normalize_scale(values[part], highest))[:, :, :3]
        blended[part] = ((1 - alpha) * photo[part] + alpha * 255 * coloured).round()
    return blended


def cut_out(image: Image, mask: Map, *, lightness: float = 0.7) -> npt.NDArray[np.uint8]:
    """Show what a mask covers: everything else is grey and light.

    Args:
        image: the photo, in any form that :func:`show_attributions` takes.
        mask: (H, W), (1, H, W) or (1, 1, H, W) bool at the photo's size, as :func:`to_mask` returns it.
        lightness: how light the rest is, in [0, 1]: 0 leaves its grey as it is, and 1 makes it white.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: as in :func:`show_attributions`; or ``mask`` is not one bool mask of the photo's size, or
            ``lightness`` is not in [0, 1].

    Example::

        >>> cut_out(photo, to_mask(attribution, size=(375, 500))).shape
        (375, 500, 3)
    """
    if not 0 <= lightness <= 1:
        raise ValueError(f"lightness={lightness}: expects a number from 0 to 1.")
    photo, *others = as_photos(image)
    if others:
        raise ValueError(f"image: cut_out takes one photo, got {1 + len(others)}; call it for each photo and its mask.")
    inside = torch.as_tensor(mask).detach().cpu()
    if inside.dtype != torch.bool or inside.shape[-2:] != photo.shape[:2] or inside.shape[:-2].numel() != 1:
        raise ValueError(
            f"mask: expects one bool mask of the photo's size, {tuple(photo.shape[:2])}; got shape "
            f"{tuple(inside.shape)}, {inside.dtype}. Pass size= to to_mask."
        )
    grey = photo @ np.array(_LUMA, np.float32)
    light = (grey + (255 - grey) * np.float32(lightness)).round().astype(np.uint8)
    return np.where(inside.reshape(*photo.shape[:2], 1).numpy(), photo, light[:, :, None])


def to_hwc(attribution: Map, size: Size) -> npt.NDArray[np.float32]:
    """Upsample a map bilinearly and put its channels last, as Captum's ``visualize_image_attr`` takes it.

    Args:
        attribution: (h, w), (C, h, w) or (1, C, h, w).
        size: the photo, in any form that :func:`show_attributions` takes, or its height and width.

    Returns:
        (height, width, C).

    Raises:
        ValueError: the attribution holds a batch, or has another shape; or ``size`` is neither a photo nor two
            numbers above 0.

    Example::

        >>> to_hwc(attribution, (375, 500)).shape
        (375, 500, 1)
    """
    tensor = torch.as_tensor(attribution).detach().float().cpu()
    if not 2 <= tensor.dim() <= 4 or not tensor.numel() or (tensor.dim() == 4 and len(tensor) != 1):
        raise ValueError(f"attribution: expects (h, w), (C, h, w) or (1, C, h, w); got shape {tuple(tensor.shape)}.")
    maps = tensor.reshape(1, -1, *tensor.shape[-2:])
    upsampled: Tensor = LayerAttribution.interpolate(maps, size_of(size), interpolate_mode="bilinear")
    return upsampled[0].permute(1, 2, 0).numpy()


def size_of(size: Size) -> tuple[int, int]:
    """Return a height and a width, given as such or by the photo that has them."""
    if isinstance(size, PIL.Image.Image):
        size = size.height, size.width
    elif isinstance(size, Tensor) and size.dim() > 1:
        size = (*size.shape[-2:],)
    elif isinstance(size, np.ndarray) and size.ndim > 1:
        size = size.shape[:2]
    return plane_size("size", size)


def as_photos(image: Image | Sequence[Image]) -> list[npt.NDArray[Any]]:
    """Return N photos, (H, W, 3) uint8."""
    if isinstance(image, (list, tuple)) or (isinstance(image, Tensor) and image.dim() == 4 and len(image) > 1):
        if not len(image):
            raise ValueError("image: expects a photo, got an empty list.")
        return [as_photo(one) for one in image]
    return [as_photo(image)]  # type: ignore[arg-type]


def as_photo(image: Image) -> npt.NDArray[Any]:
    """Return (H, W, 3) uint8."""
    if isinstance(image, PIL.Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image
    pixels = np.asarray(image)
    shape = pixels.shape
    if isinstance(image, Tensor):
        if not image.is_floating_point() and pixels.size and 0 <= pixels.min() <= pixels.max() <= 255:
            pixels = pixels.astype(np.uint8, copy=False)
        pixels = pixels[0] if pixels.ndim == 4 and len(pixels) == 1 else pixels
        pixels = np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 else pixels
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise ValueError(f"image: expects (H, W, 3) or (H, W) pixels, or a (3, H, W) tensor; got shape {shape}.")
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"image: values from {low:.3g} to {high:.3g}; expects uint8 or [0, 1]. Undo the normalisation first."
            )
        pixels = (pixels * 255).round().astype(np.uint8)
    return pixels if pixels.shape[2] == 3 else pixels.repeat(3, axis=2)


def shrunk(photo: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """Average (H, W, 3) uint8 pixels down to about ``most`` of them; a photo that has no more stays as it is."""
    scale = math.sqrt(most / (photo.shape[0] * photo.shape[1]))
    if scale >= 1:
        return photo
    rows, columns = (
        np.linspace(0, side, max(1, round(side * scale)) + 1).round().astype(int) for side in photo.shape[:2]
    )
    smaller = np.empty((len(rows) - 1, len(columns) - 1, 3), dtype=np.uint8)
    for index, (top, bottom) in enumerate(pairwise(rows)):
        sums = np.add.reduceat(photo[top:bottom].sum(0, dtype=np.int64), columns[:-1])
        smaller[index] = (sums / ((bottom - top) * np.diff(columns)[:, None])).round()
    return smaller


def as_map(name: str, attribution: Any, size: tuple[int, int]) -> npt.NDArray[Any]:
    """Return (H, W) float32 at the photo's size, in [0, 1]."""
    tensor = torch.as_tensor(attribution).detach().float().cpu()
    if tensor.dim() < 2 or tensor.shape[:-2].numel() != 1 or not tensor.numel():
        raise ValueError(
            f"{name}: expects one map, (h, w) or (1, 1, h, w); got shape {tuple(tensor.shape)}. "
            "Show every example and target of a batch on its own."
        )
    if not tensor.isfinite().all():
        raise ValueError(f"{name}: the map is not finite (NaN or infinite).")
    maps = tensor.reshape(1, 1, *tensor.shape[-2:])
    upsampled: Tensor = LayerAttribution.interpolate(maps, size, interpolate_mode="bilinear")
    return min_max(upsampled.clamp_min_(0))[0, 0].numpy()
