import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from captum_regioncam import show_attributions


def drawn(figure):
    """The figure's pixels, (H, W, 3)."""
    figure.savefig(buffer := io.BytesIO(), format="png")
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


def panel(figure, index):
    """The pixels of one panel."""
    pixels = drawn(figure)
    box = figure.axes[index].get_window_extent()
    height = len(pixels)
    return pixels[round(height - box.y1) + 2 : round(height - box.y0) - 2, round(box.x0) + 2 : round(box.x1) - 2]


@pytest.fixture
def photo():
    return np.full((40, 60, 3), 128, np.uint8)


def halves(*, left):
    attribution = torch.zeros(1, 1, 4, 6)
    attribution[..., :3] = left
    return attribution


def test_shows_the_photo_and_each_map_where_it_is(photo):
    figure = show_attributions(photo, {"left": halves(left=1.0), "right": 1 - halves(left=1.0)}, image_title="grey")
    assert [axis.get_title() for axis in figure.axes] == ["grey", "left", "right"]
    assert np.allclose(panel(figure, 0), 128, atol=1)
    left, right = panel(figure, 1), panel(figure, 2)
    third = left.shape[1] // 3
    for hot, cold in ((left[:, :third], left[:, -third:]), (right[:, -third:], right[:, :third])):
        assert (hot[..., 0] - hot[..., 2]).mean() > 40  # jet: red at the top of the range, blue at the bottom
        assert (cold[..., 2] - cold[..., 0]).mean() > 40


def test_opens_no_window_and_leaves_no_figure_with_pyplot(photo):
    show_attributions(photo, {"map": torch.rand(4, 4)})
    assert plt.get_fignums() == []


@pytest.mark.parametrize("empty", [torch.zeros(1, 1, 4, 6), -torch.rand(1, 1, 4, 6), torch.full((4, 6), 0.7)])
def test_a_map_without_positive_range_is_drawn_as_zeros(photo, empty):
    figure = show_attributions(photo, {"empty": empty, "some": halves(left=1.0)})
    zeros, some = panel(figure, 1), panel(figure, 2)
    expected = some[:, -some.shape[1] // 4 :].mean((0, 1))
    assert np.allclose(zeros, expected, atol=3)


def test_range_of_a_map_does_not_matter(photo):
    pictures = [drawn(show_attributions(photo, {"map": halves(left=v) + offset})) for v, offset in ((1, 0), (1e-9, 0))]
    assert np.abs(pictures[0] - pictures[1]).max() <= 3
    raised = drawn(show_attributions(photo, {"map": halves(left=0.25) + 0.5}))
    assert np.abs(raised - pictures[0]).max() <= 3


@pytest.mark.parametrize(
    "convert",
    [
        lambda photo: photo / 255,
        lambda photo: photo[:, :, 0],
        lambda photo: torch.from_numpy(photo).permute(2, 0, 1),
        lambda photo: torch.from_numpy(photo / 255).permute(2, 0, 1)[None].float(),
        lambda photo: torch.from_numpy(photo[:, :, :1]).permute(2, 0, 1),
    ],
)
def test_forms_of_photo(photo, convert):
    expected = drawn(show_attributions(photo, {"map": halves(left=1.0)}))
    assert np.abs(drawn(show_attributions(convert(photo), {"map": halves(left=1.0)})) - expected).max() <= 2


def test_rows_and_methods(photo):
    maps = {str(i): torch.rand(3, 3, requires_grad=True) for i in range(4)}
    figure = show_attributions(photo, maps, columns=3, method="heat_map", cmap="inferno")
    tops = [round(axis.get_position().y0, 1) for axis in figure.axes]
    assert len(figure.axes) == 6
    assert len(set(tops)) == 2


def test_no_columns(photo):
    with pytest.raises(ValueError, match="columns=0: expects 1 or more"):
        show_attributions(photo, {}, columns=0)


@pytest.mark.parametrize(
    ("image", "attribution", "message"),
    [
        (np.zeros((2, 4, 4, 3)), torch.rand(4, 4), r"image: .* got shape \(2, 4, 4, 3\)"),
        (np.zeros((4, 4, 5)), torch.rand(4, 4), r"image: .* got shape \(4, 4, 5\)"),
        (torch.full((3, 8, 8), 300), torch.rand(4, 4), "image: values from 300 to 300"),
        (torch.randn(3, 8, 8), torch.rand(4, 4), "image: values from .* Undo the normalisation"),
        (np.full((4, 4, 3), np.nan), torch.rand(4, 4), "image: values from nan"),
        (np.zeros((4, 4, 3)), torch.rand(2, 1, 4, 4), r"attributions\['map'\]: .* got shape \(2, 1, 4, 4\)"),
        (np.zeros((4, 4, 3)), torch.rand(4), r"got shape \(4,\)"),
        (np.zeros((4, 4, 3)), torch.full((4, 4), torch.nan), "not finite"),
    ],
)
def test_bad_input(image, attribution, message):
    with pytest.raises(ValueError, match=message):
        show_attributions(image, {"map": attribution})


def test_notebooks_show_the_figure():
    figure = show_attributions(np.zeros((8, 8, 3), np.uint8), {"map": torch.rand(1, 1, 4, 4)})
    with Image.open(io.BytesIO(figure._repr_png_())) as shown:
        assert shown.size == tuple(int(side) for side in figure.get_size_inches() * figure.dpi)
