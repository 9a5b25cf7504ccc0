"""The map of each layer at its own grid, from both methods, against the methods written out densely."""

import pytest
import torch
import torchvision
from helpers import dense_layer_cam, dense_layer_maps, features_and_gradients, small_net
from torch import nn

from captum_regioncam import LayerCam, LayerError, LayerRegionCam, TargetError, find_stages
from captum_regioncam.method.grids import fuse, resize

METHODS = [LayerRegionCam, LayerCam]


def dense_maps(method, pairs):
    """Each layer's map, from its features and gradients."""
    return dense_layer_maps(pairs) if method is LayerRegionCam else [dense_layer_cam(f.detach(), g) for f, g in pairs]


def assert_maps(maps, expected, atol=1e-5):
    for one, dense in zip(maps.values(), expected, strict=True):
        torch.testing.assert_close(one, dense.to(one.dtype), atol=atol, rtol=0)
        assert 0 <= one.min() <= one.max() <= 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_maps_at_the_layers_own_grids(method, dimensions):
    net, x = small_net(dimensions)
    layers = [net.relu3, net.relu1, net.relu2]
    cam = method(net, layers)
    maps = cam.attribute_layers(x, target=1)
    assert list(maps) == [0, 1, 2]
    assert [tuple(one.shape) for one in maps.values()] == [(3, 1, *[side] * dimensions) for side in (2, 8, 4)]
    assert_maps(maps, dense_maps(method, features_and_gradients(net, layers, x, 1)))
    resized = cam.attribute(x, target=1, attr_dim_summation=False)
    assert torch.equal(resized[:, 1:2], maps[1])  # the finest grid
    for layer in (0, 2):
        assert torch.equal(resized[:, layer : layer + 1], resize(maps[layer], [8] * dimensions))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("contrast", [1, 3.0])
def test_region_cam_is_a_power_of_their_mean(dtype, contrast):
    net, x = small_net(size=9)
    net, x = net.to(dtype), x.to(dtype)
    cam = LayerRegionCam(net, find_stages(net, x, min_stride=1), contrast=contrast)
    maps = cam.attribute_layers(x, target=[0, 3, 1])
    assert list(maps) == ["relu1", "relu2", "relu3"]
    mean = fuse(list(maps.values()), (9, 9))
    assert torch.equal((mean / mean.amax((2, 3), keepdim=True)) ** contrast, cam.attribute(x, target=[0, 3, 1]))


def test_layer_cam_is_their_maximum():
    net, x = small_net()
    cam = LayerCam(net, [net.relu3, net.relu1])
    maps = cam.attribute_layers(x, target=1)
    assert torch.equal(torch.maximum(resize(maps[0], (8, 8)), maps[1]), cam.attribute(x, target=1))


class Pyramid(nn.Module):
    """Activations that are no modules, on grids that are not square: find_stages takes the inputs of modules."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.relu, self.fc = nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv1(x).relu()
        self.rectified = x
        return self.fc(self.relu(self.conv2(x)).mean((2, 3)))


@pytest.mark.parametrize("method", METHODS)
def test_stages_at_modules_inputs(method):
    net, x = Pyramid(), torch.randn(2, 3, 16, 24)
    stages = find_stages(net, x)
    assert stages.at_input == {"conv2"}
    maps = method(net, stages).attribute_layers(x, target=1)
    assert [(name, tuple(one.shape)) for name, one in maps.items()] == [
        ("conv2", (2, 1, 8, 12)),  # (height, width)
        ("relu", (2, 1, 4, 6)),
    ]
    ((last, last_gradients),) = features_and_gradients(net, [net.relu], x, 1)
    first = net.rectified
    (first_gradients,) = torch.autograd.grad(net.fc(net.relu(net.conv2(first)).mean((2, 3)))[:, 1].sum(), first)
    assert_maps(maps, dense_maps(method, [(first, first_gradients), (last, last_gradients)]))


@pytest.mark.parametrize("method", METHODS)
def test_tokens(method):
    model = torchvision.models.VisionTransformer(64, 8, 5, 3, 48, 96, num_classes=7).eval()
    nn.init.normal_(model.heads.head.weight)  # torchvision starts from zeros
    x = torch.randn(2, 3, 64, 64)
    stages = find_stages(model, x)
    maps = method(model, stages).attribute_layers(x, target=3)
    assert list(maps) == list(stages)
    pairs = features_and_gradients(model, stages.values(), x, 3)
    on_grid = [tuple(map(stages.reshape_transform, pair)) for pair in pairs]
    assert_maps(maps, dense_maps(method, on_grid), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_names(method):
    net, x = small_net()
    named = {"early": net.relu1, "late": net.relu3}
    expected = list(method(net, list(named.values())).attribute_layers(x, 1).values())

    def assert_names(cam, names):
        for _ in range(2):  # an iterator is not used up
            maps = cam.attribute_layers(x, 1)
            assert list(maps) == names
            assert all(map(torch.equal, maps.values(), expected))

    for layers in (named, nn.ModuleDict(named)):
        assert_names(method(net, layers), ["early", "late"])
    for layers in (list(named.values()), named.values(), iter(named.values()), nn.ModuleList(named.values())):
        assert_names(method(net, layers), [0, 1])
    assert list(method(net, {"late": net.relu3}).attribute_layers(x, 1)) == ["late"]
    assert list(method(net, net.relu3).attribute_layers(x, 1)) == [0]

    given = dict(named)
    cam = method(net, given)
    given.clear()
    assert_names(cam, ["early", "late"])
    cam.layer = net.relu2  # as TCAV does, between two calls
    assert list(cam.attribute_layers(x, 1)) == [0]
    cam.layer = find_stages(net, x)
    assert list(cam.attribute_layers(x, 1)) == ["relu2", "relu3"]
    cam.layer = {"b": net.relu3, "a": net.relu1}
    assert list(cam.attribute_layers(x, 1)) == ["b", "a"]
    cam.layer = [net.relu1, net.relu3]
    assert_names(cam, [0, 1])


@pytest.mark.parametrize("method", METHODS)
def test_takes_what_attribute_takes(method):
    net, x = small_net()
    at_output = method(net, [net.relu1, net.relu2]).attribute_layers(x, target=[0, 3, 1])
    cam = method(net, {"one": net.conv2, "two": net.conv3})
    at_input = cam.attribute_layers(x, [0, 3, 1], attribute_to_layer_input=True)
    assert list(at_input) == ["one", "two"]
    torch.testing.assert_close(list(at_input.values()), list(at_output.values()))
    scaled = method(net, [net.relu1, net.relu2]).attribute_layers(x, [0, 3, 1], additional_forward_args=(3.0,))
    torch.testing.assert_close(scaled, at_output)
    with pytest.raises(TargetError, match="target is missing"):
        cam.attribute_layers(x)
    with pytest.raises(TargetError, match=r"target=2\.5: a class is an integer"):
        cam.attribute_layers(x, 2.5)


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_detached_and_of_the_inputs_dtype(method):
    net, x = small_net()
    for dtype in (torch.float64, torch.bfloat16):
        net, x = net.to(dtype), x.to(dtype)
        for one in method(net, [net.relu1, net.relu2]).attribute_layers(x.requires_grad_(), 1).values():
            assert one.dtype == dtype
            assert not one.requires_grad
    cam = method(net.float(), [net.relu1, net.relu2])
    maps = cam.attribute_layers(x.detach().float(), 1, grad_kwargs={"create_graph": True})
    for one in maps.values():
        (gradient,) = torch.autograd.grad(one.square().sum(), net.conv1.weight, retain_graph=True)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_one_forward_pass_and_one_backward_pass(method):
    net, x = small_net()
    calls = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            calls.append("forward")
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            calls.append("backward")
            return gradient

    method(lambda x: Counted.apply(net(x)), [net.relu1, net.relu2, net.relu3]).attribute_layers(x, 1)
    assert calls == ["forward", "backward"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_empty_maps_warn_as_in_attribute():
    net, x = small_net()
    dead = lambda x: net(x) * torch.tensor([[1.0], [0.0], [1.0]])  # noqa: E731
    flat = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(36, 2))
    for cam, inputs, empty in (
        (LayerRegionCam(dead, [net.relu1, net.relu3]), x, [1]),
        (LayerRegionCam(flat, flat[1]), torch.randn(2, 3, 8, 8), [0, 1]),
    ):
        with pytest.warns(UserWarning, match=r"are 0 everywhere") as expected:
            cam.attribute(inputs, 1)
        with pytest.warns(UserWarning, match=r"are 0 everywhere") as caught:
            maps = cam.attribute_layers(inputs, 1)
        assert [str(warning.message) for warning in caught] == [str(warning.message) for warning in expected]
        for one in maps.values():
            assert [n for n, of_example in enumerate(one) if not of_example.any()] == empty


class Split(nn.Module):
    def forward(self, x):
        return x.relu(), (1 - x).relu()[..., :2, :2]


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_of_several_tensors_has_no_map_of_its_own(method):
    split, fc, x = Split(), nn.Linear(4 * 13, 2), torch.randn(2, 4, 3, 3)

    def score(parts):
        return fc(torch.cat([part.flatten(1) for part in parts], 1))

    cam = method(lambda x: score(split(x)), split)
    with pytest.raises(LayerError) as error:
        cam.attribute_layers(x, 1)
    assert str(error.value) == (
        "attribute_layers: the layer has 2 tensors, each with a map of its own. "
        "attribute(..., attr_dim_summation=False) returns these maps."
    )
    maps = cam.attribute(x, 1, attr_dim_summation=False)
    parts = [part.requires_grad_() for part in split(x)]
    gradients = torch.autograd.grad(score(parts)[:, 1].sum(), parts)
    for one, *pair in zip(maps, parts, gradients, strict=True):
        assert_maps({0: one}, dense_maps(method, [pair]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["attribute", "attribute_layers", "attribute_targets", "attribute_labels"])
def test_every_attribute_method_is_logged(method, name):
    assert getattr(method, name).__wrapped__.__name__ == name
