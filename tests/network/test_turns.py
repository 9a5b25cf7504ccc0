"""Threads, forked processes, and networks that run themselves again inside their forward pass."""

import random
import threading

import pytest
import torch
from helpers import small_net
from places import TESTS
from torch import nn

from captum_regioncam import LayerCam, LayerError, LayerRegionCam, class_scores, find_stages

SEED = 24
METHODS = [LayerRegionCam, LayerCam]


class Moody(nn.Module):
    """Blocks whose answer depends on their mode."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
        self.norm, self.drop = nn.BatchNorm2d(4, track_running_stats=False), nn.Dropout(0.5)
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.drop(self.norm(self.stem(x)))
        return self.fc(self.body(x.sin() if self.training else x).mean((2, 3)))


def hooks_of(net):
    return [[*module._forward_hooks.values(), *module._forward_pre_hooks.values()] for module in net.modules()]


def assert_same(answer, expected):
    if torch.is_tensor(expected):
        torch.testing.assert_close(answer, expected, rtol=0, atol=1e-6)
    else:
        assert answer == expected


def in_threads(works):
    """Run functions in threads; return what they return or raise."""
    results = [None] * len(works)

    def keep(index):
        try:
            results[index] = works[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=keep, args=(index,), daemon=True) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results


def test_eight_threads_of_mixed_calls_answer_as_one():
    net = Moody().train()
    net.drop.eval()
    net.body.eval()
    net.stem.register_forward_hook(lambda *_: None)
    x = torch.randn(2, 3, 16, 16)
    stages = find_stages(net, x)
    calls = {
        "find_stages": lambda: find_stages(net, x).describe(),
        "attribute": lambda: LayerRegionCam(net, stages).attribute(x, 1),
        "attribute_targets": lambda: LayerRegionCam(net, [net.stem, net.body]).attribute_targets(x, [0, 3]),
        "LayerCam": lambda: LayerCam(net, stages).attribute(x, [2, 4]),
    }
    modes, hooks = [module.training for module in net.modules()], hooks_of(net)
    expected = {name: call() for name, call in calls.items()}
    print(f"seed {SEED}")
    order = random.Random(SEED)
    names = [order.choices(list(calls), k=25) for _ in range(8)]
    answers = in_threads([lambda own=own: [calls[name]() for name in own] for own in names])
    for own, of_thread in zip(names, answers, strict=True):
        assert not isinstance(of_thread, Exception), of_thread
        for name, answer in zip(own, of_thread, strict=True):
            assert_same(answer, expected[name])
    assert [module.training for module in net.modules()] == modes
    assert hooks_of(net) == hooks


@pytest.mark.slow
def test_a_forked_process_answers_whatever_other_threads_do(forked):
    fork = forked(script=str(TESTS / "fork_beside.py"))
    out, err = fork.communicate(timeout=240)
    assert fork.returncode == 0, err
    assert out.splitlines()[1:] == [
        "beside attribute: all the same",
        "in the middle of attribute: all the same",
        "in the middle of find_stages: all the same",
        "afterwards: all the same",
    ]


def interrupted(net, where, work):
    """Have a hook do some work in the middle of the next forward pass, once; return what it returned."""
    results = []

    def hook(*_):
        if not results:
            results.append(None)
            results[0] = work()

    handle = net.get_submodule(where).register_forward_hook(hook)
    return results, handle.remove


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["conv1", "relu1", "relu3", "fc", ""])
@pytest.mark.parametrize("at_input", [False, True])
def test_a_thread_that_runs_the_network_directly_is_not_seen(method, where, at_input):
    net, x = small_net()
    for forward_func in (net, lambda x: net(x)):
        cam = method(forward_func, [net.relu1, net.relu2, net.relu3])
        expected = cam.attribute(x, 1, attribute_to_layer_input=at_input)
        scores, others = net(2 * x), []
        _, remove = interrupted(net, where, lambda: others.extend(in_threads([lambda: net(2 * x)])))  # noqa: B023
        assert torch.equal(cam.attribute(x, 1, attribute_to_layer_input=at_input), expected)
        remove()
        torch.testing.assert_close(others, [scores])


@pytest.mark.parametrize("where", ["stem.0", "stem", "body", "fc", ""])
def test_find_stages_does_not_see_a_thread_that_runs_the_network_directly(where):
    net, x = Moody().eval(), torch.randn(2, 3, 16, 16)
    expected, scores = find_stages(net, x).describe(), net(x)
    others, remove = interrupted(net, where, lambda: in_threads([lambda: net(x)]))
    assert find_stages(net, x).describe() == expected == "stem, body"
    torch.testing.assert_close(others, [[scores]])
    remove()


def again(net, x, layers, kind):
    if kind == "run without gradients":
        with torch.no_grad():
            return net(2 * x)
    calls = {
        "run": lambda: net(2 * x),
        "attribute": lambda: LayerRegionCam(net, layers).attribute(2 * x, 3),
        "find_stages": lambda: find_stages(net, x).describe(),
    }
    return calls[kind]()


@pytest.mark.parametrize("kind", ["run", "run without gradients", "attribute", "find_stages"])
@pytest.mark.parametrize("where", ["conv1", "relu1", "relu3", "fc", ""])
@pytest.mark.parametrize("at_input", [False, True])
def test_a_network_that_runs_itself_again_in_a_hook(kind, where, at_input):
    net, x = small_net()
    layers = [net.relu1, net.relu2, net.relu3]
    inner = again(net, x, layers, kind)
    for forward_func in (net, class_scores(net)):
        cam = LayerRegionCam(forward_func, layers)
        expected = cam.attribute(x, 1, attribute_to_layer_input=at_input)
        results, remove = interrupted(net, where, lambda: again(net, x, layers, kind))
        assert torch.equal(cam.attribute(x, 1, attribute_to_layer_input=at_input), expected)
        assert_same(results[0], inner)
        remove()
    assert hooks_of(net) == [[]] * len(list(net.modules()))


@pytest.mark.parametrize("kind", ["run", "attribute", "find_stages"])
@pytest.mark.parametrize("where", ["stem.0", "stem", "body", "fc", ""])
def test_stages_of_a_network_that_runs_itself_again_in_a_hook(kind, where):
    net, x = Moody().eval(), torch.randn(2, 3, 16, 16)
    inner = again(net, x, [net.stem, net.body], kind)
    results, remove = interrupted(net, where, lambda: again(net, x, [net.stem, net.body], kind))
    assert find_stages(net, x).describe() == "stem, body"
    assert_same(results[0], inner)
    remove()
    assert hooks_of(net) == [[]] * len(list(net.modules()))


@pytest.mark.parametrize("kind", ["attribute", "run"])
def test_a_function_around_a_network_that_runs_itself_again(kind):
    # A function does not tell its network, so of several runs the last counts, as in LayerGradCam: an error says so.
    net, x = small_net()
    cam = LayerRegionCam(lambda x: net(x), [net.relu1, net.relu2])
    expected = cam.attribute(x, 1)
    _, remove = interrupted(net, "fc", lambda: again(net, x, [net.relu1], kind))
    if kind == "attribute":
        assert torch.equal(cam.attribute(x, 1), expected)
    else:
        with pytest.raises(LayerError, match=r"depend on ReLU, ReLU\. .* even if a hook runs the network again"):
            cam.attribute(x, 1)
    remove()


def test_a_module_that_attributes_in_its_forward_pass():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.gates = small_net()[0], True

        def forward(self, x):
            if not self.gates:
                return self.net(x)
            self.gates = False
            gate = LayerRegionCam(self, self.net.relu1).attribute(x, 0)
            self.gates = True
            return self.net(x * (1 + gate))

    model, x = Gated(), torch.randn(2, 3, 8, 8)
    gate = LayerRegionCam(model.net, model.net.relu1).attribute(x, 0)
    expected = LayerRegionCam(model.net, [model.net.relu1, model.net.relu3]).attribute(x * (1 + gate), 2)
    assert torch.equal(LayerRegionCam(model, [model.net.relu1, model.net.relu3]).attribute(x, 2), expected)


def test_layers_that_run_only_when_the_network_calls_itself():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()[0]

        def forward(self, x, whole=True):
            return self(x.flip(-1), False) + self(x, False) if whole else self.net(x)

    model, x = Twice(), torch.randn(2, 3, 8, 8)
    expected = LayerRegionCam(model.net, [model.net.relu1, model.net.relu3]).attribute(x, 2)
    assert torch.equal(LayerRegionCam(model, [model.net.relu1, model.net.relu3]).attribute(x, 2), expected)


def test_layers_that_run_in_a_thread_of_the_network_s_own():
    class Threaded(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()[0]

        def forward(self, x):
            with torch.autograd.set_multithreading_enabled(False):
                [scores] = in_threads([lambda: self.run(x)])
            return scores

        def run(self, x):
            with torch.enable_grad():
                return self.net(x)

    model, x = Threaded(), torch.randn(2, 3, 8, 8)
    expected = LayerRegionCam(model.net, [model.net.relu1, model.net.relu3]).attribute(x, 2)
    torch.testing.assert_close(LayerRegionCam(model, [model.net.relu1, model.net.relu3]).attribute(x, 2), expected)
