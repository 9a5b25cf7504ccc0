"""Draw docs/reference/pictures: each page of the reference has the code that draws its pictures. ``make picture``."""

import os
import re
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGES = sorted((HERE / "reference").glob("*.rst"))


def code_of(page: Path) -> str:
    """Return a page's blocks of code, one after the other."""
    blocks = re.findall(r"^( *)\.\. code-block:: python\n((?:\n|\1   .*\n)+)", page.read_text(), re.MULTILINE)
    return "\n".join(textwrap.dedent(block) for _, block in blocks)


def draw(page: Path, folder: Path) -> None:
    """Run a page's code in the folder for its pictures."""
    os.chdir(folder)
    exec(compile(code_of(page), page, "exec"), {"__name__": page.stem})


if __name__ == "__main__":
    # The tests' remedy for a torchvision built against CUDA, which torchmetrics imports.
    sys.path.append(str(HERE.parent / "tests"))
    import torchvision_schemas  # noqa: F401

    for page in PAGES:
        draw(page, HERE / "reference" / "pictures")
        print(f"Drew the pictures of {page}")
