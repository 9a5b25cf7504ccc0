"""A table of the paper: the commands that fill it, the paper's figures, and how far the results are from them."""

import argparse
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_regioncam.cli import main

EXAMPLES = Path(os.path.relpath(Path(__file__).parent.parent))

VGG16 = " --model torchvision:vgg16 --weights {vgg16}"
BASELINES: dict[str, float | None] = {"cam": None, "grad-cam": None, "layer-cam": None}
OF_VGG16: dict[str, float | None] = {"grad-cam": None, "layer-cam": None, "region-cam": None}
"""The methods for VGG16. CAM needs global average pooling, which torchvision's VGG16 does not have."""
_HELP = {
    "root": "the data set's folder",
    "weights": "checkpoint of IRN's ResNet-50; default: leave out its rows",
    "vgg16": "checkpoint of torchvision's VGG16 for the data set's classes; default: leave out its rows",
}


@dataclass(frozen=True)
class Part:
    """One command, and the rows that it fills.

    Attributes:
        title: the network and the photos.
        command: the command of captum-regioncam, without ``--method`` and ``--json``; {name} stands for an option of
            the script.
        paper: the methods, and for each the paper's figure in percent, or None if the paper gives none.
        score: the name of the figure in the JSON file.
        needs: options without which the part is left out.
    """

    title: str
    command: str
    paper: Mapping[str, float | None]
    score: str
    needs: tuple[str, ...] = ()


def fill(description: str, parts: Mapping[str, Part], defaults: Mapping[str, str | None]) -> int:
    """Run the commands of a table, print it, and return the exit status.

    Args:
        description: the script's docstring.
        parts: the parts of the table, by the names of their JSON files.
        defaults: the script's options besides ``--output`` and ``--commands``; None for those without a default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", default=default, required=name == "root", help=_HELP[name])
    parser.add_argument("--output", type=Path, required=True, help="folder for the scores, a JSON file for each part")
    parser.add_argument("--commands", action="store_true", help="only print the commands")
    options, further = parser.parse_known_args()
    wanted = {name: part for name, part in parts.items() if all(getattr(options, need) for need in part.needs)}
    if not wanted:
        parser.error(
            "expects at least one of " + ", ".join(f"--{need}" for part in parts.values() for need in part.needs)
        )
    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    for name, part in wanted.items():
        scores = options.output / f"{name}.json"
        words = shlex.split(part.command)
        words = [word.format(examples=EXAMPLES, **vars(options)) for word in words]
        words += ["--method", ",".join(part.paper), *further, "--json", str(scores)]
        if is_first:
            print("$", shlex.join(["captum-regioncam", *words]), flush=True)
        if options.commands:
            continue
        if scores.exists():
            if is_first:
                print(f"{scores} exists already; remove it to run the command again.")
            continue
        options.output.mkdir(parents=True, exist_ok=True)
        if status := main(words):
            return status
    if is_first and not options.commands:
        print_table(wanted, options.output)
    return 0


def print_table(parts: Mapping[str, Part], output: Path) -> None:
    """Print, as Markdown, what the paper says, what was found, and the difference."""
    rows: list[Sequence[str]] = [("part", "method", "score", "photos", "paper", "here", "difference")]
    rows.append(["---"] * len(rows[0]))
    for name, part in parts.items():
        found = json.loads((output / f"{name}.json").read_text())
        for method, paper in part.paper.items():
            here = found[method][part.score]
            figures = (
                ("", f"{here:.2f}", "") if paper is None else (f"{paper:.2f}", f"{here:.2f}", f"{here - paper:+.2f}")
            )
            rows.append((part.title, method, part.score, str(found[method]["photos"]), *figures))
    print("\n".join("| " + " | ".join(row) + " |" for row in rows))
