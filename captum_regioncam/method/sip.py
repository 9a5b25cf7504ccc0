"""Semantic information propagation (SIP): every position takes the semantics of the positions that look like it."""

import torch
from torch import Tensor

from captum_regioncam.method.grids import channel_chunks, pool, safe_squares, sum_of

__all__ = ["propagate"]


def propagate(features: Tensor, semantics: Tensor) -> Tensor:
    r"""Spread semantics to the positions that look alike, near or far.

    .. math:: M_i = \frac{\sum_j A_{ij} S_j}{\sum_j A_{ij}}, \quad A_{ij} = u_i \cdot u_j, \quad
        u_i = \frac{\max(0, F_i)}{\lVert \max(0, F_i) \rVert}

    The function returns M minus the mean of S, a constant that normalisation removes anyway. Propagating S minus its
    mean keeps the rounding in proportion to the *differences* between positions, which may be far smaller than S.

    The (P, P) affinity A is never built. As :math:`u \ge 0`, the sums are :math:`u_i \cdot \sum_j S_j u_j` and
    :math:`u_i \cdot \sum_j u_j`: exact, in O(C P) time and memory. Another affinity needs such a factor as well, or
    else room for the whole matrix; the documentation's page on the method tells what was tried. Features are copied
    only if some are negative, of low precision, or too large or small to be squared. The K maps share one matrix
    product. Sums are at least in float32. On CUDA they are in float64, so that it does not matter whether float32
    products may be rounded to TF32.

    Step 4 of the method (Cai and Abhayaratne, arXiv 2510.25134, propose SIP; this formulation is ours).

    Args:
        features: (N, C, \*grid) layer output; negative parts are dropped.
        semantics: (N, K, \*any grid) one map per target; averaged down to the grid of ``features``.

    Returns:
        (N, K, \*grid) in float32 or, if the features are float64, in float64; within the range of ``semantics`` minus
        its mean. Positions without positive features have M = 0.

    Example::

        >>> features = torch.tensor([[[2.0, 1.0, 0.0], [0.0, 0.0, 5.0]]])  # (1, 2, 3): positions 0 and 1 look alike
        >>> propagate(features, torch.tensor([[[1.0, 0.0, 0.2]]]))  # M is 0.5, 0.5, 0.2; S has mean 0.4
        tensor([[[ 0.1000,  0.1000, -0.2000]]])
    """
    grid = features.shape[2:]
    stage = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))
    if stage.detach().amin() < 0:
        stage = stage.relu()
    squared_norm = _squared_norm(stage)
    speaks = squared_norm > 0
    if not (safe := safe_squares(squared_norm)).all():
        strongest = stage.detach().amax(1, keepdim=True)
        speaks = strongest > 0
        if (speaks & ~safe).any():
            # The norm cancels between numerator and denominator, and so does any scale of a position: divide it by its
            # strongest feature.
            stage = stage / torch.where(speaks, strongest, 1)
            squared_norm = _squared_norm(stage)
    local = pool(semantics.to(torch.promote_types(semantics.dtype, stage.dtype)), grid).flatten(2)
    mean = local.mean(2, keepdim=True)
    sources = torch.cat([local - mean, torch.ones_like(squared_norm)], dim=1)  # (N, K + 1, P): S, and 1 for D
    sources = sources * torch.where(speaks, squared_norm, 1).rsqrt()
    dtype = stage.dtype
    if stage.device.type == "cuda":
        sources, stage = sources.double(), stage.double()
    sums = (sources.to(stage) @ stage.transpose(1, 2)) @ stage
    propagated = sums[:, :-1] / torch.where(speaks, sums[:, -1:], 1)
    return torch.where(speaks, propagated, -mean.to(propagated)).to(dtype).view(*local.shape[:2], *grid)


def _squared_norm(stage: Tensor) -> Tensor:
    return sum_of(chunk.square().sum(1, keepdim=True) for chunk in channel_chunks(stage))
