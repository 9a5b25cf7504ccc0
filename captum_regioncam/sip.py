"""Semantic information propagation (SIP): every position takes the semantics of the positions that look like it."""

import torch
from torch import Tensor

from captum_regioncam.grids import channel_chunks, pool, safe_squares, sum_of

__all__ = ["propagate"]


def propagate(features: Tensor, semantics: Tensor) -> Tensor:
    r"""Spread semantics to the positions that look alike, near or far.

    .. math:: M_i = \frac{\sum_j A_{ij} S_j}{\sum_j A_{ij}}, \quad A_{ij} = u_i \cdot u_j, \quad
        u_i = \frac{\max(0, F_i)}{\lVert \max(0, F_i) \rVert}

    The (P, P) affinity A is never built. As :math:`u \ge 0`, the sums are :math:`u_i \cdot \sum_j S_j u_j` and
    :math:`u_i \cdot \sum_j u_j`: exact, in O(C P) time and memory. Features are copied only where some are negative, of
    low precision, or too large or small to be squared. The K maps share one matrix product. Sums are in float32 at
    least, whatever the dtype.

    Step 4 of the method (Cai and Abhayaratne, arXiv 2510.25134, propose SIP; this formulation is ours).

    Args:
        features: (N, C, \*grid) layer output; negative parts are dropped.
        semantics: (N, K, \*any grid) one map per target, non-negative; averaged down to the grid of ``features``.

    Returns:
        (N, K, \*grid) in the dtype of ``semantics``, within its range. Positions without positive features get 0.

    Example::

        >>> features = torch.tensor([[[2.0, 1.0, 0.0], [0.0, 0.0, 5.0]]])  # (1, 2, 3): positions 0 and 1 look alike
        >>> propagate(features, torch.tensor([[[1.0, 0.0, 0.5]]]))
        tensor([[[0.5000, 0.5000, 0.5000]]])
    """
    grid = features.shape[2:]
    stage = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))
    if stage.detach().amin() < 0:
        stage = stage.relu()
    squared_norm = _squared_norm(stage)
    silent: Tensor | float = 0.0  # infinite where a position has no positive features: divided by it, all becomes 0
    if not (safe := safe_squares(squared_norm)).all():
        strongest = stage.detach().amax(1, keepdim=True)
        silent = torch.where(strongest > 0, torch.zeros_like(strongest), torch.inf)
        if ((strongest > 0) & ~safe).any():
            # The norm cancels between numerator and denominator, and so does any scale of a position: divide it by its
            # strongest feature.
            stage = stage / torch.where(strongest > 0, strongest, 1)
            squared_norm = _squared_norm(stage)
    local = pool(semantics.to(stage), grid).flatten(2)
    sources = torch.cat([local, torch.ones_like(squared_norm)], dim=1)  # (N, K + 1, P): S, and 1 for D
    sums = (sources * (squared_norm + silent).rsqrt()) @ stage.transpose(1, 2) @ stage
    propagated = sums[:, :-1] / (sums[:, -1:] + silent)
    return propagated.view(*propagated.shape[:2], *grid).to(semantics.dtype)


def _squared_norm(stage: Tensor) -> Tensor:
    return sum_of(chunk.square().sum(1, keepdim=True) for chunk in channel_chunks(stage))
