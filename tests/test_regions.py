import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from captum_regioncam import to_boxes, to_hwc, to_mask


def blocks():
    """A large weak region, a small strong one that touches it nowhere, and nothing."""
    maps = torch.zeros(2, 1, 8, 10)
    maps[0, 0, 1:5, 1:6] = 0.2
    maps[0, 0, 6:8, 7:9] = 0.8
    return maps


def test_masks_are_relative_to_each_map_s_maximum():
    maps = blocks()
    mask = to_mask(maps)
    assert mask.shape == (2, 1, 8, 10)
    assert mask.dtype == torch.bool
    assert torch.equal(mask[0], maps[0] > 0)  # 0.2 of 0.8 is above 0.15
    assert torch.equal(to_mask(maps, 0.25)[0], maps[0] > 0.2)  # what is at the threshold is not above it
    assert torch.equal(to_mask(1e-6 * maps, 0.24), mask)
    assert not mask[1].any()
    assert torch.equal(to_mask(maps[0, 0].numpy()), mask[0, 0])


def test_masks_at_the_photo_s_size():
    maps = torch.rand(3, 5, 6)
    upsampled = F.interpolate(maps[None], (20, 31), mode="bilinear", align_corners=False)[0]
    assert torch.equal(to_mask(maps, 0.4, size=(20, 31)), upsampled > 0.4 * upsampled.amax((1, 2), keepdim=True))


def test_otsu_is_opencv_s():
    maps = torch.rand(2, 16, 16) ** 2
    maps[0, 4:9, 4:9] += 3
    masks = to_mask(maps, "otsu")
    for one, mask in zip(maps, masks, strict=True):
        levels = (one / one.max() * 255).round().byte().numpy()
        _, expected = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)
        assert np.array_equal(mask, expected > 0)
    assert masks[0].sum() == 25
    assert not to_mask(torch.zeros(4, 4), "otsu").any()


def test_boxes_by_hand():
    assert [boxes.tolist() for boxes in to_boxes(blocks())] == [[[1, 1, 6, 5]], []]
    first, nothing = to_boxes(blocks(), largest=False)
    assert first.tolist() == [[1, 1, 6, 5], [7, 6, 9, 8]]  # the largest area first
    assert nothing.shape == (0, 4)
    assert to_boxes(blocks(), 0.5)[0].tolist() == [[7, 6, 9, 8]]
    # Regions that touch at a corner are one.
    corner = torch.zeros(6, 6)
    corner[1:3, 1:3] = corner[3:5, 3:5] = 1
    assert to_boxes(corner)[0].tolist() == [[1, 1, 5, 5]]
    # At the photo's size the box is in the photo's pixels.
    [box] = to_boxes(blocks()[0], size=(80, 100))[0].tolist()
    assert np.allclose(box, [10, 10, 60, 50], atol=6)


@pytest.mark.parametrize(
    ("attribution", "threshold", "message"),
    [
        (torch.rand(4, 4), 1.0, r"threshold=1.0: expects a number in \[0, 1\), or 'otsu'"),
        (torch.rand(4, 4), "best", "threshold='best'"),
        (torch.rand(4), 0.15, r"attribution: expects \(..., h, w\) maps; got shape \(4,\)"),
        (torch.full((4, 4), torch.nan), 0.15, "attribution: the maps are not finite"),
        (torch.rand(4, 4), torch.tensor([0.1, 0.2]), r"threshold=tensor\(\[0.1000, 0.2000\]\): expects a number"),
        (torch.rand(4, 4), torch.nan, "threshold=nan: expects a number"),
    ],
)
def test_bad_input(attribution, threshold, message):
    with pytest.raises(ValueError, match=message):
        to_mask(attribution, threshold)


@pytest.mark.parametrize("size", [224, (8,), (8, 0), (8.0, 8.0)])
@pytest.mark.parametrize("function", [to_mask, to_boxes])
def test_a_size_is_a_height_and_a_width(function, size):
    with pytest.raises(ValueError, match=r"^size=.*: expects \(height, width\), two whole numbers above 0"):
        function(torch.rand(4, 4), size=size)


@pytest.mark.parametrize(
    "photo",
    [
        Image.new("CMYK", (31, 20)),
        np.zeros((20, 31, 3), np.uint8),
        np.zeros((20, 31), bool),
        torch.zeros(3, 20, 31),
        torch.full((1, 3, 20, 31), -2.0),  # the network's input
    ],
    ids=["pil", "array", "grey", "tensor", "input"],
)
def test_a_photo_is_a_size(photo):
    maps = torch.rand(2, 5, 7)
    assert torch.equal(to_mask(maps, 0.5, size=photo), to_mask(maps, 0.5, size=(20, 31)))
    assert [box.tolist() for box in to_boxes(maps, 0.5, photo)] == [
        box.tolist() for box in to_boxes(maps, 0.5, (20, 31))
    ]
    np.testing.assert_array_equal(to_hwc(maps, photo), to_hwc(maps, (20, 31)))


def test_sizes_and_thresholds_of_other_types():
    maps = torch.rand(5, 6)
    expected = to_mask(maps, 0.5, size=(20, 31))
    for size in ([20, 31], torch.Size([20, 31]), np.array([20, 31]), torch.tensor([20, 31])):
        assert torch.equal(to_mask(maps, torch.tensor(0.5), size=size), expected)


def test_without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert to_mask(torch.eye(3)).sum() == 3
    with pytest.raises(ImportError, match=r'to_boxes needs OpenCV: pip install "captum_regioncam\[regions\]"'):
        to_boxes(torch.eye(3))
