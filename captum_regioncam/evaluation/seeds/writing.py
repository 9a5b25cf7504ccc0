"""Writing seeds of a data set's photos."""

import logging
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from captum_regioncam.arguments import real
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.datasets.base import PhotoData, image_ids_of
from captum_regioncam.evaluation.datasets.reading import checked_names
from captum_regioncam.evaluation.methods import Method, named_methods
from captum_regioncam.evaluation.multiscale import seed_grid
from captum_regioncam.evaluation.photo_maps import Photo, PhotoMaps
from captum_regioncam.evaluation.protocol import Protocol
from captum_regioncam.evaluation.runs.folder import ResultFolder, Results, held
from captum_regioncam.evaluation.runs.job import Job, first, run
from captum_regioncam.evaluation.runs.provenance import provenance
from captum_regioncam.evaluation.runs.shards import numbers_in
from captum_regioncam.evaluation.runs.workers import workers
from captum_regioncam.evaluation.runs.written import Written
from captum_regioncam.evaluation.seeds.disk import check_disk
from captum_regioncam.evaluation.seeds.files import check_format, encode_seed
from captum_regioncam.evaluation.seeds.reading import is_whole_seed
from captum_regioncam.evaluation.seeds.seed import Seed
from captum_regioncam.evaluation.titles import TITLES
from captum_regioncam.method.grids import resize

__all__ = ["WrittenSeeds", "seed_names", "write_seeds"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WrittenSeeds(Written):
    """What :func:`write_seeds` did.

    Attributes:
        folder: where the seeds are.
        names: the names of the seeds, of all photos or of the shard's.
        failures: {name: reason} of the photos that failed and have no seed.
        photos: how many photos this call did; the others had seeds already.
        seconds: how many seconds these took.

    Example::

        >>> written = WrittenSeeds(Path("seeds"), ["2007_000032", "2007_000039"], {"2007_000039": "no such file."})
        >>> [name for name in written.names if name not in written.failures]
        ['2007_000032']
    """

    names: Sequence[str]
    failures: Mapping[str, str]
    photos: int = 0
    seconds: float = 0.0


def write_seeds(
    classifier: Classifier,
    data: PhotoData,
    output: str | os.PathLike[str],
    *,
    method: Method | Mapping[str, Method] = "region-cam",
    format: str | None = None,
    dtype: str = "float32",
    high_res: bool = True,
    protocol: Protocol | None = None,
    layers: Sequence[str] | None = None,
    reshape: str | None = None,
    contrast: float = 4.0,
    refine: bool = False,
    precision: str = "float32",
    limit: int | None = None,
    shard: tuple[int, int] | None = None,
    resume: bool = False,
    readers: int = 0,
    show_progress: bool = True,
    about: Mapping[str, object] | None = None,
) -> WrittenSeeds:
    """Write a seed for each photo: the maps of its classes, added over scales and flips.

    A photo that fails does not stop the others. Processes that torchrun started share the photos.

    Args:
        classifier: the network; it must see whole photos, so its ``resize`` is not "crop".
        data: the photos and their classes.
        output: the folder for NAME.npy. In the format "wsol", NAME is what wsolevaluation calls the photo, such as
            ``val/ILSVRC2012_val_00000001.JPEG``: its ``image_ids``, if the data set has them.
        method: "region-cam", "layer-cam", "grad-cam" or "cam"; an attribution of this package or of Captum; or a
            function of (x, targets) that returns (N, K, h, w) maps. {name: method} sets its name in the record, which
            knows nothing else about a function.
        format: "irn", "psa", "clip-es" or "wsol"; see :func:`save_seed`. Default: "wsol" for photos with boxes, and
            "irn" for all others.
        dtype: in the format "irn", the dtype of ``high_res``: "float32" or "float16".
        high_res: in the format "irn", whether files have ``high_res``, or only ``cam``.
        protocol: scales, flips, normalisation and upsampling. Default: IRN's for the layouts "voc" and "coco", and
            otherwise one scale. In the format "wsol", maps are always upsampled from their own grid to 224 x 224 and
            stretched from minimum to maximum; in the others, they are never upsampled to 224 x 224.
        layers: dotted names of the layers that a method given by name reads. Default: the stages found.
        reshape: the layout of these layers: "channels-last", or "tokens:N" or "tokens:N:M" with N tokens before the
            patches and M after them. Default: it is measured.
        contrast: the contrast of the method "region-cam"; see :class:`~captum_regioncam.LayerRegionCam`.
        refine: refine the maps with the photo, so that they follow its edges; see :func:`~captum_regioncam.refine`.
        precision: the precision of the network's passes: "float32", or "bfloat16" or "float16" under autocast. Maps
            are float32.
        limit: only the first ``limit`` photos. Default: all.
        shard: only a part of the photos: (3, 16) for the third of 16 shards. Shards may be written at the same time,
            from several machines, to one folder, with the same settings. Together they write what one call would write.
        resume: continue where an earlier run of the same call was interrupted.
        readers: how many processes read photos ahead.
        show_progress: show a progress bar.
        about: further entries for the record, such as where the seeds come from, as JSON values.

    Returns:
        The seeds that were written, and the photos that failed.

    Raises:
        ArgumentError: the network does not suit the data or the method; the format has no such ``dtype``, or always has
            ``high_res``; or ``output`` has files that this package did not write, results of other settings, or results
            of the same settings while ``resume`` is False, or its disk is too full for the seeds.
        ValueError: all photos failed.
        OSError: the files cannot be written.

    Example::

        >>> classifier = Classifier.load("torchvision:resnet18", "none", size=64)
        >>> data = open_dataset("folder", "photos")
        >>> written = write_seeds(classifier, data, "work/seeds", show_progress=False)
        >>> len(written.failures), len(load_seed(written.folder / f"{data.names[0]}.npy").keys)
        (0, 1)
    """
    named = named_methods(method if isinstance(method, Mapping) else [method])
    if len(named) > 1:
        raise ArgumentError(Argument("method"), f": expects one method, got {', '.join(named)}.")
    [name] = named
    if format is None:
        format = "irn" if getattr(data, "truth", "masks") == "masks" else "wsol"
    check_format(format, dtype, high_res)
    protocol = _protocol_of(format, Protocol.of(data) if protocol is None else protocol)
    if (classifier.resize or protocol.resize) == "crop":
        raise ArgumentError(
            Argument("resize", "crop"), ": a seed covers the whole photo; choose squash, short or keep."
        )
    all_names = first(checked_names(seed_names(data, format), "data.names", "the output's folder"), limit)
    shard, numbers = numbers_in(shard, len(all_names), protocol.batch)
    names = [all_names[number] for number in numbers]

    def prepare() -> PhotoMaps:
        outputs = getattr(data, "outputs", None)
        return PhotoMaps.of(
            classifier,
            named,
            protocol,
            layers=layers,
            reshape=reshape,
            contrast=contrast,
            refine=refine,
            precision=precision,
            outputs=outputs,
        )

    with workers() as worker:
        maps = worker.together(prepare)
        settings = maps.settings(data) | {"method": name, "contrast": real(contrast), "format": format}
        settings |= {} if dtype == "float32" else {"dtype": dtype}
        settings |= {} if high_res else {"high_res": False}
        folder = ResultFolder(
            "output",
            Path(output),
            "seeds",
            settings,
            [f"{one}.npy" for one in names],
            is_whole=is_whole_seed,
            shard=shard,
            total=len(all_names),
        )
        session = worker.together(lambda: provenance({**maps.origin(data), **(about or {})}))

        def check() -> None:
            folder.check(resume=resume)
            encode = partial(encode_seed, format=format, dtype=dtype, high_res=high_res)
            check_disk(data, all_names, Path(output), encode)

        worker.from_first(check)
        start = time.monotonic()
        with held([folder], worker, session, resume=resume) as [results]:
            if worker.is_first:
                over = f" over {', '.join(maps.layer_names)}" if maps.layer_names else ""
                _log.info("%s%s\n%s", TITLES.get(name, name), over, maps.steps)
            job = _SeedJob(names, numbers, data, maps, name, format, results, readers, dtype, high_res)
            failures = results.failures = job.left | run(job, worker, show_progress=show_progress)
    return WrittenSeeds(Path(output), names, failures, len(names) - len(results.done), time.monotonic() - start)


def seed_names(data: PhotoData, format: str) -> Sequence[str]:
    """Return the names of a data set's seeds, whose files are NAME.npy."""
    return image_ids_of(data) if format == "wsol" else data.names


def _protocol_of(format: str, protocol: Protocol) -> Protocol:
    """Return a protocol with the size of maps that a format needs."""
    if format == "wsol":
        return replace(protocol, upsample="boxes", normalize="minmax")
    return replace(protocol, upsample="photo") if protocol.upsample == "boxes" else protocol


class _SeedJob(Job[Photo, Seed]):
    """Writes seeds.

    Attributes:
        left: {name: reason} of the seeds that somebody has changed; they stay as they are.
    """

    def __init__(
        self,
        names: Sequence[str],
        numbers: Sequence[int],
        data: PhotoData,
        maps: PhotoMaps,
        method: str,
        format: str,
        results: Results,
        readers: int,
        dtype: str,
        high_res: bool,
    ) -> None:
        self.names, self.batch, self.readers = names, maps.protocol.batch, readers
        self._numbers, self._data, self._maps, self._method = numbers, data, maps, method
        self._results, self._format, self._dtype, self._high_res = results, format, dtype, bool(high_res)
        self.left = {file.removesuffix(".npy"): reason for file, reason in results.changed.items()}

    def reader(self) -> Callable[[int], Photo]:
        return _Renumbered(self._maps.reader(self._data), self._numbers)

    def is_done(self, number: int) -> bool:
        return self._file(number) in self._results.done or self.names[number] in self.left

    def alike(self, item: Photo) -> Hashable:
        return item.input_shapes

    def compute(self, items: list[Photo]) -> list[Seed]:
        if self._format == "wsol":
            if not items[0].inputs:
                raise ValueError("has no class, but a score map needs one.")
            found = self._maps.grid_maps(self._method, items)
            return [_score_seed(photo, maps) for photo, maps in zip(items, found, strict=True)]
        sizes = [(photo.sample.photo.height, photo.sample.photo.width) for photo in items]
        both = self._maps.maps(self._method, items, sizes, [seed_grid(*size) for size in sizes])
        return [_seed(photo, cam, high_res) for photo, (high_res, cam) in zip(items, both, strict=True)]

    def keep(self, number: int, item: Photo, result: Seed) -> None:
        self._results.write(self._file(number), encode_seed(result, self._format, self._dtype, self._high_res))

    def _file(self, number: int) -> str:
        return f"{self.names[number]}.npy"


def _score_seed(photo: Photo, maps: Tensor) -> Seed:
    """Return a seed whose map (1, h, w) is still on its own grid; the format "wsol" resizes it."""
    cam = resize(maps[None], seed_grid(*maps.shape[1:]))[0]
    return _seed(photo, cam, maps)


@dataclass(frozen=True)
class _Renumbered:
    """Reads photos by their place in a list of numbers."""

    read: Callable[[int], Photo]
    numbers: Sequence[int]

    def __call__(self, place: int) -> Photo:
        return self.read(self.numbers[place])


def _seed(photo: Photo, cam: Tensor, high_res: Tensor) -> Seed:
    return Seed(torch.tensor(photo.sample.keys, dtype=torch.long), cam, high_res.numpy())
