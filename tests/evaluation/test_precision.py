"""The precision of a network's passes, and the order of its inputs in memory."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from commands import MODEL, VOC_MODEL, run
from helpers import Named, conv
from made_datasets import Shapes, colour_classifier, make_folder, make_ilsvrc, make_voc
from torch import nn

from captum_regioncam import LayerRegionCam, region_cam
from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation import (
    Classifier,
    Protocol,
    evaluate,
    load_seed,
    open_dataset,
    write_explanations,
    write_seeds,
)
from captum_regioncam.evaluation.photo_maps import PhotoMaps
from captum_regioncam.evaluation.runs.record import Record

LAYERS = ["relu1", "relu2"]
QUIET = {"layers": LAYERS, "show_progress": False}
SCALES = Protocol((1.2, 1.0, 0.5), flip=True, batch=3)  # at 1.2, no gradients are needed


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def classifier():
    return colour_classifier()


def maps_of(maps, method="region-cam"):
    photos = [maps.reader(Shapes())(index) for index in range(3)]
    return [one for [one] in maps.maps(method, photos, [(44, 60)] * 3)]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", ["region-cam", "layer-cam", "grad-cam", "cam", "ours", "captum's"])
def test_maps_are_close_to_those_of_float32(classifier, method, precision):
    model = classifier.model
    methods = {
        "ours": LayerRegionCam(model, [model.relu1, model.relu2]),
        "captum's": LayerGradCam(model, model.relu2),
    }
    chosen = {method: methods.get(method, method)}
    of_both = []
    for which in ("float32", precision):
        maps = PhotoMaps.of(classifier, chosen, SCALES, layers=LAYERS, precision=which)
        of_both.append(maps_of(maps, method))
    for exact, low in zip(*of_both, strict=True):
        assert low.dtype == torch.float32
        assert not torch.equal(exact, low)
        assert (exact - low).abs().mean() < 0.02


@pytest.mark.filterwarnings("ignore:The maps of examples")  # a class of which random weights say nothing
def test_only_the_passes_are_in_low_precision(classifier, monkeypatch):
    kinds = {"features": set(), "semantics": set(), "maps": set()}
    propagate = region_cam.propagate

    def spy(features, semantics):
        maps = propagate(features, semantics)
        for name, tensor in (("features", features), ("semantics", semantics), ("maps", maps)):
            kinds[name].add(tensor.dtype)
        return maps

    seen = []
    classifier.model.relu2.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    monkeypatch.setattr(region_cam, "propagate", spy)
    maps = PhotoMaps.of(classifier, ["region-cam"], SCALES, precision="bfloat16")  # the stages are found in float32
    assert seen[0] == torch.float32
    assert maps.layer_names == PhotoMaps.of(classifier, ["region-cam"], SCALES).layer_names
    for found in kinds.values():
        found.clear()
    seen.clear()
    maps_of(maps)
    assert set(seen) == {torch.bfloat16}
    assert kinds == {"features": {torch.bfloat16}, "semantics": {torch.float32}, "maps": {torch.float32}}
    assert {parameter.dtype for parameter in classifier.model.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def test_another_precision_is_another_run(classifier, caplog):
    options = {"limit": 2, **QUIET}
    with caplog.at_level("INFO", "captum_regioncam"):
        write_seeds(classifier, Shapes(), "seeds", precision="bfloat16", **options)
    assert "; passes in bfloat16" in caplog.text
    with pytest.raises(ArgumentError, match="output='seeds': was made with precision = 'bfloat16', but now it is None"):
        write_seeds(classifier, Shapes(), "seeds", resume=True, **options)
    with pytest.raises(ArgumentError, match="was made with precision = 'bfloat16', but now it is 'float16'"):
        write_seeds(classifier, Shapes(), "seeds", precision="float16", resume=True, **options)
    assert write_seeds(classifier, Shapes(), "seeds", precision="bfloat16", resume=True, **options).failures == {}
    write_seeds(classifier, Shapes(), "exact", **options)
    [low], [exact] = Record.read(Path("seeds")).runs, Record.read(Path("exact")).runs
    assert low.settings["precision"] == low.sessions[0]["precision"] == "bfloat16"
    assert "precision" not in exact.settings  # nor in those of folders from before there was the option
    assert exact.sessions[0]["precision"] == "float32"
    assert not np.array_equal(load_seed("seeds/one.npy").high_res, load_seed("exact/one.npy").high_res)


def test_scores_and_explanations(classifier):
    data = open_dataset("ilsvrc", make_ilsvrc(Path("data")))
    own = {"own": LayerGradCam(classifier.model, classifier.model.relu2)}
    seen = []
    hook = classifier.model.fc.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    for methods in (["grad-cam"], own):  # the class scores are those of the same passes, or of one more
        report = evaluate(classifier, data, methods, precision="bfloat16", **QUIET)
        assert report.provenance["precision"] == "bfloat16"
        assert report.failures == {}
        assert seen[-1] == torch.bfloat16
    hook.remove()
    root = make_folder(Path("photos"), photos=1)
    options = {"targets": [1], "methods": ["region-cam", "grad-cam"], "layers": LAYERS, "save_npy": True}
    for name in ("float32", "bfloat16"):
        explained = write_explanations(classifier, root / "images", name, precision=name, overlay=True, **options)
        assert explained.failures == {}
    exact, low = (np.load(f"{name}/photo_0_cam.npy")[0] for name in ("float32", "bfloat16"))
    assert 0 < np.abs(exact - low).mean() < 0.02
    exact, low = (json.loads(Path(f"{name}/manifest.json").read_text()) for name in ("float32", "bfloat16"))
    assert (exact["precision"], low["precision"], low["settings"]["precision"]) == ("float32", "bfloat16", "bfloat16")
    assert "precision" not in exact["settings"]


def test_a_precision_that_cannot_be(classifier):
    for call, *where in ((evaluate, Shapes()), (write_seeds, Shapes(), "out"), (write_explanations, "a.png", "out")):
        with pytest.raises(ArgumentError, match="precision='half': expects one of float32, bfloat16, float16"):
            call(classifier, *where, precision="half")
    assert not Path("out").exists()


@pytest.mark.parametrize("kind", ["device", "network"])
def test_a_device_or_network_that_cannot_compute_in_it(classifier, kind, monkeypatch):
    if kind == "device":
        autocast = torch.autocast

        def warns(device, dtype=None, enabled=True):  # as torch does where a device has no such precision
            if enabled:
                warnings.warn("the target dtype is not supported. Disabling autocast.", stacklevel=2)
            return autocast(device, dtype, enabled=False)

        monkeypatch.setattr(torch, "autocast", warns)
        says = "the device does not compute in it"
    else:
        forward = classifier.model.forward

        def strict(x):
            scores = forward(x)
            if scores.dtype != torch.float32:
                raise RuntimeError("expected Float, got BFloat16")
            return scores

        classifier.model.forward = strict
        says = "expected Float, got BFloat16"
    root = make_folder(Path("photos"), photos=1)
    message = rf"precision='bfloat16': fails on cpu \({says}\); pass precision='float32'\."
    for call in (
        lambda: write_seeds(classifier, Shapes(), "out", precision="bfloat16", **QUIET),
        lambda: write_explanations(classifier, root / "images", "out", layers=LAYERS, precision="bfloat16"),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()
    assert not Path("out").exists()


@pytest.mark.usefixtures("colour_factory")
def test_on_the_command_line(capsys):
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, "--scales", "1", "--output", "seeds", "--limit", "2"]
    assert run(*command, "--precision", "bfloat16") == 0
    assert run(*command, "--resume") == 2
    assert "--output seeds: was made with precision = 'bfloat16', but now it is None" in capsys.readouterr().err
    assert run(*command, "--precision", "half") == 2
    assert "argument --precision: invalid choice: 'half'" in capsys.readouterr().err
    scoring = ["evaluate", "voc", "--root", root, "--limit", "2"]
    assert run(*scoring, *VOC_MODEL, "--precision", "bfloat16", "--scales", "1", "--json", "out.json") == 0
    assert json.loads(Path("out.json").read_text())["provenance"]["precision"] == "bfloat16"
    assert run(*scoring, "--seeds", "seeds", "--precision", "bfloat16") == 2
    assert "--precision: cannot be used with --seeds" in capsys.readouterr().err
    photos = make_folder(Path("photos"), photos=1) / "images"
    assert run("explain", photos, *MODEL, "--precision", "bfloat16", "--output", "out") == 0
    assert run("layers", *MODEL, "--precision", "bfloat16") == 2
    assert "unrecognized arguments: --precision bfloat16" in capsys.readouterr().err


def strides_of(model):
    return {name: parameter.stride() for name, parameter in model.named_parameters()}


def test_inputs_are_channels_last_and_the_network_is_as_it_was(classifier):
    before = strides_of(classifier.model)
    seen = []
    maps = PhotoMaps.of(classifier, ["region-cam", "layer-cam"], SCALES, layers=LAYERS)
    classifier.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    usual = replace(maps, memory_format=torch.contiguous_format)
    for method in maps.attributions:
        for last, first in zip(maps_of(maps, method), maps_of(usual, method), strict=True):
            torch.testing.assert_close(last, first, atol=2e-5, rtol=0)
    is_last = [x.is_contiguous(memory_format=torch.channels_last) for x in seen]
    assert is_last == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3
    assert {tuple(x.shape[1:]) for x in seen} == {(3, 48, 48), (3, 58, 58), (3, 24, 24)}
    assert strides_of(classifier.model) == before
    seen.clear()
    root = make_folder(Path("photos"), photos=1)
    write_explanations(classifier, root / "images", "out", layers=LAYERS)
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
    assert strides_of(classifier.model) == before


def test_a_network_that_views_its_features_gets_the_usual_order():
    net = Named(
        lambda net, x: net.fc(net.relu(net.conv(x)).view(len(x), -1)),
        conv=conv(3, 4, 8), relu=nn.ReLU(), fc=nn.Linear(4 * 36, 3),
    ).eval()  # fmt: skip
    classifier = Classifier(net, size=48)
    assert PhotoMaps.of(classifier, ["region-cam"], layers=["relu"]).memory_format == torch.contiguous_format
    assert write_seeds(classifier, Shapes(), "seeds", layers=["relu"], show_progress=False).failures == {}
    root = make_folder(Path("photos"), photos=1)
    assert write_explanations(classifier, root / "images", "out", layers=["relu"]).failures == {}


def test_a_function_that_views_its_inputs_gets_the_usual_order(classifier):
    def own(x, targets):
        return x.view(len(x), -1).view(x.shape).mean(1, keepdim=True).expand(-1, len(targets), -1, -1)

    assert PhotoMaps.of(classifier, [own]).memory_format == torch.contiguous_format
    root = make_folder(Path("photos"), photos=1)
    assert write_explanations(classifier, root / "images", "out", methods=[own]).failures == {}
