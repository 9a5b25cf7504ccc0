"""Small data sets in the real directory layouts, made of coloured shapes, and a network that sees the colours."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from captum_regioncam.evaluation import Classifier, Sample

NAMES = [f"2007_{number:06d}" for number in range(1, 7)]
COLOURS = {0: (220, 40, 40), 1: (40, 220, 40), 2: (40, 40, 220)}  # of key 0, 1, 2


class ColourNet(nn.Module):
    """Classes of colour, for all that it knows. Global average pooling and a linear layer above ``relu2``."""

    def __init__(self, classes=3):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(8, classes)
        torch.manual_seed(3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)

    def forward(self, x):
        return self.fc(self.relu2(self.conv2(self.relu1(self.conv1(x)))).mean((2, 3)))


FACTORY = """
import sys
sys.path.insert(0, {tests!r})
from made_datasets import ColourNet as colour_net
voc_net = lambda: colour_net(20)
bird_net = lambda: colour_net(200)
open_net = lambda: colour_net(100)
"""


def shapes(index, width=60, height=44):
    """Return a photo with one or two boxes of colour, its labels (1 and 2 or 3) and its keys."""
    generator = np.random.default_rng(index)
    photo = generator.integers(90, 130, (height, width, 3)).astype(np.uint8)
    labels = np.zeros((height, width), np.uint8)
    index %= 12
    keys = sorted({index % 3, (index * 2 + 1) % 3})
    for place, key in enumerate(keys):
        left = 4 + place * width // 2
        photo[8 + index : 30, left : left + 18] = COLOURS[key]
        labels[8 + index : 30, left : left + 18] = key + 1
        labels[7 + index, left : left + 18] = 255
    return photo, labels, keys


class Shapes:
    """A user's own data set: names, classes, and samples by number."""

    names = ("one", "two", "three")
    classes = ("red", "green", "blue")

    def __getitem__(self, index):
        photo, labels, keys = shapes(index)
        return Sample(self.names[index], Image.fromarray(photo), keys, keys, labels)


def colour_classifier():
    return Classifier(ColourNet().eval(), size=48, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def make_voc(root, names=NAMES, classes=("aeroplane", "bicycle", "bird")):
    """VOCdevkit/VOC2012 with the given photos in train and the first in val."""
    home = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (home / folder).mkdir(parents=True)
    (home / "ImageSets/Segmentation/train.txt").write_text("".join(f"{name}\n" for name in names))
    (home / "ImageSets/Segmentation/val.txt").write_text(names[0] + "\n")
    for index, name in enumerate(names):
        photo, labels, keys = shapes(index)
        Image.fromarray(photo).save(home / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)
        mask = Image.fromarray(labels)
        mask.putpalette(list(range(256)) * 3)
        mask.save(home / "SegmentationClass" / f"{name}.png")
        objects = "".join(f"<object><name>{classes[key]}</name></object>" for key in keys)
        (home / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return home


def make_coco(root, split="val2014", photos=3):
    """COCO with polygons, a crowd as run lengths, category ids with gaps, and a photo of nothing."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for index in range(photos):
        photo, labels, keys = shapes(index)
        height, width = labels.shape
        name = f"COCO_{split}_{index:012d}.jpg"
        Image.fromarray(photo).save(root / split / name, quality=95, subsampling=0)
        images.append({"id": 10 + index, "file_name": name, "width": width, "height": height})
        for place, key in enumerate(keys):
            x, y = 4 + place * width // 2, 8 + index
            corners = [x, y, x + 18, y, x + 18, 30, x, 30]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 10 + index, "category_id": 2 * key + 1, "iscrowd": 0}
                | {"segmentation": [corners], "area": 18 * (30 - y), "bbox": [x, y, 18, 30 - y]}
            )
    Image.new("RGB", (20, 10)).save(root / split / "nothing.jpg")
    images.append({"id": 5, "file_name": "nothing.jpg", "width": 20, "height": 10})
    crowd = {"counts": [0, 44 * 2, 44 * 58], "size": [44, 60]}  # the two leftmost columns
    annotations.append(
        {"id": 99, "image_id": 10, "category_id": 5, "iscrowd": 1, "segmentation": crowd, "area": 88}
        | {"bbox": [0, 0, 2, 44]}
    )
    categories = [{"id": 2 * key + 1, "name": name} for key, name in enumerate(("red", "green", "blue"))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def make_ilsvrc(root, photos=4):
    """The layout of the challenge's archives: photos and boxes apart, and a list of synsets."""
    (root / "ILSVRC2012_img_val").mkdir(parents=True)
    (root / "bbox" / "val").mkdir(parents=True)
    synsets = ["n01", "n02", "n03"]
    (root / "synset_words.txt").write_text("".join(f"{synset} a thing\n" for synset in reversed(synsets)))
    for index in range(photos):
        photo, labels, keys = shapes(index)
        name = f"ILSVRC2012_val_{index + 1:08d}"
        Image.fromarray(photo).save(root / "ILSVRC2012_img_val" / f"{name}.JPEG", quality=95, subsampling=0)
        rows, columns = np.nonzero(labels == keys[0] + 1)
        box = (columns.min(), rows.min(), columns.max(), rows.max())
        corners = "".join(
            f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        (root / "bbox" / "val" / f"{name}.xml").write_text(
            f"<annotation><size><width>60</width><height>44</height></size><object><name>{synsets[keys[0]]}</name>"
            f"<bndbox>{corners}</bndbox></object></annotation>"
        )
    return root


def make_wsol(root, title, split="test", photos=4):
    """wsolevaluation's metadata/ and dataset/: boxes, or masks for OpenImages. Return the image ids."""
    metadata = root / "metadata" / title / split
    metadata.mkdir(parents=True)
    lists = {"image_ids": [], "class_labels": [], "localization": [], "image_sizes": []}
    for index in range(photos):
        photo, labels, keys = shapes(index)
        height, width = labels.shape
        place = {
            "CUB": f"{keys[0] + 1:03d}.{('Red', 'Green', 'Blue')[keys[0]]}_bird",
            "OpenImages": f"{split}/0bt_c{keys[0] + 3}",
            "ILSVRC": "val" if split == "test" else f"val2/{keys[0]}",
        }[title]
        name = f"{place}/{index}.jpg"
        path = root / "dataset" / title / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path, quality=95, subsampling=0)
        lists["image_ids"].append(name)
        lists["class_labels"].append(f"{name},{keys[0]}")
        lists["image_sizes"].append(f"{name},{width},{height}")
        rows, columns = np.nonzero(labels == keys[0] + 1)
        if title != "OpenImages":
            corners = columns.min(), rows.min(), columns.max(), rows.max()
            lists["localization"].append(",".join(map(str, (name, *corners))))
            continue
        upper, ignored = np.array(labels == keys[0] + 1), np.zeros(labels.shape, bool)
        upper[rows.mean().astype(int) :] = False
        ignored[rows.min() - 5 : rows.min() + 5, columns.min() - 3 :] = True  # also over a part of the object
        masks = {"_m1": upper, "_m2": (labels == keys[0] + 1) & ~upper, "_ignore": ignored}
        files = {mask: f"{place}/{index}{mask}.png" for mask in masks}
        for mask, pixels in masks.items():
            large = Image.fromarray(pixels.astype(np.uint8) * 255).resize((150, 110), Image.Resampling.NEAREST)
            large.save(root / "dataset" / title / files[mask])
        lists["localization"] += [f"{name},{files['_m1']},{files['_ignore']}", f"{name},{files['_m2']},"]
    for file, lines in lists.items():
        (metadata / f"{file}.txt").write_text("".join(f"{line}\n" for line in lines))
    return lists["image_ids"]


def make_cub(root, split="test", photos=4):
    """CUB-200-2011, as wsolevaluation lays it out."""
    make_wsol(root, "CUB", split, photos)
    return root


def make_openimages(root, split="test", photos=4):
    """OpenImages30k, as wsolevaluation lays it out."""
    make_wsol(root, "OpenImages", split, photos)
    return root


def make_folder(root, photos=4):
    """images/, masks/ and index.json."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    entries = []
    for index in range(photos):
        photo, labels, keys = shapes(index)
        Image.fromarray(photo).save(root / "images" / f"photo_{index}.jpg", quality=95, subsampling=0)
        Image.fromarray(np.where(labels == keys[0] + 1, 255, 0).astype(np.uint8)).save(
            root / "masks" / f"photo_{index}.png"
        )
        entries.append({"name": f"photo_{index}", "set": "made", "target": keys[0]})
    (root / "index.json").write_text(json.dumps(entries))
    return root


def everything(folder):
    """Names, contents, modes and times of all that is below a folder."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else None
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else content
        found[path.relative_to(folder).as_posix()] = (content, status.st_mode, status.st_mtime_ns)
    return found
