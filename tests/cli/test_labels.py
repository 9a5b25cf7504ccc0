"""The command ``labels``: label maps of finished seeds."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import MODEL, VOC_MODEL, run, scores_in
from made_datasets import NAMES, make_folder, make_voc, shapes
from PIL import Image

from captum_regioncam.evaluation import (
    Seed,
    confident_labels,
    crf_labels,
    crf_scores,
    label_map,
    load_seed,
    save_seed,
    write_label_maps,
)
from captum_regioncam.evaluation.label_maps import strategy
from captum_regioncam.evaluation.label_maps.choice import confident_around
from captum_regioncam.evaluation.runs.record import Record

VOC_SCALES = [*VOC_MODEL, "--scales", "1,0.5"]


@pytest.fixture
def voc(colour_factory, capsys):
    """The root of a VOC whose seeds are in seeds/."""
    home = make_voc(Path("data"))
    assert run("seeds", "voc", "--root", home, *VOC_SCALES, "--output", "seeds") == 0
    capsys.readouterr()
    return home


def opened(folder, name):
    with Image.open(f"{folder}/{name}.png") as image:
        assert image.mode == "P"
        return np.asarray(image)


def expected(name, threshold, folder="seeds"):
    seed = load_seed(f"{folder}/{name}.npy")
    return label_map(seed.high_res, seed.keys, threshold)


@pytest.mark.usefixtures("voc")
def test_any_threshold_over_the_last(capsys):
    for threshold in ("0.15", "0.4"):
        assert run("labels", "seeds", "--output", "labels", "--threshold", threshold) == 0
        assert f"6 label maps at {threshold} in labels" in capsys.readouterr().out
        for name in NAMES:
            assert np.array_equal(opened("labels", name), expected(name, float(threshold)))
    assert run("labels", "seeds", "--output", "two", "--limit", "2") == 0
    assert len(list(Path("two").glob("*.png"))) == 2


def test_the_best_threshold_is_evaluate_s(voc, capsys):
    assert run("labels", "seeds", "--output", "labels", "--threshold", "best") == 0
    out = capsys.readouterr().out
    assert run("evaluate", "voc", "--root", voc, "--seeds", "seeds", "--json", "out.json") == 0
    [figures] = scores_in("out.json").values()
    assert f"6 label maps at {figures['best_threshold']:g} (the best: mIoU {figures['best_miou']:.2f}) in labels" in out
    for name in NAMES:
        assert np.array_equal(opened("labels", name), expected(name, figures["best_threshold"]))


def test_overlays_show_the_photo_and_the_classes(voc):
    assert run("labels", "seeds", "--output", "labels", "--overlay", "over", "--threshold", "0.3") == 0
    palette = {1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0)}
    for name in NAMES:
        photo = np.asarray(Image.open(voc / "JPEGImages" / f"{name}.jpg").convert("RGB"))
        over, labels = np.asarray(Image.open(f"over/{name}.png")), opened("labels", name)
        assert np.array_equal(over[labels == 0], photo[labels == 0])
        for label, colour in palette.items():
            half = (photo[labels == label].astype(int) + colour) // 2
            assert np.array_equal(over[labels == label], half)
    assert labels.any()


def test_resume_makes_what_is_missing(voc):
    command = ["labels", "seeds", "--output", "labels", "--overlay", "over"]
    assert run(*command) == 0
    Path(f"labels/{NAMES[1]}.png").unlink()
    Path(f"over/{NAMES[3]}.png").unlink()
    somebody_s = Path("labels/.captum_regioncam-x.png")
    somebody_s.write_bytes(b"its name begins like ours")
    before = {path: path.stat().st_mtime_ns for path in Path("labels").glob("[!.]*.png")}
    assert run(*command, "--resume") == 0
    for name in NAMES:
        assert np.array_equal(opened("labels", name), expected(name, 0.15))
    remade = [path.stem for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert remade == []  # of the third, only the overlay was missing
    assert somebody_s.read_bytes() == b"its name begins like ours"
    # Other seeds of the same names, or another threshold: nothing is kept.
    assert run(*command, "--resume", "--threshold", "0.4") == 0
    assert all(np.array_equal(opened("labels", name), expected(name, 0.4)) for name in NAMES)
    shutil.rmtree("seeds")
    assert run("seeds", "voc", "--root", voc, *VOC_SCALES, "--output", "seeds", "--method", "layer-cam") == 0
    assert run(*command, "--resume", "--threshold", "0.4") == 0
    assert all(np.array_equal(opened("labels", name), expected(name, 0.4)) for name in NAMES)


@pytest.mark.usefixtures("voc")
def test_none_of_another_threshold_stays():
    assert run("labels", "seeds", "--output", "labels", "--threshold", "0.1") == 0
    assert run("labels", "seeds", "--output", "labels", "--threshold", "0.6", "--limit", "1") == 0
    assert len(list(Path("labels").glob("*.png"))) == 1
    assert run("labels", "seeds", "--output", "labels", "--threshold", "0.6", "--resume") == 0
    assert all(np.array_equal(opened("labels", name), expected(name, 0.6)) for name in NAMES)


def test_killed_between_two_thresholds(voc, monkeypatch):
    """Label maps of the old threshold never pass for those of the new one."""
    assert run("labels", "seeds", "--output", "labels") == 0
    encode, encoded = strategy.encode_label_map, []

    def killed(labels):
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(encode(labels))
        return encoded[-1]

    monkeypatch.setattr(strategy, "encode_label_map", killed)
    assert run("labels", "seeds", "--output", "labels", "--threshold", "0.4") == 130
    monkeypatch.setattr(strategy, "encode_label_map", encode)
    assert run("labels", "seeds", "--output", "labels", "--threshold", "0.4", "--resume") == 0
    assert all(np.array_equal(opened("labels", name), expected(name, 0.4)) for name in NAMES)


def test_pictures_of_others_stay(voc, capsys):
    masks = voc / "SegmentationClass"
    before = {path: path.read_bytes() for path in masks.iterdir()}
    for arguments in (["--output", masks], ["--output", "labels", "--overlay", masks]):
        assert run("labels", "seeds", *arguments) == 2
        assert f"has {NAMES[0]}.png, which this package did not write" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in masks.glob("*.png")} == before


def test_seeds_of_another_pipeline(voc, capsys):
    Path("psa").mkdir()
    for index, name in enumerate(NAMES):
        seed = load_seed(f"seeds/{name}.npy")
        np.save(f"psa/{name}.npy", dict(zip(shapes(index)[2], seed.high_res, strict=True)), allow_pickle=True)
    assert run("labels", "psa", "--output", "labels") == 0
    assert all(np.array_equal(opened("labels", name), expected(name, 0.15)) for name in NAMES)
    assert run("labels", "psa", "--output", "labels", "--threshold", "best") == 2
    assert "psa: has no record that names the photos" in capsys.readouterr().err
    command = ["labels", "psa", "--output", "best", "--dataset", "voc", "--root", voc]
    assert run(*command, "--threshold", "best", "--overlay", "over") == 0
    assert len(list(Path("over").glob("*.png"))) == 6
    # A photo without classes: the file does not tell its size, the data set does.
    np.save(f"psa/{NAMES[0]}.npy", {}, allow_pickle=True)
    assert run("labels", "psa", "--output", "unknown") == 1
    assert f"{NAMES[0]}: has no classes and therefore no size; give the seeds' data set" in capsys.readouterr().err
    assert run(*command[:-4], "--dataset", "voc", "--root", voc, "--resume") == 0
    assert opened("best", NAMES[0]).shape == (44, 60)
    assert not opened("best", NAMES[0]).any()
    save_seed(f"psa/{NAMES[2]}.npy", Seed(torch.tensor([20]), torch.rand(1, 11, 15), np.ones((1, 44, 60))))
    for name in ("unheard_of", NAMES[1]):
        save_seed(f"psa/{name}.npy", Seed(torch.tensor([1]), torch.rand(1, 2, 2), np.ones((1, 5, 5))))
    assert run(*command) == 1
    err = capsys.readouterr().err
    assert "unheard_of: is not in the data set" in err
    assert f"{NAMES[2]}: has class 20, but the data set's are 0 to 19." in err
    assert f"{NAMES[1]}: its maps are (5, 5), but its photo is (44, 60) (height, width). Give the data set" in err


def test_label_maps_with_the_seeds(voc):
    shutil.rmtree("seeds")
    command = ["seeds", "voc", "--root", voc, *VOC_SCALES, "--output", "seeds", "--label-maps", "labels"]
    assert run(*command) == 0
    assert all(np.array_equal(opened("labels", name), expected(name, 0.15)) for name in NAMES)
    classes = {"wsol": {14}, "psa": {0}}
    for format, alone in classes.items():  # which do not tell the class, or the size of a photo without classes
        other = Path("other") / format
        home = make_voc(other, classes=("person",) * 3)
        if format == "psa":
            (home / "Annotations" / f"{NAMES[0]}.xml").write_text("<annotation/>")
        arguments = ["seeds", "voc", "--root", home, *VOC_SCALES, "--format", format, "--output", other / "seeds"]
        assert run(*arguments, "--label-maps", other / "labels") == 0
        found = {int(label) for label in np.unique(opened(other / "labels", NAMES[0]))}
        assert found - {0} <= {key + 1 for key in alone} if format == "wsol" else found == {0}
    assert run(*command, "--resume", "--threshold", "0.3") == 0  # changes no seed
    assert all(np.array_equal(opened("labels", name), expected(name, 0.3)) for name in NAMES)


def test_crf(voc, capsys):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 could not be built here")
    assert run("labels", "seeds", "--output", "irn", "--crf", "irn", "--overlay", "over") == 0
    assert "6 label maps at 0.15 in irn" in capsys.readouterr().out
    assert run("labels", "seeds", "--output", "confident", "--crf", "irn", "--confident") == 0
    assert run("labels", "seeds", "--output", "other", "--crf", "irn", "--confident", "0.01,0.6") == 0
    assert run("labels", "seeds", "--output", "psa", "--crf", "psa") == 0
    for index, name in enumerate(NAMES):
        seed = load_seed(f"seeds/{name}.npy")
        photo = Image.open(voc / "JPEGImages" / f"{name}.jpg")
        keys = seed.keys.numpy()
        assert np.array_equal(opened("irn", name), crf_labels(photo, seed.high_res, keys, 0.15))
        for folder, thresholds in (("confident", (0.05, 0.3)), ("other", (0.01, 0.6))):
            labels = confident_labels(photo, seed.high_res, keys, *thresholds)
            assert np.array_equal(opened(folder, name), labels)
        for alpha in (4, 24):
            content = np.load(f"psa/alpha-{alpha}/{name}.npy", allow_pickle=True).item()  # as PSA reads it
            assert list(content) == [0, *(key + 1 for key in shapes(index)[2])]
            scores = crf_scores(photo, seed.high_res, alpha)
            assert np.array_equal(np.array(list(content.values())), scores)
    time = Path(f"psa/alpha-4/{NAMES[0]}.npy").stat().st_mtime_ns
    Path(f"psa/alpha-24/{NAMES[2]}.npy").unlink()
    assert run("labels", "seeds", "--output", "psa", "--crf", "psa", "--resume") == 0
    assert Path(f"psa/alpha-24/{NAMES[2]}.npy").exists()
    assert Path(f"psa/alpha-4/{NAMES[0]}.npy").stat().st_mtime_ns == time


def test_the_best_threshold_after_crf(voc, capsys):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 could not be built here")
    command = ["labels", "seeds", "--crf", "irn", "--limit", "3", "--output"]
    assert run(*command, "after", "--threshold", "best", "--best-photos", "2") == 0
    out = capsys.readouterr().out
    [(threshold, miou)] = re.findall(r"3 label maps at (\S+) \(the best after the CRF: mIoU (\S+)\) in after", out)
    assert f"{miou} at {threshold}" in out  # of the rounds
    assert run("evaluate", "voc", "--root", voc, "--limit", "1", "--label-maps", "after", "--json", "out.json") == 0
    assert run(*command, "fixed", "--threshold", threshold) == 0
    for name in NAMES[:3]:
        assert np.array_equal(opened("after", name), opened("fixed", name))
    capsys.readouterr()
    assert run(*command, "confident", "--confident", "best", "--root", voc, "--dataset", "voc") == 0
    assert run("labels", "seeds", "--limit", "3", "--threshold", "best", "--output", "before") == 0
    out = capsys.readouterr().out
    pattern = r"confident at (\S+),(\S+) \(around (\S+), the best before the CRF: mIoU (\S+)\), in confident"
    [(low, high, around, miou)] = re.findall(pattern, out)
    assert f"3 label maps at {around} (the best: mIoU {miou}) in before" in out
    assert (float(low), float(high)) == confident_around(float(around))


@pytest.mark.usefixtures("voc")
def test_backgrounds_and_confidence(capsys):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 could not be built here")
    for folder, arguments, options in (
        ("power", ["--background", "clip-es", "--power", "2"], {"background": "clip-es", "power": 2}),
        ("clip", ["--crf", "clip-es"], {"crf": "clip-es"}),
        ("likely", ["--crf", "clip-es", "--confident"], {"crf": "clip-es", "confident": 0.95}),
        ("less", ["--crf", "clip-es", "--confident", "0.6"], {"crf": "clip-es", "confident": 0.6}),
        ("toco", ["--crf", "toco", "--threshold", "0.4"], {"crf": "toco", "threshold": 0.4}),
        ("sure", ["--crf", "toco", "--confident", "0.3,0.6"], {"crf": "toco", "confident": (0.3, 0.6)}),
    ):
        assert run("labels", "seeds", "--output", folder, "--limit", "1", *arguments) == 0
        write_label_maps("seeds", f"{folder}2", limit=1, show_progress=False, **options)
        assert Path(f"{folder}/{NAMES[0]}.png").read_bytes() == Path(f"{folder}2/{NAMES[0]}.png").read_bytes()
        settings = [Record.read(Path(one)).runs[0].settings for one in (folder, f"{folder}2")]
        assert settings[0] == settings[1]
    out = capsys.readouterr().out
    assert "1 label map in power" in out
    assert "1 label map at 0.4 in toco" in out


def test_score_maps_of_wsolevaluation(voc):
    root = make_folder(Path("photos"))
    assert run("seeds", "folder", "--root", root, *MODEL, "--size", "32", "--format", "wsol", "--output", "wsol") == 0
    assert run("labels", "wsol", "--output", "labels", "--threshold", "0.4") == 0
    for index in range(4):
        seed = load_seed(f"wsol/photo_{index}.npy", size=(44, 60))
        assert np.array_equal(opened("labels", f"photo_{index}"), seed.high_res[0] > 0.4)


@pytest.mark.usefixtures("voc")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--output", "labels"], "nowhere: no such folder of seeds"),
        (["data", "--output", "labels"], "data: has no seeds (NAME.npy)"),
        (["seeds", "--output", "seeds"], "--output seeds: is the folder of the seeds"),
        (["seeds", "--output", "labels", "--overlay", "labels"], "--overlay labels: is the folder of --output"),
        (["seeds", "--output", "labels", "--confident"], "--confident: requires --crf irn"),
        (["seeds", "--output", "labels", "--crf", "irn", "--confident", "0.3,0.1"], "the first must not be greater"),
        (["seeds", "--output", "labels", "--crf", "psa", "--overlay", "over"], "cannot be used with --crf psa"),
        (["seeds", "--output", "seeds/crf", "--crf", "psa"], "--output seeds/crf: is inside the folder of the seeds"),
        (["seeds", "--output", "labels", "--alpha", "3"], "--alpha: requires --crf psa"),
        (["seeds", "--output", "labels", "--crf", "psa", "--threshold", "0.2"], "cannot be used with --crf psa"),
        (["seeds", "--output", "labels", "--crf", "irn", "--confident", "--threshold", "best"], "with --confident"),
        (["seeds", "--output", "labels", "--dataset", "coco"], "--dataset: requires --root"),
        (["seeds", "--output", "labels", "--dataset", "folder", "--split", "x"], "--dataset folder has no splits"),
        (
            ["seeds", "--output", "labels", "--overlay", "o", "--split", "nonsense"],
            "has no ImageSets/Segmentation/nonsense",
        ),
        (["seeds", "--output", "labels", "--power", "2"], "--power: requires --background clip-es"),
        (["seeds", "--output", "labels", "--background", "clip-es", "--threshold", "0.2"], "--background constant"),
        (["seeds", "--output", "labels", "--crf", "irn", "--confident", "0.9"], "--confident 0.9: expects two numbers"),
        (["seeds", "--output", "labels", "--best-photos", "9"], "--best-photos 9: expects a whole number above 0, and"),
        (["seeds", "--output", "labels", "--threshold", "worst"], "'worst' is not a number in [0, 1)"),
        (["seeds", "--output", "labels", "--threshold", "best", "--root", "nowhere"], "--root: nowhere"),
    ],
)
def test_arguments_that_cannot_be(arguments, says, capsys):
    if "--crf" in arguments:
        pytest.importorskip("pydensecrf", reason="pydensecrf2 could not be built here")
    assert run("labels", *arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.usefixtures("voc")
def test_crf_without_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    assert run("labels", "seeds", "--output", "labels", "--crf", "irn") == 2
    assert 'pip install "captum_regioncam[crf]"' in capsys.readouterr().err
