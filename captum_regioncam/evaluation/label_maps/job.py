"""The job of writing the label maps of seeds, and the folders that they go to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_regioncam.evaluation.datasets.base import PhotoData
from captum_regioncam.evaluation.label_maps.strategy import Strategy
from captum_regioncam.evaluation.runs.folder import ResultFolder, Results, held, recorded
from captum_regioncam.evaluation.runs.job import Job, run
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.seeds.reading import SeedItem, SeedReader, is_whole_scores
from captum_regioncam.files.photos import is_whole_image

__all__ = ["LabelMaps"]


@dataclass(frozen=True)
class LabelMaps:
    """Label maps to write.

    Attributes:
        seeds: the folder of seeds.
        output: where the strategy's files go.
        overlay: where pictures over the photo go.
        strategy: how they are made.
        data: the photos, for overlays, CRF, refinement, and formats of seeds that do not hold the size.
        argument: the argument with which the user named ``output``, for errors.
        refine: whether the maps are first refined with the photos.
    """

    seeds: Path
    output: Path
    overlay: Path | None
    strategy: Strategy
    data: PhotoData | None = None
    argument: str = "output"
    refine: bool = False

    def check(self, names: Sequence[str], *, resume: bool) -> None:
        """Check that the label maps can be written. Nothing is changed or left behind.

        Raises:
            ArgumentError: a folder has files of these names that this package did not write.
            OutputError: a folder cannot be written to.
        """
        for folder in self._folders(names):
            folder.check(resume=resume)

    def write(
        self, names: Sequence[str], worker: Worker, session: Mapping[str, object], *, resume: bool, show_progress: bool
    ) -> tuple[dict[str, str], int]:
        """Write the label maps of seeds. Return the failures, and how many seeds this call did.

        Results of other settings, and results that are older than their seed, are replaced.

        Raises:
            ArgumentError, OutputError: as in ``check``, or a folder is in use.
        """
        folders = self._folders(names)
        with held(folders, worker, session, resume=resume) as found:
            job = _LabelJob(self, names, {folder.path: own for folder, own in zip(folders, found, strict=True)})
            found[0].failures = failures = job.left | run(job, worker, show_progress=show_progress)
            return failures, job.remaining

    def places(self, name: str) -> list[tuple[Path, str]]:
        """Return where a seed's results go: folders, and names in them."""
        files = [(self.output, file) for file in self.strategy.files(name)]
        return files + ([(self.overlay, f"{name}.png")] if self.overlay else [])

    def _folders(self, names: Sequence[str]) -> list[ResultFolder]:
        inside = self.output.resolve().is_relative_to(self.seeds.resolve())
        inputs = {(self.seeds / f"{name}.npy").resolve() for name in names} if inside else set()
        settings = self.strategy.settings() | {"seeds": str(self.seeds.resolve()), "made_of": recorded(self.seeds)}
        if self.refine:
            settings["refine"] = True
        return [
            ResultFolder(
                argument,
                path,
                "labels",
                settings,
                [file for name in names for home, file in self.places(name) if home == path],
                replaces=True,
                inputs=inputs,
                per_photo=len(self.strategy.files("")) if path == self.output else 1,
                is_whole=_is_whole,
            )
            for argument, path in ((self.argument, self.output), ("overlay", self.overlay))
            if path
        ]


class _LabelJob(Job[SeedItem, list[bytes]]):
    """Writes the label maps of seeds.

    Attributes:
        left: {name: reason} of the seeds whose results somebody changed; they stay as they are.
    """

    def __init__(self, labels: LabelMaps, names: Sequence[str], results: Mapping[Path, Results]) -> None:
        self.names, self._labels, self._results = names, labels, results
        self._places = [labels.places(name) for name in names]
        self.left = {
            name: results[path].changed[file]
            for name, places in zip(names, self._places, strict=True)
            for path, file in places
            if file in results[path].changed
        }

    def reader(self) -> Callable[[int], SeedItem]:
        return SeedReader(self._labels.seeds, self.names, self._labels.data, self._labels.refine)

    def is_done(self, number: int) -> bool:
        name = self.names[number]
        return name in self.left or all(self._is_there(name, path, file) for path, file in self._places[number])

    def compute(self, items: list[SeedItem]) -> list[list[bytes]]:
        overlay = self._labels.overlay is not None
        return [
            self._labels.strategy.contents(read.seed, read.sample.photo if read.sample else None, overlay=overlay)
            for read in items
        ]

    def keep(self, number: int, item: SeedItem, result: list[bytes]) -> None:
        for (path, file), content in zip(self._places[number], result, strict=True):
            if not self._is_there(self.names[number], path, file):
                self._results[path].write(file, content)

    def _is_there(self, name: str, folder: Path, file: str) -> bool:
        """Return whether a result is there and, if it may be made again, no older than its seed."""
        results = self._results[folder]
        if file not in results.done:
            return False
        if file not in results.writer.stamps:
            return True
        try:
            return (self._labels.seeds / f"{name}.npy").stat().st_mtime_ns <= (folder / file).stat().st_mtime_ns
        except FileNotFoundError:  # of the seed; reading it will report that
            return False


def _is_whole(path: Path) -> bool:
    return is_whole_scores(path) if path.suffix == ".npy" else is_whole_image(path)
