import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from captum.attr import visualization as viz
from captum.attr._utils.visualization import _normalize_attr
from PIL import Image

from captum_regioncam import cut_out, overlay, pictures, show_attributions, to_hwc


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
    assert [axis.get_title() for axis in figure.axes] == ["grey", "left", "right", ""]  # and the colour bar
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
    assert len(figure.axes) == 6  # five panels and the colour bar
    assert len(set(tops)) == 2


@pytest.mark.parametrize("columns", [0, 2.5])
def test_no_columns(photo, columns):
    with pytest.raises(ValueError, match=f"columns={columns}: expects 1 or more"):
        show_attributions(photo, {}, columns=columns)


def places(figure):
    """The row and the column of each panel, from the top left."""
    corners = [(-round(box.y1, 3), round(box.x0, 3)) for box in (axis.get_position() for axis in figure.axes[:-1])]
    tops, lefts = (sorted(set(values)) for values in zip(*corners, strict=True))
    return [(tops.index(top), lefts.index(left)) for top, left in corners]


def test_columns_of_a_batch_and_of_a_row_for_each_class(photo):
    maps = {str(index): torch.rand(2, 3, 3) for index in range(3)}
    rows = {key: {title: one[0] for title, one in maps.items()} for key in ("cat", "dog")}
    by_two = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    in_full = [(row, column) for row in range(2) for column in range(4)]
    for image, given in (([photo, photo], maps), (photo, rows)):
        assert places(show_attributions(image, given, columns=2)) == by_two
        assert places(show_attributions(image, given)) == in_full
    many = {str(index): torch.rand(2, 3, 3) for index in range(8)}
    assert places(show_attributions([photo, photo], many))[8:10] == [(0, 8), (1, 0)]


@pytest.mark.parametrize("odd_first", [True, False])
def test_maps_and_mappings_of_maps_do_not_mix(photo, odd_first):
    mixture = {"Grad-CAM": torch.rand(3, 3), "cat": {"Region-CAM": torch.rand(3, 3)}}
    given = dict(mixture.items() if odd_first else reversed(mixture.items()))
    with pytest.raises(ValueError, match=r"attributions\['Grad-CAM'\]: expects a mapping of maps.*got a torch.float32"):
        show_attributions(photo, given)


def test_large_photos_are_drawn_from_averages(photo):
    large = np.full((3200, 3200, 3), (10, 100, 200), np.uint8)
    large[:, ::2] += 20  # every second column
    figure = show_attributions(large, {"map": halves(left=1.0)})
    seen = figure.axes[0].images[0].get_array()
    assert seen.shape == (1600, 1600, 3)
    assert (seen == [20, 110, 210]).all()
    assert {image.get_array().shape[:2] for image in figure.axes[1].images} == {(1600, 1600)}
    small = show_attributions(photo, {"map": halves(left=1.0)})
    assert np.array_equal(small.axes[0].images[0].get_array(), photo)


def test_a_photo_that_is_all_height():
    with pytest.raises(
        ValueError, match=r"image: 2 x 41 pixels are 20\.5 times as tall as wide; at most 20 times are possible"
    ):
        show_attributions(np.zeros((41, 2, 3), np.uint8), {"map": torch.rand(4, 4)})
    assert len(show_attributions(np.zeros((40, 2, 3), np.uint8), {"map": torch.rand(4, 4)}).axes) == 3
    assert len(show_attributions(np.zeros((2, 4000, 3), np.uint8), {"map": torch.rand(4, 4)}).axes) == 3


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


def test_a_row_for_each_class_with_its_probability(photo):
    row = {"Grad-CAM": halves(left=1.0), "Region-CAM": 1 - halves(left=1.0)}
    rows = {"tabby": row, "beagle": row, "lynx": row}
    figure = show_attributions(photo, rows, probabilities={"tabby": 0.934, "beagle": 0.0042, "lynx": 1e-6})
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[::3][:3] == [
        "tabby\n93.4%",
        "beagle\n0.4%: not seen by the network",
        "lynx\nbelow 0.1%: not seen by the network",
    ]
    assert titles[1:3] == titles[4:6] == ["Grad-CAM", "Region-CAM"]
    boxes = [axis.get_position() for axis in figure.axes[:9]]
    assert len({round(box.y0, 3) for box in boxes}) == 3
    for place in range(3):
        assert len({round(box.x0, 3) for box in boxes[place::3]}) == 1
    for maps in (panel(figure, 1), panel(figure, 4)):
        assert (maps[:, : maps.shape[1] // 3, 0] - maps[:, : maps.shape[1] // 3, 2]).mean() > 40
    for wrong in ({"cat": 0.5}, {"tabby": 50}):
        with pytest.raises(ValueError, match=r"probabilities\['(cat|tabby)'\]=.*: expects a title of attributions"):
            show_attributions(photo, rows, probabilities=wrong)


def test_a_batch_has_a_row_for_each_photo(photo):
    maps = torch.cat([halves(left=1.0), 1 - halves(left=1.0)])
    dark = photo // 2
    figure = show_attributions([photo, dark], {"map": maps, "again": maps[:, 0]})
    assert [axis.get_title() for axis in figure.axes] == ["photo 1", "map", "again", "photo 2", "map", "again", ""]
    assert np.allclose(panel(figure, 0), 128, atol=1)
    assert np.allclose(panel(figure, 3), 64, atol=1)
    third = panel(figure, 1).shape[1] // 3
    for index, hot in ((1, slice(0, third)), (4, slice(-third, None))):
        assert (panel(figure, index)[:, hot, 0] - panel(figure, index)[:, hot, 2]).mean() > 40
    named = show_attributions([photo, dark], {"map": maps}, image_title=["light", "dark"])
    assert [axis.get_title() for axis in named.axes] == ["light", "map", "dark", "map", ""]
    with pytest.raises(ValueError, match="image_title: got 1 titles for 2 photos"):
        show_attributions([photo, dark], {"map": maps}, image_title=["light"])
    tensor = torch.from_numpy(np.stack([photo, dark])).permute(0, 3, 1, 2)
    assert len(show_attributions(tensor, {"map": maps}).axes) == 5
    for wrong in (maps[:1], maps[0, 0]):
        with pytest.raises(ValueError, match=r"attributions\['map'\]: expects a map for each of the 2 photos"):
            show_attributions([photo, dark], {"map": wrong})
    with pytest.raises(ValueError, match="mappings of mappings are for one photo"):
        show_attributions([photo, dark], {"cat": {"map": maps}})
    with pytest.raises(ValueError, match="got an empty list"):
        show_attributions([], {"map": maps})


@pytest.mark.parametrize(("maps", "columns", "rows"), [(1, 2, 1), (4, 5, 1), (5, 3, 2), (8, 3, 3), (12, 5, 3)])
def test_panels_fill_the_figure(photo, maps, columns, rows):
    figure = show_attributions(photo, {f"map {index}": torch.rand(3, 3) for index in range(maps)})
    boxes = [axis.get_position() for axis in figure.axes[:-1]]
    assert len({round(box.x0, 3) for box in boxes}) == columns
    assert len({round(box.y0, 3) for box in boxes}) == rows
    width, height = figure.get_size_inches()
    for box in boxes:  # no white band: a panel has the photo's own proportions, and all the room
        assert box.width * width == pytest.approx(3.2, abs=1e-6)
        assert box.height * height == pytest.approx(3.2 * 40 / 60, abs=1e-6)
    assert height == pytest.approx(rows * (0.2 + 0.1 + 3.2 * 40 / 60) + 0.1, abs=1e-6)


def test_overlay_by_hand():
    photo = np.full((2, 4, 3), (100, 50, 200), np.uint8)
    attribution = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    picture = overlay(photo, attribution, cmap="gray", outlier_perc=0)
    assert picture.dtype == np.uint8
    assert picture[0].tolist() == [[50, 25, 100]] * 2 + [[178, 152, 228]] * 2
    assert np.array_equal(overlay(photo, attribution, alpha=0), photo)
    assert overlay(photo, torch.zeros(1, 1, 2, 2), cmap="gray").tolist() == (photo // 2).tolist()
    large = overlay(np.zeros((30, 50), np.uint8), torch.rand(1, 1, 4, 5), outlier_perc=2)
    assert large.shape == (30, 50, 3)
    with pytest.raises(ValueError, match="alpha=2: expects a number from 0 to 1"):
        overlay(photo, attribution, alpha=2)
    with pytest.raises(ValueError, match=r"image: overlay takes one photo, got 2; call it for each photo and its map"):
        overlay([photo, photo], attribution)
    with pytest.raises(ValueError, match=r"attribution: expects one map.*got shape \(2, 1, 4, 4\)"):
        overlay(photo, torch.rand(2, 1, 4, 4))


def test_cut_out_by_hand():
    photo = np.array([[[100, 50, 200], [10, 20, 30]], [[255, 255, 255], [0, 0, 0]]], np.uint8)
    mask = torch.tensor([[True, False], [False, False]])
    # 0.299 * 10 + 0.587 * 20 + 0.114 * 30 = 18.15, and (255 - 18.15) * 0.7 more
    assert cut_out(photo, mask).tolist() == [[[100, 50, 200], [184] * 3], [[255] * 3, [178] * 3]]
    assert cut_out(photo, mask.numpy(), lightness=0)[0].tolist() == [[100, 50, 200], [18] * 3]
    assert (cut_out(photo, ~mask[None, None], lightness=1)[0, 0] == 255).all()
    assert np.array_equal(cut_out(torch.from_numpy(photo).permute(2, 0, 1), torch.ones(2, 2) > 0), photo)
    with pytest.raises(
        ValueError, match=r"mask: expects one bool mask of the photo's size, \(2, 2\); got shape \(2, 3\)"
    ):
        cut_out(photo, torch.ones(2, 3) > 0)
    with pytest.raises(ValueError, match=r"got shape \(2, 2\), torch.float32. Pass size= to to_mask"):
        cut_out(photo, torch.ones(2, 2))
    with pytest.raises(ValueError, match="lightness=2: expects a number from 0 to 1"):
        cut_out(photo, mask, lightness=2)
    with pytest.raises(ValueError, match="image: cut_out takes one photo, got 2; call it for each photo and its mask"):
        cut_out([photo, photo], mask)


@pytest.mark.parametrize("kind", ["uint8", "float", "tensor", "grey"])
def test_overlay_in_blocks_of_rows_is_the_whole(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 1000, 3), dtype=np.uint8)  # more than one block
    pixels = pixels[:, :, :1].repeat(3, axis=2) if kind == "grey" else pixels
    photo = {
        "uint8": pixels, "float": pixels / 255, "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
        "grey": pixels[:, :, 0],
    }[kind]  # fmt: skip
    attribution = torch.randn(1, 1, 7, 9)
    upsampled = torch.nn.functional.interpolate(attribution, pixels.shape[:2], mode="bilinear").clamp_min(0)
    values = _normalize_attr((upsampled / upsampled.max())[0, 0].numpy(), "positive", 2)
    expected = (0.5 * pixels + 0.5 * 255 * plt.get_cmap("jet")(values)[:, :, :3]).round().astype(np.uint8)
    assert np.array_equal(overlay(photo, attribution), expected)


def test_overlay_of_a_large_photo_reads_its_colour_scale_from_a_sample(monkeypatch):
    photo, attribution = np.zeros((300, 400, 3), np.uint8), torch.rand(1, 1, 7, 9)
    whole = overlay(photo, attribution)
    monkeypatch.setattr(pictures, "_SORTED", 10_000)
    assert np.abs(overlay(photo, attribution).astype(int) - whole).max() <= 6
    point = torch.zeros(300, 400)
    point[1, 1] = 1  # that no sample sees
    assert overlay(photo, point)[1, 1].tolist() == [64, 0, 0]  # half of jet's end, dark red


def test_to_hwc_is_what_captum_takes(photo):
    attribution = torch.rand(1, 2, 4, 6, requires_grad=True)
    hwc = to_hwc(attribution, (40, 60))
    expected = torch.nn.functional.interpolate(attribution, (40, 60), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(hwc, expected[0].permute(1, 2, 0).detach(), atol=1e-6)
    viz.visualize_image_attr(to_hwc(attribution[:, :1], (40, 60)), photo, "heat_map", "positive", use_pyplot=False)
    assert to_hwc(attribution[0, 0], (8, 9)).shape == (8, 9, 1)
    for wrong in (torch.rand(2, 1, 4, 4), torch.rand(4)):
        with pytest.raises(ValueError, match=r"attribution: expects \(h, w\), \(C, h, w\) or \(1, C, h, w\)"):
            to_hwc(wrong, (8, 8))


@pytest.mark.parametrize("size", [224, (224,), (8, 0), (8, 8.5), (1, 8, 8), "ab", None])
def test_to_hwc_says_what_a_size_is(size):
    with pytest.raises(ValueError, match=r"^size=.*: expects \(height, width\), two whole numbers above 0"):
        to_hwc(torch.rand(1, 1, 4, 4), size)


@pytest.mark.parametrize(("height", "width"), [(7, 10), (33, 57), (100, 1)])
def test_averages_of_blocks_that_do_not_divide_the_photo(height, width):
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smaller = pictures.shrunk(photo, 24)
    rows, columns = (
        np.linspace(0, side, count + 1).round().astype(int)
        for side, count in zip(photo.shape[:2], smaller.shape, strict=False)
    )
    for i, j in np.ndindex(*smaller.shape[:2]):
        block = photo[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
        assert np.abs(block.mean((0, 1)) - smaller[i, j]).max() <= 0.5
    assert 12 <= smaller.shape[0] * smaller.shape[1] <= 50


def test_layers_without_names_are_numbered():
    photo, maps = np.zeros((8, 8, 3), np.uint8), {0: torch.rand(1, 1, 4, 4), 1: torch.rand(1, 1, 2, 2)}
    for attributions, titles in ((maps, ["photo", "0", "1"]), ({"cat": maps}, ["cat", "0", "1"])):
        figure = show_attributions(photo, attributions)
        assert [axes.get_title() for axes in figure.axes if axes.get_title()] == titles
