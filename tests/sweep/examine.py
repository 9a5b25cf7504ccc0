"""What find_stages and LayerRegionCam make of a network, checked with plain hooks and plain autograd."""

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from families import Built
from helpers import dense_region_cam
from moving_patch import ALIKE, FEW, faults, share_elsewhere
from tape import Tape
from torch import Tensor, nn

from captum_regioncam import LayerRegionCam, Stages, find_stages

MOST_POSITIONS = 64 * 64
"""Of the finest stage, for the comparison with Region-CAM written out densely."""
REMEDY = re.compile(r"\b(attribute|call|choose|give|name|pass|run|try|use|wrap)\b", re.IGNORECASE)
"""A message that tells what to do has one of these words."""
PARTS = re.compile("norm|act|relu|gelu|silu|swish|tanh|sigmoid|drop|identity|pool|flatten|pad|scale", re.IGNORECASE)
"""Modules that only finish what another one computed."""

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
NUMBERS = {2: "two", 3: "three", 4: "four"}


@dataclass
class Findings:
    """What was found out about a network.

    Attributes:
        stages: as Stages describes them; empty if there are none.
        outcome: in plain words, for the table.
        faults: what is wrong.
        notes: what may be.
    """

    stages: str = ""
    outcome: str = ""
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def examine(built: Built, mixes: bool = False, head: str = "") -> Findings:
    """Find the stages of a network, attribute, and check both.

    Args:
        built: the network.
        mixes: whether it is known to mix all places while its weights are random, so that a stage may answer to all
            of them alike, and a few of its positions by chance more to another place.
        head: the module that the head begins with, if it still has the patches as tokens.

    Returns:
        What was found out.
    """
    found = Findings()
    try:
        stages = find_stages(built.model, *built.inputs(built.x))
    except Exception as error:
        found.outcome = f"no stages: {error}"
        found.faults += _faults_of_a_refusal(error)
        return found
    found.stages = stages.describe()
    look = _Look(built, stages, found, mixes)
    look.at_places()
    look.at_what_is_left_out()
    look.at_the_score()
    look.at_the_map()
    if not found.faults:
        look.for_later_features(head)
    several = sorted({times for times in look.tape.calls.values() if times > 1})
    found.outcome = "map" + "".join(f"; last call of {NUMBERS.get(times, times)}" for times in several)
    return found


def _faults_of_a_refusal(error: Exception) -> list[str]:
    message = str(error)
    if not isinstance(error, (TypeError, ValueError)):
        return [f"find_stages raises {type(error).__name__}: {message}"]
    unclear = {
        "has several lines": "\n" in message,
        "is not a sentence": not message.endswith("."),
        "names no remedy": not REMEDY.search(message),
    }
    return [f"the message {why}: {message}" for why, is_so in unclear.items() if is_so]


def _is_around(name: str, other: str) -> bool:
    """Return whether a module is, or has inside, another."""
    return f"{other}.".startswith(f"{name}.")


class _Look:
    """One network, its stages, and what is found out about them."""

    def __init__(self, built: Built, stages: Stages, found: Findings, mixes: bool) -> None:
        self.built, self.stages, self.found, self.mixes = built, stages, found, mixes
        self.inputs = built.inputs(built.x)
        self.tape = Tape(stages)
        self.target = 0
        self.pairs: list[tuple[Tensor, Tensor]] = []
        """Features and gradients of each stage, by plain autograd."""

    @torch.no_grad()
    def at_places(self) -> None:
        """Check with the moving patch that each stage says what is where."""
        unread: dict[str, str] = {}

        def read(x: Tensor) -> dict[str, Tensor]:
            inputs = self.built.inputs(x)
            tensors, _ = self.tape.run(lambda: self.built.model(*inputs))
            on_grid = {}
            for stage in self.stages.keys() - unread:
                try:
                    on_grid[stage] = self.tape.on_grid(stage, tensors[stage], inputs)
                except KeyError:
                    unread[stage] = "is never reached"
                except Exception as error:
                    unread[stage] = f"cannot be brought onto its grid: {error}"
            return on_grid

        for stage, tensor in read(torch.cat([self.built.x] * 2)).items():
            if len(tensor) != 2:
                unread[stage] = f"has {len(tensor)} examples for a batch of 2"
        reshaped = [stage for stage in self.stages if self.tape.is_reshaped(stage)]
        wrong = faults(read, self.built.x, reshaped)
        for stage, reason in {**unread, **wrong}.items():
            is_by_chance = reason == ALIKE or share_elsewhere(reason) < FEW
            (self.found.notes if self.mixes and is_by_chance else self.found.faults).append(f"{stage} {reason}")

    def at_what_is_left_out(self) -> None:
        """Check that no grid has lost an axis: one position on it, while as many tokens or more are left out."""
        tensors, _ = self.tape.run(lambda: self.built.model(*self.inputs))
        for stage, tensor in tensors.items():
            raw = tensor.detach().clone().requires_grad_()
            try:
                on_grid = self._on_grid(stage, raw)
                [used] = torch.autograd.grad(on_grid.sum(), raw)
            except RuntimeError:
                continue  # at_places has said so
            positions = on_grid[0, 0].numel()
            left_out = int((used == 0).sum()) // on_grid.shape[1]
            if 1 in on_grid.shape[2:] and left_out >= positions:
                self.found.faults.append(
                    f"{stage} is read as {' x '.join(map(str, on_grid.shape[2:]))}, and {left_out} tokens are left out"
                )

    def at_the_score(self) -> None:
        """Check with plain autograd that the score depends on each stage."""
        for parameter in self.built.model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        tensors, scores = self.tape.run(lambda: self.built.scores(*self.inputs))
        if scores.dim() != 2 or not scores.isfinite().all():
            self.found.faults.append(f"the sweep's scores are of shape {tuple(scores.shape)}, or not finite")
            return
        self.target = int(scores[0].argmax())  # not a score that a last ReLU sets to 0
        kept = {stage: tensor for stage, tensor in tensors.items() if tensor.requires_grad}
        gradients = torch.autograd.grad(scores[:, self.target].sum(), list(kept.values()), allow_unused=True)
        found = dict(zip(kept, gradients, strict=True))
        for stage, tensor in tensors.items():
            try:
                gradient = None if found.get(stage) is None else self._on_grid(stage, found[stage])
            except Exception:
                continue  # at_places has said so
            if gradient is None or not gradient.any():
                self.found.faults.append(f"the score does not depend on {stage}")
            else:
                self.pairs.append((self._on_grid(stage, tensor.detach()), gradient))

    def at_the_map(self) -> None:
        """Check that the map is finite, not constant, and that of Region-CAM written out densely."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                warnings.filterwarnings("ignore", "layer .* runs .* times")  # the outcome tells it
                tensors = tuple(takewhile(lambda value: isinstance(value, Tensor), self.inputs))
                others = self.inputs[len(tensors) :] or None
                attribution = LayerRegionCam(self.built.scores, self.stages).attribute(tensors, self.target, others)
        except Exception as error:
            self.found.faults.append(f"attribute raises {type(error).__name__}: {error}")
            return
        if not attribution.isfinite().all():
            self.found.faults.append("the map is not finite")
        elif attribution.max() - attribution.min() < 0.01:
            self.found.faults.append("the map is constant")
        finest = max((features[0, 0].numel() for features, _ in self.pairs), default=0)
        if not self.found.faults and finest <= MOST_POSITIONS:
            off = (dense_region_cam(self.pairs) - attribution).abs().max()
            if off > 5e-3:
                self.found.faults.append(f"the map is {off:.2g} off Region-CAM written out")

    def for_later_features(self, head: str = "") -> None:
        """Check that no block between the deepest stage and the head also says what is where, and leads to the score.

        For a score that is itself made of a map, such as a segmentation network's, there is no such head, and what
        comes later is only noted. So are single layers, and what lies in the stage's own block or around it.
        """
        stage = list(self.stages)[-1]
        module = stage.removesuffix(" (input)")
        outputs, scores = self._outputs(self.inputs)
        order = list(outputs)
        if module not in order:
            return
        later: dict[str, Tensor] = {}
        computed: list[str] = []
        for name in order[order.index(module) + 1 :]:
            one, output = self.built.model.get_submodule(name), outputs[name]
            if PARTS.search(type(one).__name__) or isinstance(one, CONTAINERS):
                continue
            if next(one.children(), None) is None and next(one.parameters(), None) is not None:
                computed.append(name)
            computes = any(_is_around(name, leaf) for leaf in computed)  # and does not only pass on
            if output is None or len(output) != 1 or not output.requires_grad or not computes:
                continue
            if self._alike(stage, output, self.inputs) is not None:
                later[name] = output
        around = [name for name in later if _is_around(name, module)]
        beside = [name for name in later if name not in around]
        beside = [name for name in beside if not any(up != name and _is_around(up, name) for up in beside)]
        later = {name: later[name] for name in (*around[:1], *beside[-3:])}
        if not later:
            return
        gradients = torch.autograd.grad(scores[:, self.target].sum(), list(later.values()), allow_unused=True)
        leading = [
            name
            for name, gradient in zip(later, gradients, strict=True)
            if gradient is not None and self._alike(stage, gradient, self.inputs).any()
        ]
        with torch.no_grad():  # without position embeddings and the like, which are the same for every example
            of_two, _ = self._outputs(self.built.inputs(torch.cat([self.built.x] * 2)))
        leading = [name for name in leading if len(of_two[name]) == 2]
        if not leading:
            return

        @torch.no_grad()
        def read(x: Tensor) -> dict[str, Tensor]:
            inputs = self.built.inputs(x)
            outputs, _ = self._outputs(inputs)
            return {name: self._alike(stage, outputs[name], inputs) for name in leading}

        wrong = faults(read, self.built.x)
        block = self._block_around(module)
        pooled = [name for name, output in outputs.items() if output is not None and output.dim() <= 2] + [head]
        for name in leading:
            if name not in wrong:
                is_near = _is_around(name, module) or (block and _is_around(block, name))
                in_head = any(up and _is_around(up, name) and not _is_around(up, module) for up in pooled)
                is_layer = self._is_single_layer(name, module, computed)
                in_a_stage = any(_is_around(one.removesuffix(" (input)"), name) for one in self.stages)
                debatable = is_near or in_head or is_layer or in_a_stage or self.built.dense
                (self.found.notes if debatable else self.found.faults).append(f"{name} comes after {stage}")

    def _is_single_layer(self, name: str, module: str, computed: list[str]) -> bool:
        """Return whether a layer stands alone after a module, or in a block of another kind, such as a head."""
        if next(self.built.model.get_submodule(name).children(), None) is not None:
            return False
        block = self._block_around(name)
        if block and not _is_around(block, module):
            return True
        parts = name.split(".")
        ups = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        unit = next(up for up in ups if not _is_around(up, module))
        return sum(_is_around(unit, leaf) for leaf in computed) < 2

    def _block_around(self, name: str) -> str:
        """Return the innermost module around a module that is no plain container; empty if that is the network."""
        while name := name.rpartition(".")[0]:
            if not isinstance(self.built.model.get_submodule(name), CONTAINERS):
                break
        return name

    def _on_grid(self, stage: str, tensor: Tensor) -> Tensor:
        return self.tape.on_grid(stage, tensor, self.inputs)

    def _outputs(self, inputs: tuple[Any, ...]) -> tuple[dict[str, Tensor | None], Tensor]:
        """Return what each module gives in its last call, in the order in which the calls end, and the scores."""
        outputs: dict[str, Tensor | None] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                outputs.pop(name, None)
                first = output[0] if isinstance(output, (tuple, list)) and output else output
                outputs[name] = first if isinstance(first, Tensor) and first.is_floating_point() else None

            return hook

        hooks = [one.register_forward_hook(keep(name)) for name, one in self.built.model.named_modules() if name]
        try:
            scores = self.built.scores(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs, scores

    def _alike(self, stage: str, tensor: Tensor, inputs: tuple[Any, ...]) -> Tensor | None:
        """Bring a tensor onto the stage's grid or a coarser one, in whichever layout it is; None if it has none.

        The layouts are the stage's own, channels first or last, and tokens, with any others before the patches.
        """
        grid = tuple(self.pairs[-1][0].shape[2:])
        if tensor.dim() == 3 and len(grid) > 1:
            coarser = [tuple(-(-side // step) for side in grid) for step in (1, 2, 4, 8)]
            for one in coarser:
                others = tensor.shape[1] - math.prod(one)
                if others == 0 or (one == grid and 0 < others < math.prod(grid)):
                    return tensor[:, others:].transpose(1, 2).unflatten(2, one)
        try:
            on_grid = self.tape.on_grid(stage, tensor, inputs)
        except Exception:
            on_grid = tensor
        for one in (on_grid, tensor, tensor.movedim(-1, 1) if tensor.dim() > 1 else tensor):
            if one.dim() == 2 + len(grid) and all(a <= b for a, b in zip(one.shape[2:], grid, strict=True)):
                return one if one[0, 0].numel() > 1 else None
        return None
