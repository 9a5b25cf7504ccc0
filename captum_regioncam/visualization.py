"""Figures of a photo and its maps, over Captum's own visualisation."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution
from captum.attr import visualization as viz
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from torch import Tensor

from captum_regioncam.grids import min_max

__all__ = ["show_attributions"]

_PANEL_INCHES = 3.2


class _ShownFigure(Figure):
    """A figure that a notebook shows, also where pyplot has not told it how."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def show_attributions(
    image: Tensor | npt.NDArray[Any],
    attributions: Mapping[str, Tensor | npt.NDArray[Any]],
    *,
    method: str = "blended_heat_map",
    cmap: str | Colormap = "jet",
    alpha_overlay: float = 0.5,
    outlier_perc: float = 2,
    columns: int | None = None,
    image_title: str = "photo",
) -> Figure:
    """Show a photo and its maps side by side, without opening a window.

    Each map is upsampled bilinearly to the photo, cut off below 0, stretched onto [0, 1] and drawn by
    :func:`captum.attr.visualization.visualize_image_attr` (``sign="positive"``). A map that is 0 or constant, which
    Captum's normaliser refuses, is drawn as zeros.

    Args:
        image: the photo: (H, W, 3) or (H, W) array, uint8 or in [0, 1]; or a (3, H, W) or (1, 3, H, W) tensor likewise.
        attributions: title and map of each panel; a map is (h, w), (1, h, w) or (1, 1, h, w) of any size.
        method: any of Captum's: "blended_heat_map", "heat_map", "masked_image", "alpha_scaling".
        cmap: a matplotlib colour map.
        alpha_overlay: opacity of the map in "blended_heat_map".
        outlier_perc: per cent of a map's sum that its highest values may have above the end of the colour scale, as in
            Captum, so that a few peaks do not leave the rest pale.
        columns: panels in a row; default all in one.
        image_title: title of the photo's panel.

    Returns:
        The figure. A notebook shows it; ``savefig`` writes it.

    Raises:
        ValueError: the photo is no image or not within its range, or a map is not one finite 2-D map.

    Example::

        >>> figure = show_attributions(photo, {"Region-CAM": attribution})
        >>> figure.savefig("region_cam.png")
    """
    photo = _as_photo(image)
    height, width = photo.shape[:2]
    maps = {title: _as_map(title, attribution, (height, width)) for title, attribution in attributions.items()}
    panels = 1 + len(maps)
    if columns is not None and columns < 1:
        raise ValueError(f"columns={columns}: expects 1 or more.")
    columns = min(columns or panels, panels)
    rows = -(-panels // columns)
    row_height = _PANEL_INCHES * height / width + 0.2 + 0.25 * max(title.count("\n") + 1 for title in ["", *maps])
    figure = _ShownFigure(figsize=(_PANEL_INCHES * columns, row_height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(photo)
    axes[0].set_title(image_title, parse_math=False)
    for axis, (title, attribution) in zip(axes[1:], maps.items(), strict=False):
        _draw(
            figure,
            axis,
            photo,
            attribution,
            method=method,
            cmap=cmap,
            alpha_overlay=alpha_overlay,
            outlier_perc=outlier_perc,
        )
        axis.set_title(title, parse_math=False)
    return figure


def _draw(figure: Figure, axis: Axes, photo: npt.NDArray[Any], attribution: npt.NDArray[Any], **options: Any) -> None:
    if attribution.any():
        viz.visualize_image_attr(
            attribution[:, :, None],
            photo,
            sign="positive",
            plt_fig_axis=(figure, axis),
            use_pyplot=False,
            **options,
        )
    else:
        axis.imshow(photo.mean(2), cmap="gray")
        axis.imshow(attribution, cmap=options["cmap"], vmin=0, vmax=1, alpha=options["alpha_overlay"])
    axis.set_axis_off()


def _as_photo(image: Tensor | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (H, W, 3) uint8."""
    pixels = image.detach().float().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if isinstance(image, Tensor) and not image.is_floating_point() and 0 <= pixels.min() <= pixels.max() <= 255:
        pixels = pixels.astype(np.uint8)
    shape = pixels.shape
    if isinstance(image, Tensor):
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
    return pixels.repeat(3 // pixels.shape[2], axis=2)


def _as_map(title: str, attribution: Tensor | npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Return (H, W) float32 at the photo's size, in [0, 1]."""
    tensor = torch.as_tensor(attribution).detach().float().cpu()
    if tensor.dim() < 2 or tensor.shape[:-2].numel() != 1 or not tensor.numel():
        raise ValueError(
            f"attributions[{title!r}]: expects one map, (h, w) or (1, 1, h, w); got shape {tuple(tensor.shape)}. "
            "Give every example and target of a batch a title of its own."
        )
    if not tensor.isfinite().all():
        raise ValueError(f"attributions[{title!r}]: the map is not finite (NaN or infinite).")
    maps = tensor.reshape(1, 1, *tensor.shape[-2:])
    upsampled: Tensor = LayerAttribution.interpolate(maps, size, interpolate_mode="bilinear")
    return min_max(upsampled.clamp_min(0))[0, 0].numpy()
