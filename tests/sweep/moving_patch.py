"""Does a tensor say what is where? A patch of noise moves over the input, and each position must answer to its place.

The patch is a bar that spans the other axes: a row bar and a column bar together say where a position is. Everything
here is measured on tensors alone, with nothing of the package that it judges.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

PLACES = 8
FAR = 0.4
"""Of an axis: how far away a bar is far. Deep convolutions see half of the image."""
MARGIN = 1.25
"""No position may answer to a bar that is far more than MARGIN times as much as to its own."""
SLACK = 0.5
"""A position may answer to bars that are nearer, but not its own, up to 1 / SLACK times as much as to its own."""

LEAST_CONTRAST = 1.03
"""On average, positions answer at least so many times as much to their own bars as to bars that are far."""
ALIKE = "answers to all places alike"
"""What is said of a tensor that tells no place: a mean, say, or the features of attention that mixes everything."""
STRENGTH = 0.1
"""Of the patch. A strong one makes deep networks with random weights answer everywhere."""
DRAWS = 4
"""What fails is measured again, on other noise, and fails if the sum of all measurements does."""

FEW = 0.2
"""The share of positions that may answer to another place by chance, where a network mixes all places."""
TOLERATED = 0.015
"""The share of positions that may be wrong by chance, or one of 36, though not one may be constant."""

Bar = tuple[float, float]
"""Where a bar begins and ends on its axis, which goes from 0 to 1."""


def faults(
    read: Callable[[Tensor], Mapping[str, Tensor]], x: Tensor, exact: Iterable[str] = (), batch: int = 8
) -> dict[str, str]:
    r"""Find the tensors that do not say what is where.

    Args:
        read: from a batch like x to tensors by name, each (N, C, \*grid).
        x: (1, C, \*size) the input that the patch moves over.
        exact: the names of tensors that were brought onto their grid from another layout. For these, bars of a single
            position at the borders and in the middle also tell apart positions that are neighbours.
        batch: how many inputs to read at once.

    Returns:
        What is wrong with each tensor that is wrong: {name: reason}.
    """
    found: dict[str, str] = {}
    exact = set(exact)
    shapes = {}
    for name, tensor in read(x).items():
        if tensor.dim() != x.dim():
            found[name] = f"has {tensor.dim() - 2} axes, and the input has {x.dim() - 2}"
        elif not tensor.isfinite().all():
            found[name] = "is not finite"
        elif tensor[0, 0].numel() == 1:
            found[name] = "has a single position"
        else:
            shapes[name] = tensor.shape[2:]
    for axis in range(x.dim() - 2):
        size = x.shape[2 + axis]
        places = [(k / PLACES, (k + 1) / PLACES) for k in range(PLACES)] if size > PLACES else _cells(range(size), size)
        sides = {shapes[name][axis] for name in shapes if name in exact and name not in found}
        fine = {side: _cells([0, 1, side // 2, side // 2 + 1], side)
                for side in sides if PLACES < side <= size}  # fmt: skip
        bars = list(dict.fromkeys([*places, *(bar for cells in fine.values() for bar in cells)]))
        reasons: dict[str, str | None] = {name: "" for name in shapes if name not in found}
        sums: dict[str, Tensor] = {}
        for draw in range(DRAWS):
            doubted = [name for name, reason in reasons.items() if reason is not None]
            for name, answer in (_answers(read, x, axis, bars, doubted, batch, draw) if doubted else {}).items():
                sums[name] = sums.get(name, 0) + answer
                at = dict(zip(bars, sums[name], strict=True))
                side = shapes[name][axis]
                reasons[name] = _misplaced(torch.stack([at[bar] for bar in places]), places, axis)
                if reasons[name] is None and name in exact and side in fine:
                    cells = fine[side]
                    reasons[name] = _misplaced(torch.stack([at[bar] for bar in cells]), cells, axis, among=True)
        found |= {name: reason for name, reason in reasons.items() if reason is not None}
    return found


def share_elsewhere(reason: str) -> float:
    """Return which share of the positions answers to another place, as a reason says; 1 if it says something else."""
    share, says, _ = reason.partition("% of the positions answer to another place")
    return float(share) / 100 if says else 1.0


def _cells(indices: Iterable[int], side: int) -> list[Bar]:
    return [(k / side, (k + 1) / side) for k in indices]


def _answers(
    read: Callable[[Tensor], Mapping[str, Tensor]],
    x: Tensor,
    axis: int,
    bars: list[Bar],
    names: list[str],
    batch: int,
    draw: int,
) -> dict[str, Tensor]:
    r"""Measure how much each position changes with each bar: (bars, \*grid), relative to the tensor's size."""
    generator = torch.Generator().manual_seed(draw)
    x = torch.randn(x.shape, generator=generator) if draw else x
    size = x.shape[2 + axis]
    moved = []
    for begin, end in bars:
        one = x.clone()
        part = one.narrow(2 + axis, round(begin * size), max(1, round(end * size) - round(begin * size)))
        part += STRENGTH * (1 + torch.randn(part.shape, generator=generator))
        moved.append(one)
    before = {name: tensor.double() for name, tensor in read(x).items()}
    changes: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, len(moved), batch):
        tensors = read(torch.cat(moved[start : start + batch]))
        for name in names:
            changes[name] += list((tensors[name].double() - before[name]).norm(dim=1))
    return {name: torch.stack(changes[name]) / (before[name].norm() + 1e-30) for name in names}


def _misplaced(answer: Tensor, bars: list[Bar], axis: int, among: bool = False) -> str | None:
    r"""Say what is wrong with a tensor's answers to bars on an axis, (bars, \*grid); None if nothing is.

    ``among``: the bars are single positions, and only these positions are looked at.
    """
    side = answer.shape[1 + axis]
    if side == 1:
        return None
    if not answer.isfinite().all():
        return "is not finite"
    totals = answer.flatten(1).sum(1)
    if totals.max() < 1e-6:
        return "does not depend on the input"
    answer = answer / totals.clamp_min(totals.max() * 1e-9).view(-1, *[1] * (answer.dim() - 1))
    cells = torch.tensor(_cells(range(side), side))
    begins, ends = torch.tensor(bars).unbind(1)
    own = (begins[:, None] < cells[None, :, 1] - 1e-6) & (ends[:, None] > cells[None, :, 0] + 1e-6)
    far = ((begins + ends)[:, None] - cells.sum(1)[None]).abs() / 2 >= FAR
    looked_at = own.any(0) if among else torch.ones(side, dtype=torch.bool)
    shape = [1] * answer.dim()
    shape[1 + axis] = side

    def most(which: Tensor) -> Tensor:
        """Return each position's greatest answer to some of the bars, which are (bars, side)."""
        return answer.masked_fill(~which.view(len(bars), *shape[1:]), 0).amax(0).movedim(axis, -1)[..., looked_at]

    if not among and (idle := answer.amax(0) < 1e-6 * answer.mean()).any():
        return f"{idle.float().mean():.1%} of the positions do not depend on the input"
    wrong = (most(far) > MARGIN * most(own)) | (SLACK * most(~own) > most(own))
    if wrong.sum() <= max(TOLERATED * wrong.numel(), wrong.numel() >= 36):
        return None if among or _contrast(answer, own, far, axis) > LEAST_CONTRAST else ALIKE
    return f"{wrong.float().mean():.1%} of the positions answer to another place on axis {axis}"


def _contrast(answer: Tensor, own: Tensor, far: Tensor, axis: int) -> float:
    r"""Return how many times as much positions answer to their own bars as to far ones: answer is (bars, \*grid)."""
    lines = answer.movedim(1 + axis, 1).flatten(2).mean(2) if answer.dim() > 2 else answer
    to_own, to_far = ((lines * bars).sum(0) / bars.sum(0) for bars in (own, far))
    return float((to_own / to_far.clamp_min(1e-30)).clamp(max=1e3).nanmean())
