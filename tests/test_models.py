"""Dense, recurrent in time or space, scripted, frozen: models that are not an image classifier, and odd numbers."""

import pytest
import torch
from helpers import GapNet, dense_region_cam, features_and_gradients, small_net
from torch import nn
from torch.utils.checkpoint import checkpoint

from captum_regioncam import LayerError, LayerRegionCam, TargetError, find_stages


class Backbone(nn.Module):
    """Two stages of a given dimension: strides 1 and 2, features that are the input's own."""

    def __init__(self, dimensions):
        super().__init__()
        self.fine = nn.ReLU()
        self.coarse = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[dimensions](2)
        self.weight = None

    def forward(self, x):
        x = self.coarse(self.fine(x))
        self.weight = (
            torch.linspace(1, 2, x[0, 0].numel()).view(1, 1, *x.shape[2:]) if self.weight is None else self.weight
        )
        return torch.stack([(x[:, :1] * self.weight).flatten(1).sum(1), x.flatten(1).sum(1)], 1)


@pytest.mark.parametrize("grid", [(24,), (8, 12), (4, 8, 12)])
def test_axes_come_out_in_their_order(grid):
    # A blob near one corner of a grid whose sides all differ: channel 0 is the blob, channel 1 the rest.
    blob = tuple(slice(0, side // 4) if axis else slice(side // 2, side) for axis, side in enumerate(grid))
    x = torch.zeros(2, 2, *grid)
    x[:, 1] = 1
    x[(slice(None), 1, *blob)], x[(slice(None), 0, *blob)] = 0, 1
    net = Backbone(len(grid))
    attribution = LayerRegionCam(net, [net.fine, net.coarse], contrast=1).attribute(x, target=0)
    assert attribution.shape == (2, 1, *grid)
    inside = torch.zeros(grid, dtype=torch.bool)
    inside[blob] = True
    assert attribution[:, 0, inside].min() > 0.5 * attribution.max()
    assert attribution[:, 0, ~inside].mean() < 0.3 * attribution.max()


def test_segmentation_logits_by_a_pixel_or_by_their_sum():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
    x = torch.randn(2, 3, 16, 16)
    pixel = LayerRegionCam(net, net[1]).attribute(x, target=(2, 5, 6))
    pairs = features_and_gradients(lambda x: net(x)[:, 2, 5, 6, None], [net[1]], x, 0)
    torch.testing.assert_close(pixel, dense_region_cam(pairs).float(), atol=1e-4, rtol=0)
    whole = LayerRegionCam(lambda x: net(x).sum((2, 3)), net[1]).attribute(x, target=2)
    pairs = features_and_gradients(lambda x: net(x).sum((2, 3)), [net[1]], x, 2)
    torch.testing.assert_close(whole, dense_region_cam(pairs).float(), atol=1e-4, rtol=0)
    with pytest.raises(TargetError, match=r"target=2 selects nothing|selects \d+ scores"):
        LayerRegionCam(net, net[1]).attribute(x, target=2)


def test_detectors_outputs_are_named():
    net, x = small_net()
    with pytest.raises(TypeError, match=r"returned list of \[dict of 'boxes', 'labels', 'scores'\]"):
        LayerRegionCam(lambda x: [{"boxes": net(x), "labels": 0, "scores": 0}], net.relu2).attribute(x)


@pytest.mark.parametrize("layer", ["relu1", "conv2", "relu2", "relu3"])
def test_checkpointed_segments(layer):
    net, x = small_net()
    expected = LayerRegionCam(net, getattr(net, layer)).attribute(x, target=1)

    def forward(x, reentrant=False):
        x = net.relu1(net.conv1(x))
        x = checkpoint(lambda x: net.relu2(net.conv2(x)), x, use_reentrant=reentrant)
        return net.fc(net.relu3(net.conv3(x)).flatten(1))

    torch.testing.assert_close(LayerRegionCam(forward, getattr(net, layer)).attribute(x, target=1), expected)
    if layer == "conv2":  # inside a reentrant segment autograd cannot see it
        with pytest.raises(LayerError, match="does not depend on Conv2d"):
            LayerRegionCam(forward, net.conv2).attribute(x, target=1, additional_forward_args=True)


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_compiled_models():
    net, x = small_net()
    expected = LayerRegionCam(net, [net.relu1, net.relu2]).attribute(x, target=1)
    compiled = torch.compile(net, backend="eager")
    compiled(x)
    for layers in ([net.relu1, net.relu2], [compiled.relu1, compiled.relu2]):
        torch.testing.assert_close(LayerRegionCam(compiled, layers).attribute(x, target=1), expected)
    assert [type(module) for module in find_stages(compiled, x).values()] == [nn.ReLU, nn.ReLU]


def test_channels_last_memory():
    net, x = small_net()
    cam = LayerRegionCam(net, [net.relu1, net.relu2])
    expected = cam.attribute(x, target=1)
    net.to(memory_format=torch.channels_last)
    result = cam.attribute(x.to(memory_format=torch.channels_last), target=1)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frozen", [["conv1"], ["conv1", "conv2", "conv3"], ["fc"], ["conv3"]])
def test_partly_frozen_models(frozen):
    net, x = small_net()
    expected = LayerRegionCam(net, [net.relu1, net.relu3]).attribute(x, target=1)
    for name in frozen:
        getattr(net, name).requires_grad_(False)
    before = [parameter.requires_grad for parameter in net.parameters()]
    assert torch.equal(LayerRegionCam(net, [net.relu1, net.relu3]).attribute(x, target=1), expected)
    assert [parameter.requires_grad for parameter in net.parameters()] == before


def test_train_mode_is_the_users_as_with_captum():
    # No warning and no switch: Captum runs the model in the mode it is in, and so batch statistics couple the batch.
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    x = torch.randn(4, 3, 8, 8)
    cam = LayerRegionCam(net.train(), net[2])
    batch, alone = cam.attribute(x, target=1), cam.attribute(x[:2], target=1)
    assert net.training
    assert not torch.allclose(batch[:2], alone, atol=1e-3)
    net.eval()
    torch.testing.assert_close(cam.attribute(x, target=1)[:2], cam.attribute(x[:2], target=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_gradients_and_features(scale):
    net, x = small_net()
    layers = [net.relu1, net.relu2, net.relu3]
    expected = LayerRegionCam(net, layers).attribute(x, target=1)
    scaled = LayerRegionCam(lambda x: net(x) * scale, layers).attribute(x, target=1)
    torch.testing.assert_close(scaled, expected, atol=1e-4, rtol=0)
    with torch.no_grad():
        net.conv1.weight *= scale
        net.conv1.bias *= scale
        net.conv2.weight /= scale
    torch.testing.assert_close(LayerRegionCam(net, layers).attribute(x, target=1), expected, atol=1e-4, rtol=0)


def test_half_precision_that_overflows_names_the_layer():
    net, x = small_net()
    net.half()
    with pytest.raises(LayerError, match=r"gradients of layer ReLU are not finite.*in half precision, try float32"):
        LayerRegionCam(lambda x: net(x) * 6e4 * 6e4, net.relu2).attribute(x.half(), target=1)


@pytest.mark.filterwarnings("ignore:The maps of examples")
@pytest.mark.parametrize(
    ("channels", "grids", "batch"),
    [
        (1, [(6, 6), (3, 3)], 2),  # stages of one channel
        (4, [(1, 1)], 2),  # a single position
        (4, [(5, 5), (1, 1)], 2),
        (4, [(55, 55), (27, 27), (13, 13)], 1),  # grids that are not nested
        (4, [(7, 11), (3, 5)], 64),
    ],
)
def test_odd_grids_and_batches(channels, grids, batch):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pools = nn.ModuleList([nn.AdaptiveAvgPool2d(grid) for grid in grids])
            self.relu = nn.ModuleList([nn.ReLU() for _ in grids])
            self.heads = nn.ModuleList([nn.Linear(channels * grid[0] * grid[1], 2) for grid in grids])

        def forward(self, x):
            parts = zip(self.pools, self.relu, self.heads, strict=True)
            return sum(head(relu(pool(x)).flatten(1)) for pool, relu, head in parts)

    net, x = Net().double(), torch.randn(batch, channels, 56, 56, dtype=torch.float64) + 0.5
    attribution = LayerRegionCam(net, net.relu).attribute(x, target=1)
    expected = dense_region_cam(features_and_gradients(net, list(net.relu), x.requires_grad_(), 1))
    assert attribution.shape == (batch, 1, *grids[0])
    torch.testing.assert_close(attribution, expected, atol=1e-4, rtol=0)


def test_empty_batch():
    net, x = small_net()
    with pytest.raises(ValueError, match=r"inputs: the batch is empty, \[\(0, 3, 8, 8\)\]"):
        LayerRegionCam(net, net.relu1).attribute(x[:0], target=1)


def test_models_of_one_score_need_no_target():
    net, x = GapNet(classes=1), torch.randn(2, 3, 6, 6)
    expected = LayerRegionCam(net, net.relu).attribute(x, target=0)
    assert torch.equal(LayerRegionCam(net, net.relu).attribute(x), expected)
    assert torch.equal(LayerRegionCam(lambda x: net(x)[:, 0], net.relu).attribute(x), expected)
