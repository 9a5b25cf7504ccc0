"""What commands print at their end: the command that comes next."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from captum_regioncam.cli.options import Called, DataOptions

__all__ = ["command", "of_data", "shortest"]


def command(name: str, *words: str | Path | Sequence[str], when: str = "") -> str:
    """Return the line that names the next command.

    Args:
        name: the command.
        words: its arguments, one by one or several together.
        when: a condition, such as " when all shards are there".
    """
    line = ["captum-regioncam", name]
    for word in words:
        line += [str(word)] if isinstance(word, (str, Path)) else word
    return f"Next{when}: {shlex.join(line)}"


def of_data(data: DataOptions, called: Called) -> list[str]:
    """Return the words that name the same photos and the same ground truth."""
    words = [data.dataset, "--root", data.root]
    for name in ("split", "labels_from", "masks", "crowds", "limit"):
        if name in called.given:
            words += [f"--{name.replace('_', '-')}", str(getattr(data, name))]
    return words


def shortest(path: str) -> str:
    """Return a path below the working directory from there, and any other as it is."""
    here = Path.cwd()
    return os.path.relpath(path, here) if Path(path).is_relative_to(here) else path
