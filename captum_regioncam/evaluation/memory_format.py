"""The memory format of a network's inputs: channels last, in which convolutions are computed, if it takes that."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["format_for"]


def format_for(run: Callable[[Tensor], object], probe: Tensor) -> torch.memory_format:
    """Return the memory format for a network's inputs. The network itself is not changed.

    Networks that call ``view`` on features in the usual format fail on channels last, and get the usual format.

    Args:
        run: runs the network.
        probe: (1, 3, height, width), on which it runs in the usual format.
    """
    try:
        run(probe.contiguous(memory_format=torch.channels_last))
    except Exception:
        return torch.contiguous_format
    return torch.channels_last
