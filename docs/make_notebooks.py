"""Write notebooks/*.ipynb, with their outputs, from docs/notebooks/*.md as ``make docs`` has executed them.

``--check`` compares instead of writing: the cells must be those of the sources, and the numbers that the cells print
those of the fresh run. Cells with the tag "varies" may print other numbers: training amplifies how processors round.
"""

import argparse
import base64
import io
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from PIL import Image

ROOT = Path(__file__).parent.parent
SOURCES, EXECUTED = ROOT / "docs" / "notebooks", ROOT / "docs" / "_build" / "jupyter_execute" / "notebooks"
WRITTEN = ROOT / "notebooks"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
TOLERANCE = 0.02  # of a number, or of 1: other processors round otherwise


def source_of(path: Path) -> list[tuple[str, str]]:
    """Return the kinds and texts of the cells that a notebook of a source has."""
    return [(cell.cell_type, linked(cell.source)) for cell in jupytext.read(path).cells]


def linked(text: str) -> str:
    """Make the links of a cell lead from notebooks/ to where they lead from docs/notebooks/."""
    text = re.sub(r"\]\(([\w-]+)\.md", r"](\1.ipynb", text)
    return re.sub(r"\]\(\.\./", "](../docs/", text)


def small(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Store a picture as JPEG where that is smaller than PNG."""
    data = output.get("data", {})
    if "image/png" in data:
        picture, encoded = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))), io.BytesIO()
        picture.convert("RGB").save(encoded, "JPEG", quality=85, optimize=True)
        if len(jpeg := base64.b64encode(encoded.getvalue()).decode()) < len(data["image/png"]):
            del data["image/png"]
            data["image/jpeg"] = jpeg
    return output


def one_stream(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Merge neighbouring streams. MyST-NB has added the text of all to the first, and left the others there."""
    merged: list[nbformat.NotebookNode] = []
    for output in outputs:
        is_stream = output.output_type == "stream" and bool(merged) and merged[-1].output_type == "stream"
        if not is_stream or merged[-1].name != output.name:
            merged.append(output)
        elif output.text not in merged[-1].text:
            merged[-1].text += output.text
    return merged


def notebook(name: str) -> nbformat.NotebookNode:
    """Return the notebook of a source, with the outputs of its execution."""
    made = nbformat.read(EXECUTED / f"{name}.ipynb", as_version=4)
    for index, cell in enumerate(made.cells):
        cell.source = linked(cell.source)
        cell.id = f"cell-{index}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if cell.cell_type == "code":
            cell.outputs = [small(output) for output in one_stream(cell.outputs)]
    made.metadata = {key: value for key, value in made.metadata.items() if key in ("kernelspec", "language_info")}
    return made


def printed(cells: list[nbformat.NotebookNode]) -> list[str]:
    """Return the text of each cell's outputs."""

    def text_of(output: nbformat.NotebookNode) -> str:
        data = output.get("data", {})
        return str(output.get("text") or data.get("text/markdown") or data.get("text/plain") or "")

    return ["".join(map(text_of, cell.get("outputs", []))) for cell in cells]


def differences(name: str) -> list[str]:
    """Return what is different between a notebook, its source and the fresh run."""
    path = WRITTEN / f"{name}.ipynb"
    if not path.exists():
        return [f"{path.name}: there is none"]
    kept, fresh = nbformat.read(path, as_version=4), notebook(name)
    if [(cell.cell_type, cell.source) for cell in kept.cells] != source_of(SOURCES / f"{name}.md"):
        return [f"{path.name}: its cells are not those of {name}.md"]
    found = []
    for index, (old, new) in enumerate(zip(printed(kept.cells), printed(fresh.cells), strict=True)):
        if NUMBER.sub("", old) != NUMBER.sub("", new):
            found.append(f"{path.name}, cell {index}: prints another text:\n{old}\n{new}")
        if "varies" in fresh.cells[index].metadata.get("tags", ()):
            continue
        for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=False):
            if abs(float(a) - float(b)) > TOLERANCE * max(1, abs(float(a))):
                found.append(f"{path.name}, cell {index}: {a} is {b} now")
    return found


def main() -> int:
    """Write the notebooks, or check them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    options = parser.parse_args()
    names = [path.stem for path in sorted(SOURCES.glob("*.md"))]
    if options.check:
        found = [difference for name in names for difference in differences(name)]
        print("\n".join(found), file=sys.stderr)
        return int(bool(found))
    for name in names:
        nbformat.write(notebook(name), WRITTEN / f"{name}.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
