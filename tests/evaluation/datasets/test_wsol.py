"""wsolevaluation's data sets: what is read of its metadata, and scores as its evaluation.py computes them."""

import cv2
import numpy as np
import pytest
import torch
from commands import run, scores_in
from made_datasets import ColourNet, make_cub, make_openimages, make_wsol, shapes
from PIL import Image

from captum_regioncam import LayerRegionCam
from captum_regioncam.evaluation import (
    Classifier,
    Cub200,
    Ilsvrc2012,
    OpenImages30k,
    Protocol,
    evaluate,
    evaluate_seeds,
    open_dataset,
    write_seeds,
)
from captum_regioncam.evaluation.metrics.localization import squash_boxes
from captum_regioncam.evaluation.metrics.pixels import PixelCurves


def test_cub(tmp_path):
    dataset = Cub200(make_cub(tmp_path))
    assert dataset.names == ["001.Red_bird/0.jpg", "001.Red_bird/1.jpg", "003.Blue_bird/2.jpg", "001.Red_bird/3.jpg"]
    assert dataset.outputs == len(dataset.classes) == 200
    assert dataset.classes[:4] == ["Red_bird", "1", "Blue_bird", "3"]  # nobody names the others
    for index, sample in enumerate(dataset):
        assert sample.keys == sample.targets == shapes(index)[2][:1]
        assert sample.boxes.tolist() == [[4, 8 + index, 21, 29]]
    (tmp_path / "metadata/CUB/test/localization.txt").unlink()
    without = Cub200(tmp_path, ground_truth=False)[2]
    assert (without.name, without.boxes) == ("003.Blue_bird/2.jpg", None)
    with pytest.raises(ValueError, match=r"not a wsolevaluation CUB folder: has no metadata/CUB/test/localization.txt"):
        Cub200(tmp_path)
    with pytest.raises(ValueError, match=r"^split: .*: has no metadata/CUB/val/image_ids.txt, no .*image_sizes.txt\.$"):
        open_dataset("cub", make_cub(tmp_path / "other"), split="val")


def test_boxes_are_in_the_pixels_of_the_listed_size(tmp_path):
    root = make_cub(tmp_path)
    name = "001.Red_bird/0.jpg"
    lines = root / "metadata/CUB/test/localization.txt"
    lines.write_text(f"{name},10,11,40,30\n{name},0,0,59,43\n{lines.read_text()}")
    sample = Cub200(root)[0]
    assert sample.boxes.tolist() == [[10, 11, 40, 30], [0, 0, 59, 43], [4, 8, 21, 29]]
    expected = [[int(x * 224 / 60), int(y * 224 / 44)] for box in sample.boxes for x, y in (box[:2], box[2:])]
    assert squash_boxes(sample.boxes, (60, 44)).reshape(-1, 2).tolist() == expected
    path = root / "dataset/CUB" / name
    Image.open(path).resize((120, 88)).save(path)
    assert Cub200(root)[0].boxes.tolist() == [[20, 22, 80, 60], [0, 0, 118, 86], [8, 16, 42, 58]]


def test_ilsvrc_in_either_layout(tmp_path):
    root = tmp_path / "root"
    names = make_wsol(root, "ILSVRC"), make_wsol(root, "ILSVRC", "val")
    for split, expected in ((None, names[0]), ("test", names[0]), ("val", names[1])):
        dataset = open_dataset("ilsvrc", root, split=split)
        assert dataset.names == expected
        assert (dataset.source["split"], dataset.truth, dataset.outputs) == (split, "boxes", 1000)
        assert dataset[2].boxes.tolist() == [[4, 10, 21, 29]]
        assert dataset[2].keys == [2]
        assert dataset.classes[2] == "2"
    assert names[1][2] == "val2/2/2.jpg"
    assert Ilsvrc2012(root).fingerprint() != Ilsvrc2012(root, "val").fingerprint()
    (tmp_path / "plain").mkdir()
    with pytest.raises(ValueError, match=r"^split='val': only wsolevaluation's layout has splits, and root=.*plain'"):
        open_dataset("ilsvrc", tmp_path / "plain", split="val")


def read_mask(path):
    """A mask as wsolevaluation reads it."""
    return cv2.resize(np.float32(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)), (224, 224), None, 0, 0, 0) > 0.5


def test_openimages(tmp_path):
    root = make_openimages(tmp_path)
    dataset = OpenImages30k(root)
    assert dataset.names[2] == "test/0bt_c5/2.jpg"
    assert (dataset.classes[:3], dataset.outputs) == (["0bt_c3", "1", "0bt_c5"], 100)
    folder = root / "dataset/OpenImages/test/0bt_c5"
    inside = read_mask(folder / "2_m1.png") | read_mask(folder / "2_m2.png")
    expected = np.where(inside, 3, np.where(read_mask(folder / "2_ignore.png"), 255, 0))
    sample = dataset[2]
    assert (sample.photo.size, sample.keys) == ((60, 44), [2])
    assert np.array_equal(sample.labels, expected)
    assert {*np.unique(expected)} == {0, 3, 255}
    assert OpenImages30k(root, ground_truth=False)[2].labels is None
    lines = root / "metadata/OpenImages/test/localization.txt"
    lines.write_text(lines.read_text().replace(",test/0bt_c5/2_ignore.png", ","))
    assert np.array_equal(OpenImages30k(root)[2].labels, np.where(inside, 3, 0))  # nothing is ignored


@pytest.mark.parametrize("size", [(1, 1), (7, 224), (223, 225), (300, 448), (683, 1024), (1024, 768)])
def test_masks_are_squashed_as_by_opencv(tmp_path, chance, size):
    root = make_openimages(tmp_path, photos=1)
    pixels = np.random.default_rng(chance.randrange(1 << 32)).integers(0, 2, size[::-1]).astype(np.uint8) * 255
    folder = root / "dataset/OpenImages/test/0bt_c3"
    for name, content in (("0_m1", pixels), ("0_m2", 0 * pixels), ("0_ignore", 255 - pixels)):
        Image.fromarray(content).save(folder / f"{name}.png")
    expected = np.where(read_mask(folder / "0_m1.png"), 1, 255)
    assert np.array_equal(OpenImages30k(root)[0].labels, expected)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "class_labels",
            (",0\n", ",200\n"),
            r"class_labels.txt: line 1 cannot be read \('200' is not a whole number from 0",
        ),
        ("class_labels", (",0\n", "\n"), r"class_labels.txt: line 1 cannot be read \(1 fields instead of 2\)"),
        ("localization", (",21,", ",wide,"), r"localization.txt: line 1 cannot be read \(could not convert string"),
        ("localization", (",21,", ",-1,"), r"localization.txt: line 1 cannot be read \('-1' is not a whole number"),
        ("image_sizes", (",60,", ",0,"), r"image_sizes.txt: line 1 cannot be read \('0' is not a whole number from 1"),
        ("image_ids", ("001.", "../"), r"image_ids.txt: '../Red_bird/0.jpg' leads out of the data set's folder"),
    ],
)
def test_lists_that_are_broken(tmp_path, file, change, message):
    root = make_cub(tmp_path)
    path = root / f"metadata/CUB/test/{file}.txt"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ValueError, match=message):
        Cub200(root)


def test_a_photo_without_its_line_costs_only_itself(tmp_path):
    make_cub(tmp_path)
    for number, file in enumerate(("class_labels", "localization", "image_sizes")):
        path = tmp_path / f"metadata/CUB/test/{file}.txt"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:number], *lines[number + 1 :]]))
    dataset = Cub200(tmp_path)
    for number, file in enumerate(("class_labels", "localization", "image_sizes")):
        with pytest.raises(ValueError, match=rf"{dataset.names[number]}: has no line in .*{file}.txt"):
            dataset[number]
    assert dataset[3].keys == [0]


def test_masks_that_are_broken(tmp_path):
    root = make_openimages(tmp_path)
    path = root / "metadata/OpenImages/test/localization.txt"
    text = path.read_text()
    (root / "dataset/OpenImages/test/0bt_c3/1_m2.png").unlink()
    path.write_text(text.replace("0_m2.png,\n", "0_m2.png,test/0bt_c3/0_ignore.png\n"))
    dataset = OpenImages30k(root)
    with pytest.raises(
        ValueError, match=r"localization.txt: names a region to be ignored after the first line of .*/0.j"
    ):
        dataset[0]
    with pytest.raises(ValueError, match=r"1_m2.png: cannot be read"):
        dataset[1]
    assert dataset[2].keys == [2]
    path.write_text("".join(line for line in text.splitlines(keepends=True) if "/0.jpg" not in line))
    with pytest.raises(ValueError, match=r"test/0bt_c3/0.jpg: has no line in .*localization.txt"):
        OpenImages30k(root)[0]
    path.write_text(text.replace("test/0bt_c3/0_m2.png", "../../secret.png"))
    with pytest.raises(ValueError, match=r"localization.txt: '../../secret.png' leads out of the data set's folder"):
        OpenImages30k(root)


def average_precision(maps, masks):
    """PxAP as wsolevaluation's MaskEvaluator computes it, with its bins, in percent."""
    edges = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
    true, false = (
        sum(np.histogram(cam[mask == value], edges)[0] for cam, mask in zip(maps, masks, strict=True))
        for value in (1, 0)
    )
    tp, fp = true[::-1].cumsum(), false[::-1].cumsum()
    filled = (tp + fp) != 0
    precision = tp / np.maximum(tp + fp, 1)
    return 100 * (precision[1:] * np.diff(tp / true.sum()))[filled[1:]].sum()


def made_maps(data, count):
    """Region-CAM of the network of that many classes, brought to 224 x 224 as by wsolevaluation's inference.py."""
    model = ColourNet(count).eval()
    classifier = Classifier(model, size=32, resize="squash")
    cam = LayerRegionCam(model, [model.relu1, model.relu2])
    for sample in data:
        x = classifier.preprocess(classifier.fit(sample.photo)[1])
        pixels = cam.attribute(x, sample.targets[0])[0, 0].double().numpy()
        pixels = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_CUBIC)
        pixels -= pixels.min()
        yield pixels / pixels.max()


@pytest.mark.usefixtures("colour_factory")
def test_pxap_is_wsolevaluation_s(tmp_path, capsys):
    root = make_openimages(tmp_path / "data")
    data = OpenImages30k(root)
    network = ["--model", "colour_factory:open_net", "--layers", "relu1,relu2", "--device", "cpu", "--size", "32"]
    files = ["--json", "out.json", "--plot", "out.png"]
    assert run("evaluate", "openimages", "--root", root, *network, "--method", "region-cam,grad-cam", *files) == 0
    printed = capsys.readouterr().out
    assert "PxAP" in printed
    found = scores_in("out.json")["region-cam"]
    maps, labels = list(made_maps(data, 100)), [np.minimum(sample.labels, 254) for sample in data]
    masks = [np.where(label == 254, 255, label > 0) for label in labels]
    assert {255, 0, 1} == {*np.unique(masks)}
    assert found["pxap"] == pytest.approx(average_precision(maps, masks), abs=1e-3)
    assert 5 < found["pxap"] < 95
    counted = np.stack(masks) < 255
    inside, above = (np.stack(masks) == 1)[counted], np.stack(maps)[counted]
    ious = [(inside & (above >= t)).sum() / (inside | (above >= t)).sum() for t in found["thresholds"][::50]]
    assert found["curve"][::50] == pytest.approx([100 * iou for iou in ious], abs=0.02)
    assert found["piou"] == max(found["curve"])
    assert found["best_threshold"] == found["thresholds"][np.argmax(found["curve"])]
    report = evaluate(
        Classifier(ColourNet(100).eval(), 32), data, protocol=Protocol.wsol(), layers=["relu1", "relu2"],
        show_progress=False,
    )  # fmt: skip
    assert report.scores["region-cam"]["pxap"] == pytest.approx(found["pxap"])


@pytest.mark.usefixtures("colour_factory")
def test_boxes_are_scored_as_by_wsolevaluation(tmp_path):
    root = make_cub(tmp_path / "data")
    network = ["--model", "colour_factory:bird_net", "--layers", "relu1,relu2", "--device", "cpu", "--size", "32"]
    assert run("evaluate", "cub", "--root", root, *network, "--json", "out.json") == 0
    found = scores_in("out.json")["region-cam"]
    data = Cub200(root)
    hits = np.zeros(100)
    for sample, cam in zip(data, made_maps(data, 200), strict=True):
        pixels = (cam * 255).astype(np.uint8)[..., None]
        [truth] = squash_boxes(sample.boxes, sample.photo.size)
        for number, threshold in enumerate(np.arange(0, 1, 0.01)):
            _, above = cv2.threshold(pixels, int(threshold * pixels.max()), 255, cv2.THRESH_BINARY)
            contours = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
            x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea)) if contours else (0, 0, 0, 0)
            box = np.array([x, y, min(x + width, 223), min(y + height, 223)])
            sides = np.minimum(box[2:], truth[2:]) - np.maximum(box[:2], truth[:2]) + 1
            areas = (box[2:] - box[:2] + 1).prod() + (truth[2:] - truth[:2] + 1).prod()
            both = max(0, sides[0]) * max(0, sides[1])
            hits[number] += both / (areas - both) >= 0.5
    assert found["curve"] == pytest.approx(list(100 * hits / 4))
    assert found["max_box_acc"] == 25 * hits.max()


def test_what_is_not_scored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = open_dataset("openimages", make_openimages(tmp_path / "data"))
    classifier = Classifier(ColourNet(100).eval(), 32, resize="crop")
    with pytest.raises(ValueError, match=r"^resize='crop': the masks are for whole photos; choose squash"):
        evaluate(classifier, data, show_progress=False)
    for options in (["--threshold", "0.2"], ["--box", "contour"], ["--upsample", "irn"]):
        assert run("evaluate", "openimages", "--root", "data", *options) == 2
        assert f"unrecognized arguments: {options[0]}" in capsys.readouterr().err
    assert run("evaluate", "openimages", "--root", "data", "--resize", "crop") == 2
    assert "--resize crop: the masks are for whole photos" in capsys.readouterr().err
    without = open_dataset("openimages", tmp_path / "data", ground_truth=False)
    with pytest.raises(ValueError, match="has no mask"):
        evaluate(Classifier(ColourNet(100).eval(), 32), without, layers=["relu2"], show_progress=False)


def test_score_maps_are_scored_as_the_methods_are(tmp_path):
    data = open_dataset("openimages", make_openimages(tmp_path / "data"))
    classifier = Classifier(ColourNet(100).eval(), 32)
    options = {"layers": ["relu1", "relu2"], "show_progress": False}
    write_seeds(classifier, data, tmp_path / "seeds", **options)
    csv = tmp_path / "photos.csv"
    report = evaluate(classifier, data, seeds={"seeds": tmp_path / "seeds"}, per_photo=csv, **options)
    made, read = (report.scores[row] for row in ("region-cam", "seeds"))
    assert read["pxap"] == pytest.approx(made["pxap"], abs=1e-6)
    assert 0 < made["pxap"] < 100
    again = evaluate_seeds(tmp_path / "seeds", data, gallery=tmp_path / "gallery", show_progress=False)
    [alone] = again.scores.values()
    assert alone["curve"] == pytest.approx(read["curve"])
    rows = [row for row in report.photos if row["method"] == "seeds"]
    assert [row["photo"] for row in rows] == list(data.names)
    assert rows == [row | {"method": "seeds"} for row in again.photos]
    for index, row in enumerate(rows):
        metric, sample = PixelCurves(), data[index]
        mask = np.where(sample.labels == 255, 255, sample.labels > 0)
        metric.update(torch.from_numpy(np.load(tmp_path / "seeds" / f"{sample.name}.npy")), mask)
        found = metric.compute()
        at = int((found["thresholds"] == read["best_threshold"]).nonzero())
        assert row["iou"] == pytest.approx(100 * float(found["curve"][at]), abs=1e-3)
        assert row["pxap"] == pytest.approx(100 * float(found["pxap"]), abs=1e-3)
    assert "data:image" in (tmp_path / "gallery" / "index.html").read_text()


def test_the_iou_over_the_threshold():
    metric = PixelCurves(bins=10)
    metric.update(torch.rand(4, 4), torch.zeros(4, 4))
    scores = metric.compute()
    assert torch.isnan(scores["pxap"])
    assert torch.isnan(scores["piou"])
    metric.reset()
    metric.update(torch.tensor([[0.0, 0.25], [0.5, 1.0]]), torch.tensor([[0, 1], [255, 1]]))
    scores = metric.compute()
    assert scores["curve"].tolist() == pytest.approx([2 / 3, 1, 1, *[1 / 2] * 8])
    assert [float(scores[name]) for name in ("pxap", "piou", "best_threshold")] == [1, 1, 0.1]
