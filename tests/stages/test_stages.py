import threading
from itertools import pairwise

import pytest
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from helpers import Named, conv, dense_region_cam, features_and_gradients, small_net
from narrow_networks import narrow_networks
from torch import nn
from torch.nn.parameter import is_lazy
from torchvision.models.video import resnet as video

from captum_regioncam import LayerError, LayerRegionCam, Stages, TargetError, find_stages
from captum_regioncam.stages.choice import choose
from captum_regioncam.stages.layouts import Layout
from captum_regioncam.stages.watch import Call

# What ends each resolution from stride 2 on (ConvNeXt and AlexNet begin at stride 4), the middle block where one
# resolution has more blocks than any other, and the score map; "name<" is what goes into a module. A comment says why;
# SIGNED names the stages that are not rectified, and why they are taken all the same.
TORCHVISION = {
    # the stem's ReLU, then each layer, which ends in a ReLU; of four resolutions with two blocks none has the most
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    # likewise; layer3 has six blocks, more than any other: its third as well
    "resnet50": ["relu", "layer1", "layer2", "layer3.2", "layer3", "layer4"],
    # the last ReLU before each pooling; three resolutions have three each
    "vgg16": ["features.8", "features.15", "features.22", "features.29"],
    "vgg16_bn": ["features.12", "features.22", "features.32", "features.42"],
    # the ReLU behind each dense block, in the transition: the block ends in a concatenation of convolutions
    "densenet121": ["features.relu0", *(f"features.transition{i}.relu" for i in (1, 2, 3)), "features"],
    # inside the last block of each resolution, before its projection; the head ends in a ReLU6
    "mobilenet_v2": ["features.1.conv.0", *(f"features.{i}.conv.1" for i in (3, 6, 13)), "features"],
    # likewise while there are ReLUs, at stride 8 behind squeeze-and-excitation; hard-swish later
    "mobilenet_v3_large": ["features.1.block.0", "features.3.block.1", "features.6.block.2", "features.12", "features"],
    # SiLU throughout: the blocks as they are
    "efficientnet_b0": ["features.1", "features.2", "features.3", "features.5", "features"],
    # the last fire module of each stride; stride 8 has four, so the second as well; and the classifier's ReLU
    "squeezenet1_0": ["features.1", "features.5", "features.8", "features.10", "features", "classifier.2"],
    "squeezenet1_1": ["features.1", "features.4", "features.7", "features.10", "features", "classifier.2"],
    # the stem's last convolution at each stride (its ReLU is inside); stride 16 has five inception modules, the third
    "googlenet": ["conv1", "conv3", "inception3b", "inception4c", "inception4e", "inception5b"],
    # blocks end in ReLUs; two resolutions have six each
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{i}" for i in (1, 2, 3)), "trunk_output"],
    # GELU inside, nothing rectified: the blocks as they are
    "convnext_tiny": ["features.1", "features.3", "features.5", "features"],
    # before each projection, as MobileNetV2; at stride 2 there is no block, but a row of layers
    "mnasnet1_0": ["layers.5", "layers.8.2.layers.5", "layers.9.2.layers.5", "layers.11.1.layers.5", "layers"],
    # at stride 4 only a pooling and what the first block does before it goes down; stage3 has eight blocks
    "shufflenet_v2_x1_0": ["conv1", "stage2.0.branch2.2", "stage2", "stage3.3", "stage3", "conv5"],
}
SIGNED = {
    "densenet121": [
        "features"
    ],  # its ReLU is called as a function, in place, and pooled by a function: no module sees it
    "mobilenet_v3_large": [
        "features.12",
        "features",
    ],  # hard-swish: no trained network at hand to measure another choice
    "efficientnet_b0": TORCHVISION["efficientnet_b0"],  # SiLU: likewise
    "convnext_tiny": TORCHVISION["convnext_tiny"],  # GELU: likewise
}


def seen(model, stages, x):
    """Each stage's tensor, from plain hooks."""
    tensors = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: tensors.__setitem__(name, args[0].clone()))
        if name in stages.at_input
        else module.register_forward_hook(lambda *call, name=name: tensors.__setitem__(name, call[-1].clone()))
        for name, module in stages.items()
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name, monkeypatch):
    if name.startswith("vgg"):
        narrow_networks(monkeypatch.setattr)
    options = {"init_weights": False} if name in ("googlenet", "vgg16", "vgg16_bn") else {}
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    x = torch.randn(1, 3, 128, 128)
    stages = find_stages(model, x)
    assert list(stages) == TORCHVISION[name]
    assert not stages.at_input
    assert all(model.get_submodule(name) is module for name, module in stages.items())
    tensors = seen(model, stages, x)
    assert [stage for stage, tensor in tensors.items() if tensor.min() < 0] == SIGNED.get(name, [])
    grids = [tensor.shape[2] for tensor in tensors.values()]
    assert all(finer == coarser or 1.7 < finer / coarser < 2.3 for finer, coarser in pairwise(grids[:-1]))
    x = torch.randn(2, 3, 64, 64)  # small enough for the affinity matrix
    target = int(model(x).amin(0).argmax())  # a class whose scores SqueezeNet's last ReLU lets pass
    expected = dense_region_cam(features_and_gradients(model, stages.values(), x, target))
    assert expected.std() > 0.01
    torch.testing.assert_close(LayerRegionCam(model, stages).attribute(x, target), expected.float(), atol=1e-3, rtol=0)


def test_efficientnet_lite0_whose_activation_is_shared():
    # Before each projection, where the next convolution's input shows what the shared activation made; the rectified
    # head is what goes into the pooling.
    model, x = EfficientNet.from_name("efficientnet-lite0").eval(), torch.randn(1, 3, 224, 224)
    stages = find_stages(model, x)
    projections = [f"_blocks.{i}._project_conv" for i in (2, 4, 10)]
    assert list(stages) == ["_blocks.0._swish", *projections, "_avg_pooling"]
    assert stages.at_input == {*projections, "_avg_pooling"}
    tensors = seen(model, stages, x)
    assert [tuple(tensor.shape[1:3]) for tensor in tensors.values()] == [
        (32, 112), (144, 56), (240, 28), (672, 14), (1280, 7),
    ]  # fmt: skip
    assert all(tensor.min() >= 0 for tensor in tensors.values())


def test_activations_called_as_functions():
    model = Named(
        lambda m, x: m.fc(m.pool(m.b(m.a(x).relu()).relu()).flatten(1)),
        a=conv(3, 4, 2), b=conv(4, 6, 2), pool=nn.AdaptiveAvgPool2d(1), fc=nn.Linear(6, 2),
    )  # fmt: skip
    stages = find_stages(model, torch.randn(1, 3, 32, 32))
    assert repr(stages) == "Stages(b (input), pool (input))"
    # Where nothing shows the activation, the convolution itself: SIP cuts negative features off. It serves twice.
    blind = Named(
        lambda m, x: m.fc(m.b(m.a(x).relu()).relu().mean((2, 3))), a=conv(3, 4, 2), b=conv(4, 6, 2), fc=nn.Linear(6, 2)
    )
    stages = find_stages(blind, torch.randn(1, 3, 32, 32))
    assert repr(stages) == "Stages(b (input), b)"
    assert (list(stages), stages.at_input) == (["b (input)", "b"], {"b (input)"})
    assert stages["b (input)"] is stages["b"] is blind.b


def test_the_widest_features_of_a_linear_bottleneck():
    def bottleneck(inputs, outputs, stride=1):
        return nn.Sequential(conv(inputs, 12), nn.ReLU(), conv(12, 24, stride), nn.ReLU(), conv(24, outputs))

    model = nn.Sequential(bottleneck(3, 4, 2), bottleneck(4, 4), bottleneck(4, 6, 2), nn.AdaptiveAvgPool2d(1))
    model.extend([nn.Flatten(), nn.Linear(6, 2)])
    assert list(find_stages(model, torch.randn(1, 3, 32, 32))) == ["1.3", "2.3"]


@pytest.mark.parametrize(("blocks", "middle"), [(2, None), (3, 1), (4, 1), (5, 2), (6, 2)])
def test_the_middle_block_of_the_resolution_that_has_the_most(blocks, middle):
    class Rectified(nn.Sequential):
        pass

    def block(inputs, stride=1):
        return Rectified(conv(inputs, 6, stride), nn.ReLU())

    body = [block(3, 2), *(block(6, 2 if i == 0 else 1) for i in range(blocks)), block(6, 2)]
    found = list(find_stages(nn.Sequential(*body, nn.Flatten()), torch.randn(1, 3, 32, 32)))
    between = [] if middle is None else [str(1 + middle)]
    assert found == ["0", *between, str(blocks), str(blocks + 1)]
    tied = [block(3, 2), *(block(6) for _ in range(blocks - 1)), *(block(6, 2 if i == 0 else 1) for i in range(blocks))]
    found = list(find_stages(nn.Sequential(*tied, nn.Flatten()), torch.randn(1, 3, 32, 32)))
    assert found == [str(blocks - 1), str(2 * blocks - 1)]


def test_a_score_map_joins_the_last_features():
    features = nn.Sequential(conv(3, 4, 2), nn.ReLU(), conv(4, 8, 2), nn.ReLU())
    classifier = nn.Sequential(nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(features, classifier)
    assert list(find_stages(model, torch.randn(1, 3, 32, 32))) == ["0.1", "0", "1.1"]
    dense = nn.Sequential(features, nn.Conv2d(8, 5, 1), nn.Upsample(scale_factor=4))
    assert list(find_stages(dense, torch.randn(1, 3, 32, 32))) == ["0.1", "0", "1"]


def test_as_many_channels_as_scores_are_no_score_map_before_the_last_features():
    model = nn.Sequential(conv(3, 5, 2), nn.ReLU(), conv(5, 8, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(8, 5))
    assert list(find_stages(model, torch.randn(1, 3, 32, 32))) == ["1", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_segmentation_networks_without_their_auxiliary_classifier(name, monkeypatch):
    narrow_networks(monkeypatch.setattr)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, aux_loss=True).eval()
    x = torch.randn(1, 3, 64, 64)
    stages = find_stages(model, x)
    # Of thirteen blocks at stride 8 the seventh; the logits beside the last features.
    assert list(stages) == ["backbone.relu", "backbone.layer1", "backbone.layer3.2", "backbone.layer4", "classifier"]
    score = lambda x: model(x)["out"].sum((2, 3))  # noqa: E731
    expected = dense_region_cam(features_and_gradients(score, stages.values(), x, 3))
    assert expected.std() > 0.01
    torch.testing.assert_close(LayerRegionCam(score, stages).attribute(x, 3), expected.float(), atol=1e-3, rtol=0)


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
    assert list(find_stages(model, torch.randn(1, 3, 32, 32))) == ["body.1.0", "body.3.1"]


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
    assert seen == [(5, 3, 224, 224), (5, 3, 16, 16), (5, 3, 16, 16), (1, 3, 16, 16)]


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float64, 1), (torch.bfloat16, 1), (torch.uint8, 255)])
def test_the_probe_is_like_the_inputs_and_leaves_them_alone(dtype, scale):
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))

        def forward(self, a, weight, b):
            seen.append((a.dtype, tuple(a.shape), tuple(b.shape), tuple(weight.shape)))
            return self.body((a + b).to(self.body[0].weight.dtype)).mean((2, 3)) * weight

    net = Net().to(dtype if dtype.is_floating_point else torch.float32)
    a, b = (torch.rand(3, 2, 30, 40).mul(scale).to(dtype) for _ in range(2))
    before = a.clone()
    assert list(find_stages(net, a, torch.ones(3, 1), b)) == ["body.1", "body"]
    assert seen == [(dtype, (n, 2, 224, 224), (n, 2, 224, 224), (n, 1)) for n in (5, 5, 1)]
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


@pytest.mark.slow
def test_video_whose_time_is_not_halved_like_its_picture():
    blocks = video.BasicBlock, [video.Conv3DSimple] * 4, [1] * 4  # half as many as those of r3d_18
    model = video.VideoResNet(*blocks, video.BasicStem).eval()
    x = torch.randn(1, 3, 8, 32, 32)
    stages = find_stages(model, x)
    assert list(stages) == ["layer1", "layer2", "layer3", "layer4"]
    expected = dense_region_cam(features_and_gradients(model, stages.values(), x, 1))
    assert expected.shape == (1, 1, 8, 16, 16)
    torch.testing.assert_close(LayerRegionCam(model, stages).attribute(x, 1), expected.float(), atol=1e-3, rtol=0)


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


def state_of(model):
    """All that a network's modules hold, in a form that can be compared."""
    plain = lambda value: (tuple(value.shape), value.tolist()) if torch.is_tensor(value) else value  # noqa: E731
    containers = [
        {name: value for name, value in vars(module).items() if name != "_modules"} for module in model.modules()
    ]
    return [
        {
            name: {key: plain(one) for key, one in value.items()}
            if isinstance(value, dict)
            else [plain(one) for one in value]
            if isinstance(value, list)
            else plain(value)
            for name, value in container.items()
        }
        for container in containers
    ]


class Caching(nn.Module):
    """A convolutional network that keeps something of its input's size, and uses what it keeps."""

    def __init__(self, keep):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.keep, self.seen_size, self.table = keep, None, None
        self.tables, self.sizes, self.calls = {}, [], 0
        self.register_buffer("counter", torch.zeros(1))
        self.register_buffer("grid", torch.zeros(2, 2))
        self.positions = nn.Parameter(torch.zeros(1, 1, 8, 8))

    def forward(self, x):
        self.keep(self, x)
        return self.body(x).mean((2, 3))


def keep_table(net, x):
    net.table, net.seen_size = x.new_zeros(x.shape[2:]), tuple(x.shape[2:])


def keep_positions(net, x):
    net.positions.data = torch.zeros(1, 1, *x.shape[2:])


def keep_other_positions(net, x):
    net.positions = nn.Parameter(torch.zeros(1, 1, *x.shape[2:]))


def keep_what_was_not_there(net, x):
    net.anchors = x.new_zeros(x.shape[2:])


def keep_among_others(net, x):
    net.tables[tuple(x.shape[2:])] = x.new_zeros(x.shape[2:])


KEEP_TENSORS = {
    "a table": keep_table,
    "a new attribute": keep_what_was_not_there,
    "a table in a dict": keep_among_others,
    "a table in a list": lambda net, x: net.sizes.append(x.new_zeros(x.shape[2:])),
    "a buffer anew": lambda net, x: net.register_buffer("grid", x.new_zeros(x.shape[2:])),
    "a buffer in place": lambda net, x: net.counter.add_(1),
    "a buffer resized": lambda net, x: net.grid.resize_(x.shape[2:]).zero_(),
    "a parameter's data": keep_positions,
    "a parameter anew": keep_other_positions,
}


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("name", KEEP_TENSORS)
def test_a_network_that_keeps_tensors_is_watched_at_its_own_size_and_left_as_it_was(name, is_cached):
    seen = []
    net, x = Caching(KEEP_TENSORS[name]).train(), torch.rand(2, 3, 64, 64)
    net.body.eval()
    if is_cached:
        net(x)
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    identities = [id(tensor) for tensor in (*net.parameters(), *net.buffers())]
    before = state_of(net)
    assert list(find_stages(net, x)) == ["body.1", "body"]
    assert list(dict.fromkeys(seen)) == [(224, 224), (64, 64)]
    assert state_of(net) == before
    assert [id(tensor) for tensor in (*net.parameters(), *net.buffers())] == identities


def test_other_caches_are_restored_too():
    def count(net, x):
        net.calls += 1
        net.seen_size = tuple(x.shape[2:])
        net.sizes.append(net.seen_size)

    seen = []
    net = Caching(count)
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    before = state_of(net)
    assert list(find_stages(net, torch.rand(2, 3, 64, 64))) == ["body.1", "body"]
    assert set(seen) == {(224, 224)}  # the probe alone: nothing says that this spoils anything
    assert state_of(net) == before


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_are_computed_in_each_pass_are_no_change():
    seen = []
    net = nn.Sequential(nn.utils.weight_norm(conv(3, 4, 2)), nn.ReLU(), conv(4, 6, 2), nn.ReLU(), nn.Flatten())
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    weight = net[0].weight
    assert list(find_stages(net, torch.rand(2, 3, 16, 16))) == ["1", "3"]
    assert set(seen) == {(224, 224)}
    assert net[0].weight is weight


def test_a_network_that_is_initialised_by_its_first_input_is_initialised_by_the_users():
    class ActNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
            self.register_buffer("is_made", torch.tensor(False))

        def forward(self, x):
            if not self.is_made:
                self.shift.copy_(x.mean((0, 2, 3), keepdim=True))
                self.is_made.fill_(True)
            return x - self.shift

    net, x = nn.Sequential(ActNorm(), conv(3, 4, 2), nn.ReLU(), nn.Flatten()), torch.rand(2, 3, 16, 16) + 5
    assert list(find_stages(net, x)) == ["2"]
    assert not net[0].is_made
    assert not net[0].shift.any()
    net(x)
    torch.testing.assert_close(net[0].shift, x.mean((0, 2, 3), keepdim=True))


def test_lazy_modules_stay_lazy():
    seen = []
    net = nn.Sequential(
        nn.LazyConv2d(4, 3, 2, 1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d(6, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.LazyLinear(5),
    ).train()  # fmt: skip
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    x = torch.randn(2, 3, 32, 32)
    stages = find_stages(net, x)
    assert list(stages) == ["2", "4"]
    assert set(seen) == {(32, 32)}
    assert [type(module) for module in net][0::3] == [nn.LazyConv2d, nn.LazyConv2d, nn.LazyLinear]
    assert all(map(is_lazy, (*net.parameters(), net[1].running_mean, net[1].running_var)))
    assert all(module.training for module in net.modules())
    assert stages["2"] is net[2]
    assert LayerRegionCam(net.eval(), stages).attribute(x, 1).shape == (2, 1, 16, 16)
    assert net[6].in_features == 6 * 8 * 8
    assert list(find_stages(net, x)) == ["2", "4"]


def test_a_lazy_network_that_cannot_be_copied():
    net = nn.Sequential(nn.LazyConv2d(4, 3, 2, 1), nn.ReLU(), nn.Flatten())
    net.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"Sequential has lazy modules, but cannot be copied .*lock.* Run it once"):
        find_stages(net, torch.zeros(2, 3, 16, 16))
    net(torch.zeros(2, 3, 16, 16))
    assert list(find_stages(net, torch.zeros(2, 3, 16, 16))) == ["1"]


def test_complex_and_empty_tensors_on_the_way():
    model = Named(
        lambda m, x: m.fc(m.pool(m.b(m.spectrum(m.a(x)).abs()) + m.nothing(x).sum()).flatten(1)),
        a=nn.Sequential(conv(3, 4, 2), nn.ReLU()), spectrum=Named(lambda m, x: torch.fft.fft2(x)),
        nothing=Named(lambda m, x: x[:, :, :0]), b=nn.Sequential(conv(4, 6, 2), nn.ReLU()),
        pool=nn.AdaptiveAvgPool2d(1), fc=nn.Linear(6, 2),
    )  # fmt: skip
    x = torch.randn(2, 3, 32, 32)
    stages = find_stages(model, x)
    assert list(stages) == ["a", "b"]
    expected = dense_region_cam(features_and_gradients(model, stages.values(), x, 1))
    torch.testing.assert_close(LayerRegionCam(model, stages).attribute(x, 1), expected.float(), atol=1e-4, rtol=0)
    with pytest.raises(LayerError, match=r"'spectrum' \(Named\) gives a torch\.complex64 tensor .* before or after it"):
        LayerRegionCam(model, model.spectrum).attribute(x, 1)
    with pytest.raises(LayerError, match=r"'nothing' \(Named\) gives an empty tensor, of shape \(2, 3, 0, 32\)"):
        LayerRegionCam(model, model.nothing).attribute(x, 1)
    with pytest.raises(TypeError, match=r"returned a torch\.complex64 tensor .*: scores are real.*\.abs\(\)"):
        LayerRegionCam(lambda x: torch.fft.fft(model(x)), model.a).attribute(x, 1)
    for empty, shape in ((lambda x: model(x)[:, :0], r"\(2, 0\)"), (lambda x: model(x)[:0], r"\(0, 2\)")):
        with pytest.raises(TargetError, match=f"returned an empty tensor, of shape {shape}; it must return scores"):
            LayerRegionCam(empty, model.a).attribute(x, 1)
    assert list(find_stages(Named(lambda m, x: m.body(x)[:, :0], body=model.a), x)) == ["body"]


quantised = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@quantised
def test_linear_layers_of_eight_bits():
    model = nn.Sequential(conv(3, 4, 2), nn.ReLU(), conv(4, 6, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(6, 3)).eval()
    x = torch.randn(2, 3, 32, 32)
    packed = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    stages = find_stages(packed, x)
    assert list(stages) == list(find_stages(model, x)) == ["1", "3"]
    with pytest.raises(LayerError, match=r"does not depend on '1' \(ReLU\), '3' \(ReLU\).* without quantised modules"):
        LayerRegionCam(packed, stages).attribute(x, 1)


@quantised
def test_a_network_of_eight_bits():
    class Stubs(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
            self.conv1, self.conv2, self.fc = conv(3, 4, 2), conv(4, 6, 2), nn.Linear(6, 3)
            self.relu1, self.relu2, self.pool = nn.ReLU(), nn.ReLU(), nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            x = self.relu2(self.conv2(self.relu1(self.conv1(self.quant(x)))))
            return self.dequant(self.fc(self.pool(x).flatten(1)))

    model, x = Stubs().eval(), torch.randn(2, 3, 32, 32)
    expected = list(find_stages(model, x))
    model.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
    torch.ao.quantization.prepare(model, inplace=True)(x)
    torch.ao.quantization.convert(model, inplace=True)
    stages = find_stages(model, x)
    assert list(stages) == expected == ["relu1", "relu2"]
    message = r"'relu1' \(ReLU\) gives a torch\.quint8 tensor .*not floating-point.* the network before quantisation"
    with pytest.raises(LayerError, match=message):
        LayerRegionCam(model, stages).attribute(x, 1)


def test_calls_that_cannot_be_are_read_to_an_end():
    """As threads once mixed them up: a module inside itself, and two inside each other."""

    def call(name, *parents, **options):
        shape = {"input_shape": (2, 3, 32, 32), "shape": (2, 4, 16, 16), "ended": 1}
        flags = {"is_sequential": True, "is_linear": False, "is_innermost": False, "has_parameters": True}
        return Call(name, "Sequential", parents, **flags, started=0, input_rectified=False, **{**shape, **options})

    halves = [call(f"part{k}", "a", shape=(2, 4, 32 // 2**k, 32 // 2**k)) for k in range(1, 5)]
    calls = [*halves, call("a", "a"), call("b", "c"), call("c", "b"), call("d", "d", "d")]
    layout = Layout(calls, (2, 3, 32, 32), is_measured=False)
    assert layout.trunks
    names = {choice.call.name for choice in choose(layout, scores=5)}
    assert names <= {call.name for call in calls}
