from itertools import pairwise

import pytest
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from helpers import small_net
from torch import nn

from captum_regioncam import LayerRegionCam, Stages, find_stages

# What ends each resolution from stride 2 on, at 224 px (ConvNeXt and AlexNet begin at stride 4).
TORCHVISION = {
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "resnet50": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "vgg16": ["features.8", "features.15", "features.22", "features.29"],
    "vgg16_bn": ["features.12", "features.22", "features.32", "features.42"],
    "densenet121": ["features.relu0", *(f"features.denseblock{i}" for i in (1, 2, 3)), "features"],
    "mobilenet_v2": ["features.1", "features.3", "features.6", "features.13", "features"],
    "mobilenet_v3_large": ["features.1", "features.3", "features.6", "features.12", "features"],
    "efficientnet_b0": ["features.1", "features.2", "features.3", "features.5", "features"],
    "squeezenet1_1": ["features.1", "features.4", "features.7", "features"],
    "googlenet": ["conv1", "conv3", "inception3b", "inception4e", "inception5b"],
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{i}" for i in (1, 2, 3)), "trunk_output"],
    "convnext_tiny": ["features.1", "features.3", "features.5", "features"],
    "mnasnet1_0": ["layers.7", "layers.8", "layers.9", "layers.11", "layers"],
    "shufflenet_v2_x1_0": ["conv1", "stage2.0.branch2.2", "stage2", "stage3", "conv5"],
}


def sides(model, stages, x):
    """The height of each stage's output, from plain hooks."""
    seen = []
    hooks = [module.register_forward_hook(lambda *call: seen.append(call[-1].shape[2])) for module in stages.values()]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    x = torch.randn(1, 3, 224, 224)
    stages = find_stages(model, x)
    assert list(stages) == TORCHVISION[name]
    assert all(model.get_submodule(name) is module for name, module in stages.items())
    grids = sides(model, stages, x)
    assert all(1.7 < finer / coarser < 2.3 for finer, coarser in pairwise(grids))
    attribution = LayerRegionCam(model, stages).attribute(x, target=1)
    assert attribution.shape == (1, 1, grids[0], grids[0])
    assert attribution.isfinite().all()
    assert attribution.std() > 0.01


def test_efficientnet_lite0_with_its_padding_modules_and_shared_activation():
    model, x = EfficientNet.from_name("efficientnet-lite0"), torch.randn(1, 3, 224, 224)
    stages = find_stages(model, x)
    assert list(stages) == ["_blocks.0", "_blocks.2", "_blocks.4", "_blocks.10", "_bn1"]
    assert sides(model.eval(), stages, x) == [112, 56, 28, 14, 7]


class Block(nn.Module):
    """A residual block whose one ReLU runs before and after the stride."""

    def __init__(self, stride):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride, 1)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.relu(self.conv2(self.relu(self.conv1(x)))))


class Net(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.body = nn.Sequential(*parts)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


def test_modules_that_run_twice_are_no_stages_and_blocks_come_before_their_insides():
    model = Net(Block(1), Block(2), Block(2))
    assert list(find_stages(model, torch.randn(1, 3, 32, 32))) == ["body.0", "body.1", "body"]


def test_what_pools_pads_drops_or_hands_on_is_no_stage():
    down = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.ConstantPad2d(1, 0.0))
    model = Net(nn.Identity(), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), nn.Dropout2d(), down, nn.AvgPool2d(2))
    assert list(find_stages(model, torch.randn(1, 3, 32, 32))) == ["stem", "body.3.1"]


class Triple(nn.Module):
    """A block that goes down twice, like NASNet's stem cells."""

    def __init__(self, inputs):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(inputs, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x):
        return self.c(self.b(self.a(x)))


def test_a_block_ends_a_resolution_though_the_next_one_begins_there():
    model = nn.Sequential(Triple(3), Triple(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert list(find_stages(model, torch.randn(1, 3, 64, 64))) == ["0.b", "0", "1.b", "1"]


@pytest.mark.parametrize("size", [(32, 32), (33, 33), (40, 100), (100, 40), (299, 299), (7, 64), (97, 61)])
def test_stages_do_not_depend_on_the_photo(size):
    model = torchvision.models.resnet18(weights=None)
    assert list(find_stages(model, torch.randn(1, 3, *size))) == TORCHVISION["resnet18"]


def test_a_network_of_one_size_is_watched_at_its_own():
    seen = []
    net, x = small_net(size=16)
    net.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    assert list(find_stages(net, x)) == ["relu2", "relu3"]
    assert seen == [(2, 3, 224, 224), (3, 3, 16, 16)]


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float64, 1), (torch.bfloat16, 1), (torch.uint8, 255)])
def test_the_probe_is_like_the_inputs_and_leaves_them_alone(dtype, scale):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))

        def forward(self, a, weight, b):
            self.seen = a.dtype, tuple(a.shape), tuple(b.shape), tuple(weight.shape)
            return self.body((a + b).to(self.body[0].weight.dtype)).mean((2, 3)) * weight

    net = Net().to(dtype if dtype.is_floating_point else torch.float32)
    a, b = (torch.rand(3, 2, 30, 40).mul(scale).to(dtype) for _ in range(2))
    before = a.clone()
    assert list(find_stages(net, a, torch.ones(3, 1), b)) == ["body.1", "body"]
    assert net.seen == (dtype, (3, 2, 224, 224), (3, 2, 224, 224), (3, 1))
    assert torch.equal(a, before)


class Replicated(nn.DataParallel):
    """DataParallel's replicas, on a machine without its devices."""

    def forward(self, x):
        return torch.cat([self.module._replicate_for_data_parallel()(part) for part in x.chunk(2)])


def test_data_parallel_on_several_devices():
    module = torchvision.models.resnet18(weights=None)
    stages = find_stages(Replicated(module), torch.randn(4, 3, 64, 64))
    assert list(stages) == [f"module.{name}" for name in TORCHVISION["resnet18"]]
    assert stages["module.layer4"] is module.layer4


def test_stages_are_a_mapping_that_cannot_be_changed():
    model = torchvision.models.resnet18(weights=None)
    stages = find_stages(model, torch.randn(1, 3, 64, 64))
    assert isinstance(stages, Stages)
    assert repr(stages) == "Stages(relu, layer1, layer2, layer3, layer4)"
    assert (len(stages), stages["layer3"], stages.reshape_transform) == (5, model.layer3, None)
    with pytest.raises(TypeError):
        stages["layer3"] = model.layer2
    with pytest.raises(AttributeError):
        stages.reshape_transform = len


def test_video_whose_time_is_not_halved_like_its_picture():
    model = torchvision.models.video.r3d_18(weights=None).eval()
    x = torch.randn(1, 3, 8, 32, 32)
    stages = find_stages(model, x)
    assert list(stages) == ["layer1", "layer2", "layer3", "layer4"]
    assert LayerRegionCam(model, stages).attribute(x, target=1).shape == (1, 1, 8, 16, 16)


def test_a_network_that_narrows_along_one_axis_is_not_read_channels_last():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, (2, 1), 1), nn.ReLU(), nn.Conv2d(8, 16, 3, (2, 1), 1), nn.ReLU(), nn.Flatten()
    )
    stages = find_stages(model, torch.randn(1, 1, 32, 16))
    assert list(stages) == ["1", "3"]
    assert stages.reshape_transform is None


def test_min_stride():
    model = Net(Block(2), Block(2))
    x = torch.randn(1, 3, 32, 32)
    assert list(find_stages(model, x, min_stride=4)) == ["body.0", "body"]
    assert list(find_stages(model, x, min_stride=5)) == ["body"]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 2, 2), nn.Flatten(), nn.Linear(64, 2))
    assert list(find_stages(model, x[..., :8, :8], min_stride=1)) == ["1", "2"]


@pytest.mark.parametrize(("conv", "grid"), [(nn.Conv1d, (64,)), (nn.Conv3d, (8, 16, 8))])
def test_signals_and_volumes(conv, grid):
    model = nn.Sequential(conv(1, 4, 3, 2, 1), nn.ReLU(), conv(4, 4, 3, 2, 1), nn.Flatten(), nn.LazyLinear(2))
    assert list(find_stages(model, torch.randn(2, 1, *grid))) == ["1", "2"]


def test_leaves_the_model_as_it_was():
    model = Net(Block(1), nn.BatchNorm2d(4), Block(2)).train()
    model.body[2].eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    random_state = torch.get_rng_state()
    find_stages(model, x)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_leaves_nothing_behind_when_the_model_raises():
    class Raises(nn.Module):
        def forward(self, x):
            torch.rand(1)
            raise KeyError("from the model")

    model = Net(Raises()).train()
    random_state = torch.get_rng_state()
    with pytest.raises(KeyError, match="from the model"):
        find_stages(model, torch.randn(1, 3, 32, 32, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("model", "inputs", "options", "error", "message"),
    [
        (len, [torch.zeros(1, 3, 8, 8)], {}, TypeError, "model: .* got builtin_function_or_method"),
        (nn.Identity(), [torch.zeros(1, 3)], {}, ValueError, r"inputs: .* \(N, C, \*grid\)"),
        (nn.Identity(), [], {}, ValueError, "inputs: "),
        (nn.Identity(), [torch.zeros(1, 3, 8, 8)], {"min_stride": 0}, ValueError, "min_stride=0"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(192, 2)),
            [torch.zeros(1, 3, 8, 8)],
            {},
            ValueError,
            "reshape_transform",
        ),
    ],
)
def test_bad_input(model, inputs, options, error, message):
    with pytest.raises(error, match=message):
        find_stages(model, *inputs, **options)
