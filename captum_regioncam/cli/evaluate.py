"""``captum-regioncam evaluate``: methods, or finished seeds, scored on photos with masks or boxes."""

import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from captum_regioncam.cli.common import (
    check_contrast,
    check_size,
    classifier_of,
    data_of,
    readers_of,
    report_failures,
)
from captum_regioncam.cli.options import MAP_OPTIONS, Called, DataOptions, MapOptions, NetworkOptions
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.datasets import LAYOUTS
from captum_regioncam.evaluation.runs.workers import workers
from captum_regioncam.evaluation.scoring.evaluating import evaluate, evaluate_seeds
from captum_regioncam.files.outputs import check_picture, is_stream

__all__ = ["Options", "run"]

PROGRESS = Path(".captum_regioncam")
"""Where runs keep what they have counted, in the working directory."""


@dataclass(frozen=True)
class Options:
    """The options of ``captum-regioncam evaluate``."""

    data: DataOptions
    network: NetworkOptions
    maps: MapOptions
    method: list[str]
    threshold: float
    seeds: Path | None
    wait: bool
    box: str
    box_threshold: float | None
    step: float
    json: Path | None
    plot: Path | None
    resume: bool


def run(options: Options, called: Called) -> int:
    """Score methods or seeds; return the exit status."""
    _check(options, called)
    with workers() as worker:
        data = worker.together(partial(data_of, options.data, ground_truth=True))
        if options.seeds:
            report = evaluate_seeds(
                options.seeds,
                data,
                refine=options.maps.refine,
                threshold=options.threshold,
                limit=options.data.limit,
                wait=options.wait,
                readers=readers_of(options.maps, options.network),
                json=options.json,
                plot=options.plot,
                progress=PROGRESS,
                resume=options.resume,
                about=called.about,
            )
        else:
            classifier = worker.together(partial(classifier_of, options.network, called))
            report = evaluate(
                classifier,
                data,
                options.method,
                protocol=options.maps.protocol(options.network.resize),
                layers=options.network.layers,
                reshape=options.network.reshape,
                contrast=options.network.contrast,
                refine=options.maps.refine,
                precision=options.network.precision,
                threshold=options.threshold,
                box=options.box,
                box_threshold=options.box_threshold,
                step=options.step,
                limit=options.data.limit,
                readers=readers_of(options.maps, options.network),
                json=options.json,
                plot=options.plot,
                progress=PROGRESS,
                resume=options.resume,
                about=called.about,
            )
    if worker.is_first:
        report_failures(report.failures, len(data.names[: options.data.limit]), "photos failed and were left out")
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
        say(report.table(width, ascii=not (sys.stdout.encoding or "utf-8").lower().startswith("utf")))
        for path in filter(None, (options.json, options.plot)):
            say(f"Wrote {path}", error=is_stream(path))
    return int(bool(report.failures))


def _check(options: Options, called: Called) -> None:
    """Before a long run, reject options that would make it fail or that would have no effect."""
    if options.plot:
        check_picture("plot", options.plot)
    check_size(options.network)
    check_contrast(called, options.method)
    if LAYOUTS[options.data.dataset].truth == "boxes" and options.network.resize == "crop":
        raise UsageError("--resize crop: the boxes are for whole photos; choose squash, short or keep.")
    if options.seeds and not options.seeds.is_dir():
        raise UsageError(f"--seeds {options.seeds}: no such folder.")
    if options.wait and not options.seeds:
        raise UsageError("--wait: requires --seeds, whose run is waited for.")
    if options.seeds and (given := sorted(MAP_OPTIONS & called.given)):
        raise UsageError(f"--{given[0].replace('_', '-')}: cannot be used with --seeds, which are scored as they are.")
