"""How much disk space the seeds of a data set will take."""

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoData
from captum_regioncam.evaluation.multiscale import seed_grid
from captum_regioncam.evaluation.seeds.seed import Seed
from captum_regioncam.files.text import counted

__all__ = ["check_disk"]

_log = logging.getLogger(__name__)
_SAMPLES = 16
_TIGHT = 0.9  # of the free space


def check_disk(data: PhotoData, names: Sequence[str], output: Path, encode: Callable[[Seed], bytes]) -> None:
    """Say how much disk space the seeds that do not exist yet will take, and check that they fit.

    The estimate is made from a few evenly spaced photos, whose seeds are encoded without running the network.

    Args:
        data: the photos.
        names: the names of the photos whose seeds are wanted, of all shards together.
        output: the folder of the seeds.
        encode: turns a seed into the content of its file.

    Raises:
        ArgumentError: they do not fit.
    """
    left = [number for number, name in enumerate(names) if not (output / f"{name}.npy").exists()]
    sizes = []
    for number in left[:: -(-len(left) // _SAMPLES) or 1]:
        with suppress(Exception):  # the run will say why
            sample = data[number]
            height, width, count = sample.photo.height, sample.photo.width, len(sample.keys)
            cam, high_res = torch.zeros(count, *seed_grid(height, width)), np.zeros((count, height, width), np.float32)
            sizes.append(len(encode(Seed(torch.tensor(sample.keys, dtype=torch.long), cam, high_res))))
    if not sizes:
        return
    needed = len(left) * sum(sizes) / len(sizes)
    total, _, free = shutil.disk_usage(next(one for one in (output, *output.absolute().parents) if one.exists()))
    need = f"{counted(len(left), 'seed')} need{'s' * (len(left) == 1)}"
    if needed > free and total:
        raise ArgumentError(
            Argument("output", output),
            f": {need} about {_bytes(needed)}, but its disk has only {_bytes(free)} free. Choose another folder, or a "
            "smaller ",
            Argument("format"),
            ".",
        )
    _log.log(
        logging.WARNING if needed > _TIGHT * free else logging.INFO,
        "%s about %s of disk space; %s are free.",
        need,
        _bytes(needed),
        _bytes(free),
    )


def _bytes(count: float) -> str:
    """Return a number of bytes in words, such as "1.4 GB"."""
    power = min(4, max(0, int(math.log(max(count, 1), 1000))))
    return f"{count / 1000**power:.{int(power > 0)}f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
