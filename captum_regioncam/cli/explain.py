"""``captum-regioncam explain``: pictures of photos and their class activation maps."""

import argparse
import functools
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captum_regioncam.cli.classifier import Classifier
from captum_regioncam.cli.network import check_size, classifier_of, layers_named, report_failures, stages_of
from captum_regioncam.errors import UsageError, reason_of
from captum_regioncam.files import written_whole
from captum_regioncam.methods import TITLES, Attribute, make_method
from captum_regioncam.photos import PHOTO_SUFFIXES, read_photo
from captum_regioncam.pictures import overlay
from captum_regioncam.stages import Stages
from captum_regioncam.visualization import show_attributions

__all__ = ["likeliest", "run", "save_figure"]


def run(options: argparse.Namespace) -> int:
    """Explain photos; return the exit status."""
    check_size(options)
    images = _files(options.images)
    classifier = classifier_of(options)
    targets = list(dict.fromkeys(classifier.class_index(one) for part in options.target for one in part))
    named = layers_named(classifier, options.layers)
    layers: Stages | None = None
    attributions: dict[str, Attribute] = {}
    outputs = _outputs(images, options.output)
    failures: dict[str, str] = {}
    explained: dict[str, Any] = {}
    for image in tqdm(images, unit="photo", disable=len(images) == 1):
        try:
            seen, fitted = classifier.fit(read_photo(image))
            x = classifier.preprocess(fitted).to(classifier.device)
            probabilities = _probabilities(classifier, x)
            classes = targets or [int(probabilities.argmax())]
            layers = layers or stages_of(classifier.model, x, named)
            attributions = attributions or {
                method: make_method(method, classifier.model, layers, x, contrast=options.contrast)
                for method in options.method
            }
            maps = {method: attribute(x, [classes])[0] for method, attribute in attributions.items()}
            found = {index: float(probabilities[index]) for index in classes}
            output = outputs[image]
            save_figure(_figure(classifier, np.asarray(seen), maps, found, Path(image).name), output)
            if options.save_npy:
                array = np.stack([_at_photo_size(one, (seen.height, seen.width)) for one in maps.values()])
                _save(functools.partial(np.save, arr=array), output.with_suffix(".npy"))
            if options.overlay:
                for method, of_classes in maps.items():
                    for index, one in zip(classes, of_classes, strict=True):
                        path = output.with_name(f"{output.stem.removesuffix('_cam')}_{method}_{index}.png")
                        picture = Image.fromarray(overlay(np.asarray(seen), one))
                        _save(functools.partial(picture.save, format="PNG"), path)
            explained[image] = {
                "picture": str(output),
                "classes": [
                    {"index": index, "name": classifier.class_name(index), "probability": round(p, 6)}
                    for index, p in found.items()
                ],
            }
            tqdm.write(f"{image}: {', '.join(map(classifier.class_name, classes))} -> {output}")
        except Exception as error:
            failures[image] = reason_of(error)
    if explained and layers:
        _write_manifest(options, layers, explained)
    report_failures(failures, len(images), "images failed")
    return int(bool(failures))


def _files(images: list[str]) -> list[str]:
    """Replace folders by the image files in them; other paths stay as they are."""
    files = []
    for image in images:
        if not Path(image).is_dir():
            files.append(image)
            continue
        inside = [str(path) for path in sorted(Path(image).iterdir()) if path.suffix.lower() in PHOTO_SUFFIXES]
        if not inside:
            raise UsageError(f"{image}: the folder has no image files ({', '.join(PHOTO_SUFFIXES)}).")
        files += inside
    return list(dict.fromkeys(files))


def _figure(
    classifier: Classifier,
    photo: npt.NDArray[Any],
    maps: dict[str, Tensor],
    found: dict[int, float],
    name: str,
) -> Figure:
    """Draw the photo and its maps, with a row for each class if there are several classes and methods."""
    titles = {index: f"{classifier.class_name(index)} ({index})" for index in found}
    probabilities = {titles[index]: p for index, p in found.items()}
    if len(found) > 1 and len(maps) > 1:
        rows = {
            titles[index]: {TITLES[method]: one[place] for method, one in maps.items()}
            for place, index in enumerate(found)
        }
        return show_attributions(photo, rows, probabilities=probabilities)
    if len(found) > 1:
        panels = dict(zip(titles.values(), next(iter(maps.values())), strict=True))
        return show_attributions(photo, panels, probabilities=probabilities, image_title=name)
    [title], panels = titles.values(), {TITLES[method]: one[0] for method, one in maps.items()}
    return show_attributions(photo, panels, image_title=f"{name}\n{title}, {probabilities[title]:.1%}")


def _write_manifest(options: argparse.Namespace, layers: Stages, explained: dict[str, Any]) -> None:
    """Write how the pictures were made, so that they can be made again."""
    names = ("model", "weights", "size", "mean", "std", "resize", "contrast", "method")
    content = {
        "versions": {package: version(package) for package in ("captum_regioncam", "torch", "captum")},
        "settings": {name: getattr(options, name) for name in names},
        "layers": layers.describe().split(", "),
        "images": explained,
    }
    with written_whole(options.output / "manifest.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


@torch.no_grad()
def _probabilities(classifier: Classifier, x: Tensor) -> Tensor:
    """Return the (classes,) probabilities of one photo."""
    scores = classifier.model(x)
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        raise UsageError("--model: the network does not return (N, classes) scores; wrap it in a factory that does.")
    return scores[0].float().softmax(0).cpu()


def likeliest(classifier: Classifier, x: Tensor, count: int) -> tuple[list[float], list[int]]:
    """Return the probabilities and the numbers of the likeliest classes."""
    probabilities = _probabilities(classifier, x)
    top = probabilities.topk(min(count, len(probabilities)))
    return top.values.tolist(), top.indices.tolist()


def _at_photo_size(maps: Tensor, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Upsample (K, h, w) maps to (K, height, width)."""
    upsampled = LayerAttribution.interpolate(maps[None].float(), size, interpolate_mode="bilinear")
    array: npt.NDArray[np.float32] = upsampled[0].detach().cpu().numpy()
    return array


def _outputs(images: list[str], folder: Path) -> dict[str, Path]:
    """Name each image's picture after the image. If the images' folders differ, the pictures' folders do too."""
    parents = {image: Path(image).resolve().parent for image in images}
    common = Path(os.path.commonpath([*parents.values()]))
    taken = {Path(image).resolve() for image in images}  # a picture never replaces a photo or another picture
    outputs = {}
    for image, parent in parents.items():
        here, path = folder / parent.relative_to(common), Path(image)
        names = (path.stem, path.name.replace(".", "_"), *(f"{path.stem}_{i}" for i in range(2, len(images) + 3)))
        free = (here / f"{name}_cam.png" for name in names if (here / f"{name}_cam.png").resolve() not in taken)
        outputs[image] = next(free)
        taken.add(outputs[image].resolve())
    return outputs


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the path's ending names, or as PNG if it has none."""
    _save(functools.partial(figure.savefig, format=path.suffix[1:] or "png"), path)


def _save(write: Callable[[Path], object], path: Path) -> None:
    with written_whole(path) as temporary:
        write(temporary)
