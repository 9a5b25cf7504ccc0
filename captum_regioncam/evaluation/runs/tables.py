"""Tables of figures: on the screen, and in LaTeX."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from captum_regioncam.extras import extra

with extra("eval"):
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

__all__ = ["MISSING", "Table", "cell"]

MISSING = "-"
"""What a table shows where there is no figure."""
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: the title above it.
        header: the titles of the columns; the first column holds names, the others figures.
        rows: the cells.
        last_apart: whether the last row has a line above it, as means have.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    last_apart: bool = False

    def text(self, width: int, *, ascii: bool = False) -> str:
        """Return the table as text.

        Args:
            width: the longest line, in characters.
            ascii: draw the lines between the cells with ASCII characters.
        """
        table = RichTable(box=box.ASCII if ascii else box.HEAVY_HEAD)
        for number, title in enumerate(self.header):
            table.add_column(Text(title), justify="right" if number else "left", overflow="fold")
        for number, (name, *figures) in enumerate(self.rows, 1):
            is_before_last = self.last_apart and number == len(self.rows) - 1
            table.add_row(Text(name), *figures, end_section=is_before_last)
        console = Console(width=width, file=io.StringIO())
        with console.capture() as capture:
            console.print(table)
        return f"{self.title}\n{capture.get()}".rstrip("\n")

    def latex(self) -> str:
        """Return the table as LaTeX with the rules of the package booktabs; the title is a comment."""
        *rows, last = [_line(["--" if figure == MISSING else figure for figure in row]) for row in self.rows] or [""]
        return "\n".join(
            [
                f"% {self.title}",
                f"\\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                "\\toprule",
                _line(self.header),
                "\\midrule",
                *rows,
                *(["\\midrule"] if self.last_apart and rows else []),
                last,
                "\\bottomrule",
                "\\end{tabular}",
            ]
        )


def cell(value: object, digits: str = ".2f") -> str:
    """Return a figure as a table shows it."""
    return f"{value:{digits}}" if isinstance(value, (int, float)) else MISSING


def _line(cells: Sequence[str]) -> str:
    return " & ".join("".join(_SPECIAL.get(letter, letter) for letter in text) for text in cells) + r" \\"
