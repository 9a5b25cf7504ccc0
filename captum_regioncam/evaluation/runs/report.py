"""The scores of an evaluation: as a table, a dict, a file and a plot."""

import csv
import io
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from captum_regioncam.extras import extra
from captum_regioncam.files.outputs import encode_figure, write_output, write_whole

with extra("eval"):
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    from torchmetrics import Metric

__all__ = ["Figures", "Report", "computed", "in_percent"]

Figures = dict[str, dict[str, object]]
"""For each method, its scores by name."""


@dataclass(frozen=True)
class Report:
    """The scores of one or several methods on the same photos.

    Attributes:
        scores: for each method its scores by name: percentages, thresholds in [0, 1], and None for what no photo tells;
            with the number of ``photos`` that were counted and of those that ``failed``.
        failures: {name: reason} of the photos that failed and were left out.
        provenance: where the scores come from, as JSON values.
        title: of the table.
        columns: the scores in the table, and what they are called there.
        axis: what the curves show.
        titles: what the methods are called in the table and in the plot; default: by their names.

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

    def table(self, width: int = 120, *, ascii: bool = False) -> str:
        """Return the scores as text, a line for each method.

        Args:
            width: the longest line, in characters.
            ascii: draw the lines between the cells with characters of ASCII.
        """
        table = Table(box=box.ASCII if ascii else box.HEAVY_HEAD)
        table.add_column("method")
        shown = [name for name in self.columns if any(name in row for row in self.scores.values())]
        for name in shown:
            table.add_column(self.columns[name], justify="right")
        for method, row in self.scores.items():
            table.add_row(Text(self.titles.get(method, method)), *(_cell(name, row[name]) for name in shown))
        photos = next((row["photos"] for row in self.scores.values()), 0)
        console = Console(width=width, file=io.StringIO())
        with console.capture() as capture:
            console.print(table)
        return f"{self.title}; {photos:,} photos\n{capture.get()}".rstrip("\n")

    def to_dict(self) -> dict[str, object]:
        """Return the scores of each method, and their ``provenance`` beside them, as JSON values."""
        return {"provenance": dict(self.provenance), **self.scores}

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a line for each method, with the scores that are single numbers.

        Args:
            path: a file that does not exist yet; nothing is replaced.

        Raises:
            FileExistsError: there is something at ``path``.
            OSError: the file cannot be written.
        """
        names = list(dict.fromkeys(name for row in self.scores.values() for name in row if _is_single(row[name])))
        if os.path.lexists(path):
            raise FileExistsError(f"{path}: exists already; choose another name.")
        content = io.StringIO(newline="")
        writer = csv.DictWriter(content, ["method", *names], extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows({"method": method, **row} for method, row in self.scores.items())
        write_whole(path, content.getvalue().encode("utf-8", "surrogateescape"))

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write what :meth:`to_dict` returns; a file is replaced only if this package wrote it.

        Raises:
            OSError: there is a file of somebody else's, or none can be written.
        """
        write_output(Path(path), (json.dumps(self.to_dict(), indent=1) + "\n").encode())

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw each method's score over the threshold; a file is replaced only if this package wrote it.

        Args:
            path: ending in .png, .jpg, .pdf or .svg.

        Raises:
            OSError: there is a file of somebody else's, or none can be written.
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


def _is_single(value: object) -> bool:
    return value is None or isinstance(value, (int, float, str))


def _cell(name: str, value: object) -> str:
    if not isinstance(value, (int, float)):
        return "-"
    return f"{value:.3g}" if "threshold" in name else f"{value:.2f}"
