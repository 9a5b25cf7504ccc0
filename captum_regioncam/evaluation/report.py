"""The scores of an evaluation: computed, in percent, as a table, a file and a plot."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics import Metric

from captum_regioncam.files import written_whole
from captum_regioncam.methods import TITLES

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
        table.add_row(TITLES.get(method, method), *cells)
    print(f"{title}; {photos:,} photos")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def write_figures(figures: Figures, axis: str, json_path: Path | None = None, plot_path: Path | None = None) -> None:
    """Write the scores as JSON, and their curves over the threshold as a plot."""
    if json_path:
        with written_whole(json_path) as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n")
        print(f"Wrote {json_path}")
    if plot_path:
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for method, row in figures.items():
            axes.plot(row["thresholds"], np.array(row["curve"], dtype=float), label=TITLES.get(method, method))
        axes.set(xlabel="threshold", ylabel=axis, xlim=(0, 1), ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        with written_whole(plot_path) as temporary:
            figure.savefig(temporary, format=plot_path.suffix[1:] or "png", dpi=150)
        print(f"Wrote {plot_path}")
