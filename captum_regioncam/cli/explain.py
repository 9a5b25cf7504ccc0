"""``captum-regioncam explain``: pictures of photos and their class activation maps."""

import argparse
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from captum_regioncam.cli.classifier import Classifier
from captum_regioncam.cli.network import classifier_of, layers_named, report_failures, stages_of
from captum_regioncam.errors import UsageError
from captum_regioncam.files import read_photo, written_whole
from captum_regioncam.methods import TITLES, make_method
from captum_regioncam.stages import Stages
from captum_regioncam.visualization import show_attributions

__all__ = ["likeliest", "run", "save_figure", "titled_maps"]


def run(options: argparse.Namespace) -> int:
    """Explain photos; return the exit status."""
    classifier = classifier_of(options)
    targets = list(dict.fromkeys(classifier.class_index(target) for target in options.target))
    named = layers_named(classifier.model, options.layers)
    layers: Stages | None = None
    outputs = _outputs(options.images, options.output)
    failures: dict[str, str] = {}
    for image in tqdm(options.images, unit="photo", disable=len(options.images) == 1):
        try:
            seen, fitted = classifier.fit(read_photo(image))
            x = classifier.preprocess(fitted).to(classifier.device)
            classes = targets or likeliest(classifier, x, 1)[1]
            layers = layers or stages_of(classifier.model, x, named)
            maps = titled_maps(classifier, layers, options.method, x, classes, options.contrast)
            output = outputs[image]
            figure = show_attributions(
                np.asarray(seen), maps, columns=min(1 + len(maps), 6), image_title=Path(image).name
            )
            save_figure(figure, output)
            if options.save_npy:
                array = _at_photo_size(maps, (seen.height, seen.width))
                array = array.reshape(len(classes), len(options.method), *array.shape[1:]).swapaxes(0, 1)
                _save(functools.partial(np.save, arr=array), output.with_suffix(".npy"))
            tqdm.write(f"{image}: {', '.join(map(classifier.class_name, classes))} -> {output}")
        except Exception as error:
            failures[image] = str(error) or type(error).__name__
    report_failures(failures, len(options.images), "images failed")
    return int(bool(failures))


@torch.no_grad()
def likeliest(classifier: Classifier, x: Tensor, count: int) -> tuple[list[float], list[int]]:
    """Return the probabilities and the numbers of the likeliest classes."""
    scores = classifier.model(x)
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        raise UsageError("--model: the network does not return (N, classes) scores; wrap it in a factory that does.")
    top = scores[0].float().softmax(0).topk(min(count, scores.shape[1]))
    return top.values.tolist(), top.indices.tolist()


def titled_maps(
    classifier: Classifier, layers: Stages, methods: list[str], x: Tensor, targets: list[int], contrast: float = 3.0
) -> dict[str, Tensor]:
    """Return a map per target and method, titled by both."""
    attributed = {
        method: make_method(method, classifier.model, layers, x, contrast=contrast)(x, [targets])[0]
        for method in methods
    }
    return {
        f"{TITLES[method]}\n{classifier.class_name(target)} ({target})": maps[None, index : index + 1]
        for index, target in enumerate(targets)
        for method, maps in attributed.items()
    }


def _at_photo_size(maps: dict[str, Tensor], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    upsampled = [LayerAttribution.interpolate(one.float(), size, interpolate_mode="bilinear") for one in maps.values()]
    stacked: npt.NDArray[np.float32] = torch.cat(upsampled, dim=1)[0].detach().cpu().numpy()
    return stacked


def _outputs(images: list[str], folder: Path) -> dict[str, Path]:
    """Name the picture of each image: photos of one folder after themselves, others with the folders they differ in."""
    parents = {image: Path(image).resolve().parent for image in images}
    common = Path(os.path.commonpath([*parents.values()]))
    taken = {Path(image).resolve() for image in images}  # a picture never replaces a photo, nor another picture
    outputs = {}
    for image, parent in parents.items():
        here, path = folder / parent.relative_to(common), Path(image)
        names = (path.stem, path.name.replace(".", "_"), *(f"{path.stem}_{i}" for i in range(2, len(images) + 3)))
        free = (here / f"{name}_cam.png" for name in names if (here / f"{name}_cam.png").resolve() not in taken)
        outputs[image] = next(free)
        taken.add(outputs[image].resolve())
    return outputs


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, in the format that the path's ending names; PNG without one."""
    _save(functools.partial(figure.savefig, format=path.suffix[1:] or "png"), path)


def _save(write: Callable[[Path], object], path: Path) -> None:
    with written_whole(path) as temporary:
        write(temporary)
