"""The command line: demo, explain, layers, classes, seeds, labels and evaluate, one module each."""

import importlib
import os
from collections.abc import Sequence

from captum_regioncam.cli.parser import build_parser
from captum_regioncam.errors import UsageError

__all__ = ["main"]

_NEED_EVALUATION = ("seeds", "labels", "evaluate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``captum-regioncam``.

    Args:
        arguments: what follows the command's name. Default: the process's own.

    Returns:
        The exit status: 0, or 1 if some images failed. Unusable arguments exit with 2, Ctrl-C with 130.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes, the one that prints
    try:
        if options.command in _NEED_EVALUATION:
            _check_extra()
        status: int = importlib.import_module(f"captum_regioncam.cli.{options.command}").run(options)
    except UsageError as error:
        parser.exit(2, f"captum-regioncam {options.command}: error: {error}\n" if first else None)
    except KeyboardInterrupt:
        goes_on = options.command in _NEED_EVALUATION
        how = " Run the same command with --resume to continue from here." if goes_on else ""
        parser.exit(130, f"captum-regioncam {options.command}: stopped.{how}\n" if first else None)
    return status


def _check_extra() -> None:
    try:
        import pycocotools  # noqa: F401

        import captum_regioncam.evaluation  # noqa: F401
    except ImportError as error:
        hint = 'the command needs: pip install "captum_regioncam[eval]"'
        raise UsageError(str(error) if "captum_regioncam[eval]" in str(error) else f"{hint} ({error}).") from error
