"""Shards of the photos, in one folder."""

import json
import random
from pathlib import Path

import pytest
from commands import SMALL, VOC_MODEL, run
from filelock import FileLock
from made_datasets import make_voc

from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation.runs import folder as folders
from captum_regioncam.evaluation.runs.record import RECORD, Record
from captum_regioncam.evaluation.runs.shards import numbers_in
from captum_regioncam.evaluation.seeds import writing as seeding
from captum_regioncam.evaluation.seeds.waiting import unfinished

pytestmark = pytest.mark.usefixtures("colour_factory")
LOCK = ".captum_regioncam-shard-{}-of-3.lock"


@pytest.fixture
def command(colour_factory):
    root = make_voc(Path("data"), [f"photo_{number:02d}" for number in range(10)])
    return ["seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--batch", "2", "--output"]


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.npy")}


def test_shards_take_the_same_groups():
    assert numbers_in(None, 5, 2) == (None, [0, 1, 2, 3, 4])
    assert numbers_in((1, 3), 11, 2) == ((1, 3), [0, 1, 6, 7])
    assert numbers_in([3, 3], 11, 2) == ((3, 3), [4, 5, 10])
    for wrong in ((0, 3), (4, 3), (1,), "1/3", 3, (1.0, 3), (1, 10**5)):
        with pytest.raises(ArgumentError, match=r"shard=.*: expects \(i, n\) for the i-th of n shards"):
            numbers_in(wrong, 11, 2)
    with pytest.raises(ArgumentError, match=r"shard=\(1, 7\): 11 photos in batches of 2 make only 6 shards"):
        numbers_in((1, 7), 11, 2)


def test_shards_in_any_order_are_what_one_run_writes(command, capsys):
    assert run(*command, "whole") == 0
    order = random.Random(3).sample([1, 2, 3], 3)
    for place, index in enumerate(order):
        assert unfinished(Path("seeds")) is None or place
        assert run(*command, "seeds", "--shard", f"{index}/3") == 0
        assert "Next when all shards are there: captum-regioncam evaluate voc" in capsys.readouterr().out
        assert not list(Path("seeds").glob(LOCK.format("*")))
        if place < 2:
            [missing] = unfinished(Path("seeds")).missing[: 1 + (place == 0)][-1:]
            assert missing == max(set(order) - set(order[: place + 1]))
    assert unfinished(Path("seeds")) is None
    assert contents("seeds") == contents("whole")
    runs = json.loads(Path("seeds", RECORD).read_text())["runs"]
    assert [one["shard"] for one in runs] == [[index, 3] for index in order]
    assert [one["sessions"][0]["total"] for one in runs] == [10] * 3
    assert "shard" not in json.loads(Path("whole", RECORD).read_text())["runs"][0]
    # One run takes the shards over; it need not do anything.
    assert run(*command, "seeds", "--resume") == 0
    [one] = Record.read(Path("seeds")).runs
    assert (one.shard, len(one.results), one.is_whole) == (None, 10, True)
    assert contents("seeds") == contents("whole")


def test_shards_beside_each_other(command, capsys, monkeypatch):
    """Shards begin and end while others are writing."""
    write, nested = seeding._SeedJob.keep, iter([2, 3])

    def keep(self, *arguments):
        write(self, *arguments)
        if index := next(nested, None):
            assert run(*command, "seeds", "--shard", f"{index}/3") == 0
            # This shard twice, all photos, another number of shards, other settings or photos: none of them now.
            for more, says in (
                (["--shard", "1/3"], "has results already. Pass --resume"),
                (["--shard", "1/3", "--resume"], "another run is writing to shard 1 of 3"),
                (["--resume"], "shard 1 of 3 is being written"),
                (["--shard", "2/4"], "was made in 3 shards, which does not match --shard 2/4"),
                (["--shard", "3/3", "--contrast", "1"], "was made with contrast = 4.0, but now it is 1.0"),
                (["--shard", "3/3", "--limit", "9", "--resume"], "other shards are of 10 photos, and this one is of 9"),
            ):
                capsys.readouterr()
                assert run(*command, "seeds", *more) == 2
                assert says in capsys.readouterr().err

    monkeypatch.setattr(seeding._SeedJob, "keep", keep)
    assert run(*command, "seeds", "--shard", "1/3") == 0
    assert run(*command, "whole") == 0
    assert contents("seeds") == contents("whole")
    assert unfinished(Path("seeds")) is None
    assert sorted(one.shard for one in Record.read(Path("seeds")).runs) == [(1, 3), (2, 3), (3, 3)]


def test_a_shard_that_was_killed_is_continued(command, killed):
    assert run(*command, "whole") == 0
    assert run(*command, "seeds", "--shard", "1/3") == 0
    shard = [*command, "seeds", "--shard", "2/3"]
    status, printed = killed(".", list(map(str, shard)), 25)
    assert status == 137, printed
    state = unfinished(Path("seeds"))
    assert [one.shard for one in state.died] == [(2, 3)]
    assert (state.writing, state.missing, state.total) == ([], [3], 10)
    assert 4 <= state.present < 8
    assert "shard 2 of 3 is interrupted; shard 3 of 3 has not begun" in str(state)
    assert run(*command, "seeds", "--shard", "3/3") == 0
    assert run(*shard, "--resume") == 0
    assert contents("seeds") == contents("whole")
    assert sorted(path.name for path in Path("seeds").glob(".*")) == [RECORD, ".captum_regioncam.lock"]


def test_shards_continue_a_run_without_and_the_other_way_round(command, capsys):
    assert run(*command, "whole") == 0
    assert run(*command, "seeds", "--limit", "4") == 0
    kept = {path: path.stat().st_mtime_ns for path in Path("seeds").glob("*.npy")}
    assert run(*command, "seeds", "--shard", "1/2") == 2
    assert "has results already. Pass --resume" in capsys.readouterr().err
    assert run(*command, "seeds", "--shard", "1/2", "--resume") == 0
    assert len(contents("seeds")) == 8
    assert unfinished(Path("seeds")).missing == [2]
    assert run(*command, "seeds") == 2
    left, others, notes = (Path(f"seeds/.captum_regioncam-shard-{of}.lock") for of in ("1-of-2", "1-of-9", "notes"))
    left.touch()  # as a shard that was killed leaves it
    others.touch()  # of no shard that the record knows
    notes.write_text("a user's")
    assert run(*command, "seeds", "--resume") == 0
    assert not left.exists()
    assert others.exists()
    assert notes.read_text() == "a user's"
    assert contents("seeds") == contents("whole")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    [one] = Record.read(Path("seeds")).runs
    assert sorted(one.results) == sorted(contents("seeds"))


def test_a_run_without_shards_keeps_shards_out(command, capsys, monkeypatch):
    monkeypatch.setattr(folders, "_PATIENCE", 0.1)
    Path("seeds").mkdir()
    with FileLock("seeds/.captum_regioncam.lock"):
        assert run(*command, "seeds", "--shard", "1/3") == 2
    assert "--output seeds: another run is writing to it" in capsys.readouterr().err
    assert run(*command, "seeds", "--shard", "4/3") == 2
    assert "'4/3' is not a shard such as 3/16" in capsys.readouterr().err
    assert run(*command, "seeds", "--shard", "1/3", "--label-maps", "maps") == 2
    assert "--label-maps: cannot be used with --shard" in capsys.readouterr().err
    assert not contents("seeds")
