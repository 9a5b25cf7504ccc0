"""A folder to which several runs may write at the same time; they change its record one after the other."""

import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.runs.locks import locked
from captum_regioncam.evaluation.runs.record import Record, Run
from captum_regioncam.evaluation.runs.writer import Writer
from captum_regioncam.files.outputs import OutputError, check_folder
from captum_regioncam.files.stamps import Stamp
from captum_regioncam.files.text import counted

__all__ = ["begin", "end"]

_log = logging.getLogger(__name__)
_PATIENCE = 60  # seconds to wait for another process that changes the record


def begin(
    folder: Path,
    command: str,
    names: Sequence[str],
    inputs: Collection[str],
    settings: Mapping[str, object],
    origin: Mapping[str, object],
    *,
    last: str,
    optional: Collection[str] = (),
) -> Writer:
    """Check that files can be written, and begin a session in the folder's record.

    Args:
        folder: the folder.
        command: the command that writes.
        names: the names of the files, as far as they are known.
        inputs: the real paths of files that are read, which are never written.
        settings: the command's settings, as JSON values.
        origin: where the files come from, as JSON values.
        last: the name of the file that ``end`` writes. Every run replaces it.
        optional: settings that a run without them does not need: whatever they are, its files are the same.

    Raises:
        ArgumentError: one of these names exists, and this package did not write it.
        OutputError: the folder cannot be written to.
    """

    def checked() -> tuple[Record, dict[str, list[Stamp]]]:
        record = Record.read(folder)
        listing = record.listing()
        edited = (name for name in names if record.exists(name) and not record.is_ours(name, listing))
        if obstacle := record.obstacle(names, listing):
            raise ArgumentError(Argument("output", folder), f": {obstacle}.")
        if name := next(edited, None):
            raise ArgumentError(
                Argument("output", folder),
                f": has {name}, which has changed since this package wrote it. Move it, or choose another folder.",
            )
        return record, listing

    checked()  # so that a run that is refused leaves nothing behind
    check_folder(folder)
    with locked(folder, "output", wait=_PATIENCE):
        record, listing = checked()
        alike = (run for run in record.of(command) if run.settings == settings and not run.is_writing())
        before = [run for run in record.of(command) if _agree(run.settings, settings, optional)]
        present = (name for name in names if name != last and record.exists(name))
        if replaced := sum(not any(record.is_as_written(name, run.results) for run in before) for name in present):
            _log.warning("%s: replacing %s of other settings.", folder, counted(replaced, "result"))
        token = record.begin(next(alike, Run(command, dict(settings))), origin)
    ours = (name for name in listing if os.path.realpath(folder / name) not in inputs)
    return Writer(folder, token, stamps={name: listing[name] for name in ours if record.is_ours(name, listing)})


def _agree(before: Mapping[str, object], now: Mapping[str, object], optional: Collection[str]) -> bool:
    """Return whether two runs have the same settings; optional ones matter only where both runs have them."""
    now = json.loads(json.dumps(now, default=str))  # as they are read again
    left_out = {name for name in optional if name not in before or name not in now}
    return all(before.get(name) == now.get(name) for name in {**before, **now}.keys() - left_out)


def end(writer: Writer, outcome: Mapping[str, object], last: tuple[str, bytes] | None = None) -> None:
    """End the session, and write its last file, which another run may have replaced meanwhile.

    Args:
        writer: the session's writer.
        outcome: further entries of the session in the record, as JSON values.
        last: the file's name and content.

    Raises:
        ArgumentError, OutputError: the record or the file cannot be written.
    """
    with locked(writer.folder, "output", wait=_PATIENCE):
        if last is not None:
            name, content = last
            record = Record.read(writer.folder)
            listing = record.listing()
            if record.is_ours(name, listing):
                writer.stamps[name] = listing[name]
            try:
                writer.write(name, content)
            except ValueError as error:
                raise OutputError(str(error)) from error
        Record.read(writer.folder).end(writer.token, **outcome)
