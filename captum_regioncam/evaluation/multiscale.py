"""Maps summed over scales and flips, as for the seeds of weakly supervised segmentation.

Most methods make maps at each scale, which are added. Region-CAM (:class:`RegionCamMaps`) asks where the classes are at
the scales up to 1 only, where the network sees objects at the size that it knows, and propagates the answer through the
features of all scales (step 7 of the method).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from captum_regioncam.arguments import plane_size
from captum_regioncam.files.photos import resized
from captum_regioncam.method.grids import finest_grid, min_max, resize, with_contrast
from captum_regioncam.network.outputs import describe
from captum_regioncam.network.targets import spread_labels
from captum_regioncam.region_cam import LayerRegionCam

__all__ = [
    "InputSize", "RegionCamMaps", "checked_maps", "input_sizes", "irn_size", "multiscale_maps", "normalize",
    "seed_grid", "summed_maps",
]  # fmt: skip

Attribute = Callable[[Tensor, Sequence[Sequence[int]]], list[Tensor]]
"""From (N, 3, height, width) and the classes of each of the N photos to N tensors (K_n, *grid)."""

_EPSILON = 1e-5  # IRN's


def seed_grid(height: int, width: int) -> tuple[int, int]:
    """Return the grid of a seed's ``cam``: a quarter of the photo's, rounded up."""
    return -(-height // 4), -(-width // 4)


def irn_size(height: int, width: int) -> tuple[int, int]:
    """Return the size that IRN upsamples maps to before it crops them to the photo: the next multiples of 16."""
    return -(-height // 16) * 16, -(-width // 16) * 16


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

    The photo is resized (bicubic) to each scale. The flipped photo's maps are flipped back. The negative parts of each
    map are dropped, and the map is resized (bilinear) to the requested size. All maps are added, as in IRN (Ahn et al.,
    CVPR 2019). A photo and its flip are one batch. Of each scale, only its share of the sum is kept.

    With :class:`~captum_regioncam.LayerRegionCam`, only the scales up to 1 (or the smallest) have backward passes.
    Their semantics, each the mean of the photo's and its flip's, are multiplied, and propagated through the features of
    all scales. The sum is divided by its maximum, and Region-CAM's contrast comes last (step 7 of the method; ours).

    Args:
        attribution: any attribution of this package or of Captum that gives (N, C, h, w). Its ``attribute_targets`` is
            called, or else its ``attribute`` for each target, and the C maps of a target are added. A function of
            (x, targets) that returns (N, K, h, w) works as well.
        photo: what the network sees, at any resolution.
        targets: the indices of K classes.
        preprocess: a function from an image to the network's input, (1, 3, height, width).
        scales: factors by which ``input_size`` is multiplied, above 0.
        flip: add the maps of the mirrored photo.
        input_size: width and height of the network's input at scale 1. Default: the photo's.
        sizes: the heights and widths to resize the maps to. Default: one size, the grid of the map at the scale nearest
            to 1, which is computed first. IRN itself upsamples to the next multiples of 16 and crops.

    Returns:
        For each size a (K, height, width) tensor, non-negative; see :func:`normalize`.

    Raises:
        ValueError: there is no scale, or one is not above 0; there is no target; or a size is not two numbers above 0.

    Example::

        >>> strided, full = multiscale_maps(cam, photo, [14], preprocess, sizes=[(94, 125), (375, 500)])
        >>> full.shape
        torch.Size([1, 375, 500])
    """
    if not len(targets):
        raise ValueError("targets: expects at least one class, got none.")
    if sizes is not None and not isinstance(sizes, Iterable):
        raise ValueError(f"sizes={sizes!r}: expects a list of (height, width).")
    at_one = photo.size if input_size is None else plane_size("input_size", input_size, "(width, height)")
    grids = None if sizes is None else [plane_size("sizes", size, "a list of (height, width)") for size in sizes]
    inputs = input_sizes(at_one, scales)
    batches = ((preprocess(resized(photo, one.size)), one) for one in inputs)
    if isinstance(attribution, LayerRegionCam):
        attribute: Attribute = RegionCamMaps(attribution)
    else:
        attribute = lambda x, labels: list(_maps(attribution, x, labels[0]))  # noqa: E731
    [maps] = summed_maps(attribute, batches, [list(targets)], flip=flip, sizes=[grids])
    return maps


@dataclass(frozen=True)
class InputSize:
    """A size of the network's input.

    Attributes:
        size: width and height.
        times: how many of the scales give it.
        asks: whether Region-CAM asks here where the classes are: at the scales up to 1, or at the smallest.
    """

    size: tuple[int, int]
    times: int
    asks: bool


def input_sizes(size: tuple[int, int], scales: Sequence[float]) -> list[InputSize]:
    """Return the sizes of the network's input that the scales give, that of the scale nearest to 1 first.

    Raises:
        ValueError: there is no scale, or one is not above 0.
    """
    if not scales or not all(scale > 0 for scale in scales):
        raise ValueError(f"scales={list(scales)}: expects at least one factor, each above 0.")
    width, height = size
    nearest_first = sorted(scales, key=lambda scale: abs(math.log(scale)))
    scaled = {scale: (max(1, round(width * scale)), max(1, round(height * scale))) for scale in nearest_first}
    asked = {scaled[scale] for scale in scales if scale <= max(1, min(scales))}
    times = Counter(scaled[scale] for scale in nearest_first)
    return [InputSize(one, count, one in asked) for one, count in times.items()]


@dataclass(frozen=True)
class RegionCamMaps:
    """Region-CAM as a method of :mod:`~captum_regioncam.evaluation`: the maps of one scale, or of several together."""

    cam: LayerRegionCam

    def __call__(self, x: Tensor, labels: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the maps of one scale: for each of N photos (K_n, h, w)."""
        return self.cam.attribute_labels(x, labels)  # type: ignore[return-value]  # single layers give one tensor here

    def of_scales(
        self, batches: Iterable[tuple[Tensor, InputSize]], labels: Sequence[Sequence[int]], *, flip: bool
    ) -> Iterator[tuple[list[Tensor], int]]:
        """Yield each scale's maps before contrast, the photos' and then their flips', and how often they count."""
        photos = len(labels)
        targets, counts = spread_labels([*labels, *labels] if flip else labels, photos * (1 + flip))
        semantics: list[Tensor] = []
        halves = []  # for each scale, a function of semantics, and how often its maps count
        for x, scale in batches:
            if scale.asks:
                own, propagate = self.cam.halves(x, targets)
                semantics.append((own[:photos] + own[photos:].flip(-1)) / 2 if flip else own)
            else:
                propagate = partial(self.cam.propagate, x)
            halves.append((propagate, scale.times))
        product = _product(semantics)
        product = torch.cat([product, product.flip(-1)]) if flip else product
        for propagate, times in halves:
            maps = propagate(product)
            yield [one[:count] for one, count in zip(maps, counts, strict=True)], times


def _product(semantics: Sequence[Tensor]) -> Tensor:
    """Multiply (N, K, h, w) semantics on the finest grid. Those that are 0 everywhere say nothing and are left out."""
    grid = finest_grid(one.shape[2:] for one in semantics)
    says = [one.amax((2, 3), keepdim=True) > 0 for one in semantics]
    product = torch.ones(())
    for one, told in zip(semantics, says, strict=True):
        product = torch.where(told, resize(one, grid), 1) * product.to(one.device)
    return product * torch.stack(says).any(0)


def summed_maps(
    attribute: "Attribute",
    batches: Iterable[tuple[Tensor, InputSize]],
    labels: list[list[int]],
    *,
    flip: bool,
    sizes: Sequence[Sequence[tuple[int, int]] | None],
) -> list[list[Tensor]]:
    """Sum the maps of several photos whose inputs have equal sizes.

    Args:
        attribute: a function from (N, 3, height, width) and the classes of each photo to N tensors (K_n, h, w).
        batches: for each size of the input, a batch (N, 3, height, width), and the size.
        labels: the classes of each photo.
        flip: add the maps of the mirrored photos.
        sizes: for each photo, the heights and widths to resize its maps to; None for the first map's own grid.

    Returns:
        For each photo, and each of its sizes, a (K_n, height, width) tensor.
    """
    wanted = [None if of_photo is None else list(of_photo) for of_photo in sizes]
    sums: list[list[Tensor]] = [[] for _ in labels]
    with_flips = ((torch.cat([x, x.flip(-1)]) if flip else x, size) for x, size in batches)
    if isinstance(attribute, RegionCamMaps):
        of_scales = attribute.of_scales(with_flips, labels, flip=flip)
    else:
        of_scales = ((attribute(x, labels * 2 if flip else labels), size.times) for x, size in with_flips)
    for maps, times in of_scales:
        for index, total in enumerate(sums):
            own = maps[index].detach().float().relu() * times
            if flip:
                own = own + maps[len(labels) + index].detach().float().relu().flip(-1) * times
            grids = wanted[index] = wanted[index] or [(own.shape[1], own.shape[2])]
            upsampled = [resize(own[None], grid)[0] for grid in grids]
            total[:] = [before + part for before, part in zip(total, upsampled, strict=True)] if total else upsampled
    if isinstance(attribute, RegionCamMaps):
        return [[with_contrast(maps[None], attribute.cam.contrast)[0] for maps in of_photo] for of_photo in sums]
    return sums


def _maps(attribution: Any, x: Tensor, targets: Sequence[int]) -> Tensor:
    """Return (N, K, h, w) maps."""
    if hasattr(attribution, "attribute_targets"):
        return checked_maps(attribution.attribute_targets(x, targets))
    if not hasattr(attribution, "attribute"):
        return checked_maps(attribution(x, targets))
    x.requires_grad_()  # Captum warns if it has to do this itself
    maps = (checked_maps(attribution.attribute(x, target=target)) for target in targets)
    return torch.cat([of_target.sum(1, keepdim=True) for of_target in maps], dim=1)


def checked_maps(maps: Any) -> Tensor:
    """Return the maps that an attribution gave, checked.

    Raises:
        ValueError: they are something other than a tensor of four dimensions.
    """
    if not isinstance(maps, Tensor) or maps.dim() != 4:
        raise ValueError(
            f"attribution gives {describe(maps)}; expects (N, C, height, width) maps, or (N, K, height, width) from a "
            "function of inputs and K targets."
        )
    return maps


def normalize(maps: Tensor, how: str = "max") -> Tensor:
    """Bring each map into [0, 1].

    Args:
        maps: (K, height, width), non-negative.
        how: "max" divides by the maximum + 1e-5, as IRN does; "minmax" stretches minimum and maximum onto 0 and 1.

    Returns:
        (K, height, width) in [0, 1]. A map that is 0 everywhere stays 0.

    Raises:
        ValueError: ``how`` is neither.

    Example::

        >>> normalize(torch.tensor([[[1.0, 2.0, 5.0]]]), "minmax")
        tensor([[[0.0000, 0.2500, 1.0000]]])
    """
    if how not in _NORMALIZE:
        raise ValueError(f"how={how!r}: expects one of {', '.join(_NORMALIZE)}.")
    return _NORMALIZE[how](maps)


_NORMALIZE: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda maps: maps / (maps.flatten(1).amax(1)[:, None, None] + _EPSILON),
    "minmax": lambda maps: min_max(maps[None])[0],
}
