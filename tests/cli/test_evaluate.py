"""The commands ``seeds`` and ``evaluate``, in this process, in several, and after one was killed."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from commands import MODEL, SMALL, VOC_MODEL, run, scores_in
from filelock import FileLock
from made_datasets import NAMES, ColourNet, everything, make_coco, make_folder, make_ilsvrc, make_voc, shapes
from PIL import Image

from captum_regioncam import LayerRegionCam
from captum_regioncam.evaluation import (
    LocalizationMetric,
    SegmentationMetric,
    label_map,
    load_seed,
    squash_boxes,
)
from captum_regioncam.evaluation.classifier import Classifier

pytestmark = pytest.mark.usefixtures("colour_factory")


def figures(*arguments, expect=0):
    assert run("evaluate", *arguments, "--json", "out.json") == expect
    return scores_in("out.json")


def test_folder_equals_the_metric_by_hand(capsys):
    root = make_folder(Path("data"))
    result = figures(
        "folder", "--root", root, *MODEL, "--size", "32", "--method", "region-cam", "--method", "cam,grad-cam"
    )
    out = capsys.readouterr().out
    assert list(result) == ["region-cam", "cam", "grad-cam"]
    assert "Region-CAM" in out
    assert "4 photos" in out
    model, score = ColourNet().eval(), SegmentationMetric(1)
    classifier = Classifier(model, size=32)
    for index in range(4):
        photo = Image.open(root / "images" / f"photo_{index}.jpg").convert("RGB")
        x, target = classifier.preprocess(classifier.fit(photo)[1]), shapes(index)[2][0]
        cam = LayerRegionCam(model, [model.relu1, model.relu2], contrast=1).attribute(x, target)
        cam = F.interpolate(cam, (44, 60), mode="bilinear", align_corners=False)[0]
        cam = (cam / cam.max()) ** 4  # contrast comes last
        cam = (cam - cam.min()) / (cam.max() - cam.min())
        score.update(cam, [0], np.asarray(Image.open(root / "masks" / f"photo_{index}.png")) > 127)
    expected = score.compute()
    region_cam = result["region-cam"]
    for name in ("miou", "best_miou"):
        assert region_cam[name] == pytest.approx(100 * float(expected[name]), abs=1e-4)
    assert region_cam["best_threshold"] == float(expected["best_threshold"])
    assert region_cam["per_class"]["foreground"] == pytest.approx(100 * float(expected["per_class"][1]), abs=1e-4)
    assert 0 < region_cam["pxap"] < 100
    assert (region_cam["photos"], region_cam["failed"]) == (4, 0)
    # At one scale CAM and Grad-CAM differ by a factor alone.
    assert result["cam"]["curve"] == pytest.approx(result["grad-cam"]["curve"], abs=0.1)


def test_seeds_beside_methods_and_what_is_written(capsys):
    """The network is run only if a method is named, and the default method may be."""
    root = make_voc(Path("data"))
    command = ["voc", "--root", root, *VOC_MODEL, *SMALL]
    for folder in ("a/seeds", "b/seeds"):
        assert run("seeds", *command, "--output", folder) == 0
    files = ["--csv", "a.csv", "--latex", "a.tex", "--per-photo", "photos.csv", "--gallery", "shown", "--per-class"]
    capsys.readouterr()
    result = figures(*command, "--method", "region-cam", "--seeds", "a/seeds", "b/seeds", *files)
    assert list(result) == ["region-cam", "seeds in a/seeds", "seeds in b/seeds"]
    assert result["region-cam"] == result["seeds in a/seeds"] == result["seeds in b/seeds"]
    out = capsys.readouterr().out
    assert "IoU (%) at the best threshold" in out
    assert [line for line in out.splitlines() if line.startswith("Wrote")] == [
        f"Wrote {path}" for path in ("out.json", "a.csv", "a.tex", "photos.csv", "shown")
    ]
    assert len(Path("photos.csv").read_text().splitlines()) == 1 + 6 * 3
    only_seeds = figures("voc", "--root", root, "--seeds", "a/seeds", "--seeds", "b/seeds", "--csv", "/dev/null")
    assert list(only_seeds) == ["seeds in a/seeds", "seeds in b/seeds"]


def test_crop_takes_the_mask_along():
    root = make_folder(Path("data"))
    whole, cropped = (
        figures("folder", "--root", root, *MODEL, "--size", "32", "--resize", resize)["region-cam"]
        for resize in ("squash", "crop")
    )
    assert whole["miou"] != cropped["miou"]
    assert cropped["photos"] == 4


def test_seeds_and_their_scores(capsys):
    root = make_voc(Path("data"))
    command = ["voc", "--root", root, *VOC_MODEL, *SMALL]
    assert run("seeds", *command, "--output", "seeds", "--label-maps", "labels") == 0
    assert "6 seeds of Region-CAM in seeds" in capsys.readouterr().out
    assert sorted(path.name for path in Path("seeds").glob("[!.]*")) == [f"{name}.npy" for name in NAMES]
    for index, name in enumerate(NAMES):
        seed = load_seed(f"seeds/{name}.npy")
        assert seed.keys.tolist() == shapes(index)[2]
        assert (seed.cam.shape[1:], seed.high_res.shape[1:]) == ((11, 15), (44, 60))
        assert seed.high_res.max() == pytest.approx(1, abs=1e-3)
        labels = np.asarray(Image.open(f"labels/{name}.png"))
        assert np.array_equal(labels, label_map(seed.high_res, seed.keys))
    of_seeds = figures("voc", "--root", root, "--seeds", "seeds")["seeds in seeds"]
    on_the_fly = figures("voc", "--root", root, *VOC_MODEL, *SMALL, "--plot", "miou.png")["region-cam"]
    assert of_seeds == on_the_fly
    assert of_seeds["per_class"]["person"] is None  # in no photo
    with Image.open("miou.png") as plot:
        assert plot.size == (900, 600)


@pytest.mark.parametrize("format", ["psa", "clip-es"])
def test_seeds_of_other_pipelines_score_alike(format):
    root = make_voc(Path("data"))
    command = ["voc", "--root", root, *VOC_MODEL, *SMALL]
    assert (
        run("seeds", *command, "--output", "irn") == run("seeds", *command, "--output", format, "--format", format) == 0
    )
    scores = [figures("voc", "--root", root, "--seeds", folder)[f"seeds in {folder}"] for folder in ("irn", format)]
    assert scores[1]["best_miou"] == pytest.approx(scores[0]["best_miou"], abs=0.0 if format == "psa" else 0.5)
    assert scores[0]["best_miou"] > 20
    content = np.load(f"{format}/{NAMES[0]}.npy", allow_pickle=True).item()
    assert set(content) == ({"keys", "attn_highres"} if format == "clip-es" else set(shapes(0)[2]))


def test_score_maps_of_wsolevaluation():
    root = make_folder(Path("data"))
    command = ["folder", "--root", root, *MODEL, *SMALL]
    assert run("seeds", *command, "--output", "wsol", "--format", "wsol") == 0
    assert run("seeds", *command, "--output", "irn") == 0
    scores = [figures("folder", "--root", root, "--seeds", folder)[f"seeds in {folder}"] for folder in ("irn", "wsol")]
    assert scores[0]["miou"] == pytest.approx(scores[1]["miou"], abs=2)  # resized to 224 x 224, and back


def test_cam_wants_pooling_and_a_linear_layer(capsys):
    root = make_folder(Path("data"))
    arguments = ["folder", "--root", root, "--model", "torchvision:alexnet", "--weights", "none", "--method", "cam"]
    assert run("evaluate", *arguments, "--layers", "features.11", "--size", "128") == 2
    assert "CAM needs global average pooling and a linear layer between the last layer" in capsys.readouterr().err


def test_coco_and_a_photo_of_nothing():
    root = make_coco(Path("data"))
    assert run("seeds", "coco", "--root", root, *MODEL, *SMALL, "--output", "seeds") == 0
    assert load_seed("seeds/nothing.npy").high_res.shape == (0, 10, 20)
    of_seeds = figures("coco", "--root", root, "--seeds", "seeds")["seeds in seeds"]
    assert of_seeds == figures("coco", "--root", root, *MODEL, *SMALL)["region-cam"]
    assert of_seeds["photos"] == 4


def test_ilsvrc_equals_the_metric_by_hand(capsys):
    root = make_ilsvrc(Path("data"))
    result = figures("ilsvrc", "--root", root, *MODEL, "--size", "32", "--method", "region-cam,grad-cam")
    printed = "".join(capsys.readouterr())
    assert "MaxBoxAccV2" in printed
    assert "maps upsampled to 224 x 224, where boxes and masks are compared; each stretched" in printed
    model, score = ColourNet().eval(), LocalizationMetric()
    classifier = Classifier(model, size=32)
    for index in range(4):
        photo = Image.open(root / f"ILSVRC2012_img_val/ILSVRC2012_val_{index + 1:08d}.JPEG").convert("RGB")
        x, label = classifier.preprocess(classifier.fit(photo)[1]), shapes(index)[2][0]
        cam = LayerRegionCam(model, [model.relu1, model.relu2]).attribute(x, label)[0, 0]
        rows, columns = np.nonzero(shapes(index)[1] == label + 1)
        boxes = squash_boxes([[columns.min(), rows.min(), columns.max(), rows.max()]], (60, 44))
        score.update(cam, boxes, int(model(x).argsort(descending=True)[0].tolist().index(label)))
    for name, value in score.compute().items():
        expected = value if "threshold" in name else 100 * value
        np.testing.assert_allclose(result["region-cam"][name], expected, atol=1e-4, err_msg=name)
    fixed = figures("ilsvrc", "--root", root, *MODEL, "--size", "32", "--box-threshold", "0.15", "--box", "rectangle")
    assert fixed["region-cam"]["threshold"] == 0.15


def test_a_run_that_failed_before_its_first_seed_locks_nothing(capsys):
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL[:2], *SMALL, "--output", "seeds"]
    assert run(*command, "--layers", "fc") == 2
    assert not list(Path("seeds").glob("[!.]*.npy"))
    for resume in ([], ["--resume"]):
        assert run(*command, "--layers", "relu1,relu2", "--limit", "2", *resume) == 0
    assert len(list(Path("seeds").glob("[!.]*.npy"))) == 2
    assert run(*command, "--layers", "relu2", "--resume") == 2
    assert "was made with layers = ['relu1', 'relu2'], but now it is ['relu2']" in capsys.readouterr().err


def test_a_folder_is_one_run_s(capsys):
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "seeds", "--limit", "2"]
    Path("seeds").mkdir()
    with FileLock("seeds/.captum_regioncam.lock"):
        assert run(*command) == 2
    assert "--output seeds: another run is writing to it" in capsys.readouterr().err
    assert not list(Path("seeds").glob("*.npy"))
    assert run(*command) == 0
    assert len(list(Path("seeds").glob("*.npy"))) == 2
    assert run(*command) == 2
    assert "has results already. Pass --resume" in capsys.readouterr().err
    assert run(*command, "--method", "layer-cam", "--resume") == 2
    assert "was made with method = 'region-cam', but now it is 'layer-cam'" in capsys.readouterr().err
    assert run(*command[:-2], "--resume") == 0
    assert len(list(Path("seeds").glob("*.npy"))) == 6


def test_a_broken_photo_does_not_stop_the_others(capsys):
    home = make_voc(Path("data"))
    (home / "JPEGImages" / f"{NAMES[0]}.jpg").write_bytes(b"no photo")
    (home / "SegmentationClass" / f"{NAMES[3]}.png").unlink()
    result = figures("voc", "--root", "data", *VOC_MODEL, *SMALL, expect=1)["region-cam"]
    assert (result["photos"], result["failed"]) == (4, 2)
    err = capsys.readouterr().err
    assert "2 of 6 photos failed and were left out" in err
    assert f"{NAMES[0]}.jpg: not an image" in err
    assert f"{NAMES[3]}.png: cannot be read" in err
    assert run("seeds", "voc", "--root", "data", *VOC_MODEL, *SMALL, "--output", "seeds") == 1
    assert "5 seeds of" in capsys.readouterr().out
    assert figures("voc", "--root", "data", "--seeds", "seeds", expect=1)["seeds in seeds"] == result


def test_what_is_wrong_with_all_photos_stops_the_run(capsys):
    root = make_folder(Path("data"), photos=12)
    assert run("evaluate", "folder", "--root", root, *MODEL[:2], "--layers", "fc") == 2
    assert "error: layer 'fc' (Linear) gives a tensor of shape (1, 3)" in capsys.readouterr().err  # before any photo
    for path in (root / "masks").iterdir():
        path.unlink()
    for limit in ([], ["--limit", "3"]):
        assert run("evaluate", "folder", "--root", root, *MODEL, *limit) == 2
        assert "failed, one of them with: " in capsys.readouterr().err


def test_seeds_of_others_stay(capsys):
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "seeds"]
    Path("seeds").mkdir()
    Path(f"seeds/{NAMES[0]}.npy").write_bytes(b"somebody's")
    for settings in (None, "{", '{"theirs": 1}'):
        if settings:
            Path("seeds/settings.json").write_text(settings)
        before = everything(Path("seeds"))
        for resume in ([], ["--resume"]):
            assert run(*command, *resume) == 2
            assert f"--output seeds: has {NAMES[0]}.npy, which this package did not write" in capsys.readouterr().err
        assert everything(Path("seeds")) == before


def test_outputs_have_to_be_the_classes_of_the_data_set(capsys):
    root = make_voc(Path("data"))
    assert run("evaluate", "voc", "--root", root, *MODEL, *SMALL) == 2
    assert "gives scores of shape (1, 3); the data set has 20 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "folder", "--root", "data", "--plot", "a.xyz"], "--plot a.xyz: expects a file"),
        (["evaluate", "folder", "--root", "data", "--seeds", "nowhere"], "--seeds nowhere: no such folder"),
        (["evaluate", "folder", "--root", "data", "--seeds", "data", "nowhere"], "--seeds nowhere: no such folder"),
        (["evaluate", "folder", "--root", "data", "--csv", "data/index.json"], "index.json: exists already"),
        (
            ["evaluate", "folder", "--root", "data", "--gallery", "data"],
            "--gallery data: has images, so it is not a gallery",
        ),
        (["evaluate", "ilsvrc", "--root", "data", "--per-class"], "unrecognized arguments: --per-class"),
        (["evaluate", "folder", "--root", "data", "--seeds", "data", "--flip"], "--flip: cannot be used with --seeds"),
        (["evaluate", "folder", "--root", "data", "--seeds", "data", "--model", "a:b"], "--model: cannot be used"),
        (["evaluate", "ilsvrc", "--root", "data", "--threshold", "0.2"], "unrecognized arguments: --threshold"),
        (["evaluate", "ilsvrc", "--root", "data", "--seeds", "nowhere"], "--seeds nowhere: no such folder"),
        (["evaluate", "folder", "--root", "data", "--split", "val"], "unrecognized arguments: --split"),
        (["evaluate", "folder", "--root", "data", "--box", "contour"], "unrecognized arguments: --box"),
        (["seeds", "voc", "--root", "data", "--output", "out", "--size", "9"], "cannot be used with --resize keep"),
        (["seeds", "folder", "--root", "data", "--output", "out", "--readers", "-1"], "is not a whole number"),
        (
            ["evaluate", "folder", "--root", "data", "--size", "9", "--resize", "keep"],
            "cannot be used with --resize keep",
        ),
        (["evaluate", "ilsvrc", "--root", "data", "--step", "0"], "'0' is not above 0"),
        (["evaluate", "folder", "--root", "data", "--threshold", ".1,.2"], "'.1,.2' is not a number in [0, 1)"),
        (["evaluate", "voc", "--root", "nowhere"], "--root: nowhere: not a VOC 2012 folder"),
        (["evaluate", "folder", "--root", "data", "--method", "cams"], "'cams' is not one of cam, grad-cam"),
        (["evaluate", "folder", "--root", "data", "--scales", "1,0"], "'1,0': must be above 0"),
        (["evaluate", "folder", "--root", "data", "--scales", "one"], "'one' is not a list of numbers"),
        (["evaluate", "folder", "--root", "data", "--threshold", "1"], "'1' is not a number in [0, 1)"),
        (["evaluate", "folder", "--root", "data", "--json", "data"], "data: is a folder"),
        (["evaluate", "ilsvrc", "--root", "data", "--resize", "crop"], "the boxes are for whole photos"),
        (["seeds", "folder", "--root", "data", "--output", "out", "--resize", "crop"], "a seed covers the whole photo"),
        (["seeds", "folder", "--root", "data", "--output", "data/index.json"], "is a file; give a folder"),
        (["seeds", "folder", "--root", "data"], "--output"),
        (
            ["seeds", "folder", "--root", "data", "--output", "o", "--threshold", ".3"],
            "--threshold: requires --label",
        ),
        (["seeds", "folder", "--root", "data", "--output", "o", "--label-maps", "o"], "is the folder of the seeds"),
        (["evaluate", "folder", "--root", "data", "--method", "cam", "--contrast", "1"], "applies only to region-cam"),
        (["evaluate", "folder", "--root", "data", "--json", "data/index.json/x"], "data/index.json is a file"),
        (["evaluate", "ilsvrc", "--root", "data", "--upsample", "irn"], "unrecognized arguments: --upsample"),
    ],
)
def test_arguments_that_cannot_be(arguments, says, capsys):
    make_folder(Path("data"))
    assert run(*arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("nn.Conv2d(3, 20, 3)", r"gives scores of shape \(1, 20, 222, 222\), not \(N, classes\) scores"),
        (
            "nn.Sequential(nn.Flatten(), nn.Linear(9, 20))",
            r"fails on an input of 3 x 224 x 224 \(.*\). Is --size right",
        ),
        ("Named()", r"gives dict of 'logits', not \(N, classes\) scores"),
    ],
)
def test_networks_that_cannot_be_scored(network, says, capsys):
    root = make_voc(Path("data"))
    named = "class Named(nn.Module):\n    def forward(self, x):\n        return {'logits': x.mean((2, 3))}\n"
    Path("wrong_network.py").write_text(f"from torch import nn\n{named}make = lambda: {network}\n")
    assert run("evaluate", "voc", "--root", root, "--model", "wrong_network:make", "--device", "cpu") == 2
    assert re.search(says, capsys.readouterr().err)
    sys.modules.pop("wrong_network")


BLOCKED = """
import sys
from captum_regioncam.cli import main

class Broken:
    def find_spec(self, name, *others):
        if name == "torchmetrics":
            raise {error}

sys.meta_path.insert(0, Broken())
sys.exit(main({arguments}))
"""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("ModuleNotFoundError(name)", 'this needs: pip install "captum_regioncam[eval]" (torchmetrics)'),
        (
            "RuntimeError('operator torchvision::nms does not exist')",
            "Install the torchvision that matches this torch, or uninstall torchvision.",
        ),
    ],
)
def test_without_torchmetrics(error, says):
    make_folder(Path("data"))
    program = BLOCKED.format(error=error, arguments=["evaluate", "folder", "--root", "data"])
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
