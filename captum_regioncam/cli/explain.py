"""``captum-regioncam explain``: pictures of photos and their class activation maps."""

import argparse
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
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

from captum_regioncam.cli.network import check_size, classifier_of, layers_named, report_failures, stages_of
from captum_regioncam.cli.terminal import printable, say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.errors import reason_of
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.methods import TITLES, Attribute, make_method
from captum_regioncam.evaluation.runs.provenance import checkpoint_of, device_name, provenance
from captum_regioncam.evaluation.runs.record import Record, Run, locked, written_below
from captum_regioncam.evaluation.runs.writer import Writer
from captum_regioncam.files.outputs import OutputError, check_folder, encode_figure, fits
from captum_regioncam.files.photos import PHOTO_SUFFIXES, encode_image, read_photo
from captum_regioncam.files.stamps import Stamp
from captum_regioncam.pictures import overlay
from captum_regioncam.stages import Stages
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
    start = time.monotonic()
    inputs = set(map(os.path.realpath, images))
    writer = _begin(options.output, list(_planned(options, outputs, targets)), inputs, origin)
    try:
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
                output, pixels = options.output / outputs[image], np.asarray(seen)
                figure = _figure(classifier, pixels, maps, found, printable(Path(image).name))
                writer.write(outputs[image], encode_figure(figure, output))
                if options.save_npy:
                    array = np.stack([_at_photo_size(one, (seen.height, seen.width)) for one in maps.values()])
                    writer.write(_with_ending(outputs[image], ".npy"), _npy(array))
                if options.overlay:
                    for method, of_classes in maps.items():
                        for index, one in zip(classes, of_classes, strict=True):
                            writer.write(
                                _overlay(outputs[image], method, index),
                                encode_image(Image.fromarray(overlay(pixels, one))),
                            )
                explained[image] = {
                    "picture": str(output),
                    "classes": [
                        {"index": index, "name": classifier.class_name(index), "probability": round(p, 6)}
                        for index, p in found.items()
                    ],
                }
                tqdm.write(printable(f"{image}: {', '.join(map(classifier.class_name, classes))} -> {output}"))
            except (OutputError, BrokenPipeError):  # the next pictures, or lines, would fail as well
                raise
            except Exception as error:
                failures[image] = reason_of(error)
    except BaseException:
        with suppress(UsageError, OutputError):
            _end(writer, None, **_outcome(explained, start))
        raise
    outcome = _outcome(explained, start)
    of_layers = {"layers": layers.describe().split(", ")} if layers else {}
    of_photos = {"images": explained, "failures": failures}
    is_of_use = explained or _MANIFEST in writer.stamps  # an old one would pass for this run's
    _end(writer, origin | of_layers | outcome | of_photos if is_of_use else None, **outcome)
    report_failures(failures, len(images) + len(failures.keys() - set(images)), "images failed")
    return int(bool(failures))


def _outcome(explained: dict[str, Any], start: float) -> dict[str, Any]:
    return {"photos": len(explained), "seconds": round(time.monotonic() - start, 1)}


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
        written = written_below(Path(image))
        try:
            entries = sorted(Path(image).iterdir())
        except OSError as error:
            failures[image] = f"cannot be read ({error.strerror})."
            continue
        photos = list(filter(_is_photo, entries))
        inside = [str(path) for path in photos if Path(os.path.realpath(path)) not in written]
        if len(inside) < len(photos):
            say(f"{image}: {len(photos) - len(inside):,} pictures are this package's own and are skipped.", error=True)
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


def _begin(folder: Path, names: list[str], inputs: set[str], origin: dict[str, Any]) -> Writer:
    """Check that the files can be written, and begin a session in the folder's record.

    Several explain commands may write to one folder at a time; they change its record one after the other.

    Raises:
        UsageError: there is something of one of these names that this package did not write.
        OutputError: the folder cannot be written to.
    """

    def checked() -> tuple[Record, dict[str, list[Stamp]]]:
        record = Record.read(folder)
        listing = record.listing()
        edited = (name for name in names if record.exists(name) and not record.is_ours(name, listing))
        if obstacle := record.obstacle(names, listing):
            raise UsageError(f"--output {folder}: {obstacle}.")
        if name := next(edited, None):
            raise UsageError(
                f"--output {folder}: has {name}, which is not as this package wrote it. Move it, or choose another "
                "folder."
            )
        return record, listing

    checked()  # so that a run that is refused leaves nothing behind
    check_folder(folder)
    with locked(folder, "--output", wait=_PATIENCE):
        record, listing = checked()
        alike = (run for run in record.of("explain") if run.settings == origin["settings"] and not run.is_alive())
        token = record.begin(next(alike, Run("explain", origin["settings"])), origin)
    ours = (name for name in listing if os.path.realpath(folder / name) not in inputs)
    return Writer(folder, token, stamps={name: listing[name] for name in ours if record.is_ours(name, listing)})


def _end(writer: Writer, manifest: dict[str, Any] | None, **outcome: Any) -> None:
    """End the session, and write the manifest, which another explain command may have replaced meanwhile.

    Raises:
        UsageError, OutputError: the record or the manifest cannot be written.
    """
    with locked(writer.folder, "--output", wait=_PATIENCE):
        if manifest is not None:
            record = Record.read(writer.folder)
            listing = record.listing()
            if record.is_ours(_MANIFEST, listing):
                writer.stamps[_MANIFEST] = listing[_MANIFEST]
            try:
                writer.write(_MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
            except ValueError as error:
                raise OutputError(str(error)) from error
        Record.read(writer.folder).end(writer.token, **outcome)


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
