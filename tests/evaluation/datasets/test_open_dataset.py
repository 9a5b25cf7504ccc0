import hashlib
import importlib
import inspect
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from made_datasets import NAMES, make_coco, make_cub, make_folder, make_ilsvrc, make_openimages, make_voc, shapes
from PIL import Image

from captum_regioncam.evaluation import (
    Coco,
    Cub200,
    Ilsvrc2012,
    OpenImages30k,
    PhotoFolder,
    Sample,
    Voc2012,
    datasets,
    open_dataset,
)
from captum_regioncam.evaluation.datasets import LAYOUTS
from captum_regioncam.evaluation.datasets.base import fingerprint_of, source_of

MAKE = {
    "voc": make_voc,
    "coco": make_coco,
    "ilsvrc": make_ilsvrc,
    "cub": make_cub,
    "openimages": make_openimages,
    "folder": make_folder,
}


@pytest.mark.parametrize(
    ("name", "kind", "split", "labels"),
    [
        ("voc", Voc2012, "train", "xml"),
        ("coco", Coco, "val2014", None),
        ("ilsvrc", Ilsvrc2012, None, None),
        ("cub", Cub200, "test", None),
        ("openimages", OpenImages30k, "test", None),
        ("folder", PhotoFolder, None, None),
    ],
)
def test_every_layout_with_its_defaults(tmp_path, monkeypatch, name, kind, split, labels):
    root = MAKE[name](tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    dataset, direct = open_dataset(name, root.relative_to(tmp_path)), kind(root)
    assert type(dataset) is kind
    assert dataset.source == {"dataset": name, "root": str(root.resolve()), "split": split, "labels": labels}
    assert direct.source == {}
    assert (dataset.names, dataset.fingerprint()) == (direct.names, direct.fingerprint())
    again = pickle.loads(pickle.dumps(dataset))
    assert again.source == dataset.source
    for found in (dataset[1], again[1]):
        assert (found.name, found.keys, found.targets) == (direct[1].name, direct[1].keys, direct[1].targets)
        assert (
            np.array_equal(found.labels, direct[1].labels)
            if LAYOUTS[name].truth != "boxes"
            else found.boxes.shape == (1, 4)
        )
    truth = open_dataset(name, root, ground_truth=False)[1]
    assert truth.labels is None
    assert (truth.boxes is None) == (name != "ilsvrc")


def test_splits_and_labels(tmp_path):
    home = make_voc(tmp_path / "voc")
    dataset = open_dataset("voc", tmp_path / "voc", split="val", labels_from="mask")
    assert dataset.names == NAMES[:1]
    assert dataset.source == {"dataset": "voc", "root": str(tmp_path / "voc"), "split": "val", "labels": "mask"}
    (home / "Annotations" / f"{NAMES[0]}.xml").unlink()
    assert dataset[0].keys == shapes(0)[2]
    make_coco(tmp_path / "coco", split="train2017")
    coco = open_dataset("coco", tmp_path / "coco", split="train2017")
    assert coco.source["split"] == "train2017"
    with pytest.raises(ValueError, match=r"coco: not a COCO folder: has no val2014, no annotations/instances_val2014"):
        open_dataset("coco", tmp_path / "coco")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "imagenet"}, "name='imagenet': expects one of voc, coco, ilsvrc, cub, openimages, folder."),
        ({"name": "folder", "split": "val"}, "split='val': the layout folder has no splits."),
        ({"name": "coco", "labels_from": "xml"}, "labels_from='xml': the layout coco has only one source of labels."),
        ({"name": "voc", "labels_from": "png"}, "labels_from='png': expects 'xml' or 'mask'."),
    ],
)
def test_arguments_that_a_layout_does_not_have(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        open_dataset(root=tmp_path, **arguments)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layouts_defaults_are_its_class_s(name):
    layout = LAYOUTS[name]
    kind = getattr(importlib.import_module(layout.module), layout.class_name)
    given = {"split": layout.split, "labels_from": layout.labels_from}
    given |= {"ground_truth": True} if layout.optional_truth else {}
    defaults = {
        name: argument.default for name, argument in inspect.signature(kind).parameters.items() if name != "root"
    }
    assert {"masks": None, "crowds": "include"}.items() >= {name: defaults.pop(name) for name in layout.options}.items()
    assert not layout.optional_split or defaults.pop("split", 0) is None
    assert {argument: value for argument, value in given.items() if value is not None} == defaults


def test_the_list_of_layouts_imports_neither_torch_nor_numpy_nor_pillow():
    program = (
        "import sys; from captum_regioncam.evaluation.datasets import LAYOUTS; assert len(LAYOUTS) == 6; "
        "print({'torch', 'numpy', 'PIL', *(layout.module for layout in LAYOUTS.values())} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_the_classes_are_there_when_they_are_used():
    assert {"Voc2012", "PhotoData", "VOC_CLASSES"} <= set(dir(datasets)) >= set(datasets.__all__)
    assert datasets.Voc2012 is Voc2012
    assert datasets.VOC_CLASSES[14] == "person"
    with pytest.raises(AttributeError, match=r"datasets' has no attribute 'Cityscapes'"):
        datasets.Cityscapes  # noqa: B018


def test_fingerprints(tmp_path):
    index = tmp_path / "index.txt"
    index.write_text("tabby\n")
    # As records of version 0.2 have them: of the lists as Python prints them, and the hash of each file.
    of_names = b"(['tabby', 'tiger'], ['cat'])"
    of_file = hashlib.sha256(b"tabby\n").hexdigest().encode()
    assert fingerprint_of(("tabby", "tiger"), ["cat"]) == hashlib.sha256(of_names).hexdigest()[:16]
    with_file = fingerprint_of(["tabby", "tiger"], ("cat",), [index])
    assert with_file == hashlib.sha256(of_names + of_file).hexdigest()[:16]
    index.write_text("tabby\ntiger\n")
    assert fingerprint_of(["tabby", "tiger"], ["cat"], [index]) != with_file
    dataset = PhotoFolder(make_folder(tmp_path / "photos"))
    assert dataset.fingerprint() == fingerprint_of(dataset.names, ["foreground"], [tmp_path / "photos" / "index.json"])


class Cats:
    """A data set of one's own, as PhotoData says."""

    names, classes = ("tabby", "tiger"), ("cat",)

    def __getitem__(self, index):
        return Sample(self.names[index], Image.new("RGB", (8, 6)), [0], [281 + index])


def test_the_source_of_a_data_set_of_ones_own(tmp_path):
    cats = Cats()
    unknown = {"root": None, "split": None, "labels": None}
    assert source_of(cats) == {"dataset": f"{__name__}:Cats", **unknown}
    cats.source = {"dataset": "cats", "split": "small", "curator": "me"}
    assert source_of(cats) == {"dataset": "cats", **unknown, "split": "small"}
    root = make_folder(tmp_path / "photos")
    assert source_of(PhotoFolder(root))["dataset"] == "captum_regioncam.evaluation.datasets.folder:PhotoFolder"
    dataset = open_dataset("folder", root)
    assert source_of(dataset) == dataset.source
