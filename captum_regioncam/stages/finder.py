"""Finding a network's stages, which end each resolution, from a few passes over a probe."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import DataParallel, Module

from captum_regioncam.network.outputs import describe, layer_name
from captum_regioncam.network.reshape import ReshapeTransform, TokensToGrid
from captum_regioncam.stages.choice import Choice, choose
from captum_regioncam.stages.layouts import Layout, Reading
from captum_regioncam.stages.probe import Observation, observe

__all__ = ["Stages", "find_stages", "stages_at"]


class Stages(Mapping[str, Module]):
    r"""The stages that :func:`find_stages` found: {dotted name: module}, shallow to deep. It cannot be changed.

    Args:
        modules: {dotted name: module}, shallow to deep.
        reshape_transform: see the attribute.
        at_input: see the attribute.

    Attributes:
        reshape_transform: turns the modules' tensors into (N, C, \*grid) if they have another layout, such as the
            tokens of a transformer; otherwise None. If the stages have several layouts, such as convolutions and then
            tokens, it is a mapping {name: function} of those that need one.
        at_input: the names of the stages that are their module's input, not its output. If an activation is called as a
            function, or is shared, its output shows only in the input of the next convolution or pooling. If the input
            and the output of a module are both stages, the one at the input is named "name (input)".

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
        reshape_transform: ReshapeTransform | Mapping[str, ReshapeTransform] | None = None,
        at_input: Iterable[str] = (),
    ) -> None:
        self._modules = dict(modules)
        self._reshape_transform = reshape_transform
        self._at_input = frozenset(at_input)

    @property
    def reshape_transform(self) -> ReshapeTransform | Mapping[str, ReshapeTransform] | None:  # noqa: D102  # told in the class
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
        """Return the names as text, separated by commas, with "(input)" after stages that are their module's input."""
        return ", ".join(name.removesuffix(" (input)") + " (input)" * (name in self.at_input) for name in self)


def find_stages(model: Module, *inputs: Any, min_stride: int = 2) -> Stages:
    r"""Find a network's stages, shallow to deep: the features that say what is where at each resolution.

    A few passes over a probe show which module gives features where. The probe is noise, of 224 x 224 positions (4,096
    for signals, 48 x 48 x 48 for volumes), so that the stages do not depend on the first photo. The first example of
    ``inputs`` takes its place if the network does not take inputs of that size, has lazy modules, or changes its
    buffers or other tensors that it keeps. For each axis of the grid, there is one forward pass on five examples: the
    probe, and the probe with each quarter along that axis changed. One more forward pass and a backward pass, on the
    probe alone, show what the scores depend on.

    What is measured, not assumed:

    - **Layout.** A tensor's positions answer most to changes at their own places. This shows which of its dimensions
      are the grid: channels first, channels last, or tokens, and how many tokens lie before and after the patches.
      Tensors whose positions answer to other places (shuffled tokens), or to nothing (position embeddings), are left
      out. If positions answer to all places alike, as deep in a network with random weights, their shape decides.
    - **Dependence.** Only what the scores depend on is a stage: neither an auxiliary head, nor what lies before a
      ``detach()``. Tokens are a stage only if their patches, and not just the class token, have gradients. If there are
      several outputs, the first of them holds the scores, as for ``class_scores``.

    The network is left as it was: lazy modules stay lazy (a copy is watched), and the modules' attributes, including
    training modes and caches, are restored. Threads take turns, also with threads that attribute. But a thread that
    runs the network directly meanwhile runs it in evaluation mode. Your own hooks run, including backward hooks.

    Grids count as one resolution if the axis that was halved most is nearest to the same halving (112 and 113 of 224).
    At each resolution, the block that ends it is taken: the last of the modules that are least deep inside other
    blocks. What a later block does before it reduces the resolution does not count, and neither do pooling, padding,
    dropout and identity modules. Modules that run more than once count, with their last call, only if there are no
    others.

    - The block's **rectified features** are the stage: its own output, if it ends in a ReLU; else the output of a ReLU
      that follows it; else the widest rectified features inside it, such as the input of the projection in a linear
      bottleneck (MobileNetV2). If a ReLU is called as a function, or is one module that runs many times, the next
      module's *input* shows its output; ``at_input`` names such stages. A block without rectified features (SiLU, GELU)
      is taken as it is.
    - If one resolution has more blocks than any other, and they end in rectified features, its **middle** block is a
      stage too.
    - A **map of the scores** (SqueezeNet's classifier, a segmentation network's logits) joins the last features.

    Transformers are read in the same way: pyramids such as Swin by the last block of each resolution. If all blocks
    have one resolution (plain vision transformers, behind a stem of convolutions or not), four evenly spaced ones are
    taken. Of the last block, the first norm is taken: the patches after the last attention do not reach a class token,
    so their gradient is zero. If blocks give several tensors, their norms stand in for them.

    Args:
        model: the network. For a DataParallel model, the module inside is watched.
        inputs: one batch as the model takes it; the first tensor with spatial dimensions sets the scale.
        min_stride: the finest resolution to include, as input size over output size, rounded up to a power of two.
            Stride 2 already shows the object's edges; 1 adds the input's own resolution if the network computes there.

    Returns:
        ``{dotted name: module}``, from the finest to the coarsest resolution, with the ``reshape_transform`` that the
        modules need. If both the input and the output of a module are stages, the first is named "name (input)". Pass
        it to :class:`~captum_regioncam.LayerRegionCam` as ``layer``.

    Raises:
        TypeError: ``model`` is not a module, or is TorchScript.
        ValueError: ``inputs`` has no batch of images, volumes or signals, ``min_stride`` is below 1, the model has lazy
            modules and cannot be copied, or no stage is found: no features on a grid, none in their places, or none
            that the scores depend on; the message says which.

    Example::

        >>> list(find_stages(torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224)))
        ['relu', 'layer1', 'layer2', 'layer3.2', 'layer3', 'layer4']
    """
    like = _checked(model, inputs)
    if min_stride < 1:
        raise ValueError(f"min_stride={min_stride}: a stride is 1 or more.")
    seen = observe(model, inputs, like)
    found, layout = _choose(seen, math.ceil(math.log2(min_stride)))
    if not found:
        raise ValueError(f"find_stages: {_why_none(type(model).__name__, layout, min_stride)}")
    return _stages(model, layout, found)


def stages_at(model: Module, *inputs: Any, names: Iterable[str]) -> Stages:
    """Find out how to read the layers with these names, as :func:`find_stages` does.

    Args:
        model: the network.
        inputs: one batch as the model takes it.
        names: dotted names of modules.

    Returns:
        The layers. Those whose tensors are not on a grid that can be recognised have no ``reshape_transform``.

    Raises:
        TypeError: as in ``find_stages``.
        ValueError: as in ``find_stages``; or the positions of a layer do not answer to their own places.
    """
    seen = observe(model, inputs, _checked(model, inputs))
    layout = Layout(seen.calls, seen.shape, 0, seen.is_measured)
    calls = {call.name: call for call in seen.calls}
    known = {name: calls[name] for name in names if name in calls and calls[name].shape in layout.readings}
    for name, call in known.items():
        if seen.is_measured and call not in layout.in_place and call.computes:
            raise ValueError(
                f"layer {name} does not say what is where: a change at one place of the input does not show most at "
                "the same place of its output, as if its tokens were shuffled. Choose another layer, or give the "
                "layer's layout."
            )
    transforms = {name: layout.readings[call.shape].reshape_transform for name, call in known.items()}
    modules = {name: model.get_submodule(name) for name in names}
    return Stages(modules, {name: transform for name, transform in transforms.items() if transform is not None})


def _checked(model: Module, inputs: Sequence[Any]) -> Tensor:
    """Check the arguments of find_stages, and return the input that has a grid."""
    if not isinstance(model, Module):
        raise TypeError(f"model: find_stages expects a torch.nn.Module, got {type(model).__name__}.")
    scripted = next((module for module in model.modules() if isinstance(module, torch.jit.ScriptModule)), None)
    if scripted is not None:
        name = layer_name(scripted, model)
        raise TypeError(f"model: {name} is TorchScript, which runs without hooks; give the eager model.")
    like = next((value for value in inputs if isinstance(value, Tensor) and 3 <= value.dim() <= 5), None)
    if like is None:
        got = ", ".join(map(describe, inputs)) or "nothing"
        raise ValueError(
            f"inputs: find_stages expects the model's inputs, one of them of shape (N, C, *grid); got {got}. If the "
            "model takes signals of shape (N, samples), wrap it in a module that takes (N, 1, samples)."
        )
    return like


def _choose(seen: Observation, lowest_octave: int) -> tuple[list[Choice], Layout]:
    """Choose among the modules that run once; if there is nothing to choose, among the last calls of all."""
    times = Counter(call.name for call in seen.calls)
    once = [call for call in seen.calls if times[call.name] == 1]
    last = {call.name: call for call in seen.calls if call.is_reached is not False}
    layouts = [
        Layout(calls, seen.shape, lowest_octave, seen.is_measured)
        for calls in (once, [call for call in seen.calls if last.get(call.name) is call])
    ]
    chosen = ((choose(layout, seen.scores), layout) for layout in layouts)
    return next((found for found in chosen if found[0]), ([], layouts[0]))


def _stages(model: Module, layout: Layout, found: Sequence[Choice]) -> Stages:
    """Name the stages. A module that is wanted at both ends gets two names."""
    prefix = "module." if isinstance(model, DataParallel) else ""
    outputs = {choice.call.name for choice in found if not choice.at_input}
    modules, readings, at_input = {}, {}, []
    for choice in found:
        name = key = prefix + choice.call.name
        if choice.at_input:
            key += " (input)" * (choice.call.name in outputs)
            at_input.append(key)
        modules[key] = model.get_submodule(name)
        readings[key] = layout.readings[choice.shape]
    return Stages(modules, _shared(readings), at_input)


def _shared(readings: Mapping[str, Reading]) -> ReshapeTransform | Mapping[str, ReshapeTransform] | None:
    """Return one transform for all stages if that is possible, or else the transforms of the stages that need one."""
    own = {name: reading.reshape_transform for name, reading in readings.items()}
    finest = next(iter(own.values()))
    for name, reading in readings.items():  # the tokens of a pyramid: the proportions are the same at all its stages
        if isinstance(finest, TokensToGrid) and finest.gives(reading.grid, own[name]):
            own[name] = finest
    if all(transform == finest for transform in own.values()):
        return finest
    return {name: transform for name, transform in own.items() if transform is not None}


def _why_none(name: str, layout: Layout, min_stride: int) -> str:
    """Say why a network has no stages, and what to do."""
    size = " x ".join(map(str, layout.shape[2:]))
    yourself = "name the layers yourself, with a reshape_transform if they give tokens or channels-last tensors"
    if layout.in_place:
        few = ", ".join(call.name for call in layout.in_place[-3:])
        return (
            f"the scores of {name} do not depend on its features on a grid ({few}, ...) through differentiable "
            "operations. Give find_stages the network that computes the scores, without detach() or no_grad()."
        )
    finer = {shape for shape, reading in layout.readings.items() if reading.octave < layout.lowest_octave}
    if names := [call.name for call in layout.calls if call.name and call.answers and call.shape not in finer]:
        return (
            f"no features of {name} say what is where: a change at one place of the input does not show most at the "
            f"same place of any of them ({', '.join(names[-3:])}, ...), as if tokens were shuffled, or each position "
            f"saw everything. Explain it with a method that needs no grid, or {yourself}."
        )
    return (
        f"no module of {name} gives features on a grid, such as (N, C, *grid) or tokens, at stride {min_stride} or "
        f"more for an input of {size} positions. Region-CAM explains networks that keep the places of their input, "
        f"such as convolutional networks and vision transformers. Try min_stride=1, or {yourself}."
    )
