"""Networks that give no class scores, or that need help to run: embeddings, IRN's CAM and Net."""

import sys
from pathlib import Path

import pytest
import torch
from commands import SMALL, run
from made_datasets import make_voc
from PIL import Image
from skimage.data import chelsea

from captum_regioncam.evaluation import Classifier, write_explanations

NETWORKS = """
import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers
from torch import nn
from captum_regioncam import class_scores, similarity_score

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
TINY = {"img_size": 32, "depth": 1, "embed_dim": 8, "num_heads": 1}


def dino(classes=0):
    return timm.create_model("vit_tiny_patch16_224", num_classes=classes, **TINY)


def head_on_dino():
    return nn.Sequential(dino(), nn.Linear(8, 3))


def compared():
    return similarity_score(dino(), torch.randn(3, 8))


def vit():
    return transformers.ViTModel(transformers.ViTConfig(image_size=32, **SIZES))


def vit_scores():
    return class_scores(vit())


def resnet():
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    return class_scores(transformers.ResNetModel(config))


def clip():
    config = transformers.CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=4, **SIZES)
    return class_scores(transformers.CLIPVisionModelWithProjection(config))


class FixedBatchNorm(nn.BatchNorm2d):
    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, eps=self.eps)


class Net(nn.Module):
    '''IRN's net/resnet50_cam.py, with ResNet-18 in place of ResNet-50.'''

    def __init__(self):
        super().__init__()
        self.resnet50 = torchvision.models.resnet18(norm_layer=FixedBatchNorm)
        first = self.resnet50.conv1, self.resnet50.bn1, self.resnet50.relu, self.resnet50.maxpool, self.resnet50.layer1
        self.stage1 = nn.Sequential(*first)
        self.stage2 = nn.Sequential(self.resnet50.layer2)
        self.stage3 = nn.Sequential(self.resnet50.layer3)
        self.stage4 = nn.Sequential(self.resnet50.layer4)
        self.classifier = nn.Conv2d(512, 20, 1, bias=False)
        self.backbone = nn.ModuleList([self.stage1, self.stage2, self.stage3, self.stage4])
        self.newly_added = nn.ModuleList([self.classifier])

    def forward(self, x):
        x = self.stage1(x)
        x = self.stage2(x).detach()
        x = self.stage3(x)
        x = self.stage4(x)
        x = torch.mean(x.view(x.size(0), x.size(1), -1), -1).view(x.size(0), x.size(1), 1, 1)
        x = self.classifier(x)
        return x.view(-1, 20)

    def train(self, mode=True):
        for p in self.resnet50.conv1.parameters():
            p.requires_grad = False
        for p in self.resnet50.bn1.parameters():
            p.requires_grad = False


class CAM(Net):
    def forward(self, x):
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        x = F.relu(F.conv2d(x, self.classifier.weight))
        return x[0] + x[1].flip(-1)
"""


@pytest.fixture(autouse=True)
def networks(tmp_path, monkeypatch):
    """A module of networks, and a photo, in the current folder."""
    (tmp_path / "own.py").write_text(NETWORKS)
    Image.fromarray(chelsea()).save(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import own

    yield own
    sys.modules.pop("own", None)


@pytest.mark.parametrize(
    ("name", "length", "why"),
    [
        ("dino", 8, "its num_classes is 0"),
        ("vit", 8, "its pooler_output"),
        ("vit_scores", 8, "its pooler_output"),
        ("resnet", 8, "its pooler_output"),
        ("clip", 4, "its image_embeds"),
    ],
)
def test_an_embedding_is_no_class_scores(name, length, why, capsys):
    said = (
        f": error: --model: gives an embedding of {length} numbers ({why}), not class scores; pass a network with a "
        "classifier, or compare embeddings with similarity_score in Python.\n"
    )
    network = ["--model", f"own:{name}", "--size", 32, "--device", "cpu"]
    assert run("explain", "cat.png", *network, "--output", "maps") == 2
    assert capsys.readouterr().err == f"captum-regioncam explain{said}"
    assert not Path("maps").exists()
    data = ["voc", "--root", make_voc(Path()), *network, *SMALL, "--resize", "squash"]
    assert run("seeds", *data, "--output", "seeds") == 2
    assert said in capsys.readouterr().err
    assert run("evaluate", *data) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["head_on_dino", "compared"])
def test_what_is_made_of_embeddings_is_explained(name):
    explained = write_explanations(Classifier.load(f"own:{name}", size=32), "cat.png", methods=["layer-cam"])
    assert explained.failures == {}


def test_irn_s_own_classes(networks, capsys):
    torch.save(networks.Net().state_dict(), "res50_cam.pth")
    network = ["--weights", "res50_cam.pth", "--size", 64, "--device", "cpu", "--output", "maps"]
    assert run("explain", "cat.png", "--model", "own:Net", "--layers", "stage3,stage4", *network) == 0
    assert "res50_cam.pth: 364 of 364 tensors fit.\ncat.png: class " in capsys.readouterr().out
    assert run("explain", "cat.png", "--model", "own:CAM", *network) == 2
    assert capsys.readouterr().err == (
        "captum-regioncam explain: error: --model: fails on one photo, and of two it gives a tensor of shape "
        "(20, 2, 2), which has no row for each photo; pass the network that gives (N, classes) scores, such as IRN's "
        "Net, not its CAM.\n"
    )
    remedy = "training mode; call model.eval.. first, or, if that has no effect, set training = False on each"
    net = networks.Net()
    assert net.eval() is None  # its train() returns nothing, and does nothing
    with pytest.raises(ValueError, match=remedy):
        write_explanations(Classifier(net, 64), "cat.png")
