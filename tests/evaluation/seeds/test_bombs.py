"""Small files that ask for much memory or time get an error that names them, in a process that has 1.5 GB to spare."""

import json
import subprocess
import sys

import pytest
from places import TESTS


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{name: what came of reading the file, and by how many megabytes the process grew}."""
    folder = tmp_path_factory.mktemp("bombs")
    program = TESTS / "bombs.py"
    done = subprocess.run([sys.executable, program, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_every_bomb_is_refused_by_name(outcomes):
    folder, results = outcomes
    assert len(results) == 58
    harmless = {"an entry of the memo.npy", "large grey png.jpg"}
    for name, line in results.items():
        begins = "read: " if name in harmless else f"ValueError: {folder / name}: "
        assert line["outcome"].startswith(begins), line


def test_seeds_take_no_more_than_a_multiple_of_their_size(outcomes):
    folder, results = outcomes
    seeds = [line for name, line in results.items() if name.endswith(".npy")]
    assert len(seeds) == 37
    for line in seeds:
        megabytes = (folder / line["name"]).stat().st_size / 2**20
        assert line["megabytes"] <= 16 + 10 * megabytes, line
