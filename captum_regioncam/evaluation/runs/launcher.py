"""What torchrun, or another launcher of several processes, says in the environment."""

import os

__all__ = ["LauncherError", "is_first", "launched"]


class LauncherError(ValueError):
    """The processes of a launcher cannot find each other; each of them says so."""


def launched() -> tuple[int, int]:
    """Return this process's rank and how many processes there are, from the variables that torchrun sets.

    Raises:
        LauncherError: one of them is missing or wrong.
    """
    given = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE") if name in os.environ}
    if not given:
        return 0, 1
    try:
        rank, count = (int(given[name]) for name in ("RANK", "WORLD_SIZE"))
        if not 0 <= rank < count:
            raise ValueError
    except (KeyError, ValueError):
        what = " and ".join(f"{name}={value!r}" for name, value in given.items())
        raise LauncherError(
            f"the environment has {what}; torchrun sets both, RANK from 0 to WORLD_SIZE - 1. Start with torchrun, or "
            "unset RANK and WORLD_SIZE."
        ) from None
    if count > 1 and (missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]):
        raise LauncherError(
            f"the environment has WORLD_SIZE={count} but no {' and no '.join(missing)}. Start with torchrun, or unset "
            "RANK and WORLD_SIZE."
        )
    return rank, count


def is_first() -> bool:
    """Return whether this is the one that prints among the processes that share a run."""
    try:
        return launched()[0] == 0
    except LauncherError:
        return True
