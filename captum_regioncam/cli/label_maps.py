"""``captum-regioncam label-maps``: label maps from finished seeds, at any threshold, with or without dense CRF."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from captum_regioncam.cli.common import report_failures
from captum_regioncam.cli.options import Called
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.datasets import LAYOUTS
from captum_regioncam.evaluation.datasets.base import PhotoDataset
from captum_regioncam.evaluation.label_maps.writing import write_label_maps
from captum_regioncam.evaluation.runs.workers import workers
from captum_regioncam.evaluation.seeds.reading import recorded_data

__all__ = ["Options", "run"]


@dataclass(frozen=True)
class Options:
    """The options of ``captum-regioncam label-maps``."""

    seeds: Path
    output: Path
    refine: bool
    threshold: float | None
    overlay: Path | None
    limit: int | None
    wait: bool
    resume: bool
    dataset: str | None
    root: str | None
    split: str | None
    crf: str | None
    confident: list[float] | None
    alpha: list[float]


def run(options: Options, called: Called) -> int:
    """Write label maps; return the exit status."""
    _check(options, called)
    background, foreground = options.confident or (0, 0)
    with workers() as worker:
        data = worker.together(partial(_data_of, options))
        written = write_label_maps(
            options.seeds,
            options.output,
            refine=options.refine,
            threshold="best" if options.threshold is None else options.threshold,
            crf=options.crf,
            confident=(background, foreground) if options.confident else None,
            alphas=options.alpha,
            overlay=options.overlay,
            data=data,
            limit=options.limit,
            wait=options.wait,
            resume=options.resume,
            about=called.about,
        )
    if worker.is_first:
        total = len(written.names)
        report_failures(written.unscored, total, "seeds failed and do not count towards the threshold")
        best = "" if written.best_miou is None else f" (the best: mIoU {100 * written.best_miou:.2f})"
        at = "" if written.threshold is None else f" at {written.threshold:g}{best}"
        say(f"{total - len(written.failures)} label maps{at} in {options.output}")
        report_failures(written.failures, total, "seeds failed")
    return int(bool(written.failures))


def _data_of(options: Options) -> PhotoDataset | None:
    """Open the data set that the options name; without them, the library opens the recorded one if it needs it."""
    truth = options.threshold is None
    if not (options.root or (options.split and (truth or options.overlay or options.refine or options.crf))):
        return None
    return recorded_data(options.seeds, options.dataset, options.root, options.split, ground_truth=truth)


def _check(options: Options, called: Called) -> None:
    """Before anything is read, reject options that do not go together."""
    if "alpha" in called.given and options.crf != "psa":
        raise UsageError("--alpha: requires --crf psa.")
    if "threshold" in called.given and (options.confident or options.crf == "psa"):
        other = "--confident" if options.confident else "--crf psa"
        raise UsageError(f"--threshold: cannot be used with {other}, which does not cut the maps there.")
    if options.split and options.dataset and not LAYOUTS[options.dataset].split:
        raise UsageError(f"--split: --dataset {options.dataset} has no splits.")
    if options.dataset and not options.root:
        raise UsageError("--dataset: requires --root.")
