"""One forward pass and its backward passes, against plain autograd, on networks built to break it."""

import threading
import weakref

import pytest
import torch
from captum.attr import LayerGradCam
from helpers import small_net
from torch import nn
from torch.utils.checkpoint import checkpoint

from captum_regioncam import LayerError, LayerRegionCam
from captum_regioncam.network.forward_pass import ForwardPass, forward_pass


class Flow(nn.Module):
    """Stem, two branches that do not depend on each other, and what joins them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Sigmoid())
        self.join = nn.Conv2d(8, 5, 3, padding=1)
        self.fc = nn.Linear(5 * 36, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.fc(self.join(torch.cat([self.left(x), self.right(x)], 1)).square().flatten(1))


def plain_gradients(model, layers, x, target):
    """The gradients that hooks which change nothing see, over the whole graph."""
    kept = {}
    hooks = [layer.register_forward_hook(lambda m, args, out: kept.__setitem__(m, out)) for layer in layers]
    score = model(x.clone().requires_grad_())[:, target].sum()
    for hook in hooks:
        hook.remove()
    return torch.autograd.grad(score, [kept[layer] for layer in layers])


@pytest.mark.parametrize(
    "names", [["join"], ["left", "right"], ["right", "left"], ["left", "right", "join"], ["join", "left", "stem"]]
)
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_of_chains_and_of_branches(names, frozen):
    torch.manual_seed(0)
    model, x = Flow().double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    layers = [model.get_submodule(name) for name in names]
    expected = plain_gradients(model, layers, x, 1)
    model.requires_grad_(not frozen)
    with forward_pass(model, layers, x) as passed:
        for _ in range(2):  # the first pass keeps the graph for the second
            gradients = passed.gradients(1, retain_graph=True)
            torch.testing.assert_close(gradients, list(expected), rtol=0, atol=0)
        norms = passed.gradients(1, lambda index, gradient: gradient.norm() * 10**index)
    assert norms == [gradient.norm() * 10**index for index, gradient in enumerate(expected)]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_trainable_parameter_that_the_first_layer_hands_on_stays_trainable():
    class Learnt(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(2, 3, 4, 4))

        def forward(self, x):
            return self.weight

    layer = Learnt()
    with forward_pass(lambda x: (x * layer(x)).flatten(1), [layer], x := torch.rand(2, 3, 4, 4)) as passed:
        expected = torch.zeros(2, 48)
        expected[:, 5] = x.flatten(1)[:, 5]
        assert torch.equal(passed.gradients(5)[0].flatten(1), expected)
    assert layer.weight.requires_grad
    assert layer.weight.grad is None


def test_one_gradient_at_a_time_is_alive():
    model = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()) for _ in range(4)), nn.Flatten())
    seen = []

    def reduce(index, gradient):
        alive = [earlier for earlier, reference in seen if reference() is not None]
        assert not alive, f"at layer {index} the gradients of {alive} are alive"
        seen.append((index, weakref.ref(gradient)))
        return gradient.sum()

    with forward_pass(model, list(model)[:4], torch.randn(1, 3, 5, 5)) as passed:
        passed.gradients(1, reduce)
    assert [index for index, _ in seen] == [3, 2, 1, 0]


def test_an_error_while_reducing_leaves_no_hook():
    model, x = Flow(), torch.randn(2, 3, 6, 6)

    def reduce(index, gradient):
        raise RuntimeError("as planned")

    with forward_pass(model, [model.left, model.join], x) as passed:
        with pytest.raises(RuntimeError, match="as planned"):
            passed.gradients(1, reduce, retain_graph=True)
        assert not any(tensor._backward_hooks for replicas in passed.tensors for tensor in replicas)
        assert len(passed.gradients(1)) == 2


def test_zeros_for_a_layer_that_only_another_output_uses():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            x = self.first(x)
            return torch.stack([x.square().sum((1, 2, 3)), self.second(x).square().sum((1, 2, 3))], 1)

    net, x = Net(), torch.randn(2, 3, 4, 4)
    with forward_pass(net, [net.first, net.second], x) as passed:
        first, second = passed.gradients(0, materialize_grads=True)
        torch.testing.assert_close(first, 2 * passed.features()[0])
        assert not second.any()


class Keeps(nn.Module):
    """A layer that keeps something made of its output."""

    def __init__(self, keep):
        super().__init__()
        self.conv, self.keep, self.kept = nn.Conv2d(4, 4, 3, padding=1), keep, None

    def forward(self, x):
        y = self.conv(x)
        self.kept = self.keep(y)
        return y


class OneOf(nn.Module):
    """A layer that returns a part of what it is given."""

    def __init__(self, key):
        super().__init__()
        self.key = key

    def forward(self, parts):
        return parts[self.key]


class Caches(nn.Module):
    """A layer that computes its output once and returns the same tensor from then on."""

    def __init__(self):
        super().__init__()
        self.weight, self.cache = nn.Parameter(torch.rand(1, 4, 6, 6)), None

    def forward(self, x):
        if self.cache is None:
            self.cache = self.weight.exp().expand(2, -1, -1, -1).contiguous()
        return self.cache


class HandsOn(nn.Module):
    """A layer that returns its parameter, which the network uses elsewhere too, later."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2, 4, 6, 6))

    def forward(self, x):
        return self.weight


class Breaking(nn.Module):
    """A stem, a layer that is called in some unusual way, and a head that uses what came of it in two ways."""

    def __init__(self, layer, call=lambda layer, f: layer(f), extra=lambda layer: 0):
        super().__init__()
        self.stem, self.layer, self.call, self.extra = nn.Conv2d(3, 4, 3, padding=1), layer, call, extra
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x):
        f = self.stem(x).tanh()
        self.f = f
        y = self.call(self.layer, f)
        return self.head((y.square() + 0.3 * f * y + self.extra(self.layer)).flatten(1))


BREAKING = {
    "keeps its mean": lambda: Breaking(Keeps(lambda y: y.mean((2, 3), True)), extra=lambda layer: layer.kept.exp()),
    "keeps a view": lambda: Breaking(Keeps(lambda y: y[:, :1]), extra=lambda layer: layer.kept.square()),
    "keeps a gate": lambda: Breaking(Keeps(torch.sigmoid), extra=lambda layer: layer.kept.square()),
    "keeps itself": lambda: Breaking(Keeps(lambda y: y), extra=lambda layer: layer.kept.sin()),
    "called by keyword": lambda: Breaking(nn.Identity(), lambda layer, f: layer(input=f)),
    "one of a tuple": lambda: Breaking(OneOf(1), lambda layer, f: layer((f.sin(), f))),
    "one of a dict": lambda: Breaking(OneOf("f"), lambda layer, f: layer({"f": f})),
    "hands on its input": lambda: Breaking(nn.Identity()),
    "gives a view": lambda: Breaking(nn.Unflatten(1, (2, 2)), lambda layer, f: layer(f).flatten(1, 2)),
    "caches its output": lambda: Breaking(Caches()),
    "hands on a parameter": lambda: Breaking(HandsOn(), extra=lambda layer: layer.weight.square()),
    "runs under checkpoint": lambda: Breaking(
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid()),
        lambda layer, f: checkpoint(lambda f: layer(f).sin(), f, use_reentrant=False),
    ),
    "runs under checkpoint, inside": lambda: Breaking(
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)),
        lambda layer, f: checkpoint(lambda f: layer[1](layer[0](f)).sin(), f, use_reentrant=False),
    ),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", BREAKING)
def test_networks_built_to_break_it(name, frozen):
    model, x = BREAKING[name]().double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    layer = model.layer[1] if "inside" in name else model.layer
    expected = plain_gradients(model, [layer], x, 1)[0]
    if frozen:
        model.requires_grad_(False)
        model.layer.cache = None
    for _ in range(2):
        with forward_pass(model, [layer], x) as passed:
            (features,) = passed.features()
            (gradients,) = passed.gradients(1, retain_graph=True)
            (again,) = passed.gradients(1)
        torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-6)
        assert torch.equal(again, gradients)
        features, gradients = features.detach().flatten(1, -3), gradients.flatten(1, -3)
        grad_cam = (features * gradients.mean((2, 3), keepdim=True)).sum(1, keepdim=True)
        if name != "gives a view":  # LayerGradCam takes its mean over four dimensions then
            captums = LayerGradCam(model, layer).attribute(x.clone().requires_grad_(), 1)
            torch.testing.assert_close(grad_cam, captums, rtol=0, atol=1e-6)
            model.requires_grad_(not frozen)  # which Captum leaves changed where a layer hands on a parameter
    assert all(parameter.requires_grad is not frozen and parameter.grad is None for parameter in model.parameters())
    assert not x.requires_grad
    assert not layer._forward_hooks
    if not frozen:  # what the network computes afterwards trains as ever
        assert model.f.grad_fn is not None
        torch.autograd.grad(model.f.sum(), model.stem.weight)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", [name for name in BREAKING if name != "gives a view"])  # whose layer is on no grid
def test_maps_do_not_depend_on_what_is_trainable_nor_on_create_graph(name, create_graph):
    model, x = BREAKING[name]().eval(), torch.randn(2, 3, 6, 6)
    cam = LayerRegionCam(model, model.layer[1] if "inside" in name else model.layer)
    expected = cam.attribute(x, 2)
    model.requires_grad_(False)
    attribution = cam.attribute(x, 2, grad_kwargs={"create_graph": create_graph})
    torch.testing.assert_close(attribution.detach(), expected, rtol=0, atol=1e-6)


def test_a_users_graph_below_the_inputs_is_left_whole():
    net, encoder = small_net()[0], nn.Conv2d(3, 3, 1)
    x = encoder(torch.randn(3, 3, 8, 8))
    for layer_input in (False, True):
        LayerRegionCam(net, net.conv1).attribute(x, 1, attribute_to_layer_input=layer_input)
    assert x.grad_fn is not None
    net(x).sum().backward()
    assert encoder.weight.grad.abs().sum() > 0


def test_a_network_that_changes_its_input_in_place_leaves_the_callers_alone():
    net, x = small_net()
    before = x.clone()
    expected = LayerRegionCam(lambda x: net(x * 0.5), net.relu1).attribute(x, 1)
    assert torch.equal(LayerRegionCam(lambda x: net(x.mul_(0.5)), net.relu1).attribute(x, 1), expected)
    assert torch.equal(x, before)


def test_whole_numbers_as_inputs():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.conv = nn.Embedding(9, 4), nn.Conv1d(4, 5, 3, padding=1)
            self.fc = nn.Linear(5 * 7, 3)

        def forward(self, words):
            return self.fc(self.conv(self.embed(words).movedim(2, 1)).relu().flatten(1))

    model, words = Words().double().eval(), torch.randint(9, (2, 7))
    expected = None
    for frozen in (False, True):
        model.requires_grad_(not frozen)
        with forward_pass(model, [model.conv], words) as passed:
            (gradients,) = passed.gradients(2)
        expected = gradients if expected is None else expected
        assert torch.equal(gradients, expected)
        assert expected.abs().sum() > 0
        assert model.conv.weight.requires_grad is not frozen


def test_a_checkpoint_that_cannot_be_run_again_is_explained():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.relu, self.fc = nn.Embedding(9, 4), nn.Sigmoid(), nn.Linear(4 * 7, 3)

        def forward(self, words):
            f = self.embed(words).movedim(2, 1)
            return self.fc(checkpoint(lambda f: self.relu(f).square().exp(), f, use_reentrant=False).flatten(1))

    model = Words().requires_grad_(False)
    with pytest.raises(LayerError, match=r"under torch\.utils\.checkpoint whose inputs require no gradients"):
        LayerRegionCam(model, model.relu).attribute(torch.randint(9, (2, 7)), 1)
    model.embed.requires_grad_(True)
    assert LayerRegionCam(model, model.relu).attribute(torch.randint(9, (2, 7)), 1).max() == 1


def test_threads_take_turns():
    net, _ = small_net()
    layers = [net.relu1, net.relu2, net.relu3]
    inputs = [torch.randn(2, 3, 8, 8) for _ in range(4)]
    expected = [LayerRegionCam(net, layers).attribute(x, 1) for x in inputs]
    wrong = []

    def work(index):
        cam = LayerRegionCam(net, layers[index % 3 :])
        alone = LayerRegionCam(net, layers)
        for _ in range(40):
            cam.attribute(inputs[index], 1)
            if not torch.allclose(alone.attribute(inputs[index], 1), expected[index], atol=1e-6):
                wrong.append(index)

    def guarded(index):
        try:
            work(index)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class Elsewhere(torch.Tensor):
    """A tensor that says it is on another device, on machines that have one alone."""

    @property
    def device(self):
        return torch.device("cuda", 1)


def test_layers_on_two_devices():
    class Moves(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.fc = nn.Linear(4 * 36, 3)

        def forward(self, x):
            x = self.a(x).tanh()
            return self.fc(self.b(x.as_subclass(self.kind)).sin().as_subclass(torch.Tensor).flatten(1))

    model, x = Moves().double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    model.kind = torch.Tensor
    expected = plain_gradients(model, [model.a, model.b], x, 1)
    model.kind = Elsewhere
    with forward_pass(model, [model.a, model.b], x) as passed:
        assert [features.device.type for features in passed.features()] == ["cpu", "cuda"]
        gradients = [gradient.as_subclass(torch.Tensor) for gradient in passed.gradients(1)]
    torch.testing.assert_close(gradients, list(expected), rtol=0, atol=1e-12)


def test_replicas_are_joined_in_order():
    """As DataParallel leaves them: each layer's tensor in parts, one a device."""
    net, x = small_net()
    layers = [net.relu1, net.relu2]
    with forward_pass(net, layers, x) as whole:
        expected = whole.gradients(2)
    parts = []
    for part in (x[:2], x[2:]):
        with forward_pass(net, layers, part) as passed:
            parts.append(passed)
    tensors = [[part.tensors[index][0] for part in parts] for index in range(2)]
    joined = ForwardPass(net, layers, torch.cat([part.output for part in parts]), tensors)
    torch.testing.assert_close(joined.features(), whole.features())
    seen = []
    gradients = joined.gradients(2, lambda index, gradient: seen.append(index) or gradient * 2)
    torch.testing.assert_close(gradients, [2 * gradient for gradient in expected])
    assert seen == [0, 1]  # each layer is reduced once, whole


def test_a_forward_function_that_takes_nothing():
    net, x = small_net()
    expected = LayerRegionCam(net, [net.relu1, net.relu2]).attribute(x, 1)
    assert torch.equal(LayerRegionCam(lambda: net(x), [net.relu1, net.relu2]).attribute(x, 1), expected)
