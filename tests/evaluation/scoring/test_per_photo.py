"""The scores of each photo, whatever happens while they are counted."""

import csv
from pathlib import Path

import made_datasets
import numpy as np
import pytest
import torch
from commands import SMALL, VOC_MODEL, run, stopped_before_the_scores
from made_datasets import NAMES, colour_classifier, make_ilsvrc, make_voc

from captum_regioncam.evaluation import LocalizationMetric, evaluate, evaluate_seeds, open_dataset, squash_boxes
from captum_regioncam.evaluation.runs.per_photo import at_threshold, curves_of, pack, unpack

QUIET = {"layers": ["relu1", "relu2"], "show_progress": False}


class Shapes(made_datasets.Shapes):
    names = ("one", "two", "deep/three")


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_photo_is_scored_as_if_it_were_alone(tmp_path):
    data, classifier = Shapes(), colour_classifier()
    report = evaluate(classifier, data, ["grad-cam", "layer-cam"], per_photo=tmp_path / "a.csv", threshold=0.3, **QUIET)
    rows = rows_of(tmp_path / "a.csv")
    assert [(row["photo"], row["method"]) for row in rows] == [
        (name, method) for name in data.names for method in ("grad-cam", "layer-cam")
    ]
    assert [row["classes"] for row in rows[::2]] == ["red; green", "red; green", "blue"]
    for place, name in enumerate(data.names):

        class Alone:
            names, classes = (name,), data.classes

            def __getitem__(self, index, place=place):
                return data[place]

        for row in rows[2 * place : 2 * place + 2]:
            best = report.scores[row["method"]]["best_threshold"]
            for prefix, threshold in (("", 0.3), ("best_", best)):
                alone = evaluate(classifier, Alone(), [row["method"]], threshold=threshold, **QUIET)
                scores = alone.scores[row["method"]]
                assert float(row[f"{prefix}threshold"]) == threshold
                assert float(row[f"{prefix}mean_iou"]) == pytest.approx(scores["miou"], abs=1e-3)
                for label, value in scores["per_class"].items():
                    found = row[f"{prefix}iou {label}"]
                    assert (float(found) if found else None) == (value and pytest.approx(value, abs=1e-3))
    assert report.photos[0]["photo"] == "one"
    assert list(rows[0]) == ["photo", "method", "classes", *report.photo_columns]


def test_the_box_of_each_photo(tmp_path):
    data = open_dataset("ilsvrc", make_ilsvrc(tmp_path / "data", photos=3))
    (tmp_path / "seeds").mkdir()
    # Blocks whose box is known: that of the first photo fits, the second is half of its box, the third lies elsewhere.
    expected = []
    for index, name in enumerate(data.names):
        [[x0, y0, x1, y1]] = squash_boxes(data[index].boxes, (60, 44)).tolist()
        box = [(x0, y0, x1, y1), (x0, y0, (x0 + x1) // 2, y1), (100, 180, 150, 200)][index]
        cam = np.zeros((224, 224), np.float32)
        cam[box[1] : box[3], box[0] : box[2]] = 1
        np.save(tmp_path / f"seeds/{name}.npy", cam)
        inner = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
        true = (x1 - x0 + 1) * (y1 - y0 + 1)
        expected.append((box, [100.0, 100 * inner / true, 0.0][index]))
    evaluate_seeds(
        {"ours": tmp_path / "seeds"}, data, box_threshold=0.5, per_photo=tmp_path / "a.csv", show_progress=False
    )
    for row, (box, iou) in zip(rows_of(tmp_path / "a.csv"), expected, strict=True):
        assert tuple(int(row[corner]) for corner in ("x0", "y0", "x1", "y1")) == box
        assert float(row["iou"]) == pytest.approx(iou, abs=1e-3)
        assert (row["gt_known"], row["threshold"]) == (str(int(iou >= 50)), "0.5")
        assert row["classes"].startswith("n0")


def test_boxes_at_all_thresholds_are_those_that_are_counted(chance):
    torch.manual_seed(chance.randrange(1 << 30))
    cam, true = torch.rand(1, 1, 7, 7), [[30, 40, 150, 160], [0, 0, 60, 60]]
    cam = torch.nn.functional.interpolate(cam, (224, 224), mode="bicubic")[0, 0]
    metric = LocalizationMetric()
    boxes, iou = metric.box_at(cam, true)
    assert metric.photos == 0
    assert boxes.shape == (100, 4)
    metric.update(cam, true)
    assert (iou >= 0.5).tolist() == metric.compute()["curve"].bool().tolist()


def test_curves_without_repetitions():
    scores = torch.tensor([[0.5, float("nan")], [0.5, float("nan")], [0.25, 0.0], [0.25, 0.0], [0.5, 0.0]])
    curves = curves_of(["a", "b"], scores)
    assert curves[1].tolist() == [0, 2, 4]
    for index, (a, b) in enumerate(scores.tolist()):
        found = at_threshold(curves, index)
        assert found["a"] == a
        assert found["b"] == b or (b != b and found["b"] != found["b"])
    assert unpack(pack({})) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("colour_factory")
def test_resumed_and_in_several_processes(monkeypatch, forked):
    """The lines are complete and in order, however the photos were shared and whenever they were counted."""
    root = make_voc(Path("data"))
    command = ["evaluate", "voc", "--root", root, *VOC_MODEL, *SMALL, "--method", "region-cam,cam"]
    assert run(*command, "--per-photo", "whole.csv") == 0
    whole = Path("whole.csv").read_bytes()
    assert [row["photo"] for row in rows_of("whole.csv")] == [name for name in NAMES for _ in range(2)]
    stopped_before_the_scores(monkeypatch, *command, "--per-photo", "a.csv")
    assert not Path("a.csv").exists()
    assert run(*command, "--per-photo", "a.csv") == 2
    assert run(*command, "--per-photo", "a.csv", "--resume") == 0
    assert Path("a.csv").read_bytes() == whole
    fork = forked(*command, "--per-photo", "b.csv", "--gallery", "shown", workers=2)
    _, err = fork.communicate(timeout=200)
    assert fork.returncode == 0, err
    assert Path("b.csv").read_bytes() == whole
    assert len(list(Path("shown").glob("*.png"))) == 6
    assert Path("shown/index.html").read_bytes().count(b"<img") == 6 * 6
    assert not Path(".captum_regioncam").exists()
