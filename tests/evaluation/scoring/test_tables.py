"""Methods and seeds in one table; on the screen, as CSV and in LaTeX."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_datasets import ColourNet, Shapes, colour_classifier, everything, make_ilsvrc, shapes

from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation import (
    Classifier,
    LocalizationMetric,
    Report,
    SegmentationMetric,
    evaluate,
    evaluate_seeds,
    open_dataset,
    squash_boxes,
    write_seeds,
)

LAYERS = ["relu1", "relu2"]
QUIET = {"layers": LAYERS, "show_progress": False}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def classifier():
    return colour_classifier()


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_methods_and_several_folders_of_seeds_in_one_table(classifier):
    data = Shapes()
    write_seeds(classifier, data, "a/seeds", method="layer-cam", **QUIET)
    write_seeds(classifier, data, "b/seeds", method="grad-cam", format="psa", **QUIET)
    both = ["a/seeds", Path("b/seeds")]
    report = evaluate(classifier, data, ["layer-cam", "grad-cam"], seeds=both, **QUIET)
    scores = report.scores
    assert list(scores) == ["layer-cam", "grad-cam", "seeds in a/seeds", "seeds in b/seeds"]
    assert scores["seeds in a/seeds"] == scores["layer-cam"] != scores["grad-cam"] == scores["seeds in b/seeds"]
    assert [line.split("│")[1].strip() for line in report.table().splitlines() if line.startswith("│")] == [
        "LayerCAM", "Grad-CAM", "seeds in a/seeds", "seeds in b/seeds",
    ]  # fmt: skip
    assert report.provenance["seeds"]["seeds in b/seeds"]["made_of"]["method"] == "grad-cam"
    alone = evaluate_seeds({"ours": "a/seeds", "theirs": "b/seeds"}, data, show_progress=False)
    assert alone.scores == {"ours": scores["layer-cam"], "theirs": scores["grad-cam"]}
    Path("a/seeds/two.npy").unlink()
    left = evaluate(classifier, data, ["grad-cam"], seeds=both, **QUIET)  # all rows have the same photos
    assert list(left.failures) == ["two"]
    assert left.scores["grad-cam"] == left.scores["seeds in b/seeds"] != scores["grad-cam"]


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("nowhere", "seeds='nowhere': no such folder"),
        (["a", "./a"], "seeds='a': is given twice"),
        ([], "seeds: expects at least one folder"),
        ({"grad-cam": "a"}, "seeds: grad-cam is the name of a method, too"),
    ],
)
def test_seeds_that_cannot_be(seeds, message, classifier):
    Path("a").mkdir()
    with pytest.raises(ArgumentError, match=message):
        evaluate(classifier, Shapes(), ["grad-cam"], seeds=seeds, **QUIET)
    if not isinstance(seeds, dict):
        with pytest.raises(ArgumentError, match=message):
            evaluate_seeds(seeds, Shapes())


def test_seeds_are_of_whole_photos():
    Path("a").mkdir()
    cropping = Classifier(ColourNet().eval(), size=48, resize="crop")
    with pytest.raises(ArgumentError, match="resize='crop': the seeds are of whole photos"):
        evaluate(cropping, Shapes(), ["grad-cam"], seeds="a", **QUIET)


@pytest.mark.parametrize("name", ["{}.npy", "val/{}.JPEG.npy"])
def test_seeds_against_boxes(name):
    """As wsolevaluation reads them: maps of 224 x 224, named by image id."""
    data = open_dataset("ilsvrc", make_ilsvrc(Path("data"), photos=3))
    metric = LocalizationMetric(0.1)
    for index, photo in enumerate(data.names):
        cam = torch.zeros(224, 224)
        cam[20 + 10 * index : 150, 10:80] = 1
        path = Path("seeds", name.format(photo))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, cam.numpy())
        metric.update(cam, squash_boxes(data[index].boxes, (60, 44)))
    report = evaluate_seeds("seeds", data, step=0.1, show_progress=False)
    scores, expected = report.scores["seeds in seeds"], metric.compute()
    assert scores["max_box_acc_v2"] == pytest.approx(100 * float(expected["max_box_acc_v2"]))
    assert scores["gt_known"] == 100 * float(expected["gt_known"]) > 0
    assert "loc1" not in scores  # no network ranks the class
    assert "Loc1" not in report.table()
    model = Classifier(ColourNet().eval(), size=32)
    both = evaluate(model, data, ["grad-cam"], seeds={"ours": "seeds"}, step=0.1, **QUIET)
    assert both.scores["ours"] == scores
    assert both.scores["grad-cam"]["loc1"] is not None
    assert both.table().splitlines()[-2].split("│")[5:7] == ["    - ", "    - "]
    Path("seeds", name.format(data.names[1])).unlink()
    assert list(evaluate_seeds("seeds", data, step=0.1, show_progress=False).failures) == [data.names[1]]


def test_seeds_of_other_classes_have_no_box():
    data = open_dataset("ilsvrc", make_ilsvrc(Path("data"), photos=2))
    Path("seeds").mkdir()
    for name in data.names:
        np.save(f"seeds/{name}.npy", {key: np.ones((44, 60), np.float32) for key in (0, 1)}, allow_pickle=True)
    assert [data[index].keys for index in range(2)] == [[0], [0]]
    assert evaluate_seeds("seeds", data, refine=True, show_progress=False).scores["seeds in seeds"]["photos"] == 2
    np.save(f"seeds/{data.names[1]}.npy", {2: np.ones((44, 60), np.float32)}, allow_pickle=True)
    failures = evaluate_seeds("seeds", data, show_progress=False).failures
    assert failures == {data.names[1]: f"seeds/{data.names[1]}.npy: has no map of class 0."}


def test_tables_of_classes(classifier):
    report = evaluate(
        classifier, Shapes(), ["grad-cam"], csv="a.csv", latex="a.tex", per_class=True, threshold=0.3, **QUIET
    )
    scores = report.scores["grad-cam"]
    main, fixed, best = report.table(60, ascii=True, per_class=True).split("\n\n")
    assert main == report.table(60, ascii=True)
    assert fixed.splitlines()[0] == "IoU (%) at threshold 0.3"
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in best.splitlines() if line[0] == "|"]
    cells = [line for line in cells if not line[0].startswith("-")]
    assert cells[0] == ["class", "Grad-CAM"]
    assert cells[1:-1] == [[name, f"{value:.2f}"] for name, value in scores["best_per_class"].items()]
    assert cells[-1] == ["mean", f"{scores['best_miou']:.2f}"]
    [row] = rows_of("a.csv")
    assert float(row["best_per_class red"]) == scores["best_per_class"]["red"]
    assert float(row["best_miou"]) == scores["best_miou"]
    tables = Path("a.tex").read_text().split("\n\n")
    assert [table.count("\\toprule") for table in tables] == [1, 1, 1]
    assert f"Grad-CAM & {scores['miou']:.2f} & {scores['best_miou']:.2f} &" in tables[0]
    assert f"red & {scores['per_class']['red']:.2f} \\\\" in tables[1]
    assert f"\\midrule\nmean & {scores['best_miou']:.2f} \\\\\n\\bottomrule" in tables[2]
    report.to_latex("a.tex")  # a file of ours is replaced
    assert Path("a.tex").read_text().count("tabular") == 2
    Path("theirs.tex").write_text("% a thesis\n")
    with pytest.raises(OSError, match="did not write"):
        report.to_latex("theirs.tex")


def test_whatever_has_a_row_is_shown():
    """Rows need not have the same scores, and names may hold anything."""
    classes = {"per_class": {"background": 50.0, "cat_&": None}}
    scores = {"a_b 50%": {"miou": 50.0, "photos": 2, **classes}, "other": {"miou": None, "pxap": 1.0, "photos": 2}}
    columns = {"miou": "mIoU", "pxap": "PxAP", "loc1": "Loc1"}
    report = Report(scores, title="mIoU", columns=columns, class_tables={"per_class": "IoU", "recall": "Recall"})
    report.to_latex("a.tex", per_class=True)
    assert Path("a.tex").read_text().splitlines()[1:] == [
        "% mIoU; 2 photos", "\\begin{tabular}{lrr}", "\\toprule", "method & mIoU & PxAP \\\\", "\\midrule",
        "a\\_b 50\\% & 50.00 & -- \\\\", "other & -- & 1.00 \\\\", "\\bottomrule", "\\end{tabular}", "",
        "% IoU", "\\begin{tabular}{lr}", "\\toprule", "class & a\\_b 50\\% \\\\", "\\midrule",
        "background & 50.00 \\\\", "cat\\_\\& & -- \\\\", "\\midrule", "mean & 50.00 \\\\", "\\bottomrule",
        "\\end{tabular}",
    ]  # fmt: skip
    report.to_csv("a.csv", per_class=True)
    assert rows_of("a.csv")[0]["per_class cat_&"] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"csv": "theirs.csv"}, r"csv='theirs\.csv': exists already, and a CSV file does not say what wrote it"),
        ({"per_photo": "theirs.csv"}, r"per_photo='theirs\.csv': exists already"),
        ({"latex": "theirs.csv"}, "did not write"),
        ({"csv": "a", "per_photo": "./a"}, "per_photo='a': is the file of csv; choose another name"),
        ({"latex": "work/a.tex", "gallery": "work"}, "latex='work/a.tex': is in the folder of gallery"),
        ({"gallery": "photos"}, r"gallery='photos': has cat\.jpg, so it is not a gallery"),
        ({"gallery": "theirs.csv"}, "theirs.csv: cannot be written"),
    ],
)
def test_places_that_are_taken(arguments, message, classifier):
    Path("theirs.csv").write_text("method,miou\n")
    Path("photos").mkdir()
    Path("photos/cat.jpg").write_text("a photo")
    before = everything(".")
    with pytest.raises((ValueError, OSError), match=message):
        evaluate(classifier, Shapes(), ["grad-cam"], **arguments, **QUIET)
    assert everything(".") == before


def test_iou_of_one_photo_is_not_counted():
    _, labels, keys = shapes(1)
    maps, metric = torch.rand(len(keys), *labels.shape), SegmentationMetric(3, 0.3)
    iou = metric.iou(maps, keys, labels)
    assert metric.histogram.sum() == 0
    metric.update(maps, keys, labels)
    torch.testing.assert_close(iou.nanmean(1), metric.compute()["curve"])
    torch.testing.assert_close(iou[30], metric.compute()["per_class"], equal_nan=True)


def test_json_holds_no_more_than_before(classifier):
    report = evaluate(classifier, Shapes(), ["grad-cam"], json="a.json", per_photo="a.csv", **QUIET)
    assert json.loads(Path("a.json").read_text())["grad-cam"] == report.scores["grad-cam"]
    assert "iou" not in report.scores["grad-cam"]
