"""Which tensors of a graph depend on which."""

from collections.abc import Sequence

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

__all__ = ["sources"]


def sources(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors that depend on no other of them: a backward pass to these passes all the others."""
    nodes = [get_gradient_edge(tensor).node for tensor in tensors]
    return [tensor for tensor, node in zip(tensors, nodes, strict=True) if not _reaches(node, set(nodes))]


def _reaches(node: Node, others: set[Node]) -> bool:
    """Tell whether the graph below a node has one of the others."""
    seen: set[Node] = set()
    pending = [node]
    while pending:
        for below, _ in pending.pop().next_functions:
            if below in others:
                return True
            if below is not None and below not in seen:
                seen.add(below)
                pending.append(below)
    return False
