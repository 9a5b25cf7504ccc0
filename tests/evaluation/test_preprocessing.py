"""The preprocessing that a factory's network brings along."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from commands import run, scores_in
from made_datasets import ColourNet, make_folder, shapes
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode
from transformers import (
    CLIPImageProcessor,
    ConvNextImageProcessor,
    EfficientNetImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from captum_regioncam.evaluation import Classifier
from captum_regioncam.evaluation.layer_choice import choose_layers
from captum_regioncam.evaluation.preprocessing import preprocessing_of
from captum_regioncam.evaluation.runs.folder import recorded

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def load(monkeypatch):
    """Load what a factory returns, by the factory's name."""
    module = type(sys)("made_factory")
    monkeypatch.setitem(sys.modules, "made_factory", module)

    def load(made, **options):
        module.make = lambda: made
        return Classifier.load("made_factory:make", **options)

    return load


def summary(classifier):
    names = classifier.interpolation.name.lower(), classifier.resampling.name.lower()
    return classifier.size, list(classifier.mean), list(classifier.std), *names, classifier.crop_ratio


def vit(**options):
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "num_labels": 3}
    return ViTForImageClassification(ViTConfig(**tiny, patch_size=8, **options))


def test_networks_that_say_nothing_have_the_defaults(load, caplog):
    caplog.set_level(logging.INFO)
    classifier = load(ColourNet())
    assert summary(classifier) == (224, *IMAGENET, "bicubic", "bicubic", 224 / 256)
    assert classifier.settings == {
        "model": "made_factory:make", "weights": None, "size": None, "mean": None, "std": None,
    }  # fmt: skip
    assert not caplog.records
    network = ColourNet()
    network.preprocessing, network.pretrained_cfg, network.config = nn.Identity(), "of my own", {"image_size": 5}
    network.image_processor = print
    assert summary(load(network)) == summary(classifier)


def test_timm_s_networks(load, caplog):
    caplog.set_level(logging.INFO)
    network = timm.create_model("mobilenetv3_small_050", pretrained=False)
    network.pretrained_cfg = network.pretrained_cfg | {
        "input_size": (3, 160, 160), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 0.95,
        "interpolation": "bilinear",
    }  # fmt: skip
    classifier = load(network)
    assert summary(classifier) == (160, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4], "bilinear", "bilinear", 0.95)
    assert classifier.settings["preprocessing"] == {
        "from": "pretrained_cfg", "size": 160, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4],
        "interpolation": "bilinear", "crop_ratio": 0.95,
    }  # fmt: skip
    json.dumps(classifier.settings)
    assert [record.getMessage() for record in caplog.records] == [
        "made_factory:make: preprocessing of the network: size 160, mean 0.5,0.4,0.3, std 0.2,0.3,0.4, interpolation "
        "bilinear, crop_ratio 0.95 (from its pretrained_cfg)."
    ]
    network.pretrained_cfg |= {"interpolation": "random", "crop_pct": 1.1, "mean": None}
    assert summary(load(network)) == (160, IMAGENET[0], [0.2, 0.3, 0.4], "bicubic", "bicubic", 1.0)


def test_a_network_by_its_name_in_timm_is_resized_as_before():
    classifier = Classifier.load("timm:mobilenetv3_small_050", "none")
    assert (classifier.resampling.name, classifier.own) == ("BICUBIC", None)
    assert "preprocessing" not in classifier.settings


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (ViTImageProcessor(size={"height": 32, "width": 32}), (32, [0.5] * 3, [0.5] * 3, "bilinear", 1.0)),
        (
            ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.8, image_mean=[0.1, 0.2, 0.3]),
            (64, [0.1, 0.2, 0.3], [0.5] * 3, "bicubic", 0.8),
        ),
        (
            CLIPImageProcessor(size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}, resample=2),
            (64, [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711], "bilinear", 0.8),
        ),
        (ViTImageProcessor(do_normalize=False), (224, [0] * 3, [1] * 3, "bilinear", 1.0)),
    ],
)
def test_image_processors_of_transformers(load, processor, expected):
    network = vit(image_size=32)
    found = summary(load((network, processor)))
    assert found[:4] + found[5:] == expected
    assert found[3] == found[4]
    other = vit(image_size=32)
    other.image_processor = processor
    assert summary(load(other)) == found


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(rescale_factor=1 / 127.5),
        ViTImageProcessor(do_rescale=False, image_mean=100.0, image_std=50.0),
        EfficientNetImageProcessor(rescale_factor=1 / 127.5, rescale_offset=True, include_top=False),
        ViTImageProcessor(),
    ],
)
def test_pixels_are_what_the_image_processor_makes_of_them(load, processor):
    classifier = load((ColourNet(), processor), size=44)
    photo = Image.fromarray(shapes(0, width=44)[0])
    processor.do_resize = processor.do_center_crop = False
    expected = processor(photo, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(classifier.preprocess(photo), expected, atol=1e-4, rtol=1e-4)


def test_transformers_from_a_folder_and_by_their_configuration(load, tmp_path):
    assert summary(load(vit(image_size=32))) == (32, *IMAGENET, "bicubic", "bicubic", 224 / 256)
    assert preprocessing_of(vit(image_size=(32, 48))).values == {}
    assert load(vit(image_size=32)).settings["preprocessing"] == {"from": "config.image_size", "size": 32}
    vit(image_size=32).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    classifier = load(ViTForImageClassification.from_pretrained(tmp_path))
    assert summary(classifier) == (32, [0.5] * 3, [0.5] * 3, "bilinear", "bilinear", 1.0)
    assert classifier.settings["preprocessing"]["from"] == "preprocessor_config.json"
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(ValueError, match="its image processor has list instead of settings"):
        load(ViTForImageClassification.from_pretrained(tmp_path))


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", Image.Resampling.BILINEAR, InterpolationMode.BILINEAR])
def test_a_factory_of_one_s_own(load, beside, interpolation):
    brought = {"size": 48, "mean": np.full(3, 0.5), "std": torch.full((3,), 0.25), "interpolation": interpolation}
    network = ColourNet()
    network.pretrained_cfg = {"mean": (0, 0, 0)}  # which its own has precedence over
    network.preprocessing = {} if beside else brought
    classifier = load((network, brought) if beside else network)
    assert summary(classifier) == (48, [0.5] * 3, [0.25] * 3, "bilinear", "bilinear", 224 / 256)


def test_what_is_given_comes_first(load, caplog):
    caplog.set_level(logging.INFO)
    network = ColourNet()
    network.preprocessing = {"size": (48, 64), "mean": [0.5] * 3, "interpolation": "bilinear"}
    classifier = load(network, size=32, interpolation="lanczos", std=(1, 1, 1))
    assert summary(classifier) == (32, [0.5] * 3, [1] * 3, "lanczos", "lanczos", 224 / 256)
    assert classifier.settings | {"model": 0} == {
        "model": 0, "weights": None, "size": 32, "mean": None, "std": [1, 1, 1], "interpolation": "lanczos",
        "preprocessing": {"from": "preprocessing", "mean": [0.5] * 3},
    }  # fmt: skip
    assert (
        "mean 0.5,0.5,0.5 (from its preprocessing); given instead: size, std, interp" in caplog.records[0].getMessage()
    )
    with pytest.raises(ValueError, match=r"its preprocessing gives size \(48, 64\): expects one side of a square"):
        load(network)


@pytest.mark.parametrize("resize", ["squash", "short", "crop"])
def test_photos_are_resized_as_the_network_says(load, resize):
    photo = Image.fromarray(shapes(0)[0])
    for interpolation in ("bilinear", "nearest"):
        classifier = load((ColourNet(), {"size": 20, "interpolation": interpolation}), resize=resize)
        seen, found = classifier.fit(photo)
        size = classifier.input_size(*photo.size)
        assert np.array_equal(found, seen.resize(size, Image.Resampling[interpolation.upper()]))
        assert not np.array_equal(found, seen.resize(size, Image.Resampling.BICUBIC))
    given = Classifier.load("torchvision:resnet18", "none", size=20, resize=resize, interpolation="box")
    assert np.array_equal(given.fit(photo)[1], given.fit(photo)[0].resize(size, Image.Resampling.BOX))
    with pytest.raises(ValueError, match=r"^interpolation='cubic': expects one of nearest, box, bilinear, hamming"):
        Classifier.load("torchvision:resnet18", "none", interpolation="cubic")


@pytest.mark.parametrize(
    ("brought", "message"),
    [
        (
            {"sizes": 3},
            "its preprocessing has 'sizes'; expects any of size, mean, std, interpolation, crop_ratio, resh",
        ),
        ({"size": 0}, "its preprocessing gives size 0: expects one side of a square, 1 to 4096 pixels; pass size"),
        ({"size": 224.5}, r"gives size 224\.5: expects one side"),
        ({"mean": 0.5}, r"gives mean 0\.5: expects three numbers"),
        ({"mean": (1, 2)}, r"gives mean \(1, 2\): expects three numbers, one for each of R, G and B"),
        ({"mean": "abc"}, "gives mean 'abc': expects three numbers"),
        ({"std": (1, 0, 1)}, r"gives std \(1, 0, 1\): expects numbers above 0"),
        ({"std": (1, float("nan"), 1)}, "expects three numbers"),
        ({"interpolation": "cubic"}, "gives interpolation 'cubic': expects one of nearest, box, bilinear"),
        ({"interpolation": 3}, "gives interpolation 3: expects one of"),
        ({"crop_ratio": 1.5}, r"gives crop_ratio 1\.5: expects a number above 0, at most 1"),
        ({"reshape": "tokens"}, "gives reshape 'tokens': expects tokens:N, tokens:N:M or channels-last"),
        (
            "imagenet",
            "the factory returned a network and str; the second must be a mapping, as preprocessing, or an im",
        ),
    ],
)
def test_values_that_are_wrong(load, brought, message):
    with pytest.raises(ValueError, match=rf"^model='made_factory:make': .*{message}"):
        load((ColourNet(), brought))


def test_processors_and_configurations_that_are_wrong(load):
    network = ColourNet()
    network.pretrained_cfg = {"input_size": (3, 224, 320), "mean": (0.5,)}
    with pytest.raises(ValueError, match=r"its pretrained_cfg gives size \(224, 320\): expects one side of a square"):
        load(network)
    with pytest.raises(ValueError, match=r"its pretrained_cfg gives mean \(0\.5,\): expects three numbers"):
        load(network, size=224)
    with pytest.raises(ValueError, match=r"its image_processor gives size \[32, 48\]: expects one side"):
        load((ColourNet(), ViTImageProcessor(size={"height": 32, "width": 48})))


def test_the_layout_of_named_layers(load):
    network = vit(image_size=32).eval()
    layers = ["vit.layers.0"] if hasattr(network.vit, "layers") else ["vit.encoder.layer.0"]
    x = torch.randn(1, 3, 32, 32)
    classifier = load((network, {"reshape": "tokens:1", "size": 32}))
    tokens = torch.arange(17.0).view(1, 17, 1)
    expected = tokens[:, 1:].view(1, 1, 4, 4)
    transform = choose_layers(classifier, layers, x).reshape_transform
    assert torch.equal(transform.for_inputs([x])(tokens), expected)
    choose_layers(classifier, None, x)  # the layout of the stages is measured
    wrong = load((network, {"reshape": "tokens:2", "size": 32}))
    with pytest.raises(
        ValueError, match=r"^model: its preprocessing has reshape='tokens:2': layer .*; tokens:1 leaves"
    ):
        choose_layers(wrong, layers, x)
    assert torch.equal(choose_layers(wrong, layers, x, "tokens:1").reshape_transform.for_inputs([x])(tokens), expected)


@pytest.mark.usefixtures("colour_factory")
def test_commands_take_what_the_network_says(capsys):
    root = make_folder(Path("data"))
    Path("said.py").write_text(
        "from colour_factory import colour_net\n"
        "said = {'size': 32, 'mean': [.5] * 3, 'std': [.5] * 3, 'interpolation': 'box'}\n"
        "def make():\n    return colour_net(), said\n"
    )
    network = ["--layers", "relu1,relu2", "--device", "cpu"]
    given = ["--size", "32", "--mean", ".5,.5,.5", "--std", ".5,.5,.5", "--interpolation", "box"]
    options = {"said": ["said:make"], "given": ["colour_factory:colour_net", *given]}
    for name, model in options.items():
        command = ["evaluate", "folder", "--root", root, *network, "--json", f"{name}.json"]
        assert run(*command, "--model", *model) == 0
        printed = "".join(capsys.readouterr())
        assert ("preprocessing of the network: size 32" in printed) == (name == "said")
    assert scores_in("said.json") == scores_in("given.json")
    seeds = ["seeds", "folder", "--root", root, *network, "--output", "seeds"]
    assert run(*seeds, "--model", "said:make") == 0
    assert recorded(Path("seeds"))["preprocessing"]["interpolation"] == "box"
    Path("said.py").write_text("from colour_factory import colour_net as make\n")
    sys.modules.pop("said")
    assert run(*seeds, "--model", "said:make", "--resume") == 2
    assert "was made with preprocessing = " in capsys.readouterr().err
    assert run(*seeds, "--model", "said:make", "--interpolation", "cubic") == 2
    assert "invalid choice: 'cubic'" in capsys.readouterr().err
    sys.modules.pop("said", None)
