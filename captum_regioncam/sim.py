"""Semantic information maps (SIM): what a stage's gradients say about where the class is."""

import torch
from torch import Tensor

from captum_regioncam.grids import channel_chunks, sum_of

__all__ = ["HEAD_COSINE", "is_head_stage", "semantic_information"]

HEAD_COSINE = 1 - 1e-3
_FEW_POSITIONS = 16


def semantic_information(features: Tensor, gradients: Tensor) -> Tensor:
    r"""Draw a stage's semantic information map.

    .. math:: S_i = \sum_k \max(0, G_{ki})

    (Cai and Abhayaratne, arXiv 2510.25134), and at a head stage, where that map would be flat, the stage's class
    activation map (ours, step 2 of the method; see :func:`is_head_stage`):

    .. math:: S_i = \max\Big(0, \sum_k G_{ki} F_{ki}\Big)

    Args:
        features: (N, C, \*grid) layer output.
        gradients: (N, C, \*grid) of the class score with respect to ``features``.

    Returns:
        (N, 1, \*grid), non-negative, in float32 or, where the features are float64, in float64.
    """
    grid = features.shape[2:]
    dtype = torch.promote_types(features.dtype, torch.float32)
    stage = gradients.flatten(2)
    semantics = sum_of(chunk.relu().sum(1, keepdim=True, dtype=dtype) for chunk in channel_chunks(stage))
    head = is_head_stage(gradients)
    if head.any():
        pairs = zip(channel_chunks(stage), channel_chunks(features.flatten(2)), strict=True)
        activation = sum_of((g.to(dtype) * f).sum(1, keepdim=True) for g, f in pairs)
        semantics = torch.where(head.view(-1, 1, 1), activation.relu(), semantics)
    return semantics.view(len(semantics), 1, *grid)


@torch.no_grad()
def is_head_stage(gradients: Tensor) -> Tensor:
    r"""Tell, per example, whether everything above a stage is linear at each position alike.

    Above such a stage (global average pooling and a linear layer, or 1x1 convolutions before the pooling) all gradient
    vectors that are not zero point the same way, so that the gradient says nothing about *where*. The test: the
    smallest cosine between them and their mean direction is above 1 - 1e-3.

    Args:
        gradients: (N, C, \*grid).

    Returns:
        (N,) bool; False where all gradients are zero.
    """
    stage = gradients.flatten(2)
    # Vectors within an angle of their mean are within twice that angle of the mean of some of them: most stages are
    # told by a few of their positions.
    few = stage[..., :: -(-stage.shape[2] // _FEW_POSITIONS)].contiguous()
    if not (_smallest_cosine(few) > 2 * HEAD_COSINE**2 - 1).any():
        return torch.zeros(len(stage), dtype=torch.bool, device=stage.device)
    return (_smallest_cosine(stage) > HEAD_COSINE) & stage.any(2).any(1)


def _smallest_cosine(vectors: Tensor) -> Tensor:
    """Return the smallest cosine of the non-zero vectors with their mean direction: (N, C, P) to (N,); 1 if none."""
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    # Only directions matter: dividing by the vector's largest entry keeps squares from over- and underflowing.
    largest = torch.maximum(vectors.amax(1, keepdim=True), -vectors.amin(1, keepdim=True)).to(dtype)
    pointing = largest > 0
    directions = vectors / torch.where(pointing, largest, torch.ones_like(largest))
    squared_norm = directions.square().sum(1, keepdim=True)
    directions.mul_(torch.where(pointing, squared_norm, torch.ones_like(squared_norm)).rsqrt_())
    mean = torch.nn.functional.normalize(directions.sum(2, keepdim=True), dim=1)
    cosines = mean.transpose(1, 2) @ directions
    smallest: Tensor = torch.where(pointing, cosines, torch.ones_like(cosines)).amin((1, 2))
    return smallest
