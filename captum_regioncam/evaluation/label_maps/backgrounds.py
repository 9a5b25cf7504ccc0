"""The background's map, with which the maps of the classes are compared."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Background", "Constant", "Power"]

Maps = npt.NDArray[np.floating[Any]]


class Background(ABC):
    """A way to make a map of the background."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Return its parameters, as JSON values."""

    @abstractmethod
    def plane(self, high_res: Maps) -> Maps:
        """Return the background's map, (1, height, width), for (K, height, width) maps in [0, 1], at least one."""

    def planes(self, high_res: Maps) -> Maps:
        """Return the background's map and those of the classes, (K + 1, height, width).

        Raises:
            ValueError: a score is NaN.
        """
        if np.isnan(high_res).any():
            raise ValueError("high_res: some scores are NaN.")
        return np.concatenate([self.plane(high_res), high_res])


@dataclass(frozen=True)
class Constant(Background):
    """The same value everywhere: a threshold; IRN's is 0.15."""

    threshold: float = 0.15

    def settings(self) -> dict[str, object]:
        """Return its parameters."""
        return {"threshold": self.threshold}

    def plane(self, high_res: Maps) -> Maps:
        """Return the background's map."""
        return np.full((1, *high_res.shape[1:]), self.threshold, dtype=high_res.dtype)


@dataclass(frozen=True)
class Power(Background):
    """Strong where all classes are weak: (1 - the highest map) ** power.

    CLIP-ES (Lin et al., CVPR 2023) uses power 1 before its CRF, and scores maps with powers from 1; PSA uses 4 and 24.
    """

    power: float = 1.0

    def settings(self) -> dict[str, object]:
        """Return its parameters."""
        return {"background": "clip-es", "power": self.power}

    def plane(self, high_res: Maps) -> Maps:
        """Return the background's map."""
        plane: Maps = (1 - high_res.max(0, keepdims=True)) ** self.power
        return plane
