"""What a network holds besides the values of its parameters, so that a forward pass can leave it as it was."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy

__all__ = ["Snapshot"]


class Snapshot:
    """The attributes of a network's modules: training modes, buffers, and whatever a forward pass may cache.

    Lists and dicts among the attributes are looked into, but not those inside them. Parameters are not copied: it is
    only seen if one is replaced, or gets another shape.
    """

    def __init__(self, model: Module) -> None:
        self._containers = [(container, container.copy()) for container in _containers(model)]
        tensors = (value for _, before in self._containers for value in _items(before).values() if _is_tensor(value))
        self._tensors = {id(tensor): _Held(tensor) for tensor in tensors}

    def tensors_differ(self) -> bool:
        """Return whether a tensor came, went, or has another shape or other values than before."""
        for container, before in self._containers:
            was, now = _items(before), _items(container)
            for key in {**was, **now}:
                old, new = was.get(key), now.get(key)
                if self._tensors[id(old)].differs_from(new) if _is_tensor(old) else _is_tensor(new):
                    return True
        return False

    def restore(self) -> None:
        """Give the modules back what they held."""
        for tensor in self._tensors.values():
            tensor.restore()
        for container, before in self._containers:
            _refill(container, before)


class _Held:
    """A tensor, with its shape and, unless it is a parameter, its values."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.alias = tensor, tensor.detach()
        is_copied = not isinstance(tensor, Parameter) and tensor.layout == torch.strided
        self.values = tensor.detach().clone() if is_copied else None

    def differs_from(self, other: object) -> bool:
        if not isinstance(other, Tensor) or (self.values is None and other is not self.tensor):
            return True
        return other.shape != self.alias.shape if self.values is None else not _equal(other, self.values)

    @torch.no_grad()
    def restore(self) -> None:
        if self.tensor.shape != self.alias.shape:
            self.tensor.data = self.alias
        if self.values is not None and not _equal(self.tensor, self.values):
            self.tensor.copy_(self.values)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and not is_lazy(value)


def _equal(a: Tensor, b: Tensor) -> bool:
    alike = (a.shape, a.dtype, a.device, a.layout) == (b.shape, b.dtype, b.device, b.layout)
    return alike and torch.equal(a, b)


def _containers(model: Module) -> Iterator[Any]:
    """Yield the modules' attributes, and the dicts and lists among them, such as that of the buffers."""
    for module in model.modules():
        yield vars(module)
        for name, value in vars(module).items():
            if isinstance(value, (dict, list)) and "hooks" not in name:
                yield value


def _items(container: Any) -> dict[Any, Any]:
    return container if isinstance(container, dict) else dict(enumerate(container))


def _refill(container: Any, before: Any) -> None:
    """Put back what a container held. For other threads' sake, entries that are still there are never missing."""
    was, now = _items(before), _items(container)
    changed = [key for key in {**was, **now} if key not in was or key not in now or was[key] is not now[key]]
    if changed and isinstance(container, list):
        container[:] = before
        return
    for key in changed:
        if key in was:
            container[key] = was[key]
        else:
            del container[key]
