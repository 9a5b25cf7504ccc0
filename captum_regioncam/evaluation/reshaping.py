"""The layout of named layers, if it is given: "tokens:1", "tokens:1:100" or "channels-last"."""

import math
import re
from collections.abc import Container, Sequence

import torch
from torch import Tensor

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.network.reshape import ReshapeTransform, channels_last, tokens_to_grid
from captum_regioncam.stages.watch import watch

__all__ = ["reshape_of"]


def reshape_of(classifier: Classifier, layers: Sequence[str] | None, reshape: str, x: Tensor) -> ReshapeTransform:
    """Return the ``reshape_transform`` for a named layout, after checking it against what the layers give.

    Args:
        classifier: the network.
        layers: their dotted names.
        reshape: "tokens:N", with N tokens before the patches, "tokens:N:M", with M tokens after them, or
            "channels-last".
        x: an input.

    Raises:
        ArgumentError: it is not one of these, no layers are named, or their tensors have another layout.
    """
    given = Argument("reshape", reshape)
    tokens = re.fullmatch(r"tokens:(\d{1,6})(?::(\d{1,6}))?", reshape)
    if not tokens and reshape != "channels-last":
        raise ArgumentError(
            given,
            ": expects tokens:N, where N is the number of tokens before the patches, tokens:N:M with M tokens after "
            "them, or channels-last.",
        )
    if layers is None:
        raise ArgumentError(given, ": requires ", Argument("layers"), "; the layout of the stages found is known.")
    prefix, suffix = (int(part or 0) for part in tokens.groups()) if tokens else (0, 0)
    with watch(classifier.model, [x]) as (calls, _):
        pass
    patches = {math.prod(call.shape[2:]) for call in calls if len(call.shape) == x.dim()}  # of a patch embedding
    for name, shape in {call.name: call.shape for call in calls if call.name in layers}.items():
        if tokens:
            problem = _problem_of_tokens(shape, prefix + suffix, x, patches)
        else:
            problem = _problem_of_channels_last(shape, x)
        if problem:
            raise ArgumentError(given, f": layer {name} gives a tensor of shape {shape}, {problem}.")
    return tokens_to_grid(prefix, suffix_tokens=suffix) if tokens else channels_last


def _problem_of_tokens(shape: tuple[int, ...], extra: int, x: Tensor, patches: Container[int]) -> str:
    if len(shape) != 3:
        return "not (N, tokens, channels); pass channels-last if its channels come last, otherwise no layout"
    if _is_grid(shape[1] - extra, x):
        return ""
    fitting = next((f"; tokens:{n} leaves its patches" for n in range(shape[1]) if shape[1] - n in patches), "")
    return f"whose {shape[1] - extra} other tokens do not form a grid with the proportions of the input{fitting}"


def _is_grid(patches: int, x: Tensor) -> bool:
    try:
        tokens_to_grid(0).for_inputs([x])(torch.empty(1, patches, 1))
    except (ValueError, RuntimeError):  # the latter of a number below 0
        return False
    return True


def _problem_of_channels_last(shape: tuple[int, ...], x: Tensor) -> str:
    if len(shape) == x.dim():
        return ""
    remedy = "pass tokens:N, with N tokens before the patches" if len(shape) == 3 else "choose another layer"
    return f"not (N, height, width, channels); {remedy}"
