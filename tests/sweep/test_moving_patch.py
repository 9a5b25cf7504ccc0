"""The moving-patch test fails what says the wrong place, and passes what says the right one."""

import pytest
import torch
import torchvision
from moving_patch import faults
from torch import nn

SIDE = 14


@pytest.fixture(scope="module")
def vit():
    """A function from images to the tokens of a small vision transformer, without the class token."""
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(SIDE * 8, 8, 3, 3, 48, 96).eval()

    @torch.no_grad()
    def tokens(x):
        kept = []
        hook = model.encoder.ln.register_forward_hook(lambda module, args, output: kept.append(output))
        model(x)
        hook.remove()
        return kept[0]

    return tokens


X = torch.randn(1, 3, SIDE * 8, SIDE * 8, generator=torch.Generator().manual_seed(0))


def on_grid(tokens):
    return tokens.transpose(1, 2).unflatten(2, (SIDE, SIDE))


def shuffled(tokens):
    return tokens[:, torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(0))]


def in_units(tokens):
    """The order of mask units of 7 x 7 tokens."""
    return tokens.unflatten(1, (2, 7, 2, 7)).transpose(2, 3).flatten(1, 4)


def in_pairs(tokens):
    """Neighbouring columns change places."""
    return tokens.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)


WRONG = {
    "shuffled": lambda tokens: on_grid(shuffled(tokens[:, 1:])),
    "in mask units": lambda tokens: on_grid(in_units(tokens[:, 1:])),
    "neighbours exchanged": lambda tokens: on_grid(in_pairs(tokens[:, 1:])),
    "one token early": lambda tokens: on_grid(tokens[:, :-1]),
    "one token late": lambda tokens: on_grid(torch.cat([tokens[:, 2:], tokens[:, :1]], 1)),
    "one row late": lambda tokens: on_grid(tokens[:, 1:]).roll(1, 2),
    "one column late, at the border as well": lambda tokens: on_grid(tokens[:, 1:])[:, :, :, [0, *range(SIDE - 1)]],
    "axes transposed": lambda tokens: on_grid(tokens[:, 1:]).transpose(2, 3),
    "upside down": lambda tokens: on_grid(tokens[:, 1:]).flip(2),
    "one position constant": lambda tokens: on_grid(torch.cat([tokens[:, 1:-1], torch.ones_like(tokens[:, :1])], 1)),
    "constant": lambda tokens: torch.ones_like(on_grid(tokens[:, 1:])),
    "the mean everywhere": lambda tokens: on_grid(tokens.mean(1, keepdim=True).expand(-1, SIDE * SIDE, -1)),
    "channels last": lambda tokens: tokens[:, 1:].unflatten(1, (SIDE, SIDE)),
    "a signal": lambda tokens: tokens[:, 1:].transpose(1, 2),
    "not finite": lambda tokens: on_grid(tokens[:, 1:]) * torch.nan,
}


def test_tokens_in_their_places_pass(vit):
    assert faults(lambda x: {"tokens": on_grid(vit(x)[:, 1:])}, X, exact=["tokens"]) == {}


@pytest.mark.parametrize("name", WRONG)
def test_tokens_elsewhere_fail(vit, name):
    assert list(faults(lambda x: {"tokens": WRONG[name](vit(x))}, X, exact=["tokens"])) == ["tokens"]


def test_the_reason_is_told(vit):
    def read(x):
        tokens = vit(x)
        return {name: WRONG[name](tokens) for name in ("constant", "a signal", "not finite", "shuffled")}

    found = faults(read, X)
    assert found["constant"] == "does not depend on the input"
    assert found["a signal"] == "has 1 axes, and the input has 2"
    assert found["not finite"] == "is not finite"
    assert found["shuffled"].endswith("% of the positions answer to another place on axis 0")


@pytest.fixture(scope="module")
def resnet():
    """A function from images to the ends of three resolutions of ResNet-18, deep and random."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()

    @torch.no_grad()
    def stages(x):
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        return [x := layer(x) for layer in (model.layer1, model.layer2, model.layer3)]

    return stages


@pytest.fixture(scope="module")
def photo():
    return torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))


def test_convolutions_pass(resnet, photo):
    assert faults(lambda x: dict(zip("123", resnet(x), strict=True)), photo) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda stage: stage.movedim(1, -1),  # channels last, read as channels first
        lambda stage: stage.transpose(2, 3),
        lambda stage: stage.flip(3),
        lambda stage: stage.roll(1, 3),
        lambda stage: stage.flatten(2)[:, :, torch.randperm(stage[0, 0].numel(), generator=torch.manual_seed(0))]
        .view(stage.shape),
    ],
)  # fmt: skip
def test_convolutions_elsewhere_fail(resnet, photo, change):
    assert set(faults(lambda x: dict(zip("123", map(change, resnet(x)), strict=True)), photo)) == set("123")


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes(axes):
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[axes](1, 4, 3, 2, 1)
    x = torch.randn(1, 1, *[32, 24, 16][:axes])
    with torch.no_grad():
        assert faults(lambda x: {"conv": conv(x)}, x) == {}
        assert list(faults(lambda x: {"conv": conv(x).flip(2)}, x)) == ["conv"]
        assert list(faults(lambda x: {"conv": conv(x).flip(-1)}, x)) == ["conv"]
