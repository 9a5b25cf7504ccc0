"""The two halves of Region-CAM, as methods of their own: ``semantics`` and ``propagate``."""

import weakref

import pytest
import timm
import torch
import torchvision
from captum.attr import Occlusion
from helpers import (
    GapNet,
    Named,
    dense_finest_grid,
    dense_mean,
    dense_min_max,
    dense_semantics,
    features_and_gradients,
    rounding,
    small_net,
)
from torch import nn

from captum_regioncam import LayerError, LayerRegionCam, TargetError, find_stages, tokens_to_grid


def layers_of(net):
    return [net.relu1, net.relu2, net.relu3]


def _small(dimensions):
    net, x = small_net(dimensions)
    return net, layers_of(net), x


def _found(net, side):
    x = torch.randn(2, 3, side, side)
    net.eval()
    return net, find_stages(net, x), x


def _encoder():
    """Tokens of ``nn.TransformerEncoderLayer``, which runs no modules inside if gradients are disabled."""
    blocks = [nn.TransformerEncoderLayer(12, 2, 16, batch_first=True) for _ in range(3)]
    net = Named(
        lambda net, x: net.fc(net.blocks(net.patches(x).flatten(2).transpose(1, 2)).mean(1)),
        patches=nn.Conv2d(3, 12, 4, 4), blocks=nn.Sequential(*blocks), fc=nn.Linear(12, 5),
    ).eval()  # fmt: skip
    return net, [net.blocks[0].norm1, net.blocks[2].norm1], torch.randn(2, 3, 24, 24)


def _vit():
    net = torchvision.models.VisionTransformer(32, 8, 4, 2, 16, 32, num_classes=6)
    nn.init.normal_(net.heads.head.weight)
    return _found(net, 32)


NETWORKS = {
    "1-D": lambda: _small(1),
    "2-D": lambda: _small(2),
    "3-D": lambda: _small(3),
    "one layer": lambda: (net := GapNet().eval(), net.relu, torch.randn(2, 3, 6, 6)),
    "resnet18": lambda: _found(torchvision.models.resnet18(num_classes=9), 64),
    "mobilenet_v2": lambda: _found(torchvision.models.mobilenet_v2(num_classes=9), 64),
    "regnet": lambda: _found(torchvision.models.regnet_y_400mf(num_classes=9), 64),
    "vit": _vit,
    "swin": lambda: _found(torchvision.models.SwinTransformer([4, 4], 12, [2, 2], [2, 2], [4, 4], num_classes=6), 64),
    "convnext": lambda: _found(timm.create_model("convnext_atto", num_classes=9, depths=(1, 1, 1, 1)), 64),
    "torch's encoder": _encoder,
}


@pytest.mark.filterwarnings("ignore:.*runs 2 times")
@pytest.mark.parametrize("name", NETWORKS)
def test_attribution_is_the_two_and_contrast(name):
    net, layers, x = NETWORKS[name]()
    cam = LayerRegionCam(net, layers, contrast=1)
    if name == "torch's encoder":
        cam.reshape_transform = tokens_to_grid(prefix_tokens=0)
    targets = [1, torch.tensor([2, 0, 3][: len(x)])]
    semantics = cam.semantics(x, targets)
    maps = cam.propagate(x, semantics)
    expected = cam.attribute_targets(x, targets)
    assert maps.shape == semantics.shape == expected.shape
    high = maps.flatten(2).amax(2)[(..., *[None] * (x.dim() - 2))]
    assert (high > 0).all()
    torch.testing.assert_close(maps / high, expected, atol=1e-6, rtol=0)
    again, propagate = cam.halves(x, targets)
    assert torch.equal(again, semantics)
    torch.testing.assert_close(propagate(semantics), maps, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_semantics_equal_the_dense_method(dimensions):
    net, x = small_net(dimensions)
    stages = [(f.double(), g.double()) for f, g in features_and_gradients(net, layers_of(net), x, 1)]
    grid = dense_finest_grid(stages)
    small = rounding(torch.float32)
    expected = []
    for n in range(len(x)):
        maps = [dense_semantics(f[n], g[n]) for f, g in stages]
        normalised = [dense_min_max(one, small * one.max()) for one in maps]
        expected.append(dense_mean(normalised, grid, [1, 2**0.5, 2]))
    semantics = LayerRegionCam(net, layers_of(net)).semantics(x, [1])
    torch.testing.assert_close(semantics[:, 0], torch.stack(expected).float(), atol=1e-5, rtol=0)


def test_semantics_from_elsewhere():
    net, x = small_net(size=16)
    cam = LayerRegionCam(net, layers_of(net))
    occlusion = Occlusion(net).attribute(x, (3, 4, 4), target=1, strides=(3, 2, 2)).sum(1, keepdim=True).relu()
    maps = cam.propagate(x, occlusion)
    assert maps.shape == (3, 1, 16, 16)
    torch.testing.assert_close(cam.propagate(x, 7 * occlusion), maps, atol=1e-5, rtol=0)  # only proportions count
    scribble = torch.zeros(3, 2, 16, 16, dtype=torch.bool)
    scribble[:, 0, 4:6, 4:6] = scribble[:, 1, 10:] = True
    maps = cam.propagate(x, scribble)
    assert torch.equal(maps, cam.propagate(x, scribble.float()))
    one = cam.propagate(x[1:2], scribble[1:2])
    torch.testing.assert_close(one, maps[1:2], atol=1e-5, rtol=0)


def test_coarse_semantics_are_resized_and_fine_ones_averaged():
    net, x = small_net(size=16)
    cam = LayerRegionCam(net, net.relu1)
    coarse = torch.rand(3, 1, 4, 4)
    fine = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
    torch.testing.assert_close(cam.propagate(x, coarse), cam.propagate(x, fine), atol=1e-5, rtol=0)
    fine = torch.rand(3, 1, 32, 32)
    averaged = torch.nn.functional.avg_pool2d(fine, 2)
    torch.testing.assert_close(cam.propagate(x, fine), cam.propagate(x, averaged), atol=1e-5, rtol=0)


def _state(net, *tensors):
    return (
        [(p.requires_grad, p.grad, p._version) for p in [*net.parameters(), *tensors]],
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()],
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_nothing_is_left_behind(mode):
    net, x = small_net()
    cam = LayerRegionCam(net, layers_of(net))
    semantics = torch.rand(3, 2, 8, 8)
    before = _state(net, x, semantics)
    expected = cam.propagate(x, semantics)
    with mode():
        maps = cam.propagate(x, semantics)
        of_gradients = cam.semantics(x, [1])
    for one in (maps, expected, of_gradients):
        assert not one.requires_grad
        assert one.grad_fn is None
    assert torch.equal(maps, expected)
    assert _state(net, x, semantics) == before


def test_propagate_keeps_nothing_for_backward_passes():
    """An activation that a convolution would need for its gradient is gone when the next module runs."""
    alive = []

    def forward(net, x):
        inside = net.one(x)
        kept = weakref.ref(inside)
        inside = net.two(net.act(inside * 2))
        alive.append(kept() is not None)
        return net.fc(net.relu(inside).mean((2, 3)))

    net = Named(
        forward, one=nn.Conv2d(3, 4, 3), act=nn.SiLU(), two=nn.Conv2d(4, 4, 3), relu=nn.ReLU(), fc=nn.Linear(4, 2)
    ).eval()
    x = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        net(x)
    net(x)
    cam = LayerRegionCam(net, net.relu)
    cam.propagate(x, torch.rand(1, 1, 12, 12))
    cam.semantics(x, [0])
    assert alive == [False, False, False, False]  # a product with a number needs nothing

    def saving(net, x):
        inside = net.one(x)
        doubled = inside * inside
        kept = weakref.ref(inside)
        del inside
        inside = net.two(doubled)
        alive.append(kept() is not None)
        return net.fc(net.relu(inside).mean((2, 3)))

    net.function = saving
    alive.clear()
    with torch.no_grad():
        net(x)
    net(x)
    cam.propagate(x, torch.rand(1, 1, 12, 12))
    cam.semantics(x, [0])
    assert alive == [False, True, False, True]


def test_both_halves_take_the_same_call_of_a_layer():
    """A second call, under no_grad, as by a momentum encoder, is passed over by both."""

    def forward(net, x):
        scores = net.fc(net.relu(net.conv(x)).mean((2, 3)))
        with torch.no_grad():
            net.relu(net.conv(-x))
        return scores

    net = Named(forward, conv=nn.Conv2d(3, 6, 3), relu=nn.ReLU(), fc=nn.Linear(6, 2)).eval()
    x = torch.randn(2, 3, 9, 9)
    plain = Named(lambda net, x: net.fc(net.relu(net.conv(x)).mean((2, 3))), **dict(net.named_children())).eval()
    semantics = torch.rand(2, 1, 7, 7)
    maps = LayerRegionCam(net, net.relu).propagate(x, semantics)
    torch.testing.assert_close(maps, LayerRegionCam(plain, plain.relu).propagate(x, semantics))


def test_the_network_may_return_anything():
    net, x = small_net()
    cam = LayerRegionCam(net, layers_of(net))
    semantics = torch.rand(3, 1, 8, 8)
    returns = LayerRegionCam(lambda x: {"features": [net(x)]}, layers_of(net))
    assert torch.equal(returns.propagate(x, semantics), cam.propagate(x, semantics))


def test_halves_share_one_forward_pass():
    net, x = small_net()
    calls = []
    net.register_forward_hook(lambda *call: calls.append(1))
    semantics, propagate = LayerRegionCam(net, layers_of(net)).halves(x, [0, 1])
    propagate(semantics**2)
    propagate(semantics[:, :1])
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("semantics", "says"),
    [
        (torch.rand(3, 8, 8), r"semantics: expects \(3, K, height, width\) numbers for these inputs, got"),
        (torch.rand(2, 1, 8, 8), r"semantics: expects \(3, K, height, width\)"),
        ([[1.0]], r"semantics: expects \(3, K, height, width\)"),
        (torch.full((3, 1, 8, 8), torch.nan), "semantics: expects finite numbers"),
        (torch.rand(3, 0, 8, 8), "semantics: expects finite numbers"),
    ],
)
def test_wrong_semantics(semantics, says):
    net, x = small_net()
    before = _state(net)
    with pytest.raises(ValueError, match=says):
        LayerRegionCam(net, layers_of(net)).propagate(x, semantics)
    assert _state(net) == before


def test_other_errors():
    net, x = small_net()
    cam = LayerRegionCam(net, layers_of(net))
    with pytest.raises(TargetError):
        cam.semantics(x, [])
    with pytest.raises(TargetError):
        cam.semantics(x, [99])
    two = Named(lambda net, x: sum(net.split(x)).mean((2, 3)), split=_Split()).eval()
    cam = LayerRegionCam(two, two.split)
    for call in (lambda: cam.semantics(x, [0]), lambda: cam.propagate(x, torch.rand(3, 1, 8, 8))):
        with pytest.raises(LayerError, match="the layer has 2 tensors, each with a map of its own"):
            call()

    def runs_backward(x):
        x = x.detach().requires_grad_()
        return net(x + torch.autograd.grad(net(x).pow(2).sum(), x)[0])

    with pytest.raises(RuntimeError, match="runs a backward pass inside its forward pass"):
        LayerRegionCam(runs_backward, net.relu1).propagate(x, torch.rand(3, 1, 8, 8))


class _Split(nn.Module):
    def forward(self, x):
        return x.relu(), (1 - x).relu()


def test_constant_semantics_say_nothing():
    net, x = small_net()
    cam = LayerRegionCam(net, layers_of(net))
    semantics = torch.rand(3, 2, 8, 8)
    semantics[1, 0] = 0.3
    with pytest.warns(UserWarning, match=r"examples \[1\] .* are 0 everywhere: the semantics are the same at every"):
        maps = cam.propagate(x, semantics)
    assert not maps[1, 0].any()
    assert maps[1, 1].amax() > 0.5
    alike = Named(lambda net, x: net.relu(x).mean((2, 3)), relu=nn.ReLU()).eval()
    with pytest.warns(UserWarning, match="the features look alike"):
        maps = LayerRegionCam(alike, alike.relu).propagate(torch.ones(1, 3, 8, 8), torch.rand(1, 1, 8, 8))
    assert not maps.any()
