"""The files that an evaluation writes: checked before the first photo, and written with the scores."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.datasets.base import PhotoData, source_of
from captum_regioncam.evaluation.runs.report import Report
from captum_regioncam.evaluation.runs.written import check_named
from captum_regioncam.evaluation.scoring.gallery import check_gallery
from captum_regioncam.files.outputs import check_picture, is_stream

__all__ = ["Outputs"]

Place = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Outputs:
    """Where the scores go; see :func:`~captum_regioncam.evaluation.evaluate`."""

    json: Place = None
    plot: Place = None
    csv: Place = None
    latex: Place = None
    per_class: bool = False
    per_photo: Place = None
    gallery: Place = None

    @property
    def need_photos(self) -> bool:
        """Whether the scores of each photo are needed."""
        return self.per_photo is not None or self.gallery is not None

    def check(self, data: PhotoData) -> None:
        """Check that the files that will be written replace neither an input nor each other.

        Raises:
            ArgumentError: they do.
            OutputError: they cannot be written.
        """
        if self.plot is not None:
            check_picture("plot", Path(self.plot))
        if self.gallery is not None:
            check_gallery(Path(self.gallery))
        root = source_of(data)["root"]
        home = Path(os.path.realpath(str(root))) if root else None
        stems = {Path(name).stem for name in data.names} if home else set()
        targets: dict[Path, str] = {}
        for name, path in self._files():
            if name in ("csv", "per_photo") and os.path.lexists(path) and not is_stream(path):
                raise ArgumentError(
                    Argument(name, path),
                    ": exists already, and a CSV file does not say what wrote it. Delete it, or choose another name.",
                )
            check_named(path)
            target = Path(os.path.realpath(path))
            if home and target.exists() and target.is_relative_to(home) and target.stem in stems:
                raise ArgumentError(
                    Argument(name, path), ": may be a photo or a mask of the data set; choose another name."
                )
            if target in targets:
                raise ArgumentError(
                    Argument(name, path), ": is the file of ", Argument(targets[target]), "; choose another name."
                )
            if self.gallery is not None and target.is_relative_to(os.path.realpath(self.gallery)):
                raise ArgumentError(
                    Argument(name, path), ": is in the folder of ", Argument("gallery"), "; choose another folder."
                )
            targets[target] = name

    def _files(self) -> Iterator[tuple[str, Path]]:
        for name in ("json", "plot", "csv", "latex", "per_photo"):
            path: Place = getattr(self, name)
            if path is not None:
                yield name, Path(path)

    def write(self, report: Report) -> None:
        """Write the files, but not the gallery.

        Raises:
            OSError: one cannot be written.
        """
        if self.json is not None:
            report.to_json(self.json)
        if self.plot is not None:
            report.plot(self.plot)
        if self.csv is not None:
            report.to_csv(self.csv, per_class=self.per_class)
        if self.latex is not None:
            report.to_latex(self.latex, per_class=self.per_class)
        if self.per_photo is not None:
            report.photos_to_csv(self.per_photo)
