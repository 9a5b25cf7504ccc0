"""The best, the median and the worst photos, drawn."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import made_datasets
import numpy as np
import pytest
import torch
from made_datasets import colour_classifier, everything, make_ilsvrc
from PIL import Image

from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation import evaluate, evaluate_seeds, label_map, load_seed, open_dataset, write_seeds
from captum_regioncam.evaluation.scoring.gallery import sections_of
from captum_regioncam.evaluation.scoring.pictures import SIDE, map_picture, small
from captum_regioncam.evaluation.scoring.sheet import Entry, sheet

QUIET = {"layers": ["relu1", "relu2"], "show_progress": False}


class Shapes(made_datasets.Shapes):
    names = ("one", "<two> & two", "deep/three", "four", "five")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Table(HTMLParser):
    """The cells of a page's table, and the addresses of its pictures; whatever names an address elsewhere."""

    def __init__(self, page):
        super().__init__()
        self.lines, self.elsewhere = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append({"text": [], "value": given.get("data-value")})
        elif tag == "img":
            self.lines[-1][-1]["picture"] = given["src"]
        self.elsewhere += [given[name] for name in ("src", "href") if name in given and given[name][:5] != "data:"]

    def handle_data(self, text):
        if self.lines and self.lines[-1]:
            self.lines[-1][-1]["text"].append(text)


def picture_of(cell):
    content = base64.b64decode(cell["picture"].split(",")[1])
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image


def test_best_median_and_worst():
    scores = {str(number): float(number) for number in range(100)}
    sections = sections_of(scores)
    assert sections["best"] == [str(number) for number in range(99, 79, -1)]
    assert sections["median"] == [str(number) for number in range(59, 39, -1)]
    assert sections["worst"] == [str(number) for number in range(20)]
    assert sections_of({}) == {"best": [], "median": [], "worst": []}
    few = sections_of({"a": 1.0, "b": 4.0, "c": 2.0, "d": 3.0})
    assert few == {"best": ["b", "d"], "median": ["d", "c"], "worst": ["a", "c"]}


def test_a_gallery_of_maps_and_seeds(caplog):
    data, classifier = Shapes(), colour_classifier()
    write_seeds(classifier, data, "seeds", method="layer-cam", **QUIET)
    report = evaluate(classifier, data, ["grad-cam"], seeds={"layer cam/seeds": "seeds"}, gallery="shown", **QUIET)
    sheets = [f"{stem}-{section}.png" for stem in ("grad-cam", "layer-cam-seeds") for section in
              ("best", "median", "worst")]  # fmt: skip
    assert sorted(path.name for path in Path("shown").glob("[!.]*")) == sorted([*sheets, "index.html"])
    with Image.open("shown/grad-cam-best.png") as image:
        assert image.width == 2 * (4 * 208 + 16) + 8  # two photos a line, four pictures each
    page = Path("shown/index.html").read_text()
    table = Table(page)
    assert table.elsewhere == []
    assert "default-src 'none'" in page
    header, *lines = table.lines
    assert [cell["text"][0] for cell in header] == [
        "name", "photo", "truth", "Grad-CAM: IoU", "map", "labels", "layer cam/seeds: IoU", "map", "labels",
    ]  # fmt: skip
    rows = {(row["photo"], row["method"]): row for row in report.photos}
    best = sorted(data.names, key=lambda name: -rows[name, "grad-cam"]["best_mean_iou"])
    assert [line[0]["text"][0] for line in lines] == best  # sorted by the first method
    for line, name in zip(lines, best, strict=True):
        place = data.names.index(name)
        assert line[0]["text"][1] == "; ".join(data.classes[key] for key in data[place].keys)
        assert float(line[6]["value"]) == pytest.approx(rows[name, "layer cam/seeds"]["best_mean_iou"], abs=1e-4)
        assert line[3]["text"][1] in ("best", "median", "worst")
        np.testing.assert_array_equal(np.asarray(picture_of(line[2])), data[place].labels)
        seed = load_seed(f"seeds/{name}.npy")
        labels = label_map(seed.high_res, seed.keys, report.scores["layer cam/seeds"]["best_threshold"])
        np.testing.assert_array_equal(np.asarray(picture_of(line[8])), labels)
        assert (
            np.abs(np.asarray(picture_of(line[1])).astype(int) - np.asarray(data[place].photo)).mean() < 15
        )  # of JPEG
    evaluate_seeds("seeds", data, gallery="shown", show_progress=False)  # replaces the older gallery
    assert "replacing 7 results of other settings" in caplog.text
    assert sorted(path.name for path in Path("shown").glob("[!.]*"))[1:] == [
        f"seeds-in-seeds-{section}.png" for section in ("best", "median", "worst")
    ]


def test_boxes_are_drawn():
    data = open_dataset("ilsvrc", make_ilsvrc(Path("data"), photos=1))
    cam = np.zeros((224, 224), np.float32)
    cam[60:120, 30:90] = 1
    Path("seeds").mkdir()
    np.save(f"seeds/{data.names[0]}.npy", cam)
    report = evaluate_seeds("seeds", data, gallery="shown", show_progress=False)
    [header, line] = Table(Path("shown/index.html").read_text()).lines
    assert [cell["text"][0] for cell in header[1:]] == ["photo", "truth", "seeds in seeds: IoU", "map", "box"]
    assert float(line[3]["value"]) == report.photos[0]["iou"]
    truth, box = (np.asarray(picture_of(line[column])).astype(int) for column in (2, 5))
    rows, columns = (np.abs(truth - box).sum(2) > 120).nonzero()  # where only the red box is
    edges = [columns.min(), columns.max(), rows.min(), rows.max()]
    np.testing.assert_allclose(edges, [30 * 60 / 224, 90 * 60 / 224, 60 * 44 / 224, 120 * 44 / 224], atol=4)


def test_the_user_s_files_stay(caplog):
    data, classifier = Shapes(), colour_classifier()
    options = {**QUIET, "gallery": "shown"}
    Path("shown").mkdir()
    evaluate(classifier, data, ["grad-cam"], **options)
    Path("shown/index.html").write_text("edited")
    Path("shown/notes.txt").write_text("mine")
    evaluate(classifier, data, ["grad-cam"], **options)
    assert Path("shown/index.html").read_text() == "edited"
    assert "index.html has changed since this command wrote it, and stays as it is" in caplog.text
    Path("shown/index.html").unlink()
    evaluate(classifier, data, ["grad-cam"], **options)
    assert Path("shown/notes.txt").read_text() == "mine"
    assert Path("shown/index.html").read_text().startswith("<!DOCTYPE html>")
    Path("shown/cam-best.png").write_text("mine")
    before = everything("shown")
    with pytest.raises(ArgumentError, match=r"gallery='shown': has cam-best\.png, which this package did not write"):
        evaluate(classifier, data, ["cam"], **options)
    assert everything("shown") == before


def test_a_photo_that_fails_only_now(caplog):
    class Breaks(Shapes):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            if self.reads > len(self.names) and index == 0:
                raise OSError("a bad disk")
            return super().__getitem__(index)

    report = evaluate(colour_classifier(), Breaks(), ["grad-cam"], gallery="shown", **QUIET)
    assert report.failures == {}
    assert "one is not in the gallery: a bad disk" in caplog.text
    assert len(Table(Path("shown/index.html").read_text()).lines) == 5


def test_sheets_of_long_names_and_photos_of_nothing():
    content = io.BytesIO()
    Image.new("RGB", (30, 60), "red").save(content, format="PNG")
    entry = Entry("a/very/long/name/" * 20, "class\n; " * 90, 12.34, {"photo": content.getvalue()})
    image = np.asarray(sheet("title", [entry] * 3))
    assert image.shape[1] == 2 * 224 + 8
    red = (image == (255, 0, 0)).all(2)
    assert red.sum() == 3 * 30 * 60  # small pictures are not enlarged
    assert sheet("nothing", []).size == (232, 56)


def test_large_photos_become_small():
    labels = Image.fromarray(np.repeat(np.array([[3], [200]], np.uint8), 300, axis=0).repeat(1200, axis=1))
    labels.putpalette(list(range(256)) * 3)
    assert small(labels).size == (SIDE, SIDE // 2)
    assert np.unique(small(labels)).tolist() == [3, 200]  # no label in between
    photo = Image.new("RGB", (300, 600), "gray")
    maps = torch.zeros(2, 600, 300)
    maps[1, 300:] = 1
    drawn = np.asarray(map_picture(photo, maps)).astype(int)
    assert drawn.shape == (SIDE, SIDE // 2, 3)
    assert drawn[-9, 9, 0] > drawn[-9, 9, 2]  # red where the second map is high
    assert drawn[9, 9, 2] > drawn[9, 9, 0]
    assert small(Image.new("L", (9000, 1))).size == (SIDE, 1)
    nothing = np.asarray(map_picture(photo, torch.zeros(0, 600, 300)))
    assert (nothing == nothing[0, 0]).all()
