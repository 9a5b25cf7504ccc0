"""Seeds and their mIoU against IRN's own steps (Ahn et al., CVPR 2019), on photos of odd sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import VOC_MODEL, run, scores_in
from made_datasets import ColourNet, make_voc, shapes
from PIL import Image

SIZES = [(61, 47), (53, 50), (64, 48), (75, 33), (50, 64), (97, 41)]  # width, height; the third are multiples of 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def voc(colour_factory):
    """VOC with photos of odd sizes, in the working directory, and a network of 20 classes."""
    names = [f"photo_{index}" for index in range(len(SIZES))]
    home = make_voc(Path("data").absolute(), names)
    for index, (name, (width, height)) in enumerate(zip(names, SIZES, strict=True)):
        photo, labels, _ = shapes(index, width, height)
        Image.fromarray(photo).save(home / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)
        mask = Image.fromarray(labels)
        mask.putpalette(list(range(256)) * 3)
        mask.save(home / "SegmentationClass" / f"{name}.png")
    return home, names


def irn_make_cam(network, photo, keys):
    """The steps of IRN's make_cam.py and of the network's forward, for the labelled classes alone."""
    width, height = photo.size
    outputs = []
    for scale in (1.0, 0.5, 1.5, 2.0):
        size = (int(np.round(width * scale)), int(np.round(height * scale)))
        pixels = np.asarray(photo.resize(size, Image.Resampling.BICUBIC) if scale != 1 else photo) / 255.0
        x = torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1).float()
        pair = torch.stack([x, x.flip(-1)])
        features = network.relu2(network.conv2(network.relu1(network.conv1(pair))))
        maps = F.relu(F.conv2d(features, network.fc.weight[:, :, None, None]))
        outputs.append(maps[0] + maps[1].flip(-1))
    quarter = ((height - 1) // 4 + 1, (width - 1) // 4 + 1)
    sixteenths = (((height - 1) // 16 + 1) * 16, ((width - 1) // 16 + 1) * 16)

    def upsampled(size):
        return sum(F.interpolate(output[None], size, mode="bilinear", align_corners=False)[0] for output in outputs)

    cam = upsampled(quarter)[keys]
    high_res = upsampled(sixteenths)[keys][:, :height, :width]
    return [maps / (F.adaptive_max_pool2d(maps, (1, 1)) + 1e-5) for maps in (cam, high_res)]


def irn_miou(seeds, masks, threshold):
    """The steps of IRN's eval_cam.py: label maps, a confusion matrix, IoU."""
    confusion = np.zeros((21, 21))
    for content, mask in zip(seeds, masks, strict=True):
        planes = np.pad(content["high_res"], ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=threshold)
        keys = np.pad(content["keys"] + 1, (1, 0), mode="constant")
        predicted = keys[planes.argmax(0)]
        counts = mask != 255
        np.add.at(confusion, (mask[counts], predicted[counts]), 1)
    with np.errstate(invalid="ignore"):
        right = np.diag(confusion)
        return np.nanmean(right / (confusion.sum(0) + confusion.sum(1) - right))


@torch.no_grad()
def test_seeds_and_miou_are_irn_s(voc):
    home, names = voc
    assert run("seeds", "voc", "--root", str(home), *VOC_MODEL, "--method", "cam", "--output", "seeds") == 0
    model = ColourNet(20).eval()
    seeds, masks = [], []
    for index, name in enumerate(names):
        content = np.load(f"seeds/{name}.npy", allow_pickle=True).item()
        photo = Image.open(home / "JPEGImages" / f"{name}.jpg")
        cam, high_res = irn_make_cam(model, photo, shapes(index)[2])
        assert content["high_res"].shape[1:] == SIZES[index][::-1]
        np.testing.assert_allclose(content["cam"], cam, rtol=0, atol=1e-5)
        np.testing.assert_allclose(content["high_res"], high_res, rtol=0, atol=1e-5)
        seeds.append(content)
        masks.append(np.asarray(Image.open(home / "SegmentationClass" / f"{name}.png")))
    for threshold in (0.15, 0.30):
        arguments = ["--seeds", "seeds", "--threshold", str(threshold), "--json", "out.json"]
        assert run("evaluate", "voc", "--root", str(home), *arguments) == 0
        [result] = scores_in("out.json").values()
        assert result["miou"] == pytest.approx(100 * irn_miou(seeds, masks, threshold), rel=0, abs=1e-9)
        assert 5 < result["miou"] < 95
    # Straight to the photo's size is something else where a side is no multiple of 16, and there alone.
    other = ["--method", "cam", "--upsample", "photo", "--output", "other"]
    assert run("seeds", "voc", "--root", str(home), *VOC_MODEL, *other) == 0
    apart = []
    for name, content in zip(names, seeds, strict=True):
        straight = np.load(f"other/{name}.npy", allow_pickle=True).item()
        apart.append(float(np.abs(straight["high_res"] - content["high_res"]).max()))
    assert apart[2] == 0
    assert min(apart[:2] + apart[3:]) > 0.01
