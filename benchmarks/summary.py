"""Summarise docs/speed-table.md in one row per network, in docs/benchmarks.md, and in one plot, docs/speed.png.

python benchmarks/summary.py, which `python benchmarks/speed.py --write` also runs.
"""

from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).parent.parent / "docs"
FLOOR = "the floor"
SHORT = {
    "LayerRegionCam": "LayerRegionCam",
    "Captum LayerGradCam, last stage": "LayerGradCam",
    "pytorch-grad-cam LayerCAM": "pytorch-grad-cam",
    "torch-cam LayerCAM": "torch-cam",
}


def read(table):
    """Return {run: {method: (seconds, MiB)}} of the runs in which every method was timed."""
    runs = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[5].replace(",", "").isdigit() and cells[2]:
            run, method, seconds, _, _, memory = cells
            runs.setdefault(run, {})[method] = float(seconds), float(memory.replace(",", ""))
    return {run: methods for run, methods in runs.items() if methods.keys() >= {FLOOR, *SHORT}}


def rows(runs):
    """Return the lines of the summary: time and memory of every method as multiples of the floor's."""
    yield f"| network | {' | '.join(SHORT.values())} |".replace("Layer", "Layer&shy;")  # where narrow screens break
    yield "|---|" + "---|" * len(SHORT)
    for run, methods in runs.items():
        seconds, memory = methods[FLOOR]
        cells = [f"{methods[name][0] / seconds:.2f} / {methods[name][1] / memory:.2f}" for name in SHORT]
        yield f"| {run.split(',')[0]} | {' | '.join(cells)} |"


def draw(runs):
    """Draw the same numbers as bars."""
    figure = Figure(figsize=(6, 5.5), layout="constrained")  # one above the other, for narrow screens
    for axis, index, title in zip(figure.subplots(2), (0, 1), ("time", "peak memory"), strict=True):
        for place, (method, label) in enumerate(SHORT.items()):
            heights = [methods[method][index] / methods[FLOOR][index] for methods in runs.values()]
            axis.bar([x + 0.2 * place for x in range(len(runs))], heights, 0.18, label=label)
        axis.axhline(1, color="black", linewidth=1)
        axis.set_xticks([x + 0.3 for x in range(len(runs))], [run.split(",")[0] for run in runs])
        axis.set_title(f"{title} (the floor: 1)")
        axis.tick_params(labelsize=12)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=12, loc="outside lower center", ncols=2)
    return figure


def main():
    runs = read((DOCS / "speed-table.md").read_text())
    page, (head, *others) = DOCS / "benchmarks.md", rows(runs)
    before, _, after = page.read_text().partition(head)
    page.write_text("\n".join([before + head, *others]) + after[after.index("\n\n") :])
    draw(runs).savefig(DOCS / "speed.png", dpi=110)


if __name__ == "__main__":
    main()
