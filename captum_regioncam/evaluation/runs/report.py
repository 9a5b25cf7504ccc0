"""The scores of an evaluation: as tables, a dict, files and a plot."""

import csv
import io
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from captum_regioncam.evaluation.runs.tables import Table, cell
from captum_regioncam.extras import extra
from captum_regioncam.files.outputs import MARK, encode_figure, is_stream, write_output, write_whole
from captum_regioncam.files.text import counted, printable

with extra("eval"):
    from torchmetrics import Metric

__all__ = ["Figures", "Report", "computed", "in_percent"]

Figures = dict[str, dict[str, object]]
"""For each method, its scores by name."""


@dataclass(frozen=True)
class Report:
    """The scores of one or several methods on the same photos.

    Attributes:
        scores: for each method its scores by name: percentages, thresholds in [0, 1], and None for what the photos do
            not tell; dicts of the scores of each class; and the number of ``photos`` that were counted and of those
            that ``failed``.
        failures: {name: reason} of the photos that failed and were left out.
        provenance: where the scores come from, as JSON values.
        title: the table's title.
        columns: the scores in the table, and their titles there.
        axis: what the curves show.
        titles: the methods' titles in the table and in the plot. Default: their names.
        class_tables: the scores of each class that are shown, and the titles of their tables.
        photos: for each photo and method a dict with its name (``photo``), the ``method``, the names of the photo's
            ``classes`` and its scores; empty unless they were asked for.
        photo_columns: the names of the scores in ``photos``.
        counted: the number of photos that this call did. An interrupted run had counted the others.
        seconds: the time that these took.

    Example::

        >>> report = Report({"region-cam": {"miou": 62.14, "best_threshold": 0.31, "photos": 12}}, title="mIoU")
        >>> report.to_dict()["region-cam"]["miou"]
        62.14
    """

    scores: Figures
    failures: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)
    title: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    axis: str = ""
    titles: Mapping[str, str] = field(default_factory=dict)
    class_tables: Mapping[str, str] = field(default_factory=dict)
    photos: Sequence[Mapping[str, object]] = ()
    photo_columns: Sequence[str] = ()
    counted: int = 0
    seconds: float = 0.0

    def table(self, width: int = 120, *, ascii: bool = False, per_class: bool = False) -> str:
        """Return the scores as text, a line for each method.

        Args:
            width: the longest line, in characters.
            ascii: draw the lines between the cells with ASCII characters.
            per_class: add tables of the scores of each class, with a column for each method.

        Example::

            >>> scores = {"miou": 55.8, "best_miou": 62.14, "best_threshold": 0.31, "photos": 12}
            >>> columns = {"miou": "mIoU at 0.15", "best_miou": "best mIoU", "best_threshold": "at"}
            >>> report = Report({"region-cam": scores}, title="VOC 2012 val", columns=columns)
            >>> print(report.table())
            VOC 2012 val; 12 photos
            ┏━━━━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━┓
            ┃ method     ┃ mIoU at 0.15 ┃ best mIoU ┃   at ┃
            ┡━━━━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━┩
            │ region-cam │        55.80 │     62.14 │ 0.31 │
            └────────────┴──────────────┴───────────┴──────┘
        """
        return "\n\n".join(table.text(width, ascii=ascii) for table in self._tables(per_class))

    def _tables(self, per_class: bool) -> list[Table]:
        names = {method: self.titles.get(method, method) for method in self.scores}
        shown = [name for name in self.columns if any(name in row for row in self.scores.values())]
        rows = [
            [names[method], *(cell(row.get(name), ".3g" if "threshold" in name else ".2f") for name in shown)]
            for method, row in self.scores.items()
        ]
        photos = cast(int, next((row["photos"] for row in self.scores.values()), 0))
        header = ["method", *(self.columns[name] for name in shown)]
        tables = [Table(f"{self.title}; {counted(photos, 'photo')}", header, rows)]
        for name, title in self.class_tables.items() if per_class else ():
            found = {method: of for method, row in self.scores.items() if isinstance(of := row.get(name), Mapping)}
            classes = dict.fromkeys(label for of in found.values() for label in of)
            rows = [[label, *(cell(of.get(label)) for of in found.values())] for label in classes]
            means = ["mean", *(cell(_mean(of.values())) for of in found.values())]
            if found:
                header = ["class", *(names[method] for method in found)]
                tables.append(Table(title, header, [*rows, means], last_apart=True))
        return tables

    def to_dict(self) -> dict[str, object]:
        """Return the scores of each method, and their ``provenance`` beside them, as JSON values.

        Example::

            >>> Report({"region-cam": {"miou": 62.14}}, provenance={"device": "cpu"}).to_dict()
            {'provenance': {'device': 'cpu'}, 'region-cam': {'miou': 62.14}}
        """
        return {"provenance": dict(self.provenance), **self.scores}

    def to_csv(self, path: str | os.PathLike[str], *, per_class: bool = False) -> None:
        """Write a line for each method, with the scores that are single numbers.

        Args:
            path: the file, which must not exist yet.
            per_class: also write the scores of each class, in columns such as "best_per_class cat".

        Raises:
            FileExistsError: ``path`` exists already.
            OSError: the file cannot be written.

        Example::

            >>> scores = {"miou": 62.14, "per_class": {"background": 80.0, "cat": 44.28}}
            >>> Report({"region-cam": scores}).to_csv("scores.csv", per_class=True)
            >>> print(Path("scores.csv").read_text())
            method,miou,per_class background,per_class cat
            region-cam,62.14,80.0,44.28
        """
        rows = [{"method": method, **_singles(row, per_class)} for method, row in self.scores.items()]
        _write_csv(path, list(dict.fromkeys(name for row in rows for name in row)) or ["method"], rows)

    def photos_to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write ``photos``: a line for each photo and method.

        Args:
            path: the file, which must not exist yet.

        Raises:
            FileExistsError: ``path`` exists already.
            OSError: the file cannot be written.

        Example::

            >>> photo = {"photo": "2007_000032", "method": "region-cam", "classes": "car; person"}
            >>> photos = [photo | {"miou": 71.2}]
            >>> Report({}, photos=photos, photo_columns=["miou"]).photos_to_csv("photos.csv")
            >>> print(Path("photos.csv").read_text())
            photo,method,classes,miou
            2007_000032,region-cam,car; person,71.2
        """
        _write_csv(path, ["photo", "method", "classes", *self.photo_columns], self.photos)

    def to_latex(self, path: str | os.PathLike[str], *, per_class: bool = False) -> None:
        r"""Write what :meth:`table` shows as LaTeX tables; a file is replaced only if this package wrote it.

        Args:
            path: the file, for ``\input`` in a document that uses the package booktabs.
            per_class: as in :meth:`table`.

        Raises:
            OSError: this package did not write the file that is there, or the file cannot be written.

        Example::

            >>> scores = {"region-cam": {"miou": 62.14, "photos": 12}}
            >>> report = Report(scores, title="VOC 2012 val", columns={"miou": "mIoU"})
            >>> report.to_latex("scores.tex")
            >>> print(Path("scores.tex").read_text())
            % written by captum_regioncam; needs \usepackage{booktabs}
            % VOC 2012 val; 12 photos
            \begin{tabular}{lr}
            \toprule
            method & mIoU \\
            \midrule
            region-cam & 62.14 \\
            \bottomrule
            \end{tabular}
        """
        tables = "\n\n".join(table.latex() for table in self._tables(per_class))
        content = f"% {MARK}; needs \\usepackage{{booktabs}}\n{tables}\n"
        write_output(Path(path), printable(content).encode())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write what :meth:`to_dict` returns; a file is replaced only if this package wrote it.

        Args:
            path: the JSON file.

        Raises:
            OSError: this package did not write the file that is there, or the file cannot be written.

        Example::

            >>> Report({"region-cam": {"miou": 62.14}}).to_json("scores.json")
            >>> json.loads(Path("scores.json").read_text())["region-cam"]
            {'miou': 62.14}
        """
        write_output(Path(path), (json.dumps(self.to_dict(), indent=1) + "\n").encode())

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw each method's score over the threshold; a file is replaced only if this package wrote it.

        Args:
            path: the picture, which ends in .png, .jpg, .pdf or .svg.

        Raises:
            OSError: this package did not write the file that is there, or the file cannot be written.

        Example::

            >>> scores = {"thresholds": [0.0, 0.5, 1.0], "curve": [35.2, 62.1, 40.3]}
            >>> Report({"region-cam": scores}, axis="mIoU").plot("miou.png")
            >>> np.asarray(Image.open("miou.png")).shape
            (600, 900, 4)
        """
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for method, row in self.scores.items():
            axes.plot(
                np.array(row["thresholds"]), np.array(row["curve"], dtype=float), label=self.titles.get(method, method)
            )
        axes.set(xlabel="threshold", ylabel=self.axis, xlim=(0, 1), ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        write_output(Path(path), encode_figure(figure, Path(path), dpi=150))


def computed(metric: Metric) -> dict[str, Tensor]:
    """Compute a metric over all workers, some of which may have had no photos."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        result = metric.compute()
    return result if isinstance(result, dict) else {"pxap": result}


def in_percent(scores: Mapping[str, Tensor]) -> dict[str, object]:
    """Turn scores into JSON values in percent, with None for NaN; thresholds stay as they are."""
    return {
        name: _plain((value if "threshold" in name else 100 * value).double().tolist())
        for name, value in scores.items()
    }


def _plain(values: object) -> object:
    return [_plain(value) for value in values] if isinstance(values, list) else None if values != values else values


def _singles(row: Mapping[str, object], per_class: bool) -> dict[str, object]:
    """Return the scores that are single numbers and, with ``per_class``, each class's under names of their own."""
    singles: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            singles |= {f"{name} {label}": one for label, one in value.items()} if per_class else {}
        elif value is None or isinstance(value, (int, float, str)):
            singles[name] = value
    return singles


def _mean(values: Iterable[object]) -> float | None:
    known = [value for value in values if isinstance(value, (int, float))]
    return sum(known) / len(known) if known else None


def _write_csv(path: str | os.PathLike[str], names: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    if os.path.lexists(path) and not is_stream(path):
        raise FileExistsError(f"{path}: exists already; choose another name.")
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, content.getvalue().encode("utf-8", "surrogateescape"))
