import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, Saliency
from helpers import GapNet, small_net
from PIL import Image

from captum_regioncam import LayerRegionCam
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


def test_sum_over_scales_and_flips(photo, cam):
    total = torch.zeros(2, 30, 40)
    for size in ((40, 30), (20, 15), (60, 45)):
        x = preprocess(photo.resize(size, Image.Resampling.BICUBIC) if size != (40, 30) else photo)
        for flip in (False, True):
            maps = cam.attribute_targets(x.flip(-1) if flip else x, [1, 3])
            maps = F.interpolate(maps.flip(-1) if flip else maps, (30, 40), mode="bilinear", align_corners=False)
            total += maps[0]
    [maps] = multiscale_maps(cam, photo, [1, 3], preprocess, scales=(1, 0.5, 1.5), sizes=[(30, 40)])
    torch.testing.assert_close(maps, total)


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
