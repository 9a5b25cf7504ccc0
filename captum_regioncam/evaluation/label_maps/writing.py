"""``write_label_maps``: applies the strategy that its arguments describe to each seed of a folder."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, cast

from captum_regioncam.arguments import whole
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoData
from captum_regioncam.evaluation.datasets.reading import MOST_CLASSES, checked_names
from captum_regioncam.evaluation.label_maps.best_threshold import Best, best_after, best_threshold
from captum_regioncam.evaluation.label_maps.choice import Confidence, confident_around, strategy_of
from captum_regioncam.evaluation.label_maps.job import LabelMaps
from captum_regioncam.evaluation.label_maps.strategy import Labelling, Strategy
from captum_regioncam.evaluation.runs.folder import recorded
from captum_regioncam.evaluation.runs.job import first
from captum_regioncam.evaluation.runs.provenance import provenance
from captum_regioncam.evaluation.runs.record import RECORD
from captum_regioncam.evaluation.runs.workers import workers
from captum_regioncam.evaluation.runs.written import Written
from captum_regioncam.evaluation.seeds import NEED_PHOTOS
from captum_regioncam.evaluation.seeds.reading import (
    SeedReader,
    check_are_seeds,
    check_refine,
    recorded_data,
    seeds_in,
)
from captum_regioncam.evaluation.seeds.waiting import await_seeds

__all__ = ["WrittenLabelMaps", "check_class_count", "write_label_maps"]


@dataclass(frozen=True)
class WrittenLabelMaps(Written):
    """What :func:`write_label_maps` did.

    Attributes:
        folder: where the label maps are.
        names: the names of all seeds.
        failures: {name: reason} of the seeds that failed.
        threshold: the background threshold; None if none was used.
        best_miou: the mIoU at the best threshold, in [0, 1]: with ``threshold="best"``, that of the label maps, after
            the CRF if there is one; with ``confident="best"``, that of the maps before the CRF.
        unscored: {name: reason} of the seeds that failed in the search for the best threshold.
        best_threshold: the best threshold, if there was a search for it.
        confident: the two thresholds of confident labels, or the least probability of CLIP-ES's confident labels; None
            if the labels are not confident ones.
        photos: the number of seeds that this call did. The others had label maps already.
        seconds: the time that this call took, with the search for the best threshold.

    Example::

        >>> written = WrittenLabelMaps(Path("labels"), names=["2007_000032"], failures={}, threshold=0.3)
        >>> written.threshold, len(written.names)
        (0.3, 1)
    """

    names: Sequence[str]
    failures: Mapping[str, str]
    threshold: float | None = None
    best_miou: float | None = None
    unscored: Mapping[str, str] = field(default_factory=dict)
    best_threshold: float | None = None
    confident: tuple[float, float] | float | None = None
    photos: int = 0
    seconds: float = 0.0


def write_label_maps(
    seeds: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    refine: bool = False,
    threshold: float | Literal["best"] = 0.15,
    crf: str | None = None,
    background: str | None = None,
    power: float = 1.0,
    confident: Confidence = None,
    alphas: Sequence[float] = (4.0, 24.0),
    best_photos: int | None = None,
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
        threshold: the background threshold, in [0, 1]: pixels where no map is above it are background. "best" takes the
            threshold with the highest mIoU against the masks of ``data``. With ``crf``, this is the mIoU after the CRF,
            and takes about 9 CRFs for each photo.
        crf: the pipeline whose dense CRF refines the labels. "irn" refines the label map, "toco" the softmax of the
            maps and the background, and "clip-es" the maps and CLIP-ES's background as probabilities. "psa" writes the
            refined maps themselves, {0: background, class + 1: map}, for training PSA and SEAM, to a folder for each of
            ``alphas``. Needs the extra "crf". Default: no CRF.
        background: the map of the background: "constant" is the threshold, and "clip-es" is (1 - the highest map) **
            ``power``. Default: "clip-es" with ``crf="clip-es"``, otherwise "constant".
        power: the power in the background "clip-es".
        confident: for training, label only pixels that are certain, and give the others 255. With ``crf="irn"`` or
            "toco", two thresholds: pixels below the first are background, and those above the second have a class; True
            stands for (0.05, 0.3) with "irn" and (0.25, 0.7) with "toco", as in these pipelines, and "best" for 0.1
            below and 0.15 above the threshold that is best before the CRF. With ``crf="clip-es"``, the least
            probability after the CRF; True stands for CLIP-ES's 0.95.
        alphas: with ``crf="psa"``: powers of the background.
        best_photos: choose the best threshold on this many seeds, evenly spread over all. Default: on all seeds.
        overlay: a folder for pictures of the labels over the photos.
        data: the photos, with masks if the best threshold is wanted. Default: the data set that the seeds' record
            names.
        names: the names of the seeds. Default: all in and below the folder, except what another run wrote into a folder
            inside it.
        limit: only the first ``limit`` seeds. Default: all.
        wait: if runs are still writing the seeds, wait until they have finished. Otherwise, this is an error.
        resume: continue where an earlier run of the same call was interrupted.
        show_progress: show a progress bar.
        about: further entries for the record, such as where the label maps come from, as JSON values.

    Returns:
        The label maps that were written, the threshold, and the seeds that failed.

    Raises:
        ArgumentError: there are no seeds, a run has not finished writing them, or they are scores after a dense CRF or
            already refined; arguments do not go together; the data set has more than 254 classes; or ``output`` has
            files in the way that this package did not write.
        ValueError: all seeds failed.
        ImportError: ``crf`` needs a package that is not installed.
        OSError: the files cannot be written.

    Example::

        >>> written = write_label_maps("seeds", "labels", threshold=0.3, show_progress=False)
        >>> len(written.failures), sorted(path.name for path in written.folder.glob("*.png"))[0]
        (0, '2007_000001.png')
    """
    folder, best = Path(seeds), "best" in (threshold, confident)
    fixed = 0.15 if threshold == "best" else threshold

    def at(threshold: float, confident: Confidence) -> Strategy:
        return strategy_of(threshold, crf, confident, alphas, background, power)

    def prepare() -> tuple[Strategy, tuple[Path, Path | None]]:
        if not folder.is_dir():
            raise ArgumentError(Argument("seeds", folder), ": no such folder of seeds.")
        check_refine(folder, refine)
        strategy = at(fixed, True if confident == "best" and crf != "clip-es" else confident)
        if threshold == "best" and "threshold" not in strategy.settings():
            raise ArgumentError(
                Argument("threshold", threshold),
                ": is used neither for confident labels, nor by PSA's CRF, nor for CLIP-ES's background.",
            )
        if best_photos is not None and not (best and whole(best_photos)):
            raise ArgumentError(
                Argument("best_photos", best_photos),
                ": expects a whole number above 0, and ", Argument("threshold", "best"), " or ",
                Argument("confident", "best"), ".",
            )  # fmt: skip
        return strategy, _checked_places(folder, Path(output), None if overlay is None else Path(overlay), strategy)

    with workers() as worker:
        strategy, places = worker.together(prepare)
        worker.from_first(partial(await_seeds, folder, names, limit, wait=wait, show_progress=show_progress))
        names = worker.from_first(partial(_names, folder, names, limit))
        worker.from_first(partial(check_are_seeds, folder, names))
        start = time.monotonic()
        settings = worker.together(lambda: recorded(folder)) or {}
        sizeless = settings.get("format") in NEED_PHOTOS or settings.get("high_res") is False
        if data is None and (best or overlay or refine or strategy.needs_photo or sizeless):
            data = worker.together(partial(recorded_data, folder, ground_truth=best))
        if data is not None and strategy.has_overlays:
            check_class_count(data)
        found: Best | None = None
        reader = SeedReader(folder, _spread(names, best_photos), data, refine)
        if confident == "best":
            found = best_threshold(reader, worker, show_progress)
            strategy = at(fixed, confident_around(found.threshold))
        elif threshold == "best":
            found = (
                best_after(lambda one: cast(Labelling, at(one, None)), reader, worker, show_progress)
                if crf is not None
                else best_threshold(reader, worker, show_progress)
            )
            strategy = at(found.threshold, confident)
        labels = LabelMaps(folder, *places, strategy, data, refine=bool(refine))
        of_best = _of_best(found, len(reader.names)) if found else {}
        session = provenance(
            {**_origin(data), "refine": bool(refine), "made_of": settings or None, **of_best, **(about or {})}
        )
        failures, count = labels.write(names, worker, session, resume=resume, show_progress=show_progress)
    used = strategy.settings()
    return WrittenLabelMaps(
        places[0],
        names,
        failures,
        cast(float | None, used.get("threshold")),
        found.miou if found else None,
        found.failures if found else {},
        found.threshold if found else None,
        _confidence(used.get("confident")),
        count,
        time.monotonic() - start,
    )


def check_class_count(data: PhotoData, argument: str = "data") -> None:
    """Check that label maps can hold the classes of a data set.

    Raises:
        ArgumentError: there are too many.
    """
    if (count := len(data.classes)) > MOST_CLASSES:
        raise ArgumentError(
            Argument(argument), f": the photos have {count:,} classes, but an 8-bit label map holds {MOST_CLASSES}."
        )


def _spread(names: Sequence[str], count: int | None) -> list[str]:
    """Return ``count`` of the names, evenly spread; all of them for None."""
    count = len(names) if count is None else min(whole(count), len(names))
    return [names[index * len(names) // count] for index in range(count)]


def _confidence(recorded: object) -> tuple[float, float] | float | None:
    """Return the thresholds, or the confidence, that the settings of a strategy contain."""
    return (recorded[0], recorded[1]) if isinstance(recorded, list) else cast(float | None, recorded)


def _of_best(best: Best, seeds: int) -> dict[str, object]:
    """Return what the record says about how the threshold was chosen."""
    chosen: dict[str, object] = {"threshold": best.threshold, "miou": best.miou, "seeds": seeds - len(best.failures)}
    chosen["after_crf"] = best.curve is not None
    if best.curve:
        chosen["tried"] = {f"{threshold:g}": miou for threshold, miou in best.curve.items()}
    return {"best": chosen}


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
            ", which writes scores, not label maps.",
        )
    if not strategy.has_overlays and output.resolve().is_relative_to(seeds.resolve()):
        raise ArgumentError(Argument("output", output), ": is inside the folder of the seeds; choose another.")
    return output, overlay
