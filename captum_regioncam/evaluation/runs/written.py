"""Which files of a folder this package wrote, according to the records in the folder and above it."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from captum_regioncam.evaluation.runs.record import RECORD, Record
from captum_regioncam.files.outputs import OutputError, check_output

__all__ = ["Written", "check_named", "written_below"]


@dataclass(frozen=True)
class Written:
    """What a run that keeps a record wrote.

    Attributes:
        folder: the folder to which it wrote.
    """

    folder: Path

    @property
    def record(self) -> Path:
        """The path of the folder's record, which says which files were written, by which command and from what.

        Example::

            >>> written = WrittenSeeds(Path("seeds"), names=["2007_000032"], failures={})
            >>> written.record.as_posix()
            'seeds/.captum_regioncam.json'
        """
        return self.folder / RECORD


def check_named(path: Path) -> None:
    """Check that a file that the user names as an output is not a result of a record; see :func:`check_output`.

    Raises:
        OutputError: it is one, or it cannot be written.
    """
    check_output(path)
    target = Path(os.path.realpath(path))
    if target in written_below(target.parent):
        raise OutputError(f"{path}: is a result of another run; choose another name.")


def written_below(folder: Path) -> set[Path]:
    """Return the real paths of the files in a folder that a record, in it or above it, lists and that are unchanged."""
    real = Path(os.path.realpath(folder))
    found: set[Path] = set()
    for home in (real, *real.parents):
        with contextlib.suppress(ValueError):
            record = Record.read(home)
            listing = record.listing()
            inside = (name for name in listing if (home / name).parent == real)
            found |= {home / name for name in inside if record.is_as_written(name, listing)}
    return found
