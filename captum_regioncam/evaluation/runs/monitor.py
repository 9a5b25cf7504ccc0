"""How the processes of a run notice that one of them has died, and know how far the others are."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

__all__ = ["ENDED", "Monitor"]

_SILENCE = timedelta(seconds=60)  # after which a process whose machine no longer answers is considered dead
_SHORTEST, _LONGEST = 0.01, 0.5  # seconds between rounds
_HERE, _LEFT, _FAILED = range(3)
ENDED = "another process of this run ended or was killed; its own message, if there is one, says why."


class Monitor:
    """A thread that exchanges a few numbers with those of the other processes, in rounds, as long as the run lasts.

    A process that is killed closes its connections, and the next round fails in all others at once. A machine that no
    longer answers is noticed after a minute. The main threads meet here before they exchange values, so that none of
    them waits for a dead one.

    Args:
        count: how many processes there are. Each of them makes its monitor at the same time.

    Attributes:
        group: through which the rounds go.
    """

    def __init__(self, count: int) -> None:
        self.group = dist.new_group(backend="gloo", timeout=_SILENCE)
        # How many meetings this process has come to, how many photos it has done, and whether it has left.
        self._own = [0, 0, _HERE]
        self._states = [list(self._own)] * count
        self._is_over = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._exchange, name="captum_regioncam monitor", daemon=True)
        self._thread.start()

    @property
    def photos(self) -> int:
        """How many photos all processes have done since the run began, as far as this one knows."""
        with self._news:
            return sum(photos for _, photos, _ in self._states)

    def add(self, photos: int) -> None:
        """Let the others know of photos that this process has done.

        Raises:
            ConnectionError: another process ended.
        """
        self._own[1] += photos
        if self._is_over:
            raise ConnectionError(ENDED)

    def meet(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until all processes are here, and do something a few times a second meanwhile.

        Raises:
            ConnectionError: another process ended.
        """
        with self._news:
            self._own[0] += 1
            while any(meetings < self._own[0] for meetings, *_ in self._states):
                if self._is_over:
                    raise ConnectionError(ENDED)
                self._news.wait(_LONGEST)
                meanwhile()

    def leave(self, *, failed: bool) -> None:
        """Wait until all processes leave; if this one has failed, all others learn it, and none waits."""
        self._own[2] = _FAILED if failed else _LEFT
        self._thread.join()

    def _exchange(self) -> None:
        pause = _SHORTEST
        try:
            while not self._is_over:
                found = [torch.zeros(len(self._own), dtype=torch.int64) for _ in self._states]
                dist.all_gather(found, torch.tensor(self._own), group=self.group)
                states = [one.tolist() for one in found]
                with self._news:
                    # All processes see the same states, so they make the same pauses and end at the same time.
                    moved = [state[0] for state in states] != [state[0] for state in self._states]
                    ends = {state[2] for state in states}
                    self._states, self._is_over = states, _FAILED in ends or ends == {_LEFT}
                    self._news.notify_all()
                pause = _SHORTEST if moved else min(1.5 * pause, _LONGEST)
                time.sleep(0 if self._is_over else pause)
        except RuntimeError:  # a connection was closed, or nothing came
            pass
        finally:
            with self._news:
                self._is_over = True
                self._news.notify_all()
