"""What the page computes, without the page: a photo shown to a small network, its maps, pictures and files."""

import dataclasses
import io
import zipfile

import numpy as np
import pytest
import torch
from made_datasets import colour_classifier, shapes
from PIL import Image

from captum_regioncam import LayerRegionCam, cut_out, overlay, refine, to_boxes, to_mask
from captum_regioncam.app import explainer as explaining
from captum_regioncam.app.downloads import maps_file, masks_file, pictures_file
from captum_regioncam.app.explainer import Explainer, MapCache
from captum_regioncam.app.figures import figures, message
from captum_regioncam.app.results import Settings, maps_of, results_of
from captum_regioncam.errors import ArgumentError

ALL = ("region-cam", "layer-cam", "grad-cam", "cam")


@pytest.fixture
def explainer():
    return Explainer.of(colour_classifier(), layers=["relu1", "relu2"])


@pytest.fixture
def photo(explainer, tmp_path):
    Image.fromarray(shapes(1)[0]).save(tmp_path / "shapes.png")
    return explainer.show(tmp_path / "shapes.png")


@pytest.fixture
def calls(explainer):
    """The inputs that the network gets."""
    found = []
    explainer.classifier.model.register_forward_hook(lambda *call: found.append(call[1]))
    return found


def region_cam(explainer, photo, classes, contrast):
    model = explainer.classifier.model
    x = explainer.classifier.preprocess(photo.fitted)
    return LayerRegionCam(model, [model.relu1, model.relu2], contrast=contrast).attribute_targets(x, classes)[0]


def test_a_photo_is_upright_and_has_the_networks_probabilities(explainer, tmp_path):
    pixels = shapes(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    photo = explainer.show(tmp_path / "turned.png", "my\x1bphoto.png")
    assert photo.name == "my\\x1bphoto.png"
    assert photo.seen.size == (44, 60)
    assert np.array_equal(photo.pixels, np.rot90(pixels, -1))
    x = explainer.classifier.preprocess(photo.fitted)
    expected = explainer.classifier.model(x)[0].softmax(0).tolist()
    assert photo.probabilities == pytest.approx(expected, abs=1e-6)
    assert photo.likeliest(2) == sorted(range(3), key=lambda index: -expected[index])[:2]


@pytest.mark.parametrize("contrast", [1, 2.5, 4])
def test_contrast_and_settings_need_no_other_run_of_the_network(explainer, photo, calls, contrast):
    maps_of(explainer, photo, Settings((0, 2), ALL))
    before = len(calls)
    assert before >= 4
    settings = Settings((2, 0), ("region-cam",), contrast=contrast, threshold=0.5, view="mask")
    found = maps_of(explainer, photo, settings)
    list(results_of(explainer, photo, settings))
    assert len(calls) == before
    expected = region_cam(explainer, photo, [2, 0], contrast)
    torch.testing.assert_close(torch.stack(list(found.values())), expected, atol=1e-6, rtol=1e-5)
    before = len(calls)
    explainer.maps(photo, [0, 1], ["layer-cam"])  # one of the two is known
    assert len(calls) == before + 1


@pytest.mark.parametrize("full", [False, True])
def test_refined_maps_follow_the_photo_and_are_kept(explainer, photo, monkeypatch, full):
    settings = Settings((1,), ("region-cam", "cam"), refine=True)
    found = maps_of(explainer, photo, settings, full=full)
    expected = refine(region_cam(explainer, photo, [1], 4), photo.pixels)[0]
    torch.testing.assert_close(found["region-cam", 1], expected, atol=1e-6, rtol=1e-5)
    assert found["cam", 1].shape == (44, 60)
    if not full:
        monkeypatch.setattr("captum_regioncam.app.results.refine", None)  # is not called again
        again = maps_of(explainer, photo, settings)
        assert all(torch.equal(found[key], again[key]) for key in found)


def test_a_large_photo_is_drawn_smaller_and_its_boxes_are_the_photos(explainer, photo, monkeypatch):
    monkeypatch.setattr(explaining, "_SHOWN", 44 * 60 // 4)
    settings = Settings((0,), ("region-cam",), boxes="all", view="mask")
    small, full = (next(results_of(explainer, photo, settings, full=full)) for full in (False, True))
    assert small.picture.shape == (22, 30, 3)
    assert full.picture.shape == (44, 60, 3)
    assert np.abs(np.subtract(small.boxes[0], full.boxes[0])).max() <= 2
    assert small.share == pytest.approx(full.share, abs=0.05)


def test_results_are_the_librarys(explainer, photo):
    attribution = region_cam(explainer, photo, [2], 4)[0]
    mask = to_mask(attribution, 0.3, (44, 60))
    settings = {"classes": (2,), "methods": ("region-cam",), "threshold": 0.3}
    [one] = results_of(explainer, photo, Settings(**settings, boxes="none"))
    assert (one.title, one.index, one.class_name) == ("Region-CAM", 2, "class 2")
    assert one.probability == photo.probabilities[2]
    assert one.share == pytest.approx(mask.float().mean().item())
    assert one.boxes == to_boxes(attribution, 0.3, (44, 60))[0].tolist()
    assert np.abs(one.picture.astype(int) - overlay(photo.pixels, attribution)).max() <= 1
    [one] = results_of(explainer, photo, Settings(**settings, view="cut-out"))
    assert np.array_equal(one.picture, cut_out(photo.pixels, mask))
    [one] = results_of(explainer, photo, Settings(**settings, view="mask", boxes="largest"))
    x0, y0, x1, y1 = one.boxes[0]
    assert one.picture[y0, x0].tolist() == one.picture[y1 - 1, x1 - 1].tolist() == [255, 31, 208]
    inside = np.array(one.picture[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2, 0]) > 0
    assert np.array_equal(inside, mask.numpy()[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2])


def test_files(explainer, photo):
    one = Settings((2,), ("region-cam",), refine=True)
    name, content = maps_file(explainer, photo, Settings((2, 0), ("region-cam", "layer-cam"), refine=True))
    maps = np.load(io.BytesIO(content))
    assert (name, maps.shape, maps.dtype) == ("shapes_cam.npy", (2, 2, 44, 60), np.float32)
    expected = refine(region_cam(explainer, photo, [2, 0], 4), photo.pixels)
    torch.testing.assert_close(torch.from_numpy(maps[0]), expected, atol=1e-6, rtol=1e-5)
    name, content = masks_file(explainer, photo, one)
    assert name == "shapes_region-cam_2_mask.png"
    mask = Image.open(io.BytesIO(content))
    assert mask.mode == "L"
    assert np.array_equal(np.asarray(mask), to_mask(expected[0]).numpy() * np.uint8(255))
    name, content = pictures_file(explainer, photo, one)
    assert name == "shapes_region-cam_2.png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), overlay(photo.pixels, expected[0]))
    name, content = pictures_file(explainer, photo, Settings((2, 0), ("cam",)))
    assert name == "shapes_pictures.zip"
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["shapes_cam_2.png", "shapes_cam_0.png"]


def test_maps_that_would_fill_the_memory_are_refused(explainer, photo, monkeypatch):
    monkeypatch.setattr("captum_regioncam.app.downloads._MOST_BYTES", 1 << 20)
    large = dataclasses.replace(photo, seen=Image.new("RGB", (1000, 600)))
    with pytest.raises(ValueError, match=r"maps would take 2 MB; at most 1 MB are allowed\. Choose fewer classes"):
        maps_file(explainer, large, Settings((0,), ("cam",)))


def test_what_is_no_photo_is_told_by_its_own_name(explainer, tmp_path, monkeypatch):
    path = tmp_path / "a1b2"
    path.write_text("not an image")
    with pytest.raises(ValueError, match=r"^cat\.jpg: not an image that can be read \(JPEG"):
        explainer.show(path, "cat.jpg")
    Image.new("RGB", (100, 2)).save(path, "PNG")
    with pytest.raises(ValueError, match=r"^cat\.jpg: the photo has 100 x 2 pixels, a ratio of 50"):
        explainer.show(path, "cat.jpg")
    monkeypatch.setattr(explaining, "MOST_PIXELS", 100)
    with pytest.raises(ValueError, match=r"^cat\.jpg: cannot be read \(it has 100 x 2 pixels; at most 100"):
        explainer.show(path, "cat.jpg")
    monkeypatch.setattr(explaining, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match=r"^cat\.jpg: has 0\.0 MB; at most 0 are allowed"):
        explainer.show(path, "cat.jpg")


def test_methods_that_do_not_work_are_left_out():
    explainer = Explainer.of(colour_classifier(), layers=["relu1"], precision="bfloat16")
    assert list(explainer.attributions) == ["grad-cam", "layer-cam", "region-cam"]
    assert "global average pooling" in explainer.missing["cam"]
    with pytest.raises(ArgumentError, match="the model has no such layer"):
        Explainer.of(colour_classifier(), layers=["relu3"])


def test_the_cache_forgets_what_was_used_longest_ago():
    cache = MapCache(2 * 4 * 6)  # two maps of 6 numbers
    maps = {key: torch.full((2, 3), float(key)) for key in range(3)}
    cache.put(0, maps[0])
    cache.put(1, maps[1])
    assert cache.get(0) is maps[0]
    cache.put(2, maps[2])
    assert cache.bytes == 48
    assert [cache.get(key) is not None for key in range(3)] == [True, False, True]


def test_figures_say_what_the_network_does_not_see(explainer, photo):
    results = list(results_of(explainer, photo, Settings((0, 1), ("region-cam", "cam"), boxes="all")))
    html = figures(results)
    assert html.count("<figure>") == 4
    assert "--columns: 2; --narrow: 2" in html
    assert 'alt="CAM of class 1 (1)"' in html
    assert "does not see" not in html
    object.__setattr__(results[0], "probability", 0.0004)
    object.__setattr__(results[0], "class_name", "<b>")
    html = figures(results[:1])
    assert "&lt;b&gt; (0)</strong> below 0.1%" in html
    assert "The network does not see this class" in html
    assert "--columns: 1; --narrow: 1" in html
    assert message("<x>", "problem") == '<p class="problem" role="alert">&lt;x&gt;</p>'
