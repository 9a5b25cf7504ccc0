"""Small files that ask for much memory or time get an error that names them, in a process that has 1.5 GB to spare."""

import json

import pytest
from places import TESTS


@pytest.mark.slow
def test_every_bomb_is_refused_by_name_and_no_seed_takes_more_than_a_multiple_of_its_size(tmp_path, forked):
    fork = forked(tmp_path, script=str(TESTS / "bombs.py"))
    out, err = fork.communicate(timeout=300)
    assert fork.returncode == 0, err
    # {name: what came of reading the file, and by how many megabytes the process grew}
    results = {line["name"]: line for line in map(json.loads, out.splitlines())}
    assert len(results) == 58
    harmless = {"an entry of the memo.npy", "large grey png.jpg"}
    for name, line in results.items():
        begins = "read: " if name in harmless else f"ValueError: {tmp_path / name}: "
        assert line["outcome"].startswith(begins), line
    seeds = [line for name, line in results.items() if name.endswith(".npy")]
    assert len(seeds) == 37
    for line in seeds:
        megabytes = (tmp_path / line["name"]).stat().st_size / 2**20
        assert line["megabytes"] <= 16 + 10 * megabytes, line
