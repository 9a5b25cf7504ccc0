"""The scores of an evaluation: computed, in percent, as a table, a file and a plot."""

import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torchmetrics import Metric

from captum_regioncam.cli.terminal import printable, say
from captum_regioncam.evaluation.methods import TITLES
from captum_regioncam.files.outputs import encode_figure, is_stream, write_output

__all__ = ["Figures", "computed", "in_percent", "print_table", "write_figures"]

Figures = dict[str, dict[str, Any]]
"""For each method, its scores by name."""


def computed(metric: Metric) -> Any:
    """Compute a metric over all workers, some of which may have had no photos."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        return metric.compute()


def in_percent(scores: dict[str, Tensor]) -> dict[str, Any]:
    """Turn scores into JSON values in percent, with None for NaN; thresholds stay as they are."""

    def plain(values: Any) -> Any:
        return [plain(value) for value in values] if isinstance(values, list) else None if values != values else values

    return {
        name: plain((value if "threshold" in name else 100 * value).double().tolist()) for name, value in scores.items()
    }


def print_table(title: str, columns: dict[str, str], figures: Figures) -> None:
    """Print one line per method."""
    photos = next(iter(figures.values()))["photos"]
    table = Table()
    table.add_column("method")
    shown = [name for name in columns if any(name in row for row in figures.values())]
    for name in shown:
        table.add_column(columns[name], justify="right")
    for method, row in figures.items():
        cells = (
            "-" if row[name] is None else f"{row[name]:.3g}" if "threshold" in name else f"{row[name]:.2f}"
            for name in shown
        )
        table.add_row(Text(printable(TITLES.get(method, method))), *cells)
    say(f"{title}; {photos:,} photos")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def write_figures(
    figures: Figures,
    axis: str,
    provenance: Mapping[str, Any],
    json_path: Path | None = None,
    plot_path: Path | None = None,
) -> None:
    """Write the scores as JSON, and their curves over the threshold as a plot.

    Args:
        figures: for each method, its scores.
        axis: what the curves show.
        provenance: where the scores come from; a key of its own in the JSON, beside the methods.
        json_path: where the JSON goes.
        plot_path: where the plot goes.

    Raises:
        OutputError: a file cannot be written.
    """
    if json_path:
        content = {"provenance": dict(provenance), **figures}
        _write(json_path, (json.dumps(content, indent=1) + "\n").encode())
    if plot_path:
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for method, row in figures.items():
            axes.plot(row["thresholds"], np.array(row["curve"], dtype=float), label=TITLES.get(method, method))
        axes.set(xlabel="threshold", ylabel=axis, xlim=(0, 1), ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        _write(plot_path, encode_figure(figure, plot_path, dpi=150))


def _write(path: Path, content: bytes) -> None:
    write_output(path, content)
    say(f"Wrote {path}", error=is_stream(path))
