"""Families of networks, each by one small member with random weights: {family: how to build it}."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn


class NotBuilt(Exception):  # noqa: N818  # an outcome
    """A network that cannot be built here, and why."""


@dataclass
class Built:
    r"""A member of a family.

    Attributes:
        network: its name.
        model: what find_stages is given.
        x: (1, C, \*size) an input with the axes in the order in which maps have them.
        scores: from the model's inputs to (N, classes).
        inputs: from a batch like x to the model's inputs.
        dense: whether the scores are made of a map of scores, or of boxes.
    """

    network: str
    model: nn.Module
    x: Tensor
    scores: Callable[..., Tensor]
    inputs: Callable[[Tensor], tuple[Any, ...]] = lambda x: (x,)
    dense: bool = False


Builder = Callable[[], Built]


def noise(*shape: int) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def settled(built: Built) -> Built:
    """Give a new network weights that a trained one could have, where its constructor leaves constants.

    Heads and last norms that start from zero, and layer scales that start from nearly zero, would hide what lies before
    them. Batch norms are set to the statistics of noise, without which deep networks' features vanish or explode.
    """
    generator = torch.Generator().manual_seed(0)
    for name, parameter in built.model.named_parameters():
        if not parameter.is_floating_point() or name.endswith("bias") or not parameter.numel():
            continue
        low, high = parameter.min(), parameter.max()
        if low == high and low.abs() < 0.05:
            values = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.copy_(values if parameter.squeeze().dim() > 1 else values + 0.5)
    built.model.eval()
    norms = [module for module in built.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if norms:
        hooks = [norm.register_forward_pre_hook(_take_statistics) for norm in norms]
        built.model(*built.inputs(torch.cat([built.x, built.x.flip(-1) * 1.5 + 0.5])))
        for hook in hooks:
            hook.remove()
    return built


def _take_statistics(norm: Any, args: tuple[Tensor]) -> None:
    x = args[0].movedim(1, 0).flatten(1)
    if norm.running_mean is not None and x.shape[1] > 1:
        norm.running_mean.copy_(x.mean(1))
        norm.running_var.copy_(x.var(1) + 1e-3 * x.var())
        norm.eps = 1e-12  # initial weights of 0.02 give variances below the usual 1e-5


SOURCES = ("torchvision", "timm", "transformers", "written")
"""What the names of families begin with, and the names of the modules that build them."""


def families() -> dict[str, Builder]:
    """Walk the registries: {family: builder}."""
    return {family: build for source in SOURCES for family, build in _of(source).items()}


def builder(family: str) -> Builder:
    """Return the builder of one family."""
    found = _of(family.split("-")[0])
    if family not in found:
        raise NotBuilt("the installed release does not have it")
    return found[family]


def _of(source: str) -> dict[str, Builder]:
    module = import_module(f"{source}_families")  # here, as one library need not wait for the others
    return module.families()
