"""Maps over scales and flips, summed as the seeds of weakly supervised segmentation are made."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from captum_regioncam.classifiers import resized
from captum_regioncam.grids import min_max, resize

__all__ = ["NORMALIZATIONS", "multiscale_maps", "normalize"]

_EPSILON = 1e-5  # IRN's


def multiscale_maps(
    attribution: Any,
    photo: Image.Image,
    targets: Sequence[int],
    preprocess: Callable[[Image.Image], Tensor],
    *,
    scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
    flip: bool = True,
    input_size: tuple[int, int] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[Tensor]:
    r"""Sum the maps of a photo over scales and horizontal flips.

    The photo is resized (bicubic) to each scale; the flipped photo's maps are flipped back; each map loses what is
    negative in it and is resized (bilinear) to the wanted size, and all are added, as in IRN (Ahn et al., CVPR 2019).
    A photo and its flip are one batch. Nothing is kept of a scale but its share of the sum.

    Args:
        attribution: any attribution of this package or of Captum that gives (N, C, h, w): its ``attribute_targets`` is
            called, or else its ``attribute`` for each target, and the C maps of a target are added. A function of
            (x, targets) that returns (N, K, h, w) does as well.
        photo: what the network is to see, at any resolution.
        targets: K classes.
        preprocess: from an image to the network's input (1, 3, height, width).
        scales: factors of ``input_size``.
        flip: add the maps of the mirrored photo.
        input_size: width and height of the network's input at scale 1; default the photo's.
        sizes: the heights and widths to resize the maps to; default one: the grid of the map at the scale nearest
            to 1, which comes first.

    Returns:
        For each size a (K, height, width) tensor, non-negative; see :func:`normalize`.

    Raises:
        ValueError: there is no scale, or one is not above 0; or no target.

    Example::

        >>> strided, full = multiscale_maps(cam, photo, [14], preprocess, sizes=[(94, 125), (375, 500)])
        >>> full.shape
        torch.Size([1, 375, 500])
    """
    if not scales or not all(scale > 0 for scale in scales):
        raise ValueError(f"scales={list(scales)}: expects at least one factor, each above 0.")
    if not len(targets):
        raise ValueError("targets: expects at least one class, got none.")
    width, height = input_size or photo.size
    nearest_first = sorted(scales, key=lambda scale: abs(math.log(scale)))
    inputs = Counter((max(1, round(width * scale)), max(1, round(height * scale))) for scale in nearest_first)
    sums: list[Tensor] = []
    for size, times in inputs.items():
        x = preprocess(resized(photo, size))
        maps = _maps(attribution, torch.cat([x, x.flip(-1)]) if flip else x, targets).relu() * times
        if flip:
            maps = maps[:1] + maps[1:].flip(-1)
        sizes = sizes or [(maps.shape[2], maps.shape[3])]
        for index, wanted in enumerate(sizes):
            upsampled = resize(maps, wanted)[0]
            if index < len(sums):
                sums[index] += upsampled
            else:
                sums.append(upsampled)
    return sums


def _maps(attribution: Any, x: Tensor, targets: Sequence[int]) -> Tensor:
    """Return (N, K, h, w) maps, detached, in float32."""
    if hasattr(attribution, "attribute_targets"):
        maps = attribution.attribute_targets(x, list(targets))
    elif hasattr(attribution, "attribute"):
        x.requires_grad_()  # Captum warns where it has to do this itself
        maps = torch.cat([attribution.attribute(x, target=target).sum(1, keepdim=True) for target in targets], dim=1)
    else:
        maps = attribution(x, list(targets))
    if not isinstance(maps, Tensor) or maps.dim() != 4:
        raise ValueError(f"attribution: expects one that gives (N, C, height, width), got {type(maps).__name__}.")
    return maps.detach().float()


def normalize(maps: Tensor, how: str = "max") -> Tensor:
    """Bring each map into [0, 1].

    Args:
        maps: (K, height, width), non-negative.
        how: "max" divides by the maximum + 1e-5, as IRN does; "minmax" stretches minimum and maximum onto 0 and 1.

    Raises:
        ValueError: ``how`` is neither.

    Example::

        >>> normalize(torch.tensor([[[1.0, 2.0, 5.0]]]), "minmax")
        tensor([[[0.0000, 0.2500, 1.0000]]])
    """
    if how not in NORMALIZATIONS:
        raise ValueError(f"how={how!r}: expects one of {', '.join(NORMALIZATIONS)}.")
    return NORMALIZATIONS[how](maps)


NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda maps: maps / (maps.flatten(1).amax(1)[:, None, None] + _EPSILON),
    "minmax": lambda maps: min_max(maps[None])[0],
}
