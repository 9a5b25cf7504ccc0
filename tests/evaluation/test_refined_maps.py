"""Maps refined with the photo, from the network to the scores, in Python and on the command line."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import made_datasets
import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from commands import MODEL, SMALL, VOC_MODEL, run, scores_in
from made_datasets import NAMES, ColourNet, colour_classifier, everything, make_folder, make_ilsvrc, make_voc, shapes
from PIL import Image

from captum_regioncam import LayerRegionCam, overlay, refine
from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation import (
    Classifier,
    LocalizationMetric,
    Protocol,
    Seed,
    SegmentationMetric,
    evaluate,
    evaluate_seeds,
    label_map,
    load_seed,
    multiscale_maps,
    normalize,
    open_dataset,
    save_seed,
    squash_boxes,
    write_explanations,
    write_label_maps,
    write_seeds,
)
from captum_regioncam.evaluation.photo_maps import PhotoMaps
from captum_regioncam.evaluation.runs.record import Record
from captum_regioncam.method.grids import pool

LAYERS = ["relu1", "relu2"]
TWO_SCALES = Protocol((1.0, 0.5), flip=True, resize="keep", normalize="max", upsample="irn", batch=1)
QUIET = {"layers": LAYERS, "show_progress": False}


class Shapes(made_datasets.Shapes):
    """A data set whose last photo has no class."""

    names = ("one", "two", "three", "none")

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return replace(sample, keys=[], targets=[], labels=np.zeros_like(sample.labels)) if index == 3 else sample


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def classifier():
    return colour_classifier()


def cam_of(classifier):
    return LayerRegionCam(classifier.model, [classifier.model.relu1, classifier.model.relu2])


def test_seeds_are_refined_last_and_averaged_down(classifier):
    written = write_seeds(classifier, Shapes(), "seeds", protocol=TWO_SCALES, refine=True, **QUIET)
    assert written.failures == {}
    for sample in (Shapes()[index] for index in range(3)):
        seed = load_seed(f"seeds/{sample.name}.npy")
        [maps] = multiscale_maps(
            cam_of(classifier), sample.photo, sample.targets, classifier.preprocess, scales=(1, 0.5), sizes=[(48, 64)]
        )
        expected = refine(normalize(maps[:, :44, :60]), sample.photo)
        np.testing.assert_allclose(seed.high_res, expected, atol=1e-5)
        torch.testing.assert_close(seed.cam, pool(torch.from_numpy(seed.high_res)[None], (11, 15))[0])
        assert expected.max() < 0.999  # not divided again
    assert load_seed("seeds/none.npy").high_res.shape == (0, 44, 60)


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_masks_are_scored_with_the_part_that_is_seen(classifier, resize):
    protocol = Protocol(resize=resize)
    methods = {"ours": cam_of(classifier), "captum's": LayerGradCam(classifier.model, classifier.model.relu2)}
    report = evaluate(classifier, Shapes(), methods, protocol=protocol, refine=True, show_progress=False)
    fixed = Classifier(classifier.model, 48, (0.5,) * 3, (0.5,) * 3, resize=resize)
    left, upper, right, lower = box = fixed.seen_box(60, 44)
    for name, method in methods.items():
        metric = SegmentationMetric(3)
        for sample in (Shapes()[index] for index in range(4)):
            labels, seen = sample.labels[upper:lower, left:right], sample.photo.crop(box)
            maps = torch.zeros(0, *labels.shape)
            if sample.keys:
                fitted = fixed.fit(sample.photo)[1]
                [maps] = multiscale_maps(
                    method, fitted, sample.targets, fixed.preprocess, scales=[1], flip=False, sizes=[labels.shape]
                )
                maps = refine(normalize(maps, "minmax"), seen)
            metric.update(maps, torch.tensor(sample.keys, dtype=torch.long), labels)
        assert report.scores[name]["miou"] == pytest.approx(100 * float(metric.compute()["miou"]), abs=1e-9)
    plain = evaluate(classifier, Shapes(), methods, protocol=protocol, show_progress=False)
    assert plain.scores != report.scores
    assert (plain.provenance["refine"], report.provenance["refine"]) == (False, True)


def test_boxes_are_of_refined_maps_only_if_that_is_asked_for(classifier):
    data = open_dataset("ilsvrc", make_ilsvrc(Path("data")))
    metric = LocalizationMetric(0.05)
    for sample in (data[index] for index in range(len(data))):
        fitted = classifier.fit(sample.photo)[1]
        [maps] = multiscale_maps(
            cam_of(classifier), fitted, sample.targets, classifier.preprocess, scales=[1], flip=False
        )
        rank = classifier.model(classifier.preprocess(fitted))[0].argsort(descending=True).tolist()
        boxes = squash_boxes(sample.boxes, sample.photo.size)
        metric.update(refine(maps, sample.photo)[0], boxes, rank.index(sample.targets[0]))
    plain, refined = (
        evaluate(classifier, data, step=0.05, refine=refine, **QUIET).scores["region-cam"] for refine in (False, True)
    )
    assert plain["curve"] != refined["curve"]
    expected = metric.compute()
    for name in ("max_box_acc", "max_box_acc_v2", "gt_known", "loc1"):
        assert refined[name] == pytest.approx(100 * float(expected[name]), abs=1e-4)


def test_explanations_are_refined_with_what_is_seen(classifier):
    root = make_folder(Path("photos"), photos=1)
    cropped = Classifier(classifier.model, 48, classifier.mean, classifier.std, resize="crop")
    options = {"targets": [1, 2], "layers": LAYERS, "save_npy": True, "overlay": True}
    write_explanations(cropped, [root / "images"], "out", refine=True, **options)
    write_explanations(cropped, [root / "images"], "plain", **options)
    seen, fitted = cropped.fit(Image.open(root / "images" / "photo_0.jpg").convert("RGB"))
    maps = cam_of(cropped).attribute_targets(cropped.preprocess(fitted), [1, 2])
    expected = refine(maps, seen)[0]
    found = np.load("out/photo_0_cam.npy")
    assert found.shape == (1, 2, seen.height, seen.width)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    assert np.abs(np.load("plain/photo_0_cam.npy") - found).max() > 0.05
    drawn = np.asarray(Image.open("out/photo_0_region-cam_2.png")).astype(int)
    assert np.abs(drawn - overlay(np.asarray(seen), expected[1])).max() <= 2
    settings = [json.loads(Path(f"{name}/manifest.json").read_text())["settings"] for name in ("out", "plain")]
    assert settings[0].pop("refine") is True
    assert settings[0] == settings[1]


def test_label_maps_and_scores_of_finished_seeds(classifier):
    root = make_voc(Path())
    data = open_dataset("voc", root)
    wide = Classifier(ColourNet(20).eval(), 48, classifier.mean, classifier.std)
    write_seeds(wide, data, "seeds", protocol=TWO_SCALES, **QUIET)
    refined = {}
    for index, name in enumerate(NAMES):
        seed = load_seed(f"seeds/{name}.npy")
        refined[name] = seed.keys, refine(seed.high_res, data[index].photo).numpy()
    scores = evaluate_seeds("seeds", data, refine=True, show_progress=False)
    assert scores.scores != evaluate_seeds("seeds", data, show_progress=False).scores
    best = write_label_maps("seeds", "best", refine=True, threshold="best", overlay="over", show_progress=False)
    assert best.threshold == scores.scores["seeds in seeds"]["best_threshold"]
    assert 100 * best.best_miou == pytest.approx(scores.scores["seeds in seeds"]["best_miou"], abs=1e-4)
    write_label_maps("seeds", "fixed", refine=True, threshold=0.3, show_progress=False)  # opens the recorded photos
    for folder, threshold in (("best", best.threshold), ("fixed", 0.3)):
        for name, (keys, maps) in refined.items():
            labels = np.asarray(Image.open(f"{folder}/{name}.png"))
            assert np.array_equal(labels, label_map(maps, keys, threshold))
    [recorded] = Record.read(Path("fixed")).runs
    assert recorded.settings["refine"] is True
    assert recorded.sessions[0]["refine"] is True
    before = everything("fixed")
    write_label_maps("seeds", "fixed", refine=True, threshold=0.3, resume=True, show_progress=False)
    assert {name: before[name] for name in before if name.endswith("png")}.items() <= everything("fixed").items()
    write_label_maps("seeds", "fixed", threshold=0.3, resume=True, show_progress=False)  # made again, as they are
    for name in NAMES:
        seed = load_seed(f"seeds/{name}.npy")
        labels = np.asarray(Image.open(f"fixed/{name}.png"))
        assert np.array_equal(labels, label_map(seed.high_res, seed.keys, 0.3))


def test_finished_seeds_must_go_with_their_photos(classifier):
    Path("own").mkdir()
    for index, name in enumerate(Shapes.names[:2]):
        keys = torch.tensor(shapes(index)[2])
        save_seed(f"own/{name}.npy", Seed(keys, torch.rand(len(keys), 11, 15), np.ones((len(keys), 44, 60))), "irn")
    with pytest.raises(ArgumentError, match="own: has no record that names the photos of the seeds; give data"):
        write_label_maps("own", "labels", refine=True)
    assert write_label_maps("own", "labels", refine=True, data=Shapes()).failures == {}
    save_seed("own/two.npy", Seed(keys, torch.rand(len(keys), 2, 2), np.ones((len(keys), 5, 5))), "irn")
    says = (
        "two: its maps are (5, 5), but its photo is (44, 60) (height, width). Give the data set that the seeds were "
        "made from."
    )
    assert write_label_maps("own", "other", refine=True, data=Shapes()).failures == {"two": says}
    assert evaluate_seeds("own", Shapes(), refine=True, limit=2).failures["two"] == says
    write_seeds(classifier, Shapes(), "seeds", refine=True, **QUIET)
    for use in (partial(evaluate_seeds, data=Shapes()), partial(write_label_maps, output="labels")):
        with pytest.raises(ArgumentError, match="refine=True: the seeds in seeds were refined when they were made"):
            use("seeds", refine=True)


def test_a_run_that_refines_is_another_run(classifier, caplog):
    write_seeds(classifier, Shapes(), "seeds", **QUIET)
    [recorded] = Record.read(Path("seeds")).runs
    assert "refine" not in recorded.settings  # nor in those of folders from before there was the option
    assert recorded.sessions[0]["refine"] is False
    with pytest.raises(ArgumentError, match="output='seeds': was made with refine = None, but now it is True"):
        write_seeds(classifier, Shapes(), "seeds", refine=True, resume=True, **QUIET)
    with caplog.at_level("INFO", "captum_regioncam"):
        write_seeds(classifier, Shapes(), "refined", refine=True, **QUIET)
        evaluate_seeds("seeds", Shapes(), refine=True, show_progress=False)
    assert "stretched from its minimum to its maximum; refined with the photo" in caplog.text
    assert "Seeds in seeds, refined with the photo" in caplog.text
    with pytest.raises(ArgumentError, match="output='refined': was made with refine = True, but now it is None"):
        write_seeds(classifier, Shapes(), "refined", resume=True, **QUIET)
    maps = PhotoMaps.of(classifier, ["region-cam"], layers=LAYERS, refine=True)
    assert maps.settings(Shapes())["refine"] is True


@pytest.mark.usefixtures("colour_factory")
def test_the_command_line_gives_the_same(capsys):
    root = make_voc(Path("data"))
    classifier = Classifier.load("colour_factory:voc_net", mean=[0.5] * 3, std=[0.5] * 3)
    data = open_dataset("voc", root)
    command = ["voc", "--root", root, *VOC_MODEL, *SMALL]
    assert run("seeds", *command, "--refine", "--output", "a") == 0
    assert "refined with the photo" in capsys.readouterr().out
    assert run("seeds", *command, "--output", "plain") == 0
    write_seeds(classifier, data, "b", protocol=TWO_SCALES, refine=True, **QUIET)
    assert all(Path(f"a/{name}.npy").read_bytes() == Path(f"b/{name}.npy").read_bytes() for name in NAMES)
    assert run("evaluate", *command, "--refine", "--json", "maps.json") == 0
    assert run("evaluate", "voc", "--root", root, "--seeds", "a", "--json", "a.json") == 0
    assert run("evaluate", "voc", "--root", root, "--seeds", "plain", "--refine", "--json", "plain.json") == 0
    [of_maps], [of_a], [of_plain] = (scores_in(f"{name}.json").values() for name in ("maps", "a", "plain"))
    assert of_maps == of_a == of_plain
    capsys.readouterr()
    assert run("labels", "plain", "--refine", "--split", "train", "--threshold", "best", "--output", "labels") == 0
    best = f"at {of_a['best_threshold']:g} (the best: mIoU {of_a['best_miou']:.2f})"
    assert f"6 label maps {best}" in capsys.readouterr().out
    assert run("labels", "plain", "--refine", "--split", "nonsense", "--output", "labels") == 2
    assert "has no ImageSets/Segmentation/nonsense" in capsys.readouterr().err
    assert run("labels", "a", "--refine", "--output", "twice") == 2
    assert "--refine: the seeds in a were refined when they were made." in capsys.readouterr().err
    folder = make_folder(Path("photos"), photos=1)
    assert run("explain", folder / "images", *MODEL, "--size", "48", "--refine", "--save-npy", "--output", "out") == 0
    assert np.load("out/photo_0_cam.npy").shape == (1, 1, 44, 60)
    assert json.loads(Path("out/manifest.json").read_text())["refine"] is True


def test_crf_after_refinement(classifier):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 could not be built here")
    from captum_regioncam.evaluation import crf_labels

    write_seeds(classifier, Shapes(), "seeds", limit=1, **QUIET)
    write_label_maps("seeds", "labels", refine=True, crf="irn", data=Shapes(), show_progress=False)
    sample, seed = Shapes()[0], load_seed("seeds/one.npy")
    expected = crf_labels(sample.photo, refine(seed.high_res, sample.photo).numpy(), seed.keys.numpy())
    assert np.array_equal(np.asarray(Image.open("labels/one.png")), expected)
