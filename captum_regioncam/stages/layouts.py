"""How to read a network's tensors (channels first, channels last, tokens), and which calls end each resolution."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from torch import Tensor

from captum_regioncam.network.reshape import ReshapeTransform, TokensToGrid, channels_last
from captum_regioncam.stages.watch import Call

__all__ = ["Layout", "Octave", "choose_layout"]

_MOST_PREFIX_TOKENS = 32

Octave = tuple[int, ...]
"""How many times the input's grid has been halved, along each axis."""


@dataclass
class Layout:
    """One way to read the tensors of a network."""

    calls: list[Call]
    """All calls of modules that run once, in the order in which they end."""
    octave_of: Callable[[tuple[int, ...]], Octave | None]
    """Returns the resolution that a tensor's shape stands for; None if it has none."""
    trunks: set[str]
    """Containers that run through several resolutions. The modules inside them are the blocks."""
    lowest_octave: int
    reshape_transform: ReshapeTransform | None = None
    is_tokens: bool = False

    @cached_property
    def candidates(self) -> list[Call]:
        """The calls that may be stages."""
        return [call for call in self.calls if call.computes and call.name and self._is_wanted(call)]

    @cached_property
    def ends(self) -> dict[Octave, Call]:
        """The call that ends each resolution: the last of those that are least deep inside blocks."""
        return self.ends_among(self.candidates)

    def ends_among(self, calls: Iterable[Call]) -> dict[Octave, Call]:
        """Return what ``ends`` would be if there were no other calls."""
        ends: dict[Octave, Call] = {}
        for call in calls:
            octave = self.octave_of(call.shape)
            assert octave is not None
            if octave not in ends or self.depth(call) <= self.depth(ends[octave]):
                ends[octave] = call
        return dict(sorted(ends.items()))

    def depth(self, call: Call) -> int:
        """Return how deep inside blocks a call is."""
        return sum(name not in self.trunks for name in call.parents)

    def _is_wanted(self, call: Call) -> bool:
        octave = self.octave_of(call.shape)
        return octave is not None and max(octave) >= self.lowest_octave


def choose_layout(calls: list[Call], like: Tensor, lowest_octave: int) -> Layout:
    """Choose the layout with the most resolutions, then the least deep ends, then the most candidates."""
    batch, whole, dims = len(like), tuple(like.shape[2:]), like.dim()
    times = Counter(call.name for call in calls)

    def read(grid_of: Callable[[tuple[int, ...]], Sequence[int] | None], even: bool = True, **options: Any) -> Layout:
        def octave_of(shape: tuple[int, ...]) -> Octave | None:
            grid = grid_of(shape) if shape[:1] == (batch,) else None
            return _octave(grid, whole, even) if grid else None

        once = [call for call in calls if times[call.name] == 1]
        return Layout(once, octave_of, _trunks(calls, octave_of), lowest_octave, **options)

    def first(shape: tuple[int, ...]) -> Sequence[int] | None:
        return shape[2:] if len(shape) == dims else None

    def last(shape: tuple[int, ...]) -> Sequence[int] | None:
        return shape[1:-1] if len(shape) == dims else None

    layouts = [read(first)]
    if any(call.is_linear and len(call.shape) == dims for call in calls):  # linear layers work on the last dimension
        layouts.append(read(last, reshape_transform=channels_last))
    if grids := _token_grids([call for call in calls if call.shape[:1] == (batch,)], dims):
        layouts.append(
            read(
                lambda shape: grids.get(shape[1]) if len(shape) == 3 else None,
                reshape_transform=_tokens_transform(grids, whole),
                is_tokens=True,
            )
        )

    def merit(layout: Layout) -> tuple[int, int, int]:
        return len(layout.ends), -sum(map(layout.depth, layout.ends.values())), len(layout.candidates)

    best, uneven = max(layouts, key=merit), read(first, even=False)
    # Axes that are not halved together (such as the time of a video) count if they only ever shrink, block after block.
    shrinks = all(all(a <= b for a, b in zip(*pair, strict=True)) for pair in pairwise(uneven.ends))
    blocks_alone = all(uneven.depth(call) == 0 for call in uneven.ends.values())
    return uneven if shrinks and blocks_alone and len(uneven.ends) > len(best.ends) else best


def _token_grids(calls: list[Call], dims: int) -> dict[int, tuple[int, ...]]:
    """Return the grid for each number of tokens: the patch embedding's, or one that is half, a quarter ... of it."""
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
    # In a pyramid of tokens, the finest grid is the patch embedding's; for one grid, the length is what most modules
    # give.
    _, length, finest = max(fits, key=lambda fit: (math.prod(fit[2]), fit[0]))
    prefix = length - math.prod(finest)
    halved = [tuple(-(-side // 2**times) for side in finest) for times in range(8)]
    return {math.prod(grid) + prefix: grid for grid in reversed(halved) if math.prod(grid) > 1}


def _octave(grid: Sequence[int], whole: Sequence[int], even: bool) -> Octave | None:
    """Return how many times the input's grid was halved: equally on all axes (``even``), or on each separately."""
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
    # An axis that is far from this halving shows that the tensor has another layout.
    return (k,) * len(grid) if max(off) < 0.6 else None


def _tokens_transform(grids: dict[int, tuple[int, ...]], whole: Sequence[int]) -> ReshapeTransform:
    length, finest = max(grids.items())
    patch = tuple(size / parts for size, parts in zip(whole, finest, strict=True))
    return TokensToGrid(length - math.prod(finest), sides=finest, patch=patch)


def _trunks(calls: list[Call], octave_of: Callable[[tuple[int, ...]], Octave | None]) -> set[str]:
    """Find the containers that run through at least three resolutions, such as "features".

    A block with its own class may begin at one resolution and go down twice. Such a module therefore needs three
    resolutions besides that of its input.
    """
    within: dict[str, set[Octave]] = defaultdict(set)
    for call in calls:
        if (octave := octave_of(call.shape)) is not None:
            for name in (*call.parents, call.name):
                within[name].add(octave)
    return {
        call.name
        for call in calls
        if len(within[call.name]) >= 3
        and (call.is_sequential or len(within[call.name] - {octave_of(call.input_shape)}) >= 3)
    }
