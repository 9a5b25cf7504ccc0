"""What the tests need before anything is imported: a torchvision that imports, and figures without a screen."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
import torchvision_schemas  # noqa: F401
from hypothesis import settings
from made_datasets import FACTORY

mpl.use("Agg")
os.environ["HF_HUB_OFFLINE"] = "1"

# Tests that need more or fewer examples than a profile has ask for a multiple or a fraction of them.
settings.register_profile("ci", deadline=None, print_blob=True)
settings.register_profile("dev", settings.get_profile("ci"), max_examples=10)
settings.load_profile("ci")  # unless pytest is called with --hypothesis-profile=dev

METHOD = ("tests", "method", "network", "stages")  # folders; make test-fast names them as well


def pytest_addoption(parser):
    group = parser.getgroup("sweep", "the sweep over families of networks (tests/sweep)")
    group.addoption("--sweep", action="store_true", help="run all families, not a sample of them")
    group.addoption("--table", action="store_true", help="write what came out to the table of docs/models.md")


def pytest_collection_modifyitems(items):
    """Run the tests of the method first, and no slow test at the end, where other processes would wait for it."""

    def turn(item):
        if item.get_closest_marker("slow"):
            return 1
        return 0 if item.path.parent.name in METHOD else 2

    items.sort(key=turn)


@pytest.fixture
def colour_factory(tmp_path, monkeypatch):
    """Work in a temporary folder, where --model finds the networks of made_datasets by name."""
    (tmp_path / "colour_factory.py").write_text(FACTORY.format(tests=str(Path(__file__).parent)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("colour_factory", None)


class Fork:
    """A command that runs in a process of its own."""

    def __init__(self, ask, pid):
        self.ask, self.pid, self.result = ask, pid, None

    def poll(self, wait=False):
        """Return the exit status, or None while the command runs."""
        if self.result is None:
            self.result = self.ask("ended", self.pid, wait)
        return self.result and self.result[0]

    def communicate(self, timeout=None):
        """Wait for the end; return what was printed, and the errors."""
        deadline = timeout and time.monotonic() + timeout
        while self.poll(wait=timeout is None) is None:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                raise TimeoutError("the command hangs")
            time.sleep(0.01)
        return self.result[1:]

    @property
    def returncode(self):
        return self.poll()


@pytest.fixture(scope="session")
def forked():
    """Start commands at once: in forks of a process that has imported all that they need."""
    server = [sys.executable, str(Path(__file__).parent / "forked_commands.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(server, env=environment, **pipes) as process:

        def ask(*request):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        def start(*arguments, folder=".", **options):
            options |= {"folder": os.path.abspath(folder), "arguments": list(map(str, arguments))}
            return Fork(ask, ask("start", options))

        yield start
        process.stdin.close()


@pytest.fixture(scope="session")
def killed(forked):
    """Run a command to its end, or have it killed before one of its steps on disk: exit status, what was printed."""

    def run(folder, arguments, killed_before):
        fork = forked(*arguments, folder=folder, killed_before=killed_before)
        printed = "".join(fork.communicate())
        return fork.returncode, printed

    return run


@pytest.fixture
def chance():
    """Random numbers whose seed is printed when a test fails; SEED=... in the environment repeats it."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
