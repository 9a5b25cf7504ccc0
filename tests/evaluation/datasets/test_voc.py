"""The augmented set of VOC, as WSSS repositories distribute it."""

import shutil

import numpy as np
import pytest
from made_datasets import NAMES, make_voc, shapes

from captum_regioncam.evaluation import Voc2012, open_dataset


def make_augmented(root, line="{name}"):
    """VOC with another mask in SegmentationClassAug/ than in SegmentationClass/."""
    home = make_voc(root)
    (home / "ImageSets/Segmentation/train_aug.txt").write_text("".join(line.format(name=name) + "\n" for name in NAMES))
    (home / "SegmentationClass").rename(home / "SegmentationClassAug")
    (home / "SegmentationClass").mkdir()
    for index, name in enumerate(NAMES):  # the masks of other photos
        other = home / "SegmentationClassAug" / f"{NAMES[index - 1]}.png"
        shutil.copy(other, home / "SegmentationClass" / f"{name}.png")
    return home


@pytest.mark.parametrize(
    "line",
    [
        "{name}",
        "/JPEGImages/{name}.jpg",
        "/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png",
        "JPEGImages/{name}.jpg SegmentationClassAug/{name}.png",
    ],
)
def test_masks_of_the_augmented_set(tmp_path, line):
    make_augmented(tmp_path, line)
    dataset = open_dataset("voc", tmp_path, split="train_aug")
    assert dataset.names == NAMES
    for index in (0, 4):
        assert np.array_equal(dataset[index].labels, shapes(index)[1])
        assert np.array_equal(Voc2012(tmp_path, "train")[index].labels, shapes((index - 1) % 6)[1])


def test_classes_of_the_augmented_set(tmp_path):
    home = make_augmented(tmp_path)
    xml = home / "Annotations" / f"{NAMES[1]}.xml"
    xml.write_text(xml.read_text().replace("aeroplane", "person"))
    for ground_truth in (True, False):
        dataset = Voc2012(tmp_path, "train_aug", ground_truth=ground_truth)
        assert dataset[0].keys == shapes(0)[2]
        assert 14 in dataset[1].keys or "person" not in xml.read_text()
    (home / "Annotations" / f"{NAMES[2]}.xml").unlink()
    for ground_truth in (True, False):
        sample = Voc2012(tmp_path, "train_aug", ground_truth=ground_truth)[2]
        assert sample.keys == shapes(2)[2]  # of the mask
        assert (sample.labels is None) == (not ground_truth)
    shutil.copy(xml, home / "Annotations" / f"{NAMES[3]}.xml")
    assert Voc2012(tmp_path, "train_aug", labels_from="mask")[3].keys == shapes(3)[2]
    assert Voc2012(tmp_path, "train_aug")[3].keys == Voc2012(tmp_path, "train_aug")[1].keys
    shutil.rmtree(home / "Annotations")  # some repositories have none
    assert [sample.keys for sample in Voc2012(tmp_path, "train_aug")] == [shapes(index)[2] for index in range(6)]
    with pytest.raises(ValueError, match="has no Annotations"):
        Voc2012(tmp_path, "train")


def test_the_augmented_set_without_its_masks(tmp_path):
    home = make_augmented(tmp_path)
    (home / "SegmentationClassAug").rename(home / "elsewhere")
    message = r"root: .*VOC2012: has no SegmentationClassAug, the masks of train_aug. WSSS repositories"
    with pytest.raises(ValueError, match=message):
        open_dataset("voc", tmp_path, split="train_aug")
    with pytest.raises(ValueError, match=message):
        open_dataset("voc", tmp_path, split="train_aug", labels_from="mask", ground_truth=False)
    dataset = open_dataset("voc", tmp_path, split="train_aug", ground_truth=False)  # for seeds, the XMLs are enough
    assert dataset[0].keys == shapes(0)[2]
    (home / "Annotations" / f"{NAMES[1]}.xml").unlink()
    with pytest.raises(ValueError, match=rf"SegmentationClassAug/{NAMES[1]}.png: cannot be read"):
        dataset[1]
    with pytest.raises(ValueError, match=r"split: .*VOC2012: not a VOC 2012 folder: has no .*trainaug.txt"):
        open_dataset("voc", tmp_path, split="trainaug")
