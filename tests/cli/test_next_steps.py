"""What the commands print at their end: how long they took, and a command that works."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from commands import MODEL, VOC_MODEL, run
from made_datasets import NAMES, make_coco, make_folder, make_ilsvrc, make_voc

from captum_regioncam.evaluation import Cub200, OpenImages30k, PhotoFolder, Voc2012
from captum_regioncam.evaluation.seeds.reading import named_data

pytestmark = pytest.mark.usefixtures("colour_factory")
FOLDER = [*MODEL, "--size", "32"]
PACE = r"{} photos? in [0-9.]+ s, [0-9.]+ photos per second\."


@pytest.fixture
def last(capsys):
    """Run a command, and return the lines that it prints to stdout."""

    def lines(*arguments, expect=0):
        assert run(*arguments) == expect
        return capsys.readouterr().out.splitlines()

    return lines


def follow(line):
    """Run the command that a line names."""
    start, _, command = line.partition(": ")
    assert start == "Next"
    name, *arguments = shlex.split(command)
    assert name == "captum-regioncam"
    return run(*arguments)


def test_from_seeds_to_scored_label_maps(last):
    make_folder(Path("my data"), photos=2)
    seeds = last("seeds", "folder", "--root", "my data", *FOLDER, "--output", "seeds")
    assert re.fullmatch(PACE.format(2), seeds[-2])
    assert seeds[-1] == "Next: captum-regioncam evaluate folder --root 'my data' --seeds seeds"
    scores = last(*shlex.split(seeds[-1])[2:])
    assert re.fullmatch(PACE.format(2), scores[-2])
    [threshold] = re.findall(r"seeds in seeds │ +[0-9.]+ │ +[0-9.]+ │ +([0-9.]+) │", "\n".join(scores))
    threshold = threshold if float(threshold) < 1 else "best"
    assert scores[-1] == f"Next: captum-regioncam label-maps seeds --output labels --threshold {threshold}"
    labels = last(*shlex.split(scores[-1])[2:])
    assert re.fullmatch(PACE.format(2), labels[-2])
    assert labels[-1] == "Next: captum-regioncam evaluate folder --root 'my data' --label-maps labels"
    of_labels = last(*shlex.split(labels[-1])[2:])
    assert re.fullmatch(PACE.format(2), of_labels[-1])
    assert last(*shlex.split(scores[-1])[2:], "--resume") == [labels[0], labels[-1]]  # nothing was left to do


def test_without_masks_seeds_are_cut(last, capsys):
    shutil.rmtree(make_folder(Path("data"), photos=2) / "masks")
    seeds = ["seeds", "folder", "--root", "data", *FOLDER, "--output", "seeds"]
    line = last(*seeds)[-1]
    assert line == "Next: captum-regioncam label-maps seeds --output labels"
    assert follow(line) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("photos per second.")
    both = last(*seeds[:-1], "both", "--label-maps", "cut")
    assert "Next" not in "".join(both)
    shard = last(*seeds[:-1], "shards", "--shard", "1/2", "--batch", "1")[-1]
    assert shard == "Next when all shards are there: captum-regioncam label-maps shards --output labels"
    assert run("evaluate", "folder", "--root", "data", "--seeds", "seeds") == 2
    assert capsys.readouterr().err == (
        "captum-regioncam evaluate: error: --root: data: has no masks. Scores need masks/NAME.png.\n"
    )
    for options in (["--threshold", "best"], ["--crf", "irn", "--confident", "best"]):
        assert run("label-maps", "seeds", "--output", "best", *options) == 2
        error = capsys.readouterr().err
        assert f"{Path('data').resolve()}: has no masks. Scores need masks/NAME.png. Without masks, give a " in error
        assert error.endswith("give a number instead of 'best'.\n")


def test_the_same_photos_and_masks_are_named(last):
    voc, coco = make_voc(Path("voc")), make_coco(Path("coco"))
    shutil.rmtree(voc / "Annotations")
    of_mask = ["--root", voc, "--split", "train", "--labels-from", "mask", "--limit", "2"]
    line = last("seeds", "voc", *of_mask, *VOC_MODEL, "--scales", "1", "--output", "seeds")[-1]
    assert line == f"Next: captum-regioncam evaluate voc --root {voc} --labels-from mask --limit 2 --seeds seeds"
    assert follow(line) == 0
    line = last("label-maps", "seeds", "--output", "labels")[-1]
    assert line == f"Next: captum-regioncam evaluate voc --root {voc} --labels-from mask --limit 2 --label-maps labels"
    assert follow(line) == 0
    seeds = ["seeds", "coco", "--root", coco, "--crowds", "ignore", *MODEL, "--scales", "1", "--output", "of_coco"]
    line = last(*seeds)[-1]
    assert line == "Next: captum-regioncam evaluate coco --root coco --crowds ignore --seeds of_coco"
    assert follow(line) == 0
    line = last("label-maps", "of_coco", "--output", "of_coco/labels")[-1]
    assert line == "Next: captum-regioncam evaluate coco --root coco --crowds ignore --label-maps of_coco/labels"
    assert follow(line) == 0
    assert "Next" not in "".join(last("label-maps", "of_coco", "--output", "first", "--limit", "1"))


def test_the_best_of_several_seeds_goes_on(last, capsys):
    make_folder(Path("data"), photos=2)
    for name, method in (("one", "region-cam"), ("two", "layer-cam")):
        assert run("seeds", "folder", "--root", "data", *FOLDER, "--method", method, "--output", name) == 0
    capsys.readouterr()
    lines = last("evaluate", "folder", "--root", "data", "--seeds", "one", "two", "--refine")
    scores = re.findall(r"seeds in (one|two) │ +[0-9.]+ │ +([0-9.]+) │ +([0-9.]+) │", "\n".join(lines))
    name, _, threshold = max(scores, key=lambda row: float(row[1]))
    threshold = threshold if float(threshold) < 1 else "best"
    assert lines[-1] == f"Next: captum-regioncam label-maps {name} --refine --output labels --threshold {threshold}"
    assert follow(lines[-1]) == 0


def test_nothing_follows_where_nothing_can(last, capsys):
    make_ilsvrc(Path("ilsvrc"))
    line = last("seeds", "ilsvrc", "--root", "ilsvrc", *FOLDER, "--output", "maps")[-1]
    assert line == "Next: captum-regioncam evaluate ilsvrc --root ilsvrc --seeds maps"
    assert re.fullmatch(PACE.format(4), last(*shlex.split(line)[2:])[-1])
    make_folder(Path("data"), photos=2)
    last("seeds", "folder", "--root", "data", *FOLDER, "--output", "seeds")
    assert "Next" not in "".join(last("label-maps", "seeds", "--output", "sure", "--crf", "toco", "--confident"))
    assert "Next" not in "".join(last("evaluate", "folder", "--root", "data", *FOLDER))
    shutil.rmtree("data")
    lines = last("label-maps", "seeds", "--output", "labels")
    assert lines[0] == "2 label maps at 0.15 in labels"
    assert re.fullmatch(PACE.format(2), lines[-1])


def test_stdout_is_left_to_files(capfd):
    make_folder(Path("data"), photos=1)
    assert run("seeds", "folder", "--root", "data", *FOLDER, "--output", "seeds") == 0
    capfd.readouterr()
    assert run("evaluate", "folder", "--root", "data", "--seeds", "seeds", "--json", "/dev/stdout") == 0
    out, err = capfd.readouterr()
    assert "photos per second" not in out
    assert "Next" not in out
    assert re.search(PACE.format(1) + "\nNext: captum-regioncam label-maps seeds ", err)


def test_explain_tells_of_masks_once(last):
    make_folder(Path("data"), photos=1)
    command = ["explain", "data/images", *FOLDER, "--output", "out"]
    assert last(*command)[1:] == [
        "Next: add --masks to write masks, --boxes for boxes, or --overlay for each map over its photo."
    ]
    for option in ("--masks", "--boxes", "--overlay", "--save-npy"):
        assert len(last(*command, option)) == 1


def test_what_has_truth():
    folder = make_folder(Path("data"), photos=1)
    assert PhotoFolder(folder, ground_truth=False).has_truth
    shutil.rmtree(folder / "masks")
    assert not PhotoFolder(folder, ground_truth=False).has_truth
    voc = make_voc(Path("voc"))
    (voc / "ImageSets/Segmentation/test.txt").write_text("2008_000001\n")
    assert Voc2012(voc, "train", ground_truth=False).has_truth
    assert not Voc2012(voc, "test", ground_truth=False).has_truth
    for kind, split in ((Cub200, "val"), (OpenImages30k, "train")):
        home = Path("wsol/metadata") / kind.title / split
        home.mkdir(parents=True)
        (Path("wsol/dataset") / kind.title).mkdir(parents=True)
        (home / "image_ids.txt").write_text("1/a.jpg\n")
        (home / "class_labels.txt").write_text("1/a.jpg,3\n")
        assert not kind("wsol", split, ground_truth=False).has_truth
        for name in ("localization.txt", "image_sizes.txt"):
            (home / name).touch()
        assert kind("wsol", split, ground_truth=False).has_truth


def test_seeds_without_a_record_have_no_next_step(last):
    make_voc(Path("voc"))
    with pytest.raises(ValueError, match="has no record that names the photos"):
        named_data(Path("voc"))
    last("seeds", "voc", "--root", "voc", *VOC_MODEL, "--scales", "1", "--output", "seeds")
    Path("plain").mkdir()
    for name in NAMES:
        shutil.copy(f"seeds/{name}.npy", "plain")
    assert re.fullmatch(PACE.format(6), last("label-maps", "plain", "--output", "labels")[-1])
