"""Processes that share a run, one of which dies."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from captum_regioncam.evaluation.runs.workers import Worker

SCRIPT = """
import os, sys, time
from captum_regioncam.evaluation.runs.workers import workers

what, rank, port = sys.argv[1:]
os.environ |= {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
try:
    with workers() as worker:
        assert worker.gather(rank) == ["0", "1"]
        worker.add(1 + int(rank))
        worker.gather(None)
        print("photos", worker.photos, flush=True)
        open(f"ready-{rank}", "x")
        if rank == "1":
            time.sleep(100 if what != "raises" else 0)
            raise KeyboardInterrupt
        elif what == "works":
            while True:
                worker.add(1)
                time.sleep(0.01)
        else:
            worker.gather(None)
except ConnectionError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["works", "waits", "raises"])
def test_a_process_that_dies_ends_the_other(what, forked, tmp_path):
    """While it works, and while it waits; without a launcher, which would end it as well."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    pair = [forked(what, str(rank), port, folder=tmp_path, script=str(tmp_path / "script.py")) for rank in range(2)]
    deadline = time.monotonic() + 60
    while not all(Path(tmp_path, f"ready-{rank}").exists() for rank in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if what != "raises":
        os.kill(pair[1].pid, signal.SIGKILL)
    out, err = pair[0].communicate(timeout=30)
    assert (
        out
        == "photos 3\nanother process of this run ended or was killed; its own message, if there is one, says why.\n"
    ), err
    pair[1].communicate(timeout=30)


def test_one_process_has_nobody_to_wait_for():
    worker = Worker()
    worker.add(3)
    assert (worker.photos, worker.gather("a", meanwhile=lambda: 1 / 0)) == (0, ["a"])
