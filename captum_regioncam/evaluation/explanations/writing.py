"""Explanations of photos: for each, a picture of it and its maps, in a folder that keeps a record."""

import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captum_regioncam.errors import reason_of
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.explanations.names import MANIFEST, all_names, npy_name, overlay_name, picture_names
from captum_regioncam.evaluation.explanations.photos import photos_in
from captum_regioncam.evaluation.explanations.pictures import encode_maps, figure_of, probabilities_of
from captum_regioncam.evaluation.layer_choice import check_layers, check_mode, choose_layers, tried
from captum_regioncam.evaluation.memory_format import format_for
from captum_regioncam.evaluation.methods import Attribute, Method, as_attribute, make_method, named_methods
from captum_regioncam.evaluation.precision import check_precision, computed_in, tried_in
from captum_regioncam.evaluation.runs import shared_folder
from captum_regioncam.evaluation.runs.provenance import checkpoint_of, device_name, provenance
from captum_regioncam.evaluation.runs.writer import Writer
from captum_regioncam.evaluation.runs.written import Written
from captum_regioncam.evaluation.score_check import check_scores
from captum_regioncam.extras import extra
from captum_regioncam.files.outputs import OutputError, encode_figure
from captum_regioncam.files.photos import encode_image, read_photo
from captum_regioncam.files.text import printable
from captum_regioncam.pictures import overlay as laid_over
from captum_regioncam.refinement import refine as refined
from captum_regioncam.stages.finder import Stages

with extra("demo"):
    from tqdm import tqdm

__all__ = ["Explanations", "write_explanations"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explanations(Written):
    """What :func:`write_explanations` did.

    Attributes:
        folder: where the pictures are.
        images: for each photo, the path of its ``picture``, and its ``classes`` with index, name and probability.
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
        show_progress: show a progress bar if there are several photos.
        about: further entries for the record, such as where the pictures come from, as JSON values.

    Returns:
        The pictures that were written, and the photos that failed.

    Raises:
        ArgumentError: there is no such class or layer, a folder has no photos, or ``output`` has files in the way that
            this package did not write.
        OSError: the files cannot be written.

    Example::

        >>> classifier = Classifier.load("torchvision:resnet18", "none", size=64)
        >>> explained = write_explanations(classifier, ["photos/images"], "explained", targets=["tabby"])
        >>> len(explained.images), explained.failures
        (4, {})
    """
    folder = Path(output)
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
    explainer = _Explainer(
        classifier, named, classes, layers, reshape, contrast, bool(refine), precision, memory_format
    )
    names = picture_names(photos, folder)
    settings: Mapping[str, object] = {
        **classifier.settings, "resize": classifier.resize, "contrast": contrast, "method": list(named),
        "layers": layers, "target": list(map(str, targets)),
        **({} if reshape is None else {"reshape": reshape}), **({"refine": True} if refine else {}),
        **({} if precision == "float32" else {"precision": precision}),
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
    planned = list(all_names(names.values(), list(named), classes, save_npy=save_npy, overlay=overlay))
    inputs = set(map(os.path.realpath, photos))
    writer = shared_folder.begin(folder, "explain", planned, inputs, settings, origin)
    explained: dict[str, Mapping[str, object]] = {}

    def outcome() -> dict[str, object]:
        return {"photos": len(explained), "seconds": round(time.monotonic() - start, 1)}

    try:
        for photo in tqdm(photos, unit="photo", disable=len(photos) == 1 or not show_progress):
            try:
                found = explainer(photo)
                _write(writer, names[photo], found, classifier, printable(Path(photo).name), save_npy, overlay)
                picture = folder / names[photo]
                explained[photo] = {"picture": str(picture), "classes": found.described(classifier)}
                seen = ", ".join(map(classifier.class_name, found.probabilities))
                _log.info("%s: %s -> %s", photo, seen, picture)
            except (OutputError, BrokenPipeError):  # the next pictures, or lines, would fail as well
                raise
            except Exception as error:
                failures[photo] = reason_of(error)
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


@dataclass(frozen=True)
class _Explained:
    """A photo's maps.

    Attributes:
        pixels: (height, width, 3) what the network sees.
        maps: for each method, (K, *grid).
        probabilities: the probabilities of the K classes.
    """

    pixels: npt.NDArray[np.uint8]
    maps: Mapping[str, Tensor]
    probabilities: Mapping[int, float]

    def described(self, classifier: Classifier) -> list[dict[str, object]]:
        return [
            {"index": index, "name": classifier.class_name(index), "probability": round(p, 6)}
            for index, p in self.probabilities.items()
        ]


@dataclass
class _Explainer:
    """Explains photos; the layers are chosen with the first of them."""

    classifier: Classifier
    methods: Mapping[str, Method]
    targets: Sequence[int]
    layers: Sequence[str] | None
    reshape: str | None
    contrast: float
    refine: bool
    precision: str
    memory_format: torch.memory_format
    stages: Stages | None = None
    attributions: dict[str, Attribute] = field(default_factory=dict)

    def __call__(self, photo: str) -> _Explained:
        seen, fitted = self.classifier.fit(read_photo(photo))
        device = self.classifier.device
        x = self.classifier.preprocess(fitted).to(device).contiguous(memory_format=self.memory_format)
        with computed_in(self.precision, device):
            probabilities = probabilities_of(self.classifier, x)
        classes = list(self.targets) or [int(probabilities.argmax())]
        self.attributions = self.attributions or {name: self._made(method, x) for name, method in self.methods.items()}
        with computed_in(self.precision, device):
            maps = {name: attribute(x, [classes])[0].float() for name, attribute in self.attributions.items()}
        if self.refine:
            maps = {name: refined(one, seen) for name, one in maps.items()}
        return _Explained(np.asarray(seen), maps, {index: float(probabilities[index]) for index in classes})

    def _made(self, method: Method, x: Tensor) -> Attribute:
        if not isinstance(method, str):
            return as_attribute(method)
        self.stages = self.stages or choose_layers(self.classifier, self.layers, x, self.reshape)
        return make_method(method, self.classifier.model, self.stages, x, contrast=self.contrast)


def _write(
    writer: Writer,
    picture: str,
    found: _Explained,
    classifier: Classifier,
    title: str,
    save_npy: bool,
    overlay: bool,
) -> None:
    """Write a photo's files."""
    figure = figure_of(classifier, found.pixels, found.maps, found.probabilities, title)
    writer.write(picture, encode_figure(figure, Path(picture)))
    if save_npy:
        height, width, _ = found.pixels.shape
        writer.write(npy_name(picture), encode_maps(found.maps, (height, width)))
    if overlay:
        for method, maps in found.maps.items():
            for index, one in zip(found.probabilities, maps, strict=True):
                image = Image.fromarray(laid_over(found.pixels, one))
                writer.write(overlay_name(picture, method, index), encode_image(image))
