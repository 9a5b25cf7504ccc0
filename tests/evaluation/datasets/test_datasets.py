import functools
import json
import re
import shutil

import numpy as np
import pytest
from made_datasets import NAMES, make_coco, make_folder, make_ilsvrc, make_voc, shapes
from PIL import Image
from pycocotools import mask

from captum_regioncam.evaluation import Coco, Ilsvrc2012, PhotoFolder, Voc2012


def test_voc(tmp_path):
    home = make_voc(tmp_path)
    for root in (tmp_path, tmp_path / "VOCdevkit", home):
        dataset = Voc2012(root)
        assert dataset.names == NAMES
    assert (len(dataset.classes), dataset.classes[14]) == (20, "person")
    for index, sample in enumerate(dataset[index] for index in range(len(dataset))):
        photo, labels, keys = shapes(index)
        assert sample.name == NAMES[index]
        assert sample.keys == sample.targets == keys
        assert np.array_equal(sample.labels, labels)
        assert np.abs(np.asarray(sample.photo).astype(int) - photo).mean() < 8  # JPEG
    assert Voc2012(tmp_path, "val").names == NAMES[:1]
    assert Voc2012(tmp_path, labels_from="mask")[1].keys == shapes(1)[2]
    assert Voc2012(tmp_path, ground_truth=False)[0].labels is None
    assert Voc2012(tmp_path, labels_from="mask", ground_truth=False)[0].labels is None


def test_voc_lists_of_photo_and_mask(tmp_path):
    home = make_voc(tmp_path)
    (home / "ImageSets/Segmentation/train_aug.txt").write_text("/JPEGImages/2007_000002.jpg /Aug/2007_000002.png\n\n")
    (home / "SegmentationClass").rename(home / "Aug")
    dataset = Voc2012(tmp_path, "train_aug")
    assert dataset.names == ["2007_000002"]
    assert np.array_equal(dataset[0].labels, shapes(1)[1])


def test_voc_says_what_is_missing(tmp_path):
    home = make_voc(tmp_path)
    with pytest.raises(ValueError, match=r"VOC2012: not a VOC 2012 folder: has no ImageSets/Segmentation/test.txt\."):
        Voc2012(tmp_path, "test")
    shutil.rmtree(home / "SegmentationClass")
    shutil.rmtree(home / "Annotations")
    with pytest.raises(ValueError, match=r"has no Annotations, no SegmentationClass"):
        Voc2012(home)
    with pytest.raises(ValueError, match=r"labels_from='png'"):
        Voc2012(home, labels_from="png")


def test_voc_files_that_are_broken(tmp_path):
    home = make_voc(tmp_path)
    dataset = Voc2012(tmp_path)
    paths = [
        home / "JPEGImages" / f"{NAMES[0]}.jpg",
        home / "SegmentationClass" / f"{NAMES[1]}.png",
        home / "Annotations" / f"{NAMES[2]}.xml",
    ]
    for index, path in enumerate(paths):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=rf"{path.name}: cannot be read"):
            dataset[index]
        path.unlink()
        with pytest.raises(ValueError, match=rf"{path.name}: cannot be read .No such file"):
            dataset[index]
    (home / "Annotations" / f"{NAMES[3]}.xml").write_text("<a><object><name>unicorn</name></object></a>")
    with pytest.raises(ValueError, match=rf"{NAMES[3]}.xml: unicorn: not among the classes of VOC 2012"):
        dataset[3]
    (home / "Annotations" / f"{NAMES[3]}.xml").write_text("<a><object></object></a>")
    with pytest.raises(ValueError, match=r"has an element without name"):
        dataset[3]
    Image.new("RGB", (60, 44)).save(home / "SegmentationClass" / f"{NAMES[4]}.png")
    with pytest.raises(ValueError, match=r"one number per pixel; this is RGB"):
        dataset[4]
    Image.new("L", (60, 44), 99).save(home / "SegmentationClass" / f"{NAMES[4]}.png")
    with pytest.raises(ValueError, match=r"label 99 is neither from 0 to 20 nor 255"):
        dataset[4]
    Image.new("P", (30, 44)).save(home / "SegmentationClass" / f"{NAMES[5]}.png")
    with pytest.raises(ValueError, match=rf"{NAMES[5]}.jpg: has 60 x 44 pixels; its ground truth has"):
        dataset[5]


def test_grayscale_and_cmyk_photos(tmp_path):
    home = make_voc(tmp_path)
    dataset = Voc2012(tmp_path)
    for index, mode in enumerate(("L", "CMYK")):
        path = home / "JPEGImages" / f"{NAMES[index]}.jpg"
        Image.open(path).convert(mode).save(path, quality=95)
        with Image.open(path) as image:
            assert image.mode == mode
        photo = dataset[index].photo
        assert (photo.mode, photo.size) == ("RGB", (60, 44))
        if mode == "CMYK":
            assert np.abs(np.asarray(photo).astype(int) - shapes(index)[0]).mean() < 12


def test_photos_turned_by_exif(tmp_path):
    """Ground truth of the stored pixels, as the reference code has it; of the turned photo where only that fits."""
    home = make_voc(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    stored = home / "JPEGImages" / f"{NAMES[0]}.jpg"
    Image.open(stored).save(stored, exif=exif, quality=95)
    sample = Voc2012(tmp_path)[0]
    assert sample.photo.size == (60, 44)
    assert np.abs(np.asarray(sample.photo).astype(int) - shapes(0)[0]).mean() < 10
    root = make_folder(tmp_path / "folder")
    photo = root / "images" / "photo_0.jpg"
    Image.open(photo).rotate(90, expand=True).save(photo, exif=exif, quality=95)
    sample = PhotoFolder(root)[0]
    assert sample.photo.size == (60, 44)  # turned back upright, as the mask is
    assert np.abs(np.asarray(sample.photo).astype(int) - shapes(0)[0]).mean() < 10


def test_photos_of_a_folder_are_turned_without_masks_too(tmp_path):
    root = make_folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: of the same size either way
    path = root / "images" / "photo_0.jpg"
    Image.open(path).rotate(180).save(path, exif=exif, quality=95)
    for ground_truth in (True, False):
        photo = PhotoFolder(root, ground_truth)[0].photo
        assert np.abs(np.asarray(photo).astype(int) - shapes(0)[0]).mean() < 10


def test_coco(tmp_path, capsys):
    dataset = Coco(make_coco(tmp_path))
    assert capsys.readouterr().out == ""  # pycocotools prints
    assert dataset.classes == ["red", "green", "blue"]
    assert dataset.names[0] == "nothing"
    nothing = dataset[0]
    assert nothing.keys == []
    assert nothing.labels.shape == (10, 20)
    assert not nothing.labels.any()
    sample = dataset[1]
    assert sample.keys == sample.targets == [0, 1, 2]  # the crowd is blue
    expected = np.zeros((44, 60), np.uint8)
    expected[:, :2] = 3
    expected[8:30, 4:22] = 1
    expected[8:30, 34:52] = 2
    assert np.array_equal(sample.labels, expected)
    assert Coco(tmp_path, ground_truth=False)[1].labels is None


def test_coco_smaller_instances_lie_on_larger_ones(tmp_path):
    root = make_coco(tmp_path)
    path = root / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    inner = {"id": 0, "image_id": 10, "category_id": 5, "iscrowd": 0, "segmentation": [[6, 10, 9, 10, 9, 13, 6, 13]]}
    content["annotations"].insert(0, {**inner, "area": 9, "bbox": [6, 10, 3, 3]})
    path.write_text(json.dumps(content))
    labels = Coco(root)[1].labels
    assert (labels[10:13, 6:9] == 3).all()
    assert labels[9, 6] == labels[13, 6] == 1


def test_coco_that_is_broken(tmp_path):
    with pytest.raises(ValueError, match=r"not a COCO folder: has no val2017, no annotations/instances_val2017.json"):
        Coco(tmp_path, "val2017")
    root = make_coco(tmp_path)
    (root / "val2014" / "nothing.jpg").unlink()
    dataset = Coco(root)
    with pytest.raises(ValueError, match=r"nothing.jpg: cannot be read"):
        dataset[0]
    path = root / "annotations" / "instances_val2014.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match=r"instances_val2014.json: cannot be read"):
        Coco(root)


def test_ilsvrc(tmp_path):
    dataset = Ilsvrc2012(make_ilsvrc(tmp_path))
    assert dataset.classes == ["n01", "n02", "n03"]
    for index in range(4):
        sample = dataset[index]
        assert sample.name == f"ILSVRC2012_val_{index + 1:08d}"
        assert sample.keys == sample.targets == shapes(index)[2][:1]
    assert sample.boxes.tolist() == [[4, 11, 21, 29]]


def test_ilsvrc_in_folders_of_classes(tmp_path):
    (tmp_path / "apart").mkdir()
    root = make_ilsvrc(tmp_path / "apart")
    home = tmp_path / "ILSVRC"
    for index, photo in enumerate(sorted((root / "ILSVRC2012_img_val").iterdir())):
        folder = home / "Data/CLS-LOC/val" / f"n0{shapes(index)[2][0] + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder)
    shutil.copytree(root / "bbox/val", home / "Annotations/CLS-LOC/val")
    dataset = Ilsvrc2012(tmp_path)
    assert len(dataset) == 4
    assert dataset.classes == sorted({f"n0{shapes(index)[2][0] + 1}" for index in range(4)})
    assert dataset[1].boxes.shape == (1, 4)


def test_ilsvrc_that_is_broken(tmp_path):
    with pytest.raises(ValueError, match=r"has no \*.JPEG in .*; no \*.xml in .*; no one of LOC_synset_mapping.txt"):
        Ilsvrc2012(tmp_path)
    root = make_ilsvrc(tmp_path)
    dataset = Ilsvrc2012(root)
    paths = sorted((root / "bbox/val").iterdir())
    text = paths[0].read_text()
    for content, says in (
        (text[:-15], "cannot be read"),
        (text.replace("n0", "n9"), "names n9"),
        ("<annotation><size><width>60</width><height>44</height></size></annotation>", "names no object"),
        (text.replace("<xmax>", "<xmax>wide"), "wide"),
        (text.replace("<width>60</width>", ""), "without size/width"),
    ):
        paths[0].write_text(content)
        with pytest.raises(ValueError, match=rf"{paths[0].name}: .*{says}"):
            dataset[0]
    paths[1].unlink()
    with pytest.raises(ValueError, match=r"ILSVRC2012_val_00000002: has no"):
        Ilsvrc2012(root)[1]


def test_ilsvrc_resized(tmp_path):
    root = make_ilsvrc(tmp_path)
    path = root / "ILSVRC2012_img_val" / "ILSVRC2012_val_00000001.JPEG"
    Image.open(path).resize((120, 88)).save(path)
    assert Ilsvrc2012(root)[0].boxes.tolist() == [[8, 16, 42, 58]]
    Image.open(path).resize((88, 88)).save(path)
    with pytest.raises(ValueError, match=r"88 x 88 pixels; its ground truth has \(60, 44\)"):
        Ilsvrc2012(root)[0]


def test_several_boxes(tmp_path):
    root = make_ilsvrc(tmp_path)
    path = root / "bbox/val/ILSVRC2012_val_00000001.xml"
    text = path.read_text()
    item = text[text.index("<object>") : text.index("</annotation>")]
    path.write_text(text.replace(item, item + item.replace("<xmin>4", "<xmin>9")))
    assert Ilsvrc2012(root)[0].boxes[:, 0].tolist() == [4, 9]


def test_folder(tmp_path):
    dataset = PhotoFolder(make_folder(tmp_path))
    assert (len(dataset), dataset.classes) == (4, ("foreground",))
    sample = dataset[2]
    assert (sample.name, sample.keys, sample.targets) == ("photo_2", [0], shapes(2)[2][:1])
    assert np.array_equal(sample.labels, shapes(2)[1] == shapes(2)[2][0] + 1)


def test_folder_that_is_broken(tmp_path):
    with pytest.raises(ValueError, match=r"not a photo folder: has no images, no index.json, no masks") as error:
        PhotoFolder(tmp_path)
    assert str(error.value).endswith(
        "Put the photos at images/NAME.jpg, and list each with the number of its class in index.json: "
        '[{"name": "NAME", "target": 285}].'
    )
    root = make_folder(tmp_path)
    (root / "images" / "photo_1.jpg").unlink()
    (root / "masks" / "photo_2.png").write_bytes(b"no image")
    dataset = PhotoFolder(root)
    with pytest.raises(ValueError, match=r"has no photo photo_1, which index.json lists"):
        dataset[1]
    with pytest.raises(ValueError, match=r"photo_2.png: not an image"):
        dataset[2]
    Image.new("L", (60, 44), 1).save(root / "masks" / "photo_3.png")
    with pytest.raises(ValueError, match=r"photo_3.png: its brightest pixel is 1; expects 255"):
        dataset[3]
    (root / "images" / "photo_0.json").write_text("{}")  # no photo
    assert PhotoFolder(root)[0].photo.size == (60, 44)
    (root / "images" / "photo_0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"photo_0 is the name of several photos"):
        PhotoFolder(root)
    (root / "images" / "photo_0.png").unlink()
    for content in ("[{", "{}x"):
        (root / "index.json").write_text(content)
        with pytest.raises(ValueError, match=r"index.json: cannot be read \("):
            PhotoFolder(root)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (3, "not subscriptable"),
        ({"name": "photo_0"}, "KeyError('target')"),
        ({"target": 0}, "KeyError('name')"),
        ({"name": ["photo_0"], "target": 0}, "a name that is not a text"),
        ({"name": "photo_0", "target": None}, "NoneType instead of a number"),
        ({"name": "photo_0", "target": 1.5}, "1.5 is not a whole number from 0"),
        ({"name": "photo_0", "target": "one"}, "could not convert string to float: 'one'"),
        ({"name": "photo_0", "target": -1}, "-1 is not a whole number from 0"),
        ({"name": "photo_0", "target": 10**400}, "is not a whole number from 0"),
        ({"name": "photo_0", "target": float("nan")}, "nan is not a whole number from 0"),
        ({"name": "photo_0", "target": float("inf")}, "inf is not a whole number from 0"),
    ],
)
def test_indexes_that_are_broken(tmp_path, entry, reason):
    root = make_folder(tmp_path)
    (root / "index.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=rf"index.json: expects a list .*{re.escape(reason)}"):
        PhotoFolder(root)


def test_index_that_is_no_list(tmp_path):
    root = make_folder(tmp_path)
    for content in ("{}", "3", '"photo_0"', "null"):
        (root / "index.json").write_text(content)
        with pytest.raises(ValueError, match=r"index.json: expects a list"):
            PhotoFolder(root)
    (root / "index.json").write_text('[{"name": 0, "target": "2"}, {"name": "photo_0", "target": 1.0}]')
    dataset = PhotoFolder(root)
    assert list(dataset.names) == ["0", "photo_0"]
    assert dataset[1].targets == [1]


def change_coco(root, change):
    """Change the annotations of a COCO data set, and open it."""
    path = root / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return Coco(root)


SQUARE = [6, 10, 9, 10, 9, 13, 6, 13]


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[*SQUARE, 1e9, 1e9]], "the coordinate 1000000000.0 in a photo of 60 x 44 pixels"),
        ([[*SQUARE, -61, 0]], "the coordinate -61 in"),
        ([[*SQUARE, 0, 89]], "the coordinate 89 in"),
        ([[*SQUARE, float("inf"), 0]], "the coordinate inf in"),
        ([[*SQUARE, float("nan"), 0]], "the coordinate nan in"),
        ([[*SQUARE, 10**400, 0]], "the coordinate 1000000000"),
        ([[*SQUARE, "6", 0]], "the coordinate '6' in"),
        ([[*SQUARE, [6], 0]], r"the coordinate [6] in"),
        ([SQUARE[:4]], "a polygon that is not a list of x, y, x, y, x, y and so on"),
        ([SQUARE[:7]], "a polygon that is not a list of x, y, x, y, x, y and so on"),
        ([SQUARE, 3], "a polygon that is not a list of x, y, x, y, x, y and so on"),
        ([[0, 0, 60, 44] * 20_000], "an outline of 4160000 pixels"),
        ([], "no polygon"),
        (None, "not subscriptable"),
        ({"counts": [88, 2552]}, "no 'size'"),
        ({"counts": [88, 2552], "size": [60, 44]}, "run lengths for a size other than 44 x 60"),
        ({"counts": [88, 2553], "size": [44, 60]}, "run lengths of 2641 pixels instead of 44 x 60"),
        ({"counts": [88], "size": [44, 60]}, "run lengths of 88 pixels"),
        ({"counts": [2728, -88], "size": [44, 60]}, "-88 is not a whole number from 0"),
        ({"counts": [88.5, 2551.5], "size": [44, 60]}, "88.5 is not a whole number from 0"),
        ({"counts": [[88], 2552], "size": [44, 60]}, "list instead of a number"),
        ({"counts": 88, "size": [44, 60]}, "not iterable"),
        ({"counts": "h2P_o1", "size": [44, 60]}, "run lengths of"),
        ({"counts": "o", "size": [44, 60]}, "compressed run lengths that end early"),
        ({"counts": "o" * 20, "size": [44, 60]}, "broken compressed run lengths"),
        ({"counts": "é", "size": [44, 60]}, "broken compressed run lengths"),
    ],
)
def test_coco_annotations_that_are_broken_cost_their_photo(tmp_path, segmentation, reason):
    root = make_coco(tmp_path)
    broken = {"id": 0, "image_id": 10, "category_id": 5, "iscrowd": 0, "segmentation": segmentation, "area": 9}
    dataset = change_coco(root, lambda content: content["annotations"].append(broken))
    name = dataset.names[1]
    with pytest.raises(
        ValueError, match=rf"instances_val2014.json: has a broken annotation of {name} \(.*{re.escape(reason)}"
    ):
        dataset[1]
    assert [dataset[index].keys for index in (0, 2)] == [[], [0, 1]]
    assert Coco(root, ground_truth=False)[1].keys == [0, 1, 2]  # of which nothing is drawn


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category_id": 2}, "2 is the id of no category"),
        ({"category_id": [1]}, "an id that is list"),
        ({"category_id": None}, "an id that is NoneType"),
        ({"area": None}, "an area that is not a number"),
        ({"area": float("nan")}, "an area that is not a number"),
        ({"segmentation": 3}, "not subscriptable"),
    ],
)
def test_coco_annotations_of_other_types(tmp_path, change, reason):
    dataset = change_coco(make_coco(tmp_path), lambda content: content["annotations"][0].update(change))
    with pytest.raises(
        ValueError, match=rf"instances_val2014.json: has a broken .* {dataset.names[1]} \(.*{re.escape(reason)}"
    ):
        dataset[1]
    assert dataset[2].keys == [0, 1]


@pytest.mark.parametrize("size", [0, -60, 60.5, float("nan"), "wide", None, [60], 10**400])
def test_coco_sizes_that_are_none(tmp_path, size):
    dataset = change_coco(make_coco(tmp_path), lambda content: content["images"][0].update(width=size))
    with pytest.raises(ValueError, match=rf"instances_val2014.json: has a broken entry for {dataset.names[1]}"):
        dataset[1]
    assert dataset[2].labels.shape == (44, 60)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("images"), "no 'images'"),
        (lambda content: content.pop("categories"), "no 'categories'"),
        (lambda content: content.update(images=3), "not iterable"),
        (lambda content: content.update(categories=[3]), "not subscriptable"),
        (lambda content: content.update(annotations=[[]]), "list indices must be integers"),
        (lambda content: content.update(annotations=None), "not iterable"),
        (lambda content: content["images"][0].pop("id"), "no 'id'"),
        (lambda content: content["images"][0].pop("file_name"), "no 'file_name'"),
        (lambda content: content["images"][0].update(file_name=3), "a name that is int"),
        (lambda content: content["images"][0].update(file_name=""), "has an empty name"),
        (lambda content: content["images"][0].update(id=11), "the id 11 is given twice"),
        (lambda content: content["images"][0].update(id="10"), "not supported between"),
        (lambda content: content["images"][0].update(id=None), "an id that is NoneType"),
        (lambda content: content["categories"][0].update(id=3), "the id 3 is given twice"),
        (lambda content: content["categories"][0].update(name=None), "a name that is NoneType"),
        (lambda content: content["annotations"][0].pop("image_id"), "no 'image_id'"),
        (lambda content: content["annotations"][0].update(image_id={}), "an id that is dict"),
        (lambda content: content["annotations"][0].update(image_id=float("nan")), "an id that is not a number"),
    ],
)
def test_coco_files_of_other_types(tmp_path, change, reason):
    root = make_coco(tmp_path)
    with pytest.raises(ValueError, match=rf"instances_val2014.json: cannot be read \(.*{re.escape(reason)}"):
        change_coco(root, change)


def test_coco_file_that_is_a_list(tmp_path):
    root = make_coco(tmp_path)
    (root / "annotations" / "instances_val2014.json").write_text("[]")
    with pytest.raises(ValueError, match=r"instances_val2014.json: cannot be read \(list indices must be integers"):
        Coco(root)


def test_coco_of_more_classes_than_8_bits_hold(tmp_path):
    """Label 255 does not count, so that the 255th class could not be seen."""

    def categories(content, count):
        content["categories"] = [{"id": number, "name": str(number)} for number in range(count)]
        content["annotations"][0]["category_id"] = count - 1

    root = make_coco(tmp_path)
    sample = change_coco(root, lambda content: categories(content, 254))[1]
    assert (sample.keys[-1], sample.labels.max()) == (253, 254)
    with pytest.raises(
        ValueError, match=r"has 255 categories, but 8-bit masks hold 254 classes. With ground_truth=False"
    ):
        change_coco(root, lambda content: categories(content, 255))
    assert Coco(root, ground_truth=False)[1].keys[-1] == 254


@pytest.mark.parametrize("width", [60, 60.0])
def test_coco_draws_what_pycocotools_draws(tmp_path, width):
    """Polygons of several parts and beyond the photo, run lengths, and compressed run lengths."""
    generator = np.random.default_rng(0)
    segmentations = [
        [generator.uniform(-20, 70, 12).tolist(), (generator.uniform(0, 44, 20)).tolist()],
        [[10, 10, 50.5, 10, 50.5, 40, 10, 40]],
    ]
    drawn = [mask.decode(mask.merge(mask.frPyObjects(polygons, 44, 60))) for polygons in segmentations]
    for _ in range(20):
        shape = np.asfortranarray(generator.random((44, 60)) < generator.choice([0.01, 0.5, 0.99]), dtype=np.uint8)
        compressed = mask.encode(shape)
        runs = np.diff(np.flatnonzero(np.diff(shape.flatten(order="F"), prepend=1 - shape[0, 0], append=2)))
        counts = ([0] if shape[0, 0] else []) + runs.tolist()
        segmentations += [
            {"size": [44, 60], "counts": compressed["counts"].decode()},
            {"size": [44, 60], "counts": counts},
        ]
        drawn += [shape, shape]

    def draw(content, segmentation):
        content["images"][0]["width"] = width
        instance = {"id": 1, "image_id": 10, "category_id": 1, "area": 1, "segmentation": segmentation}
        content["annotations"] = [instance]

    root = make_coco(tmp_path)
    for segmentation, expected in zip(segmentations, drawn, strict=True):
        dataset = change_coco(root, functools.partial(draw, segmentation=segmentation))
        assert np.array_equal(dataset[1].labels, expected)


def test_xml_that_declares_entities(tmp_path):
    home = make_voc(tmp_path)
    path = home / "Annotations" / f"{NAMES[0]}.xml"
    text = path.read_text()
    for encoding in ("utf-8", "utf-16", "latin-1"):
        declared = '<!DOCTYPE annotation [<!ENTITY name "bird">]>' + text.replace("aeroplane", "&name;")
        path.write_bytes(declared.encode(encoding))
        with pytest.raises(ValueError, match=rf"{NAMES[0]}.xml: cannot be read \(declares a document type"):
            Voc2012(tmp_path)[0]
    for encoding in ("utf-7", "none", "shift_jis"):
        path.write_text(f'<?xml version="1.0" encoding="{encoding}"?>{text}')
        with pytest.raises(ValueError, match=rf"{NAMES[0]}.xml: cannot be read \("):
            Voc2012(tmp_path)[0]
    path.write_bytes(text.encode("utf-16"))
    assert Voc2012(tmp_path)[0].keys == shapes(0)[2]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "nan", "1e300", "1000001", "-1000001", "wide"])
def test_ilsvrc_boxes_that_are_none(tmp_path, number):
    root = make_ilsvrc(tmp_path)
    path = root / "bbox/val/ILSVRC2012_val_00000001.xml"
    path.write_text(path.read_text().replace("<xmin>4", f"<xmin>{number}"))
    dataset = Ilsvrc2012(root)
    with pytest.raises(ValueError, match=rf"{path.name}: .*{number}"):
        dataset[0]
    assert dataset[1].boxes.shape == (1, 4)


@pytest.mark.parametrize("number", ["0", "-60", "1e400", "nan", "60.5", "  "])
def test_ilsvrc_sizes_that_are_none(tmp_path, number):
    root = make_ilsvrc(tmp_path)
    path = root / "bbox/val/ILSVRC2012_val_00000001.xml"
    path.write_text(path.read_text().replace("<width>60", f"<width>{number}"))
    with pytest.raises(ValueError, match=rf"{path.name}: .*(whole number from 1|without size/width)"):
        Ilsvrc2012(root)[0]


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "images/../../outside", ""])
def test_names_that_lead_out_of_the_folder(tmp_path, name):
    root = make_folder(tmp_path / "folder")
    (root / "index.json").write_text(json.dumps([{"name": name, "target": 0}]))
    with pytest.raises(ValueError, match=rf"index.json: '{name}' leads out of .*images"):
        PhotoFolder(root)
    root = make_coco(tmp_path / "coco")
    path = root / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = f"{name}.jpg" if name else "..jpg"
    path.write_text(json.dumps(content))
    if name:
        with pytest.raises(ValueError, match=r"instances_val2014.json: .* leads out of the data set's folder"):
            Coco(root)
    home = make_voc(tmp_path / "voc")
    (home / "ImageSets/Segmentation/train_aug.txt").write_text(f"/JPEGImages/{NAMES[0]}.jpg /{name}/../../{name}.png\n")
    with pytest.raises(ValueError, match=r"train_aug.txt: .* leads out of the data set's folder"):
        Voc2012(home, "train_aug")


def test_names_that_no_file_has(tmp_path):
    root = make_folder(tmp_path)
    (root / "index.json").write_text(json.dumps([{"name": "a\0b", "target": 0}]))
    with pytest.raises(ValueError, match=r"index.json: 'a\\x00b' cannot be the name of a file"):
        PhotoFolder(root)


def test_names_that_repeat(tmp_path):
    home = make_voc(tmp_path / "voc")
    (home / "ImageSets/Segmentation/twice.txt").write_text(f"{NAMES[0]}\n{NAMES[1]}\n{NAMES[0]}\n")
    with pytest.raises(ValueError, match=rf"twice.txt: {NAMES[0]} is the name of 2 photos"):
        Voc2012(home, "twice")
    root = make_folder(tmp_path / "folder")
    entries = json.loads((root / "index.json").read_text())
    (root / "index.json").write_text(json.dumps([*entries, entries[1]]))
    with pytest.raises(ValueError, match=r"index.json: photo_1 is the name of 2 photos"):
        PhotoFolder(root)


def test_coco_in_folders(tmp_path):
    """Photos of one name in two folders have seeds of their own; the same name twice is an error."""
    root = make_coco(tmp_path)
    path = root / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    for index, folder in enumerate(("a", "b")):
        (root / "val2014" / folder).mkdir()
        shutil.copy(root / "val2014" / content["images"][index]["file_name"], root / "val2014" / folder / "x.jpg")
        content["images"][index]["file_name"] = f"{folder}/x.jpg"
    path.write_text(json.dumps(content))
    dataset = Coco(root)
    assert dataset.names[1:3] == ["a/x", "b/x"]
    assert dataset[1].keys == [0, 1, 2]
    content["images"][1]["file_name"] = "a/x.png"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="a/x is the name of 2 photos"):
        Coco(root)


def test_folder_in_folders(tmp_path):
    """Names with folders and endings, as wsolevaluation has them."""
    root = make_folder(tmp_path)
    (root / "images" / "val").mkdir()
    (root / "masks" / "val").mkdir()
    (root / "images" / "photo_1.jpg").rename(root / "images" / "val" / "x.JPEG")
    (root / "masks" / "photo_1.png").rename(root / "masks" / "val" / "x.png")
    entries = [{"name": "val/x.JPEG", "target": 2}, {"name": "photo_0", "target": 1}]
    (root / "index.json").write_text(json.dumps(entries))
    dataset = PhotoFolder(root)
    assert [(sample.name, sample.targets) for sample in dataset] == [("val/x.JPEG", [2]), ("photo_0", [1])]
    assert np.array_equal(dataset[0].labels, shapes(1)[1] == shapes(1)[2][0] + 1)
    assert list(PhotoFolder(root, ground_truth=False).names) == ["val/x.JPEG", "photo_0"]
