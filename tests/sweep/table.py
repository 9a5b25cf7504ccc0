"""The table at the end of docs/models.md: a row for each family, which the sweep writes."""

import re
from importlib.metadata import version
from pathlib import Path

TABLE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = ["| family | network | stages | outcome |", "|---|---|---|---|"]


def rows():
    """Return the rows of the table: {family: row}."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| ") and line not in HEAD]
    return {line.split("|")[1].strip(): line for line in lines}


def row(found):
    """Write a row of what test_family recorded."""
    stages = ", ".join(f"`{name}`" if name else "" for name in found["stages"].split(", ") if name)
    stages = re.sub(r" \(input\)`", "` (input)", stages)
    outcome = found["outcome"].replace("|", "\\|").replace("*", "\\*").replace("<", "\\<").replace("\n", " ")
    return f"| {found['family']} | {found['network']} | {stages} | {outcome} |"


def write(found):
    """Replace the rows of the families that ran, and drop those of families that no longer exist."""
    from families import families

    new = {**rows(), **{one["family"]: row(one) for one in found}}
    lines = [new[family] for family in families() if family in new]
    versions = ", ".join(
        f"{package} {version(package)}" for package in ("torch", "torchvision", "timm", "transformers")
    )
    text, _, _ = TABLE.read_text().partition(HEAD[0])
    TABLE.write_text(text + "\n".join([*HEAD, *lines, "", f"{len(lines)} families; {versions}."]) + "\n")
