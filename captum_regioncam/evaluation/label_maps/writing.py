"""``write_label_maps``: the strategy that its arguments name, for each seed of a folder."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from captum_regioncam.arguments import real
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoData
from captum_regioncam.evaluation.datasets.reading import checked_names
from captum_regioncam.evaluation.label_maps import CRFS
from captum_regioncam.evaluation.label_maps.best_threshold import best_threshold
from captum_regioncam.evaluation.label_maps.dense_crf import import_crf
from captum_regioncam.evaluation.label_maps.irn_crf import ConfidentCrf, IrnCrf
from captum_regioncam.evaluation.label_maps.job import LabelMaps
from captum_regioncam.evaluation.label_maps.psa_crf import PsaCrf
from captum_regioncam.evaluation.label_maps.strategy import Strategy
from captum_regioncam.evaluation.label_maps.threshold import Threshold
from captum_regioncam.evaluation.runs.folder import recorded
from captum_regioncam.evaluation.runs.job import first
from captum_regioncam.evaluation.runs.provenance import provenance
from captum_regioncam.evaluation.runs.record import RECORD
from captum_regioncam.evaluation.runs.workers import workers
from captum_regioncam.evaluation.runs.written import Written
from captum_regioncam.evaluation.seeds import NEED_PHOTOS
from captum_regioncam.evaluation.seeds.reading import SeedReader, check_refine, recorded_data, seeds_in
from captum_regioncam.evaluation.seeds.waiting import await_seeds

__all__ = ["WrittenLabelMaps", "strategy_of", "write_label_maps"]


@dataclass(frozen=True)
class WrittenLabelMaps(Written):
    """What :func:`write_label_maps` did.

    Attributes:
        folder: where the label maps are.
        names: of all seeds.
        failures: {name: reason} of the seeds that failed.
        threshold: the background threshold; None if none was used.
        best_miou: with ``threshold="best"``, the mIoU at the best threshold, in [0, 1].
        unscored: {name: reason} of the seeds that failed while the best threshold was sought.

    Example::

        >>> WrittenLabelMaps(Path("labels"), names=["2007_000032"], failures={}, threshold=0.3).record.as_posix()
        'labels/.captum_regioncam.json'
    """

    names: Sequence[str]
    failures: Mapping[str, str]
    threshold: float | None = None
    best_miou: float | None = None
    unscored: Mapping[str, str] = field(default_factory=dict)


def write_label_maps(
    seeds: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    refine: bool = False,
    threshold: float | Literal["best"] = 0.15,
    crf: str | None = None,
    confident: tuple[float, float] | None = None,
    alphas: Sequence[float] = (4.0, 24.0),
    overlay: str | os.PathLike[str] | None = None,
    data: PhotoData | None = None,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    wait: bool = False,
    resume: bool = False,
    show_progress: bool = True,
    about: Mapping[str, object] | None = None,
) -> WrittenLabelMaps:
    """Write a label map for each seed of a folder: each pixel's best class, or the background.

    Processes that torchrun started share the seeds.

    Args:
        seeds: the folder of NAME.npy, in any format.
        output: the folder for NAME.png, with VOC's palette; with ``crf="psa"`` for alpha-A/NAME.npy.
        refine: first refine the maps with the photo, so that they follow its edges; see
            :func:`~captum_regioncam.refine`.
        threshold: no map is above it where the background is; in [0, 1]. "best" takes the one with the highest mIoU
            against the masks of ``data``.
        crf: "irn" refines each label map as IRN does; "psa" writes the refined maps themselves, {0: background,
            class + 1: map}, for training PSA and SEAM, to a folder for each of ``alphas``. Needs the extra "crf".
        confident: with ``crf="irn"``: instead of one threshold, two. Pixels below the first are background, those above
            the second have a class, and 255 marks the rest, as for IRN's training, which uses (0.05, 0.3).
        alphas: with ``crf="psa"``: powers of the background.
        overlay: a folder for pictures of the labels over the photos.
        data: the photos, with masks if ``threshold`` is "best". Default: what the seeds' record names.
        names: of the seeds. Default: all in and below the folder, except what another run wrote into a folder inside.
        limit: only the first so many seeds.
        wait: if runs are still writing the seeds, wait until they have finished. Otherwise, that is an error.
        resume: continue where the same call was interrupted.
        show_progress: show a bar.
        about: more for the record to say of where the label maps come from, as JSON values.

    Raises:
        ArgumentError: there are no seeds, a run has not finished writing them, they are refined already, arguments do
            not go together, or something is in the way in ``output``.
        ValueError: all seeds failed.
        ImportError: ``crf`` needs a package that is not installed.
        OSError: the files cannot be written.

    Example::

        >>> written = write_label_maps("seeds", "labels", threshold=0.3, show_progress=False)
        >>> len(written.failures), sorted(path.name for path in written.folder.glob("*.png"))[0]
        (0, '2007_000001.png')
    """
    folder, best = Path(seeds), threshold == "best"

    def prepare() -> tuple[Strategy, tuple[Path, Path | None]]:
        if not folder.is_dir():
            raise ArgumentError(Argument("seeds", folder), ": no such folder of seeds.")
        check_refine(folder, refine)
        if best and (confident or crf == "psa"):
            raise ArgumentError(
                Argument("threshold", threshold), ": is used neither for confident labels nor by PSA's CRF."
            )
        strategy = strategy_of(0.15 if threshold == "best" else threshold, crf, confident, alphas)
        return strategy, _checked_places(folder, Path(output), None if overlay is None else Path(overlay), strategy)

    with workers() as worker:
        strategy, places = worker.together(prepare)
        worker.from_first(partial(await_seeds, folder, names, limit, wait=wait, show_progress=show_progress))
        names = worker.from_first(partial(_names, folder, names, limit))
        settings = worker.together(lambda: recorded(folder)) or {}
        wanted = best or overlay or refine or strategy.needs_photo or settings.get("format") in NEED_PHOTOS
        if data is None and wanted:
            data = worker.together(partial(recorded_data, folder, ground_truth=best))
        at: float | None = None if threshold == "best" else threshold
        miou: float | None = None
        unscored: dict[str, str] = {}
        if best:
            at, miou, unscored = best_threshold(SeedReader(folder, names, data, refine), worker, show_progress)
            strategy = strategy_of(at, crf, confident, alphas)
        labels = LabelMaps(folder, *places, strategy, data, refine=bool(refine))
        session = provenance({**_origin(data), "refine": bool(refine), "made_of": settings or None, **(about or {})})
        failures = labels.write(names, worker, session, resume=resume, show_progress=show_progress)
    used = at if "threshold" in strategy.settings() else None
    return WrittenLabelMaps(places[0], names, failures, used, miou, unscored)


def strategy_of(
    threshold: float = 0.15,
    crf: str | None = None,
    confident: tuple[float, float] | None = None,
    alphas: Sequence[float] = (4.0, 24.0),
) -> Strategy:
    """Return the strategy that arguments name; see :func:`write_label_maps`.

    Raises:
        ArgumentError: they do not go together.
        ImportError: pydensecrf2 is needed, and not installed.
    """
    if not 0 <= real(threshold) <= 1:
        raise ArgumentError(Argument("threshold", threshold), ": expects a number from 0 to 1.")
    threshold, alphas = real(threshold), list(map(real, alphas))
    if not alphas or not all(0 < alpha < math.inf for alpha in alphas):
        raise ArgumentError(Argument("alphas", alphas), ": expects at least one number, each above 0.")
    if confident and not 0 <= real(confident[0]) <= real(confident[1]) < 1:
        raise ArgumentError(
            Argument("confident", confident), ": expects two numbers in [0, 1), the first not greater than the second."
        )
    if confident and crf != "irn":
        raise ArgumentError(Argument("confident"), ": requires ", Argument("crf", "irn"), ".")
    if crf is None:
        return Threshold(threshold)
    if crf not in CRFS:
        raise ArgumentError(Argument("crf", crf), f": expects one of {', '.join(CRFS)}.")
    import_crf()
    if crf == "psa":
        return PsaCrf(alphas)
    return ConfidentCrf(*map(real, confident)) if confident else IrnCrf(threshold)


def _names(folder: Path, names: Sequence[str] | None, limit: int | None) -> list[str]:
    """Return the names of the seeds, checked."""
    found = sorted(seeds_in(folder)) if names is None else checked_names(names, "names", "the folder of the seeds")
    if not found:
        inside = sorted(path.parent.name for path in folder.glob(f"*/{RECORD}"))
        others = f" Seeds may be in {', '.join(inside)}, which have records of their own." if inside else ""
        raise ArgumentError(Argument("seeds", folder), f": has no seeds (NAME.npy).{others}")
    return first(found, limit)


def _origin(data: PhotoData | None) -> dict[str, object]:
    source = getattr(data, "source", {})
    return {name: source.get(name) for name in ("dataset", "split")} if source else {}


def _checked_places(seeds: Path, output: Path, overlay: Path | None, strategy: Strategy) -> tuple[Path, Path | None]:
    for argument, path in (("output", output), ("overlay", overlay)):
        if path and path.resolve() == seeds.resolve():
            raise ArgumentError(Argument(argument, path), ": is the folder of the seeds; choose another.")
    if overlay and overlay.resolve() == output.resolve():
        raise ArgumentError(
            Argument("overlay", overlay), ": is the folder of ", Argument("output"), "; choose another."
        )
    if overlay and not strategy.has_overlays:
        raise ArgumentError(
            Argument("overlay"),
            ": cannot be used with ",
            Argument("crf", "psa"),
            ", which writes scores and no label maps.",
        )
    if not strategy.has_overlays and output.resolve().is_relative_to(seeds.resolve()):
        raise ArgumentError(Argument("output", output), ": is inside the folder of the seeds; choose another.")
    return output, overlay
