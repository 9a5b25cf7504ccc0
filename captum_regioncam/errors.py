"""The errors that this package raises for wrong arguments.

Captum reports a wrong layer as ``AssertionError``, and a wrong target as ``AssertionError`` or ``IndexError``. Code
written for LayerGradCam may catch these, so the errors derive from them, and from ``ValueError`` for all other code.
"""

import os
from dataclasses import dataclass

__all__ = ["Argument", "ArgumentError", "LayerError", "TargetError", "reason_of"]


class LayerError(ValueError, AssertionError):
    """A layer cannot be attributed: it is never reached, not on a grid, not finite, or does not influence the score.

    Example::

        >>> try:
        ...     LayerRegionCam(model, model.fc).attribute(x, target=0)
        ... except LayerError as error:
        ...     print(str(error)[:73])
        layer 'fc' (Linear) gives a tensor of shape (2, 1000), which is not on a
    """


class TargetError(ValueError, IndexError, AssertionError):
    """A target does not select one score per example from the forward function's output.

    Example::

        >>> try:
        ...     cam.attribute(x, target=1000)
        ... except TargetError as error:
        ...     print(error)
        target=1000 is out of range: forward_func returns the scores of 1000 classes, 0 to 999.
    """


@dataclass(frozen=True)
class Argument:
    """An argument in an error's message: ``output='seeds'``, where a command says ``--output seeds``.

    Attributes:
        name: the argument's name.
        value: the value that was given, or that would be the remedy; None for the name alone.
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        value = os.fspath(self.value) if isinstance(self.value, os.PathLike) else self.value
        return self.name if value is None else f"{self.name}={value!r}"


class ArgumentError(ValueError):
    """An argument cannot be used; the message names it, and the remedy.

    Args:
        parts: the message, in parts: its text, and the arguments that it names. The arguments are kept separate, so
            that a command can name its options instead.

    Example::

        >>> print(ArgumentError(Argument("resume", True), ": there is nothing to resume."))
        resume=True: there is nothing to resume.
    """

    def __init__(self, *parts: str | Argument) -> None:
        super().__init__(*parts)
        self.parts = parts

    def __str__(self) -> str:
        return "".join(map(str, self.parts))


def reason_of(error: BaseException) -> str:
    """Return an error's message, or its type if it has none."""
    return str(error) or type(error).__name__
