"""``captum-regioncam explain``: pictures of photos and their class activation maps."""

import argparse
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
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
from captum_regioncam.files import OutputError, encode_figure
from captum_regioncam.methods import TITLES, Attribute, make_method
from captum_regioncam.photos import PHOTO_SUFFIXES, read_photo
from captum_regioncam.pictures import overlay
from captum_regioncam.provenance import checkpoint_of, device_name, provenance
from captum_regioncam.record import Record, Run, Writer, fits, listed, locked
from captum_regioncam.stages import Stages
from captum_regioncam.terminal import printable
from captum_regioncam.visualization import show_attributions

__all__ = ["likeliest", "run"]

_MANIFEST = "manifest.json"
_PATIENCE = 60  # seconds to wait for another process that changes the record
_SETTINGS = ("model", "weights", "size", "mean", "std", "resize", "contrast", "method", "layers", "target")


def run(options: argparse.Namespace) -> int:
    """Explain photos; return the exit status."""
    check_size(options)
    images, failures = _files(options.images)
    classifier = classifier_of(options)
    targets = list(dict.fromkeys(classifier.class_index(one) for part in options.target for one in part))
    named = layers_named(classifier, options.layers)
    layers: Stages | None = None
    attributions: dict[str, Attribute] = {}
    outputs = _outputs(images, options.output)
    explained: dict[str, Any] = {}
    origin = provenance(
        options.command_line,
        model=options.model,
        checkpoint=checkpoint_of(classifier.model, options.weights),
        device=device_name(classifier.device),
        precision="float32",
        settings={name: getattr(options, name) for name in _SETTINGS},
    )
    planned = list(_planned(options, outputs, targets))
    with _writing(options.output, planned, set(map(os.path.realpath, images)), origin, explained) as writer:
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
                output = options.output / outputs[image]
                figure = _figure(classifier, np.asarray(seen), maps, found, printable(Path(image).name))
                writer.write(outputs[image], encode_figure(figure, output))
                if options.save_npy:
                    array = np.stack([_at_photo_size(one, (seen.height, seen.width)) for one in maps.values()])
                    writer.write(_with_ending(outputs[image], ".npy"), _npy(array))
                if options.overlay:
                    for method, of_classes in maps.items():
                        for index, one in zip(classes, of_classes, strict=True):
                            writer.write(_overlay(outputs[image], method, index), _png(overlay(np.asarray(seen), one)))
                explained[image] = {
                    "picture": str(output),
                    "classes": [
                        {"index": index, "name": classifier.class_name(index), "probability": round(p, 6)}
                        for index, p in found.items()
                    ],
                }
                tqdm.write(printable(f"{image}: {', '.join(map(classifier.class_name, classes))} -> {output}"))
            except OutputError:  # the next pictures would fail as well
                raise
            except Exception as error:
                failures[image] = reason_of(error)
        if explained and layers:
            about = origin | {"layers": layers.describe().split(", "), "photos": len(explained), "images": explained}
            writer.write(_MANIFEST, (json.dumps(about, indent=1) + "\n").encode())
    report_failures(failures, len(images) + len(failures.keys() - set(images)), "images failed")
    return int(bool(failures))


def _files(images: list[str]) -> tuple[list[str], dict[str, str]]:
    """Replace folders by the photos in them, and return these and why other folders cannot be read.

    Hidden files, and pictures that this package wrote, are no photos unless they are named.
    """
    files: list[str] = []
    failures = {}
    for image in images:
        if not os.path.isdir(image):
            files.append(image)
            continue
        written = listed(Path(image))
        try:
            entries = sorted(Path(image).iterdir())
        except OSError as error:
            failures[image] = f"cannot be read ({error.strerror})."
            continue
        inside = [str(path) for path in entries if _is_photo(path) and Path(os.path.realpath(path)) not in written]
        if not inside:
            raise UsageError(f"{image}: the folder has no image files ({', '.join(PHOTO_SUFFIXES)}).")
        files += inside
    return list(dict.fromkeys(files)), failures


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and os.path.isfile(path)


def _planned(options: argparse.Namespace, outputs: dict[str, str], targets: list[int]) -> Iterator[str]:
    """Yield the names of the files that will be written, as far as they are known before the first photo."""
    for picture in outputs.values():
        yield picture
        if options.save_npy:
            yield _with_ending(picture, ".npy")
        if options.overlay:
            yield from (_overlay(picture, method, index) for method in options.method for index in targets)
    yield _MANIFEST


@contextmanager
def _writing(
    folder: Path, names: list[str], inputs: set[str], origin: dict[str, Any], explained: dict[str, Any]
) -> Iterator[Writer]:
    """Check that the files can be written, and keep the folder's record while they are.

    Raises:
        UsageError: there is something of one of these names that this package did not write.
        OutputError: the folder cannot be written to.
    """

    def checked() -> Record:
        record = Record.read(folder)
        if foreign := record.foreign(names):
            raise UsageError(
                f"--output {folder}: has {foreign}, which this command did not write as it is. Choose another folder."
            )
        return record

    start = time.monotonic()
    checked()  # so that a run that is refused leaves nothing behind
    with locked(folder, "--output", wait=_PATIENCE):
        record = checked()
        listed_ = {name for run in record.runs for name in run.results}
        stamps = {name: record.stamps(name) for name in listed_ if os.path.realpath(folder / name) not in inputs}
        token = record.begin(Run("explain", origin["settings"]), origin)
    try:
        yield Writer(folder, token, stamps=stamps)
    finally:
        with suppress(UsageError, OutputError), locked(folder, "--output", wait=_PATIENCE):
            seconds = round(time.monotonic() - start, 1)
            Record.read(folder).end(token, photos=len(explained), seconds=seconds)


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


def _outputs(images: list[str], folder: Path) -> dict[str, str]:
    """Name each image's picture after the image, as a path below the output folder.

    If the images' folders differ, the pictures' folders do too. A picture never takes the place of a photo or of
    another picture.
    """
    parents = {image: Path(os.path.abspath(image)).parent for image in images}
    common = Path(os.path.commonpath([*parents.values()])) if parents else Path()
    taken = set(map(os.path.realpath, images))
    outputs = {}
    for image, parent in parents.items():
        here, path = parent.relative_to(common), Path(image)
        stems = (path.stem, path.name.replace(".", "_"), *(f"{path.stem}_{i}" for i in range(2, len(images) + 3)))
        names = (here / fits(stem, "_cam.png") for stem in stems)
        outputs[image] = next(name.as_posix() for name in names if os.path.realpath(folder / name) not in taken)
        taken.add(os.path.realpath(folder / outputs[image]))
    return outputs


def _with_ending(picture: str, ending: str) -> str:
    return picture.removesuffix(".png") + ending


def _overlay(picture: str, method: str, index: int) -> str:
    path = PurePosixPath(picture)
    return path.with_name(fits(path.name.removesuffix("_cam.png"), f"_{method}_{index}.png")).as_posix()


def _npy(array: npt.NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()
