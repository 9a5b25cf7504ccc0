"""``captum-regioncam evaluate``: methods, seeds or label maps, scored on photos with masks or boxes."""

import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

from captum_regioncam.cli import next_steps
from captum_regioncam.cli.common import (
    check_contrast,
    check_size,
    classifier_of,
    data_of,
    pace,
    readers_of,
    report_failures,
)
from captum_regioncam.cli.options import MAP_OPTIONS, Called, DataOptions, MapOptions, NetworkOptions
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.datasets import LAYOUTS
from captum_regioncam.evaluation.runs.report import Report
from captum_regioncam.evaluation.runs.workers import workers
from captum_regioncam.evaluation.scoring.evaluating import evaluate, evaluate_label_maps, evaluate_seeds
from captum_regioncam.evaluation.scoring.seeds import row_of
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
    seeds: list[Path] | None
    wait: bool
    label_maps: Path | None
    absent: str
    unlabelled: str
    box: str
    box_threshold: float | None
    step: float
    json: Path | None
    plot: Path | None
    csv: Path | None
    latex: Path | None
    per_class: bool
    per_photo: Path | None
    gallery: Path | None
    resume: bool

    @property
    def files(self) -> list[Path]:
        """What is written."""
        named = (self.json, self.plot, self.csv, self.latex, self.per_photo, self.gallery)
        return [path for path in named if path is not None]


def run(options: Options, called: Called) -> int:
    """Score methods, seeds or label maps; return the exit status."""
    _check(options, called)
    common = _common(options, called)
    with workers() as worker:
        data = worker.together(partial(data_of, options.data, ground_truth=True))
        if options.seeds and "method" not in called.given:
            report = evaluate_seeds(
                options.seeds,
                data,
                refine=options.maps.refine,
                threshold=options.threshold,
                absent=options.absent,
                box=options.box,
                box_threshold=options.box_threshold,
                step=options.step,
                wait=options.wait,
                plot=options.plot,
                **common,
            )
        elif options.label_maps:
            report = evaluate_label_maps(
                options.label_maps,
                data,
                absent=options.absent,
                unlabelled=options.unlabelled,
                **common,
            )
        else:
            classifier = worker.together(partial(classifier_of, options.network, called))
            report = evaluate(
                classifier,
                data,
                options.method,
                seeds=options.seeds,
                protocol=options.maps.protocol(options.network.resize),
                layers=options.network.layers,
                reshape=options.network.reshape,
                contrast=options.network.contrast,
                refine=options.maps.refine,
                precision=options.network.precision,
                threshold=options.threshold,
                absent=options.absent,
                box=options.box,
                box_threshold=options.box_threshold,
                step=options.step,
                wait=options.wait,
                plot=options.plot,
                **common,
            )
    if worker.is_first:
        total = len(data.names[: options.data.limit])
        report_failures(report.failures, total, "photo", "failed and were left out")
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
        is_ascii = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
        say(report.table(width, ascii=is_ascii, per_class=options.per_class))
        for path in options.files:
            say(f"Wrote {path}", error=is_stream(path))
        to_stderr = any(map(is_stream, options.files))  # others read stdout
        if report.counted:
            say(f"{pace(report.counted, report.seconds)}.", error=to_stderr)
        if line := _next(options, called, report):
            say(line, error=to_stderr)
    return int(bool(report.failures))


def _next(options: Options, called: Called, report: Report) -> str | None:
    """Return the line that names the next command: seeds become label maps at the best threshold of the best."""
    if LAYOUTS[options.data.dataset].truth != "masks":
        return None
    folders = {row_of(folder): folder for folder in options.seeds or ()}
    scored = {name: row["best_miou"] for name, row in report.scores.items() if name in folders}
    best = max(scored, key=lambda name: float(str(scored[name] or 0)), default=None)
    if best is None:
        return None
    threshold = float(str(report.scores[best]["best_threshold"]))
    return next_steps.command(
        "label-maps", folders[best], *(["--refine"] if options.maps.refine else []), "--output", "labels",
        "--threshold", f"{threshold:g}" if threshold < 1 else "best",
    )  # fmt: skip


class _Common(TypedDict):
    """The arguments that all evaluations have in common."""

    limit: int | None
    readers: int
    json: Path | None
    csv: Path | None
    latex: Path | None
    per_class: bool
    per_photo: Path | None
    gallery: Path | None
    progress: Path
    resume: bool
    about: dict[str, object]


def _common(options: Options, called: Called) -> _Common:
    return {
        "limit": options.data.limit,
        "readers": readers_of(options.maps, options.network),
        "json": options.json,
        "csv": options.csv,
        "latex": options.latex,
        "per_class": options.per_class,
        "per_photo": options.per_photo,
        "gallery": options.gallery,
        "progress": PROGRESS,
        "resume": options.resume,
        "about": called.about,
    }


def _check(options: Options, called: Called) -> None:
    """Reject, before a long run, options that would make it fail or that would have no effect."""
    if options.plot:
        check_picture("plot", options.plot)
    check_size(options.network)
    check_contrast(called, options.method)
    truth = LAYOUTS[options.data.dataset].truth
    if truth != "masks" and options.network.resize == "crop":
        what = "boxes" if truth == "boxes" else "masks"
        raise UsageError(f"--resize crop: the {what} are for whole photos; choose squash, short or keep.")
    for folder in options.seeds or ():
        if not folder.is_dir():
            raise UsageError(f"--seeds {folder}: no such folder.")
    if options.wait and not options.seeds:
        raise UsageError("--wait: requires --seeds; it waits for the run that writes them.")
    if options.seeds and "method" not in called.given and (given := sorted(MAP_OPTIONS & called.given)):
        raise UsageError(
            f"--{given[0].replace('_', '-')}: cannot be used with --seeds, which are scored as they are; also pass "
            "--method to score methods beside them."
        )
    _check_label_maps(options, called)


def _check_label_maps(options: Options, called: Called) -> None:
    """Reject what has no meaning for label maps, which have neither scores nor thresholds."""
    if options.label_maps is None:
        if "unlabelled" in called.given:
            raise UsageError("--unlabelled: requires --label-maps; only label maps have pixels without a label.")
        return
    if not options.label_maps.is_dir():
        raise UsageError(f"--label-maps {options.label_maps}: no such folder.")
    if given := sorted(called.given & {*MAP_OPTIONS, "refine", "seeds", "threshold"}):
        raise UsageError(
            f"--{given[0].replace('_', '-')}: cannot be used with --label-maps, which are scored as they are."
        )
    if options.plot:
        raise UsageError("--plot: cannot be used with --label-maps, which have no thresholds to plot scores at.")
