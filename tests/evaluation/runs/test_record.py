"""What the commands leave alone, and what their record says."""

import hashlib
import json
import os
import resource
import shutil
import stat
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import MODEL, SMALL, VOC_MODEL, run, scores_in, stopped_before_the_scores
from made_datasets import NAMES, ColourNet, everything, make_folder, make_voc
from PIL import Image

import captum_regioncam
from captum_regioncam.evaluation import load_seed, save_seed
from captum_regioncam.evaluation.explanations import writing as explaining
from captum_regioncam.evaluation.runs.folder import ResultFolder, held, recorded
from captum_regioncam.evaluation.runs.locks import locked
from captum_regioncam.evaluation.runs.record import RECORD, Record, Run, Session
from captum_regioncam.evaluation.runs.workers import Worker
from captum_regioncam.evaluation.runs.writer import Writer
from captum_regioncam.evaluation.runs.written import written_below
from captum_regioncam.evaluation.seeds import writing as seeding
from captum_regioncam.files.outputs import OutputError, fits

pytestmark = pytest.mark.usefixtures("colour_factory")
EXPLAIN = [*MODEL, "--size", "32"]


@pytest.fixture
def seeds(colour_factory, capsys):
    """The root of a VOC whose seeds are in work/seeds."""
    root = make_voc(Path("voc"))
    assert run("seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "work/seeds") == 0
    capsys.readouterr()
    return root


def unchanged(before, folder):
    """Whether all that was in a folder is there as it was; folders may have become fuller."""
    now = everything(folder)
    return all(
        now.get(name, (0,))[: 3 if content[0] is not None else 1] == content[: 3 if content[0] is not None else 1]
        for name, content in before.items()
    )


def of_0_2(folder):
    """Turn a folder's record into what version 0.2 left: settings.json, and no list of results."""
    [settings] = [run.settings for run in Record.read(Path(folder)).runs]
    settings.pop("index", None)
    Path(folder, "settings.json").write_text(json.dumps(settings, indent=1))
    for name in (RECORD, ".captum_regioncam.lock"):
        Path(folder, name).unlink()


@pytest.mark.usefixtures("seeds")
def test_labels_leave_a_folder_with_somebody_s_settings_alone(capsys):
    for name in ("settings.json", "photo.png", "deep/er/photo.png", ".captum_regioncam-deep.png", ".lock"):
        path = Path("out", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"threshold": 0.3, "theirs": 1}')
    before = everything("out")
    for more in (["--threshold", "0.3"], ["--threshold", "0.4"], ["--overlay", "out/deep"], ["--resume"]):
        assert run("labels", "work/seeds", "--output", "out", *more) == 0
        assert unchanged(before, Path("out"))
    assert len(list(Path("out").glob("2007*.png"))) == 6
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("seeds")
def test_labels_leave_other_runs_below_their_folder_alone():
    assert run("labels", "work/seeds", "--output", "out/strict", "--threshold", "0.5") == 0
    assert run("labels", "work/seeds", "--output", "out", "--overlay", "out/overlays") == 0
    before = {**everything("out/strict"), **everything("out/overlays")}
    assert run("labels", "work/seeds", "--output", "out", "--threshold", "0.4") == 0
    assert {**everything("out/strict"), **everything("out/overlays")} == before
    seeds = everything("work/seeds")
    assert run("labels", "work/seeds", "--output", "work", "--limit", "2") == 0
    assert everything("work/seeds") == seeds
    assert sorted(path.name for path in Path("work").glob("*.png")) == [f"{name}.png" for name in NAMES[:2]]


def test_scores_for_psa_may_lie_beside_the_seeds(seeds, capsys):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 could not be built here")
    before = everything("work/seeds")
    for _ in range(2):
        assert run("labels", "work/seeds", "--output", "work", "--crf", "psa", "--alpha", "4") == 0
        assert everything("work/seeds") == before
    assert len(list(Path("work/alpha-4").glob("*.npy"))) == 6
    assert run("labels", "work", "--output", "labels") == 2  # work/alpha-4 is of work's own run, work/seeds is not
    assert "work/alpha-4/2007_000001.npy: holds class scores after a dense CRF" in capsys.readouterr().err


@pytest.mark.usefixtures("seeds")
def test_results_that_somebody_changed_stay(capsys):
    assert run("labels", "work/seeds", "--output", "out") == 0
    edited = Path(f"out/{NAMES[1]}.png")
    edited.write_bytes(b"edited by hand")
    capsys.readouterr()
    for more in (["--resume"], [], ["--threshold", "0.4"]):
        assert run("labels", "work/seeds", "--output", "out", *more) == 1
        says = f"{edited} has changed since this command wrote it, and stays as it is. Delete it to have it made again."
        assert says in capsys.readouterr().err
        assert edited.read_bytes() == b"edited by hand"
    edited.unlink()
    assert run("labels", "work/seeds", "--output", "out", "--threshold", "0.4", "--resume") == 0
    assert edited.exists()


@pytest.mark.usefixtures("seeds")
def test_nothing_below_another_record_is_written(capsys):
    assert run("labels", "work/seeds", "--output", "out/alpha-4") == 0
    before = everything("out")
    record = Record.read(Path("out"))
    assert "alpha-4 in it holds results of its own" in record.obstacle(["alpha-4/new.npy"], {})
    with pytest.raises(ValueError, match="did not write"):
        Writer(Path("out"), "aa").write(f"alpha-4/{NAMES[0]}.png", b"")
    assert everything("out") == before


def test_a_folder_of_version_0_2_can_be_resumed_and_read(seeds, capsys):
    command = ["seeds", "voc", "--root", seeds, *VOC_MODEL, *SMALL, "--output", "work/seeds"]
    of_0_2("work/seeds")
    missing, broken = Path(f"work/seeds/{NAMES[1]}.npy"), Path(f"work/seeds/{NAMES[2]}.npy")
    whole = missing.read_bytes()
    missing.unlink()
    before = everything("work/seeds")
    assert run(*command) == 2
    assert "has results already. Pass --resume" in capsys.readouterr().err
    assert run(*command, "--contrast", "1", "--resume") == 2
    assert "was made with contrast = 4.0, but now it is 1.0" in capsys.readouterr().err
    assert everything("work/seeds") == before
    for _ in range(2):  # also where there is a record of what this version added
        assert run(*command, "--resume") == 0
        assert unchanged(before, Path("work/seeds"))
        assert missing.read_bytes() == whole
    assert list(Record.read(Path("work/seeds")).runs[0].results) == [missing.name]
    broken.write_bytes(whole[:1000])
    capsys.readouterr()
    assert run(*command, "--resume") == 1
    assert f"{broken} has changed since this command wrote it, and stays as it is" in capsys.readouterr().err
    assert broken.read_bytes() == whole[:1000]


def test_labels_and_evaluate_read_a_folder_of_version_0_2(seeds, capsys):
    assert run("labels", "work/seeds", "--output", "out", "--threshold", "best") == 0
    made = {path.name: path.read_bytes() for path in Path("out").glob("*.png")}
    of_0_2("work/seeds")
    assert recorded(Path("work/seeds"))["dataset"] == "voc"
    assert run("labels", "work/seeds", "--output", "again", "--threshold", "best") == 0  # it knows its photos
    assert {path.name: path.read_bytes() for path in Path("again").glob("*.png")} == made
    assert run("evaluate", "voc", "--root", seeds, "--seeds", "work/seeds", "--json", "out.json") == 0
    of_0_2("again")
    label_maps = everything("again")
    assert run("labels", "work/seeds", "--output", "again", "--threshold", "0.3") == 2
    assert "was made with threshold = " in capsys.readouterr().err
    assert everything("again") == label_maps


def explained(folder=Path()):
    return sorted(path.name for path in folder.glob("[!.]*_cam.png"))


def photo(name):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 30), 60).convert("RGB").save(path)
    return path


@pytest.mark.slow
def test_explain_in_place_again_and_again(capsys):
    for name in ("a.png", "b.jpg", "._b.jpg", "a_region-cam_2.png"):
        photo(f"photos/{name}")
    os.mkfifo("photos/pipe.png")
    before = everything("photos")
    command = ["explain", "photos", *EXPLAIN, "--output", "photos", "--overlay", "--save-npy"]
    for target in ("0", "0", "1"):
        assert run(*command, "--target", target) == 0
        assert unchanged(before, Path("photos"))
        assert explained(Path("photos")) == ["a_cam.png", "a_region-cam_2_cam.png", "b_cam.png"]
    capsys.readouterr()
    assert run(*command, "--target", "2") == 2
    says = (
        "--output photos: has a_region-cam_2.png, which this package did not write. Move it, or choose another folder."
    )
    assert says in capsys.readouterr().err
    assert unchanged(before, Path("photos"))
    arrays = [name for name in everything("photos") if name.endswith(".npy")]
    assert arrays == ["a_cam.npy", "a_region-cam_2_cam.npy", "b_cam.npy"]


def test_an_input_is_never_an_output():
    """Even one that this package wrote itself."""
    photo("a.png")
    command = [*EXPLAIN, "--overlay", "--target", "0"]
    assert run("explain", "a.png", *command) == 0
    before = everything(".")
    assert run("explain", "a.png", "a_region-cam_0.png", *command) == 1
    assert everything(".")["a_region-cam_0.png"] == before["a_region-cam_0.png"]
    before = everything(".")
    os.symlink("a_cam.png", "linked.png")
    assert run("explain", "a.png", "linked.png", *command[:-3], "--target", "1") == 0
    assert everything(".")["a_cam.png"] == before["a_cam.png"]


def test_explain_leaves_somebody_s_manifest_alone(capsys):
    photo("a.png")
    Path("manifest.json").write_text('{"name": "an app"}')
    before = everything(".")
    assert run("explain", "a.png", *EXPLAIN) == 2
    assert "--output .: has manifest.json, which this package did not write. Move it" in capsys.readouterr().err
    assert everything(".") == before
    assert run("explain", "a.png", *EXPLAIN, "--output", "out") == 0
    assert unchanged(before, Path())


def test_explain_pictures_below_several_folders_are_known_as_such():
    photo("x/a.png")
    photo("y/b.png")
    assert run("explain", "x", "y", *EXPLAIN) == 0
    assert {path.name for path in written_below(Path("x"))} == {"a_cam.png"}
    assert run("explain", "x", "y", *EXPLAIN) == 0
    assert (explained(Path("x")), explained(Path("y"))) == (["a_cam.png"], ["b_cam.png"])


def test_names_of_255_bytes():
    names = ["é" * 125 + ".png", "é" * 124 + "e.png", "x" * 251 + ".png"]
    for name in names:
        photo(f"photos/{name}")
    command = ["explain", "photos", *EXPLAIN, "--output", "out", "--overlay", "--save-npy", "--target", "0"]
    assert run(*command) == 0
    written = os.listdir("out")
    assert len([name for name in written if name.endswith("_cam.png")]) == 3
    assert len([name for name in written if name.endswith("_region-cam_0.png")]) == 3
    assert max(len(os.fsencode(name)) for name in written) <= 255
    assert fits("é" * 125, "_cam.png") == "é" * 119 + f"~{hashlib.sha256(('é' * 125).encode()).hexdigest()[:8]}_cam.png"
    assert fits("short", "_cam.png") == "short_cam.png"


EVALUATE = ["evaluate", "folder", "--root", "data", *MODEL, "--size", "32"]


@pytest.mark.slow
def test_json_and_plot_replace_only_their_own(capsys):
    make_folder(Path("data"))
    Path("notes.json").write_text("[]")
    Path("plot.png").write_bytes(b"a picture")
    before = everything(".")
    for option, file in (("--json", "notes.json"), ("--plot", "plot.png"), ("--json", RECORD), ("--json", "/proc/x")):
        assert run(*EVALUATE, option, file) == 2
        assert f"error: {file}: " in capsys.readouterr().err
    assert everything(".") == before
    Path("made").mkdir()
    Path("link.json").symlink_to("made/scores.json")
    plots = [f"made/plot.{ending}" for ending in ("png", "pdf", "svg", "jpg")]
    for plot in plots:
        for _ in range(2):  # its own files, it replaces
            assert run(*EVALUATE, "--json", "link.json", "--plot", plot) == 0
            Path("made/scores.json").chmod(0o600)
    assert Path("link.json").is_symlink()
    assert stat.S_IMODE(Path("made/scores.json").stat().st_mode) == 0o600
    assert sorted(os.listdir("made")) == sorted(["scores.json", *(Path(plot).name for plot in plots)])
    Path("made/scores.json").chmod(0o400)
    assert run(*EVALUATE, "--json", "link.json") == 2
    assert "link.json: is write-protected" in capsys.readouterr().err
    os.mkfifo("fifo")
    read = []
    reader = threading.Thread(target=lambda: read.append(Path("fifo").read_text()))
    reader.start()
    assert run(*EVALUATE, "--json", "fifo") == 0
    reader.join(20)
    assert json.loads(read[0])["region-cam"]["photos"] == 4
    assert unchanged(before, Path())


def test_provenance(seeds):
    torch.save(ColourNet(20).state_dict(), "net.pth")
    root = make_voc(Path("other"))
    command = ["voc", "--root", root, *VOC_MODEL, *SMALL, "--weights", "net.pth"]
    assert run("seeds", *command, "--output", "out", "--limit", "2") == 0
    assert run("seeds", *command, "--output", "out", "--resume") == 0
    assert run("evaluate", *command, "--json", "scores.json") == 0
    photo("a.png")
    assert run("explain", "a.png", *EXPLAIN, "--weights", "none", "--output", "maps") == 0
    content = json.loads(Path("out", RECORD).read_text())
    assert content["format"] == 1
    [one] = content["runs"]
    assert sorted(one["results"]) == [f"{name}.npy" for name in NAMES]
    assert [session["photos"] for session in one["sessions"]] == [2, 4]
    digest = hashlib.sha256(Path("net.pth").read_bytes()).hexdigest()
    of_scores = json.loads(Path("scores.json").read_text())["provenance"]
    for found in (*one["sessions"], of_scores):
        assert found["versions"]["captum_regioncam"] == captum_regioncam.__version__
        assert found["versions"]["torch"] == torch.__version__
        assert found["versions"]["numpy"] == np.__version__
        assert found["versions"].keys() >= {"captum"}
        assert found["command_line"][0] == "captum-regioncam"
        assert found["command_line"][1:3] in (["seeds", "voc"], ["evaluate", "voc"])
        assert found["model"] == "colour_factory:voc_net"
        assert len(found["checkpoint"].pop("state_dict_sha256")) == 64
        assert found["checkpoint"] == {"name": "net.pth", "sha256": digest}
        assert (found["dataset"], found["split"]) == ("voc", "train")
        assert found["layers"] == ["relu1", "relu2"]
        assert (found["precision"], found["device"]) == ("float32", "cpu")
        assert found["settings"]["scales"] == [1.0, 0.5]
        assert found["date"].startswith("20")
        assert found["seconds"] >= 0
    assert of_scores["photos"] == 6
    manifest = json.loads(Path("maps/manifest.json").read_text())
    assert manifest["checkpoint"]["name"] == "random weights (none)"
    assert len(manifest["checkpoint"]["state_dict_sha256"]) == 64
    assert manifest["photos"] == 1


def test_a_full_disk_ends_the_run_within_one_photo(seeds, capsys):
    command = ["seeds", "voc", "--root", seeds, *VOC_MODEL, *SMALL]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    smallest = min(path.stat().st_size for path in Path("work/seeds").glob("*.npy"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (smallest, hard))  # the photos with two classes do not fit
    try:
        assert run(*command, "--output", "full") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines = [line for line in capsys.readouterr().err.splitlines() if "captum-regioncam" in line]
    assert len(lines) == 1
    assert "cannot be written (File too large)" in lines[0]
    assert lines[0].endswith("Run the same command with --resume to continue from here.")
    written = sorted(Path("full").glob("*.npy"))
    assert len(written) < 6
    assert {name for run in Record.read(Path("full")).runs for name in run.results} == {path.name for path in written}
    assert run(*command, "--output", "full", "--resume") == 0
    for path in Path("work/seeds").glob("*.npy"):
        assert Path("full", path.name).read_bytes() == path.read_bytes()
    assert sorted(name for name in os.listdir("full") if name.startswith(".")) == [RECORD, ".captum_regioncam.lock"]


def test_a_folder_that_cannot_be_written_is_found_before_the_first_photo(seeds, capsys, monkeypatch):
    loaded = []
    monkeypatch.setattr("captum_regioncam.evaluation.photo_maps.PhotoReader.__call__", lambda *_: loaded.append(1))
    Path("file").write_text("")
    for arguments in (
        ["seeds", "voc", "--root", seeds, *VOC_MODEL, *SMALL, "--output", "/proc/seeds"],
        ["labels", "work/seeds", "--output", "/proc/labels"],
        ["labels", "work/seeds", "--output", "file/labels"],
        ["evaluate", "voc", "--root", seeds, *VOC_MODEL, *SMALL, "--json", "/proc/scores.json"],
        ["explain", "data", *EXPLAIN, "--output", "/proc/maps"],
        ["demo", "--output", "/proc/demo.png"],
    ):
        photo("data/a.png")
        assert run(*arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert "/proc/" in lines[-1] or "file/labels" in lines[-1]
        assert "cannot be written" in lines[-1]
    assert not loaded


def test_counts_of_another_index_are_not_added(capsys, monkeypatch):
    root = make_folder(Path("data"), photos=6)
    stopped_before_the_scores(monkeypatch, *EVALUATE)
    entries = json.loads((root / "index.json").read_text())
    for entry in entries:
        entry["target"] = (entry["target"] + 1) % 3
    (root / "index.json").write_text(json.dumps(entries))
    assert run(*EVALUATE, "--resume", "--json", "resumed.json") == 0
    assert "0 photos are already counted." in capsys.readouterr().err
    assert run(*EVALUATE, "--json", "anew.json") == 0
    assert scores_in("resumed.json") == scores_in("anew.json")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'{"format": 2, "runs": []}', b'{"format": 1, "runs": 3}', b"[" * 100_000,
        b'{"format": 1, "runs": [{"command": "seeds", "settings": {}, "results": {"../x": [[1, 2, ""]]}}]}',
        b'{"format": 1, "runs": [{"command": "seeds", "settings": {}, "results": {"/x": [[1, 2, ""]]}}]}',
        b'{"format": 1, "runs": [{"command": "seeds", "settings": {}, "results": {"x": [1]}}]}',
        b'{"format": 1, "runs": [{"command": "seeds", "settings": {}, "writing": {"token": "../x"}}]}',
        b'{"format": 1, "runs": [{"command": "seeds", "settings": {}, "more": 1}]}',
        b'{"format": 1, "runs": [{"command": 1, "settings": {}}]}',
        b'{"format": 1, "runs": [{"command": "seeds", "settings": {}, "results": {"x": [[1e999, 2, ""]]}}]}',
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_left_and_named(content, seeds, capsys):
    Path("out").mkdir()
    Path("out", RECORD).write_bytes(content)
    before = everything("out")
    assert run("labels", "work/seeds", "--output", "out") == 2
    assert f"out/{RECORD}: is not a record that this package can read" in capsys.readouterr().err
    assert everything("out") == before


def test_a_record_that_is_no_file_and_a_lock_that_is_not_ours():
    Path("a").mkdir()
    os.mkfifo(f"a/{RECORD}")
    Path("b").mkdir()
    Path("b", RECORD).symlink_to("/etc/passwd")
    for folder in ("a", "b"):
        with pytest.raises(ValueError, match="is not a record"):
            Record.read(Path(folder))
    Path("c").mkdir()
    Path("c/.captum_regioncam.lock").write_text("mine")
    with pytest.raises(ValueError, match="is not this package's"), locked(Path("c"), "output"):
        pass
    assert Path("c/.captum_regioncam.lock").read_text() == "mine"


def test_the_journal_of_a_killed_process():
    """What it noted last may never have appeared, or only in part been noted."""
    folder = Path("out")
    folder.mkdir()
    record = Record(folder, [])
    token = record.begin(Run("seeds", {}), {}, processes=2)
    writers = [Writer(folder, token, rank) for rank in (0, 1)]
    writers[0].write("sub/a.npy", b"a")
    writers[1].write("b.npy", b"b")
    journal = folder / f".captum_regioncam-{token}-1.jsonl"
    with journal.open("a") as file:
        file.write('["never appeared.npy", 5, 6, "aa"]\n5\n["x", 1e999, 1, ""]\n["half')
    (folder / f".captum_regioncam-{token}-1.tmp").write_bytes(b"half")
    (folder / f".captum_regioncam-{token}-2.tmp").write_bytes(b"not of this session's processes")
    record = Record.read(folder)
    listing = record.listing()
    names = ("sub/a.npy", "b.npy", "never appeared.npy", "half")
    assert [name for name in names if record.is_ours(name, listing)] == ["sub/a.npy", "b.npy"]
    token = record.begin(record.runs[0], {})
    assert not journal.exists()
    assert sorted(path.name for path in folder.glob(".*-*")) == [path.name for path in folder.glob(".*-2.tmp")]
    writer = Writer(folder, token, stamps={"b.npy": record.listing()["b.npy"]})
    writer.write("b.npy", b"anew")
    with pytest.raises(ValueError, match=r"sub/a\.npy: is a file that this command did not write; it stays as it is"):
        writer.write("sub/a.npy", b"anew")
    (folder / "b.npy").write_bytes(b"somebody's")
    with pytest.raises(ValueError, match="did not write"):
        writer.write("b.npy", b"anew")
    (folder / "sub" / "c.npy").mkdir()
    with pytest.raises(ValueError, match="did not write"):
        writer.write("sub/c.npy", b"anew")
    Record.read(folder).end(token)
    assert Record.read(folder).runs[0].results.keys() == {"sub/a.npy", "b.npy", "never appeared.npy"}


def test_a_process_that_was_killed_before_its_first_result_leaves_nothing():
    folder = Path("out")
    folder.mkdir()
    token = Record(folder, []).begin(Run("seeds", {}), {})
    (folder / f".captum_regioncam-{token}-0.jsonl").write_text('["a.npy", 1, 2, ""]\n')  # noted, but not there yet
    (folder / f".captum_regioncam-{token}-0.tmp").write_bytes(b"a")
    again = ResultFolder("output", folder, "seeds", {"scale": 2}, ["a.npy"])
    with held([again], Worker(), {}, resume=False) as [results]:
        results.write("a.npy", b"b")
    assert sorted(os.listdir("out")) == [RECORD, ".captum_regioncam.lock", "a.npy"]
    assert [run.settings for run in Record.read(folder).runs] == [{"scale": 2}]


def test_a_file_system_without_hard_links(monkeypatch):
    def none(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    Path("sub").mkdir()
    writer = Writer(Path(), "aa")
    writer.write("a.npy", b"a")
    writer.write("a.npy", b"b")
    assert Path("a.npy").read_bytes() == b"b"
    with pytest.raises(ValueError, match="did not write"):
        Writer(Path(), "bb").write("a.npy", b"c")


def test_a_file_that_appears_at_the_last_moment_stays(monkeypatch):
    link = os.link

    def later(source, target):
        Path(target).write_bytes(b"somebody's")
        link(source, target)

    monkeypatch.setattr(os, "link", later)
    with pytest.raises(ValueError, match="did not write"):
        Writer(Path(), "aa").write("a.npy", b"a")
    assert Path("a.npy").read_bytes() == b"somebody's"


def test_runs_that_are_alive_keep_their_journals():
    Path("out").mkdir()
    record = Record(Path("out"), [])
    first = record.begin(Run("explain", {}), {})
    Writer(Path("out"), first).write("a.png", b"a")
    other = Record.read(Path("out"))
    second = other.begin(Run("explain", {}), {})
    Writer(Path("out"), first).write("b.png", b"b")
    Record.read(Path("out")).end(second)
    Record.read(Path("out")).end(first)
    record = Record.read(Path("out"))
    assert sorted(record.runs[0].results) == ["a.png", "b.png"]
    for seconds, alive in ((60, True), (1e6, False)):
        assert Session("a", 1, "elsewhere", 1, int(time.time() - seconds)).is_alive() is alive
    record.remove(record.runs[0])
    record.runs.clear()
    record.save()
    assert sorted(os.listdir("out")) == []


def test_writing_where_the_folder_is_gone():
    with pytest.raises(OutputError, match="cannot be written"):
        Writer(Path("/proc/nowhere"), "aa").write("a.npy", b"a")


@pytest.mark.slow
def test_seeds_killed_at_any_step_on_disk_are_completed(seeds, killed, chance):
    """Whatever was under way, --resume completes the folder as if nothing had happened."""
    whole = {path.name: path.read_bytes() for path in Path("work/seeds").glob("*.npy")}
    command = list(map(str, ["seeds", "voc", "--root", seeds, *VOC_MODEL, *SMALL, "--output"]))
    status, _ = killed(".", [*command, "counted"], 10**6)
    assert status == 0
    for step in sorted(chance.sample(range(1, 55), 14)):
        output = f"seeds-{step}"
        status, _ = killed(".", [*command, output], step)
        assert status == 137
        status, printed = killed(".", [*command, output, "--resume"], None)
        assert status == 0, (step, printed)
        assert {path.name: path.read_bytes() for path in Path(output).glob("*.npy")} == whole
        hidden = sorted(name for name in os.listdir(output) if name.startswith("."))
        assert [name for name in hidden if name.endswith((".tmp", ".jsonl"))] == []
        assert sorted(Record.read(Path(output)).runs[0].results) == sorted(whole)


@pytest.mark.slow
def test_label_maps_and_explanations_killed_at_any_step_are_completed(seeds, killed, chance):
    command = ["labels", "work/seeds", "--output", "maps", "--overlay", "over", "--threshold"]
    assert killed(".", [*command, "0.3"], None)[0] == 0
    assert killed(".", [*command, "0.4"], None)[0] == 0
    whole = {path.name: path.read_bytes() for path in Path("maps").glob("*.png")}
    for step in sorted(chance.sample(range(1, 90), 8)):
        assert killed(".", [*command, "0.3"], None)[0] == 0
        killed(".", [*command, "0.4"], step)
        status, printed = killed(".", [*command, "0.4", "--resume"], None)
        assert status == 0, (step, printed)
        assert {path.name: path.read_bytes() for path in Path("maps").glob("*.png")} == whole
    photo("photos/a.png")
    explain = ["explain", "photos", *EXPLAIN, "--output", "pictures"]
    for step in sorted(chance.sample(range(1, 25), 6)):
        killed(".", explain, step)
        status, printed = killed(".", explain, None)
        assert status == 0, (step, printed)
        assert explained(Path("pictures")) == ["a_cam.png"]


def test_a_copied_folder_is_known_by_its_content(seeds, capsys):
    shutil.copytree("work/seeds", "copy", copy_function=shutil.copyfile)  # without times
    command = ["seeds", "voc", "--root", seeds, *VOC_MODEL, *SMALL, "--output", "copy"]
    Path(f"copy/{NAMES[0]}.npy").unlink()
    capsys.readouterr()
    assert run(*command, "--resume") == 0
    assert "1/1" in capsys.readouterr().err
    assert run("labels", "work/seeds", "--output", "maps", "--threshold", "0.3") == 0
    shutil.copytree("maps", "copied", copy_function=shutil.copyfile)
    assert run("labels", "work/seeds", "--output", "copied", "--threshold", "0.4") == 0


def test_nothing_is_removed_before_all_folders_are_checked(seeds, capsys):
    assert run("labels", "work/seeds", "--output", "maps") == 0
    before = everything("maps")
    Path("theirs").mkdir()
    Path(f"theirs/{NAMES[3]}.png").write_bytes(b"somebody's")
    assert run("labels", "work/seeds", "--output", "maps", "--threshold", "0.4", "--overlay", "theirs") == 2
    assert everything("maps") == before
    made = []
    command = ["seeds", "voc", "--root", seeds, *VOC_MODEL, *SMALL, "--output", "new", "--label-maps", "theirs"]
    assert run(*command) == 2
    assert f"--label-maps theirs: has {NAMES[3]}.png, which this package did not write" in capsys.readouterr().err
    assert not Path("new").exists()
    assert made == []


def test_explain_commands_in_one_folder_at_a_time(monkeypatch):
    for name in ("a.png", "b.png"):
        photo(name)
    command = ["explain", "a.png", *EXPLAIN, "--output", "maps"]
    encode, ran = explaining.encode_figure, []

    def meanwhile(figure, path):
        if not ran:
            ran.append(None)
            ran[0] = run("explain", "a.png", "b.png", *EXPLAIN, "--output", "maps", "--target", "1")
        return encode(figure, path)

    with monkeypatch.context() as patched:
        patched.setattr(explaining, "encode_figure", meanwhile)
        assert run(*command) == 1  # the other command was faster with a_cam.png
    assert ran == [0]
    assert explained(Path("maps")) == ["a_cam.png", "b_cam.png"]
    assert run(*command) == 0
    assert run("explain", "b.png", *EXPLAIN, "--output", "maps") == 0


def test_label_maps_of_other_settings_never_pass_for_these(seeds):
    assert run("labels", "work/seeds", "--output", "maps", "--threshold", "0.1") == 0
    of_now, kept = Path(f"maps/{NAMES[1]}.png"), Path("kept.png")
    of_now.rename(kept)
    of_now.write_bytes(b"a draft")
    assert run("labels", "work/seeds", "--output", "maps", "--threshold", "0.6") == 1
    kept.rename(of_now)
    assert run("labels", "work/seeds", "--output", "maps", "--threshold", "0.6", "--resume") == 1  # it stays as it is
    of_now.unlink()
    assert run("labels", "work/seeds", "--output", "maps", "--threshold", "0.6", "--resume") == 0
    save_seed(f"work/seeds/{NAMES[2]}.npy", load_seed(f"work/seeds/{NAMES[3]}.npy"))  # newer than its label map
    before = Path(f"maps/{NAMES[2]}.png").read_bytes()
    assert run("labels", "work/seeds", "--output", "maps", "--threshold", "0.6", "--resume") == 0
    assert Path(f"maps/{NAMES[2]}.png").read_bytes() == Path(f"maps/{NAMES[3]}.png").read_bytes() != before


def test_seeds_are_not_continued_with_another_checkpoint_of_the_factory_s(seeds, capsys):
    Path("own_net.py").write_text(
        "import torch\nfrom made_datasets import ColourNet\n"
        "def net():\n    model = ColourNet(20)\n    model.load_state_dict(torch.load('own.pth'))\n    return model\n"
    )
    command = ["seeds", "voc", "--root", seeds, "--model", "own_net:net", "--layers", "relu1,relu2", *SMALL]
    for scale in (1, 2):
        torch.save({name: scale * value for name, value in ColourNet(20).state_dict().items()}, "own.pth")
        assert run(*command, "--output", "own", "--resume", "--limit", "3") == (0 if scale == 1 else 2)
    assert "own: was made with checkpoint = " in capsys.readouterr().err


def test_links_and_write_protected_results_stay(seeds):
    Path("home").mkdir()
    precious = Path("home/precious.png")
    precious.write_bytes(b"precious")
    assert run("labels", "work/seeds", "--output", "maps") == 0
    record = Record.read(Path("maps"))
    listed = [precious.stat().st_size, precious.stat().st_mtime_ns, ""]
    record.runs[0].results["sub/precious.png"] = [tuple(listed)]
    record.save()
    Path("maps/sub").symlink_to("../home")
    protected = Path(f"maps/{NAMES[0]}.png")
    protected.chmod(0o444)
    before = protected.read_bytes()
    assert run("labels", "work/seeds", "--output", "maps", "--threshold", "0.5") == 1
    assert precious.read_bytes() == b"precious"
    assert protected.read_bytes() == before


def test_a_record_that_is_removed_meanwhile(seeds, capsys, monkeypatch):
    do = seeding.run

    def removed(*arguments, **options):
        result = do(*arguments, **options)
        Path("out", RECORD).unlink()
        return result

    monkeypatch.setattr(seeding, "run", removed)
    assert run("seeds", "voc", "--root", seeds, *VOC_MODEL, *SMALL, "--output", "out") == 2
    assert "out: its record .captum_regioncam.json was removed meanwhile." in capsys.readouterr().err
