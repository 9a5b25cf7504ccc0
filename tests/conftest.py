"""What the tests need before anything is imported: a torchvision that imports, and figures without a screen."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
import torchvision_schemas  # noqa: F401
from hypothesis import settings
from made_datasets import FACTORY

mpl.use("Agg")
os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")


@pytest.fixture
def colour_factory(tmp_path, monkeypatch):
    """Work in a temporary folder, where --model finds the networks of made_datasets by name."""
    (tmp_path / "colour_factory.py").write_text(FACTORY.format(tests=str(Path(__file__).parent)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("colour_factory", None)


@pytest.fixture(scope="session")
def killed():
    """A process that runs commands in forks of itself, and kills some of them."""
    server = [sys.executable, str(Path(__file__).parent / "killed_commands.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(server, env=environment, **pipes) as process:

        def run(folder, arguments, killed_at):
            process.stdin.write(json.dumps([os.path.abspath(folder), arguments, killed_at]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


@pytest.fixture
def chance():
    """Random numbers whose seed is printed when a test fails; SEED=... in the environment repeats it."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
