"""Runs in several processes, interrupted at any moment, and resumed."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import MODEL, SMALL, VOC_MODEL, run, scores_in, stopped_before_the_scores
from made_datasets import NAMES, ColourNet, make_folder, make_ilsvrc, make_voc
from PIL import Image
from places import TESTS

from captum_regioncam.cli.evaluate import PROGRESS
from captum_regioncam.evaluation import load_seed
from captum_regioncam.evaluation.runs import job as jobs
from captum_regioncam.evaluation.runs import progress
from captum_regioncam.evaluation.runs.job import Job
from captum_regioncam.evaluation.runs.job import run as run_job
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.scoring import masks
from captum_regioncam.evaluation.scoring import seeds as scored_seeds
from captum_regioncam.evaluation.seeds import writing as seeding
from captum_regioncam.files.outputs import OutputError

pytestmark = pytest.mark.usefixtures("colour_factory")


def torchrun(*arguments):
    """Start a command under torchrun itself; the other tests have forks, which start sooner."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*start, str(TESTS / "run_cli.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def alone(*arguments):
    """Run in this process with as many threads as each of torchrun's has, so that sums are in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run(*arguments) == 0
    finally:
        torch.set_num_threads(threads)


def finished_well(child):
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    return out, err


def interrupted(child, how, reached):
    """Interrupt a command and its workers once something is reached, and return what it said; it may be faster."""
    deadline = time.monotonic() + 100
    while not reached() and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    if child.poll() is None:
        # torchrun's workers have sessions of their own: Ctrl-C reaches torchrun alone, which ends them.
        pids = [child.pid, *(descendants(child.pid) if how == signal.SIGKILL else ())]
        for pid in pids:
            os.kill(pid, how)
    return child.communicate(timeout=100)


def descendants(pid):
    """The processes that a process started, and that these started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def seed_count(folder):
    return len(list(Path(folder).glob("photo_*.npy")))


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if not path.name.startswith(".")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "how"), [(1, signal.SIGKILL), (1, signal.SIGINT), (2, signal.SIGINT), (3, signal.SIGKILL)]
)
def test_seeds_interrupted_and_resumed_are_the_undisturbed(workers, how, chance, forked):
    names = [f"photo_{number:03d}" for number in range(60)]
    root = make_voc(Path("data"), names)
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, "--scales", "1,2,3", "--batch", "3"]
    count = chance.randint(1, 40)
    child = forked(*command, "--output", "seeds", workers=workers)
    _, err = interrupted(child, how, lambda: seed_count("seeds") >= count)
    done = {path: path.stat().st_mtime_ns for path in Path("seeds").glob("photo_*.npy")}
    assert count <= len(done), err
    if workers == 1 and how == signal.SIGINT and len(done) < 60:
        assert err.endswith("seeds: stopped. Run the same command with --resume to continue from here.\n")
        assert "Traceback" not in err
    lost = sorted(done)[0]
    lost.unlink()
    somebody_s = Path("seeds/.captum_regioncam-x.json")  # its name begins like ours
    somebody_s.write_text("{")
    finished_well(forked(*command, "--output", "seeds", "--resume", workers=workers))
    alone(*command, "--output", "undisturbed")
    assert contents("seeds") == contents("undisturbed"), (count, len(done))
    kept = [path for path, time_ in done.items() if path != lost and path.stat().st_mtime_ns == time_]
    assert len(kept) == len(done) - 1  # what was done was not done again
    assert somebody_s.read_text() == "{"
    left = {path.name for path in Path("seeds").glob(".*")}
    assert left == {".captum_regioncam.json", ".captum_regioncam.lock", somebody_s.name}


@pytest.mark.slow
def test_a_machine_that_dies_ends_the_others(chance, forked):
    """Two agents of torchrun, as on two machines; one of them and its worker are killed."""
    root = make_voc(Path("data"), [f"photo_{number:03d}" for number in range(60)])
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, "--scales", "1,2,3", "--batch", "3", "--output", "seeds"]

    def two_nodes(*more):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        return [forked(*command, *more, nodes=2, port=port) for _ in range(2)]

    nodes = two_nodes()
    count, dies = chance.randint(1, 30), chance.randrange(2)
    deadline = time.monotonic() + 100
    while seed_count("seeds") < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for pid in [nodes[dies].pid, *descendants(nodes[dies].pid)]:
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    nodes[1 - dies].communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert nodes[1 - dies].returncode
    assert count <= seed_count("seeds") < 60
    printed = [finished_well(node) for node in two_nodes("--resume")]
    assert sorted(out.count("60 seeds of Region-CAM in seeds") for out, _ in printed) == [0, 1]
    alone(*command[:-1], "undisturbed")
    assert contents("seeds") == contents("undisturbed"), (count, dies)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "before", "after"), [(signal.SIGKILL, 2, 3), (signal.SIGINT, 1, 1)])
def test_evaluate_interrupted_and_resumed_counts_every_photo_once(how, before, after, forked):
    root = make_folder(Path("data"), photos=300)
    command = [
        "evaluate",
        "folder",
        "--root",
        root,
        *MODEL,
        *SMALL,
        "--size",
        "160",
        "--method",
        "layer-cam,region-cam",
    ]
    saved = PROGRESS.absolute()
    child = forked(*command, "--json", "resumed.json", workers=before)
    _, err = interrupted(child, how, lambda: list(saved.glob("*/[!.]*.pt")))
    assert not Path("resumed.json").exists(), "finished before it was interrupted"
    if how == signal.SIGINT:
        assert err.endswith("evaluate: stopped. Run the same command with --resume to continue from here.\n")
    _, err = finished_well(forked(*command, "--json", "resumed.json", "--resume", workers=after))
    already = int(next(line for line in err.splitlines() if "already counted" in line).split()[0])
    assert 0 < already < 300
    assert f"{-(-(300 - already) // after)}/" in err or after > 1  # the bar and its rate count what is left to do
    assert not saved.exists()
    alone(*command, "--json", "undisturbed.json")
    resumed, undisturbed = (scores_in(f"{name}.json") for name in ("resumed", "undisturbed"))
    for method, figures in undisturbed.items():
        assert resumed[method]["photos"] == 300
        assert resumed[method]["miou"] == pytest.approx(figures["miou"], abs=0.01)
        assert resumed[method]["pxap"] == pytest.approx(figures["pxap"], abs=0.01)


def test_progress_of_an_interrupted_evaluation(capsys, monkeypatch):
    root = make_folder(Path("data"), photos=12)
    command = ["evaluate", "folder", "--root", root, *MODEL, *SMALL, "--size", "32", "--batch", "1"]
    monkeypatch.setattr(progress, "_LEAST", 0)
    monkeypatch.setattr(progress, "_SHARE", 1e9)
    counted, count = [], masks.SegmentationMetric.update

    def stop(self, *arguments):
        if len(counted) == 5:
            raise KeyboardInterrupt
        counted.append(count(self, *arguments))

    monkeypatch.setattr(masks.SegmentationMetric, "update", stop)
    assert run(*command) == 130
    assert capsys.readouterr().err.endswith("Run the same command with --resume to continue from here.\n")
    monkeypatch.setattr(masks.SegmentationMetric, "update", count)
    assert len(list(PROGRESS.glob("*/*.pt"))) == 1
    # Another command has its own progress; this one's is dropped, or gone on with.
    assert run(*command, "--contrast", "1", "--resume") == 0
    assert "0 photos are already counted" in capsys.readouterr().err
    assert run(*command, "--resume", "--json", "resumed.json") == 0
    err = capsys.readouterr().err
    assert "5 photos are already counted" in err
    assert "7/7" in err
    assert not PROGRESS.exists()
    assert run(*command, "--json", "anew.json") == 0
    assert scores_in("resumed.json") == scores_in("anew.json")
    counted.clear()
    monkeypatch.setattr(masks.SegmentationMetric, "update", stop)
    assert run(*command) == 130
    monkeypatch.setattr(masks.SegmentationMetric, "update", count)
    assert run(*command) == 2
    assert "an interrupted run with these settings has counted 5 photos. Pass --resume" in capsys.readouterr().err


def test_a_run_never_goes_on_with_other_weights(capsys):
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--weights", "net.pth", "--output", "seeds"]
    for scale in (1, 2):
        torch.save({name: scale * value for name, value in ColourNet(20).state_dict().items()}, "net.pth")
        assert run(*command, "--resume", "--limit", "3") == (0 if scale == 1 else 2)
    assert "was made with weights = 'net.pth (sha256 " in capsys.readouterr().err


def test_progress_that_is_broken(capsys, monkeypatch):
    root = make_folder(Path("data"))
    command = ["evaluate", "folder", "--root", root, *MODEL, "--size", "32", "--resume"]
    stopped_before_the_scores(monkeypatch, *command)
    [counts] = PROGRESS.glob("*/*.pt")
    counts.write_bytes(b"half")
    capsys.readouterr()
    assert run(*command) == 2
    assert (
        f"{counts}: cannot be read (it has changed since it was written). Delete the folder" in capsys.readouterr().err
    )
    assert counts.read_bytes() == b"half"
    counts.unlink()
    assert run(*command) == 0


def test_what_is_left_may_all_be_broken(capsys, monkeypatch):
    """Photos that an earlier session counted are not lost where all that is left fails."""
    root = make_folder(Path("data"), photos=6)
    command = ["evaluate", "folder", "--root", root, *MODEL, "--size", "32", "--batch", "1"]
    (root / "masks" / "photo_5.png").write_bytes(b"no mask")
    stopped_before_the_scores(monkeypatch, *command)
    assert run(*command, "--resume") == 1
    captured = capsys.readouterr()
    assert "5 photos are already counted" in captured.err
    assert "1 of 6 photos failed and were left out" in captured.err
    assert "5 photos" in captured.out


def test_a_disk_that_is_full_costs_progress_alone(capsys, monkeypatch):
    root = make_folder(Path("data"), photos=6)
    command = ["evaluate", "folder", "--root", root, *MODEL, "--size", "32"]
    assert run(*command, "--json", "kept.json") == 0
    monkeypatch.setattr(progress, "_LEAST", 0)
    monkeypatch.setattr(progress, "_SHARE", 1e9)

    def full(self, *arguments):
        raise OutputError("no space left")

    monkeypatch.setattr(progress.Writer, "write", full)
    assert run(*command, "--json", "full.json") == 0
    assert capsys.readouterr().err.count("Progress is no longer saved") == 1
    assert scores_in("full.json") == scores_in("kept.json")


def test_other_seeds_in_the_same_folder_are_not_mixed(capsys, monkeypatch):
    root = make_voc(Path("data"))
    seeds = ["seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "seeds"]
    command = ["evaluate", "voc", "--root", root, "--seeds", "seeds"]
    monkeypatch.setattr(progress, "_LEAST", 0)
    monkeypatch.setattr(progress, "_SHARE", 1e9)
    assert run(*seeds) == 0
    load, loaded = scored_seeds.sample_seed, []

    def stop(*arguments):
        if len(loaded) == 3:
            raise KeyboardInterrupt
        loaded.append(load(*arguments))
        return loaded[-1]

    with monkeypatch.context() as patched:
        patched.setattr(scored_seeds, "sample_seed", stop)
        assert run(*command, "--no-flip") == 2  # an option of maps
        assert run(*command) == 130
    for path in Path("seeds").glob("*.*"):
        path.unlink()
    assert run(*seeds, "--method", "layer-cam") == 0
    capsys.readouterr()
    assert run(*command, "--resume") == 0
    assert "0 photos are already counted" in capsys.readouterr().err


def test_evaluate_where_nothing_can_be_kept(capsys, monkeypatch):
    root = make_folder(Path("data"))
    Path(".captum_regioncam").write_text("a file")
    assert run("evaluate", "folder", "--root", root, *MODEL, "--size", "32") == 0
    captured = capsys.readouterr()
    assert "Progress cannot be saved" in captured.err
    assert "4 photos" in captured.out
    assert Path(".captum_regioncam").read_text() == "a file"


def test_counts_that_cannot_be_continued_are_counted_anew(capsys, monkeypatch):
    root = make_folder(Path("data"))
    command = ["evaluate", "folder", "--root", root, *MODEL, "--size", "32"]
    assert run(*command, "--json", "whole.json") == 0
    stopped_before_the_scores(monkeypatch, *command)

    def full(*arguments):
        raise OutputError("the disk is full")

    monkeypatch.setattr(progress.Record, "begin", full)
    capsys.readouterr()
    assert run(*command, "--resume", "--json", "again.json") == 0
    assert "Progress cannot be saved" in capsys.readouterr().err
    assert scores_in("again.json") == scores_in("whole.json")


def test_readers_and_batches_change_nothing(monkeypatch):
    root = make_voc(Path("data"), [f"photo_{number:03d}" for number in range(12)])
    for index in (2, 7):  # of another size than their neighbours
        path = root / "JPEGImages" / f"photo_{index:03d}.jpg"
        Image.open(path).resize((50, 40)).save(path)
    (root / "JPEGImages" / "photo_009.jpg").write_bytes(b"no photo")
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, *SMALL]
    assert run(*command, "--output", "one") == 1
    assert run(*command, "--output", "four", "--batch", "4") == 1
    assert run(*command, "--output", "read", "--readers", "2") == 1
    assert seed_count("one") == seed_count("four") == 11
    for path in Path("one").glob("photo_*.npy"):
        assert path.read_bytes() == (Path("read") / path.name).read_bytes()
        one, four = load_seed(path), load_seed(Path("four") / path.name)
        np.testing.assert_allclose(one.high_res, four.high_res, rtol=0, atol=1e-4)


class Tens(Job):
    """Numbers times ten, in batches that are noted; some fail."""

    def __init__(self, names, load, fails, batch, done, alike):
        self.names, self.batch, self.batches, self.kept = names, batch, [], {}
        self.load, self.fails, self.done, self.kind = load, fails, done, alike

    def reader(self):
        return self.load

    def is_done(self, number):
        return number in self.done

    def alike(self, item):
        return self.kind(item)

    def compute(self, items):
        self.batches.append(list(items))
        if set(items) & set(self.fails):
            raise ValueError("no such mount")
        return [10 * number for number in items]

    def keep(self, number, item, result):
        assert result == 10 * item
        self.kept[number] = result


def visited(names, load=lambda number: number, fails=(), batch=1, done=(), alike=lambda number: None):
    """Do a job of numbers; return the batches that were computed, what was kept, and the failures."""
    job = Tens(names, load, fails, batch, done, alike)
    failures = run_job(job, Worker())
    return job.batches, job.kept, failures


def test_groups_of_neighbours_are_always_the_same():
    names = list("abcdefghij")
    batches, kept, failures = visited(names, batch=4)
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert (list(kept), failures) == (list(range(10)), {})
    # A group of which something is missing is computed whole, so that its numbers come out the same.
    batches, kept, failures = visited(names, batch=4, done={0, 1, 2, 3, 5, 6})
    assert batches == [[4, 5, 6, 7], [8, 9]]
    assert list(kept) == [4, 7, 8, 9]
    batches, kept, _ = visited(names, batch=4, alike=lambda number: number % 2)
    assert batches == [[0, 2], [1, 3], [4, 6], [5, 7], [8], [9]]
    assert sorted(kept) == list(range(10))


def test_a_photo_that_fails_in_a_batch_fails_alone():
    batches, kept, failures = visited(list("abcdef"), batch=3, fails=[1])
    assert batches == [[0, 1, 2], [0], [1], [2], [3, 4, 5]]
    assert list(kept) == [0, 2, 3, 4, 5]
    assert failures == {"b": "no such mount"}


def test_a_worker_that_gets_nowhere_ends_early_and_the_others_count():
    seen = []

    def load(number):
        seen.append(number)
        if number < 10:
            raise OSError("no such mount")
        return number

    with pytest.raises(ValueError, match=r"the first 10 photos of a process all failed, one of them with: no such mo"):
        visited([str(number) for number in range(20)], load)
    assert seen == list(range(10))
    with pytest.raises(ValueError, match=r"all photos failed, one of them with: no such mount"):
        visited([str(number) for number in range(7)], load)
    # Where an earlier run got on, the broken photos that it left do not stop this one.
    _, kept, failures = visited([str(number) for number in range(20)], load, done={19})
    assert (list(kept), len(failures)) == (list(range(10, 19)), 10)
    _, kept, failures = visited([str(number) for number in range(20)], lambda number: load(number + 5))
    assert failures == {str(number): "no such mount" for number in range(5)}
    assert list(kept) == list(range(5, 20))


def test_the_time_that_is_left_is_told_once(caplog, monkeypatch):
    clock = iter(range(0, 10_000, 20))  # seconds; every photo takes 20
    monkeypatch.setattr(jobs.time, "monotonic", lambda: next(clock))
    caplog.set_level(logging.INFO, "captum_regioncam")
    visited([str(number) for number in range(400)])
    assert [record.getMessage() for record in caplog.records] == ["The remaining photos will take about 2 h 10 min."]
    caplog.clear()
    visited([str(number) for number in range(9)])  # too few to tell
    assert not caplog.records


def test_set_up_that_fails_in_one_worker_ends_all():
    def fail():
        raise OSError("no such mount")

    with pytest.raises(ValueError, match="no such mount"):
        Worker().together(fail)
    assert Worker().together(lambda: 3) == 3


@pytest.mark.slow
def test_torchrun_equals_one_process(forked):
    workers = 3
    roots = {"voc": make_voc(Path("voc")), "ilsvrc": make_ilsvrc(Path("ilsvrc"))}
    for name, root in roots.items():
        command = [
            name,
            "--root",
            root,
            *(VOC_MODEL if name == "voc" else MODEL),
            *SMALL,
            "--resize",
            "squash",
            "--size",
            "32",
            "--method",
            "layer-cam,region-cam",
        ]
        one, together = Path(f"{name}-1.json"), Path(f"{name}-{workers}.json")
        alone("evaluate", *command, "--json", one)
        out, _ = finished_well(forked("evaluate", *command, "--json", together, workers=workers))
        assert scores_in(together) == scores_in(one)
        assert out.count("LayerCAM") == 1  # one process prints


@pytest.mark.slow
def test_torchrun_writes_every_seed_once():
    root = make_voc(Path("data"))
    command = ["voc", "--root", root, *VOC_MODEL, *SMALL]
    finished_well(torchrun("seeds", *command, "--output", "together"))
    alone("seeds", *command, "--output", "alone")
    for name in NAMES:
        assert np.array_equal(load_seed(f"together/{name}.npy").high_res, load_seed(f"alone/{name}.npy").high_res)


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    root = make_voc(Path("data"))
    command = ["seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "seeds"]
    encode, encoded = seeding.encode_seed, []

    def interrupt(*arguments):
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(encode(*arguments))
        return encoded[-1]

    monkeypatch.setattr(seeding, "encode_seed", interrupt)
    assert run(*command) == 130
    err = capsys.readouterr().err
    assert err.endswith("captum-regioncam seeds: stopped. Run the same command with --resume to continue from here.\n")
    assert "Traceback" not in err
    monkeypatch.setattr(seeding, "encode_seed", encode)
    assert len(list(Path("seeds").glob("[!.]*.npy"))) == 2
    assert run(*command, "--resume") == 0
    assert "4/4" in capsys.readouterr().err  # the bar counts what was left to do
    assert len(list(Path("seeds").glob("[!.]*.npy"))) == 6
