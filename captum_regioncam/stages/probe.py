"""Trying a network on noise: where its tensors answer to changes of the input, and which of them reach the scores."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn import DataParallel, Module
from torch.nn.parameter import UninitializedBuffer, is_lazy

from captum_regioncam.network.graph import below
from captum_regioncam.network.outputs import SCORES, first_tensor
from captum_regioncam.network.turns import turn
from captum_regioncam.stages.places import BANDS, answers, per_dimension
from captum_regioncam.stages.watch import Call, watch

__all__ = ["Observation", "observe"]

_PROBE_SIDE = {1: 4096, 2: 224, 3: 48}  # by the number of dimensions: far more than networks' largest strides


@dataclass(frozen=True)
class Observation:
    r"""What a network did with a probe.

    Attributes:
        calls: the calls of its modules, in the order in which they end.
        shape: (N, C, \*grid) of the probe.
        scores: how many scores the network gives: the channels of what it returns; None if that is not known.
        is_measured: whether the calls tell how they answer to changes of the probe.
    """

    calls: list[Call]
    shape: tuple[int, ...]
    scores: int | None
    is_measured: bool


def observe(model: Module, inputs: Sequence[Any], like: Tensor) -> Observation:
    """Run a network on noise, or on its inputs if it takes no other size.

    There is one forward pass for each axis of the grid, in which bands of the input are changed one after another, and
    one more with a backward pass, on a single example.

    Args:
        model: the network.
        inputs: one batch as it takes them.
        like: the input among them that has a grid.
    """
    if isinstance(model, DataParallel):  # its replicas would run every module once per device
        model = model.module
        device = next((parameter.device for parameter in model.parameters()), like.device)
        inputs = [value.to(device) if isinstance(value, Tensor) else value for value in inputs]
        like = like.to(device)
    with turn():  # no other thread's forward pass makes the parameters of lazy modules meanwhile
        is_unmade = any(map(is_lazy, (*model.parameters(), *model.buffers())))
        model = _copied(model) if is_unmade else model
    shape = (1, like.shape[1], *[_PROBE_SIDE[like.dim() - 2]] * (like.dim() - 2))
    noise, other_noise = (_noise(shape, like, seed) for seed in (0, 1))
    other_noise = other_noise + noise.abs().amax() / 2  # brighter
    own, other_own = like[:1], like[:1].flip(list(range(2, like.dim())))  # values that the network takes
    if torch.equal(own, other_own):
        other_own = _noise(own.shape, own, seed=1)
    for base, other, probing in ((noise, other_noise, True), (own, other_own, False)):
        if is_unmade and probing:
            continue
        try:
            return _measured(model, inputs, like, base, other.to(base), probing)
        except Exception:
            pass  # a network with a fixed input size or batch size, or one that caches what depends on the size
    own_inputs = [value.clone() if isinstance(value, Tensor) else value for value in inputs]  # it may change them
    with watch(model, own_inputs) as (passed, output):
        scores = _count_scores(output)
    calls = dict(_by_key(passed))
    _note_dependence(model, inputs, calls)
    return Observation(list(calls.values()), tuple(like.shape), scores, is_measured=False)


def _measured(
    model: Module, inputs: Sequence[Any], like: Tensor, base: Tensor, other: Tensor, probing: bool
) -> Observation:
    """Try the network on one input, with each axis' bands changed to those of another."""
    calls: dict[tuple[str, int], Call] = {}
    for axis in range(base.dim() - 2):
        scores = _try_bands(model, _batch(inputs, like, _with_changed_bands(base, other, axis)), axis, probing, calls)
    _note_dependence(model, _batch(inputs, like, base), calls)
    return Observation(list(calls.values()), (1 + BANDS, *base.shape[1:]), scores, is_measured=True)


def _try_bands(
    model: Module, batch: Sequence[Any], axis: int, probing: bool, calls: dict[tuple[str, int], Call]
) -> int | None:
    """Note how the calls answer to the bands along an axis, and return how many scores the network gives."""
    with watch(model, batch, _note_answers(axis), probing=probing) as (passed, output):
        for key, call in _by_key(passed):
            calls.setdefault(key, call).answers.update(call.answers)
        return _count_scores(output)


def _note_answers(axis: int) -> Callable[[Call, Tensor], None]:
    seen: tuple[Any, int | None, list[Tensor]] = (None, 0, [])

    def note(call: Call, tensor: Tensor) -> None:
        nonlocal seen
        if len(tensor) == 1 + BANDS and 3 <= tensor.dim() <= 5:
            version = None if tensor.is_inference() else tensor._version
            handed_on = tensor is seen[0] and version == seen[1]  # by a container, from its last module
            if not handed_on:
                seen = tensor, version, answers(tensor)
            call.answers[axis] = seen[2]

    return note


def _note_dependence(model: Module, inputs: Sequence[Any], calls: dict[tuple[str, int], Call]) -> None:
    """Note which calls the scores depend on, and where: from the graph of one forward pass, and from its gradients."""
    nodes: dict[Call, Node] = {}
    gradients: dict[Call, list[Tensor]] = {}
    hooks = []

    def note(call: Call, tensor: Tensor) -> None:
        if tensor.requires_grad:
            nodes[call] = get_gradient_edge(tensor).node
            if 3 <= tensor.dim() <= 5:
                hooks.append(tensor.register_hook(lambda gradient: gradients.__setitem__(call, _nonzero(gradient))))

    inputs = [
        value.detach().requires_grad_().clone() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in inputs
    ]
    try:
        with watch(model, inputs, note, gradients=True) as (passed, output):
            scores = [tensor for tensor in _scores(output) if tensor.requires_grad]
            if not scores:
                return
            reached = set[Node]()
            for tensor in scores:
                node = get_gradient_edge(tensor).node
                reached |= {node, *below(node)}
            generator = torch.Generator().manual_seed(0)
            signs = [torch.randn(tensor.shape, generator=generator).to(tensor) for tensor in scores]
            if sources := [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]:
                torch.autograd.grad(scores, sources, signs, allow_unused=True)
    except Exception:  # autograd cannot differentiate it: nothing is known
        return
    finally:
        for hook in hooks:
            hook.remove()
    if not any(nodes[call] in reached for call in nodes):
        return
    for key, call in _by_key(passed):
        if key in calls:
            calls[key].is_reached = call in nodes and nodes[call] in reached
            calls[key].gradient = gradients.get(call, [])


def _nonzero(gradient: Tensor) -> list[Tensor]:
    """Count where a gradient is not zero in any example, along each of its dimensions after the batch."""
    return per_dimension(gradient.ne(0).any(0, keepdim=True))


def _by_key(calls: Sequence[Call]) -> Iterator[tuple[tuple[str, int], Call]]:
    """Number the calls of each module, so that those of several passes can be compared."""
    times: Counter[str] = Counter()
    for call in calls:
        times[call.name] += 1
        yield (call.name, times[call.name]), call


def _noise(shape: Sequence[int], like: Tensor, seed: int) -> Tensor:
    """Return noise of the kind of an input, always the same."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (noise if like.is_floating_point() else noise.abs() * 64).to(like)


def _with_changed_bands(base: Tensor, other: Tensor, axis: int) -> Tensor:
    """Return a batch: the input as it is, and with each band along an axis of its grid taken from another input."""
    size = base.shape[2 + axis]
    batch = base.repeat(1 + BANDS, *[1] * (base.dim() - 1))
    for band in range(BANDS):
        start, end = band * size // BANDS, (band + 1) * size // BANDS
        batch[1 + band].narrow(1 + axis, start, end - start).copy_(other[0].narrow(1 + axis, start, end - start))
    return batch


def _batch(inputs: Sequence[Any], like: Tensor, batch: Tensor) -> list[Any]:
    """Put a batch in the place of one of the inputs; of the others, repeat the first example.

    Inputs of the same shape get nearly the same batch, but not the same: a network may take their difference.
    """

    def of(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim() or len(value) != len(like):
            return value
        if value is like:
            return batch
        if value.shape == like.shape:
            return (batch * 0.7).to(batch)
        return value[:1].expand(len(batch), *value.shape[1:])

    return list(map(of, inputs))


def _copied(model: Module) -> Module:
    """Copy a network that has lazy modules, so that they stay lazy."""
    make: Callable[..., Tensor] = UninitializedBuffer  # deepcopy cannot
    copied = {id(one): make(device=one.device, dtype=one.dtype) for one in model.buffers() if is_lazy(one)}
    try:
        return deepcopy(model, copied)
    except Exception as error:
        raise ValueError(
            f"model: {type(model).__name__} has lazy modules, but cannot be copied ({error}), which would leave them "
            "lazy. Run it once on its inputs first."
        ) from error


def _scores(output: Any) -> list[Tensor]:
    """Return the scores that a network returns: a tensor, or the first of several, as ``class_scores`` picks it.

    But if these have different numbers of channels and no names, or lie deeper inside, they are the features of a
    backbone, and all count.
    """
    if isinstance(output, Tensor):
        return [output]
    if (found := first_tensor(output)) is None:  # a backbone's features, one container inside another
        inside = output.values() if isinstance(output, Mapping) else output
        nested = inside if isinstance(inside, Iterable) and not isinstance(inside, str) else ()
        return [tensor for one in nested for tensor in _scores(one)]
    pick, first = found
    several = output.values() if isinstance(output, Mapping) else output if isinstance(output, (list, tuple)) else ()
    tensors = [one for one in several if isinstance(one, Tensor) and one.dim() > 1]
    is_named = pick.strip('.[]"') in SCORES
    return [first] if is_named or len({one.shape[1] for one in tensors}) < 2 else tensors


def _count_scores(output: Any) -> int | None:
    is_nested = not isinstance(output, Tensor) and first_tensor(output) is None  # features, and no scores
    scores = [] if is_nested else _scores(output)
    return scores[0].shape[1] if scores and scores[0].dim() > 1 else None
