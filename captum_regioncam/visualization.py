"""Figures of photos and their maps, built on Captum's own visualisation."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from captum.attr import visualization as viz
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from captum_regioncam.arguments import whole
from captum_regioncam.network.outputs import describe
from captum_regioncam.pictures import Image, Map, as_map, as_photos, shrunk

__all__ = ["SEEN", "show_attributions"]

_PANEL, _GAP, _LINE, _BAR = 3.2, 0.1, 0.2, 0.75  # inches: a panel, a gap between panels, a line of title, a colour bar
_LETTERS = 38  # per line of title
_PIXELS = 1600 * 1600  # that a panel draws: 500 per inch of a square photo
_TALLEST = 20  # the largest ratio of a photo's height to its width

SEEN = 0.01
"""The probability below which a panel says that the network does not see the class."""


class _ShownFigure(Figure):
    """A figure that a notebook shows, even if pyplot has not been imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


@dataclass(frozen=True)
class _Panel:
    title: str
    photo: npt.NDArray[Any]
    attribution: npt.NDArray[Any] | None = None
    """None for the panel of the photo alone."""

    @property
    def lines(self) -> list[str]:
        return [part for line in self.title.split("\n") for part in textwrap.wrap(line, _LETTERS) or [""]]


def show_attributions(
    image: Image | Sequence[Image],
    attributions: Mapping[str, Map] | Mapping[str, Mapping[str, Map]],
    *,
    probabilities: Mapping[str, float] | None = None,
    method: str = "blended_heat_map",
    cmap: str | Colormap = "jet",
    alpha_overlay: float = 0.5,
    outlier_perc: float = 2,
    columns: int | None = None,
    image_title: str | Sequence[str] = "photo",
) -> Figure:
    """Show a photo and its maps side by side, without opening a window.

    Each map is upsampled bilinearly to the photo, clipped at 0, stretched onto [0, 1] and drawn by
    :func:`captum.attr.visualization.visualize_image_attr` (``sign="positive"``). A map that is 0 or constant, which
    Captum's normaliser refuses, is drawn as zeros. Of a large photo, a panel shows 2.56 million averaged pixels.

    Args:
        image: the photo: (H, W, 3) or (H, W) array, uint8 or in [0, 1]; such a (3, H, W) or (1, 3, H, W) tensor; or a
            PIL image. For a list of N photos, or an (N, 3, H, W) tensor, each photo has its own row.
        attributions: title and map of each panel. A map is (h, w), (1, h, w) or (1, 1, h, w) of any size; the maps of N
            photos are (N, h, w) or (N, 1, h, w). Or a mapping of such mappings, with a row for each, such as
            {"cat": {"Grad-CAM": map, "Region-CAM": map}, "dog": {...}}.
        probabilities: in [0, 1], for titles of ``attributions``; they are added to the titles. A map looks just as
            confident for a class that the photo does not show. Below 1 %, the title therefore says that the network
            has not seen the class.
        method: one of Captum's: "blended_heat_map", "heat_map", "masked_image" or "alpha_scaling".
        cmap: a matplotlib colour map.
        alpha_overlay: opacity of the map in "blended_heat_map".
        outlier_perc: the highest values, which make up this percentage of a map's sum, may exceed the end of the colour
            scale, as in Captum, so that a few peaks do not make the rest pale.
        columns: panels in a row. Default: all of them up to five; of more, as many as leave the fewest places empty.
            For a batch or a mapping of mappings, the default is all panels of a photo or of a key.
        image_title: title of the photo's panel; for a batch, one title per photo, or one title that gets numbers.

    Returns:
        The figure. A notebook shows it; ``savefig`` writes it.

    Raises:
        ValueError: the photo is not an image or out of range, an attribution is not one finite 2-D map per photo, a
            probability is not in [0, 1] or has no title, there is not one ``image_title`` per photo, ``columns`` is
            below 1, ``attributions`` mixes maps and mappings, several photos come with a mapping of mappings, or a
            photo is more than 20 times as tall as it is wide.

    Example::

        >>> figure = show_attributions(photo, {"Region-CAM": attribution})
        >>> figure.savefig("region_cam.png")
        >>> [axes.get_title() for axes in figure.axes]  # the last is the colour bar
        ['photo', 'Region-CAM', '']
        >>> rows = {"tabby": {"Region-CAM": attribution}, "beagle": {"Region-CAM": attribution}}
        >>> figure = show_attributions(photo, rows, probabilities={"tabby": 0.93, "beagle": 0.001})
        >>> print(figure.axes[2].get_title())
        beagle
        0.1%: not seen by the network
    """
    photos = as_photos(image)
    for height, width in (photo.shape[:2] for photo in photos):
        if height > _TALLEST * width:
            raise ValueError(
                f"image: {width} x {height} pixels are {height / width:.4g} times as tall as wide; at most {_TALLEST} "
                "times are possible. Crop the photo."
            )
    photos = [shrunk(photo, _PIXELS) for photo in photos]
    numbered = [f"{image_title} {index + 1}" for index in range(len(photos))] if len(photos) > 1 else [str(image_title)]
    image_titles = numbered if isinstance(image_title, str) else list(image_title)
    if len(image_titles) != len(photos):
        raise ValueError(f"image_title: got {len(image_titles)} titles for {len(photos)} photos.")
    titles = _titles(attributions, probabilities or {})
    given: dict[str, Any] = dict(attributions)
    odd = [key for key, value in given.items() if not isinstance(value, Mapping)]
    nested = len(odd) < len(given)
    if nested and odd:
        raise ValueError(
            f"attributions[{odd[0]!r}]: expects a mapping of maps, as the other titles have; got "
            f"{describe(given[odd[0]])}. Give either maps alone, or mappings alone."
        )
    if nested and len(photos) > 1:
        raise ValueError("attributions: mappings of mappings are for one photo; show a batch with one mapping.")
    if nested:
        groups = [_panels(photos[0], titles[key], {one: str(one) for one in row}, row) for key, row in given.items()]
    elif len(photos) > 1:
        parts = {key: _of_batch(key, maps, len(photos)) for key, maps in given.items()}
        groups = [
            _panels(photo, image_titles[index], titles, {key: maps[index] for key, maps in parts.items()})
            for index, photo in enumerate(photos)
        ]
    else:
        groups = [_panels(photos[0], image_titles[0], titles, given)]
    count = _columns(max(map(len, groups)), columns, wrap=not nested and len(photos) == 1)
    rows = [group[start : start + count] for group in groups for start in range(0, len(group), count)]
    options = {"method": method, "cmap": cmap, "alpha_overlay": alpha_overlay, "outlier_perc": outlier_perc}
    return _drawn(rows, options)


def _panels(
    photo: npt.NDArray[Any], image_title: str, titles: Mapping[str, str], attributions: Mapping[str, Any]
) -> list[_Panel]:
    """Return a photo's panel and those of its maps."""
    size = photo.shape[:2]
    maps = {key: as_map(f"attributions[{key!r}]", one, size) for key, one in attributions.items()}
    return [_Panel(image_title, photo), *(_Panel(titles[key], photo, one) for key, one in maps.items())]


def _columns(panels: int, columns: int | None, *, wrap: bool) -> int:
    """Return the number of panels in a row; unless it is given, only ``wrap`` allows fewer than all."""
    if columns is not None:
        if whole(columns) < 1:
            raise ValueError(f"columns={columns!r}: expects 1 or more.")
        return whole(columns)
    return panels if panels <= 5 or not wrap else min((5, 4, 3), key=lambda count: (-panels % count, -count))


def _titles(attributions: Mapping[str, Any], probabilities: Mapping[str, float]) -> dict[str, str]:
    """Return the titles of panels or rows, with the probabilities that are known."""
    titles = {title: str(title) for title in attributions}  # a number, where attribute_layers knows no name
    for title, probability in probabilities.items():
        if title not in titles or not 0 <= probability <= 1:
            raise ValueError(
                f"probabilities[{title!r}]={probability}: expects a title of attributions and a number from 0 to 1."
            )
        seen = "" if probability >= SEEN else ": not seen by the network"
        titles[title] = f"{title}\n{probability:.1%}{seen}" if probability >= 0.001 else f"{title}\nbelow 0.1%{seen}"
    return titles


def _drawn(rows: list[list[_Panel]], options: dict[str, Any]) -> Figure:
    """Place the panels without wasted space, for photos of any proportions."""
    count = max(map(len, rows))
    width = count * (_PANEL + _GAP) + _GAP + _BAR
    tops = [_LINE * max(len(panel.lines) for panel in row) + _GAP for row in rows]
    heights = [_PANEL * row[0].photo.shape[0] / row[0].photo.shape[1] for row in rows]
    height = sum(tops) + sum(heights) + _GAP
    figure = _ShownFigure(figsize=(width, height))
    y = height
    for row, top, panel_height in zip(rows, tops, heights, strict=True):
        y -= top + panel_height
        for place, panel in enumerate(row):
            x = _GAP + place * (_PANEL + _GAP)
            axis = figure.add_axes((x / width, y / height, _PANEL / width, panel_height / height))
            _draw(figure, axis, panel, options)
    if options["method"] in ("blended_heat_map", "heat_map"):
        bar = figure.add_axes((1 - (_BAR - _GAP) / width, y / height, 0.15 / width, heights[-1] / height))
        figure.colorbar(ScalarMappable(cmap=options["cmap"]), cax=bar, ticks=[0, 0.5, 1])
        bar.tick_params(labelsize=8)
    return figure


def _draw(figure: Figure, axis: Axes, panel: _Panel, options: dict[str, Any]) -> None:
    if panel.attribution is None:
        axis.imshow(panel.photo)
    elif panel.attribution.any():
        viz.visualize_image_attr(
            panel.attribution[:, :, None],
            panel.photo,
            sign="positive",
            plt_fig_axis=(figure, axis),
            use_pyplot=False,
            **options,
        )
    else:
        axis.imshow(panel.photo.mean(2), cmap="gray")
        axis.imshow(panel.attribution, cmap=options["cmap"], vmin=0, vmax=1, alpha=options["alpha_overlay"])
    axis.set_axis_off()
    axis.set_title("\n".join(panel.lines), parse_math=False, fontsize=10, pad=4)


def _of_batch(title: str, maps: Any, count: int) -> Any:
    shape = tuple(getattr(maps, "shape", ()))
    if len(shape) not in (3, 4) or shape[0] != count:
        raise ValueError(
            f"attributions[{title!r}]: expects a map for each of the {count} photos, ({count}, h, w) or "
            f"({count}, 1, h, w); got shape {shape}."
        )
    return maps
