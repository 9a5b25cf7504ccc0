"""The network's stages: what ends each resolution, from one forward pass over a probe."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import DataParallel, Module
from torch.nn.parameter import UninitializedBuffer, is_lazy

from captum_regioncam.network.reshape import ReshapeTransform
from captum_regioncam.network.turns import turn
from captum_regioncam.stages.choice import Choice, choose
from captum_regioncam.stages.layouts import Layout, choose_layout
from captum_regioncam.stages.watch import Call, watch

__all__ = ["Stages", "find_stages"]

_PROBE_SIDE = {1: 4096, 2: 224, 3: 48}  # by the number of dimensions: far more than networks' largest strides
_TRANSFORMER_STAGES = 4


class Stages(Mapping[str, Module]):
    r"""The stages that :func:`find_stages` found: {dotted name: module}, shallow to deep. It cannot be changed.

    Attributes:
        reshape_transform: turns the modules' tensors into (N, C, \*grid) if they have another layout, such as the
            tokens of a transformer; otherwise None.
        at_input: the names of the modules whose input, not output, is the stage. If an activation is called as a
            function, or is shared, its output shows only in the input of the next convolution or pooling.

    Example::

        >>> stages = find_stages(model, x)
        >>> stages
        Stages(relu, layer1, layer2, layer3, layer4)
        >>> stages["layer4"] is model.layer4
        True
        >>> stages.reshape_transform is None  # these are (N, C, height, width) already
        True
    """

    def __init__(
        self,
        modules: Mapping[str, Module],
        reshape_transform: ReshapeTransform | None = None,
        at_input: Iterable[str] = (),
    ) -> None:
        self._modules = dict(modules)
        self._reshape_transform = reshape_transform
        self._at_input = frozenset(at_input)

    @property
    def reshape_transform(self) -> ReshapeTransform | None:  # noqa: D102  # told in the class
        return self._reshape_transform

    @property
    def at_input(self) -> frozenset[str]:  # noqa: D102  # told in the class
        return self._at_input

    def __getitem__(self, name: str) -> Module:
        return self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __repr__(self) -> str:
        return f"Stages({self.describe()})"

    def describe(self) -> str:
        """Return the names, and mark the modules whose input is meant."""
        return ", ".join(name + " (input)" * (name in self.at_input) for name in self)


def find_stages(model: Module, *inputs: Any, min_stride: int = 2) -> Stages:
    r"""Find a network's stages, shallow to deep: the features that say what is where at each resolution.

    One forward pass, in evaluation mode and without gradients, shows which module puts out which grid. It does not run
    on ``inputs`` but on similar noise, of 224 x 224 positions (4,096 for signals, 48 x 48 x 48 for volumes), so that
    the stages do not depend on the first photo. A network that does not take inputs of that size runs on ``inputs``. So
    does one that has lazy modules, or that changes its buffers or other tensors that it keeps.

    The network is left as it was: lazy modules stay lazy (a copy is watched), and the modules' attributes are restored,
    training modes and caches among them. Threads take turns, also with those that attribute. But a thread that runs the
    network directly meanwhile runs it in evaluation mode.

    Grids count as one resolution if they are nearest to the same halving of the input's (112 and 113 of 224). At each
    resolution, the block that ends it is taken: the last of the modules that are least deep inside other blocks, but
    never what a later block does before it goes down. Pooling, padding, dropout and identity modules do not count,
    nor do modules that run more than once.

    - The block's **rectified features** are the stage: its own output, if it ends in a ReLU; else the output of a ReLU
      that follows it; else the widest rectified features inside it, such as the input of the projection in a linear
      bottleneck (MobileNetV2). If a ReLU is called as a function, or is one module that runs many times, the next
      module's *input* shows its output; ``at_input`` names such stages. A block without rectified features (SiLU, GELU)
      is taken as it is.
    - If one resolution has more blocks than any other, and they end in rectified features, its **middle** block is a
      stage too.
    - A **map of the scores** (SqueezeNet's classifier, a segmentation network's logits) joins the last features.

    Transformers are read in the same way: Swin's channels-last tensors, and tokens. Tokens other than the patches
    (class token, distillation token, registers) come first. A plain vision transformer has only one resolution, so four
    evenly spaced blocks are taken. Of the last block, the first norm is taken: the patches after the last attention do
    not reach a class token, so their gradient is zero.

    Args:
        model: the network. For a DataParallel model, the module inside is watched.
        inputs: one batch as the model takes it; the first tensor with spatial dimensions sets the scale.
        min_stride: the finest resolution to include, as input size over output size, rounded up to a power of two.
            Stride 2 already shows the object's edges; 1 adds the input's own resolution if the network computes there.

    Returns:
        {dotted name: module}, from the finest to the coarsest resolution, with the ``reshape_transform`` that the
        modules need. Pass it to :class:`~captum_regioncam.LayerRegionCam` as ``layer``.

    Raises:
        TypeError: ``model`` is not a module, or is TorchScript.
        ValueError: ``inputs`` has no batch of images, volumes or signals, ``min_stride`` is below 1, no stage is found,
            or the model has lazy modules and cannot be copied.

    Example::

        >>> list(find_stages(torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224)))
        ['relu', 'layer1', 'layer2', 'layer3.2', 'layer3', 'layer4']
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
    calls, scores, like = _watch_a_probe(model, inputs, like)
    layout = choose_layout(calls, like, math.ceil(math.log2(min_stride)))
    if layout.reshape_transform is None:
        found = choose(layout, scores)
    elif layout.is_tokens and len(layout.ends) == 1:
        found = [Choice(name) for name in _evenly_spaced_blocks(layout)]
    else:
        found = [Choice(call.name) for call in layout.ends.values()]
    if not found:
        raise ValueError(
            f"find_stages: no module of {type(model).__name__} that runs once gives (N, C, *grid) at stride "
            f"{min_stride} or more for an input of shape {tuple(like.shape)}. Try min_stride=1, or name the layers "
            "yourself, with a reshape_transform if they give tokens or channels-last tensors."
        )
    prefix = "module." if isinstance(model, DataParallel) else ""
    names = [prefix + choice.name for choice in found]
    return Stages(
        {name: model.get_submodule(name) for name in names},
        layout.reshape_transform,
        at_input=[name for name, choice in zip(names, found, strict=True) if choice.at_input],
    )


def _watch_a_probe(model: Module, inputs: Sequence[Any], like: Tensor) -> tuple[list[Call], int | None, Tensor]:
    """Watch the network on noise, or on its inputs if it takes no other size; return that input as well."""
    if isinstance(model, DataParallel):  # its replicas would run every module once per device
        model = model.module
        device = next((parameter.device for parameter in model.parameters()), like.device)
        inputs = [value.to(device) if isinstance(value, Tensor) else value for value in inputs]
        like = like.to(device)
    batch = 2 if len(inputs) == 1 else len(like)
    shape = (batch, like.shape[1], *[_PROBE_SIDE[like.dim() - 2]] * (like.dim() - 2))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    noise = (noise if like.is_floating_point() else noise.abs() * 64).to(like)
    probe = [noise if isinstance(value, Tensor) and value.shape == like.shape else value for value in inputs]
    with turn():  # no other thread's forward pass makes the parameters of lazy modules meanwhile
        if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
            return *watch(_copied(model), inputs), like
    try:
        return *watch(model, probe, probing=True), noise
    except Exception:
        pass  # a network with a fixed input size, or that caches what depends on it, or inputs that belong together
    return *watch(model, inputs), like


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


def _evenly_spaced_blocks(layout: Layout) -> list[str]:
    """Take blocks of a plain transformer: from the largest group of siblings of one class with modules inside."""
    siblings: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for call in layout.candidates:
        if not call.is_innermost:
            siblings[call.parents, call.kind].append(call.name)
    blocks = max(siblings.values(), key=len, default=[])
    if len(blocks) < 2:
        return [call.name for call in layout.ends.values()]
    count = min(_TRANSFORMER_STAGES, len(blocks))
    chosen = [blocks[round(len(blocks) * (k + 1) / count) - 1] for k in range(count)]
    inside = (call for call in layout.candidates if call.parents[-1:] == (blocks[-1],))
    norm = next((call.name for call in inside if "norm" in call.kind.lower()), None)
    chosen[-1] = norm or blocks[-2]
    return list(dict.fromkeys(chosen))
