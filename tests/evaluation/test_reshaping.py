"""Named layers with a layout of their own: many class tokens, and channels-last."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from made_datasets import make_voc
from PIL import Image
from skimage.data import chelsea
from torch import nn

from captum_regioncam import LayerRegionCam, channels_last, tokens_to_grid
from captum_regioncam.evaluation import Classifier, Protocol, evaluate, open_dataset, write_explanations, write_seeds
from captum_regioncam.evaluation.layer_choice import choose_layers
from captum_regioncam.network.reshape import TokensToGrid


class Block(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return x + (q @ k.transpose(1, 2)).softmax(-1) @ v


class ManyTokens(nn.Module):
    """A class token for each class, before the patches, as in MCTformer; a score is the mean of its token."""

    def __init__(self, classes=20):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.tokens = nn.Parameter(torch.randn(1, classes, 8))
        self.blocks = nn.Sequential(Block(), Block(), Block())

    def forward(self, x):
        tokens = self.tokens.expand(len(x), -1, -1)
        x = self.blocks(torch.cat([tokens, self.patches(x).flatten(2).transpose(1, 2)], dim=1))
        return x[:, : tokens.shape[1]].mean(-1)


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, 8)
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 20)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1)).relu().mean((1, 2)))


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(chelsea()).resize((64, 64)).save("cat.png")


CASES = [
    (ManyTokens, ["blocks.0", "blocks.1"], "tokens:20", tokens_to_grid(20)),
    (ChannelsLast, ["norm"], "channels-last", channels_last),
]


@pytest.mark.parametrize(("make", "layers", "reshape", "transform"), CASES)
def test_maps_are_those_of_the_reshape_transform(make, layers, reshape, transform):
    classifier = Classifier(make().eval(), size=64, resize="short")
    modules = [classifier.model.get_submodule(name) for name in layers]
    wanted = LayerRegionCam(classifier.model, modules, reshape_transform=transform)
    explained = write_explanations(
        classifier, "cat.png", "maps", targets=[3], layers=layers, reshape=reshape, save_npy=True
    )
    assert explained.failures == {}
    x = classifier.preprocess(classifier.fit(Image.open("cat.png"))[1])
    expected = nn.functional.interpolate(wanted.attribute(x, 3), (64, 64), mode="bilinear")[0, 0].detach()
    assert expected.std() > 0.01
    np.testing.assert_allclose(np.load("maps/cat_cam.npy")[0, 0], expected, atol=1e-5)
    assert json.loads(Path("maps/manifest.json").read_text())["settings"]["reshape"] == reshape
    data = open_dataset("voc", make_voc(Path(), ["2007_000001", "2007_000002"]))
    protocol = Protocol((1, 0.5), flip=True, resize="short", normalize="max", upsample="irn")
    options = {"protocol": protocol, "show_progress": False}
    seeds = write_seeds(classifier, data, "seeds", layers=layers, reshape=reshape, **options)
    assert seeds.failures == {}
    report = evaluate(
        classifier, data, {"named": "region-cam", "ours": wanted}, layers=layers, reshape=reshape, **options
    )
    assert report.failures == {}
    assert report.scores["named"] == report.scores["ours"]
    with pytest.raises(ValueError, match=f"was made with reshape = '{reshape}'"):
        write_seeds(classifier, data, "seeds", layers=layers, resume=True, **options)


def test_layers_and_the_command_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "own_tokens.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_reshaping import ManyTokens\n"
    )
    network = ["--model", "own_tokens:ManyTokens", "--size", 64, "--device", "cpu", "--layers", "blocks.0,blocks.1"]
    assert run("explain", "cat.png", *network, "--reshape", "tokens:20", "--output", "maps") == 0
    assert run("layers", *network, "--reshape", "tokens:20") == 0
    assert capsys.readouterr().out.endswith("* chosen: blocks.0, blocks.1\n")
    assert run("explain", "cat.png", *network, "--reshape", "tokens:1", "--output", "maps") == 2
    assert capsys.readouterr().err == (
        "captum-regioncam explain: error: --reshape tokens:1: layer blocks.0 gives a tensor of shape (1, 84, 8), whose "
        "83 other tokens do not form a grid with the proportions of the input; tokens:20 leaves its patches.\n"
    )
    assert run("evaluate", "voc", "--root", ".", "--seeds", ".", "--reshape", "tokens:1") == 2
    assert "--reshape: cannot be used with --seeds" in capsys.readouterr().err
    assert run("evaluate", "voc", "--root", ".", "--seeds", ".", "--weights-key", "a") == 2
    assert "--weights-key: cannot be used with --seeds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "layers", "reshape", "said"),
    [
        (ManyTokens, None, "tokens:20", "requires layers; the layout of the stages found is known."),
        (ManyTokens, ["blocks.0"], "tokens", "expects tokens:N, where N is the number of tokens before the patches, "),
        (ManyTokens, ["blocks.0"], "tokens:-1", "expects tokens:N, "),
        (ManyTokens, ["blocks.0"], "tokens:99", "layer blocks.0 gives a tensor of shape (1, 84, 8), whose -15 other "),
        (
            ManyTokens, ["blocks.0"], "channels-last",
            "layer blocks.0 gives a tensor of shape (1, 84, 8), not (N, height, width, channels); pass tokens:N, ",
        ),
        (
            ChannelsLast, ["norm"], "tokens:1",
            "layer norm gives a tensor of shape (1, 8, 8, 8), not (N, tokens, channels); pass channels-last if its ",
        ),
        (
            ChannelsLast, ["fc"], "channels-last",
            "layer fc gives a tensor of shape (1, 20), not (N, height, width, channels); choose another layer.",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit(make, layers, reshape, said):
    with pytest.raises(ValueError, match="reshape") as error:
        choose_layers(Classifier(make().eval(), size=64), layers, reshape=reshape)
    assert str(error.value).startswith(f"reshape={reshape!r}: {said}")


def test_tokens_follow_the_proportions_of_each_photo():
    stages = choose_layers(Classifier(ManyTokens().eval(), size=64), ["blocks.0"], reshape="tokens:20")
    assert isinstance(stages.reshape_transform, TokensToGrid)
    assert stages.reshape_transform.prefix_tokens == 20
