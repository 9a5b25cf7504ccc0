"""Text that may be printed."""

__all__ = ["printable"]


def printable(text: object) -> str:
    r"""Return text in which control characters, and what cannot be encoded, are escapes such as ``\x1b``."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )
