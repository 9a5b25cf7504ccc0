"""``captum-regioncam seeds``: a data set's maps as seed files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
from captum_regioncam.cli.options import Called, DataOptions, MapOptions, NetworkOptions
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoDataset
from captum_regioncam.evaluation.label_maps.backgrounds import Constant
from captum_regioncam.evaluation.label_maps.job import LabelMaps
from captum_regioncam.evaluation.label_maps.threshold import BestClass
from captum_regioncam.evaluation.label_maps.writing import check_class_count, write_label_maps
from captum_regioncam.evaluation.runs.workers import workers
from captum_regioncam.evaluation.seeds.files import check_format
from captum_regioncam.evaluation.seeds.writing import seed_names, write_seeds
from captum_regioncam.evaluation.titles import TITLES
from captum_regioncam.files.text import counted

__all__ = ["Options", "run"]


@dataclass(frozen=True)
class Options:
    """The options of ``captum-regioncam seeds``."""

    data: DataOptions
    network: NetworkOptions
    maps: MapOptions
    method: str
    format: str
    dtype: str
    high_res: bool
    output: Path
    label_maps: Path | None
    threshold: float
    shard: tuple[int, int] | None
    resume: bool


def run(options: Options, called: Called) -> int:
    """Write seed files; return the exit status."""
    _check(options, called)
    with workers() as worker:
        data = worker.together(partial(data_of, options.data, ground_truth=False))
        if options.label_maps:
            check_class_count(data, "label_maps")
        classifier = worker.together(partial(classifier_of, options.network, called))
        if options.label_maps:
            labels = LabelMaps(
                options.output, options.label_maps, None, BestClass(Constant(options.threshold)), None, "label_maps"
            )
            names = seed_names(data, options.format)[: options.data.limit]
            worker.from_first(partial(labels.check, names, resume=options.resume))
        seeds = write_seeds(
            classifier,
            data,
            options.output,
            method=options.method,
            format=options.format,
            dtype=options.dtype,
            high_res=options.high_res,
            protocol=options.maps.protocol(options.network.resize),
            layers=options.network.layers,
            reshape=options.network.reshape,
            contrast=options.network.contrast,
            refine=options.maps.refine,
            precision=options.network.precision,
            limit=options.data.limit,
            shard=options.shard,
            resume=options.resume,
            readers=readers_of(options.maps, options.network),
            about=called.about,
        )
        unlabelled: Mapping[str, str] = {}
        labelled = [name for name in seeds.names if name not in seeds.failures]
        if options.label_maps and labelled:
            with _as_label_maps(options):
                unlabelled = write_label_maps(
                    options.output,
                    options.label_maps,
                    names=labelled,
                    threshold=options.threshold,
                    resume=options.resume,
                    about=called.about,
                ).failures
    if worker.is_first:
        total = len(seeds.names)
        done = counted(total - len(seeds.failures), "seed")
        say(f"{done} of {TITLES[options.method]} in {options.output}")
        if seeds.photos:
            say(f"{pace(seeds.photos, seeds.seconds)}.")
        report_failures(seeds.failures, total, "photo", "failed and were left out")
        report_failures(unlabelled, total, "label map")
        if seeds.failures:
            say("To try the failed photos again, run the same command with --resume.")
        if line := _next(options, called, data):
            say(line)
    return int(bool(seeds.failures or unlabelled))


def _next(options: Options, called: Called, data: PhotoDataset) -> str | None:
    """Return the line that names the next command: seeds are scored, or cut if there is nothing to score against."""
    when = " when all shards are there" if options.shard else ""
    if data.has_truth:
        photos = next_steps.of_data(options.data, called)
        return next_steps.command("evaluate", photos, "--seeds", options.output, when=when)
    if data.truth != "masks" or options.label_maps:
        return None
    return next_steps.command("label-maps", options.output, "--output", "labels", when=when)


@contextmanager
def _as_label_maps(options: Options) -> Iterator[None]:
    """Let errors name the option --label-maps, because --output is the folder of the seeds."""
    try:
        yield
    except ArgumentError as error:
        output = Argument("output", options.label_maps)
        label_maps = Argument("label_maps", options.label_maps)
        raise ArgumentError(*(label_maps if part == output else part for part in error.parts)) from error


def _check(options: Options, called: Called) -> None:
    """Reject, before anything is read, options that do not go together."""
    check_size(options.network)
    check_contrast(called, [options.method])
    if options.network.resize == "crop":
        raise UsageError("--resize crop: a seed covers the whole photo; choose squash, short or keep.")
    check_format(options.format, options.dtype, options.high_res)
    if options.format == "wsol" and (given := sorted({"normalize", "upsample"} & called.given)):
        raise UsageError(
            f"--{given[0]}: cannot be used with --format wsol, whose maps are always made as in wsolevaluation."
        )
    if options.label_maps and options.shard:
        raise UsageError("--label-maps: cannot be used with --shard; run label-maps once all shards are there.")
    if options.label_maps is None and "threshold" in called.given:
        raise UsageError("--threshold: requires --label-maps; the seeds themselves are not cut.")
    if options.label_maps and options.label_maps.resolve() == options.output.resolve():
        raise UsageError(f"--label-maps {options.label_maps}: is the folder of the seeds; choose another.")
