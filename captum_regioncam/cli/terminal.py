"""What the command line prints: text without the control characters that names of files may hold."""

import sys
from typing import TextIO

__all__ = ["printable", "say"]


def printable(text: object) -> str:
    r"""Return text with its control characters, and what cannot be encoded, as escapes such as ``\x1b``."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def say(text: object, *, error: bool = False) -> None:
    """Print a line of text, to stderr if it tells of an error or of progress."""
    stream: TextIO = sys.stderr if error else sys.stdout
    line = printable(text) + "\n"
    stream.write(line.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8"))
    stream.flush()
