"""Which tensors of a network say what is where: rectified features, a block amid many, the score map, tokens."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from captum_regioncam.stages.layouts import Layout
from captum_regioncam.stages.watch import Call

__all__ = ["Choice", "choose"]

_FEWEST_BLOCKS = 3
_TRANSFORMER_STAGES = 4


@dataclass(frozen=True)
class Choice:
    """A call whose output, or with ``at_input`` whose input, is a stage."""

    call: Call
    at_input: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the stage's tensor."""
        return self.call.input_shape if self.at_input else self.call.shape


def choose(layout: Layout, scores: int | None) -> list[Choice]:
    r"""Choose the stages of a network, shallow to deep.

    For (N, C, \*grid) tensors, the stages are the rectified features that end each resolution and, at the resolution
    that has more blocks than any other, the middle block, if its blocks end in rectified features. For channels-last
    tensors and tokens, they are what ends each resolution or, if there is only one resolution, evenly spaced blocks. A
    map of the scores is a stage, too.

    Args:
        layout: how to read the network.
        scores: how many scores the network gives; None if that is not known.
    """
    score_map = _score_map(layout, scores)
    blocks = _transformer_blocks(layout)
    ends = _ends(layout, [call for call in layout.candidates if call not in score_map], blocks)
    rectified_blocks = {octave: _rectified_blocks(layout, end) for octave, end in ends.items()}
    most = max(map(len, rectified_blocks.values()), default=0)
    fullest = [octave for octave, alike in rectified_blocks.items() if len(alike) == most >= _FEWEST_BLOCKS]
    chosen: list[Choice] = []
    for octave, end in ends.items():
        own = blocks.get(octave, [])
        if len(own) > 1 and list(blocks) == [max(ends)] and not (layout.is_channels_first(end) and own[0].is_innermost):
            chosen += _evenly_spaced(layout, own, end)
        elif layout.is_channels_first(end):
            if fullest == [octave]:
                chosen.append(Choice(rectified_blocks[octave][(most - 1) // 2]))
            chosen.append(_rectified(layout, end))
        else:
            chosen.append(Choice(end))
        if score_map and layout.octave(score_map[-1].shape) == octave:
            rectified = [call for call in score_map if call.rectified]
            chosen.append(Choice((rectified or score_map)[-1]))
    return list(dict.fromkeys(chosen))


def _ends(layout: Layout, candidates: list[Call], blocks: Mapping[int, list[Call]]) -> dict[int, Call]:
    """Return the call that ends each resolution; for tokens in blocks, it is a block.

    Calls inside a block of tokens that work at another resolution, as in some attentions, end no resolution. Neither do
    calls that are deeper inside blocks than features that are not in place.
    """
    octaves = {call.name: octave for octave, group in blocks.items() for call in group}
    ends = layout.ends_among(
        call
        for call in candidates
        if all(octaves.get(name, layout.octave(call.shape)) == layout.octave(call.shape) for name in call.parents)
    )
    natural = layout.natural_ends
    ends = {octave: end for octave, end in ends.items() if layout.depth(end) <= layout.depth(natural[octave])}
    for octave, group in blocks.items():
        last = group[-1] if group[-1] in candidates else _first_norm(layout, group[-1])
        if last and (octave not in ends or last.started >= ends[octave].ended):
            ends[octave] = last
    blocks_at = {
        call.name: at
        for call in layout.calls
        if call.name not in layout.trunks and (at := layout.octave(call.shape)) is not None
    }
    return {
        octave: end
        for octave, end in sorted(ends.items())
        if all(blocks_at.get(name, octave) >= octave for name in end.parents)
    }


def _score_map(layout: Layout, scores: int | None) -> list[Call]:
    """Find the consecutive calls after the last features that give a map of the scores: one channel for each score."""
    candidates = layout.candidates
    scored = [
        call
        for call in candidates
        if layout.channels(call) == scores
        and (layout.is_channels_first(call) or (call.is_linear and not layout.depth(call)))  # a head over tokens
    ]
    features = layout.ends_among(call for call in candidates if call not in scored)
    if not features:
        return []
    last = max(features.values(), key=candidates.index)
    found: list[Call] = []
    for call in candidates[candidates.index(last) + 1 :]:
        if call in scored and call.name not in last.parents and layout.octave(call.shape) in features:
            found.append(call)
        elif found:
            break
    return found


def _rectified_blocks(layout: Layout, end: Call) -> list[Call]:
    """List the blocks of a resolution: the one that ends it (or the last one inside that) and its like.

    The list is empty if a block does not end in rectified features.
    """
    block, children = end, _children(layout.candidates, end)
    while block.is_sequential and children and _children(layout.candidates, children[-1]):
        block = children[-1]
        children = _children(layout.candidates, block)
    octave = layout.octave(block.shape)
    alike = [
        call
        for call in layout.candidates
        if (call.kind, len(call.parents)) == (block.kind, len(block.parents)) and layout.octave(call.shape) == octave
    ]
    return alike if all(call.rectified for call in alike) else []


def _transformer_blocks(layout: Layout) -> dict[int, list[Call]]:
    """List the blocks of tokens or channels-last tensors at each resolution: modules of one kind beside each other.

    Their names differ by numbers alone. If there are none, because each gives several tensors, their norms stand in.
    """
    tokens = [call for call in layout.in_place if not layout.is_channels_first(call)]
    parts = [call for call in tokens if not call.is_innermost]
    rows = Counter((_role(call), call.parents) for call in parts)
    longest: Counter[tuple[str, str]] = Counter()
    for (role, _), length in rows.items():
        longest[role] = max(longest[role], length)
    blocks = [call for call in parts if longest[_role(call)] > 1]
    blocks = blocks or [call for call in tokens if call.is_innermost and "norm" in call.kind.lower()]
    groups: dict[tuple[int, tuple[str, str]], list[Call]] = defaultdict(list)
    for call in blocks:
        groups[layout.readings[call.shape].octave, _role(call)].append(call)
    ranks: dict[int, tuple[int, int]] = {}
    chosen: dict[int, list[Call]] = {}
    for (octave, role), group in groups.items():  # those of the longest row, then the least deep, then the last
        rank = longest[role] or len(group), -len(group[0].parents)
        if octave not in ranks or rank >= ranks[octave]:
            ranks[octave], chosen[octave] = rank, group
    return chosen


def _role(call: Call) -> tuple[str, str]:
    """Return what calls of the same kind at the same place in other blocks have in common."""
    return call.kind, re.sub(r"\d+", "#", call.name)


def _evenly_spaced(layout: Layout, blocks: list[Call], end: Call) -> list[Choice]:
    """Take blocks of a plain transformer, all of whose tokens or channels-last tensors have one resolution.

    If features of another kind end it (a neck of convolutions), these come last.
    """
    count = min(_TRANSFORMER_STAGES, len(blocks))
    chosen = [blocks[round(len(blocks) * (k + 1) / count) - 1] for k in range(count)]
    chosen[-1] = _first_norm(layout, blocks[-1]) or blocks[-2]
    if layout.is_channels_first(end) and end.started >= blocks[-1].ended:
        chosen.append(end)
    return [Choice(call) for call in dict.fromkeys(chosen) if call in layout.candidates]


def _first_norm(layout: Layout, block: Call) -> Call | None:
    """Return the first norm of a block, after which the patches still reach a class token through the attention."""
    inside = block.parents[-1:] if block.is_innermost else (block.name,)
    norms = (call for call in layout.candidates if call.parents[-1:] == inside and call.shape == block.shape)
    return next((call for call in norms if "norm" in call.kind.lower()), None)


def _rectified(layout: Layout, end: Call) -> Choice:
    """Choose the rectified features of the block that ends a resolution.

    They are its output; else what an activation makes of its output; else the widest features inside it, the last if
    there are several; else the last features beside it. A block without rectified features is taken as it is.
    """
    if end.rectified:
        return Choice(end)
    block, octave = end, layout.octave(end.shape)
    while block.name in layout.trunks and (parts := _children(layout.candidates, block)):
        block = parts[-1]
    if block.rectified:
        return Choice(block)
    if (after := _activation_after(layout, block)) is not None:
        return after
    if inside := _rectified_inside(layout, block):
        return inside
    beside = [
        call
        for call in layout.candidates
        if layout.octave(call.shape) == octave and call.rectified and call.parents == block.parents
    ]
    return Choice((beside or [end])[-1])


def _rectified_inside(layout: Layout, block: Call) -> Choice | None:
    """Choose the widest rectified features in the last part of a block that has any; of equal ones, the last."""
    parts = [call for call in layout.calls if call.parents == (*block.parents, block.name)]
    if parts and not parts[-1].is_innermost and (inside := _rectified_inside(layout, parts[-1])):
        came_in = inside.at_input and inside.call.started == parts[-1].started
        if not came_in:
            return inside
    octave = layout.octave(block.shape)
    # By width, then by time. For one tensor, a module's output comes before the next module's input, and the outermost
    # module comes first.
    found: dict[tuple[int, int, bool, int], Choice] = {}
    for call in layout.candidates:
        is_inside = block.name in call.parents and layout.octave(call.shape) == octave
        if is_inside and call.rectified and layout.is_channels_first(call):
            found[call.shape[1], call.ended, True, -len(call.parents)] = Choice(call)
    for call in layout.calls:
        is_inside = block.name in call.parents and call.computes
        if is_inside and call.input_rectified and _takes_features(layout, call, octave):
            found[call.input_shape[1], call.started, False, -len(call.parents)] = Choice(call, at_input=True)
    return found[max(found)] if found else None


def _takes_features(layout: Layout, call: Call, octave: int | None) -> bool:
    """Return whether a call's input is on the grid of a resolution, channels first, on the way to the scores."""
    reading = layout.readings.get(call.input_shape)
    on_grid = reading is not None and reading.octave == octave and reading.reshape_transform is None
    return on_grid and call.is_reached is not False


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
            return Choice(call, at_input=True) if call.is_reached is not False else None
        if call.is_innermost and call.rectified and call.shape == block.shape:
            return Choice(call) if call.is_reached is not False else None
        if call.is_innermost and call.has_parameters and "norm" not in call.kind.lower():
            return None
    return None


def _children(calls: Iterable[Call], parent: Call) -> list[Call]:
    # The whole path is compared, so that a child is always deeper than its parent, and going down ends.
    return [call for call in calls if call.parents == (*parent.parents, parent.name)]
