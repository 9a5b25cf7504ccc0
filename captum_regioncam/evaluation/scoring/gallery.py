"""A gallery: each method's best, median and worst photos, as contact sheets and as one page."""

import base64
import io
import logging
import os
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.photo_maps import Photo
from captum_regioncam.evaluation.runs.folder import ResultFolder, held
from captum_regioncam.evaluation.runs.job import Job, run
from captum_regioncam.evaluation.runs.record import Record
from captum_regioncam.evaluation.runs.report import Report
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.scoring.job import Pictures, ScoreJob
from captum_regioncam.evaluation.scoring.page import Line, page
from captum_regioncam.evaluation.scoring.pictures import small
from captum_regioncam.evaluation.scoring.sheet import Entry, sheet
from captum_regioncam.files.outputs import check_folder, fits
from captum_regioncam.files.photos import encode_image
from captum_regioncam.files.text import counted

__all__ = ["PAGE", "SECTIONS", "Gallery", "check_gallery", "sections_of"]

_log = logging.getLogger(__name__)
Result = TypeVar("Result")
PAGE = "index.html"
SECTIONS = ("best", "median", "worst")
_MOST = 20  # photos in a section
_COMMAND = "gallery"  # in the folder's record
Encoded = dict[str, bytes]
"""The encoded pictures of a photo, by what they show."""


def check_gallery(folder: Path) -> None:
    """Check that a folder is new, empty, or holds an older gallery.

    Raises:
        ArgumentError: it holds something else.
        OutputError: it cannot be written to.
    """
    if folder.is_dir():
        others = [name for name in sorted(os.listdir(folder)) if not name.startswith(".captum_regioncam")]
        if others and not Record.read(folder).of(_COMMAND):
            raise ArgumentError(
                Argument("gallery", folder), f": has {others[0]}, so it is not a gallery. Choose a new or empty folder."
            )
    check_folder(folder)


def sections_of(scores: Mapping[str, float]) -> dict[str, list[str]]:
    """Choose the twenty best, median and worst photos; if there are fewer than sixty photos, a third each.

    Args:
        scores: the score of each photo, by name.

    Returns:
        The names in each of ``SECTIONS``: the best first, but the worst first in "worst".

    Example::

        >>> sections_of({"a": 10.0, "b": 30.0, "c": 20.0})
        {'best': ['b'], 'median': ['c'], 'worst': ['a']}
    """
    ranked = sorted(scores, key=lambda name: -scores[name])
    count = min(_MOST, -(-len(ranked) // 3))
    middle = (len(ranked) - count) // 2
    return {
        "best": ranked[:count],
        "median": ranked[middle : middle + count],
        "worst": ranked[::-1][:count],
    }


@dataclass(frozen=True)
class Gallery(Generic[Result]):
    """Writes the pictures of some photos of an evaluation.

    Attributes:
        folder: the folder for the pictures.
        job: the job that scored the photos; it computes these photos again, so that no maps are kept meanwhile.
        worker: this process. All processes share the photos.
    """

    folder: Path
    job: ScoreJob[Result]
    worker: Worker

    def check(self) -> None:
        """Check that the folder can be written to. Nothing is changed or left behind.

        Raises:
            ArgumentError: a file that this package did not write is in the way.
            OutputError: the folder cannot be written to.
        """
        check_gallery(self.folder)
        self._results.check(resume=False)

    def write(self, report: Report, *, show_progress: bool) -> None:
        """Draw the photos and write the gallery, which replaces an older one.

        Args:
            report: with the scores of each photo.
            show_progress: show a bar.

        Raises:
            ArgumentError: another run is writing to the folder, or a file is in the way.
            OutputError: it cannot be written to.
        """
        of_photos: dict[str, dict[str, Mapping[str, object]]] = {}
        for row in report.photos:
            of_photos.setdefault(str(row["photo"]), {})[str(row["method"])] = row
        ranking = self.job.counts.ranking
        sections = {
            method: sections_of(
                {
                    name: score
                    for name, rows in of_photos.items()
                    if isinstance(score := rows[method][ranking], (int, float))
                }
            )
            for method in report.scores
        }
        shown = {name for of in sections.values() for names in of.values() for name in names}
        names = [name for name in self.job.names if name in shown]
        if not names:
            _log.warning("%s: the gallery is not written, because no photo has a score.", self.folder)
            return
        drawing = _Drawing(self.job, names, report, of_photos)
        if self.worker.is_first:
            _log.info("Gallery in %s: drawing %s.", self.folder, counted(len(names), "photo"))
        for name, reason in run(drawing, self.worker, show_progress=show_progress).items():
            if self.worker.is_first:
                _log.warning("%s is not in the gallery: %s", name, reason)
        drawn = {name: of for part in self.worker.gather(drawing.drawn) for name, of in part.items()}
        with held([self._results], self.worker, report.provenance, resume=False) as [results]:
            if self.worker.is_first:
                for message in results.changed.values():
                    _log.warning("%s", message)
                for name, content in self._files(report, sections, of_photos, drawn):
                    if name not in results.changed:
                        results.write(name, content)

    def _files(
        self,
        report: Report,
        sections: Mapping[str, Mapping[str, Sequence[str]]],
        of_photos: Mapping[str, Mapping[str, Mapping[str, object]]],
        drawn: Mapping[str, tuple[Encoded, Mapping[str, Encoded]]],
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the content of each file, one after the other."""
        ranking = self.job.counts.ranking
        titles = {method: report.titles.get(method, method) for method in report.scores}
        places: dict[tuple[str, str], str] = {}
        for method, of in sections.items():
            for section, names in of.items():
                entries = []
                for name in (name for name in names if name in drawn):
                    places.setdefault((name, method), section)
                    shared, own = drawn[name]
                    row = of_photos[name][method]
                    entries.append(Entry(name, str(row["classes"]), _score(row[ranking]), shared | own[method]))
                count = f"the {section} {len(entries)} of {counted(len(of_photos), 'photo')}"
                title = f"{titles[method]}: {count}{self._threshold(report.scores[method])}"
                yield self._sheets[method, section], encode_image(sheet(title, entries))
        lines = [
            Line(
                name,
                str(next(iter(of_photos[name].values()))["classes"]),
                {what: _inline(content) for what, content in shared.items()},
                {
                    method: (
                        {what: _inline(content) for what, content in pictures.items()},
                        _score(of_photos[name][method][ranking]),
                        places.get((name, method), ""),
                    )
                    for method, pictures in own.items()
                },
            )
            for name, (shared, own) in drawn.items()
        ]
        yield PAGE, page(lines, titles, self.job.counts.ranking_title, str(report.provenance.get("written_by", "")))

    def _threshold(self, scores: Mapping[str, object]) -> str:
        at = self.job.counts.at
        return "" if at is None else f", threshold {scores[at]:.3g}"

    @property
    def _results(self) -> ResultFolder:
        names = [*self._sheets.values(), PAGE]
        return ResultFolder("gallery", self.folder, _COMMAND, {"files": names}, names, replaces=True)

    @property
    def _sheets(self) -> dict[tuple[str, str], str]:
        """The names of the contact sheets."""
        names: dict[tuple[str, str], str] = {}
        taken: set[str] = set()
        for method in self.job.rows:
            plain = re.sub(r"[^\w.-]+", "-", method).strip("-.") or "method"
            stem = next(stem for stem in (plain, *(f"{plain}-{n}" for n in range(2, 1 << 16))) if stem not in taken)
            taken.add(stem)
            names |= {(method, section): fits(stem, f"-{section}.png") for section in SECTIONS}
        return names


class _Drawing(Job[Photo, Result]):
    """Draws some of the photos that a job scored.

    Attributes:
        drawn: for each photo its own pictures, and those of each method.
    """

    def __init__(
        self,
        job: ScoreJob[Result],
        names: Sequence[str],
        report: Report,
        of_photos: Mapping[str, Mapping[str, Mapping[str, object]]],
    ) -> None:
        self.names, self.batch, self.readers = names, job.batch, job.readers
        self._job, self._report, self._of_photos = job, report, of_photos
        self.drawn: dict[str, tuple[Encoded, dict[str, Encoded]]] = {}

    def reader(self) -> Callable[[int], Photo]:
        """Return a reader of these photos."""
        numbers = {name: number for number, name in enumerate(self._job.names)}
        return _Reader(self._job.reader(), [numbers[name] for name in self.names])

    def alike(self, item: Photo) -> Hashable:
        """Return what the job asks for."""
        return self._job.alike(item)

    def compute(self, items: list[Photo]) -> Sequence[Result]:
        """Compute as the job does."""
        return self._job.compute(items)

    def keep(self, number: int, item: Photo, result: Result) -> None:
        """Draw a photo."""
        name = self.names[number]
        shared, own = self._job.pictures(item.sample, result, self._report.scores, self._of_photos[name])
        self.drawn[name] = _encoded(shared), {method: _encoded(pictures) for method, pictures in own.items()}


@dataclass(frozen=True)
class _Reader:
    read: Callable[[int], Photo]
    numbers: Sequence[int]

    def __call__(self, number: int) -> Photo:
        return self.read(self.numbers[number])


def _encoded(pictures: Pictures) -> Encoded:
    """Return small pictures: label maps as PNG, photos as JPEG."""
    return {what: _content(small(picture)) for what, picture in pictures.items()}


def _content(picture: Image.Image) -> bytes:
    if picture.mode == "P":
        return encode_image(picture)
    content = io.BytesIO()
    picture.convert("RGB").save(content, format="JPEG", quality=85)
    return content.getvalue()


def _inline(content: bytes) -> str:
    """Return a picture as a ``data:`` address, which a page may contain instead of a file's address."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _score(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
