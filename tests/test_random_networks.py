"""Random convolutional networks: what must hold for any of them, against the method written out densely in float64."""

import warnings

import pytest
import torch
from helpers import CONVS, dense_region_cam, features_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_regioncam import LayerRegionCam


class Block(nn.Module):
    """A convolution, perhaps in groups, with a stride, a residual or an activation, which may work in place.

    Its output is multiplied by ``scale``, and the next block's input divided by it: features are huge, tiny, negative
    or zero, and scores are not.
    """

    def __init__(self, conv, inputs, width, kernel, stride, grouped, residual, activation, scale):
        super().__init__()
        groups = inputs if grouped and width % inputs == 0 else 1
        self.conv = conv(inputs, width, kernel, stride, kernel // 2, groups=groups)
        self.activation = {"relu": nn.ReLU(), "inplace": nn.ReLU(True), "gelu": nn.GELU(), "none": nn.Identity()}[
            activation
        ]
        self.residual, self.scale = residual and stride == 1 and inputs == width, scale

    def forward(self, x):
        y = self.conv(x)
        return self.activation(y + x if self.residual else y) * self.scale


class Network(nn.Module):
    def __init__(self, dimensions, blocks, pooled, classes, size):
        super().__init__()
        self.blocks, width = nn.ModuleList(), 3
        for options in blocks:
            self.blocks.append(Block(CONVS[dimensions], width, **options))
            width = options["width"]
        self.pooled = pooled
        with torch.no_grad():
            features = self.features(torch.zeros(1, 3, *size))
        self.fc = nn.Linear(width if pooled else features.numel(), classes)

    def features(self, x):
        scale = 1.0
        for block in self.blocks:
            x = block(x / (scale or 1.0))
            scale = block.scale
        return x / (scale or 1.0)

    def forward(self, x):
        x = self.features(x).flatten(2)
        return self.fc(x.mean(2) if self.pooled else x.flatten(1))


BLOCK = st.fixed_dictionaries(
    {
        "width": st.integers(1, 6),
        "kernel": st.sampled_from([1, 3]),
        "stride": st.sampled_from([1, 1, 2]),
        "grouped": st.booleans(),
        "residual": st.booleans(),
        "activation": st.sampled_from(["relu", "inplace", "gelu", "none"]),
        "scale": st.sampled_from([1.0, 1.0, 1.0, 1.0, -1.0, 0.0, 1e-30, 1e-12, 1e12, 1e25]),
    }
)


@st.composite
def cases(draw):
    dimensions = draw(st.integers(1, 3))
    size = draw(st.lists(st.integers(2, {1: 24, 2: 9, 3: 5}[dimensions]), min_size=dimensions, max_size=dimensions))
    blocks = draw(st.lists(BLOCK, min_size=1, max_size=5))
    layers = draw(st.lists(st.integers(0, len(blocks) - 1), min_size=1, max_size=len(blocks), unique=True))
    return dimensions, size, blocks, draw(st.booleans()), layers, draw(st.integers(0, 3)), draw(st.integers(0, 2**31))


def run(case, dtype, last=False):
    """The network, its layers, an input, a target, and what plain hooks see at the layers."""
    dimensions, size, blocks, pooled, layers, target, seed = case
    torch.manual_seed(seed)
    net = Network(dimensions, blocks, pooled, 4, size).to(dtype).eval()
    x = torch.randn(3, 3, *size).to(dtype)
    if last and dimensions > 1:
        x = x.to(memory_format=torch.channels_last if dimensions == 2 else torch.channels_last_3d)
        net = net.to(memory_format=torch.channels_last if dimensions == 2 else torch.channels_last_3d)
    modules = [net.blocks[i] for i in layers]
    return net, modules, x, target, features_and_gradients(net, modules, x, target)


# The maps in float32 arithmetic, and then rounded to the dtype of the inputs.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 1e-4 + 2**-9}


@pytest.fixture
def _without_mkldnn(dtype):
    """Its convolutions in bfloat16 now and then give NaN as gradients, of one and the same input."""
    with torch.backends.mkldnn.flags(enabled=dtype != torch.bfloat16):
        yield


@pytest.mark.parametrize(("dtype", "times"), [(torch.float32, 6), (torch.float64, 2), (torch.bfloat16, 2)])
@pytest.mark.usefixtures("_without_mkldnn")
@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # the flags' setter says so of itself
def test_equals_the_dense_method(dtype, times):
    @settings(max_examples=times * settings.default.max_examples)
    @given(cases(), st.booleans(), st.sampled_from([1.0, 3.0]))
    def check(case, last, contrast):
        net, modules, x, target, stages = run(case, dtype, last)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The maps of examples")
            attribution = LayerRegionCam(net, modules, contrast=contrast).attribute(x, target)
        assert attribution.dtype == dtype
        expected = dense_region_cam(stages, contrast)
        torch.testing.assert_close(attribution.double(), expected, atol=TOLERANCE[dtype], rtol=0)

    check()


@settings(max_examples=2 * settings.default.max_examples)
@given(cases(), st.floats(1e-3, 1e3))
def test_any_network(case, scale):
    net, modules, x, target, _ = run(case, torch.float64)
    before = [(p.clone(), p.requires_grad, p.grad) for p in net.parameters()]
    random_state = torch.get_rng_state()
    cam = LayerRegionCam(net, modules)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The maps of examples")
        attribution = cam.attribute(x, target)
        again = cam.attribute(x, target)
        scaled = LayerRegionCam(lambda x: net(x) * scale, modules).attribute(x, target)
        alone = torch.cat([cam.attribute(x[n : n + 1], target) for n in range(3)])
    assert attribution.isfinite().all()
    assert attribution.min() >= 0
    assert attribution.max() <= 1 + 1e-12
    assert torch.equal(attribution, again)
    torch.testing.assert_close(scaled, attribution, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone, attribution, atol=1e-6, rtol=0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(
        torch.equal(p, value) and p.requires_grad == needed and p.grad is grad
        for p, (value, needed, grad) in zip(net.parameters(), before, strict=True)
    )
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
