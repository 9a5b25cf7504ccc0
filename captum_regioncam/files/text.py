"""Text that may be printed."""

__all__ = ["counted", "printable"]


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, which gets an "s" unless there is one: 1 photo, 2,000 photos."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def printable(text: object) -> str:
    r"""Return text in which control characters, and what cannot be encoded, are escapes such as ``\x1b``."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )
