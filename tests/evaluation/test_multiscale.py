import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, Saliency
from helpers import GapNet, small_net
from PIL import Image

from captum_regioncam import LayerCam, LayerRegionCam
from captum_regioncam.evaluation import multiscale_maps, normalize


def preprocess(image):
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)[None] / 255


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))


@pytest.fixture
def cam():
    model = GapNet().eval()
    return LayerRegionCam(model, [model.conv, model.relu])


def at_size(photo, size, flip):
    x = preprocess(photo.resize(size, Image.Resampling.BICUBIC) if size != photo.size else photo)
    return x.flip(-1) if flip else x


def resize(maps, flip, size=(30, 40)):
    return F.interpolate(maps.flip(-1) if flip else maps, size, mode="bilinear", align_corners=False)


def test_sum_over_scales_and_flips(photo, cam):
    layer_cam = LayerCam(cam.forward_func, cam.layer)
    total = torch.zeros(2, 30, 40)
    for size in ((40, 30), (20, 15), (60, 45)):
        for flip in (False, True):
            total += resize(layer_cam.attribute_targets(at_size(photo, size, flip), [1, 3]), flip)[0]
    [maps] = multiscale_maps(layer_cam, photo, [1, 3], preprocess, scales=(1, 0.5, 1.5), sizes=[(30, 40)])
    torch.testing.assert_close(maps, total)


@pytest.mark.parametrize(
    ("sizes", "scales", "asked"),
    [
        (((40, 30), (20, 15), (60, 45)), (1, 0.5, 1.5), ((40, 30), (20, 15))),
        (((60, 45), (80, 60)), (2, 1.5), ((60, 45),)),
        (((40, 30), (40, 30), (20, 15)), (1, 0.5, 1), ((40, 30), (20, 15))),
    ],
)
def test_region_cam_asks_at_scales_up_to_one_and_propagates_at_all(photo, cam, sizes, scales, asked):
    def of_scale(size):
        plain, mirrored = (cam.semantics(at_size(photo, size, flip), [1, 3]) for flip in (False, True))
        return (plain + mirrored.flip(-1)) / 2

    semantics = [of_scale(size) for size in asked]
    product = torch.stack([resize(one, False, semantics[0].shape[2:]) for one in semantics]).prod(0)
    total = torch.zeros(2, 30, 40)
    for size in sizes:
        for flip in (False, True):
            spread = cam.propagate(at_size(photo, size, flip), product.flip(-1) if flip else product)
            total += resize(spread, flip)[0]
    expected = (total / total.amax((1, 2), keepdim=True)) ** 4
    [maps] = multiscale_maps(cam, photo, [1, 3], preprocess, scales=scales, sizes=[(30, 40)])
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(normalize(maps), maps, atol=2e-5, rtol=0)  # divided again: nothing changes


def test_region_cam_runs_backward_at_small_scales_only(photo, cam):
    passes = []
    cam.forward_func.conv.register_forward_hook(lambda *call: passes.append(("forward", tuple(call[2].shape[2:]))))
    cam.forward_func.relu.register_full_backward_hook(lambda *call: passes.append(("backward", call[2][0].shape[2:])))
    cam = LayerRegionCam(cam.forward_func, cam.forward_func.conv)
    multiscale_maps(cam, photo, [0, 2], preprocess, scales=(1, 0.5, 2))
    assert [size for what, size in passes if what == "forward"] == [(30, 40), (15, 20), (60, 80)]
    assert [tuple(size) for what, size in passes if what == "backward"] == [(30, 40)] * 2 + [(15, 20)] * 2


@pytest.mark.filterwarnings("ignore:The maps of examples")
def test_a_scale_that_says_nothing_is_left_out(photo, cam):
    """Of a class that has no gradient at the small scale, and of one that has none at all."""

    def forward(x):
        scores = cam.forward_func(x)
        silent = torch.zeros_like(scores[:, 0]) * scores[:, 0]
        return torch.stack([scores[:, 0] if x.shape[-1] == 40 else silent, scores[:, 1], silent], 1)

    partly = LayerRegionCam(forward, cam.layer)
    sizes = {"scales": (1, 0.5), "sizes": [(30, 40)], "flip": False}
    [maps] = multiscale_maps(partly, photo, [0, 1, 2], preprocess, **sizes)
    [told] = multiscale_maps(cam, photo, [1], preprocess, **sizes)
    torch.testing.assert_close(maps[1:2], told)
    assert not maps[2].any()
    semantics = cam.semantics(preprocess(photo), [0])
    spread = [resize(cam.propagate(at_size(photo, size, False), semantics), False)[0] for size in ((40, 30), (20, 15))]
    total = sum(spread)
    torch.testing.assert_close(maps[:1], (total / total.amax()) ** 4)


def test_one_scale_is_the_attribution(photo, cam):
    [maps] = multiscale_maps(cam, photo, [2], preprocess, scales=[1], flip=False)
    torch.testing.assert_close(maps, cam.attribute(preprocess(photo), 2)[0])


def test_the_order_of_scales_changes_nothing(photo, cam):
    one, other = (
        multiscale_maps(cam, photo, [2], preprocess, scales=scales)[0] for scales in ((0.5, 1, 2), (2, 1, 0.5))
    )
    assert one.shape == (1, 30, 40)
    torch.testing.assert_close(one, other)


def test_scales_of_equal_size_are_one_batch(photo):
    model = GapNet().eval()
    calls = []
    model.register_forward_hook(lambda module, args, output: calls.append(args[0].shape))
    cam = LayerRegionCam(model, model.relu)
    [maps] = multiscale_maps(cam, photo, [1], preprocess, scales=(1, 0.5, 0.51), input_size=(8, 6), sizes=[(6, 8)])
    assert calls == [(2, 3, 6, 8), (2, 3, 3, 4)]
    cam = LayerCam(model, model.relu)
    [maps] = multiscale_maps(cam, photo, [1], preprocess, scales=(1, 0.5, 0.51), input_size=(8, 6), sizes=[(6, 8)])
    [apart] = multiscale_maps(cam, photo, [1], preprocess, scales=(1, 0.5), input_size=(8, 6), sizes=[(6, 8)])
    [half] = multiscale_maps(cam, photo, [1], preprocess, scales=(0.5,), input_size=(8, 6), sizes=[(6, 8)])
    torch.testing.assert_close(maps, apart + half)


def test_captum_attributions_and_functions(photo):
    model, x = small_net(size=8)
    small = {"scales": [1], "flip": False, "input_size": (8, 8)}
    [maps] = multiscale_maps(LayerGradCam(model, model.relu3), photo, [0, 4], preprocess, **small)
    x = preprocess(photo.resize((8, 8), Image.Resampling.BICUBIC))
    expected = [LayerGradCam(model, model.relu3).attribute(x, t, relu_attributions=True)[0, 0] for t in (0, 4)]
    torch.testing.assert_close(maps, torch.stack(expected))
    [maps] = multiscale_maps(Saliency(model), photo, [1], preprocess, **small)
    torch.testing.assert_close(maps, Saliency(model).attribute(x.requires_grad_(), target=1).sum(1))
    [maps] = multiscale_maps(lambda x, targets: -x[:, :2], photo, [0, 1], preprocess, **small)
    assert torch.equal(maps, torch.zeros(2, 8, 8))


def test_sizes_are_each_resized_from_the_maps(photo, cam):
    strided, full = multiscale_maps(cam, photo, [1], preprocess, sizes=[(8, 10), (30, 40)])
    assert (strided.shape, full.shape) == ((1, 8, 10), (1, 30, 40))
    assert not torch.allclose(strided, F.interpolate(full[None], (8, 10), mode="bilinear")[0])


def test_normalize():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(normalize(maps)[0], maps[0] / (5 + 1e-5))
    torch.testing.assert_close(normalize(maps, "minmax")[0], (maps[0] - 1) / 4)
    assert not normalize(maps)[1].any()
    assert not normalize(maps, "minmax")[1].any()
    with pytest.raises(ValueError, match=r"how='mean'"):
        normalize(maps, "mean")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scales": []}, r"scales=\[\]"),
        ({"scales": [1, 0]}, r"scales=\[1, 0\]"),
        ({"targets": []}, "targets: expects"),
        ({"input_size": 224}, r"input_size=224: expects \(width, height\), two whole numbers"),
        ({"input_size": (8, 0)}, r"input_size=\(8, 0\): expects"),
        ({"sizes": 30}, r"sizes=30: expects a list of \(height, width\)"),
        ({"sizes": (30, 40)}, r"sizes=30: expects a list of \(height, width\)"),
    ],
)
def test_wrong_arguments(photo, cam, options, says):
    with pytest.raises(ValueError, match=says):
        multiscale_maps(cam, photo, preprocess=preprocess, **{"targets": [1], **options})


def test_attribution_that_gives_no_maps(photo):
    with pytest.raises(ValueError, match=r"^attribution gives str; expects \(N, C, height, width\)"):
        multiscale_maps(lambda x, targets: "maps", photo, [1], preprocess)
