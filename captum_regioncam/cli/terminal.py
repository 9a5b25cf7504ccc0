"""What the command line prints: text without the control characters that names of files may hold."""

import sys
from typing import TextIO

from captum_regioncam.files.text import printable

__all__ = ["say"]


def say(text: object, *, error: bool = False) -> None:
    """Print a line of text, to stderr if it reports an error or progress."""
    stream: TextIO = sys.stderr if error else sys.stdout
    line = printable(text) + "\n"
    stream.write(line.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8"))
    stream.flush()
