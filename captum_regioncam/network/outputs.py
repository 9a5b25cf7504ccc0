"""What a network and its layers are called, and what a network returned: checked, and in words."""

from collections.abc import Callable, Container, Mapping
from typing import Any

from torch import Tensor
from torch.jit import ScriptModule
from torch.nn import Module

__all__ = ["SCORES", "as_scores", "describe", "first_tensor", "layer_name"]

SCORES = ("logits", "out", "image_embeds", "pooler_output")
"""What transformers and torchvision call scores, or what stands in for them."""


def layer_name(layer: Module, forward_func: Callable[..., Any] | None) -> str:
    """Return a layer's name for errors: its dotted name, if ``forward_func`` is a module, and its type.

    The type of TorchScript is that of the module that it was made from.
    """
    modules = forward_func.named_modules() if isinstance(forward_func, Module) else ()
    kind = layer.original_name if isinstance(layer, ScriptModule) else type(layer).__name__
    names = (f"'{name}' ({kind})" for name, module in modules if module is layer and name)
    return next(names, kind)


def describe(output: Any) -> str:
    """Describe what a network returned: its type and its contents."""
    if isinstance(output, Mapping):
        return f"{type(output).__name__} of {', '.join(map(repr, output))}"
    if isinstance(output, (list, tuple)):
        return f"{type(output).__name__} of [{', '.join(map(describe, output))}]"
    if isinstance(output, Tensor):
        return f"a {output.dtype} tensor of shape {tuple(output.shape)}"
    return "None" if output is None else type(output).__name__


def first_tensor(output: Any, dimensions: Container[int] = ()) -> tuple[str, Tensor] | None:
    """Find the scores in a network's output, and the code that picks them: ``["out"]``, ``.logits`` or ``[0]``.

    The names that transformers and torchvision use come first, then the first of the tensors with the most dimensions
    that fit, then the first tensor. Tensors of no dimension, such as the loss, come last.
    """
    if isinstance(output, Mapping):
        named = {
            f".{key}" if getattr(output, str(key), None) is value else f'["{key}"]': value
            for key, value in output.items()
        }
    elif isinstance(output, (tuple, list)):
        named = {f"[{index}]": value for index, value in enumerate(output)}
    else:
        named = {f".{key}": value for key, value in getattr(output, "__dict__", {}).items()}
    known = [pick for key in SCORES for pick in (f".{key}", f'["{key}"]') if pick in named]
    tensors = [(pick, named[pick]) for pick in (*known, *named) if isinstance(named[pick], Tensor)]

    def rank(found: tuple[str, Tensor]) -> tuple[bool, bool, int]:
        pick, tensor = found
        return not tensor.dim(), pick not in known, -tensor.dim() if tensor.dim() in dimensions else 0

    return min(tensors, key=rank, default=None)


def as_scores(output: Any) -> Tensor:
    """Return what a forward function returned, checked.

    Raises:
        TypeError: it is not a tensor of real numbers.
    """
    if not isinstance(output, Tensor):
        found, is_detector = first_tensor(output), "'boxes'" in describe(output)
        wrapped = "box_score(model, boxes), or " if is_detector else "class_scores(model), or " if found else ""
        remedy = f"Pass {wrapped}a function that picks one score per example or per class"
        remedy += f", such as lambda x: model(x){found[0]}." if found else "."
        raise TypeError(
            f"forward_func returned {describe(output)}, not a tensor of scores. "
            + ("Is a return statement missing?" if output is None else remedy)
        )
    if output.is_complex():
        raise TypeError(
            f"forward_func returned {describe(output)}: scores are real numbers. Pass a function that makes them real, "
            "such as lambda x: model(x).abs()."
        )
    return output
