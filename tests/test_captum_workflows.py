"""LayerRegionCam in the places where Captum's users have LayerGradCam."""

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop, GuidedGradCam, LayerAttribution, LayerGradCam, NoiseTunnel
from captum.attr import visualization as viz
from captum.concept import TCAV, Concept
from captum.metrics import infidelity, sensitivity_max
from captum.testing.attr.helpers.test_config import config
from captum.testing.helpers.basic_models import BasicModel_ConvNet
from helpers import GapNet, small_net
from torch import nn

from captum_regioncam import LayerCam, LayerRegionCam

METHODS = [LayerRegionCam, LayerCam]


class Raising(nn.Module):
    def forward(self, *args):
        raise AssertionError("raised inside the model")


class MultiInput(nn.Module):
    """Two images and two more arguments."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(2, 4, 3), nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True)
        self.fc = nn.Linear(4 * 16, 3)

    def forward(self, a, b, scale, flip=False):
        x = self.relu(self.conv1(a) + self.conv2(b) * scale)
        return self.fc((x.flip(-1) if flip else x).flatten(1))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.head = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.head(self.conv(x).relu())


def entry(name, model, layer, inputs, target, **args):
    torch.manual_seed(3)
    return pytest.param(model().eval(), layer, {"inputs": inputs, "target": target, **args}, id=name)


torch.manual_seed(2)
IMAGES = torch.randn(4, 1, 10, 10)
COLOURS = torch.randn(4, 3, 8, 8)
PAIR = (torch.randn(3, 2, 6, 6), torch.randn(3, 1, 6, 6))
CAPTUMS = [
    pytest.param(case["model"], case["layer"], case["attribute_args"], id=f"captum-{case['name']}")
    for case in config
    if LayerGradCam in case["algorithms"] and "conv" in case["layer"]
]
OURS = [
    entry("int", GapNet, "relu", COLOURS, 1),
    entry("list", GapNet, "relu", COLOURS, [0, 1, 2, 3]),
    entry("tensor", GapNet, "relu", COLOURS, torch.tensor([3, 1, 0, 2])),
    entry("one-element-tensor", GapNet, "conv", COLOURS, torch.tensor([2])),
    entry("softmax", BasicModel_ConvNet, "relu1", IMAGES, 3),
    entry("tuple", Dense, "conv", IMAGES, (1, 5, 5)),
    entry("list-of-tuples", Dense, "conv", IMAGES, [(0, 1, 2), (1, 2, 3), (2, 9, 0), (3, 4, 4)]),
    entry("layer-input", GapNet, "relu", COLOURS, 1, attribute_to_layer_input=True),
    entry("model-input", GapNet, "conv", COLOURS, 1, attribute_to_layer_input=True),
    entry("arguments", MultiInput, "relu", PAIR, [0, 1, 2], additional_forward_args=(torch.rand(3, 1, 1, 1), True)),
    entry("layers", MultiInput, ("conv1", "conv2", "relu"), PAIR, 1, additional_forward_args=2.0),
]


def layers_of(model, names):
    return model.get_submodule(names) if isinstance(names, str) else [model.get_submodule(name) for name in names]


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def one(values, n):
    """The n-th example of inputs, arguments or targets."""
    if isinstance(values, tuple) and any(isinstance(value, torch.Tensor) for value in values):
        return tuple(one(value, n) for value in values)
    if isinstance(values, (torch.Tensor, list)) and len(values) > 1:
        return values[n : n + 1]
    return values


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("model", "layer", "arguments"), [*CAPTUMS, *OURS])
@pytest.mark.filterwarnings("ignore:The maps of examples")
class TestConformance:
    """What Captum's generated tests ask of every layer attribution."""

    def test_batch_equals_each_example_alone(self, method, model, layer, arguments):
        cam = method(model, layers_of(model, layer))
        together = cam.attribute(**arguments)
        batch = arguments["inputs"]
        for n in range(len(batch[0] if isinstance(batch, tuple) else batch)):
            alone = {name: one(value, n) for name, value in arguments.items()}
            torch.testing.assert_close(cam.attribute(**alone), together[n : n + 1], atol=1e-4, rtol=0)

    def test_shape_is_layer_grad_cams(self, method, model, layer, arguments):
        cam = method(model, layers_of(model, layer))
        names = [layer] if isinstance(layer, str) else layer
        shapes = [LayerGradCam(model, model.get_submodule(name)).attribute(**arguments).shape for name in names]
        assert cam.attribute(**arguments).shape == max(shapes, key=lambda shape: shape.numel())
        assert not cam.multiplies_by_inputs
        assert not cam.has_convergence_delta()

    def test_hooks_are_removed(self, method, model, layer, arguments):
        cam = method(model, layers_of(model, layer))
        cam.attribute(**arguments)
        assert hooks(model) == 0
        with pytest.raises(AssertionError):
            cam.attribute(**{**arguments, "target": (9999,) * 20})
        assert hooks(model) == 0

    def test_a_module_that_raises(self, method, model, layer, arguments, monkeypatch):
        last = [name for name, module in model.named_children() if any(True for _ in module.parameters())][-1]
        monkeypatch.setitem(model._modules, last, Raising())
        remaining = [name for name in ([layer] if isinstance(layer, str) else layer) if name != last]
        with pytest.raises(AssertionError, match="raised inside the model"):
            method(model, layers_of(model, tuple(remaining))).attribute(**arguments)
        assert hooks(model) == 0


def test_the_config_has_captums_convolutional_entry():
    assert len(CAPTUMS) >= 1


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel(kind):
    net, x = small_net()
    cam = LayerRegionCam(net, [net.relu1, net.relu2])
    torch.manual_seed(5)
    attribution = NoiseTunnel(cam).attribute(x, nt_type=kind, nt_samples=3, stdevs=0.1, target=[0, 1, 2])
    torch.manual_seed(5)
    noisy = torch.normal(0, torch.full((9, 3, 8, 8), 0.1)) + x.repeat_interleave(3, 0)
    maps = cam.attribute(noisy, target=[0, 0, 0, 1, 1, 1, 2, 2, 2]).view(3, 3, 1, 8, 8)
    square = maps.square().mean(1)
    expected = {"smoothgrad": maps.mean(1), "smoothgrad_sq": square, "vargrad": square - maps.mean(1).square()}
    torch.testing.assert_close(attribution, expected[kind], atol=1e-5, rtol=0)


def test_infidelity_and_sensitivity():
    net, x = small_net()
    cam = LayerRegionCam(net, [net.relu1, net.relu2])
    attribution = cam.attribute(x, target=1).expand(-1, 3, -1, -1)
    score = infidelity(net, lambda x: (torch.full_like(x, 0.01), x - 0.01), x, attribution, target=1)
    change = (net(x) - net(x - 0.01))[:, 1]
    torch.testing.assert_close(score, ((attribution * 0.01).sum((1, 2, 3)) - change).square())
    # Captum wants a tuple from what explains a tuple of inputs, of LayerGradCam too.
    plain = cam.attribute(x, target=1)
    sensitivity = sensitivity_max(lambda *a, **k: (cam.attribute(*a, **k),), x, lambda x: x + 0.1, target=1)
    change = (cam.attribute(x + 0.1, target=1) - plain).flatten(1).norm(dim=1)
    assert change.min() > 0
    torch.testing.assert_close(sensitivity, change / plain.flatten(1).norm(dim=1))


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_grad_cam_with_region_cam_in_grad_cams_place():
    net, x = small_net()
    cam = LayerRegionCam(net, [net.relu2, net.relu3])
    captums = GuidedGradCam(net, net.relu3)
    captums.grad_cam = cam
    guided = captums.attribute(x.clone().requires_grad_(), target=1, interpolate_mode="bilinear")
    upsampled = LayerAttribution.interpolate(cam.attribute(x, target=1), x.shape[2:], interpolate_mode="bilinear")
    expected = upsampled * GuidedBackprop(net).attribute(x.clone().requires_grad_(), target=1)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(guided, expected)


def test_visualize_image_attr():
    net, x = small_net()
    attribution = LayerRegionCam(net, [net.relu1, net.relu2]).attribute(x, target=1)
    image, heat = np.random.default_rng(0).random((8, 8, 3)), attribution[0].permute(1, 2, 0).numpy()
    figure, _ = viz.visualize_image_attr(heat, image, "blended_heat_map", "positive", use_pyplot=False)
    assert len(figure.axes[0].images) == 2
    figure, axes = viz.visualize_image_attr_multiple(
        heat, image, ["original_image", "heat_map"], ["all", "positive"], use_pyplot=False
    )
    np.testing.assert_allclose(axes[1].images[0].get_array().max(), 1)


def test_tcav_reassigns_the_layer(tmp_path):
    net, x = small_net()
    concepts = [
        Concept(id=i, name=name, data_iter=torch.utils.data.DataLoader(torch.randn(20, 3, 8, 8) + i, batch_size=5))
        for i, name in enumerate(("low", "high"))
    ]

    class MeanDifference:
        """A linear separator of activations, without scikit-learn."""

        def train_and_eval(self, dataloader, **kwargs):
            batches = list(dataloader)
            activations, labels = (torch.cat(part) for part in zip(*batches, strict=True))
            low, high = (activations[labels == label].mean(0) for label in (0, 1))
            self.weight = torch.stack([low - high, high - low])
            return {"accs": torch.tensor(1.0)}

        def weights(self):
            return self.weight

        def classes(self):
            return [0, 1]

    net.relu1 = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 1, 1), nn.ReLU(), nn.Conv2d(1, 6, 1))
    cam = LayerRegionCam(net, net.relu2)
    tcav = TCAV(net, ["relu1.1"], layer_attr_method=cam, classifier=MeanDifference(), save_path=str(tmp_path))
    scores = tcav.interpret(x, [concepts], target=1)["0-1"]["relu1.1"]
    assert cam.layer is net.relu1[1]  # one channel, as TCAV multiplies attributions with weights of activations
    with torch.no_grad():
        low, high = (net.relu1[:2](net.conv1(concept.data_iter.dataset)).mean(0).flatten() for concept in concepts)
    along = (
        LayerRegionCam(net, net.relu1[1]).attribute(x, target=1).flatten(1) @ torch.stack([low - high, high - low]).T
    )
    torch.testing.assert_close(scores["sign_count"], (along > 0).float().mean(0))
    torch.testing.assert_close(scores["magnitude"], along.mean(0))


@pytest.mark.parametrize("method", METHODS)
def test_create_graph_can_be_trained_through(method):
    net, x = small_net()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    wanted = torch.zeros(3, 1, 8, 8)
    wanted[..., :4] = 1
    losses = []
    for _ in range(8):
        attribution = method(net, [net.relu1, net.relu2]).attribute(x, 1, grad_kwargs={"create_graph": True})
        losses.append((attribution - wanted).square().mean())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert min(losses[1:]) < losses[0]


def test_a_forward_function_that_is_no_module():
    net, x = small_net()
    expected = LayerRegionCam(net, net.relu2).attribute(x, target=1)
    assert torch.equal(LayerRegionCam(lambda x: net(x)[:, 1], net.relu2).attribute(x), expected)
    assert torch.equal(LayerRegionCam(net.forward, net.relu2).attribute(x, target=1), expected)


@pytest.mark.skipif(torch.cuda.device_count() < 1, reason="DataParallel needs CUDA, which this machine has not")
@pytest.mark.parametrize("wrapped", [False, True])
def test_data_parallel(wrapped):
    net, x = small_net()
    expected = LayerRegionCam(net, [net.relu1, net.relu2]).attribute(x, target=[0, 1, 2])
    devices = list(range(torch.cuda.device_count()))
    parallel = nn.DataParallel(net.cuda(), device_ids=devices)
    forward = (lambda x: parallel(x)) if wrapped else parallel
    cam = LayerRegionCam(forward, [net.relu1, net.relu2], device_ids=devices if wrapped else None)
    torch.testing.assert_close(cam.attribute(x.cuda(), target=[0, 1, 2]).cpu(), expected, atol=1e-4, rtol=0)
