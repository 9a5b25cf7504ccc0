"""The precision in which a network's passes are computed. Its weights stay as they are, and maps are float32."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from captum_regioncam.errors import Argument, ArgumentError, reason_of
from captum_regioncam.evaluation.protocol import PRECISIONS

__all__ = ["check_precision", "computed_in", "tried_in"]

_LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def check_precision(precision: str) -> None:
    """Check that there is such a precision.

    Raises:
        ArgumentError: there is none.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(Argument("precision", precision), f": expects one of {', '.join(PRECISIONS)}.")


@contextmanager
def computed_in(precision: str, device: torch.device) -> Iterator[None]:
    """Run a network's forward and backward passes in a precision; float32 leaves everything as it is."""
    if precision not in _LOW:
        yield
        return
    with torch.autocast(device.type, _LOW[precision]):
        yield


@contextmanager
def tried_in(precision: str, device: torch.device) -> Iterator[None]:
    """Try a network that works in float32. Whatever fails becomes an error of the precision.

    Raises:
        ArgumentError: the device, or the network on it, does not compute in this precision.
    """
    try:
        with warnings.catch_warnings():  # where a device cannot do it, some versions of torch warn and go on in float32
            warnings.simplefilter("ignore")
            with computed_in(precision, device):
                one = torch.ones(1, 1, device=device)
                if (one @ one).dtype != _LOW.get(precision, torch.float32):
                    raise ValueError("the device does not compute in it")
        with computed_in(precision, device):
            yield
    except Exception as error:
        raise ArgumentError(
            Argument("precision", precision), f": fails on {device} ({reason_of(error)}); pass ",
            Argument("precision", "float32"), ".",
        ) from error  # fmt: skip
