"""The error of a command that asks for something impossible."""

__all__ = ["UsageError"]


class UsageError(Exception):
    """The command line asks for something that cannot be done; the message says what can."""
