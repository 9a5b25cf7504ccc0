"""Layers that give another layout than (N, C, *grid): functions that bring their tensors onto grids."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import Tensor

from captum_regioncam.errors import LayerError

__all__ = ["ReshapeTransform", "TokensToGrid", "channels_last", "on_grid", "tokens_to_grid"]

ReshapeTransform = Callable[[Tensor], Tensor]
"""From a layer's tensor to (N, C, \\*grid)."""


def on_grid(tensor: Tensor, name: Callable[[], str], reshape_transform: ReshapeTransform | None) -> Tensor:
    r"""Bring a layer's tensor onto its grid.

    Args:
        tensor: a layer's output or gradient.
        name: returns the layer's name for errors.
        reshape_transform: from the tensor to (N, C, \*grid); None if the tensor has that layout already.

    Returns:
        (N, C, \*grid).

    Raises:
        LayerError: ``reshape_transform`` returns something else, or the tensor is not on a grid, or is empty.
    """
    if reshape_transform is not None:
        batch, tensor = len(tensor), reshape_transform(tensor)
        if not isinstance(tensor, Tensor) or tensor.shape[:1] != (batch,):
            got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise LayerError(f"reshape_transform gave {got} for layer {name()}; it must return (N={batch}, C, *grid).")
    if not tensor.numel():
        raise LayerError(f"layer {name()} gives an empty tensor, of shape {tuple(tensor.shape)}: pass larger inputs.")
    if not 3 <= tensor.dim() <= 5:
        raise LayerError(
            f"layer {name()} gives a tensor of shape {tuple(tensor.shape)}, which is not on a grid: "
            "(N, C, length), (N, C, height, width) or (N, C, depth, height, width). Choose a layer before the pooling, "
            "or pass reshape_transform=<function to (N, C, *grid)>, such as tokens_to_grid() for a vision transformer."
        )
    return tensor


def channels_last(tensor: Tensor) -> Tensor:
    r"""Move the channels of Swin and similar networks to dim 1: a ``reshape_transform``.

    Args:
        tensor: (N, \*grid, C).

    Returns:
        (N, C, \*grid), a view.

    Example::

        >>> channels_last(torch.zeros(2, 14, 14, 384)).shape
        torch.Size([2, 384, 14, 14])
    """
    return tensor.movedim(-1, 1)


def tokens_to_grid(prefix_tokens: int = 1, grid: Sequence[int] | None = None, suffix_tokens: int = 0) -> "TokensToGrid":
    r"""Make the ``reshape_transform`` of a vision transformer, which puts the tokens in their places on the image.

    In an attribution, the grid follows the shape of each input: it has one position per patch and the proportions of
    the input, so that a landscape and a portrait photo both come out right.

    Args:
        prefix_tokens: tokens before the patches (class token, distillation token, registers), which are dropped.
        grid: the number of patches along each dimension, if it is always the same. Default: as described above, and a
            square if the function is called by itself.
        suffix_tokens: tokens after the patches (YOLOS' detection tokens), which are dropped.

    Returns:
        A function from (N, prefix + P + suffix, C) to (N, C, \*grid).

    Raises:
        ValueError: when called, if the tokens do not fill such a grid.

    Example::

        >>> tokens_to_grid()(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 14, 14])
    """
    return TokensToGrid(prefix_tokens, None if grid is None else tuple(grid), suffix_tokens=suffix_tokens)


@dataclass(frozen=True)
class TokensToGrid:
    """The transform that :func:`tokens_to_grid` makes.

    Attributes:
        prefix_tokens: tokens before the patches.
        grid: the number of patches along each dimension, for every input.
        sides: the proportions of the grid if ``grid`` is None; None for a square.
        patch: the sides of a patch, up to a common factor; None for a square or a cube.
        suffix_tokens: tokens after the patches.
    """

    prefix_tokens: int = 1
    grid: tuple[int, ...] | None = None
    sides: tuple[float, ...] | None = None
    patch: tuple[float, ...] | None = None
    suffix_tokens: int = 0

    def for_inputs(self, inputs: Sequence[Tensor]) -> "TokensToGrid":
        """Return the transform for the tokens of these inputs; the first image or volume sets the proportions."""
        size = next((tuple(tensor.shape[2:]) for tensor in inputs if 4 <= tensor.dim() <= 5), None)
        if self.grid is not None or size is None:
            return self
        patch = self.patch or (1.0,) * len(size)
        if len(patch) != len(size):
            return self
        return replace(self, sides=tuple(side / part for side, part in zip(size, patch, strict=True)))

    def __call__(self, tokens: Tensor) -> Tensor:  # noqa: D102  # told in tokens_to_grid
        if tokens.dim() != 3:
            raise ValueError(f"tokens_to_grid: expects tokens of shape (N, tokens, C), got {tuple(tokens.shape)}.")
        patches = tokens.shape[1] - self.prefix_tokens - self.suffix_tokens
        grid = self.grid or nearest_grid(patches, self.sides or (1, 1))
        if patches < 1 or grid is None or math.prod(grid) != patches:
            if self.grid:
                wanted = f"{' x '.join(map(str, self.grid))} = {math.prod(self.grid)}"
            elif self.sides:
                wanted = f"a grid with the proportions {' x '.join(f'{side:g}' for side in self.sides)}"
            else:
                wanted = "a square number"
            raise ValueError(
                f"tokens_to_grid: {tokens.shape[1]} tokens minus prefix_tokens={self.prefix_tokens}"
                + f" and suffix_tokens={self.suffix_tokens}" * bool(self.suffix_tokens)
                + f" leave {patches} patches, which is not {wanted}. Pass prefix_tokens=<class, distillation and "
                "register tokens of the model> and, if the patches do not cover the image evenly, grid=(rows, columns)."
            )
        return self.on_grid(tokens, grid)

    def gives(self, grid: tuple[int, ...], other: object) -> bool:
        """Return whether this brings tokens onto a grid as another transform does."""
        alike = isinstance(other, TokensToGrid) and replace(other, sides=self.sides, patch=self.patch) == self
        return alike and nearest_grid(math.prod(grid), self.sides or (1, 1)) == grid

    def on_grid(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        r"""Return (N, C, \*grid) of (N, prefix + P + suffix, C)."""
        patches = tokens[:, self.prefix_tokens : tokens.shape[1] - self.suffix_tokens]
        return patches.transpose(1, 2).reshape(len(tokens), -1, *grid)


@lru_cache
def nearest_grid(positions: int, sides: Sequence[float]) -> tuple[int, ...] | None:
    """Return the grid with this many positions and the proportions of an image, volume or signal, if there is one.

    Its sides are those of the image divided by one factor, all rounded down or all rounded up.

    Example::

        >>> nearest_grid(24, (96, 64))
        (6, 4)
    """

    def fits(grid: tuple[int, ...]) -> bool:
        pairs = list(zip(grid, sides, strict=True))
        rounded_down = max(part / side for part, side in pairs) < min((part + 1) / side for part, side in pairs)
        return rounded_down or max((part - 1) / side for part, side in pairs) < min(part / side for part, side in pairs)

    def distance(grid: tuple[int, ...]) -> float:
        scales = [part / side for part, side in zip(grid, sides, strict=True)]
        return max(scales) / min(scales)

    return min(filter(fits, _grids(positions, len(sides))), key=distance, default=None)


def _grids(positions: int, dimensions: int) -> Iterator[tuple[int, ...]]:
    """List all grids with this many positions."""
    if dimensions == 1:
        yield (positions,)
        return
    for first in (part for part in range(1, positions + 1) if positions % part == 0):
        for rest in _grids(positions // first, dimensions - 1):
            yield (first, *rest)
