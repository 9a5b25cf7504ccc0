"""Masks and boxes of one's own photos: what the library writes, what the command writes, and what the app offers."""

import inspect
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import MODEL, run
from made_datasets import colour_classifier, everything, shapes
from PIL import Image

from captum_regioncam import LayerRegionCam, refine, to_boxes, to_mask
from captum_regioncam.app.downloads import masks_file
from captum_regioncam.app.explainer import Explainer
from captum_regioncam.app.results import Settings
from captum_regioncam.cli.parser import build_parser
from captum_regioncam.evaluation import Classifier, write_explanations

LAYERS = ["relu1", "relu2"]
COMMAND = ["explain", "shapes.png", *MODEL, "--size", "32", "--target", "1"]

pytestmark = pytest.mark.usefixtures("colour_factory")


@pytest.fixture
def photo(colour_factory):
    Image.fromarray(shapes(1)[0]).save("shapes.png")
    return Image.open("shapes.png").convert("RGB")


def classes_in(manifest):
    [image] = json.loads(Path(manifest).read_text())["images"].values()
    return image["classes"]


def mask_in(path):
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("refined", [False, True])
def test_they_are_those_of_the_public_functions(photo, resize, refined):
    classifier = colour_classifier()
    classifier = Classifier(classifier.model, 48, classifier.mean, classifier.std, resize=resize)
    explained = write_explanations(
        classifier, "shapes.png", "out", methods=["region-cam", "layer-cam"], targets=[1, 2], layers=LAYERS,
        refine=refined, masks=True, boxes=True, threshold=0.95,
    )  # fmt: skip
    seen, fitted = classifier.fit(photo)
    layers = [classifier.model.relu1, classifier.model.relu2]
    maps = LayerRegionCam(classifier.model, layers).attribute_targets(classifier.preprocess(fitted), [1, 2])
    maps = refine(maps, seen) if refined else maps
    size = seen.height, seen.width
    assert size == ((38, 38) if resize == "crop" else (44, 60))
    masks = to_mask(maps, 0.95, size)[0].numpy()
    boxes = to_boxes(maps, 0.95, size, largest=False)
    found = classes_in("out/manifest.json")
    for place, index in enumerate((1, 2)):
        assert np.array_equal(mask_in(f"out/shapes_region-cam_{index}_mask.png"), 255 * masks[place].astype(np.uint8))
        assert found[place]["boxes"]["region-cam"] == boxes[place].tolist()
        assert mask_in(f"out/shapes_layer-cam_{index}_mask.png").any()
    assert max(map(len, boxes)) > 1  # of several regions, the largest is the first
    assert explained.images["shapes.png"]["classes"] == found
    assert json.loads(Path("out/manifest.json").read_text())["settings"]["threshold"] == 0.95


def test_the_command_writes_the_apps_masks(photo, capsys):
    explainer = Explainer.of(Classifier.load("colour_factory:colour_net", size=32), layers=LAYERS)
    command = [*COMMAND, "--masks", "--boxes"]
    for options, settings in (
        ([], {}),
        (["--threshold", "0.4", "--refine", "--contrast", "1"], {"threshold": 0.4, "refine": True, "contrast": 1.0}),
        (["--threshold", "otsu"], {"threshold": "otsu"}),
    ):
        assert run(*command, *options) == 0
        name, content = masks_file(explainer, explainer.show("shapes.png"), Settings((1,), ("region-cam",), **settings))
        Path("app.png").write_bytes(content)
        assert np.array_equal(mask_in(name), mask_in("app.png"))
        assert 0 < mask_in(name).mean() < 255
        assert classes_in("manifest.json")[0]["boxes"]["region-cam"]


def test_the_defaults_are_the_same_everywhere():
    parsed = build_parser().parse_args(COMMAND)
    defaults = [inspect.signature(call).parameters for call in (write_explanations, to_mask, to_boxes)]
    assert {parsed.threshold, Settings((), ()).threshold, *(one["threshold"].default for one in defaults)} == {0.15}
    assert (parsed.masks, parsed.boxes) == (defaults[0]["masks"].default, defaults[0]["boxes"].default) == (False,) * 2


def test_nothing_more_is_written_unless_it_is_asked_for(photo, capsys):
    assert run(*COMMAND, "--boxes") == 0
    assert sorted(Path().glob("shapes*")) == [Path("shapes.png"), Path("shapes_cam.png")]
    assert run(*COMMAND) == 0
    assert "boxes" not in classes_in("manifest.json")[0]
    assert "threshold" not in json.loads(Path("manifest.json").read_text())["settings"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "0.3"], "--threshold: requires --masks or --boxes"),
        (["--masks", "--threshold", "1"], "argument --threshold: '1' is not a number in [0, 1), or otsu"),
        (["--masks", "--threshold", "best"], "argument --threshold: 'best' is not a number in [0, 1), or otsu"),
    ],
)
def test_thresholds_that_cannot_be(options, message, photo, capsys):
    assert run(*COMMAND, *options, "--output", "out") == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("threshold", [1, -0.1, "best", float("nan")])
@pytest.mark.parametrize("what", ["masks", "boxes"])
def test_thresholds_that_the_library_refuses(threshold, what, photo):
    with pytest.raises(ValueError, match=r"threshold=.*expects a number in \[0, 1\), or 'otsu'"):
        write_explanations(colour_classifier(), "shapes.png", "out", **{what: True}, threshold=threshold)
    assert not Path("out").exists()


@pytest.mark.parametrize("options", [["--boxes"], ["--masks", "--threshold", "otsu"]])
def test_without_opencv_nothing_begins(options, photo, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert run(*COMMAND, *options, "--output", "out") == 2
    assert 'needs OpenCV: pip install "captum_regioncam[regions]"' in capsys.readouterr().err
    assert not Path("out").exists()
    assert run(*COMMAND, "--masks", "--output", "out") == 0


def test_a_mask_of_somebody_else_s_stays(photo, capsys):
    os.mkdir("out")
    Path("out/shapes_region-cam_1_mask.png").write_text("somebody's")
    before = everything("out")
    assert run(*COMMAND, "--masks", "--output", "out") == 2
    assert "has shapes_region-cam_1_mask.png, which this package did not write" in capsys.readouterr().err
    assert everything("out") == before
    likeliest = int(colour_classifier().model(colour_classifier().preprocess(photo.resize((32, 32)))).argmax())
    Path(f"out/shapes_region-cam_{likeliest}_mask.png").write_text("somebody's")
    assert run(*COMMAND[:-2], "--masks", "--output", "out") == 1  # the class is known only once the photo is read
    assert "1 of 1 photo failed:" in capsys.readouterr().err
    assert Path(f"out/shapes_region-cam_{likeliest}_mask.png").read_text() == "somebody's"


def test_names_of_masks_are_never_too_long(photo):
    long = "x" * 240
    os.rename("shapes.png", f"{long}.png")
    assert run("explain", f"{long}.png", *COMMAND[2:], "--masks", "--overlay", "--output", "out") == 0
    names = sorted(path.name for path in Path("out").glob("x*"))
    assert len(names) == 3
    assert all(len(name) <= 255 for name in names)
    assert sum(name.endswith("_region-cam_1_mask.png") for name in names) == 1


def test_replacing_other_settings_is_told(photo, capsys):
    def told(*options):
        assert run(*COMMAND, *options, "--output", "out") == 0
        lines = capsys.readouterr().err.splitlines()
        return [line for line in lines if "of other settings" in line]

    assert told() == []
    assert told() == []
    assert told("--masks") == []  # the picture is the same
    assert told("--masks", "--threshold", "0.3") == ["out: replacing 2 results of other settings."]
    assert told() == []
    assert told("--contrast", "1") == ["out: replacing 1 result of other settings."]
    assert told("--contrast", "1", "--save-npy", "--masks", "--overlay") == [
        "out: replacing 1 result of other settings."  # the mask at 0.3 and contrast 4
    ]
    assert told("--refine", "--masks", "--save-npy", "--overlay") == ["out: replacing 4 results of other settings."]
    assert run(*COMMAND[:-1], "2", "--output", "out") == 0
    assert "out: replacing 1 result of other settings." in capsys.readouterr().err
