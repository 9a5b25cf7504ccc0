"""What is wrong with a command line, in terms of its options."""

import shlex
from collections.abc import Mapping

from captum_regioncam.errors import Argument, ArgumentError

__all__ = ["UsageError", "as_options"]

_OPTIONS = {
    "methods": "--method",
    "data": "--dataset and --root",
    "classifier": "--model",
    "allow_classes": "--allow-class",
    "alphas": "--alpha",
}


class UsageError(Exception):
    """The command line asks for something that cannot be done; the message says what can be done."""


def as_options(error: ArgumentError, positional: Mapping[str, str] | None = None) -> str:
    """Return an error's message with the options of the command line in place of the arguments that it names.

    Args:
        error: the library's error.
        positional: what stands for arguments that have no option, such as {"seeds": "SEEDS"}.
    """
    return "".join(part if isinstance(part, str) else _option(part, positional or {}) for part in error.parts)


def _option(argument: Argument, positional: Mapping[str, str]) -> str:
    value = None if isinstance(argument.value, bool) else argument.value
    off = "no-" * (argument.value is False)
    name = _OPTIONS.get(argument.name, f"--{off}{argument.name.replace('_', '-')}")
    if argument.name == "progress":  # which the command line chooses itself
        return "progress" if value is None else f"progress in {value}"
    if argument.name in positional:
        return positional[argument.name] if value is None else str(value)
    if value is None:
        return name
    if argument.name == "shard" and isinstance(value, tuple):
        return f"{name} {'/'.join(map(str, value))}"
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    text = str(value)
    return f"{name} {shlex.quote(text) if not text or any(map(str.isspace, text)) else text}"
