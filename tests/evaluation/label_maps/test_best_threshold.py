"""The best threshold: of the maps, of label maps after a CRF, and thresholds around it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_datasets import Shapes, shapes
from PIL import Image

from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation import (
    LabelMapMetric,
    Seed,
    SegmentationMetric,
    confident_labels,
    crf_labels,
    evaluate_label_maps,
    load_seed,
    save_seed,
    write_label_maps,
)
from captum_regioncam.evaluation.label_maps import best_threshold
from captum_regioncam.evaluation.label_maps.best_threshold import Best, best_after
from captum_regioncam.evaluation.label_maps.choice import confident_around
from captum_regioncam.evaluation.runs.record import Record
from captum_regioncam.evaluation.runs.workers import Worker


@pytest.fixture(autouse=True)
def seeds(tmp_path, monkeypatch):
    """Seeds of three photos that are about 0.4 around the objects and higher on them, blurred."""
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(Shapes.names):
        _, labels, keys = shapes(index)
        maps = torch.stack([torch.from_numpy(labels == key + 1).float() for key in keys])[None]
        for _ in range(2):
            maps = torch.nn.functional.avg_pool2d(maps, 9, stride=1, padding=4)
        maps = (0.2 + 0.2 * index + 0.4 * maps)[0]
        save_seed(f"seeds/{name}.npy", Seed(torch.tensor(keys), maps[:, ::4, ::4], maps.numpy()))


def mious(thresholds, labels_at):
    found = {}
    for threshold in thresholds:
        metric = LabelMapMetric(3)
        for index, name in enumerate(Shapes.names):
            seed = load_seed(f"seeds/{name}.npy")
            photo, truth, _ = shapes(index)
            metric.update(labels_at(Image.fromarray(photo), seed, threshold), truth)
        found[threshold] = float(metric.compute()["miou"])
    return found


def test_after_crf():
    pytest.importorskip("pydensecrf", reason="pydensecrf2 could not be built here")
    before = SegmentationMetric(3)
    for index, name in enumerate(Shapes.names):
        seed = load_seed(f"seeds/{name}.npy")
        before.update(torch.from_numpy(seed.high_res), seed.keys, shapes(index)[1])
    written = write_label_maps(
        "seeds", "labels", threshold="best", crf="irn", data=Shapes(), show_progress=False, names=Shapes.names
    )
    [session] = Record.read(Path("labels")).runs[0].sessions
    chosen = session["best"]
    assert chosen["threshold"] == written.threshold == written.best_threshold
    assert (chosen["after_crf"], chosen["seeds"]) == (True, 3)
    tried = {float(threshold): miou for threshold, miou in chosen["tried"].items()}
    expected = mious(tried, lambda photo, seed, t: crf_labels(photo, seed.high_res, seed.keys.numpy(), t))
    assert tried == pytest.approx(expected, abs=1e-12)
    assert float(before.compute()["best_threshold"]) in tried
    assert written.best_miou == max(tried.values())
    assert {round(written.threshold + step, 2) for step in (-0.01, 0, 0.01)} <= set(tried)
    # It is the mIoU of the label maps that are written.
    [scores] = evaluate_label_maps("labels", Shapes(), show_progress=False).scores.values()
    assert scores["miou"] == pytest.approx(100 * written.best_miou, abs=1e-9)


class Peak:
    """A stand-in for what counts label maps: the mIoU is what a function says, and the thresholds are noted."""

    def __init__(self, monkeypatch, before, miou):
        self.rounds = []
        monkeypatch.setattr(best_threshold, "best_threshold", lambda *_: Best(before, 0.5, {"first": "broken"}))
        monkeypatch.setattr(best_threshold, "run", lambda job, *_, **__: {"later": "broken"})

        def counter(seeds, ways, worker):
            self.rounds.append(list(ways))
            return type("Counted", (), {"mious": lambda self: {t: miou(t) for t in ways}})()

        monkeypatch.setattr(best_threshold, "_CountLabels", counter)

    def climb(self):
        return best_after(lambda threshold: None, None, Worker(), False)


@pytest.mark.parametrize(
    ("peak", "before"), [(0.33, 0.3), (0.02, 0.3), (0.97, 0.8), (0.15, 0.15), (0.0, 0.05), (1.0, 1.0)]
)
def test_the_climb_finds_one_peak(monkeypatch, peak, before):
    search = Peak(monkeypatch, before, lambda threshold: 1 - abs(threshold - peak))
    best = search.climb()
    assert best.threshold == peak
    assert best.miou == 1
    assert best.failures == {"first": "broken", "later": "broken"}
    tried = [threshold for found in search.rounds for threshold in found]
    assert len(tried) == len(set(tried)) == len(best.curve)  # none twice
    assert all(0 <= threshold <= 1 for threshold in tried)
    assert len(tried) <= 7 + abs(peak - before) / 0.05 + 4


def test_of_several_best_the_lowest(monkeypatch):
    assert Peak(monkeypatch, 0.5, lambda threshold: 0.7).climb().threshold == pytest.approx(0)


def test_confident_around_the_best():
    assert confident_around(0.15) == (0.05, 0.3)  # IRN's own
    assert confident_around(0.31) == (0.21, 0.46)
    assert confident_around(0.05) == (0, 0.2)
    assert confident_around(0.9) == (0.8, 1)


def test_confident_best():
    pytest.importorskip("pydensecrf", reason="pydensecrf2 could not be built here")
    written = write_label_maps("seeds", "labels", crf="irn", confident="best", data=Shapes(), show_progress=False)
    best = write_label_maps("seeds", "plain", threshold="best", data=Shapes(), show_progress=False)
    assert written.best_threshold == best.threshold
    assert written.best_miou == best.best_miou
    assert written.threshold is None
    assert written.confident == confident_around(best.threshold)
    seed, photo = load_seed("seeds/one.npy"), Image.fromarray(shapes(0)[0])
    with Image.open("labels/one.png") as image:
        labels = confident_labels(photo, seed.high_res, seed.keys, *written.confident)
        assert np.array_equal(np.asarray(image), labels)
    [run_of_labels] = Record.read(Path("labels")).runs
    assert run_of_labels.settings["confident"] == list(written.confident)
    assert run_of_labels.sessions[0]["best"]["after_crf"] is False


class Ten(Shapes):
    names = tuple("0123456789")


@pytest.mark.parametrize(
    ("photos", "expected"), [(3, ["0", "3", "6"]), (4, ["0", "2", "4", "6"]), (20, list("012345678"))]
)
def test_on_some_of_the_photos(monkeypatch, photos, expected):
    read = []

    def found(reader, worker, show_progress):
        read.extend(reader.names)
        return Best(0.3, 0.5, {})

    monkeypatch.setattr("captum_regioncam.evaluation.label_maps.writing.best_threshold", found)
    for name in Ten.names:
        Path("seeds", f"{name}.npy").write_bytes(Path("seeds/one.npy").read_bytes())
    options = {"names": Ten.names, "data": Ten(), "limit": 9, "show_progress": False}
    written = write_label_maps("seeds", "labels", threshold="best", best_photos=photos, **options)
    assert read == expected
    assert len(written.names) == 9  # all are written
    assert (written.threshold, written.best_miou) == (0.3, 0.5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"best_photos": 3}, "best_photos=3: expects a whole number above 0, and threshold='best' or confident='best'"),
        ({"best_photos": 0, "threshold": "best"}, "best_photos=0: expects a whole number above 0"),
        (
            {"background": "clip-es", "threshold": "best"},
            "threshold='best': is used neither .* nor for CLIP-ES's backg",
        ),
        ({"confident": "best"}, "confident: requires crf='irn'"),
    ],
)
def test_arguments_that_cannot_be(options, says):
    with pytest.raises(ArgumentError, match=says):
        write_label_maps("seeds", "labels", data=Shapes(), show_progress=False, **options)
    assert not Path("labels").exists()
