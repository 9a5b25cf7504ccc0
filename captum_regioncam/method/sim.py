"""Semantic information maps (SIM): what a stage's gradients say about where the class is."""

import torch
from torch import Tensor

from captum_regioncam.method.grids import channel_chunks, safe_squares, sum_of

__all__ = ["HEAD_COSINE", "is_head_stage", "semantic_information"]

HEAD_COSINE = 1 - 1e-3
_CLOSE = 1e-5
_NEARLY_FLAT = 1 / 16
_FEW_POSITIONS = 16


def semantic_information(features: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute a stage's semantic information map.

    .. math:: S_i = \sum_k \max(0, G_{ki})

    This is the paper's map (Cai and Abhayaratne, arXiv 2510.25134). At a head stage (see :func:`is_head_stage`) it
    would be flat; there, the stage's class activation map takes its place (ours, step 2 of the method):

    .. math:: S_i = \max\Big(0, \sum_k G_{ki} F_{ki}\Big)

    Args:
        features: (N, C, \*grid) layer output.
        gradients: (N, C, \*grid) of the class score with respect to ``features``.

    Returns:
        (N, 1, \*grid), non-negative, in float64 (float32 on devices without it).
    """
    exact = torch.float32 if features.device.type == "mps" else torch.float64
    head = is_head_stage(gradients).view(-1, 1, 1)
    if head.all():
        semantics = _activation(features, gradients, exact)
    elif head.any():
        semantics = torch.where(
            head, _activation(features, gradients, exact), _positive_sum(gradients, features.dtype, exact)
        )
    else:
        semantics = _positive_sum(gradients, features.dtype, exact)
    return semantics.view(len(semantics), 1, *features.shape[2:])


def _activation(features: Tensor, gradients: Tensor, exact: torch.dtype) -> Tensor:
    pairs = zip(channel_chunks(gradients.flatten(2)), channel_chunks(features.flatten(2)), strict=True)
    return sum_of((g.to(exact) * f).sum(1, keepdim=True) for g, f in pairs).relu()


def _positive_sum(gradients: Tensor, dtype: torch.dtype, exact: torch.dtype) -> Tensor:
    def summed(dtype: torch.dtype) -> Tensor:
        return sum_of(chunk.relu().sum(1, keepdim=True, dtype=dtype) for chunk in channel_chunks(gradients.flatten(2)))

    sums = summed(torch.promote_types(dtype, torch.float32))
    low, high = sums.amin(2), sums.amax(2)
    nearly_flat = high - low < _NEARLY_FLAT * high  # normalising such maps magnifies the rounding of the sums
    return summed(exact) if nearly_flat.any() else sums.to(exact)


@torch.no_grad()
def is_head_stage(gradients: Tensor) -> Tensor:
    r"""Return, per example, whether everything above a stage is linear and the same at each position.

    Such a stage lies below global average pooling and a linear layer, or below 1x1 convolutions before the pooling. All
    its gradient vectors that are not zero point the same way, so the gradient says nothing about *where*. The test: the
    smallest cosine between them and their mean direction is above 1 - 1e-3.

    Args:
        gradients: (N, C, \*grid).

    Returns:
        (N,) bool; False where all gradients are zero.
    """
    stage = gradients.flatten(2)
    if stage.shape[2] > 4 * _FEW_POSITIONS:
        few = stage[..., :: -(-stage.shape[2] // _FEW_POSITIONS)]
        few = few.to(torch.promote_types(few.dtype, torch.float32))
        # If vectors lie within an angle of one direction, their sum is at least as long as the angle's cosine times the
        # sum of their lengths. A few positions therefore rule most stages out.
        lengths, length = few.norm(dim=1).sum(1), few.sum(2).norm(dim=1)
        if (length < (HEAD_COSINE - _CLOSE) * lengths).all():
            return torch.zeros(len(stage), dtype=torch.bool, device=stage.device)
    smallest, pointing = _smallest_cosine(stage.to(torch.promote_types(stage.dtype, torch.float32)))
    if stage.device.type != "mps" and ((smallest - HEAD_COSINE).abs() < _CLOSE).any():
        smallest, pointing = _smallest_cosine(stage.double())  # a close call
    return pointing & (smallest > HEAD_COSINE)


def _smallest_cosine(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest cosine of the non-zero vectors with their mean direction, and whether there are any.

    (N, C, P) to (N,) each; the cosine is 1 if there are none.
    """
    squared_norm = vectors.square().sum(1, keepdim=True)
    if not safe_squares(squared_norm).all():
        # Only directions matter: each vector may be divided by its largest entry.
        largest = torch.maximum(vectors.amax(1, keepdim=True), -vectors.amin(1, keepdim=True))
        vectors = vectors / torch.where(largest > 0, largest, 1)
        squared_norm = vectors.square().sum(1, keepdim=True)
    pointing = squared_norm > 0
    inverse_norm = torch.where(pointing, squared_norm, 1).rsqrt()
    mean = torch.nn.functional.normalize(inverse_norm @ vectors.transpose(1, 2), dim=2)
    cosines = mean @ vectors * inverse_norm
    return torch.where(pointing, cosines, 1).amin((1, 2)), pointing.flatten(1).any(1)
