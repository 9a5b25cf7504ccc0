"""Which tensors of a graph depend on which, and a backward pass to those that depend on no other."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils.checkpoint import CheckpointError

from captum_regioncam.errors import LayerError

__all__ = ["below", "differentiate", "sources"]


def sources(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors that depend on none of the others. A backward pass to these passes all the others."""
    nodes = [get_gradient_edge(tensor).node for tensor in tensors]
    return [
        tensor for tensor, node in zip(tensors, nodes, strict=True) if not any(one in set(nodes) for one in below(node))
    ]


def below(node: Node) -> Iterator[Node]:
    """Yield the nodes that a node depends on, each once, without the node itself."""
    seen: set[Node] = set()
    pending = [node]
    while pending:
        for one, _ in pending.pop().next_functions:
            if one is not None and one not in seen:
                seen.add(one)
                pending.append(one)
                yield one


def differentiate(score: Tensor, tensors: Sequence[Tensor], **grad_kwargs: Any) -> None:
    """Run a backward pass from (N,) scores to some tensors, so that hooks see the gradients on the way.

    Raises:
        LayerError: a segment under :func:`torch.utils.checkpoint.checkpoint` cannot be run again.
    """
    options = {"grad_outputs": torch.ones_like(score), "allow_unused": True, **grad_kwargs}
    try:
        torch.autograd.grad(score, tensors, **options)
    except CheckpointError as error:
        raise LayerError(
            "layer: a layer lies in a segment under torch.utils.checkpoint whose inputs require no gradients, so the "
            "segment cannot be run again as it ran with Captum's hooks. Let its parameters require gradients, pass "
            "floating-point inputs, or switch checkpointing off."
        ) from error
