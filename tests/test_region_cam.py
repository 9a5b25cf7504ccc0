import inspect
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam, NoiseTunnel
from helpers import GapNet, dense_region_cam, features_and_gradients, small_net
from torch import nn

from captum_regioncam import LayerError, LayerRegionCam, TargetError, find_stages
from captum_regioncam.network.layers import as_layers


def layers_of(net):
    return [net.relu1, net.relu2, net.relu3]


class Split(nn.Module):
    def forward(self, x):
        return x.relu(), (1 - x).relu()[..., :2, :2]


class TwoTensors(nn.Module):
    """Its module ``split`` gives two tensors, on grids of their own."""

    def __init__(self):
        super().__init__()
        self.conv, self.split, self.fc = nn.Conv2d(2, 4, 1), Split(), nn.Linear(4 * 13, 2)

    def forward(self, x):
        return self.fc(torch.cat([part.flatten(1) for part in self.split(self.conv(x))], 1))


def test_a_single_layer_of_several_tensors_gives_a_tuple_of_maps():
    net, x = TwoTensors(), torch.randn(2, 2, 3, 3)
    maps = LayerRegionCam(net, net.split).attribute(x, target=0)
    assert isinstance(maps, tuple)
    assert [tuple(one.shape) for one in maps] == [(2, 1, 3, 3), (2, 1, 2, 2)]
    assert [one.shape for one in maps] == [one.shape for one in LayerGradCam(net, net.split).attribute(x, target=0)]
    features = net.split(net.conv(x))
    gradients = torch.autograd.grad(net.fc(torch.cat([f.flatten(1) for f in features], 1))[:, 0].sum(), features)
    for one, feature, gradient in zip(maps, features, gradients, strict=True):
        torch.testing.assert_close(one, dense_region_cam([(feature, gradient)]).float(), atol=1e-5, rtol=0)


def fingerprint(net, *tensors):
    """All that a call must leave as it was."""
    return (
        [(p.requires_grad, p.grad, p._version) for p in [*net.parameters(), *tensors]],
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()],
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_equals_the_dense_method(dimensions):
    net, x = small_net(dimensions)
    expected = dense_region_cam(features_and_gradients(net, layers_of(net), x, 1))
    attribution = LayerRegionCam(net, layers_of(net)).attribute(x, target=1)
    assert attribution.shape == (3, 1, *[8] * dimensions)
    torch.testing.assert_close(attribution, expected.float(), atol=1e-5, rtol=0)


def test_single_last_layer_where_the_gradient_alone_says_nothing():
    net, x = GapNet(), torch.randn(2, 3, 6, 6)
    attribution = LayerRegionCam(net, net.relu).attribute(x, target=3)
    expected = dense_region_cam(features_and_gradients(net, [net.relu], x, 3))
    torch.testing.assert_close(attribution, expected.float(), atol=1e-5, rtol=0)
    assert attribution.amin() == 0
    assert attribution.amax() == 1


def test_region_of_the_class_lights_up_whole():
    # Two regions of equal features each; the class looks at one position of the left one.
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.ReLU()

        def forward(self, x):
            return torch.stack([self.features(x)[:, 0, 1, 1].square(), x.mean((1, 2, 3))], 1)

    x = torch.zeros(1, 2, 4, 6)
    x[:, 0, :, :3], x[:, 1, :, 3:] = 1.0, 1.0
    attribution = LayerRegionCam(net := Net(), net.features).attribute(x, target=0)
    assert attribution[0, 0].tolist() == [[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]] * 4


def test_batch_equals_single_calls():
    net, x = small_net()
    cam = LayerRegionCam(net, layers_of(net))
    together = cam.attribute(x, target=[0, 3, 1])
    alone = torch.cat([cam.attribute(x[n : n + 1], target=target) for n, target in enumerate((0, 3, 1))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_order_of_layers_does_not_matter():
    net, x = small_net()
    expected = LayerRegionCam(net, layers_of(net)).attribute(x, target=1)
    for order in ([2, 0, 1], [1, 2, 0]):
        shuffled = [layers_of(net)[i] for i in order]
        torch.testing.assert_close(LayerRegionCam(net, shuffled).attribute(x, target=1), expected)


def test_layers_come_as_any_iterable():
    net, x = small_net()
    expected = LayerRegionCam(net, layers_of(net)).attribute(x, target=1)
    stages = {"a": net.relu1, "b": net.relu2, "c": net.relu3}
    for layers in (tuple(layers_of(net)), stages, stages.values(), iter(layers_of(net)), nn.ModuleDict(stages)):
        cam = LayerRegionCam(net, layers)
        assert torch.equal(cam.attribute(x, target=1), expected)
        assert torch.equal(cam.attribute(x, target=1), expected)  # an iterator is not used up
    assert LayerRegionCam(net, nn.ModuleList(layers_of(net))).layer == layers_of(net)


def test_layer_may_be_reassigned():
    net, x = small_net()
    cam = LayerRegionCam(net, net.relu1)
    cam.layer = net.relu3
    assert torch.equal(cam.attribute(x, 1), LayerRegionCam(net, net.relu3).attribute(x, 1))


@pytest.mark.parametrize(
    "target", [[2, 2, 2], torch.tensor([2, 2, 2]), torch.tensor(2), torch.tensor([2]), (2,), [(2,), (2,), (2,)], -3]
)
def test_forms_of_target(target):
    net, x = small_net()
    cam = LayerRegionCam(net, layers_of(net))
    assert torch.equal(cam.attribute(x, target=target), cam.attribute(x, target=2))


def test_tuple_targets_on_a_dense_output():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()
            self.conv = nn.Conv2d(2, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(self.relu(x))  # (N, K, H, W)

    net, x = Dense(), torch.randn(2, 2, 5, 6)
    cam = LayerRegionCam(net, net.relu)
    expected = LayerRegionCam(lambda x: net(x)[:, 3, 2, 1], net.relu).attribute(x)
    assert torch.equal(cam.attribute(x, target=(3, 2, 1)), expected)
    each = cam.attribute(x, target=[(3, 2, 1), (0, 4, 4)])
    torch.testing.assert_close(each[:1], expected[:1])
    torch.testing.assert_close(each[1:], cam.attribute(x, target=(0, 4, 4))[1:])


def test_in_place_relu_after_the_layer():
    torch.manual_seed(1)
    inplace, x = small_net(inplace=True)
    torch.manual_seed(1)
    plain, _ = small_net(inplace=False)
    layers = ("conv1", "conv2", "conv3")
    maps = [LayerRegionCam(n, [getattr(n, name) for name in layers]).attribute(x, 1) for n in (inplace, plain)]
    assert torch.equal(*maps)


def test_result_is_detached_bounded_and_of_the_inputs_dtype():
    net, x = small_net()
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        net, x = net.to(dtype), x.to(dtype)
        attribution = LayerRegionCam(net, layers_of(net)).attribute(x.requires_grad_(), target=1)
        assert attribution.dtype == dtype
        assert not attribution.requires_grad
        assert 0 <= attribution.amin() < attribution.amax() <= 1


def test_low_precision_is_close_to_float32():
    net, x = small_net()
    expected = LayerRegionCam(net, layers_of(net)).attribute(x, target=1)
    low = LayerRegionCam(net.bfloat16(), layers_of(net)).attribute(x.bfloat16(), target=1)
    assert (low.float() - expected).abs().mean() < 0.02


def test_under_autocast_the_maps_are_computed_in_float32():
    net, x = small_net()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attribution = LayerRegionCam(net, layers_of(net)).attribute(x, target=1)
        expected = dense_region_cam(features_and_gradients(net, layers_of(net), x, 1))
    assert attribution.dtype == torch.float32
    assert (attribution - expected).abs().mean() < 2e-3


def test_each_layers_map_in_the_order_given():
    net, x = small_net()
    cam = LayerRegionCam(net, [net.relu3, net.relu1, net.relu2])
    maps = cam.attribute(x, target=1, attr_dim_summation=False)
    assert maps.shape == (3, 3, 8, 8)
    mean = maps.mean(1, keepdim=True)
    mean = mean / mean.amax((2, 3), keepdim=True)
    plain = LayerRegionCam(net, [net.relu3, net.relu1, net.relu2], contrast=1)
    torch.testing.assert_close(mean, plain.attribute(x, target=1))
    torch.testing.assert_close(mean**4, cam.attribute(x, target=1))
    swapped = LayerRegionCam(net, [net.relu1, net.relu2, net.relu3]).attribute(x, target=1, attr_dim_summation=False)
    torch.testing.assert_close(maps[:, [1, 2, 0]], swapped)
    coarse = maps[0, 0]  # relu3, from a 2 x 2 grid: bilinear between four values
    torch.testing.assert_close(coarse[0, :2], coarse[0, 0].expand(2))


def test_layer_input_extra_arguments_and_relu_flag():
    net, x = small_net()
    cam = LayerRegionCam(net, [net.conv2, net.conv3])
    before = LayerRegionCam(net, [net.relu1, net.relu2]).attribute(x, target=1)
    torch.testing.assert_close(cam.attribute(x, target=1, attribute_to_layer_input=True), before)
    expected = cam.attribute(x, target=1)
    torch.testing.assert_close(cam.attribute(x, target=1, additional_forward_args=(3.0,)), expected)
    assert torch.equal(cam.attribute(x, target=1, relu_attributions=True), expected)


def test_reshape_transform_brings_layers_onto_a_grid():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc = nn.LayerNorm(4), nn.Linear(40, 2)

        def forward(self, x):
            return self.fc(self.norm(x).flatten(1))

    net, x = Tokens(), torch.randn(2, 10, 4)

    def transform(tokens):
        return tokens[:, 1:].transpose(1, 2).reshape(-1, 4, 3, 3)

    attribution = LayerRegionCam(net, net.norm, reshape_transform=transform).attribute(x, target=1)
    ((features, gradients),) = features_and_gradients(net, [net.norm], x, 1)
    expected = dense_region_cam([(transform(features), transform(gradients))])
    torch.testing.assert_close(attribution, expected.float(), atol=1e-5, rtol=0)


def test_nothing_is_left_behind():
    net, x = small_net()
    net.conv1.weight.requires_grad_(False)
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    x = x.requires_grad_()
    before = fingerprint(net, x)
    for layer_input in (False, True):
        LayerRegionCam(net, layers_of(net)).attribute(x, target=1, attribute_to_layer_input=layer_input)
        assert fingerprint(net, x) == before
    x = x.detach()
    LayerRegionCam(net, net.conv1).attribute(x, target=1, attribute_to_layer_input=True)
    assert not x.requires_grad  # though the layer's input is this very tensor


def test_nothing_is_left_behind_when_the_model_raises():
    net, x = small_net()
    net.fc.forward = lambda x: 1 / 0
    before = fingerprint(net, x)
    with pytest.raises(ZeroDivisionError):
        LayerRegionCam(net, [net.conv1, net.relu2]).attribute(x, target=1, attribute_to_layer_input=True)
    assert fingerprint(net, x) == before


def test_an_assertion_of_the_model_surfaces_as_it_is():
    def forward(x):
        raise AssertionError("the model's own")

    net, x = small_net()
    with pytest.raises(AssertionError, match="the model's own") as caught:
        LayerRegionCam(forward, net.relu1).attribute(x, target=1)
    assert not isinstance(caught.value, LayerError)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_inside_contexts_without_gradients(context):
    net, x = small_net()
    cam = LayerRegionCam(net, layers_of(net))
    expected = cam.attribute(x, target=1)
    with context():
        assert torch.equal(cam.attribute(x, target=1), expected)
        assert torch.equal(cam.attribute(x.clone(), target=1, additional_forward_args=torch.ones(3, 1)), expected)


def test_frozen_parameter_that_a_layer_hands_on():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.pos = nn.Parameter(torch.rand(2, 4, 3, 3), requires_grad=False)
            self.learnt, self.kept = nn.Identity(), nn.Identity()
            self.register_buffer("offset", torch.rand(2, 4, 3, 3))

        def forward(self, x):
            return ((self.learnt(self.pos) + x) * self.kept(self.offset)).flatten(1)

    net = Positions()
    for forward in (net, lambda x: net(x)):
        LayerRegionCam(forward, [net.learnt, net.kept]).attribute(torch.rand(2, 4, 3, 3), target=1)
        if forward is net:
            assert not net.pos.requires_grad
            assert not net.offset.requires_grad


def test_features_that_look_alike_everywhere_warn():
    net = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(36, 2))
    with pytest.warns(UserWarning, match=r"examples \[0, 1\] .* 0 everywhere: .* features look alike"):
        assert LayerRegionCam(net, net[1]).attribute(torch.randn(2, 3, 8, 8), target=1).max() == 0


def test_frozen_model():
    net, x = small_net()
    expected = LayerRegionCam(net, layers_of(net)).attribute(x, target=1)
    net.requires_grad_(False)
    assert torch.equal(LayerRegionCam(net, layers_of(net)).attribute(x, target=1), expected)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_create_graph_keeps_the_result_trainable():
    net, x = small_net()
    attribution = LayerRegionCam(net, layers_of(net)).attribute(x, target=1, grad_kwargs={"create_graph": True})
    gradient = torch.autograd.grad(attribution.square().sum(), net.conv1.weight)[0]
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_signature_is_layer_grad_cams():
    ours, captums = (inspect.signature(cls.attribute).parameters for cls in (LayerRegionCam, LayerGradCam))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in captums.values()]
    assert list(inspect.signature(LayerRegionCam).parameters)[:3] == list(inspect.signature(LayerGradCam).parameters)
    assert not LayerRegionCam(nn.Identity(), nn.Identity()).multiplies_by_inputs


def test_captums_noise_tunnel_and_interpolation():
    net, x = small_net()
    tunnel = NoiseTunnel(LayerRegionCam(net, layers_of(net)))
    attribution = tunnel.attribute(x, nt_samples=4, stdevs=1e-6, target=1)
    torch.testing.assert_close(attribution, LayerRegionCam(net, layers_of(net)).attribute(x, 1), atol=1e-3, rtol=0)
    twice = LayerAttribution.interpolate(attribution, (16, 16))
    assert torch.equal(twice, attribution.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_zero_gradients_warn_and_give_zeros():
    net, x = small_net()
    dead = lambda x: net(x) * torch.tensor([[1.0], [0.0], [1.0]])  # noqa: E731
    with pytest.warns(
        UserWarning, match=r"maps of examples \[1\] of the batch are 0 everywhere: .* gradients"
    ) as caught:
        attribution = LayerRegionCam(dead, layers_of(net)).attribute(x, target=1)
    assert len(caught) == 1
    assert attribution[1].abs().max() == 0
    assert attribution[0].max() > 0.5


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_scale_of_the_score_does_not_matter(scale):
    net, x = small_net()
    expected = LayerRegionCam(net, layers_of(net)).attribute(x, target=1)
    scaled = LayerRegionCam(lambda x: net(x) * scale, layers_of(net)).attribute(x, target=1)
    torch.testing.assert_close(scaled, expected, atol=1e-5, rtol=0)


def test_contrast_is_a_power_of_the_mean_divided_by_its_maximum():
    net, x = small_net()
    plain = LayerRegionCam(net, layers_of(net), contrast=1).attribute_targets(x, [1, 2])
    assert torch.equal(plain.amax((2, 3)), torch.ones(3, 2))
    for contrast in (0.5, 2, 3.0):
        maps = LayerRegionCam(net, layers_of(net), contrast=contrast).attribute_targets(x, [1, 2])
        torch.testing.assert_close(maps, plain**contrast)
    default = LayerRegionCam(net, layers_of(net))
    assert default.contrast == 4
    for four in (4, np.float32(4), np.int64(4), np.array(4.0), torch.tensor(4), Fraction(4)):
        same = LayerRegionCam(net, layers_of(net), contrast=four)
        assert type(same.contrast) is float
        assert torch.equal(same.attribute(x, 1), default.attribute(x, 1))
    torch.testing.assert_close(default.attribute_targets(x, [1, 2]), plain**4)
    apart = LayerRegionCam(net, layers_of(net), contrast=7).attribute(x, 1, attr_dim_summation=False)
    assert torch.equal(apart, default.attribute(x, 1, attr_dim_summation=False))


def test_stages_at_modules_inputs():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
            self.relu, self.fc = nn.ReLU(), nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(self.relu(self.conv2(self.conv1(x).relu())).mean((2, 3)))

    class Modules(Functional):
        def forward(self, x):
            return self.fc(self.relu(self.conv2(self.first(self.conv1(x)))).mean((2, 3)))

    net, x = Functional(), torch.randn(2, 3, 16, 16)
    stages = find_stages(net, x)
    assert repr(stages) == "Stages(conv2 (input), relu)"
    assert stages.at_input == {"conv2"}
    modules = Modules()
    modules.load_state_dict(net.state_dict())
    modules.first = nn.ReLU()
    expected = LayerRegionCam(modules, [modules.first, modules.relu]).attribute(x, 1)
    cam = LayerRegionCam(net, stages)
    assert torch.equal(cam.attribute(x, 1), expected)
    assert torch.equal(cam.attribute_targets(x, [1, 2])[:, :1], expected)
    inputs = cam.attribute(x, 1, attribute_to_layer_input=True)
    assert torch.equal(
        inputs, LayerRegionCam(net, [net.conv2, net.relu]).attribute(x, 1, attribute_to_layer_input=True)
    )
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    cam.layer = net.relu  # as TCAV does
    assert torch.equal(cam.attribute(x, 1), LayerRegionCam(net, net.relu).attribute(x, 1))


class TestBadInput:
    @pytest.mark.parametrize(
        "contrast", [0, -1.0, float("nan"), float("inf"), "3", None, True, 3j, np.float32(-1), np.True_]
    )
    def test_contrast(self, contrast):
        net, _ = small_net()
        with pytest.raises(ValueError, match=re.escape(f"contrast={contrast!r}: expects a positive number")):
            LayerRegionCam(net, net.relu1, contrast=contrast)

    @pytest.mark.parametrize(
        ("layer", "error", "message"),
        [
            ([], ValueError, "layer: expects at least one"),
            (None, TypeError, "layer: .* got None"),
            ("relu1", TypeError, r"'relu1'.*get_submodule"),
            (["relu1"], TypeError, r"'relu1' among them.*get_submodule"),
        ],
    )
    def test_layers(self, layer, error, message):
        net, _ = small_net()
        with pytest.raises(error, match=message):
            LayerRegionCam(net, layer)

    def test_a_layer_twice(self):
        net, _ = small_net()
        with pytest.raises(ValueError, match="Conv2d is given 2 times"):
            LayerRegionCam(net, [net.conv1, net.relu1, net.conv1])

    @pytest.mark.parametrize("others", [[], ["relu1"]])
    def test_layer_never_reached(self, others):
        net, x = small_net()
        net.unused = nn.Linear(2, 2)
        layers = [net.unused, *(getattr(net, name) for name in others)]
        with pytest.raises(LayerError, match=r"never reaches 'unused' \(Linear\)"):
            LayerRegionCam(net, layers).attribute(x, target=1)

    def test_layer_that_is_not_spatial(self):
        net, x = small_net()
        with pytest.raises(LayerError, match=r"'fc' \(Linear\) gives a tensor of shape \(3, 5\).*reshape_transform"):
            LayerRegionCam(net, net.fc).attribute(x, target=1)

    def test_layers_on_grids_of_different_dimensions(self):
        class Mixed(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.ReLU(), nn.ReLU()

            def forward(self, x):
                return self.b(self.a(x).flatten(2)).sum((1, 2))

        with pytest.raises(LayerError, match=r"different dimensions, \[1, 2\]"):
            LayerRegionCam(net := Mixed(), [net.a, net.b]).attribute(torch.rand(1, 2, 3, 3))

    def test_layer_without_influence_on_the_score(self):
        class Branch(nn.Module):
            def __init__(self):
                super().__init__()
                self.used, self.side = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

            def forward(self, x):
                self.side(x)
                return self.used(x).mean((2, 3))

        net, x = Branch(), torch.rand(2, 3, 4, 4)
        with pytest.raises(LayerError, match=r"does not depend on 'side' \(Conv2d\)"):
            LayerRegionCam(net, [net.used, net.side]).attribute(x, target=1)
        with pytest.raises(LayerError, match="does not depend on Conv2d through differentiable"):
            LayerRegionCam(lambda x: net(x).detach(), net.used).attribute(x, target=1)
        attribution = LayerRegionCam(net, net.side).attribute
        with pytest.warns(UserWarning, match="are 0 everywhere"):
            assert attribution(x, 1, grad_kwargs={"materialize_grads": True}).abs().max() == 0

    def test_a_layer_of_several_tensors_among_several_layers(self):
        net = TwoTensors()
        with pytest.raises(LayerError, match=r"'split' \(Split\) gives 2 tensors, which only a single layer may"):
            LayerRegionCam(net, [net.conv, net.split]).attribute(torch.rand(1, 2, 3, 3), target=0)

    @pytest.mark.parametrize(
        ("returned", "described"),
        [
            (None, "gives None,"),
            ({"x": 1}, "gives dict of 'x'"),
            (torch.ones(1, 2, dtype=torch.long), "gives a torch.int64"),
        ],
    )
    def test_layer_that_gives_no_floating_point_tensor(self, returned, described):
        net, x = small_net()
        net.side = nn.Identity()
        net.side.forward = lambda: returned
        with pytest.raises(LayerError, match=f"layer Identity {described}"):
            LayerRegionCam(lambda x: (net.side(), net(x))[1], [net.side, net.relu1]).attribute(x, target=1)
        assert not net.side._forward_hooks

    def test_layer_input_that_comes_by_keyword(self):
        net, x = small_net()
        with pytest.raises(LayerError, match=r"ReLU takes tuple of \[\], not floating-point tensors"):
            LayerRegionCam(lambda x: net.relu1(input=x).mean((1, 2, 3)), net.relu1).attribute(
                x, attribute_to_layer_input=True
            )

    def test_layers_that_see_different_batches(self):
        net, x = small_net()

        def folded(x):
            side = net.relu3(net.conv3(net.relu2(net.conv2(net.side(x[:1])))))
            return net(x) + net.fc(side.flatten(1))

        net.side = nn.Conv2d(3, 6, 3, padding=1)
        with pytest.raises(LayerError, match=r"batches of different sizes, \[1, 3\]"):
            LayerRegionCam(folded, [net.side, net.relu1]).attribute(x, target=1)

    @pytest.mark.parametrize(
        ("transform", "made"), [(lambda t: None, "NoneType"), (lambda t: t.flatten(0, 1)[None], r"\(1, 24, 4, 4\)")]
    )
    def test_reshape_transform_that_returns_something_else(self, transform, made):
        net, x = small_net()
        with pytest.raises(LayerError, match=rf"reshape_transform gave {made} for layer 'relu2'"):
            LayerRegionCam(net, net.relu2, reshape_transform=transform).attribute(x, target=1)

    @pytest.mark.filterwarnings("ignore:.torch.jit")  # deprecated
    def test_torchscript(self):
        net, x = GapNet().eval(), torch.randn(1, 3, 6, 6)
        for scripted in (torch.jit.script(net), torch.jit.trace(net, x)):
            with pytest.raises(TypeError, match=r"layer: 'relu' \(ReLU\) is TorchScript.* eager model"):
                LayerRegionCam(scripted, scripted.relu)
            net.scripted = scripted
            for network, name in ((scripted, "relu"), (net, "scripted.relu")):
                with pytest.raises(TypeError, match=rf"layer: '{name}' \(ReLU\) is TorchScript"):
                    as_layers(scripted.relu, network)
            with pytest.raises(TypeError, match="is TorchScript"):
                find_stages(scripted, x)

    @pytest.mark.parametrize("target", [5, -6, [0, 1, 5], torch.tensor([0, -1, 2])])
    def test_class_out_of_range(self, target):
        net, x = small_net()
        with pytest.raises(TargetError, match=r"target=(5|-6|-1) is out of range: .* 5 classes, 0 to 4"):
            LayerRegionCam(net, net.relu3).attribute(x, target=target)

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (None, r"target is missing: .* shape \(3, 5\)"),
            ([0, 1], r"target=\[0, 1\] selects nothing from .* shape \(3, 5\)"),
            ((1, 2, 3), r"target=\(1, 2, 3\) selects nothing"),
            ("cat", "target='cat' selects nothing"),
            ((slice(0, 2),), "selects 2 scores"),
        ],
    )
    def test_target_that_does_not_fit(self, target, message):
        net, x = small_net()
        for error in (TargetError, AssertionError, IndexError, ValueError):
            with pytest.raises(error, match=message):
                LayerRegionCam(net, net.relu3).attribute(x, target=target)

    def test_output_that_is_no_score_per_example(self):
        net, x = small_net()
        with pytest.raises(TargetError, match="one number for the whole batch"):
            LayerRegionCam(lambda x: net(x).sum(), net.relu3).attribute(x)
        for forward, returned, remedy in (
            (lambda x: {"logits": net(x)}, "dict of 'logits',", r'class_scores\(model\).*model\(x\)\["logits"\]'),
            (lambda x: [{"boxes": net(x), "scores": 1}], r"list of \[dict of 'boxes', 'scores'\]", "box_score"),
            (
                lambda x: (net(x), None),
                r"tuple of \[a torch.float32 tensor of shape \(3, 5\), None\]",
                r"model\(x\)\[0\]",
            ),
        ):
            with pytest.raises(TypeError, match=rf"forward_func returned {returned}.* not a tensor.*{remedy}"):
                LayerRegionCam(forward, net.relu3).attribute(x, target=1)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_features_that_are_not_finite(self, bad):
        net, x = small_net()
        x[1, 0, 2, 2] = bad
        with pytest.raises(LayerError, match=r"features of layer 'conv1' \(Conv2d\) are not finite"):
            LayerRegionCam(net, [net.conv1, net.relu3]).attribute(x, target=1)

    def test_gradients_that_are_not_finite(self):
        net, x = small_net()
        broken = lambda x: net(x) + (net.fc(net.relu3.seen.flatten(1)) * 0).sqrt()  # noqa: E731
        net.relu3.register_forward_hook(lambda module, _, output: setattr(module, "seen", output))
        with pytest.raises(LayerError, match=r"gradients of layer ReLU are not finite"):
            LayerRegionCam(broken, net.relu2).attribute(x, target=1)

    def test_empty_batch(self):
        net, x = small_net()
        with pytest.raises(ValueError, match="empty"):
            LayerRegionCam(net, layers_of(net)).attribute(x[:0], target=1)


def test_stages_found_go_straight_in():
    net, x = small_net()
    stages = find_stages(net, x)
    assert list(stages) == ["relu2", "relu3"]
    expected = LayerRegionCam(net, [net.relu2, net.relu3]).attribute(x, target=0)
    assert torch.equal(LayerRegionCam(net, stages).attribute(x, target=0), expected)
