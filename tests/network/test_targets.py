import weakref

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from helpers import GapNet, small_net
from torch import nn

from captum_regioncam import LayerCam, LayerRegionCam, TargetError, find_stages, tokens_to_grid

METHODS = [LayerRegionCam, LayerCam]


@pytest.mark.parametrize("method", METHODS)
def test_equals_a_call_of_attribute_for_each(method):
    net, x = small_net()
    cam = method(net, [net.relu1, net.relu2, net.relu3])
    targets = [0, [3, 1, 2], torch.tensor([4, 4, 0]), torch.tensor(2), (1,), [(0,), (1,), (2,)], 0]  # 0 comes twice
    together = cam.attribute_targets(x, targets)
    assert together.shape == (3, 7, 8, 8)
    assert not together.requires_grad
    expected = torch.cat([cam.attribute(x, target) for target in targets], dim=1)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)
    assert torch.equal(together[:, 0], together[:, -1])


def test_where_the_head_rule_fires_for_some_targets():
    class Net(nn.Module):
        """Class 0 sees a pooled map, class 1 every position by itself."""

        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6 * 25, 1)

        def forward(self, x):
            x = self.conv(x).relu()
            return torch.cat([x.mean((1, 2, 3)).unsqueeze(1), self.fc(x.flatten(1))], 1)

    net, x = Net(), torch.randn(2, 3, 5, 5)
    cam = LayerRegionCam(net, net.conv)
    expected = torch.cat([cam.attribute(x, target) for target in (0, 1)], dim=1)
    torch.testing.assert_close(cam.attribute_targets(x, [0, 1]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_labels_of_each_photo(method):
    net, x = small_net()
    cam = method(net, [net.relu1, net.relu3])
    labels = [[1, 4, 1, 0], [2], []]
    maps = cam.attribute_labels(x, labels)
    assert isinstance(maps, list)
    assert [tuple(one.shape) for one in maps] == [(4, 8, 8), (1, 8, 8), (0, 8, 8)]
    for n, own in enumerate(labels):
        for k, label in enumerate(own):
            torch.testing.assert_close(maps[n][k], cam.attribute(x[n : n + 1], label)[0, 0], atol=1e-5, rtol=0)


def test_labels_always_give_a_list_and_targets_a_tensor():
    net, x = small_net()
    cam = LayerRegionCam(net, net.relu2)
    for labels in ([[3]], [[3, 1]], [np.array([3, 1, 0])], torch.tensor([[3, 1]]), ((3, 1),)):
        (maps,) = cam.attribute_labels(x[:1], labels)
        assert maps.shape == (len(labels[0]), 4, 4)
        torch.testing.assert_close(maps[0], cam.attribute(x[:1], 3)[0, 0])
    targets = [
        [0, 1, 2],
        [3, 4, 0],
        [1, 1, 1],
    ]  # three labels for each of three photos, or three targets of three photos
    batch = cam.attribute_targets(x, targets)
    assert batch.shape == (3, 3, 4, 4)
    torch.testing.assert_close(batch[:, 1:2], cam.attribute(x, [3, 4, 0]), atol=1e-5, rtol=0)
    own = cam.attribute_labels(x, targets)
    torch.testing.assert_close(own[1][0], cam.attribute(x[1:2], 3)[0, 0], atol=1e-5, rtol=0)


def test_targets_of_numpy_and_of_inference_mode():
    net, x = small_net()
    cam = LayerRegionCam(net, net.relu2)
    expected = cam.attribute(x, [2, 0, 1])
    for target in (np.array([2, 0, 1]), [np.int64(2), np.int64(0), np.int64(1)]):
        assert torch.equal(cam.attribute(x, target), expected)
    assert torch.equal(cam.attribute(x, np.int64(2)), cam.attribute(x, 2))
    with torch.inference_mode():
        target = torch.tensor([2, 0, 1])
        assert torch.equal(cam.attribute(x, target), expected)
    assert torch.equal(cam.attribute(x, target), expected)
    dense = LayerRegionCam(lambda x: net(x)[:, :, None], net.relu2)
    assert torch.equal(dense.attribute(x, (np.int64(2), np.int64(0))), cam.attribute(x, 2))


@pytest.mark.slow
def test_together_as_each_alone_with_random_weights():
    # The propagated maps' range is a fraction of a per cent of their values there: normalising magnifies rounding.
    model, x = torchvision.models.resnet50(weights=None).eval(), torch.randn(2, 3, 96, 96)
    cam = LayerRegionCam(model, find_stages(model, x))
    targets = [1, 5, 207, 281, 400, 671, 817, 999]
    together = cam.attribute_targets(x, targets)
    alone = torch.cat([cam.attribute(x, target) for target in targets], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_arrays_and_tensors_of_classes():
    net, x = small_net()
    cam = LayerRegionCam(net, net.relu2)
    expected = cam.attribute_targets(x, [4, 2])
    for targets in (torch.tensor([4, 2]), np.array([4, 2]), (4, 2), iter([4, 2]), [np.int64(4), np.int64(2)]):
        assert torch.equal(cam.attribute_targets(x, targets), expected)


def test_pixels_of_a_dense_output():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1))
    x, cam = torch.randn(2, 3, 6, 6), LayerRegionCam(net, net[1])
    maps = cam.attribute_labels(x, [[(1, 2, 3), (4, 0, 0)], [(2, 5, 5)]])
    assert [len(own) for own in maps] == [2, 1]
    torch.testing.assert_close(maps[0][1], cam.attribute(x[:1], (4, 0, 0))[0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        cam.attribute_targets(x, [(1, 2, 3), (4, 0, 0)])[:, 1:], cam.attribute(x, (4, 0, 0)), atol=1e-5, rtol=0
    )


def test_layers_of_several_tensors_and_transforms():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.split = nn.Identity()
            self.split.forward = lambda x: (x.relu(), x[..., :2, :2].exp())

        def forward(self, x):
            a, b = self.split(x)
            return a.flatten(1)[:, :3] * b.sum((2, 3)).sum(1, keepdim=True)

    net, x = Two(), torch.rand(2, 2, 4, 4) + 0.1
    first, second = LayerRegionCam(net, net.split).attribute_targets(x, [0, 1])
    assert (first.shape, second.shape) == ((2, 2, 4, 4), (2, 2, 2, 2))
    ragged = LayerRegionCam(net, net.split).attribute_labels(x, [[0], [1, 2, 0]])
    assert [[tuple(own.shape) for own in part] for part in ragged] == [
        [(1, 4, 4), (3, 4, 4)], [(1, 2, 2), (3, 2, 2)],
    ]  # fmt: skip

    tokens = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    cam = LayerRegionCam(tokens, tokens[1], reshape_transform=tokens_to_grid(0))
    x = torch.randn(2, 4, 3)
    expected = torch.cat([cam.attribute(x, target) for target in range(3)], 1)
    assert expected.shape == (2, 3, 2, 2)
    torch.testing.assert_close(cam.attribute_targets(x, range(3)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "targets is empty"),
        (3, "targets=3: expects a sequence"),
        ("cat", "targets='cat': expects a sequence"),
        (torch.zeros(2, 3, dtype=torch.long), r"targets: got an array of shape \(2, 3\)"),
        ([[1, 2], [3]], r"target=\[1, 2\] selects nothing"),
        ([1, 9], r"target=9 is out of range"),
        ([1, None], "target is missing"),
        ([1, 2.9], r"target=2\.9: a class is an integer\. Pass int\(target\)"),
        (torch.tensor([1, 2.5]), r"target=1\.0: a class is an integer"),
        ([1, [1, -1, 0]], r"target=-1 is out of range: .* 5 classes, 0 to 4\. .* a list may not\. Pass 4\."),
    ],
)
def test_bad_targets(targets, message):
    net, x = small_net()
    cam = LayerRegionCam(net, net.relu2)
    with pytest.raises(TargetError, match=message):
        cam.attribute_targets(x, targets)
    assert not net.relu2._forward_hooks


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[], [], []], r"labels=\[\[\], \[\], \[\]\]: expects at least one"),
        (3, "labels=3: expects a list of labels for each example"),
        ([1, 2, 3], r"labels: expects a list for each of the 3 examples, got \[1, 2, 3\].* attribute_targets"),
        ([[1, 2], [3]], "labels: expects a list for each of the 3 examples"),
        ([[1, 2], [9], [0]], r"target=9 is out of range: .* 0 to 4\.$"),
        ([[1, 2], [-1], [0]], r"target=-1 is out of range: .* 0 to 4\. One int .* -1 to -5; a list .* Pass 4\.$"),
        ([[1, 2], [2.0], [0]], r"target=2\.0: a class is an integer\. Pass int\(target\)"),
        ([[1, 2], [True], [0]], r"target=True: a class is an integer\. Pass int\(target\)"),
    ],
)
def test_bad_labels(labels, message):
    net, x = small_net()
    with pytest.raises(TargetError, match=message):
        LayerRegionCam(net, net.relu2).attribute_labels(x, labels)


class FailsThird(torch.autograd.Function):
    """Identity, whose third backward pass raises."""

    passes = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        FailsThird.passes += 1
        if FailsThird.passes == 3:
            raise ArithmeticError("in the third backward pass")
        return gradient


def test_an_exception_in_the_third_backward_pass_leaves_nothing_behind():
    net, x = small_net()
    FailsThird.passes = 0
    kept = []
    net.relu2.register_forward_hook(lambda module, _, output: kept.append(weakref.ref(output)))

    def failing(x):
        x = net.relu3(net.conv3(net.relu2(net.conv2(net.relu1(net.conv1(x))))))
        return net.fc(FailsThird.apply(x).flatten(1))

    before = [(p.grad, p.requires_grad) for p in net.parameters()]
    with pytest.raises(ArithmeticError, match="third backward pass"):
        LayerRegionCam(failing, [net.relu1, net.relu2]).attribute_targets(x, [0, 1, 2, 3])
    assert FailsThird.passes == 3
    assert len(net.relu1._forward_hooks) == 0
    assert len(net.relu2._forward_hooks) == 1  # the test's own
    assert [(p.grad, p.requires_grad) for p in net.parameters()] == before
    assert not x.requires_grad
    assert kept[0]() is None  # and with it the graph


def test_the_graph_is_freed_after_the_last_target():
    net, x = small_net()
    kept = []
    net.relu2.register_forward_hook(lambda module, _, output: kept.append(weakref.ref(output)))
    LayerRegionCam(net, [net.relu1, net.relu2]).attribute_targets(x, [0, 1])
    assert kept[0]() is None


def test_one_forward_pass_and_one_backward_pass_a_target():
    net, x = GapNet(), torch.randn(2, 3, 6, 6)
    calls = {"forward": 0, "backward": 0}
    net.fc.register_forward_pre_hook(lambda *_: calls.__setitem__("forward", calls["forward"] + 1))

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            calls["backward"] += 1
            return gradient

    LayerRegionCam(lambda x: Counted.apply(net(x)), [net.conv, net.relu]).attribute_targets(x, [0, 1, 2])
    assert calls == {"forward": 1, "backward": 3}


def test_create_graph_reaches_every_target():
    net, x = small_net()
    maps = LayerRegionCam(net, find_stages(net, x)).attribute_targets(x, [0, 1], grad_kwargs={"create_graph": True})
    for k in range(2):
        (gradient,) = torch.autograd.grad(maps[:, k].square().sum(), net.conv1.weight, retain_graph=True)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_progress_of_many_targets(method, capsys):
    model, x = small_net()
    cam = method(model, model.relu2)
    quiet = cam.attribute_targets(x, [0, 1, 2, 3])
    assert capsys.readouterr().err == ""
    torch.testing.assert_close(cam.attribute_targets(x, [0, 1, 2, 3], show_progress=True), quiet)
    err = capsys.readouterr().err
    assert f"{method.__name__} targets" in err
    assert "4/4" in err or "100%" in err
    labels = cam.attribute_labels(x, [[0], [1, 2], []], show_progress=True)
    assert [len(maps) for maps in labels] == [1, 2, 0]
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize("method", [LayerGradCam, *METHODS])
def test_without_a_target_as_layer_grad_cam(method):
    model, x = small_net()
    with pytest.raises(AssertionError) as error:
        method(model, model.relu2).attribute(x)
    if method is not LayerGradCam:
        assert "target=model(x).argmax(1) for the most likely class" in str(error.value)
    likeliest = model(x).argmax(1)
    maps = method(model, model.relu2).attribute(x, target=likeliest)
    each = [method(model, model.relu2).attribute(x[i : i + 1], target=int(k)) for i, k in enumerate(likeliest)]
    torch.testing.assert_close(maps, torch.cat(each), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (2.9, "2.9"),
        (2.0, "2.0"),
        (np.float32(2.5), "2.5"),
        (np.array(2.9), "2.9"),
        (np.array([1, 2.9, 0]), "1.0"),
        (True, "True"),
        (np.bool_(True), "True"),
        ([1, 2.9, 0], "2.9"),
        ([1, True, 0], "True"),
        ((2.9,), "2.9"),
        ([(1,), (2.9,), (0,)], "2.9"),
        (1j, "1j"),
        (torch.tensor(2.9), "tensor(2.9000)"),
        (torch.tensor(True), "tensor(True)"),
        (torch.tensor([1.0, 2.0, 0.0]), "tensor([1., 2., 0.])"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_class_is_an_integer(method, target, named):
    net, x = small_net()
    with pytest.raises(TargetError) as error:
        method(net, net.relu2).attribute(x, target)
    remedy = "target.long() if it holds integers" if torch.is_tensor(target) else "int(target) if that is the class"
    assert str(error.value) == f"target={named}: a class is an integer. Pass {remedy}."
    dense = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    slices = LayerRegionCam(lambda x: dense(x)[:, :, :1], dense[1]).attribute(x, (1, slice(0, 1), 2))
    assert slices.shape == (3, 1, 8, 8)


FLAGS = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 1, 1, 1, 0]])  # of three examples and five classes
FORMS = [
    FLAGS,
    FLAGS.tolist(),
    list(map(tuple, FLAGS.tolist())),
    torch.tensor(FLAGS),
    FLAGS.astype(bool),
    FLAGS.astype(np.float32),
    FLAGS.astype(float).tolist(),
    torch.tensor(FLAGS) > 0,
    torch.tensor(FLAGS).float(),
    list(torch.tensor(FLAGS).float()),
]


@pytest.mark.parametrize("flags", FORMS)
def test_flags_of_the_classes_are_no_classes(flags):
    net, x = small_net()
    cam = LayerRegionCam(net, net.relu2)
    for attribute in (cam.attribute, cam.attribute_targets, cam.attribute_labels):
        with pytest.raises(
            TargetError, match=r"For a 0 or 1 for each class, pass the numbers of the classes: "
        ) as error:
            attribute(x, flags)
        assert "(3, 5)" in str(error.value) or any(
            f"target={row}" in str(error.value) for row in ("[1", "(1", "[T", "te")
        )
    for row in (flags[0], x.new_tensor(FLAGS[0]) > 0):
        with pytest.raises(TargetError, match="numbers of the classes"):
            cam.attribute_targets(x, row)
    # The remedies of the message, as they are.
    rows, row = ([*map(list, flags)] if isinstance(flags, list) else flags), FLAGS[0]
    labels = [row.nonzero().flatten().tolist() for row in torch.as_tensor(rows if flags is not FORMS[-1] else FLAGS)]
    assert labels == [[0, 3], [1], [1, 2, 3]]
    assert [len(maps) for maps in cam.attribute_labels(x, labels)] == [2, 1, 3]
    assert cam.attribute_targets(x, torch.as_tensor(row).nonzero().flatten()).shape == (3, 2, 4, 4)


def test_classes_that_only_look_like_flags():
    net, x = small_net(classes=3)
    cam = LayerRegionCam(net, net.relu2)
    first, second = cam.attribute_targets(x, [0, 1]).split(1, dim=1)
    own = cam.attribute(x, [0, 1, 0])  # a class for each of three examples, by chance of three classes
    torch.testing.assert_close(own, torch.stack([first[0], second[1], first[2]]))
    torch.testing.assert_close(cam.attribute_targets(x, [[0, 1, 0], 0])[:, :1], own)
    # Labels of instances: their number is not that of the classes, in one example at least.
    maps = cam.attribute_labels(x, [[0, 1, 0], [1], []])
    assert [len(one) for one in maps] == [3, 1, 0]
    torch.testing.assert_close(maps[0], torch.cat([first[0], second[0], first[0]]))
    assert cam.attribute_labels(x, [[0, 1], [1, 1], [0, 0]])[1].shape == (2, 4, 4)
    assert cam.attribute_targets(x, [0, 1, 0, 1]).shape == (3, 4, 4, 4)
    for nothing in ([], (), torch.tensor([], dtype=torch.long), [[]], [[0, 1, 0], 1]):
        with pytest.raises(TargetError, match=r"selects nothing|target is missing|selects 3 scores"):
            cam.attribute(x, nothing)
    two, x = small_net(classes=2)
    cam = LayerRegionCam(two, two.relu2)
    assert [len(one) for one in cam.attribute_labels(x, torch.tensor([[0, 1], [1, 0], [1, 1]]))] == [2, 2, 2]
    assert cam.attribute_targets(x, [0, 1, 0]).shape == (3, 3, 4, 4)
    with pytest.raises(TargetError, match=r"target=\[False, True\]: a class is an integer\. .* numbers of the classes"):
        cam.attribute_labels(x, torch.tensor([[False, True]] * 3))


@pytest.mark.parametrize("target", [0, -1, [0, 0, 0], torch.tensor([0, 1, 2]), (0,), [(0,), (0,), (0,)]])
def test_a_target_where_each_example_has_one_score(target):
    net, x = small_net()
    with pytest.raises(TargetError) as error:
        LayerRegionCam(lambda x: net(x)[:, 0], net.relu2).attribute(x, target)
    returned = "forward_func returned one score per example, a tensor of shape (3,), so there is nothing to select"
    assert str(error.value) == f"target={target!r}: {returned}. Pass target=None."
    with pytest.raises(
        TargetError, match=r"target=1 is out of range: forward_func returns the score of class 0 only\.$"
    ):
        LayerRegionCam(lambda x: net(x)[:, :1], net.relu2).attribute(x, 1)


@pytest.mark.parametrize("target", [None, 1])
def test_targets_of_a_dense_output(target):
    dense, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1)), torch.randn(2, 3, 6, 6)
    with pytest.raises(
        TargetError, match=r"\(2, 5, 6, 6\) .* tuple of 3 indices, .* target=\(0, 0, 0\), .* segmentation_score"
    ):
        LayerRegionCam(dense, dense[1]).attribute(x, target)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_counted_from_the_end(method):
    net, x = small_net()
    cam = method(net, net.relu2)
    expected = cam.attribute(x, 4)
    for target in (-1, (-1,), torch.tensor(-1), np.int64(-1)):
        assert torch.equal(cam.attribute(x, target), expected)
    assert torch.equal(cam.attribute_targets(x, [4, -1])[:, 1:], expected)
    start = "is out of range: forward_func returns the scores of 5 classes, 0 to 4. "
    rule = "One int for all examples may count from the end, -1 to -5; a list may not."
    for target, message in (
        (-6, f"target=-6 {start}{rule}"),
        ([0, -1, 1], f"target=-1 {start}{rule} Pass 4."),
        (torch.tensor([0, 1, -5]), f"target=-5 {start}{rule} Pass 0."),
    ):
        with pytest.raises(TargetError) as error:
            cam.attribute(x, target)
        assert str(error.value) == message
