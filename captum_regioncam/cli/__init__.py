"""The command line: demo, explain, app, layers, classes, seeds, label-maps and evaluate, one module each.

A command's module has its ``Options``, a frozen dataclass, and ``run(options, called)``, which calls the library and
returns the exit status. ``parser.py`` has ``COMMANDS``, which names the modules, and a function for each command's own
options. Options that several commands share are in ``groups.py``, the texts of ``--help`` in ``texts.py``, and the
parsers of single values in ``values.py``. ``options.py`` turns what was parsed into the dataclasses, ``common.py`` has
what several commands do with them, and ``usage.py`` makes the library's errors name options of the command line.
"""

import argparse
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence

from captum_regioncam.cli.options import Called, called_of, options_of
from captum_regioncam.cli.parser import COMMANDS, build_parser
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError, as_options
from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation.runs.launcher import LauncherError, is_first
from captum_regioncam.files.outputs import OutputError

__all__ = ["main"]

_SHARED = ("seeds", "label-maps", "evaluate")
"""Commands that several processes can share, and that can be resumed."""
_CLOSED = 141  # 128 + SIGPIPE: the status of other commands when nobody reads their output any longer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``captum-regioncam``.

    Args:
        arguments: what follows the command's name. Default: the process's own.

    Returns:
        The exit status: 0; 1 if some photos failed; 2 if arguments cannot be used or something cannot be written; 130
        after Ctrl-C; 141 if nobody reads the output any longer.

    Raises:
        SystemExit: after ``--help`` and ``--version``, and with status 2 if the arguments cannot be parsed.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = build_parser()
    try:
        if any("\0" in argument for argument in arguments):
            parser.error("an argument contains a null character, which no file name can contain")
        found = parser.parse_args(arguments)
        if found.command is None:
            parser.print_help(sys.stderr)
            say("error: the following arguments are required: command; try: captum-regioncam demo", error=True)
            return 2
        with _logged():
            status = _run(found, called_of(found, ["captum-regioncam", *arguments]))
        sys.stdout.flush()
    except BrokenPipeError:  # for example because of "| head"
        _forget_stdout()
        return _CLOSED
    except OSError as error:  # printing failed, for example because a disk is full
        _forget_stdout()
        say(f"captum-regioncam: error: cannot print ({error.strerror or error}).", error=True)
        return 2
    return status


def _forget_stdout() -> None:
    """Redirect stdout to nowhere, because Python flushes it once more when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Print(logging.Handler):
    """Prints the library's log messages: warnings to stderr, the others to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, above a progress bar if there is one. Errors of printing are raised."""
        bars = sys.modules.get("tqdm") if sys.stderr.isatty() else None
        with bars.tqdm.external_write_mode() if bars else contextlib.nullcontext():
            say(record.getMessage(), error=record.levelno >= logging.WARNING)


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    log, handler = logging.getLogger("captum_regioncam"), _Print()
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def _run(found: argparse.Namespace, called: Called) -> int:
    command, is_shared = called.command, called.command in _SHARED
    go_on = " Run the same command with --resume to continue from here." if is_shared else ""
    positional = {"seeds": found.seeds} if command == "label-maps" else {}

    def end(message: str, status: int, everywhere: bool = False) -> int:
        if everywhere or is_first():
            say(f"captum-regioncam {command}: {message}", error=True)
        return status

    try:
        module = importlib.import_module(f"captum_regioncam.cli.{COMMANDS[command]}")
        status: int = module.run(options_of(module.Options, found), called)
    except BrokenPipeError:
        raise
    except (UsageError, ValueError, ImportError, ConnectionError) as error:
        reason = as_options(error, positional) if isinstance(error, ArgumentError) else str(error)
        more = go_on if isinstance(error, ConnectionError) else ""
        return end(f"error: {reason}{more}", 2, everywhere=not is_shared or isinstance(error, LauncherError))
    except OutputError as error:
        return end(f"error: {error}{go_on}", 2, everywhere=True)
    except OSError as error:
        return end(f"error: {error.filename or ''} {error.strerror or error}.".replace("  ", " "), 2, everywhere=True)
    except MemoryError:
        return end("error: there is not enough memory.", 2, everywhere=True)
    except KeyboardInterrupt:
        return end(f"stopped.{go_on}", 130)
    return status
