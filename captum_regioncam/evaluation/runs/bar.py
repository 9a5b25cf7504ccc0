"""The progress of a run: a bar in a terminal, and a line every minute in a log file."""

import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from captum_regioncam.extras import extra

with extra("eval"):
    from tqdm import tqdm

__all__ = ["progress_bar"]

_EVERY = 60.0  # seconds between lines of a log file


class _Lines(tqdm):  # type: ignore[type-arg]
    """Writes lines, which nothing overwrites."""

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:  # type: ignore[override]
        """Return what writes the state; tqdm calls it with nothing to clear a bar."""

        def write(state: str) -> None:
            if state:
                file.write(f"{state}\n")
                file.flush()

        return write


def progress_bar(total: int, unit: str, *, hidden: bool, what: str | None = None) -> "tqdm[NoReturn]":
    """Return the bar of a run, a context manager with ``n`` and ``update``.

    Args:
        total: how many there are.
        unit: what they are, in the singular.
        hidden: show nothing.
        what: what is done.
    """
    described = what and f"{what}: "
    if sys.stderr.isatty():
        return tqdm(total=total, unit=unit, desc=described, disable=hidden)
    units = unit if total == 1 else f"{unit}s"
    state = f"{{desc}}{{percentage:3.0f}}% {{n_fmt}}/{{total_fmt}} {units} [{{elapsed}}<{{remaining}}, {{rate_fmt}}]"
    return _Lines(total=total, unit=unit, desc=described, disable=hidden, mininterval=_EVERY, bar_format=state)
