import numpy as np
import pytest
import torch
from PIL import Image

from captum_regioncam.evaluation import label_map, save_label_map, save_overlay


def test_label_map():
    high_res = np.array([[[0.1, 0.15, 0.2, 0.9]], [[0.0, 0.0, 0.2, 1.0]]], dtype=np.float32)
    # Below, at (the background wins ties), above with two equal (the first wins), above with the second.
    assert label_map(high_res, [4, 19]).tolist() == [[0, 0, 5, 20]]
    assert label_map(high_res, torch.tensor([4, 19]), threshold=0.9).tolist() == [[0, 0, 0, 20]]
    assert label_map(high_res, [4, 253]).tolist() == [[0, 0, 5, 254]]
    for keys in ([0, 254], [-1, 0], [0, 300]):
        with pytest.raises(
            ValueError, match=rf"keys=\[{keys[0]}, {keys[1]}\]: an 8-bit label map holds classes 0 to 253"
        ):
            label_map(high_res, keys)


def test_nan_is_no_foreground():
    high_res = np.array([[[0.9, np.nan]]], np.float32)
    with pytest.raises(ValueError, match="high_res: some scores are NaN"):
        label_map(high_res, [0])


def test_label_maps_have_the_palette_of_voc(tmp_path):
    labels = np.array([[0, 1, 2], [15, 20, 255]], dtype=np.uint8)
    save_label_map(tmp_path / "photo.png", labels)
    image = Image.open(tmp_path / "photo.png")
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), labels)
    # aeroplane, bicycle, person, tvmonitor and void of the development kit
    colours = np.asarray(image.convert("RGB"))
    assert colours[0].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert colours[1].tolist() == [[192, 128, 128], [0, 64, 128], [224, 224, 192]]


def test_overlays_are_half_transparent(tmp_path):
    labels = np.array([[0, 1], [255, 20]], dtype=np.uint8)
    photo = Image.new("RGB", (2, 2), (100, 50, 200))
    save_overlay(tmp_path / "photo.png", photo, labels)
    with Image.open(tmp_path / "photo.png") as image:
        pixels = np.asarray(image).tolist()
    assert pixels == [[[100, 50, 200], [114, 25, 100]], [[162, 137, 196], [50, 57, 164]]]
    with pytest.raises(ValueError, match=r"photo: 2 x 2 pixels; the labels are \(3, 2\)"):
        save_overlay(tmp_path / "photo.png", photo, np.zeros((2, 3), np.uint8))
