"""``captum-regioncam explain``: pictures of photos and their class activation maps."""

from dataclasses import dataclass
from pathlib import Path

from captum_regioncam.cli.common import check_size, classifier_of, report_failures
from captum_regioncam.cli.options import Called, NetworkOptions
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.explanations.writing import write_explanations

__all__ = ["Options", "run"]


@dataclass(frozen=True)
class Options:
    """The options of ``captum-regioncam explain``."""

    images: list[str]
    network: NetworkOptions
    target: list[list[str]]
    method: list[str]
    refine: bool
    output: Path
    save_npy: bool
    overlay: bool
    masks: bool
    boxes: bool
    threshold: float | str


def run(options: Options, called: Called) -> int:
    """Explain photos; return the exit status."""
    check_size(options.network)
    if "threshold" in called.given and not (options.masks or options.boxes):
        raise UsageError("--threshold: requires --masks or --boxes; the maps themselves are not cut.")
    explained = write_explanations(
        classifier_of(options.network, called),
        options.images,
        options.output,
        methods=options.method,
        targets=[target for part in options.target for target in part],
        layers=options.network.layers,
        reshape=options.network.reshape,
        contrast=options.network.contrast,
        refine=options.refine,
        precision=options.network.precision,
        save_npy=options.save_npy,
        overlay=options.overlay,
        masks=options.masks,
        boxes=options.boxes,
        threshold=options.threshold,
        about=called.about,
    )
    report_failures(explained.failures, len(explained.images) + len(explained.failures), "photo")
    if explained.images and not (options.save_npy or options.overlay or options.masks or options.boxes):
        say("Next: add --masks to write masks, --boxes for boxes, or --overlay for each map over its photo.")
    return int(bool(explained.failures))
