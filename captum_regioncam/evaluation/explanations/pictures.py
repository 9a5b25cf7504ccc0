"""A photo beside its maps, and what the network sees in it."""

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution
from matplotlib.figure import Figure
from torch import Tensor

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.titles import TITLES
from captum_regioncam.visualization import show_attributions

__all__ = ["encode_maps", "figure_of", "likeliest", "probabilities_of"]


def figure_of(
    classifier: Classifier,
    photo: npt.NDArray[np.uint8],
    maps: Mapping[str, Tensor],
    found: Mapping[int, float],
    name: str,
) -> Figure:
    """Draw the photo and its maps, with a row for each class if there are several classes and methods."""
    titles = {index: f"{classifier.class_name(index)} ({index})" for index in found}
    probabilities = {titles[index]: p for index, p in found.items()}
    if len(found) > 1 and len(maps) > 1:
        rows = {
            titles[index]: {TITLES.get(method, method): one[place] for method, one in maps.items()}
            for place, index in enumerate(found)
        }
        return show_attributions(photo, rows, probabilities=probabilities)
    if len(found) > 1:
        panels = dict(zip(titles.values(), next(iter(maps.values())), strict=True))
        return show_attributions(photo, panels, probabilities=probabilities, image_title=name)
    [title], panels = titles.values(), {TITLES.get(method, method): one[0] for method, one in maps.items()}
    return show_attributions(photo, panels, image_title=f"{name}\n{title}, {probabilities[title]:.1%}")


@torch.no_grad()
def probabilities_of(classifier: Classifier, x: Tensor) -> Tensor:
    """Return the (classes,) probabilities of one photo."""
    scores = classifier.model(x)
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        raise ArgumentError(Argument("model"), ": does not return (N, classes) scores; wrap it in a module that does.")
    return scores[0].float().softmax(0).cpu()


def likeliest(classifier: Classifier, x: Tensor, count: int) -> tuple[list[float], list[int]]:
    """Return the probabilities and the numbers of the ``count`` most likely classes, the most likely first."""
    probabilities = probabilities_of(classifier, x)
    top = probabilities.topk(min(count, len(probabilities)))
    return top.values.tolist(), top.indices.tolist()


def encode_maps(maps: Mapping[str, Tensor], size: tuple[int, int]) -> bytes:
    """Return the content of a .npy file of (methods, classes, height, width) float32 maps, upsampled to a size."""
    content = io.BytesIO()
    np.save(content, np.stack([_at_photo_size(one, size) for one in maps.values()]))
    return content.getvalue()


def _at_photo_size(maps: Tensor, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Upsample (K, h, w) maps to (K, height, width)."""
    upsampled = LayerAttribution.interpolate(maps[None].float(), size, interpolate_mode="bilinear")
    array: npt.NDArray[np.float32] = upsampled[0].detach().cpu().numpy()
    return array
