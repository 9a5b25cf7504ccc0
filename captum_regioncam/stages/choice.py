"""Which tensors of a convolutional network say what is where: rectified features, a block amid many, the score map."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from captum_regioncam.stages.layouts import Layout
from captum_regioncam.stages.watch import Call

__all__ = ["Choice", "choose"]

_AUXILIARY = re.compile(r"(^|\.)aux", re.IGNORECASE)
_FEWEST_BLOCKS = 3


@dataclass(frozen=True)
class Choice:
    """A module whose output, or with ``at_input`` whose input, is a stage."""

    name: str
    at_input: bool = False


def choose(layout: Layout, scores: int | None) -> list[Choice]:
    r"""Choose the stages of a network of (N, C, \*grid) tensors, shallow to deep.

    They are: the rectified features that end each resolution; at the resolution that has more blocks than any other,
    also the middle block, if its blocks end in rectified features; and, besides the last features, a map of the scores.

    Args:
        layout: how the network is read.
        scores: how many scores the network gives; None if that is not known.
    """
    candidates = [call for call in layout.candidates if not _AUXILIARY.search(call.name)]
    score_map = _score_map(layout, candidates, scores)
    ends = layout.ends_among(call for call in candidates if call not in score_map)
    blocks = {octave: _blocks(layout, candidates, end) for octave, end in ends.items()}
    most = max(map(len, blocks.values()), default=0)
    fullest = [octave for octave, alike in blocks.items() if len(alike) == most >= _FEWEST_BLOCKS]
    chosen: list[tuple[Choice, Choice]] = []  # with the choice that replaces it if a module is chosen twice
    for octave, end in ends.items():
        if fullest == [octave]:
            chosen.append((middle := Choice(blocks[octave][(most - 1) // 2].name), middle))
        chosen.append((_rectified(layout, end), Choice(end.name)))
        if score_map and layout.octave_of(score_map[-1].shape) == octave:
            rectified = [call for call in score_map if call.rectified]
            chosen.append((scored := Choice((rectified or score_map)[-1].name), scored))
    outputs = {choice.name for choice, _ in chosen if not choice.at_input}
    return [instead if choice.at_input and choice.name in outputs else choice for choice, instead in chosen]


def _score_map(layout: Layout, candidates: list[Call], scores: int | None) -> list[Call]:
    """Find the consecutive calls after the last features that give a map of the scores: one channel for each score."""
    features = layout.ends_among(call for call in candidates if call.shape[1] != scores)
    if not features:
        return []
    last = max(features.values(), key=candidates.index)
    found: list[Call] = []
    for call in candidates[candidates.index(last) + 1 :]:
        if call.shape[1] == scores and call.name not in last.parents and layout.octave_of(call.shape) in features:
            found.append(call)
        elif found:
            break
    return found


def _blocks(layout: Layout, candidates: list[Call], end: Call) -> list[Call]:
    """List the blocks of a resolution: the one that ends it (or the last one inside that) and its like.

    The list is empty if a block does not end in rectified features.
    """
    block, children = end, _children(candidates, end)
    while block.is_sequential and children and _children(candidates, children[-1]):
        block = children[-1]
        children = _children(candidates, block)
    octave = layout.octave_of(block.shape)
    alike = [
        call
        for call in candidates
        if (call.kind, len(call.parents)) == (block.kind, len(block.parents)) and layout.octave_of(call.shape) == octave
    ]
    return alike if all(call.rectified for call in alike) else []


def _rectified(layout: Layout, end: Call) -> Choice:
    """Choose the rectified features of the block that ends a resolution.

    They are its output; else what an activation makes of its output; else the widest features inside it, the last of
    them if there are several; else the last features beside it. A block without any is taken as it is.
    """
    if end.rectified:
        return Choice(end.name)
    block, octave = end, layout.octave_of(end.shape)
    while block.name in layout.trunks and (parts := _children(layout.candidates, block)):
        block = parts[-1]
    if block.rectified:
        return Choice(block.name)
    if (after := _activation_after(layout, block)) is not None:
        return after
    # By width, then by time. For one tensor, a module's output comes before the next module's input, and the outermost
    # module comes first.
    inside: dict[tuple[int, int, bool, int], Choice] = {}
    for call in layout.calls:
        if block.name in call.parents and call.computes:
            if call.rectified and layout.octave_of(call.shape) == octave:
                inside[call.shape[1], call.ended, True, -len(call.parents)] = Choice(call.name)
            if call.input_rectified and layout.octave_of(call.input_shape) == octave:
                inside[call.input_shape[1], call.started, False, -len(call.parents)] = Choice(call.name, at_input=True)
    if inside:
        return inside[max(inside)]
    beside = [
        call
        for call in layout.candidates
        if call.rectified and call.parents == block.parents and layout.octave_of(call.shape) == octave
    ]
    return Choice((beside or [end])[-1].name)


def _activation_after(layout: Layout, block: Call) -> Choice | None:
    """Choose what an activation makes of a block's output, perhaps after a normalisation.

    If the activation is called as a function, or is a module that runs several times, the next module's input shows
    its output.
    """
    later = [call for call in layout.calls if call.started >= block.ended and call.name not in block.parents]
    for call in sorted(later, key=lambda call: (call.started, len(call.parents))):
        if call.input_shape != block.shape:
            return None
        if call.input_rectified:
            return Choice(call.name, at_input=True)
        if call.is_innermost and call.rectified and call.shape == block.shape:
            return Choice(call.name)
        if call.is_innermost and call.has_parameters and "norm" not in call.kind.lower():
            return None
    return None


def _children(calls: Iterable[Call], parent: Call) -> list[Call]:
    # By the whole path: whatever the calls say, a child is deeper than its parent, so that going down comes to an end.
    return [call for call in calls if call.parents == (*parent.parents, parent.name)]
