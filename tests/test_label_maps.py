import numpy as np
import pytest
import torch
from PIL import Image

from captum_regioncam.evaluation import label_map, save_label_map


def test_label_map():
    high_res = np.array([[[0.1, 0.15, 0.2, 0.9]], [[0.0, 0.0, 0.2, 1.0]]], dtype=np.float32)
    # Below, at (the background wins ties), above with two equal (the first wins), above with the second.
    assert label_map(high_res, [4, 19]).tolist() == [[0, 0, 5, 20]]
    assert label_map(high_res, torch.tensor([4, 19]), threshold=0.9).tolist() == [[0, 0, 0, 20]]
    with pytest.raises(ValueError, match="254"):
        label_map(high_res, [0, 254])


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
