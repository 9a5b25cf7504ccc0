"""``captum-regioncam demo``: a photo of a cat, explained offline."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_regioncam.cli import texts
from captum_regioncam.cli.options import Called
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.explanations.pictures import likeliest
from captum_regioncam.evaluation.methods import make_method
from captum_regioncam.evaluation.runs.written import check_named
from captum_regioncam.evaluation.titles import TITLES
from captum_regioncam.files.outputs import check_picture, encode_figure, is_stream, write_output
from captum_regioncam.pictures import cut_out, overlay
from captum_regioncam.refinement import refine
from captum_regioncam.regions import to_mask
from captum_regioncam.stages import find_stages

__all__ = ["Options", "run"]

_THRESHOLD = 0.15  # at which IRN cuts seeds


@dataclass(frozen=True)
class Options:
    """The options of ``captum-regioncam demo``."""

    output: Path


def run(options: Options, called: Called) -> int:
    """Draw the cat; return the exit status."""
    check_picture("output", options.output)
    check_named(options.output)
    try:
        from skimage.data import chelsea
    except ImportError as error:
        raise UsageError(f'the demo needs: pip install "captum_regioncam[demo]" ({error}).') from error
    classifier = Classifier.load()
    photo = Image.fromarray(chelsea())
    x = classifier.transform(photo)
    probabilities, classes = likeliest(classifier, x, 5)
    say("EfficientNet-Lite0 sees in scikit-image's cat:")
    for probability, index in zip(probabilities, classes, strict=True):
        say(f"  {probability:6.1%}  {classifier.class_name(index)} ({index})")
    stages = find_stages(classifier.model, x)
    say(f"Stages, shallow to deep: {stages.describe()}")
    start = time.perf_counter()
    region_cam = make_method("region-cam", classifier.model, stages, x)(x, [classes[:1]])
    say(f"Region-CAM of one photo over {len(stages)} stages: {time.perf_counter() - start:.2f} s")
    maps = {
        TITLES[method]: make_method(method, classifier.model, stages, x)(x, [classes[:1]])[0]
        for method in ("grad-cam", "layer-cam")
    } | {f"{TITLES['region-cam']}, refined": refine(region_cam[0], photo)}
    title = f"{classifier.class_name(classes[0])} ({classes[0]}), {probabilities[0]:.0%}"
    figure = _drawn(np.asarray(photo), title, maps)
    write_output(options.output, encode_figure(figure, options.output))
    say(f"Wrote {options.output}", error=is_stream(options.output))
    for line in texts.AFTER_DEMO:
        say(line)
    return 0


def _drawn(photo: npt.NDArray[np.uint8], title: str, maps: Mapping[str, Tensor]) -> Figure:
    """Draw the photo and its maps, and below each map what it cuts out of the photo."""
    figure = Figure(figsize=(3.2 * (1 + len(maps)), 4.8), layout="constrained")
    above, below = figure.subplots(2, 1 + len(maps))
    for axis in (*above, *below):
        axis.set_axis_off()
    above[0].imshow(photo)
    above[0].set_title(title, fontsize=10)
    for place, (name, found) in enumerate(maps.items(), start=1):
        mask = to_mask(found, threshold=_THRESHOLD, size=photo.shape[:2])
        above[place].imshow(overlay(photo, found))
        above[place].set_title(name, fontsize=10)
        below[place].imshow(cut_out(photo, mask))
        below[place].set_title(f"above {_THRESHOLD:g}", fontsize=10)
    return figure
