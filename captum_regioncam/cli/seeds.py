"""``captum-regioncam seeds``: a data set's maps as seed files."""

import argparse
from functools import partial

import torch

from captum_regioncam.cli.data import check_contrast, dataset_of, made_of, origin, protocol_of, readers_of
from captum_regioncam.cli.labels import NEED_DATASET, LabelMaps
from captum_regioncam.cli.network import report_failures
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation import PhotoDataset, Seed
from captum_regioncam.evaluation.methods import TITLES
from captum_regioncam.evaluation.multiscale import seed_grid
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps, make_photo_maps
from captum_regioncam.evaluation.runs.folder import ResultFolder, held
from captum_regioncam.evaluation.runs.workers import visit, workers
from captum_regioncam.evaluation.seeds.files import encode_seed

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Write seed files; return the exit status."""
    protocol = protocol_of(options)
    if protocol.resize == "crop":
        raise UsageError("--resize crop: a seed covers the whole photo; choose squash, short or keep.")
    check_contrast(options, [options.method])
    if options.label_maps is None and options.given(options, ["threshold"]):
        raise UsageError("--threshold: requires --label-maps; the seeds themselves are not cut.")
    if options.label_maps and options.label_maps.resolve() == options.output.resolve():
        raise UsageError(f"--label-maps {options.label_maps}: is the folder of the seeds; choose another.")

    def prepare() -> tuple[PhotoDataset, PhotoMaps]:
        dataset = dataset_of(options, ground_truth=False)
        return dataset, make_photo_maps(options, [options.method], protocol, dataset)

    with workers() as worker:
        dataset, maps = worker.together(prepare)
        names = dataset.names[: options.limit]
        settings = made_of(options, maps, dataset) | {"format": options.format}
        files = [f"{name}.npy" for name in names]
        folder = ResultFolder("--output", options.output, "seeds", settings, files)

        def seed_of(photo: Photo, cam: torch.Tensor, high_res: torch.Tensor) -> Seed:
            return Seed(torch.tensor(photo.sample.keys, dtype=torch.long), cam, high_res.numpy())

        def compute(photos: list[Photo]) -> list[Seed]:
            sizes = [(photo.sample.photo.height, photo.sample.photo.width) for photo in photos]
            coarse = [seed_grid(*size) for size in sizes]
            found = maps.finished(options.method, photos, sizes, coarse)
            return [seed_of(photo, cam, high_res) for photo, (high_res, cam) in zip(photos, found, strict=True)]

        labels = None
        if options.label_maps:
            labels = LabelMaps(
                options.output,
                options.label_maps,
                threshold=options.threshold,
                dataset=dataset if options.format in NEED_DATASET else None,
                option="--label-maps",
            )
            worker.from_first(partial(labels.check, names, resume=options.resume))
        session = worker.together(lambda: origin(options, maps))
        with held([folder], worker, session, resume=options.resume) as [results]:
            if worker.rank == 0:
                say(f"{TITLES[options.method]} over {maps.stages.describe()}\n{protocol}")

            def keep(number: int, photo: Photo, seed: Seed) -> None:
                results.write(files[number], encode_seed(seed, options.format))

            left = results.changed
            failures = visit(
                names,
                worker,
                maps.reader(dataset),
                compute,
                keep,
                done=[number for number, file in enumerate(files) if file in results.done or file in left],
                batch=protocol.batch,
                alike=lambda photo: photo.input_shapes,
                readers=readers_of(options),
            )
            failures |= {file.removesuffix(".npy"): reason for file, reason in left.items()}
        unlabelled: dict[str, str] = {}
        if labels:
            labelled = [name for name in names if name not in failures]
            unlabelled = labels.write(labelled, worker, session, resume=options.resume)
    if worker.rank == 0:
        say(f"{len(names) - len(failures)} seeds of {TITLES[options.method]} in {options.output}")
        report_failures(failures, len(names), "photos failed and were left out")
        report_failures(unlabelled, len(names), "label maps failed")
    return int(bool(failures or unlabelled))
