"""The command line: demo, explain, layers, classes, seeds, labels and evaluate, one module each."""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

from captum_regioncam.cli.parser import build_parser
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.runs.launcher import LauncherError, is_first
from captum_regioncam.extras import extra
from captum_regioncam.files.outputs import OutputError

__all__ = ["main"]

_NEED_EVALUATION = ("seeds", "labels", "evaluate")
_CLOSED = 141  # 128 + SIGPIPE, which other commands end with when nobody reads on


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``captum-regioncam``.

    Args:
        arguments: what follows the command's name. Default: the process's own.

    Returns:
        The exit status: 0, or 1 if some images failed. Unusable arguments and a full disk exit with 2, Ctrl-C with 130.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = build_parser()
    try:
        if any("\0" in argument for argument in arguments):
            parser.error("an argument has a null character, which no name of a file can have")
        options = parser.parse_args(arguments)
        options.command_line = ["captum-regioncam", *arguments]
        if options.command is None:
            parser.print_help(sys.stderr)
            say("error: the following arguments are required: command; try: captum-regioncam demo", error=True)
            return 2
        status = _run(options.command, options)
        sys.stdout.flush()
    except BrokenPipeError:  # such as of "| head"
        _forget_stdout()
        return _CLOSED
    except OSError as error:  # of printing: a full disk, say
        _forget_stdout()
        say(f"captum-regioncam: error: cannot print ({error.strerror or error}).", error=True)
        return 2
    return status


def _forget_stdout() -> None:
    """Have Python, which flushes once more when it ends, flush to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(command: str, options: argparse.Namespace) -> int:
    resumable = command in _NEED_EVALUATION
    go_on = " Run the same command with --resume to continue from here." if resumable else ""

    def end(message: str, status: int, everywhere: bool = False) -> int:
        if everywhere or is_first():
            say(f"captum-regioncam {command}: {message}", error=True)
        return status

    try:
        if resumable:
            _check_extra()
        status: int = importlib.import_module(f"captum_regioncam.cli.{command}").run(options)
    except UsageError as error:
        return end(f"error: {error}", 2, everywhere=not resumable or isinstance(error, LauncherError))
    except OutputError as error:
        return end(f"error: {error}{go_on}", 2, everywhere=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        return end(f"error: {error.filename or ''} {error.strerror or error}.".replace("  ", " "), 2, everywhere=True)
    except MemoryError:
        return end("error: there is not enough memory.", 2, everywhere=True)
    except KeyboardInterrupt:
        return end(f"stopped.{go_on}", 130)
    return status


def _check_extra() -> None:
    try:
        with extra("eval"):
            import pycocotools  # noqa: F401
            import torchmetrics  # noqa: F401
    except ImportError as error:
        raise UsageError(str(error)) from error
