import os

import numpy as np
import pytest
import torch
from PIL import Image

from captum_regioncam.evaluation import Seed, label_map, load_seed, save_label_map, save_seed


@pytest.fixture
def seed():
    return Seed(torch.tensor([2, 14]), torch.rand(2, 3, 4), np.random.default_rng(0).random((2, 9, 14), np.float32))


def test_readable_as_irn_reads_it(tmp_path, seed):
    save_seed(tmp_path / "photo.npy", seed)
    # What IRN's scripts do with the file.
    content = np.load(tmp_path / "photo.npy", allow_pickle=True).item()
    assert sorted(content) == ["cam", "high_res", "keys"]
    assert np.pad(content["keys"] + 1, (1, 0), mode="constant").tolist() == [0, 3, 15]
    assert isinstance(content["cam"], torch.Tensor)
    assert (content["cam"].dtype, content["cam"].device.type) == (torch.float32, "cpu")
    planes = np.pad(content["high_res"], ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=0.15)
    assert planes.shape == (3, 9, 14)


def test_round_trip(tmp_path, seed):
    save_seed(tmp_path / "sub" / "photo.npy", seed)
    again = load_seed(tmp_path / "sub" / "photo.npy")
    assert torch.equal(again.keys, seed.keys)
    assert torch.equal(again.cam, seed.cam)
    assert np.array_equal(again.high_res, seed.high_res)


def test_reads_a_seed_made_by_numpy_alone(tmp_path):
    content = {"keys": np.array([1]), "cam": np.ones((1, 1, 1), np.float32), "high_res": np.ones((1, 4, 4))}
    np.save(tmp_path / "photo.npy", content)
    assert load_seed(tmp_path / "photo.npy").keys.tolist() == [1]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("was_here",)


def test_a_seed_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("photo.npy", {"keys": Evil()}, allow_pickle=True)
    with pytest.raises(ValueError, match=r"photo.npy: not a whole seed file \(wants \w+.mkdir"):
        load_seed("photo.npy")
    assert not os.path.exists("was_here")


def test_files_that_are_no_seed(tmp_path, seed):
    path = tmp_path / "photo.npy"
    with pytest.raises(ValueError, match=r"photo.npy: cannot be read \(No such file"):
        load_seed(path)
    save_seed(path, seed)
    whole = path.read_bytes()
    for length in (0, 5, 100, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole seed file"):
            load_seed(path)
    np.save(path, np.zeros(3))
    with pytest.raises(ValueError, match="holds an array of float64, not a dict"):
        load_seed(path)
    np.save(path, {"keys": np.zeros(1), "cam": np.zeros((1, 1, 1))}, allow_pickle=True)
    with pytest.raises(ValueError, match="has no 'high_res'"):
        load_seed(path)
    np.save(path, {"keys": np.zeros(2), "cam": np.zeros((1, 1, 1)), "high_res": np.zeros((1, 2, 2))}, allow_pickle=True)
    with pytest.raises(ValueError, match="has 2 keys"):
        load_seed(path)


def test_shapes_that_do_not_go_together(tmp_path, seed):
    wrong = Seed(seed.keys, torch.rand(2, 2, 4), seed.high_res)
    with pytest.raises(ValueError, match=r"cam \(2, 2, 4\)"):
        save_seed(tmp_path / "photo.npy", wrong)
    assert not list(tmp_path.iterdir())


def test_photo_without_classes(tmp_path):
    nothing = Seed(torch.tensor([], dtype=torch.long), torch.zeros(0, 1, 1), np.zeros((0, 4, 4), np.float32))
    save_seed(tmp_path / "photo.npy", nothing)
    assert load_seed(tmp_path / "photo.npy").high_res.shape == (0, 4, 4)
    assert not label_map(nothing.high_res, nothing.keys).any()


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
