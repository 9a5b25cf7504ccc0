import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from PIL import Image
from skimage.data import chelsea, coffee

from captum_regioncam import LayerRegionCam, find_stages, overlay
from captum_regioncam.evaluation.models import load_classifier


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A cat, a cup and two files that are none, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(chelsea()).save("cat.png")
    Image.fromarray(coffee()).resize((300, 200)).save("cup.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    return tmp_path


def test_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("demo") == 0
    out = capsys.readouterr().out
    assert "Egyptian cat (285)" in out.splitlines()[1]
    assert "_blocks.4._project_conv (input), _blocks.10._project_conv (input), _avg_pooling (input)" in out
    assert "region_cam_demo.png" in out
    picture = np.asarray(Image.open("region_cam_demo.png").convert("RGB")).astype(int)
    assert "captum-regioncam explain PHOTO.jpg" in out
    above, below = np.split(picture, [picture.shape[0] // 2])
    panels, cut = (
        [row[row.shape[0] // 4 :, place * row.shape[1] // 4 :][:, : row.shape[1] // 4] for place in range(4)]
        for row in (above, below)
    )
    # Red over blue is heat: the cat's face is hot.
    heat = [panel[: int(panel.shape[0] * 0.75), :, 0] - panel[: int(panel.shape[0] * 0.75), :, 2] for panel in panels]
    width = heat[0].shape[1]
    face, wall = slice(int(0.3 * width), int(0.65 * width)), slice(int(0.75 * width), int(0.97 * width))
    assert (heat[3][:, face] > 60).mean() > 0.4
    # Where the photo is cut away, it is grey: of the wall less is left than with Grad-CAM and LayerCAM.
    grey = [(np.ptp(panel, axis=2) < 3)[: int(panel.shape[0] * 0.75), wall].mean() for panel in cut[1:]]
    assert grey[2] > 0.7
    assert grey[2] > max(grey[:2]) + 0.2
    assert len(list(tmp_path.iterdir())) == 1


def test_demo_region_covers_the_cat():
    # The cat, roughly: an ellipse of head and neck; the shelf is to its right.
    classifier = load_classifier()
    photo = Image.fromarray(chelsea())
    x = classifier.preprocess(classifier.fit(photo)[1])
    attribution = LayerRegionCam(classifier.model, find_stages(classifier.model, x)).attribute(x, target=285)
    attribution = torch.nn.functional.interpolate(attribution, (300, 451), mode="bilinear")[0, 0]
    assert attribution[60:220, 60:330].mean() > 1.3 * attribution[60:300, 370:].mean()


@pytest.mark.slow
def test_explain_two_photos_with_targets_and_methods(photos, capsys):
    arguments = ["--target", "tabby", "espresso", "--method", "grad-cam,region-cam", "--output", "out", "--save-npy"]
    assert run("explain", "cat.png", "cup.jpg", *arguments, "--device", "cpu") == 0
    captured = capsys.readouterr()
    assert "cat.png: tabby, espresso -> out/cat_cam.png" in captured.out
    assert "2/2" in captured.err  # the progress bar
    assert sorted(p.name for p in (photos / "out").glob("[!.]*")) == [
        "cat_cam.npy", "cat_cam.png", "cup_cam.npy", "cup_cam.png", "manifest.json",
    ]  # fmt: skip
    maps = np.load("out/cat_cam.npy")
    assert maps.shape == (2, 2, 300, 451)
    assert maps.dtype == np.float32
    classifier = load_classifier()
    x = classifier.preprocess(classifier.fit(Image.open("cat.png"))[1])
    for row, target in enumerate((281, 967)):
        expected = LayerRegionCam(classifier.model, find_stages(classifier.model, x)).attribute(x, target)
        expected = torch.nn.functional.interpolate(expected, (300, 451), mode="bilinear")[0, 0]
        np.testing.assert_allclose(maps[1, row], expected, atol=1e-5)
    assert np.asarray(Image.open("out/cup_cam.png").convert("L")).std() > 20


def test_explain_the_likeliest_class_of_a_model_of_ones_own(photos, capsys):
    (photos / "my_model.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(),\n"
        "                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))\n"
    )
    options = ["--model", "my_model:make", "--size", 64, "--mean", "0,0,0", "--std", "1,1,1", "--resize", "crop"]
    assert run("explain", "cup.jpg", *options, "--method", "layer-cam", "--layers", "1,3", "--weights", "none") == 0
    assert "cup.jpg: class " in capsys.readouterr().out
    assert run("explain", "cup.jpg", *options, "--layers", "1,4.x") == 2
    assert "--layers 4.x: the model has no such layer" in capsys.readouterr().err
    assert run("explain", "cup.jpg", *options, "--target", "cat") == 2
    assert "class names of this model are not known" in capsys.readouterr().err
    assert run("explain", "cup.jpg", *options, "--target", 4) == 1
    assert "target=4 is out of range" in capsys.readouterr().err
    sys.modules.pop("my_model")


def test_one_bad_file_does_not_lose_the_rest(photos, capsys):
    assert run("explain", "missing.png", "cat.png", "text.jpg", "--device", "cpu") == 1
    captured = capsys.readouterr()
    assert "cat.png: Egyptian cat -> cat_cam.png" in captured.out
    assert "2 of 3 photos failed:" in captured.err
    assert "missing.png: cannot be read (No such file or directory)" in captured.err
    assert "text.jpg: not an image" in captured.err
    assert (photos / "cat_cam.png").exists()
    assert not list(photos.glob("text*.png"))


def test_photos_of_the_same_name_keep_apart(photos, capsys):
    for folder in ("a", "b"):
        (photos / folder).mkdir()
        Image.open("cup.jpg").save(photos / folder / "cup.jpg")
    Image.open("cup.jpg").save(photos / "a" / "cup.png")
    assert run("explain", "a/cup.jpg", "a/cup.png", "b/cup.jpg", "--output", "maps") == 0
    written = sorted(str(path.relative_to(photos / "maps")) for path in (photos / "maps").rglob("*.png"))
    assert written == ["a/cup_cam.png", "a/cup_png_cam.png", "b/cup_cam.png"]


def test_pictures_replace_neither_photos_nor_each_other(photos):
    for name in ("cup.png", "cup_png.png", "cup_cam.png"):
        Image.open("cup.jpg").save(name)
    before = (photos / "cup_cam.png").read_bytes()
    assert run("explain", "cup.jpg", "cup.png", "cup_png.png", "cup_cam.png", "--device", "cpu") == 0
    assert (photos / "cup_cam.png").read_bytes() == before
    assert len(list(photos.glob("*_cam.png"))) == 5


def test_names_with_dollars_and_classes_named_twice(photos, capsys):
    Image.open("cup.jpg").save("a$b_$.png")
    arguments = ["--target", "cup", "968", "--save-npy", "--method", "layer-cam"]
    assert run("explain", "a$b_$.png", *arguments) == 0
    assert np.load("a$b_$_cam.npy").shape == (1, 1, 200, 300)


def test_demo_into_a_file_without_an_ending(tmp_path, capsys):
    assert run("demo", "--output", tmp_path / "picture") == 0
    with Image.open(tmp_path / "picture") as picture:
        assert picture.format == "PNG"
    assert len(list(tmp_path.iterdir())) == 1
    assert run("demo", "--output", tmp_path) == 2
    assert run("demo", "--output", tmp_path / "picture.xyz") == 2
    assert "expects a file to write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: command"),
        (["explain"], "arguments are required: IMAGE"),
        (["explain", "cat.png", "--method", "score-cam"], "'score-cam' is not one of cam, grad-cam, layer-cam, region"),
        (["explain", "cat.png", "--size", "0"], "'0' is not a positive whole number"),
        (["explain", "cat.png", "--mean", "1,2"], "'1,2' is not three numbers"),
        (["explain", "cat.png", "--mean", "a,b,c"], "'a,b,c' is not three numbers"),
        (["explain", "cat.png", "--mean", "nan,0,0"], "'nan,0,0' is not three numbers"),
        (["explain", "cat.png", "--std", "0,1,1"], "must be above 0"),
        (["explain", "cat.png", "--output", "cup.jpg"], "argument --output: cup.jpg is a file; give a folder"),
        (["explain", "cat.png", "--model", "./wrap.py:make"], "--model ./wrap.py:make: ./wrap.py cannot be imported"),
        (["explain", "cat.png", "--target", "²"], "--target ²: no such class"),
        (["explain", "--target", "281", "cat.png"], "usage: captum-regioncam explain IMAGE [IMAGE ...] [options]"),
        (["explain", "cat.png", "--model", "resnet"], "--model resnet: expects"),
        (["explain", "cat.png", "--target", "tabbi"], "--target tabbi: no such class. Nearest: tabby"),
        (
            ["explain", "cat.png", "--layers", "_blocks.x"],
            r"--layers _blocks.x: the model has no such layer. Nearest",
        ),
        (["explain", "cat.png", "--device", "cuda:77"], "--device cuda:77: is not available here"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_unusable_arguments_exit_with_2(arguments, message, capsys):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_explain_a_transformer(photos, capsys):
    options = ["--model", "timm:vit_tiny_patch16_224", "--weights", "none", "--save-npy", "--target", 3]
    assert run("explain", "cup.jpg", *options, "--method", "region-cam,layer-cam") == 0
    found = np.load("cup_cam.npy")
    assert run("explain", "cup.jpg", *options, "--layers", "blocks.2,blocks.5,blocks.8,blocks.11.norm1") == 0
    assert np.load("cup_cam.npy").shape == found[:1].shape
    assert run("explain", "cup.jpg", *options, "--method", "grad-cam") == 1
    err = capsys.readouterr().err
    assert "LayerGradCam does not support tokens or channels-last tensors. Use layer-cam or region-cam." in err


def test_a_network_without_class_scores(photos, capsys):
    (photos / "dense_model.py").write_text("from torch import nn\ndef make():\n    return nn.Conv2d(3, 4, 3, 2)\n")
    assert run("explain", "cat.png", "--model", "dense_model:make") == 2
    assert capsys.readouterr().err == (
        "captum-regioncam explain: error: --model: gives scores of shape (1, 4, 111, 111), not (N, classes) scores; "
        "wrap it in a module that does.\n"
    )
    sys.modules.pop("dense_model")


@pytest.mark.slow
def test_explain_folders_overlays_and_what_was_done(photos, capsys):
    (photos / "sub").mkdir()
    (photos / "empty").mkdir()
    Image.open("cup.jpg").save("sub/b.jpg")
    Image.open("cat.png").save("sub/a.png")
    (photos / "sub" / "notes.txt").write_text("no photo")
    options = ["--target", "tabby,967", "--method", "Grad-CAM,RegionCAM", "--output", "out", "--overlay"]
    assert run("explain", "sub", "cup.jpg", *options) == 0
    written = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("[!.]*.*"))
    each = [f"_{method}_{index}.png" for method in ("grad-cam", "region-cam") for index in (281, 967)]
    names = [f"{photo}{end}" for photo in ("sub/a", "sub/b", "cup") for end in [*each, "_cam.png"]]
    assert written == sorted([*names, "manifest.json"])
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["settings"]["method"] == ["grad-cam", "region-cam"]
    assert manifest["versions"]["torch"] == version("torch")
    assert manifest["layers"][-1] == "_avg_pooling (input)"
    assert sorted(manifest["images"]) == ["cup.jpg", "sub/a.png", "sub/b.jpg"]
    classifier = load_classifier()
    seen, fitted = classifier.fit(Image.open("cat.png"))
    x = classifier.preprocess(fitted)
    probabilities = classifier.model(x).softmax(1)[0].detach()
    assert [found["index"] for found in manifest["images"]["sub/a.png"]["classes"]] == [281, 967]
    for found in manifest["images"]["sub/a.png"]["classes"]:
        assert found["probability"] == pytest.approx(float(probabilities[found["index"]]), abs=1e-4)
    assert manifest["images"]["sub/a.png"]["classes"][0]["name"] == "tabby"
    attribution = LayerRegionCam(classifier.model, find_stages(classifier.model, x)).attribute(x, target=281)
    expected = overlay(np.asarray(seen), attribution)
    assert np.abs(np.asarray(Image.open("out/sub/a_region-cam_281.png")).astype(int) - expected).max() <= 2
    assert run("explain", "empty") == 2
    assert "empty: the folder has no image files (.jpg" in capsys.readouterr().err


def test_classes_and_layers(capsys):
    assert run("classes", "CAT") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == " 281  tabby, tabby cat"
    assert len(out) == 7
    assert run("classes") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1000
    assert run("classes", "zebrafish") == 2
    assert "zebrafish: no class has this word in its name" in capsys.readouterr().err
    assert run("layers", "--model", "torchvision:resnet18", "--weights", "none", "--size", "64") == 0
    out = capsys.readouterr().out
    chosen = [line.split()[1] for line in out.splitlines() if line.startswith("*  ")]
    assert chosen == ["relu", "layer1", "layer2", "layer3", "layer4"]
    assert "*  layer4    Sequential         512 x 2 x 2" in out
    assert "layer1.0.conv1" not in out
    assert run("layers", "--model", "torchvision:resnet18", "--weights", "none", "--all", "--layers", "layer2") == 0
    out = capsys.readouterr().out
    assert "   layer1.0.conv1" in out
    assert out.endswith("* chosen: layer2\n")


def test_a_word_of_a_class_offers_every_class_with_it(photos, capsys):
    assert run("explain", "cat.png", "--target", "cat") == 2
    err = capsys.readouterr().err
    first = "tiger cat (282), Persian cat (283), Siamese cat (284), Egyptian cat (285)"
    assert f"--target cat: no class has exactly that name. Choose from: {first}" in err
    assert err.index("Egyptian cat") < err.index("tabby (281)") < err.index("lesser panda (387)")  # or bear cat
    assert run("explain", "cat.png", "--layers", "_blocks.x") == 2
    assert "The stages are _blocks.0._swish, " in capsys.readouterr().err


def test_demo_without_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    assert run("demo") == 2
    assert 'pip install "captum_regioncam[demo]"' in capsys.readouterr().err


@pytest.mark.slow
def test_help_and_module_entry_point(capsys):
    assert run("demo", "--help") == 0
    assert "usage: captum-regioncam" in capsys.readouterr().out
    result = subprocess.run(
        [sys.executable, "-m", "captum_regioncam", "explain", "--help"], capture_output=True, text=True, check=True
    )
    assert "usage: captum-regioncam" in result.stdout
    assert "examples:\n  captum-regioncam explain cat.jpg" in result.stdout
