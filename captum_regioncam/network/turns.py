"""Threads take turns at hooking networks, and what a turn has changed is undone, in a forked process too."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import RLock, get_ident, local

import torch

__all__ = ["Turn", "turn"]


class Turn:
    """What one thread has changed about networks for a while, such as the hooks that it has placed.

    Attributes:
        thread: the thread's identifier.
    """

    def __init__(self) -> None:
        self.thread = get_ident()
        self._undo: list[Callable[[], object]] = []

    @property
    def is_current(self) -> bool:
        """Whether this turn's hooks count: not while another turn runs inside it, and never after its end."""
        return _turns[-1:] == [self]

    def at_end(self, undo: Callable[[], object]) -> None:
        """Undo a change at the end. The last change is undone first, and may be undone twice (see ``end``)."""
        self._undo.append(undo)

    def end(self) -> None:
        """Undo the changes. A process that is forked meanwhile does so again."""
        with ExitStack() as stack:
            for undo in self._undo:
                stack.callback(undo)


_PATIENCE = 1.0  # seconds that a fork waits for another thread's turn
_fork = local()
_lock = RLock()
_turns: list[Turn] = []  # all of the thread that holds the lock, the innermost last


@contextmanager
def turn() -> Iterator[Turn]:
    """Wait for other threads' turns to end, and take a turn. A thread that has a turn may take another inside it.

    Compiled models run eagerly meanwhile, because compiled code does not run hooks that were added later.
    """
    with _lock:
        own = Turn()
        _turns.append(own)
        try:
            if "torch._dynamo" in sys.modules:
                stance = torch.compiler.set_stance("force_eager")
                own.at_end(partial(stance.__exit__, None, None, None))
            yield own
        finally:
            own.end()
            _turns.remove(own)


def _before_fork() -> None:
    """Wait a little for another thread's turn to end: a fork during a forward pass would also copy torch's locks."""
    _fork.has_turn = _lock.acquire(timeout=_PATIENCE)


def _after_fork() -> None:
    if _fork.has_turn:
        _lock.release()


def _start_anew() -> None:
    """In a forked process, end the turns of threads that it does not have."""
    global _lock
    _after_fork()
    if _lock.acquire(blocking=False):  # no thread had a turn, or the one that forked has, and goes on with it
        _lock.release()
        return
    left = _turns[::-1]
    _turns.clear()
    _lock = RLock()
    for other in left:
        other.end()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_start_anew)
