"""One forward pass, its recording, and backward passes that keep little: against plain autograd."""

import weakref

import pytest
import torch
from torch import nn

from captum_regioncam.captum_hooks import record


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
    score = model(x)[:, target].sum()
    for hook in hooks:
        hook.remove()
    return torch.autograd.grad(score, [kept[layer] for layer in layers])


@pytest.mark.parametrize(
    "names", [["join"], ["left", "right"], ["right", "left"], ["left", "right", "join"], ["join", "left", "stem"]]
)
@pytest.mark.parametrize("options", [{}, {"whole_graph": True}])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_of_chains_and_of_branches(names, options, frozen):
    torch.manual_seed(0)
    model, x = Flow().double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    layers = [model.get_submodule(name) for name in names]
    expected = plain_gradients(model, layers, x, 1)
    model.requires_grad_(not frozen)
    with record(model, layers, x, **options) as recording:
        for _ in range(2):  # the first pass keeps the graph for the second
            gradients = recording.gradients(1, retain_graph=True)
            torch.testing.assert_close(gradients, list(expected), rtol=0, atol=0)
        norms = recording.gradients(1, lambda index, gradient: gradient.norm() * 10**index)
    assert norms == [gradient.norm() * 10**index for index, gradient in enumerate(expected)]
    assert all(parameter.grad is None for parameter in model.parameters())


class Alive(torch.autograd.Function):
    """Hands on its input, and holds a witness as long as the graph has it."""

    @staticmethod
    def forward(ctx, x, witness):
        ctx.witness = witness
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class Witness:
    pass


@pytest.mark.parametrize("whole_graph", [False, True])
def test_the_graph_starts_at_the_first_layer(whole_graph):
    model, x = Flow(), torch.randn(2, 3, 6, 6)
    witnesses = []

    def watch(module, args, output):
        witness = Witness()
        witnesses.append(weakref.ref(witness))
        return Alive.apply(output, witness)

    layers = [model.join, model.right]
    with model.stem.register_forward_hook(watch), record(model, layers, x, whole_graph=whole_graph) as recording:
        # The left branch reaches the stem past the layers: of a chain, nothing of the stem is left.
        assert witnesses[-1]() is not None
        assert recording.features()[1].is_leaf is not whole_graph
    chain = nn.Sequential(model.stem, nn.ReLU(), model.left, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    with model.stem.register_forward_hook(watch), record(chain, [chain[1], chain[3]], x, whole_graph=whole_graph):
        assert (witnesses[-1]() is not None) is whole_graph
    assert witnesses[-1]() is None


class Stash(nn.Module):
    """A layer that keeps its output, for somebody else to use."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        self.kept = self.conv(x)
        return self.kept


class Skips(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.stem, self.layer, self.gate = nn.Conv2d(3, 3, 1), layer, nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x):
        x = self.stem(x)
        gate = self.gate(x).sigmoid()  # before the layer: where that hands on its input, past it as well
        y = self.layer(x)
        y = y.square() if y.shape[1] == 4 else self.gate(y).square()
        return self.fc((y * gate + getattr(self.layer, "kept", 0)).flatten(1))


class FirstChannels(nn.Module):
    def forward(self, x):
        return torch.cat([x, x], 1)[:, :4]


@pytest.mark.parametrize("layer", [Stash, nn.Identity, FirstChannels, lambda: nn.Unflatten(2, (6, 1))])
def test_layers_that_keep_or_hand_on_their_tensor(layer):
    torch.manual_seed(0)
    model, x = Skips(layer()).double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    if isinstance(model.layer, nn.Unflatten):
        model.layer = nn.Sequential(model.layer, nn.Flatten(2, 3))
    expected = plain_gradients(model, [model.layer], x, 0)
    with record(model, [model.layer], x) as recording:
        torch.testing.assert_close(recording.gradients(0), list(expected), rtol=0, atol=0)


def test_a_trainable_parameter_that_the_first_layer_hands_on_stays_trainable():
    class Learnt(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(2, 3, 4, 4))

        def forward(self, x):
            return self.weight

    layer = Learnt()
    with record(lambda x: (x * layer(x)).flatten(1), [layer], x := torch.rand(2, 3, 4, 4)) as recording:
        expected = torch.zeros(2, 48)
        expected[:, 5] = x.flatten(1)[:, 5]
        assert torch.equal(recording.gradients(5)[0].flatten(1), expected)
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

    with record(model, list(model)[:4], torch.randn(1, 3, 5, 5)) as recording:
        recording.gradients(1, reduce)
    assert [index for index, _ in seen] == [3, 2, 1, 0]


def test_an_error_while_reducing_leaves_no_hook():
    model, x = Flow(), torch.randn(2, 3, 6, 6)

    def reduce(index, gradient):
        raise RuntimeError("as planned")

    with record(model, [model.left, model.join], x) as recording:
        with pytest.raises(RuntimeError, match="as planned"):
            recording.gradients(1, reduce, retain_graph=True)
        assert not any(tensor._backward_hooks for replicas in recording.replicas for tensor in replicas)
        assert len(recording.gradients(1)) == 2


def test_zeros_for_a_layer_that_only_another_output_uses():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            x = self.first(x)
            return torch.stack([x.square().sum((1, 2, 3)), self.second(x).square().sum((1, 2, 3))], 1)

    net, x = Net(), torch.randn(2, 3, 4, 4)
    with record(net, [net.first, net.second], x) as recording:
        first, second = recording.gradients(0, materialize_grads=True)
        torch.testing.assert_close(first, 2 * recording.features()[0])
        assert not second.any()
