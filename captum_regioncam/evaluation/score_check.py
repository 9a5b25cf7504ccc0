"""Whether a network gives class scores, (N, classes), rather than embeddings."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress

import torch
from torch import Tensor
from torch.nn import Module

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.network.outputs import describe

__all__ = ["check_scores", "problem_with_two"]

_EMBEDDINGS = ("image_embeds", "pooler_output")  # what transformers' networks without a classifier return


@torch.no_grad()
def check_scores(classifier: Classifier, probe: Tensor, classes: int | None = None) -> None:
    """Check what a network returns.

    Args:
        classifier: the network.
        probe: (1, 3, height, width).
        classes: how many there must be; None for any number.

    Raises:
        ArgumentError: it does not return (N, classes) scores; the message says what it returns, and the remedy.
    """
    embeddings: list[tuple[Tensor, str]] = []

    def look(module: Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and getattr(module, "num_classes", None) == 0:  # timm's
            embeddings.append((output, "its num_classes is 0"))
        elif isinstance(output, Mapping) and output.get("logits") is None:
            found = {name: output.get(name) for name in _EMBEDDINGS}
            embeddings.extend((value, f"its {name}") for name, value in found.items() if isinstance(value, Tensor))

    with ExitStack() as hooks:
        for module in classifier.model.modules():
            if not isinstance(module, torch.jit.ScriptModule):
                hooks.callback(module.register_forward_hook(look).remove)
        scores: object = classifier.model(probe)
    for embedding, why in embeddings:
        if _is_same(scores, embedding):
            raise ArgumentError(
                Argument("model"),
                f": gives an embedding of {embedding[0].numel()} numbers ({why}), not class scores; pass a network "
                "with a classifier, or compare embeddings with similarity_score in Python.",
            )
    shape = f"scores of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else describe(scores)
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        raise ArgumentError(
            Argument("model"), f": gives {shape}, not (N, classes) scores; wrap it in a module that does."
        )
    if classes is not None and scores.shape[1] != classes:
        raise ArgumentError(
            Argument("model"),
            f": gives {shape}; the data set has {classes} classes, and the network's outputs must be these.",
        )


def _is_same(scores: object, embedding: Tensor) -> bool:
    """Return whether a network returns an embedding, perhaps reshaped, or has it in its output in place of scores."""
    if isinstance(scores, Mapping):
        return scores.get("logits") is None and any(value is embedding for value in scores.values())
    if not isinstance(scores, Tensor):
        return False
    return scores.data_ptr() == embedding.data_ptr() and scores.numel() == embedding.numel()


@torch.no_grad()
def problem_with_two(classifier: Classifier, probe: Tensor) -> str:
    """Say what is wrong with a network that fails on one photo but takes two, such as a photo and its mirror image."""
    with suppress(Exception):
        output = classifier.model(torch.cat([probe, probe]))
        if isinstance(output, Tensor) and not (output.dim() == 2 and len(output) == 2):
            return (
                f": fails on one photo, and of two it gives a tensor of shape {tuple(output.shape)}, which has no row "
                "for each photo; pass the network that gives (N, classes) scores, such as IRN's Net, not its CAM."
            )
    return ""
