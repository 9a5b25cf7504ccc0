"""Explanations of photos: for each, a picture of it and its maps, in a folder that keeps a record."""

import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from captum_regioncam.errors import reason_of
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.explanations.explainer import PhotoExplainer
from captum_regioncam.evaluation.explanations.files import Explained, PhotoFiles
from captum_regioncam.evaluation.explanations.names import MANIFEST, picture_names
from captum_regioncam.evaluation.explanations.photos import photos_in
from captum_regioncam.evaluation.explanations.pictures import figure_of, probabilities_of
from captum_regioncam.evaluation.layer_choice import check_layers, check_mode, choose_layers, tried
from captum_regioncam.evaluation.memory_format import format_for
from captum_regioncam.evaluation.methods import Method, named_methods
from captum_regioncam.evaluation.precision import check_precision, tried_in
from captum_regioncam.evaluation.runs import shared_folder
from captum_regioncam.evaluation.runs.bar import progress_bar
from captum_regioncam.evaluation.runs.provenance import checkpoint_of, device_name, provenance
from captum_regioncam.evaluation.runs.writer import Writer
from captum_regioncam.evaluation.runs.written import Written
from captum_regioncam.evaluation.score_check import check_scores
from captum_regioncam.files.outputs import OutputError, encode_figure
from captum_regioncam.files.text import printable

__all__ = ["Explanations", "write_explanations"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explanations(Written):
    """What :func:`write_explanations` did.

    Attributes:
        folder: where the pictures are.
        images: for each photo, the path of its ``picture``, and its ``classes`` with index, name, probability and, if
            they were asked for, {method: [[x0, y0, x1, y1], ...]} of its ``boxes``.
        failures: {photo: reason} for the photos that failed, and for folders that could not be read.

    Example::

        >>> classes = [{"index": 285, "name": "Egyptian cat", "probability": 0.62}]
        >>> images = {"cat.jpg": {"picture": "maps/cat_cam.png", "classes": classes}}
        >>> Explanations(Path("maps"), images, failures={}).images["cat.jpg"]["picture"]
        'maps/cat_cam.png'
    """

    images: Mapping[str, Mapping[str, object]]
    failures: Mapping[str, str]


def write_explanations(
    classifier: Classifier,
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str] = ".",
    *,
    methods: Iterable[Method] | Mapping[str, Method] = ("region-cam",),
    targets: Sequence[str | int] = (),
    layers: Sequence[str] | None = None,
    reshape: str | None = None,
    contrast: float = 4.0,
    refine: bool = False,
    precision: str = "float32",
    save_npy: bool = False,
    overlay: bool = False,
    masks: bool = False,
    boxes: bool = False,
    threshold: float | str = 0.15,
    show_progress: bool = True,
    about: Mapping[str, object] | None = None,
) -> Explanations:
    """For each photo, write a picture of it and its maps. A photo that fails does not stop the others.

    Args:
        classifier: the network.
        images: photos, and folders of photos.
        output: the folder for NAME_cam.png, and for manifest.json, which says what is in each picture.
        methods: the methods, as in :func:`evaluate`.
        targets: classes by number or name. Default: the most likely class of each photo.
        layers: dotted names of the layers that methods given by name read. Default: the stages found.
        reshape: the layout of these layers: "channels-last", or "tokens:N" or "tokens:N:M" with N tokens before the
            patches and M after them. Default: it is measured.
        contrast: the contrast of the method "region-cam"; see :class:`~captum_regioncam.LayerRegionCam`.
        refine: refine the maps with the photo, so that they follow its edges; see :func:`~captum_regioncam.refine`.
        precision: the precision of the network's passes: "float32", or "bfloat16" or "float16" under autocast. Maps
            are float32.
        save_npy: also write NAME_cam.npy: float32 (methods, classes, height, width), at the photo's size.
        overlay: also write NAME_METHOD_CLASS.png: the map over the photo, at the photo's size.
        masks: also write NAME_METHOD_CLASS_mask.png: 8-bit, 255 where the map is above ``threshold`` and 0 elsewhere,
            at the photo's size; see :func:`~captum_regioncam.to_mask`.
        boxes: also write the boxes of all regions of these masks to manifest.json, the largest region first: x0, y0,
            x1, y1 in the photo's pixels; see :func:`~captum_regioncam.to_boxes`. With ``resize="crop"``, boxes, masks,
            arrays and overlays are of the part of the photo that the network sees.
        threshold: of masks and boxes: a share of each map's maximum in [0, 1), or "otsu".
        show_progress: show a progress bar if there are several photos.
        about: further entries for the record, such as where the pictures come from, as JSON values.

    Returns:
        The pictures that were written, and the photos that failed.

    Raises:
        ArgumentError: there is no such class or layer, a folder has no photos, or ``output`` has files in the way that
            this package did not write.
        ValueError: ``threshold`` is neither in [0, 1) nor "otsu".
        ImportError: boxes, or "otsu", need OpenCV, which is not installed.
        OSError: the files cannot be written.

    Example::

        >>> classifier = Classifier.load("torchvision:resnet18", "none", size=64)
        >>> explained = write_explanations(classifier, ["photos/images"], "explained", targets=["tabby"])
        >>> len(explained.images), explained.failures
        (4, {})
    """
    folder = Path(output)
    files = PhotoFiles(save_npy, overlay, masks, boxes, threshold)
    files.check()
    check_precision(precision)
    check_mode(classifier)
    named = named_methods(methods)
    photos, failures = photos_in(images)
    classes = list(dict.fromkeys(classifier.class_index(str(target)) for target in targets))
    check_layers(classifier, layers)
    with tried(classifier) as probe:
        check_scores(classifier, probe)
        if reshape is not None:
            choose_layers(classifier, layers, probe, reshape)
    run = partial(probabilities_of, classifier)
    is_named = all(isinstance(method, str) for method in named.values())  # others may expect the usual memory format
    memory_format = format_for(run, probe) if is_named else torch.contiguous_format
    if precision != "float32":
        with tried_in(precision, classifier.device):
            run(probe.contiguous(memory_format=memory_format))
    explainer = PhotoExplainer(
        classifier, named, classes, layers, reshape, contrast, bool(refine), precision, memory_format
    )
    names = picture_names(photos, folder)
    settings: Mapping[str, object] = {
        **classifier.settings, "resize": classifier.resize, "contrast": contrast, "method": list(named),
        "layers": layers, "target": list(map(str, targets)),
        **({} if reshape is None else {"reshape": reshape}), **({"refine": True} if refine else {}),
        **({} if precision == "float32" else {"precision": precision}), **files.settings(),
    }  # fmt: skip
    origin = provenance(
        {
            "model": classifier.settings["model"],
            "checkpoint": checkpoint_of(classifier.model, classifier.weights),
            "device": device_name(classifier.device),
            "refine": bool(refine),
            "precision": precision,
            **(about or {}),
            "settings": settings,
        }
    )
    start = time.monotonic()
    planned = [*files.names(names.values(), list(named), classes), MANIFEST]
    inputs = set(map(os.path.realpath, photos))
    writer = shared_folder.begin(
        folder, "explain", planned, inputs, settings, origin, last=MANIFEST, optional=("threshold",)
    )
    explained: dict[str, Mapping[str, object]] = {}

    def outcome() -> dict[str, object]:
        return {"photos": len(explained), "seconds": round(time.monotonic() - start, 1)}

    try:
        with progress_bar(len(photos), "photo", hidden=len(photos) == 1 or not show_progress) as progress:
            for photo in photos:
                try:
                    found = explainer(photo)
                    _write(writer, names[photo], found, classifier, printable(Path(photo).name), files)
                    picture = folder / names[photo]
                    explained[photo] = {"picture": str(picture), "classes": files.described(found, classifier)}
                    seen = ", ".join(map(classifier.class_name, found.probabilities))
                    _log.info("%s: %s -> %s", photo, seen, picture)
                except (OutputError, BrokenPipeError):  # the next pictures, or lines, would fail as well
                    raise
                except Exception as error:
                    failures[photo] = reason_of(error)
                progress.update()
    except BaseException:
        with suppress(ValueError, OutputError):
            shared_folder.end(writer, outcome())
        raise
    manifest = None
    if explained or MANIFEST in writer.stamps:  # an old one would be mistaken for this run's
        of_layers = {"layers": explainer.stages.describe().split(", ")} if explainer.stages else {}
        content = origin | of_layers | outcome() | {"images": explained, "failures": failures}
        manifest = MANIFEST, (json.dumps(content, indent=1) + "\n").encode()
    shared_folder.end(writer, outcome(), manifest)
    return Explanations(folder, explained, failures)


def _write(
    writer: Writer, picture: str, found: Explained, classifier: Classifier, title: str, files: PhotoFiles
) -> None:
    """Write a photo's files."""
    figure = figure_of(classifier, found.pixels, found.maps, found.probabilities, title)
    writer.write(picture, encode_figure(figure, Path(picture)))
    for name, content in files.contents(picture, found):
        writer.write(name, content)
