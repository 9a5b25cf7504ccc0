"""Refinement with the photo, against a loop over pixels in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captum_regioncam import refine, to_mask

OFFSETS = [(d * row, d * column) for d in (1, 2, 4, 8, 12, 24) for row in (-1, 0, 1) for column in (-1, 0, 1)]


def by_loops(maps, photo, iterations):
    """PAMR, pixel by pixel: (K, H, W) maps and an (H, W, C) photo, on one grid."""
    height, width = photo.shape[:2]
    photo, maps = photo.astype(np.float64), maps.astype(np.float64)
    weights = {}
    for y, x in np.ndindex(height, width):
        places = [
            (min(max(y + row, 0), height - 1), min(max(x + column, 0), width - 1), bool(row or column))
            for row, column in OFFSETS
        ]
        window = np.array([photo[place[:2]] for place in places])
        assert window.shape == (54, photo.shape[2])
        deviation = np.std(window, axis=0, ddof=1)
        neighbours = [place[:2] for place in places if place[2]]
        assert len(neighbours) == 48
        logits = np.array([np.mean(-abs(photo[n] - photo[y, x]) / (0.1 * deviation + 1e-8)) for n in neighbours])
        shares = np.exp(logits - logits.max())
        weights[y, x] = neighbours, shares / shares.sum()
    for _ in range(iterations):
        before, maps = maps, np.empty_like(maps)
        for (y, x), (neighbours, shares) in weights.items():
            maps[:, y, x] = sum(share * before[:, ny, nx] for (ny, nx), share in zip(neighbours, shares, strict=True))
    return maps


def two_halves(height=40, width=60, edge=30, noise=0.02):
    """A photo (3, H, W), dark on the left and bright on the right of an edge."""
    photo = torch.full((3, height, width), 0.2)
    photo[:, :, edge:] = 0.8
    return photo + noise * torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))


def resized(maps, size, **options):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, **options)


class Watch(TorchDispatchMode):
    """The shapes of all tensors that operations return."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.shapes += [tuple(tensor.shape) for tensor in tensors if tensor.dim()]
        return result


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("kind", ["random", "outlier", "flat"])
def test_equals_a_loop_over_pixels(kind, iterations):
    generator = np.random.default_rng(0)
    maps = generator.random((2, 12, 9))
    photo = generator.normal(size=(12, 9, 3))
    if kind == "outlier":  # one pixel unlike all others has weights down to exp(-73)
        photo[:] = 0.3
        photo[5, 4] = [1, 0, 0.9]
    elif kind == "flat":
        photo[2:9] = [0.1, 0.2, 0.3]
    expected = by_loops(maps, photo, iterations)
    assert abs(expected - maps).max() > 0.3
    refined = refine(maps, photo, iterations)
    assert refined.dtype == torch.float64
    assert np.allclose(refined, expected, rtol=0, atol=1e-12)
    single = refine(maps.astype(np.float32), photo, iterations)
    assert single.dtype == torch.float32
    assert np.allclose(single, expected, rtol=0, atol=1e-5)


def test_one_channel_is_a_photo_as_well():
    generator = np.random.default_rng(1)
    maps, photo = generator.random((2, 12, 9)), generator.random((12, 9))
    expected = by_loops(maps, photo[:, :, None], 2)
    for one in (photo, photo[:, :, None], torch.from_numpy(photo), torch.from_numpy(photo)[None]):
        assert np.allclose(refine(maps, one, 2), expected, rtol=0, atol=1e-12)
    assert np.allclose(refine(maps, np.stack([photo] * 3, axis=2), 2), expected, rtol=0, atol=1e-12)


def test_a_flat_photo_makes_plain_averages():
    maps = torch.rand(1, 1, 30, 40, dtype=torch.float64)
    padded = F.pad(maps, [24] * 4, mode="replicate")
    expected = sum(
        padded[..., 24 + row : 54 + row, 24 + column : 64 + column] for row, column in OFFSETS if row or column
    )
    for photo in (torch.full((3, 30, 40), 0.7), np.zeros((30, 40, 3), np.uint8), np.full((30, 40), 1e9)):
        assert torch.allclose(refine(maps, photo, 1), expected / 48, rtol=0, atol=1e-12)
    # Shrinking leaves no noise in a flat photo, which the weights would follow.
    large = torch.full((3, 333, 500), 0.7)
    grid = torch.zeros(3, 213, 320)
    assert torch.equal(refine(maps.float(), large), resized(refine(maps.float(), grid), (333, 500)))


def test_an_edge_of_the_map_moves_to_the_photo_s():
    photo = two_halves()
    truth = torch.zeros(40, 60, dtype=torch.bool)
    truth[:, 30:] = True
    for start in (24, 36):  # six pixels before the photo's edge, and six behind it
        attribution = torch.zeros(1, 1, 40, 60)
        attribution[..., start:] = 1

        def iou(maps):
            mask = to_mask(maps, 0.5)[0, 0]
            return float((mask & truth).sum() / (mask | truth).sum())

        assert iou(attribution) == pytest.approx(30 / 36 if start == 24 else 24 / 30)
        assert iou(refine(attribution, photo)) > 0.99
        assert iou(refine(attribution, torch.zeros(3, 40, 60))) < 0.85  # not by smoothing alone


@pytest.mark.parametrize("size", [(40, 60), (400, 600)])
def test_a_shift_and_a_scale_of_each_channel_change_nothing(size):
    photo = resized(two_halves()[None].double(), size)[0] + 0.1 * torch.rand(3, *size, dtype=torch.float64)
    maps = torch.rand(2, 20, 30, dtype=torch.float64)
    expected = refine(maps, photo)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (photo - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(refine(maps, normalised), expected, rtol=0, atol=1e-5)
    assert torch.allclose(refine(maps, 255 * photo), expected, rtol=0, atol=1e-5)
    assert torch.allclose(refine(maps, 100 - photo), expected, rtol=0, atol=1e-9)
    assert torch.allclose(refine(maps.float(), normalised.float()), expected.float(), rtol=0, atol=1e-4)
    assert not torch.allclose(refine(maps, photo.flip(2)), expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("size", [(50, 70), (375, 500)])
def test_photos_of_all_kinds_are_equal(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    maps = torch.rand(1, 2, 14, 14)
    expected = refine(maps, pixels)
    assert expected.shape == (1, 2, *size)
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    for same in (Image.fromarray(pixels), channels_first, channels_first[None], channels_first.float()):
        assert torch.equal(refine(maps, same), expected)
    for in_float in (pixels / 255, channels_first / 255, (channels_first / 255)[None]):
        assert torch.allclose(refine(maps, in_float), expected, rtol=0, atol=1e-4)
    mirrored = pixels[:, ::-1]
    mirrored.flags.writeable = False
    assert torch.allclose(refine(maps.flip(3), mirrored).flip(3), expected, rtol=0, atol=1e-4)


def test_pil_images_of_other_modes():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    maps = torch.rand(1, 1, 10, 15)
    expected = refine(maps, pixels)
    deep = Image.fromarray(pixels.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    grey = Image.fromarray(pixels)
    palette = grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    palette.info["transparency"] = bytes(256)
    for image in (grey, grey.convert("RGBA"), grey.convert("LA"), deep, grey.convert("I"), grey.convert("F"), palette):
        assert torch.allclose(refine(maps, image), expected, rtol=0, atol=1e-5), image.mode


def test_a_batch_equals_one_by_one():
    photos, maps = torch.rand(3, 3, 40, 30), torch.rand(3, 2, 20, 20)
    refined = refine(maps, photos)
    assert refined.shape == (3, 2, 40, 30)
    for one, photo, its_maps in zip(refined, photos, maps, strict=True):
        assert torch.equal(one, refine(its_maps, photo))
        assert torch.equal(one, refine(its_maps[None], photo[None])[0])
        for k in range(2):
            assert torch.equal(one[k], refine(its_maps[k], photo))
    # One photo serves any leading dimensions.
    many = torch.rand(2, 3, 4, 20, 20)
    refined = refine(many, photos[0])
    assert refined.shape == (2, 3, 4, 40, 30)
    assert torch.allclose(refined[1, 2], refine(many[1, 2], photos[:1]), rtol=0, atol=1e-6)


def test_maps_stay_in_their_range():
    photo = two_halves()
    maps = torch.rand(4, 40, 60) * torch.tensor([1.0, 1e-3, 1e4, 0.0])[:, None, None]
    maps[3] = 0.1  # a constant map stays what it is, without rounding
    maps[0] -= 0.5
    for iterations in (0, 1, 10):
        refined = refine(maps, photo, iterations)
        assert (refined.amin((1, 2)) >= maps.amin((1, 2))).all()
        assert (refined.amax((1, 2)) <= maps.amax((1, 2))).all()
        assert (refined[3] == torch.tensor(0.1)).all()
    smooth = refine(maps, torch.zeros(3, 40, 60))
    assert maps[0].amax() > 0.499
    assert -0.2 < smooth[0].amin() < smooth[0].amax() < 0.2  # maps are not stretched onto the range


def test_dtypes_and_layouts_of_maps():
    photo, maps = two_halves(), torch.rand(1, 3, 20, 30)
    expected = refine(maps, photo)
    for half in (torch.float16, torch.bfloat16):
        refined = refine(maps.to(half), photo)
        assert refined.dtype == half
        assert torch.equal(refined, refine(maps.to(half).float(), photo).to(half))
        assert torch.equal(refine(maps, photo.to(half)), refine(maps, photo.to(half).float()))
    assert torch.equal(refine(maps.to(memory_format=torch.channels_last), photo), expected)
    assert torch.equal(refine(maps.mT.contiguous().mT, photo.mT.contiguous().mT), expected)
    assert torch.equal(refine(maps[..., ::2], photo), refine(maps[..., ::2].clone(), photo))
    assert torch.equal(refine(maps.numpy()[..., ::-1], photo), refine(maps.flip(3), photo))
    levels = torch.arange(600).view(20, 30) % 7
    assert refine(levels, photo).dtype == torch.float32
    assert torch.equal(refine(levels, photo), refine(levels.float(), photo))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(refine(maps, photo), expected)


def test_results_are_detached_copies_and_inputs_stay():
    photo, maps = two_halves().requires_grad_(), torch.rand(1, 1, 40, 60, requires_grad=True)
    before = maps.detach().clone(), photo.detach().clone()
    state = torch.get_rng_state()
    for iterations in (0, 1):
        refined = refine(maps, photo, iterations)
        assert not refined.requires_grad
        refined.zero_()
    assert torch.equal(maps, before[0])
    assert torch.equal(photo, before[1])
    assert torch.equal(torch.get_rng_state(), state)
    with torch.inference_mode():
        inside = refine(maps, photo)
    assert torch.equal(inside, refine(maps, photo))


def test_no_iteration_only_resizes():
    maps = torch.rand(2, 1, 30, 50)
    large, wide = torch.rand(3, 600, 500), torch.rand(3, 10, 80)
    assert torch.equal(refine(maps, large, 0), resized(maps, (600, 500)))
    assert torch.equal(refine(maps, wide, 0), resized(maps, (10, 80), antialias=True))
    assert torch.equal(refine(maps, torch.rand(3, 30, 50), 0), maps)


@pytest.mark.parametrize(
    ("size", "grid"), [((500, 375), (320, 240)), ((321, 100), (320, 100)), ((4, 2000), (1, 320)), ((320, 90), None)]
)
def test_large_photos_are_worked_on_a_grid_of_at_most_320(size, grid):
    photo, maps = torch.rand(3, *size, dtype=torch.float64), torch.rand(1, 2, 28, 28, dtype=torch.float64)
    with Watch() as watch:
        refined = refine(maps, photo, 2)
    if grid:
        shrunk = resized(photo[None], grid, antialias=True)[0]
        expected = resized(refine(maps, shrunk, 2), size)
        assert torch.allclose(refined, expected, rtol=0, atol=1e-9)
    assert {shape for shape in watch.shapes if shape[0] == 48} == {(48, *(grid or size))}  # the weights


def test_maps_larger_than_the_grid_are_averaged():
    photo, maps = two_halves(), torch.rand(1, 1, 200, 300)
    expected = refine(resized(maps, (40, 60), antialias=True), photo)
    assert torch.allclose(refine(maps, photo), expected, rtol=0, atol=1e-6)


def test_neighbours_are_never_stacked():
    photo, maps = torch.rand(3, 90, 120), torch.rand(1, 5, 30, 40)
    with Watch() as watch:
        refine(maps, photo, 2)
    assert len(watch.shapes) > 48 * 4
    # The largest are the weights. The photo's 48 neighbours would be three times as large, and the maps' five times.
    assert max(watch.shapes, key=math.prod) == (48, 90, 120)


@pytest.mark.parametrize("iterations", [-1, 2.5, 2.0, "10", None, float("nan"), np.array([1, 2]), torch.ones(2)])
def test_iterations_are_a_whole_number(iterations):
    with pytest.raises(ValueError, match=r"^iterations=.*: expects a whole number, 0 or more"):
        refine(torch.rand(4, 4), torch.rand(3, 8, 8), iterations)


def test_whole_numbers_of_other_types():
    maps, photo = torch.rand(4, 4), torch.rand(3, 8, 8)
    for two in (np.int64(2), torch.tensor(2)):
        assert torch.equal(refine(maps, photo, two), refine(maps, photo, 2))


@pytest.mark.parametrize(
    ("attribution", "message"),
    [
        (torch.rand(4), r"expects \(..., h, w\) maps of real numbers; got shape \(4,\), torch.float32"),
        (torch.rand(1, 0, 4, 4), r"expects \(..., h, w\) maps of real numbers; got shape \(1, 0, 4, 4\)"),
        (torch.rand(4, 4, dtype=torch.complex64), "expects .* maps of real numbers; got .* torch.complex64"),
        (torch.full((4, 4), torch.nan), "the maps are not finite"),
        (np.full((4, 4), np.inf), "the maps are not finite"),
    ],
)
def test_bad_maps(attribution, message):
    with pytest.raises(ValueError, match=f"^attribution: {message}"):
        refine(attribution, torch.rand(3, 8, 8))


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (torch.rand(8), r"expects .* got shape \(8,\), torch.float32. Signals and volumes cannot be refined"),
        (torch.rand(1, 3, 8, 8, 8), r"expects .* got shape \(1, 3, 8, 8, 8\)"),
        (torch.rand(2, 4, 100), r"expects .* got shape \(2, 4, 100\)"),  # two signals of four channels
        (torch.rand(8, 8, 3), r"expects a \(3, H, W\) or .* got shape \(8, 8, 3\)"),
        (torch.rand(2, 8, 8, 3), r"expects a \(3, H, W\) or .* got shape \(2, 8, 8, 3\)"),
        (np.zeros((3, 8, 8)), r"expects .* or an \(H, W, 3\) or \(H, W\) array; got shape \(3, 8, 8\)"),
        (np.zeros((2, 8, 8, 3)), r"expects a \(3, H, W\) or \(N, 3, H, W\) tensor, .* got shape \(2, 8, 8, 3\)"),
        (torch.rand(3, 0, 8), r"expects .* got shape \(3, 0, 8\)"),
        (torch.rand(3, 8, 8, dtype=torch.complex64), "expects .* torch.complex64"),
        (torch.full((3, 8, 8), torch.nan), "values from nan to nan; expects finite ones"),
        (torch.tensor([0.0, -torch.inf]).expand(3, 8, 2), "values from -inf to 0; expects finite ones"),
        (np.full((8, 8), 1e30), r"values from 1e\+30 to 1e\+30; expects finite ones, below 1e16"),
    ],
)
def test_bad_photos(photo, message):
    with pytest.raises(ValueError, match=f"^photo: {message}"):
        refine(torch.rand(1, 1, 4, 4), photo)


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4), (2, 1, 4, 4), (4, 1, 4, 4), (3, 1, 2, 4, 4), (1, 3, 4, 4)])
def test_several_photos_need_as_many_maps(shape):
    with pytest.raises(ValueError, match=r"^attribution: expects the \(N, K, h, w\) maps of the 3 photos; got shape"):
        refine(torch.rand(shape), torch.rand(3, 3, 8, 8))


def test_large_pixels_do_not_overflow():
    photo = two_halves()
    expected = refine(torch.eye(40), photo.double())
    assert torch.allclose(refine(torch.eye(40), 9e15 * photo), expected, rtol=0, atol=1e-4)
