import pytest
import torch
from helpers import GapNet, dense_semantics, features_and_gradients, small_net
from torch import nn

from captum_regioncam.method.sim import is_head_stage, semantic_information


def semantics_of(features, gradients):
    """In float64, and here in the dtype of the features."""
    semantics = semantic_information(features, gradients)
    assert semantics.dtype == torch.float64
    return semantics.to(features.dtype)


def test_sums_positive_gradients_over_channels():
    gradients = torch.tensor([[[[1.0, -2.0], [0.0, 3.0]], [[4.0, -1.0], [-5.0, 0.5]]]])
    features = torch.full_like(gradients, 7.0)
    assert semantics_of(features, gradients).tolist() == [[[[5.0, 0.0], [0.0, 3.5]]]]


def test_on_a_2x2_net_by_hand():
    # y = sum of w_i * relu(x_i), with weights of their own at each position: dy/df_i = w_i.
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return (self.relu(x) * torch.tensor([[[1.0, -2.0], [3.0, 0.0]], [[5.0, 4.0], [-6.0, 0.0]]])).sum((1, 2, 3))

    net, x = Net(), torch.ones(1, 2, 2, 2, requires_grad=True)
    kept = []
    net.relu.register_forward_hook(lambda *call: kept.append(call[-1]))
    (gradients,) = torch.autograd.grad(net(x).sum(), kept[0])
    assert semantic_information(kept[0], gradients).tolist() == [[[[6.0, 4.0], [3.0, 0.0]]]]


def test_head_rule_fires_on_global_average_pooling_and_linear():
    net, x = GapNet(), torch.randn(3, 3, 6, 6)
    ((features, gradients),) = features_and_gradients(net, [net.relu], x, 2)
    assert is_head_stage(gradients).tolist() == [True] * 3
    cam = torch.einsum("c,nchw->nhw", net.fc.weight[2], features) / 36
    torch.testing.assert_close(semantics_of(features, gradients)[:, 0], cam.relu())


def test_head_rule_fires_on_1x1_convolution_relu_and_pooling():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.head = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, x):
            return self.head(self.conv(x))

    net, x = Net(), torch.randn(3, 3, 6, 6)
    nn.init.zeros_(net.head[0].bias)
    ((features, gradients),) = features_and_gradients(net, [net.conv], x, 1)
    assert (gradients == 0).all(1).any()  # ReLU stops some positions: they are left out of the test
    assert is_head_stage(gradients).tolist() == [True] * 3
    on = net.head[:2](features)[:, 1:2] > 0
    cam = torch.einsum("c,nchw->nhw", net.head[0].weight[1, :, 0, 0], features)[:, None] * on / 36
    torch.testing.assert_close(semantics_of(features, gradients), cam.relu())


def test_head_rule_does_not_fire_on_a_vgg_like_head():
    net, x = small_net()  # flatten and linear: weights of their own at each position
    for features, gradients in features_and_gradients(net, [net.relu2, net.relu3], x, 0):
        assert is_head_stage(gradients).tolist() == [False] * 3
        expected = torch.stack([dense_semantics(f, g) for f, g in zip(features, gradients, strict=True)])
        torch.testing.assert_close(semantics_of(features, gradients)[:, 0], expected)


def test_head_rule_decides_per_example():
    vector = torch.tensor([1.0, -2.0, 3.0]).view(3, 1)
    parallel = vector * torch.tensor([1.0, 0.0, 0.1, 20.0])
    gradients = torch.stack([parallel, torch.randn(3, 4), torch.zeros(3, 4)])
    features = torch.randn(3, 3, 4)
    assert is_head_stage(gradients).tolist() == [True, False, False]
    semantics = semantics_of(features, gradients)
    torch.testing.assert_close(semantics[0], (gradients[0] * features[0]).sum(0, keepdim=True).relu())
    torch.testing.assert_close(semantics[1], gradients[1].relu().sum(0, keepdim=True))
    assert semantics[2].tolist() == [[0.0] * 4]


@pytest.mark.parametrize(("degrees", "head"), [(2.0, True), (3.0, False)])
def test_head_rule_threshold_is_a_cosine_of_one_thousandth(degrees, head):
    # 99 vectors one way and one at an angle: the mean stays with the many; acos(1 - 1e-3) is 2.56 degrees.
    angle = torch.deg2rad(torch.tensor(degrees))
    gradients = torch.tensor([1.0, 0.0]).view(1, 2, 1).repeat(1, 1, 100)
    gradients[0, :, 7] = torch.stack([angle.cos(), angle.sin()])
    assert is_head_stage(gradients).item() is head


def test_opposite_gradients_are_not_one_direction():
    gradients = torch.tensor([[[1.0, -1.0], [2.0, -2.0]]])
    assert not is_head_stage(gradients)
    assert semantic_information(torch.ones_like(gradients), gradients).tolist() == [[[3.0, 0.0]]]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_changes_no_decision(scale):
    gradients = torch.randn(2, 5, 3, 3)
    gradients[1] = torch.randn(5, 1, 1)
    assert is_head_stage(gradients * scale).tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_gradients_are_summed_in_float32(dtype):
    gradients = torch.ones(1, 3000, 2, dtype=dtype) * torch.tensor([30.0, 15.0], dtype=dtype)
    gradients[:, ::2, 1] = 0  # not parallel
    semantics = semantic_information(torch.ones_like(gradients), gradients)
    assert semantics.dtype == torch.float64
    assert semantics.tolist() == [[[90_000.0, 22_500.0]]]


def test_a_nearly_flat_map_is_summed_in_float64():
    gradients = 1 + 1e-6 * torch.rand(1, 10_000, 6)
    gradients[0, ::2] = -torch.rand(5_000, 6)  # so that they do not point one way
    exact = gradients[0].relu().double().sum(0)
    assert exact.max() - exact.min() < 1e-3  # where one unit in the last place of a float32 sum is 5e-4
    assert torch.equal(semantic_information(torch.ones_like(gradients), gradients)[0, 0], exact)


def test_close_calls_of_the_head_rule_are_decided_in_float64():
    # Two directions, at one angle on both sides of their mean: around where the cosine is 1 - 1e-3.
    angle = torch.tensor(1 - 1e-3, dtype=torch.float64).acos()
    for off in (-2e-7, -5e-8, 5e-8, 2e-7):
        a = angle + off
        gradients = torch.stack([a.cos(), a.sin(), a.cos(), -a.sin()]).view(2, 2).T[None].repeat(1, 1, 20)
        smallest = (gradients.float().double() / gradients.float().double().norm(dim=1, keepdim=True))[0, 0].min()
        assert is_head_stage(gradients.float()).item() == (smallest > 1 - 1e-3)
