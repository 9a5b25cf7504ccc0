"""Where in a network its stages are: the modules that end each resolution, or evenly spaced transformer blocks."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module, Sequential

from captum_regioncam.captum_hooks import eagerly
from captum_regioncam.grids import ReshapeTransform, channels_last, tokens_to_grid

__all__ = ["StageSet", "StageValues", "find_stages"]

_TRANSFORMER_STAGES = 4
_MOST_PREFIX_TOKENS = 32


class StageValues(list[Module]):
    """The modules of a :class:`StageSet`, which still know their ``reshape_transform``."""

    reshape_transform: ReshapeTransform | None = None


class StageSet(dict[str, Module]):
    r"""What :func:`find_stages` finds: {dotted name: module}, and how to bring the modules' tensors onto a grid.

    Attributes:
        reshape_transform: None for (N, C, \*grid) tensors. LayerRegionCam and LayerCam take it from here where it is
            not given to them, from the set as from its ``values()``.

    Example::

        >>> stages = find_stages(model, x)
        >>> {name: type(module).__name__ for name, module in stages.items()}
        {'relu': 'ReLU', 'layer1': 'Sequential', 'layer2': 'Sequential', 'layer3': 'Sequential', 'layer4': 'Sequential'}
        >>> stages.reshape_transform is None  # these are (N, C, height, width) already
        True
    """

    reshape_transform: ReshapeTransform | None = None

    def values(self) -> StageValues:  # type: ignore[override]
        """Return the modules, shallow to deep."""
        values = StageValues(super().values())
        values.reshape_transform = self.reshape_transform
        return values


def find_stages(model: Module, *inputs: Any, min_stride: int = 2) -> StageSet:
    r"""Find a network's stages, shallow to deep: the module that ends each resolution.

    One forward pass, in evaluation mode and without gradients, watches which module puts out which grid. Grids count
    as one resolution when they are nearest to the same halving of the input's (112 and 113 of 224). Of all modules at
    a resolution that one is taken which is the least deep inside blocks, and of those the last: a block before its
    insides, and never what a later block does before it goes down. No stages are: pooling, padding, dropout
    and identity modules or what only hands their output on; modules that run more than once, as a hook on them would
    see another tensor; single positions.

    Transformers are read likewise: Swin's channels-last tensors, and tokens, of which those beyond the patches (class
    token, distillation token, registers) come first. A plain vision transformer has one resolution alone: there, four
    evenly spaced blocks are taken, and of the last block its first norm, as the patches behind the last attention do
    not reach a class token, so that their gradient is zero.

    Args:
        model: the network.
        inputs: one batch as the model takes it; the first tensor with spatial dimensions sets the scale.
        min_stride: the finest resolution wanted, as input size over output size, rounded up to a power of two. From
            stride 2 there are the object's edges; 1 adds the input's own resolution where the network computes there.

    Returns:
        {dotted name: module}, from the finest to the coarsest resolution, with the ``reshape_transform`` that the
        modules need. The set, or its ``values()``, is what :class:`~captum_regioncam.LayerRegionCam` takes as
        ``layer``.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: ``inputs`` has no batch of images, volumes or signals, ``min_stride`` is below 1, or the network
            shows no stage.

    Example::

        >>> list(find_stages(torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224)))
        ['relu', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: find_stages expects a torch.nn.Module, got {type(model).__name__}.")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(
            f"model: {type(model).__name__} is TorchScript, which runs without hooks; give the eager model."
        )
    if min_stride < 1:
        raise ValueError(f"min_stride={min_stride}: a stride is 1 or more.")
    like = next((value for value in inputs if isinstance(value, Tensor) and 3 <= value.dim() <= 5), None)
    if like is None:
        raise ValueError("inputs: find_stages expects the model's inputs, one of them of shape (N, C, *grid).")
    calls = _watch(model, inputs)
    layout = _choose_layout(calls, like, math.ceil(math.log2(min_stride)))
    found = [call.name for _, (_, call) in sorted(layout.ends.items())]
    if layout.is_tokens and len(found) == 1:
        found = _evenly_spaced_blocks(layout) or found
    if not found:
        raise ValueError(
            f"find_stages: no module of {type(model).__name__} that runs once gives (N, C, *grid) at stride "
            f"{min_stride} or more for an input of shape {tuple(like.shape)}. Try min_stride=1, or name the layers "
            "yourself, with a reshape_transform where they give tokens or channels-last tensors."
        )
    stages = StageSet({name: model.get_submodule(name) for name in found})
    stages.reshape_transform = layout.reshape_transform
    return stages


Octave = tuple[int, ...]
"""How many times the grid is half the input's, along each axis."""


@dataclass
class _Call:
    """One call of a module during the watched forward pass."""

    name: str
    kind: str
    parents: tuple[str, ...]
    is_sequential: bool
    is_linear: bool
    input_shape: tuple[int, ...]
    shape: tuple[int, ...] = ()
    """Of the output; empty where that is no single tensor."""
    computes: bool = True
    """False for pooling, padding and the like, and for a container that hands on the output of one."""
    last_inside: tuple[Any, bool] = (None, True)
    """The latest call directly inside, while this one runs: its output, and whether it computes."""


@dataclass
class _Layout:
    """One way to read the tensors of a network."""

    candidates: list[_Call]
    """The calls that may be stages."""
    ends: dict[Octave, tuple[int, _Call]]
    """Per octave the call that ends it, and how deep in blocks it is."""
    reshape_transform: ReshapeTransform | None = None
    is_tokens: bool = False


def _choose_layout(calls: list[_Call], like: Tensor, lowest_octave: int) -> _Layout:
    """Read the network's tensors in the layout that shows the most resolutions, least deep in blocks, most often."""
    batch, whole, dims = len(like), tuple(like.shape[2:]), like.dim()

    def read(grid_of: Callable[[tuple[int, ...]], Sequence[int] | None], even: bool = True, **options: Any) -> _Layout:
        def octave_of(shape: tuple[int, ...]) -> Octave | None:
            grid = grid_of(shape) if shape[:1] == (batch,) else None
            return _octave(grid, whole, even) if grid else None

        return _Layout(*_ends_of_resolutions(calls, octave_of, lowest_octave), **options)

    def first(shape: tuple[int, ...]) -> Sequence[int] | None:
        return shape[2:] if len(shape) == dims else None

    def last(shape: tuple[int, ...]) -> Sequence[int] | None:
        return shape[1:-1] if len(shape) == dims else None

    layouts = [read(first)]
    if any(call.is_linear and len(call.shape) == dims for call in calls):  # which works on the last dimension
        layouts.append(read(last, reshape_transform=channels_last))
    if grids := _token_grids([call for call in calls if call.shape[:1] == (batch,)], dims):
        layouts.append(
            read(
                lambda shape: grids.get(shape[1]) if len(shape) == 3 else None,
                reshape_transform=_tokens_transform(grids),
                is_tokens=True,
            )
        )

    def merit(layout: _Layout) -> tuple[int, int, int]:
        return len(layout.ends), -sum(depth for depth, _ in layout.ends.values()), len(layout.candidates)

    best, uneven = max(layouts, key=merit), read(first, even=False)
    # Axes that are not halved alike (the time of a video) count where they only ever shrink, block after block.
    shrinks = all(all(a <= b for a, b in zip(*pair, strict=True)) for pair in pairwise(uneven.ends))
    blocks_alone = all(depth == 0 for depth, _ in uneven.ends.values())
    return uneven if shrinks and blocks_alone and len(uneven.ends) > len(best.ends) else best


def _token_grids(calls: list[_Call], dims: int) -> dict[int, tuple[int, ...]]:
    """Say which grid a number of tokens stands for: the patch embedding's, or one that is half, a quarter ... of it."""
    if dims < 4:
        return {}
    lengths = Counter(call.shape[1] for call in calls if len(call.shape) == 3)
    patches = {call.shape[2:] for call in calls if len(call.shape) == dims and math.prod(call.shape[2:]) > 1}
    fits = [
        (count, length, grid)
        for length, count in lengths.items()
        for grid in patches
        if 0 <= length - math.prod(grid) <= _MOST_PREFIX_TOKENS
    ]
    if not fits:
        return {}
    # Of a pyramid of tokens the finest grid is the patch embedding's; of the same grid, the length most modules give.
    _, length, finest = max(fits, key=lambda fit: (math.prod(fit[2]), fit[0]))
    prefix = length - math.prod(finest)
    halved = [tuple(-(-side // 2**times) for side in finest) for times in range(8)]
    return {math.prod(grid) + prefix: grid for grid in reversed(halved) if math.prod(grid) > 1}


def _octave(grid: Sequence[int], whole: Sequence[int], even: bool) -> Octave | None:
    """Say how many times a grid is half the input's: on every axis alike (``even``), or on each by itself."""
    if math.prod(grid) <= 1 or any(part > 1.5 * size for part, size in zip(grid, whole, strict=True)):
        return None

    def nearest_halving(parts: Sequence[int], sizes: Sequence[int]) -> int:
        most = max(sizes).bit_length()
        halvings = [math.prod(-(-size // 2**k) for size in sizes) for k in range(most + 1)]
        return min(range(most + 1), key=lambda k: abs(math.log2(math.prod(parts) / halvings[k])))

    if not even:
        return tuple(nearest_halving([part], [size]) for part, size in zip(grid, whole, strict=True))
    k = nearest_halving(grid, whole)
    off = [abs(math.log2(part / -(-size // 2**k))) for part, size in zip(grid, whole, strict=True)]
    # An axis that is far from this halving shows that the tensor is of another layout.
    return (k,) * len(grid) if max(off) < 0.6 else None


def _tokens_transform(grids: dict[int, tuple[int, ...]]) -> ReshapeTransform:
    length, finest = max(grids.items())
    prefix = length - math.prod(finest)
    if len(finest) == 2 and finest[0] == finest[1]:
        return tokens_to_grid(prefix)  # square, at any input size
    return lambda tokens: tokens_to_grid(prefix, grids.get(tokens.shape[1], finest))(tokens)


def _ends_of_resolutions(
    calls: list[_Call], octave_of: Callable[[tuple[int, ...]], Octave | None], lowest_octave: int
) -> tuple[list[_Call], dict[Octave, tuple[int, _Call]]]:
    times = Counter(call.name for call in calls)
    octaves = [octave_of(call.shape) for call in calls]
    within: dict[str, set[Octave]] = defaultdict(set)
    for call, octave in zip(calls, octaves, strict=True):
        if octave is not None:
            for name in (*call.parents, call.name):
                within[name].add(octave)
    # A container that runs through three resolutions is a trunk ("features"): its parts are the blocks. A block of a
    # class of its own may begin at one resolution and go down twice: from such a one, three below its input's.
    trunks = {
        call.name
        for call in calls
        if len(within[call.name]) >= 3
        and (call.is_sequential or len(within[call.name] - {octave_of(call.input_shape)}) >= 3)
    }
    candidates = []
    ends: dict[Octave, tuple[int, _Call]] = {}
    for call, octave in zip(calls, octaves, strict=True):
        if octave and max(octave) >= lowest_octave and call.computes and call.name and times[call.name] == 1:
            candidates.append(call)
            depth = sum(name not in trunks for name in call.parents)
            if octave not in ends or depth <= ends[octave][0]:
                ends[octave] = depth, call
    return candidates, ends


def _evenly_spaced_blocks(layout: _Layout) -> list[str]:
    """Take blocks of a plain transformer: siblings of one class, the most numerous."""
    siblings: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for call in layout.candidates:
        siblings[call.parents, call.kind].append(call.name)
    blocks = max(siblings.values(), key=len)
    if len(blocks) < 2:
        return []
    count = min(_TRANSFORMER_STAGES, len(blocks))
    chosen = [blocks[round(len(blocks) * (k + 1) / count) - 1] for k in range(count)]
    inside = (call for call in layout.candidates if call.parents[-1:] == (blocks[-1],))
    norm = next((call.name for call in inside if "norm" in call.kind.lower()), None)
    chosen[-1] = norm or blocks[-2]
    return list(dict.fromkeys(chosen))


_NO_STAGE = re.compile("pool|pad|drop|identity|flatten|stochasticdepth|permute", re.IGNORECASE)


def _is_no_stage(module: Module) -> bool:
    return bool(_NO_STAGE.search(type(module).__name__)) and next(module.parameters(), None) is None


def _watch(model: Module, inputs: Sequence[Any]) -> list[_Call]:
    """Run the model and list the calls of its modules, in the order in which they end."""
    stack: list[_Call] = []
    calls: list[_Call] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(module: Module, args: Any) -> None:
            stack.append(
                _Call(
                    name,
                    type(module).__name__,
                    tuple(call.name for call in stack if call.name),
                    is_sequential=type(module) is Sequential,
                    is_linear=isinstance(module, Linear),
                    input_shape=next((tuple(value.shape) for value in args if isinstance(value, Tensor)), ()),
                )
            )

        return hook

    def leave(module: Module, args: Any, output: Any) -> None:
        call = stack.pop()
        alone = output[0] if isinstance(output, (tuple, list)) and len(output) == 1 else output
        call.shape = tuple(alone.shape) if isinstance(alone, Tensor) else ()
        (inner_output, inner_computes), call.last_inside = call.last_inside, (None, True)
        no_stage = _is_no_stage(module)
        call.computes = not no_stage and (alone is not inner_output or inner_computes)
        idle = no_stage and any(alone is argument for argument in args)  # dropout and identity, in evaluation mode
        if stack and not idle:
            stack[-1].last_inside = (alone, call.computes)
        calls.append(call)

    with _left_as_it_was(model, inputs), eagerly(), torch.no_grad():
        hooks = []
        try:
            for name, module in model.named_modules():
                hooks.append(module.register_forward_pre_hook(enter(name)))
                hooks.append(module.register_forward_hook(leave))
            model(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
    return calls


@contextmanager
def _left_as_it_was(model: Module, inputs: Sequence[Any]) -> Iterator[None]:
    """Evaluation mode for a while, with the modes and the random state as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    devices = {value.device for value in inputs if isinstance(value, Tensor) and value.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            for module in modes:
                module.training = False
            yield
        finally:
            for module, training in modes.items():
                module.training = training
