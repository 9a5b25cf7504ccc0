"""``evaluate --label-maps`` and ``evaluate_label_maps``: any folder of label maps, and classes that the photos lack."""

import logging
from pathlib import Path

import numpy as np
import pytest
from commands import run, scores_in, stopped_before_the_scores
from made_datasets import NAMES, Shapes, colour_classifier, make_coco, make_folder, make_voc, shapes
from PIL import Image

from captum_regioncam.evaluation import (
    LabelMapMetric,
    evaluate,
    evaluate_label_maps,
    evaluate_seeds,
    open_dataset,
    save_label_map,
    write_label_maps,
    write_seeds,
)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def voc():
    return make_voc(Path("data"))


def prediction(index):
    """Label maps of a network that sees too much of everything, and once nothing."""
    labels = np.roll(shapes(index)[1] % 255, index + 1, axis=1)
    labels[:3, :4], labels[-1] = 20, 255
    return labels


@pytest.fixture
def labels():
    for index, name in enumerate(NAMES):
        save_label_map(f"labels/{name}.png", prediction(index))


def figures(*arguments, expect=0):
    assert run("evaluate", *arguments, "--json", "out.json") == expect
    return scores_in("out.json")


@pytest.mark.usefixtures("labels")
def test_scores_are_the_metric_s(voc, capsys):
    result = figures("voc", "--root", voc, "--label-maps", "labels")["label maps in labels"]
    out = capsys.readouterr().out
    metric = LabelMapMetric(20)
    for index in range(6):
        metric.update(prediction(index), shapes(index)[1])
    expected = metric.compute()
    shares = {"miou", "pixel_accuracy", "precision", "recall", "fp", "fn", "fp_foreground", "fn_foreground"}
    for name in (*shares, "background_in_foreground", "unlabelled"):
        assert result[name] == pytest.approx(100 * float(expected[name]), abs=1e-9)
    of_bird = {of: result[f"per_class_{of}"]["bird"] for of in ("precision", "recall", "fp", "fn")}
    assert {"iou": result["per_class"]["bird"], **of_bird} == pytest.approx(
        {
            "iou": 100 * float(expected["per_class"][3]),
            **{of: 100 * float(expected[f"per_class_{of}"][3]) for of in ("precision", "recall", "fp", "fn")},
        }
    )
    assert list(result["per_class_recall"])[:2] == ["background", "aeroplane"]
    assert result["per_class"]["tvmonitor"] == 0  # predicted alone
    assert result["per_class"]["person"] is None
    assert result["confusion"] == expected["confusion"].tolist()
    assert (result["absent"], result["photos"], result["failed"]) == (17, 6, 0)
    assert "Scores (%) of label maps; 6 photos" in out
    assert all(column in out for column in ("mIoU", "accuracy", "precision", "recall", "FP", "FN", "absent", "255"))


@pytest.mark.usefixtures("labels")
def test_ways_to_count(voc, capsys):
    data = open_dataset("voc", voc)
    for absent, unlabelled, said in (
        ("zero", "missed", "label maps, 255 as missed, absent classes as 0;"),
        ("ignore-predicted", "ignored", "label maps, 255 left out, of the classes in the masks;"),
    ):
        options = ["--label-maps", "labels", "--absent", absent, "--unlabelled", unlabelled]
        result = figures("voc", "--root", voc, *options)["label maps in labels"]
        metric = LabelMapMetric(20, absent=absent, unlabelled=unlabelled)
        for index in range(6):
            metric.update(prediction(index), shapes(index)[1])
        assert result["miou"] == pytest.approx(100 * float(metric.compute()["miou"]), abs=1e-9)
        assert said in capsys.readouterr().out
        report = evaluate_label_maps("labels", data, absent=absent, unlabelled=unlabelled, show_progress=False)
        assert report.scores["label maps in labels"] == result
        assert (report.provenance["absent"], report.provenance["unlabelled"]) == (absent, unlabelled)


def test_label_maps_at_the_threshold_score_as_their_seeds():
    """One threshold, one mIoU: whether it is the seeds' or that of the label maps written of them."""
    data, classifier = Shapes(), colour_classifier()
    data.classes = (*Shapes.classes, "black")
    write_seeds(classifier, data, "seeds", layers=["relu1", "relu2"], show_progress=False)
    write_label_maps("seeds", "labels", threshold=0.3, data=data, show_progress=False)
    for absent in ("ignore", "zero"):
        of_seeds = evaluate_seeds("seeds", data, threshold=0.3, absent=absent, show_progress=False).scores
        of_maps = evaluate_label_maps("labels", data, absent=absent, show_progress=False).scores
        assert of_maps["label maps in labels"]["miou"] == pytest.approx(of_seeds["seeds in seeds"]["miou"], abs=1e-9)
        assert of_maps["label maps in labels"]["per_class"] == of_seeds["seeds in seeds"]["per_class"]


def test_methods_and_seeds_say_how_many_classes_are_absent():
    data, classifier = Shapes(), colour_classifier()
    data.classes = (*Shapes.classes, "black")
    reports = {
        absent: evaluate(
            classifier, data, ["grad-cam"], layers=["relu2"], threshold=0.3, absent=absent, show_progress=False
        )
        for absent in ("ignore", "zero")
    }
    ignore, zero = (report.scores["grad-cam"] for report in reports.values())
    assert ignore["absent"] == zero["absent"] == 1
    for score in ("miou", "best_miou"):
        assert zero[score] == pytest.approx(ignore[score] * 4 / 5)
    assert (ignore["per_class"]["black"], zero["per_class"]["black"]) == (None, 0)
    assert "at the best, absent classes as 0; 3 photos" in reports["zero"].table()
    assert "absent" in reports["ignore"].table()
    assert reports["zero"].provenance["absent"] == "zero"
    with pytest.raises(ValueError, match="absent='none': expects one of ignore"):
        evaluate(classifier, data, ["grad-cam"], layers=["relu2"], absent="none", show_progress=False)
    write_seeds(classifier, data, "seeds", method="grad-cam", layers=["relu2"], show_progress=False)
    [of_seeds] = evaluate_seeds("seeds", data, threshold=0.3, absent="zero", show_progress=False).scores.values()
    assert of_seeds["absent"] == 1
    assert of_seeds["per_class"]["black"] == 0


def test_grey_and_indexed_maps_count_alike(voc):
    for index, name in enumerate(NAMES):
        save_label_map(f"palette/{name}.png", prediction(index))
        Path("grey").mkdir(exist_ok=True)
        Image.fromarray(prediction(index)).save(f"grey/{name}.png")
    one, other = (
        figures("voc", "--root", voc, "--label-maps", folder)[f"label maps in {folder}"]
        for folder in ("palette", "grey")
    )
    assert one == other


@pytest.mark.usefixtures("labels")
def test_files_that_cannot_be_scored(voc, capsys):
    Path(f"labels/{NAMES[0]}.png").unlink()
    with Image.open(f"labels/{NAMES[1]}.png") as image:
        image.convert("RGB").save(f"labels/{NAMES[1]}.png")
    save_label_map(f"labels/{NAMES[2]}.png", prediction(2)[1:])
    save_label_map(f"labels/{NAMES[3]}.png", prediction(3) + 1)
    result = figures("voc", "--root", voc, "--label-maps", "labels", expect=1)["label maps in labels"]
    err = capsys.readouterr().err
    assert "4 of 6 photos failed and were left out" in err
    assert f"{NAMES[0]}.png: cannot be read" in err
    assert f"{NAMES[1]}.png: a label map has one number per pixel; this is RGB. Save the labels as an indexed or" in err
    assert f"{NAMES[2]}.png: has 60 x 43 pixels; its ground truth has 60 x 44." in err
    assert f"{NAMES[3]}.png: label 21 is neither from 0 to 20 nor 255." in err
    assert (result["photos"], result["failed"]) == (2, 4)
    for path in Path("labels").glob("*.png"):
        path.unlink()
    assert run("evaluate", "voc", "--root", voc, "--label-maps", "labels") == 2
    assert "all photos failed, one of them with: labels" in capsys.readouterr().err


def test_an_interrupted_run_is_resumed(voc, labels, monkeypatch):
    command = ["evaluate", "voc", "--root", voc, "--label-maps", "labels"]
    stopped_before_the_scores(monkeypatch, *command)
    assert run(*command) == 2
    # The counts are the same, whatever the means make of them.
    result = figures(*command[1:], "--absent", "zero", "--resume")
    assert result == figures(*command[1:], "--absent", "zero")
    stopped_before_the_scores(monkeypatch, *command)
    save_label_map(f"labels/{NAMES[0]}.png", prediction(3))
    assert figures(*command[1:], "--absent", "zero") != result  # of other files


def test_coco_and_folder(caplog):
    make_coco(Path("coco"))
    for index in range(3):
        save_label_map(f"labels/COCO_val2014_{index:012d}.png", shapes(index)[1] % 255)
    save_label_map("labels/nothing.png", np.zeros((10, 20), np.uint8))
    data = open_dataset("coco", "coco")
    [result] = evaluate_label_maps("labels", data, show_progress=False).scores.values()
    assert result["photos"] == 4
    assert result["miou"] > 90
    root = make_folder(Path("photos"))
    data = open_dataset("folder", root)
    with caplog.at_level(logging.WARNING):
        [wrong] = evaluate_label_maps(root / "masks", data, show_progress=False).scores.values()
    assert "No pixel of the label maps has a class, but some are 255" in caplog.text
    assert wrong["per_class"]["foreground"] == 0
    for index in range(4):
        with Image.open(root / f"masks/photo_{index}.png") as mask:
            save_label_map(f"ones/photo_{index}.png", np.asarray(mask) // 255)
    [right] = evaluate_label_maps("ones", data, show_progress=False).scores.values()
    assert (right["miou"], right["absent"], right["unlabelled"]) == (100, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--label-maps", "nowhere"], "--label-maps nowhere: no such folder"),
        (["--label-maps", "data", "--seeds", "data"], "--seeds: cannot be used with --label-maps"),
        (["--label-maps", "data", "--threshold", "0.2"], "--threshold: cannot be used with --label-maps"),
        (["--label-maps", "data", "--refine"], "--refine: cannot be used with --label-maps"),
        (["--label-maps", "data", "--method", "cam"], "--method: cannot be used with --label-maps"),
        (["--label-maps", "data", "--plot", "a.png"], "--plot: cannot be used with --label-maps"),
        (["--unlabelled", "missed"], "--unlabelled: requires --label-maps"),
        (["--absent", "one"], "invalid choice: 'one'"),
    ],
)
def test_arguments_that_cannot_be(arguments, says, capsys):
    make_folder(Path("data"))
    assert run("evaluate", "folder", "--root", "data", *arguments) == 2
    assert says in capsys.readouterr().err


def test_no_such_folder():
    with pytest.raises(ValueError, match="label_maps='nowhere': no such folder"):
        evaluate_label_maps("nowhere", Shapes(), show_progress=False)
