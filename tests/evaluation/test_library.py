"""The evaluation from Python, as in a notebook: one's own network, data set and methods, without the command line."""

import csv
import json
import logging
from dataclasses import replace
from pathlib import Path

import made_datasets
import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Saliency
from commands import SMALL, VOC_MODEL, run, scores_in
from made_datasets import NAMES, ColourNet, colour_classifier, everything, make_folder, make_ilsvrc, make_voc, shapes
from PIL import Image
from torch import nn

from captum_regioncam import LayerRegionCam
from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation import (
    Classifier,
    Protocol,
    Report,
    SegmentationMetric,
    evaluate,
    evaluate_seeds,
    load_seed,
    multiscale_maps,
    normalize,
    open_dataset,
    write_explanations,
    write_label_maps,
    write_seeds,
)
from captum_regioncam.evaluation.runs.record import Record

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
LAYERS = ["relu1", "relu2"]


class Shapes(made_datasets.Shapes):
    names = ("one", "two", "deep/three")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def classifier():
    return colour_classifier()


def test_a_notebook():
    """A made-up VOC, a network of one's own, Captum's LayerGradCam and a function, in a few lines."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 20))
    classifier = Classifier(model.eval(), size=64, resize="short")
    data = open_dataset("voc", make_voc(Path()), split="train")
    methods = {
        "ours": LayerRegionCam(model, model[1]),
        "captum's": LayerGradCam(model, model[1]),
        "a function": lambda x, targets: x.abs().sum(1, keepdim=True).expand(-1, len(targets), -1, -1),
        "grad-cam": "grad-cam",
    }
    report = evaluate(classifier, data, methods, protocol=Protocol(scales=(1.0, 0.5)), layers=["1"])
    assert list(report.scores) == list(methods)
    assert report.scores["captum's"] == report.scores["grad-cam"]
    assert report.scores["captum's"] != report.scores["ours"]
    assert (report.scores["ours"]["photos"], report.failures) == (6, {})
    assert report.table().splitlines()[0] == "mIoU (%) at threshold 0.15 and at the best; 6 photos"
    seeds = write_seeds(classifier, data, "work/seeds", method=methods["ours"], protocol=Protocol.irn(), limit=4)
    again = write_seeds(
        classifier, data, "work/seeds", method=methods["ours"], protocol=Protocol.irn(), limit=4, resume=True
    )
    assert (len(seeds.names), seeds.failures, again.failures) == (4, {}, {})
    labels = write_label_maps(seeds.folder, "work/labels", threshold=0.3)
    assert sorted(path.stem for path in labels.folder.glob("*.png")) == NAMES[:4]
    scored = evaluate_seeds("work/seeds", data, limit=4)
    assert 0 <= scored.scores["seeds in work/seeds"]["miou"] <= 100


def test_own_data_and_the_metric_by_hand(classifier):
    """A user's data set, scored by evaluate, is what multiscale_maps and the metric say."""
    cam = LayerRegionCam(classifier.model, [classifier.model.relu1, classifier.model.relu2])
    report = evaluate(classifier, Shapes(), [cam, "layer-cam"], layers=LAYERS, show_progress=False)
    metric = SegmentationMetric(3)
    for sample in (Shapes()[index] for index in range(3)):
        [maps] = multiscale_maps(
            cam, sample.photo, sample.targets, classifier.preprocess, scales=[1], flip=False, input_size=(48, 48),
            sizes=[(44, 60)],
        )  # fmt: skip
        metric.update(normalize(maps, "minmax"), torch.tensor(sample.keys), sample.labels)
    found, expected = report.scores["LayerRegionCam"], metric.compute()
    assert found["miou"] == pytest.approx(100 * float(expected["miou"]), abs=1e-9)
    assert found["best_threshold"] == float(expected["best_threshold"])
    assert list(found["per_class"]) == ["background", "red", "green", "blue"]
    assert report.provenance["dataset"] == "test_library:Shapes"
    seeds = write_seeds(classifier, Shapes(), "seeds", layers=LAYERS, format="psa")
    assert sorted(path.relative_to("seeds").as_posix() for path in Path("seeds").rglob("*.npy")) == [
        "deep/three.npy",
        "one.npy",
        "two.npy",
    ]
    [recorded] = Record.read(seeds.folder).runs
    assert seeds.record.is_file()
    assert recorded.settings["model"] == "made_datasets:ColourNet"
    assert recorded.settings["size"] == 48
    assert recorded.sessions[0]["command_line"]
    with pytest.raises(ArgumentError, match="has no record that names the photos of the seeds; give data"):
        write_label_maps("seeds", "labels")  # a file of this format does not hold the photo's size
    assert write_label_maps("seeds", "labels", data=Shapes()).failures == {}
    assert evaluate_seeds("seeds", Shapes()).scores["seeds in seeds"]["photos"] == 3


def test_names_of_own_data_stay_in_the_folder(classifier):
    class Elsewhere(Shapes):
        names = ("../one", "two", "three")

    before = everything(".")
    with pytest.raises(ValueError, match=r"names: '\.\./one' leads out of"):
        write_seeds(classifier, Elsewhere(), "seeds", layers=LAYERS)
    assert everything(".") == before


@pytest.mark.usefixtures("colour_factory")
def test_the_command_line_gives_the_same_files():
    """Seeds, label maps and scores of the commands, byte for byte, and each continues the other's folder."""
    root = make_voc(Path("data"))
    data = open_dataset("voc", root)
    classifier = Classifier.load("colour_factory:voc_net", **{name: list(value) for name, value in HALF.items()})
    protocol = Protocol((1.0, 0.5), flip=True, resize="keep", normalize="max", upsample="irn", batch=1)
    assert run("seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "a", "--label-maps", "maps") == 0
    written = write_seeds(classifier, data, "b", protocol=protocol, layers=LAYERS)
    write_label_maps("b", "labels")
    for name in NAMES:
        assert Path(f"a/{name}.npy").read_bytes() == Path(f"b/{name}.npy").read_bytes()
        assert Path(f"maps/{name}.png").read_bytes() == Path(f"labels/{name}.png").read_bytes()
    Path(f"a/{NAMES[2]}.npy").unlink()
    assert write_seeds(classifier, data, "a", protocol=protocol, layers=LAYERS, resume=True).failures == {}
    assert Path(f"a/{NAMES[2]}.npy").read_bytes() == Path(f"b/{NAMES[2]}.npy").read_bytes()
    methods = ["region-cam", "cam"]
    command = ["evaluate", "voc", "--root", root, *VOC_MODEL, *SMALL, "--method", "region-cam,cam"]
    assert run(*command, "--json", "a.json") == 0
    report = evaluate(classifier, data, methods, protocol=protocol, layers=LAYERS, json="b.json")
    assert scores_in("a.json") == scores_in("b.json") == json.loads(json.dumps(report.scores))
    assert written.folder == Path("b")


def test_boxes_and_the_rank_of_the_class():
    """Methods of the user's own do not run the network once for each batch, so that its scores are computed apart."""
    model = ColourNet().eval()
    data = open_dataset("ilsvrc", make_ilsvrc(Path("data")))
    classifier = Classifier(model, size=32, **HALF)
    methods = {"named": "grad-cam", "own": LayerGradCam(model, model.relu2), "saliency": Saliency(model)}
    report = evaluate(classifier, data, methods, layers=LAYERS, step=0.1)
    alone = evaluate(classifier, data, ["grad-cam"], layers=LAYERS, step=0.1)
    assert report.scores["named"] == report.scores["own"] == alone.scores["grad-cam"]
    assert report.scores["saliency"]["loc5"] is not None
    assert report.columns["gt_known"] == "GT-known"


def test_reports(classifier):
    report = evaluate(
        classifier, Shapes(), ["grad-cam", "layer-cam"], layers=LAYERS, threshold=0.3, show_progress=False
    )
    report.to_csv("scores.csv")
    with Path("scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["grad-cam", "layer-cam"]
    assert float(rows[0]["miou"]) == report.scores["grad-cam"]["miou"]
    assert "per_class" not in rows[0]
    with pytest.raises(FileExistsError):
        report.to_csv("scores.csv")
    report.to_json("scores.json")
    assert scores_in("scores.json") == json.loads(json.dumps(report.scores))
    Path("theirs.json").write_text("{}")
    with pytest.raises(OSError, match="did not write"):
        report.to_json("theirs.json")
    report.plot("curve.png")
    with Image.open("curve.png") as curve:
        assert curve.size == (900, 600)
    assert "Grad-CAM" in report.table()
    assert "+--" in report.table(ascii=True)
    assert report.table(ascii=True).isascii()
    assert report.to_dict()["provenance"]["photos"] == 3
    assert Report({}).to_dict() == {"provenance": {}}


def test_an_interrupted_evaluation_is_resumed(classifier, monkeypatch):
    class Breaks(Shapes):
        broken = True

        def __getitem__(self, index):
            if self.broken and index == 2:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    monkeypatch.setattr("captum_regioncam.evaluation.runs.progress._LEAST", 0)
    monkeypatch.setattr("captum_regioncam.evaluation.runs.progress._SHARE", 1e9)
    data, options = Breaks(), {"layers": LAYERS, "progress": "counts", "protocol": Protocol(batch=1)}
    with pytest.raises(KeyboardInterrupt):
        evaluate(classifier, data, ["grad-cam"], **options)
    data.broken = False
    with pytest.raises(ArgumentError, match=r"has counted 2 photos\. Pass resume=True to continue, or delete counts"):
        evaluate(classifier, data, ["grad-cam"], **options)
    report = evaluate(classifier, data, ["grad-cam"], **options, resume=True)
    assert report.scores == evaluate(classifier, data, ["grad-cam"], **(options | {"progress": None})).scores
    assert not Path("counts").exists()


def test_scores_that_cannot_be_written_are_told(classifier, caplog, monkeypatch):
    def full(path, content):
        raise OSError("the disk is full")

    monkeypatch.setattr("captum_regioncam.evaluation.runs.report.write_output", full)
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="the disk is full"):
        evaluate(classifier, Shapes(), ["grad-cam"], layers=LAYERS, json="scores.json")
    assert "Grad-CAM" in caplog.text


def test_numbers_of_numpy(classifier):
    same = Classifier(classifier.model, size=np.int64(48), mean=np.full(3, 0.5), std=[np.float32(0.5)] * 3)
    assert same.settings == classifier.settings
    protocol = Protocol(scales=np.array([1.0]), batch=np.int64(4))
    options = {"layers": LAYERS, "limit": np.int64(2), "contrast": np.float32(4), "progress": "counts"}
    report = evaluate(same, Shapes(), ["region-cam"], protocol=protocol, threshold=np.float64(0.15), **options)
    assert report.scores == evaluate(classifier, Shapes(), ["region-cam"], layers=LAYERS, limit=2).scores


@pytest.mark.usefixtures("colour_factory")
def test_a_network_that_was_trained_after_it_was_loaded():
    torch.save(ColourNet().state_dict(), "net.pth")
    loaded = Classifier.load("colour_factory:colour_net", "net.pth", size=48)
    write_seeds(loaded, Shapes(), "seeds", layers=LAYERS, limit=1)
    with torch.no_grad():
        loaded.model.fc.weight.mul_(2)
    with pytest.raises(ArgumentError, match="was made with checkpoint ="):
        write_seeds(loaded, Shapes(), "seeds", layers=LAYERS, limit=1, resume=True)


def test_explanations_leave_a_network_in_training_mode_alone():
    model = ColourNet()
    with pytest.raises(ArgumentError, match="its network is in training mode"):
        write_explanations(Classifier(model, 48), "photo.png", "out")
    assert model.training
    assert not Path("out").exists()


def test_settings_of_a_named_network_that_was_changed():
    loaded = Classifier.load("torchvision:resnet18", "none")
    assert (loaded.settings["size"], loaded.settings["mean"]) == (None, None)
    assert replace(loaded, size=64).settings["size"] == 64
    assert Classifier.load("torchvision:resnet18", "none", size=224).settings["size"] == 224


def test_failures_are_returned(classifier):
    class Broken(Shapes):
        def __getitem__(self, index):
            if index == 1:
                raise OSError("a bad disk")
            return super().__getitem__(index)

    report = evaluate(classifier, Broken(), ["grad-cam"], layers=LAYERS)
    assert report.failures == {"two": "a bad disk"}
    assert (report.scores["grad-cam"]["photos"], report.scores["grad-cam"]["failed"]) == (2, 1)
    seeds = write_seeds(classifier, Broken(), "seeds", layers=LAYERS)
    assert seeds.failures == {"two": "a bad disk"}
    assert len(load_seed("seeds/one.npy").keys) == len(shapes(0)[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": []}, "methods: expects at least one method, got none"),
        ({"methods": ["grad"]}, "methods='grad': expects one of cam, grad-cam, layer-cam, region-cam, or an attrib"),
        ({"methods": [3]}, "methods: int is int, neither an attribution nor a function"),
        ({"methods": [abs, abs]}, r"methods: two have the same name. Pass a dict of \{name: method\}"),
        ({"layers": ["relu3"]}, r"layers='relu3': the model has no such layer. Nearest: relu"),
        ({"limit": -1}, "limit=-1: expects a whole number above 0"),
        ({"resume": True}, "resume=True: requires progress, the folder of the counts"),
        ({"plot": "curve.txt"}, "plot='curve.txt': expects a file to write, .png"),
        ({"json": "same.png", "plot": "same.png"}, "plot='same.png': is the file of json"),
        ({"methods": [lambda x, targets: x[0]]}, r"attribution gives a torch.float32 tensor of shape \(3, 48, 48\)"),
    ],
)
def test_arguments_that_cannot_be(arguments, message, classifier):
    before = everything(".")
    with pytest.raises(ValueError, match=message):
        evaluate(classifier, Shapes(), **({"layers": LAYERS} | arguments))
    assert everything(".") == before


def test_networks_that_cannot_be():
    with pytest.raises(ArgumentError, match="its network is in training mode"):
        evaluate(Classifier(ColourNet(), 48), Shapes())
    for arguments, message in [
        ({"size": 0}, "size=0: expects 1 to 4096"),
        ({"mean": (1, 2)}, r"mean=\(1, 2\): expects three numbers"),
        ({"std": (1, 0, 1)}, r"std=\(1.0, 0.0, 1.0\): expects numbers above 0"),
        ({"resize": "fill"}, "resize='fill': expects one of squash, short, crop, keep"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            Classifier(ColourNet().eval(), **arguments)
    with pytest.raises(ArgumentError, match=r"model: expects a torch\.nn\.Module, got function"):
        Classifier(lambda x: x)
    with pytest.raises(ArgumentError, match="model: gives list of"):
        evaluate(Classifier(Listed().eval(), 48), Shapes())
    data = open_dataset("voc", make_voc(Path()))
    with pytest.raises(ArgumentError, match=r"model: gives scores of shape \(1, 3\); the data set has 20 classes"):
        write_seeds(Classifier(ColourNet().eval(), 48), data, "seeds")
    with pytest.raises(ArgumentError, match="resize='crop': a seed covers the whole photo"):
        write_seeds(Classifier(ColourNet().eval(), 48, resize="crop"), Shapes(), "seeds")
    assert not Path("seeds").exists()


class Listed(nn.Module):
    """A network that returns a list."""

    def forward(self, x):
        return [x]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": ()}, r"scales=\[\]: expects at least one factor"),
        ({"scales": (1, -1)}, r"scales=\[1, -1\]"),
        ({"normalize": "mean"}, "normalize='mean': expects one of max, minmax"),
        ({"upsample": "near"}, "upsample='near': expects one of photo, irn, boxes"),
        ({"batch": 0}, "batch=0: expects a whole number above 0"),
    ],
)
def test_protocols_that_cannot_be(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Protocol(**arguments)


def test_results_of_other_settings_are_refused(classifier):
    write_seeds(classifier, Shapes(), "seeds", layers=LAYERS)
    before = everything("seeds")
    with pytest.raises(ArgumentError, match=r"output='seeds': has results already\. Pass resume=True to continue"):
        write_seeds(classifier, Shapes(), "seeds", layers=LAYERS)
    with pytest.raises(ArgumentError, match=r"output='seeds': was made with contrast = 4\.0, but now it is 2\.0"):
        write_seeds(classifier, Shapes(), "seeds", layers=LAYERS, contrast=2.0, resume=True)
    for layer, contrast in (("relu1", 3.0), ("relu2", 3.0), ("relu1", 2.0)):
        cam = LayerRegionCam(classifier.model, classifier.model.get_submodule(layer), contrast=contrast)
        if (layer, contrast) == ("relu1", 3.0):
            write_seeds(classifier, Shapes(), "own", method=cam)
            continue
        with pytest.raises(ArgumentError, match="output='own': was made with attributions ="):
            write_seeds(classifier, Shapes(), "own", method=cam, resume=True)
    write_seeds(classifier, Shapes(), "named", method={"m": "grad-cam"}, layers=LAYERS)
    with pytest.raises(ArgumentError, match="output='named': was made with attributions ="):
        write_seeds(classifier, Shapes(), "named", method={"m": "layer-cam"}, layers=LAYERS, resume=True)
    with pytest.raises(ArgumentError, match="was made with size = 48, but now it is 32"):
        write_seeds(replace(classifier, size=32), Shapes(), "seeds", layers=LAYERS, resume=True)
    with pytest.raises(ArgumentError, match="method: expects one method, got grad-cam, layer-cam"):
        write_seeds(classifier, Shapes(), "two", method={"grad-cam": "grad-cam", "layer-cam": "layer-cam"})
    with pytest.raises(ArgumentError, match="limit=0: expects a whole number above 0"):
        write_seeds(classifier, Shapes(), "seeds", layers=LAYERS, limit=0)
    other = ColourNet()
    nn.init.ones_(other.fc.weight)
    with pytest.raises(ArgumentError, match="was made with checkpoint ="):
        write_seeds(Classifier(other.eval(), 48, **HALF), Shapes(), "seeds", layers=LAYERS, resume=True)
    for bad, message in [
        ({"crf": "own"}, "crf='own': expects one of irn, psa"),
        ({"threshold": 2}, "threshold=2: expects a number from 0 to 1"),
        ({"confident": (0.1, 0.2)}, "confident: requires crf='irn'"),
        ({"overlay": "seeds"}, "overlay='seeds': is the folder of the seeds"),
        ({"names": []}, "seeds='seeds': has no seeds"),
        ({"names": ["../one"]}, r"names: '\.\./one' leads out of the folder of the seeds"),
        ({"confident": (0.3, 0.1), "crf": "irn"}, r"confident=\(0.3, 0.1\): expects two numbers"),
        ({"alphas": ()}, r"alphas=\[\]: expects at least one number"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            write_label_maps("seeds", "labels", **bad)
    assert everything("seeds") == before
    assert not Path("labels").exists()


def test_explanations(classifier):
    make_folder(Path("photos"))
    explained = write_explanations(classifier, ["photos/images"], "out", targets=[1], layers=LAYERS, save_npy=True)
    names = sorted(path.name for path in Path("photos/images").iterdir())
    assert [Path(photo).name for photo in explained.images] == names
    assert explained.failures == {}
    first = next(iter(explained.images.values()))
    assert first["classes"][0]["index"] == 1
    assert Path(str(first["picture"])).is_file()
    maps = np.load(Path(str(first["picture"])).with_suffix(".npy"))
    assert maps.shape[:2] == (1, 1)
    own = write_explanations(
        classifier,
        ["photos/images"],
        "own",
        methods=[LayerGradCam(classifier.model, classifier.model.relu2)],
        targets=[1],
    )
    assert len(own.images) == len(names)
    with pytest.raises(ArgumentError, match="target='-9': the classes are numbers from 0"):
        write_explanations(classifier, ["photos/images"], "bad", targets=[-9])
    assert not Path("bad").exists()
