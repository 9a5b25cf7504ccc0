"""Semantic information propagation (SIP): every position takes the semantics of the positions that look like it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from captum_regioncam.grids import channel_chunks, pool, safe_squares, sum_of

__all__ = ["propagate"]


def propagate(features: Tensor, semantics: Tensor) -> Tensor:
    r"""Spread semantics to the positions that look alike, near or far.

    .. math:: M_i = \frac{\sum_j A_{ij} S_j}{\sum_j A_{ij}}, \quad A_{ij} = u_i \cdot u_j, \quad
        u_i = \frac{\max(0, F_i)}{\lVert \max(0, F_i) \rVert}

    The (P, P) affinity A is never built. As :math:`u \ge 0`, the sums are :math:`u_i \cdot \sum_j S_j u_j` and
    :math:`u_i \cdot \sum_j u_j`: exact, in O(C P) time, and beyond maps the size of the result it takes at most a few
    channels' worth of memory. The K maps share one matrix product. Sums are in float32 at least, whatever the dtype.

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
    stage = features.flatten(2)
    dtype = torch.promote_types(features.dtype, torch.float32)
    signed = bool(stage.detach().amin() < 0)
    scale: Tensor | None = None

    def looks(copied: bool = False) -> Iterator[Tensor]:
        for chunk in channel_chunks(stage, copied=copied or signed or scale is not None or dtype != stage.dtype):
            look = chunk.to(dtype) if scale is None else chunk / scale
            yield look.relu() if signed else look

    def squared_norms() -> Tensor:
        return sum_of(look.square().sum(1, keepdim=True) for look in looks(copied=True))

    squared_norm = squared_norms()
    if not (safe := safe_squares(squared_norm)).all():
        strongest = stage.detach().amax(1, keepdim=True).to(dtype)
        if ((strongest > 0) & ~safe).any():
            # The norm cancels between numerator and denominator, and so does any scale of a position: divide it by its
            # strongest feature.
            scale = torch.where(strongest > 0, strongest, 1)
            squared_norm = squared_norms()
    positive = squared_norm > 0
    inverse_norm = torch.where(positive, squared_norm, 1).rsqrt()
    local = pool(semantics.to(device=features.device, dtype=dtype), grid).flatten(2)
    sources = torch.cat([local, torch.ones_like(squared_norm)], dim=1) * inverse_norm  # (N, K + 1, P): S, and 1 for D
    sums = sum_of((sources @ look.transpose(1, 2)) @ look for look in looks())
    weighted, total = sums[:, :-1], sums[:, -1:]
    propagated = torch.where(positive, weighted / torch.where(positive, total, 1), 0)
    return propagated.view(*propagated.shape[:2], *grid).to(semantics.dtype)
