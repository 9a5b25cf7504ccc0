"""How to read a network's tensors: which dimensions are the grid, and which calls end each resolution."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from captum_regioncam.network.reshape import ReshapeTransform, TokensToGrid, channels_last, nearest_grid
from captum_regioncam.stages.places import BANDS, are_in_place, at_own_place, sharpness
from captum_regioncam.stages.watch import Call

__all__ = ["Layout", "Reading"]

_MOST_EXTRA_TOKENS, _FEW_EXTRA_TOKENS = 32, 2  # where no other tensor shows the grid
_CLEAR = 0.4  # the share of what positions answer to one of four bands
_FEW_CALLS = 3  # of one shape: those that tell best how it is to be read

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    r"""How to read tensors of one shape.

    Attributes:
        grid: the number of positions along each axis.
        octave: how many times the input's grid has been halved, along the axis that has been halved most.
        reshape_transform: turns the tensor into (N, C, \*grid); None if it has that layout already.
    """

    grid: Shape
    octave: int
    reshape_transform: ReshapeTransform | None = None

    def along(self, per_dimension: Sequence[Tensor], axis: int) -> Tensor:
        """Return what is known of a tensor by each of its dimensions, as the grid has it.

        It is (n, positions along an axis), or, of tokens, (n, positions along the axis, positions beside each other).
        """
        transform = self.reshape_transform
        if isinstance(transform, TokensToGrid):
            on_grid = transform.on_grid(per_dimension[0][..., None], self.grid)  # (n, 1, *grid)
            return on_grid.movedim(2 + axis, 1).flatten(2)
        return per_dimension[axis if transform is channels_last else 1 + axis]

    def score(self, call: Call) -> float:
        """Score how far the positions answer to their own places, by the axis that does so least."""
        return min(at_own_place(self.along(call.answers[axis], axis)) for axis in self._axes)

    def are_in_place(self, call: Call) -> bool | None:
        """Return whether all positions answer to their own places; None if they answer to all places alike."""
        long = [axis for axis in self._axes if self.grid[axis] >= BANDS]  # the others are too short to tell
        told = {axis: are_in_place(self.along(call.answers[axis], axis)) for axis in long}
        if False in told.values() or any(
            told.get(axis) is None and self._are_elsewhere(call, axis) for axis in self._axes
        ):
            return False
        return True if told and all(told.values()) else None

    def is_of_several_grids(self, call: Call) -> bool:
        """Return whether a call gives the tokens of several resolutions together, whose numbers the input's size sets.

        The tokens beside the patches are then as many as those of coarser grids, and tell places apart as patches do.
        """
        transform = self.reshape_transform
        if not isinstance(transform, TokensToGrid) or not transform.prefix_tokens + transform.suffix_tokens:
            return False
        first, last = transform.prefix_tokens, call.shape[1] - transform.suffix_tokens
        coarser = (math.prod(-(-side // 2**times) for side in self.grid) for times in range(1, 5))
        if call.shape[1] - (last - first) not in accumulate(coarser):
            return False

        tokens = [answers[0] for answers in call.answers.values()]
        beside = min(sharpness(torch.cat([one[:, :first], one[:, last:]], 1)) for one in tokens)
        patches = min(sharpness(one[:, first:last]) for one in tokens)
        return beside - 1 / BANDS > (patches - 1 / BANDS) / 2

    def _are_elsewhere(self, call: Call, axis: int) -> bool:
        """Return whether what answers to the bands along an axis are the positions along another one."""
        own, *others = (
            sharpness(self.along(call.answers[axis], other)) for other in sorted(self._axes, key=axis.__ne__)
        )
        is_tokens = isinstance(self.reshape_transform, TokensToGrid)
        return not is_tokens and own < _CLEAR < max(others, default=0)

    @property
    def _axes(self) -> list[int]:
        return [axis for axis, size in enumerate(self.grid) if size > 1]

    def is_explained(self, call: Call) -> bool:
        """Return whether the score depends on the positions, and not only on tokens beside them."""
        if call.is_reached is False:
            return False
        if not isinstance(self.reshape_transform, TokensToGrid) or not call.gradient or not call.gradient[0].any():
            return True
        return bool(self.along(call.gradient, 0).any())


@dataclass
class Layout:
    r"""The calls of a network, and how to read what they give.

    Attributes:
        calls: the calls that may be taken, in the order in which they end.
        shape: (N, C, \*grid) of the input that sets the scale.
        lowest_octave: the lowest octave of the stages.
        is_measured: whether the calls tell how they answer to the input. Otherwise, only (N, C, \*grid) tensors whose
            axes were all halved equally are read.
    """

    calls: Sequence[Call]
    shape: Shape
    lowest_octave: int = 1
    is_measured: bool = True

    def is_channels_first(self, call: Call) -> bool:
        r"""Return whether a call gives (N, C, \*grid)."""
        reading = self.readings.get(call.shape)
        return reading is not None and reading.reshape_transform is None

    def channels(self, call: Call) -> int:
        """Return the number of channels of a call's features."""
        return call.shape[1 if self.is_channels_first(call) else -1]

    def octave(self, shape: Shape) -> int | None:
        """Return the resolution that a tensor's shape stands for; None if it has none."""
        reading = self.readings.get(shape)
        return None if reading is None else reading.octave

    @cached_property
    def candidates(self) -> list[Call]:
        """The calls that may be stages: those in place on which the scores depend."""
        return [call for call in self.in_place if self.is_explained(call)]

    @cached_property
    def natural_ends(self) -> dict[int, Call]:
        """What would end each resolution if all tensors were in place."""
        return self.ends_among(filter(self.is_explained, self._on_grid))

    def is_explained(self, call: Call) -> bool:
        """Return whether the scores depend on a call's features."""
        return self.readings[call.shape].is_explained(call)

    @cached_property
    def in_place(self) -> list[Call]:
        """The calls that give features in place: whose positions answer to their own places.

        If they answer to all places alike, they are taken to be in place unless others of their shape are not.
        """
        if not self.is_measured:
            return self._on_grid
        told = {call: self.readings[call.shape].are_in_place(call) for call in self._on_grid}
        mixed = {call.shape for call, in_place in told.items() if in_place is False}
        return [
            call
            for call, is_in_place in told.items()
            if is_in_place or (is_in_place is None and call.shape not in mixed)
        ]

    @cached_property
    def _on_grid(self) -> list[Call]:
        """The calls that give tensors that may be read as being on a grid."""
        known = ((call, self.octave(call.shape)) for call in self.calls if call.computes and self._answers(call))
        return [call for call, octave in known if octave is not None and octave >= self.lowest_octave]

    def _answers(self, call: Call) -> bool:
        """Return whether a call answers to changes along all axes, in finite numbers. Constants do not."""
        if not self.is_measured:
            return True
        axes = range(len(self.shape) - 2)
        known = all(axis in call.answers and all(one.isfinite().all() for one in call.answers[axis]) for axis in axes)
        return known and all(bool(call.answers[axis][0].any()) for axis in axes)

    def ends_among(self, calls: Iterable[Call]) -> dict[int, Call]:
        """Return the call that ends each resolution: the last of those that are least deep inside blocks."""
        ends: dict[int, Call] = {}
        for call in calls:
            octave = self.octave(call.shape)
            assert octave is not None
            if octave not in ends or self.depth(call) <= self.depth(ends[octave]):
                ends[octave] = call
        return dict(sorted(ends.items()))

    def depth(self, call: Call) -> int:
        """Return how deep inside blocks a call is."""
        return sum(name not in self.trunks for name in call.parents)

    @cached_property
    def trunks(self) -> set[str]:
        """Containers that run through at least three resolutions, such as "features". Inside them are the blocks.

        A block with its own class may begin at one resolution and go down twice. Such a module therefore needs three
        resolutions besides that of its input.
        """
        within: dict[str, set[int]] = defaultdict(set)
        for call in self.calls:
            if (octave := self.octave(call.shape)) is not None:
                for name in (*call.parents, call.name):
                    within[name].add(octave)
        return {
            call.name
            for call in self.calls
            if len(within[call.name]) >= 3
            and (call.is_sequential or len(within[call.name] - {self.octave(call.input_shape)}) >= 3)
        }

    @cached_property
    def readings(self) -> dict[Shape, Reading]:
        """How to read the tensors of each shape that is on a grid."""
        by_shape: dict[Shape, list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.name and call.shape[:1] == self.shape[:1]:
                by_shape[call.shape].append(call)
        if not self.is_measured:
            return {
                shape: Reading(shape[2:], octave)
                for shape in by_shape
                if len(shape) == len(self.shape) and (octave := _even_octave(shape[2:], self.shape[2:])) is not None
            }
        readings: dict[Shape, Reading] = {}
        alike: dict[Shape, Reading] = {}
        # First the tensors that have the grid's own dimensions, which then tell how tokens may lie.
        for shape in sorted(by_shape, key=lambda shape: len(shape) != len(self.shape)):
            grids = {reading.grid for reading in readings.values()}
            calls = list(filter(self._answers, by_shape[shape]))
            calls = sorted(calls, key=_sharpness)[-_FEW_CALLS:]
            if any(_is_without_channels(call, self.shape) for call in calls):
                continue
            options = list(_options(shape, self.shape, grids)) if calls else []
            fitting = [option for option in options if any(option.are_in_place(call) for call in calls)]
            fitting = [option for option in fitting if not any(map(option.is_of_several_grids, calls))]
            if fitting:
                readings[shape] = max(fitting, key=lambda option: max(map(option.score, calls)))
            elif plain := [option for option in options if self._is_plain(option, shape)]:
                alike[shape] = plain[0]
        # Where positions answer to all places alike, a grid must be that of others, or have halved all axes equally.
        grids = {reading.grid for reading in readings.values()}
        return readings | {
            shape: one for shape, one in alike.items() if len(shape) == len(self.shape) or one.grid in grids
        }

    def _is_plain(self, reading: Reading, shape: Shape) -> bool:
        """Return whether a reading is the most likely one if positions answer to all places alike."""
        if isinstance(reading.reshape_transform, TokensToGrid):
            return math.prod(reading.grid) == shape[1]  # the tokens fill a grid that was seen before
        return _even_octave(reading.grid, self.shape[2:]) is not None


def _is_without_channels(call: Call, whole: Shape) -> bool:
    r"""Return whether a call gives (N, \*grid), such as a depth map, rather than tokens with channels or a signal."""
    is_a_grid = len(call.shape) == len(whole) - 1 and min(call.shape[1:]) >= BANDS
    return is_a_grid and Reading(call.shape[1:], 0, channels_last).are_in_place(call) is True


def _sharpness(call: Call) -> float:
    """Return how clearly a call tells the bands apart, along whichever of its dimensions it does so best."""
    return sum(max(sharpness(one) for one in along) for along in call.answers.values())


def _options(shape: Shape, whole: Shape, grids: set[Shape]) -> Iterator[Reading]:
    """Yield the ways in which tensors of a shape may be read."""
    size = whole[2:]
    is_pooled = 1 in (math.prod(shape[2:]), math.prod(shape[1:-1]))  # a vector, in either layout
    if len(shape) == len(whole) and not is_pooled:
        for grid, transform in ((shape[2:], None), (shape[1:-1], channels_last)):
            if (octave := _octave(grid, size)) is not None:
                yield Reading(grid, octave, transform)
    if len(shape) == 3:
        for grid, prefix in _token_grids(shape[1], size, grids):
            if (octave := _octave(grid, size)) is not None:
                patch = tuple(side / parts for side, parts in zip(size, grid, strict=True))
                extra = shape[1] - math.prod(grid) - prefix
                yield Reading(grid, octave, TokensToGrid(prefix, sides=grid, patch=patch, suffix_tokens=extra))


def _token_grids(count: int, size: Shape, grids: set[Shape]) -> Iterator[tuple[Shape, int]]:
    """Yield the grids that ``count`` tokens may fill, each with the number of tokens that come before it.

    If other tensors show no such grid, all are tried.
    """
    halved = {tuple(-(-side // 2**times) for side in grid) for grid in grids for times in range(4)}
    filled = [[grid for grid in some if math.prod(grid) <= count <= 2 * math.prod(grid)] for some in (grids, halved)]
    known = sorted(filled[0] or filled[1])
    for grid in known or dict.fromkeys(_grids_of(count, size)):
        for prefix in range(count - math.prod(grid) + 1):
            yield grid, prefix


def _grids_of(count: int, size: Shape) -> Iterator[Shape]:
    """Yield the grids that all ``count`` tokens fill, or all but a few, first those with the proportions of the input.

    Each axis of the other grids has at least as many positions as there are bands, so that both axes can be recognised.
    """
    for extra in range(min(_MOST_EXTRA_TOKENS, count // 2) + 1):
        if grid := nearest_grid(count - extra, size):
            yield grid
    for extra in range(min(_FEW_EXTRA_TOKENS, count // 2) + 1) if len(size) == 2 else ():
        patches = count - extra
        sides = (side for side in range(BANDS, patches // BANDS + 1) if patches % side == 0)
        yield from ((side, patches // side) for side in sides)


def _nearest_halving(parts: Sequence[int], sizes: Sequence[int]) -> int:
    most = max(sizes).bit_length()
    halvings = [math.prod(-(-size // 2**k) for size in sizes) for k in range(most + 1)]
    return min(range(most + 1), key=lambda k: abs(math.log2(math.prod(parts) / halvings[k])))


def _octave(grid: Shape, whole: Shape) -> int | None:
    """Return how many times the axis that was halved most was halved; None if it cannot be a grid of the input."""
    if math.prod(grid) <= 1 or any(part > 1.5 * size for part, size in zip(grid, whole, strict=True)):
        return None
    return max(_nearest_halving([part], [size]) for part, size in zip(grid, whole, strict=True))


def _even_octave(grid: Shape, whole: Shape) -> int | None:
    """Return how many times all axes were halved; None if one of them is far from that."""
    if _octave(grid, whole) is None:
        return None
    k = _nearest_halving(grid, whole)
    off = [abs(math.log2(part / -(-size // 2**k))) for part, size in zip(grid, whole, strict=True)]
    return k if max(off) < 0.6 else None
