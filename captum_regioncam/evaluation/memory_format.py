"""The order in memory of what a network gets: channels last, in which convolutions are computed, if it takes that."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["format_for"]


def format_for(run: Callable[[Tensor], object], probe: Tensor) -> torch.memory_format:
    """Return the order of an input's numbers in memory. The network itself is not changed.

    Networks whose ``view`` takes features to be in the usual order fail on channels last, and get the usual order.

    Args:
        run: runs the network.
        probe: (1, 3, height, width), on which it runs in the usual order.
    """
    try:
        run(probe.contiguous(memory_format=torch.channels_last))
    except Exception:
        return torch.contiguous_format
    return torch.channels_last
