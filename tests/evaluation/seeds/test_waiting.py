"""Seeds that are still being written, or whose run was interrupted."""

from pathlib import Path

import pytest
from commands import SMALL, VOC_MODEL, run
from filelock import FileLock
from made_datasets import NAMES, make_voc

from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation import evaluate_seeds, open_dataset, write_label_maps
from captum_regioncam.evaluation.seeds import disk, waiting
from captum_regioncam.evaluation.seeds import writing as seeding

pytestmark = pytest.mark.usefixtures("colour_factory")
LOCK = "seeds/.captum_regioncam.lock"


@pytest.fixture
def interrupted(colour_factory, monkeypatch, capsys):
    """The command whose run was stopped after two of six seeds."""
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "seeds"]
    keep = seeding._SeedJob.keep

    def stop(self, number, *arguments):
        if number == 2:
            raise KeyboardInterrupt
        keep(self, number, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(seeding._SeedJob, "keep", stop)
        assert run(*command) == 130
    capsys.readouterr()
    return command


def test_seeds_of_an_interrupted_run_are_not_taken_for_all(interrupted, capsys):
    root = interrupted[3]
    resumed = f"Continue it: captum-regioncam seeds voc --root {root} --model colour_factory:voc_net "
    for wait in ([], ["--wait"]):
        for command in (
            ["label-maps", "seeds", "--output", "maps"],
            ["evaluate", "voc", "--root", root, "--seeds", "seeds"],
        ):
            assert run(*command, *wait) == 2
            err = capsys.readouterr().err
            assert "seeds: has 2 of 6 seeds. The run that wrote them was interrupted. " + resumed in err
            assert err.endswith("--output seeds --resume\n")
            assert not Path("maps").exists()
    # What is there may be used by name or number.
    assert run("label-maps", "seeds", "--output", "maps", "--limit", "2") == 0
    assert run("evaluate", "voc", "--root", root, "--seeds", "seeds", "--limit", "2") == 0
    assert run("label-maps", "seeds", "--output", "maps", "--limit", "3") == 2
    assert len(write_label_maps("seeds", "named", names=NAMES[:2], show_progress=False).names) == 2
    with pytest.raises(ArgumentError, match="has 2 of 6 seeds"):
        write_label_maps("seeds", "named", names=NAMES[1:3], show_progress=False)
    assert run(*interrupted, "--resume") == 0
    assert run("label-maps", "seeds", "--output", "maps") == 0
    Path("seeds", f"{NAMES[5]}.npy").unlink()  # by somebody: the run itself was complete
    assert run("evaluate", "voc", "--root", root, "--seeds", "seeds") == 1
    assert run("evaluate", "voc", "--root", root, *VOC_MODEL, *SMALL, "--wait") == 2
    assert "--wait: requires --seeds" in capsys.readouterr().err


def test_seeds_that_are_being_written_are_waited_for(interrupted, capsys, monkeypatch):
    data = open_dataset("voc", str(interrupted[3]))
    lock = FileLock(LOCK)
    with lock:
        with pytest.raises(ArgumentError, match=r"has 2 of 6 seeds. Pass wait=True to wait for the run that writes"):
            evaluate_seeds("seeds", data, show_progress=False)

        def sleep(seconds):
            assert seconds == waiting._PAUSE
            lock.release()
            assert run(*interrupted, "--resume") == 0

        monkeypatch.setattr(waiting.time, "sleep", sleep)
        report = evaluate_seeds("seeds", data, wait=True)
    assert report.scores["seeds in seeds"]["photos"] == 6
    assert "waiting:  33%" in capsys.readouterr().err


@pytest.mark.usefixtures("interrupted")
def test_waiting_ends_with_the_run(capsys, monkeypatch):
    """The run that is waited for dies: its lock is free, and seeds are missing."""
    lock = FileLock(LOCK)
    lock.acquire()
    monkeypatch.setattr(waiting.time, "sleep", lambda _: lock.release())
    assert run("label-maps", "seeds", "--output", "maps", "--wait") == 2
    assert "seeds: has 2 of 6 seeds. The run that wrote them was interrupted" in capsys.readouterr().err
    state = waiting.unfinished(Path("seeds"))
    state.died[0].sessions = [{"command_line": ["train.py"]}]  # of the library
    assert "".join(map(str, waiting._remedy(state))).endswith("interrupted. Call it again with resume=True.")


def test_shards_in_words():
    assert waiting._shards([3]) == "shard 3"
    assert waiting._shards([1, 2, 3, 7, 9, 10]) == "shards 1-3, 7, 9-10"


def test_a_disk_without_room_ends_the_run_before_the_first_photo(capsys, monkeypatch):
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "seeds"]
    usage = disk.shutil.disk_usage
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage(path)._replace(free=50_000))
    assert run(*command) == 2
    says = "--output seeds: 6 seeds need about 114.7 kB, but its disk has only 50.0 kB free. Choose another folder"
    assert says in capsys.readouterr().err
    assert not Path("seeds").exists()
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage(path)._replace(free=120_000))
    assert run(*command) == 0
    captured = capsys.readouterr()
    assert "6 seeds need about 114.7 kB of disk space; 120.0 kB are free." in captured.err
    written = sum(path.stat().st_size for path in Path("seeds").glob("*.npy"))
    assert disk._bytes(written) == "114.7 kB"
    assert "6 photos in " in captured.out
    assert f"Next: captum-regioncam evaluate voc --root {root} --seeds seeds" in captured.out
    assert [disk._bytes(count) for count in (0, 999, 1_400_000, 5e15)] == [
        "0 bytes",
        "999 bytes",
        "1.4 MB",
        "5000.0 TB",
    ]
