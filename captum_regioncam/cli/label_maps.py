"""``captum-regioncam label-maps``: label maps from finished seeds, at any threshold, with or without dense CRF."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from captum_regioncam.cli import next_steps
from captum_regioncam.cli.common import pace, report_failures
from captum_regioncam.cli.options import Called
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.datasets import LAYOUTS, open_dataset
from captum_regioncam.evaluation.datasets.base import PhotoDataset
from captum_regioncam.evaluation.label_maps.choice import Confidence
from captum_regioncam.evaluation.label_maps.writing import WrittenLabelMaps, write_label_maps
from captum_regioncam.evaluation.runs.workers import workers
from captum_regioncam.evaluation.seeds.reading import named_data, recorded_data
from captum_regioncam.files.text import counted

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
    masks: str | None
    crowds: str | None
    crf: str | None
    background: str | None
    power: float
    confident: list[float] | str | bool | None
    alpha: list[float]
    best_photos: int | None


def run(options: Options, called: Called) -> int:
    """Write label maps; return the exit status."""
    _check(options, called)
    with workers() as worker:
        data = worker.together(partial(_data_of, options))
        written = write_label_maps(
            options.seeds,
            options.output,
            refine=options.refine,
            threshold="best" if options.threshold is None else options.threshold,
            crf=options.crf,
            background=options.background,
            power=options.power,
            confident=_confident(options),
            alphas=options.alpha,
            best_photos=options.best_photos,
            overlay=options.overlay,
            data=data,
            limit=options.limit,
            wait=options.wait,
            resume=options.resume,
            about=called.about,
        )
    if worker.is_first:
        total = len(written.names)
        report_failures(written.unscored, total, "seed", "failed and do not count towards the threshold")
        done = counted(total - len(written.failures), "label map")
        say(f"{done}{_at(written, options.crf)} in {options.output}")
        if written.photos:
            say(f"{pace(written.photos, written.seconds)}.")
        report_failures(written.failures, total, "seed")
        if line := _next(options, written):
            say(line)
    return int(bool(written.failures))


def _next(options: Options, written: WrittenLabelMaps) -> str | None:
    """Return the line that names the next command, unless there is nothing to score, or to score against."""
    if options.crf == "psa" or options.confident:
        return None
    try:
        named = named_data(
            options.seeds, options.dataset, options.root, options.split, masks=options.masks, crowds=options.crowds
        )
        # Masks of coco are drawn from its annotations, which take long to read.
        data = None if named["name"] == "coco" else open_dataset(**named, ground_truth=False)
    except (ValueError, OSError):  # there is no record, or the photos are no longer there
        return None
    layout, count, limit = LAYOUTS[named["name"]], len(written.names), options.limit
    if layout.truth != "masks" or (limit if data is None else not data.has_truth):
        return None
    if data is not None:
        limit = count if count < len(data.names) and set(data.names[:count]) == set(written.names) else None
    words = [named["name"], "--root", next_steps.shortest(named["root"])]
    for option, value, default in (
        ("--split", named["split"], layout.split),
        ("--labels-from", named["labels_from"], layout.labels_from),
        ("--masks", named["masks"], None),
        ("--crowds", named["crowds"], None),
        ("--limit", limit, None),
    ):
        words += [] if value in (None, default) else [option, str(value)]
    return next_steps.command("evaluate", words, "--label-maps", options.output)


def _at(written: WrittenLabelMaps, crf: str | None) -> str:
    """Say at which threshold the label maps were cut, and how good it is."""
    if written.best_miou is None:
        return "" if written.threshold is None else f" at {written.threshold:g}"
    miou = f"mIoU {100 * written.best_miou:.2f}"
    if written.threshold is not None:
        return f" at {written.threshold:g} (the best{' after the CRF' if crf else ''}: {miou})"
    thresholds = ",".join(f"{one:g}" for one in written.confident) if isinstance(written.confident, tuple) else ""
    return f", confident at {thresholds} (around {written.best_threshold:g}, the best before the CRF: {miou}),"


def _confident(options: Options) -> Confidence:
    """Return the library's argument ``confident``: one number, two numbers, True or "best"."""
    if isinstance(options.confident, list):
        return options.confident[0] if len(options.confident) == 1 else (options.confident[0], options.confident[1])
    return "best" if options.confident == "best" else options.confident is True or None


def _data_of(options: Options) -> PhotoDataset | None:
    """Open the data set that the options name. Without them, the library opens the recorded one if it needs one."""
    truth = options.threshold is None or options.confident == "best"
    needed = truth or options.overlay or options.refine or options.crf
    if not (options.root or ((options.split or options.masks or options.crowds) and needed)):
        return None
    return recorded_data(
        options.seeds,
        options.dataset,
        options.root,
        options.split,
        ground_truth=truth,
        masks=options.masks,
        crowds=options.crowds,
    )


def _check(options: Options, called: Called) -> None:
    """Reject, before anything is read, options that do not go together."""
    if "alpha" in called.given and options.crf != "psa":
        raise UsageError("--alpha: requires --crf psa.")
    thresholds = options.confident if options.crf != "clip-es" else None
    if "threshold" in called.given and (thresholds or options.crf == "psa"):
        other = "--confident" if thresholds else "--crf psa"
        raise UsageError(f"--threshold: cannot be used with {other}, which does not cut the maps at this threshold.")
    if "threshold" in called.given and _background(options) == "clip-es":
        raise UsageError("--threshold: cannot be used with CLIP-ES's background; also pass --background constant.")
    if "power" in called.given and _background(options) != "clip-es":
        raise UsageError("--power: requires --background clip-es.")
    for name in ("masks", "crowds"):
        if getattr(options, name) and options.threshold is not None and options.confident != "best":
            raise UsageError(f"--{name}: applies only to the best threshold, which is scored against masks.")
    if options.split and options.dataset and not LAYOUTS[options.dataset].split:
        raise UsageError(f"--split: --dataset {options.dataset} has no splits.")
    if options.dataset and not options.root:
        raise UsageError("--dataset: requires --root.")


def _background(options: Options) -> str:
    return options.background or ("clip-es" if options.crf == "clip-es" else "constant")
