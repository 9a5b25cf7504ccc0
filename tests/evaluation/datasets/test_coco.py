"""COCO's finished masks, as WSSS repositories distribute them, and its crowds."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import MODEL, run, scores_in
from made_datasets import make_coco
from PIL import Image

from captum_regioncam.evaluation import Coco, open_dataset
from captum_regioncam.evaluation.datasets.base import source_of
from captum_regioncam.evaluation.seeds.reading import recorded_data

DRAWN = np.zeros((44, 60), np.uint8)  # of make_coco's first photo: red and green, and a crowd of blue at the left
DRAWN[:, :2] = 3
DRAWN[8:30, 4:22] = 1
DRAWN[8:30, 34:52] = 2


def write_masks(root, folder, name="{name}.png", change=lambda labels: labels, crowds="include"):
    """Write the masks that are drawn of a data set as files, named after the photos or their ids."""
    dataset = Coco(root, crowds=crowds)
    for sample, image in zip(dataset, dataset._images, strict=True):
        path = folder / name.format(name=sample.name, id=image["id"])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(change(sample.labels)).save(path)
    return folder


@pytest.mark.parametrize("place", ["", "val2014", "val"])
@pytest.mark.parametrize("name", ["{name}.png", "{id:012d}.png", "{id}.png"])
def test_finished_masks_in_every_layout(tmp_path, place, name):
    root = make_coco(tmp_path / "coco")
    masks = write_masks(root, tmp_path / "masks" / place, name, lambda labels: np.where(labels == 2, 255, labels))
    dataset = Coco(root, masks=tmp_path / "masks")
    assert np.array_equal(dataset[1].labels, np.where(DRAWN == 2, 255, DRAWN))
    assert dataset[1].keys == [0, 1, 2]  # of the annotations: green is in the photo, and does not count in its mask
    assert not dataset[0].labels.any()
    assert Coco(root, masks=masks, ground_truth=False)[1].labels is None


def test_masks_that_do_not_fit(tmp_path):
    root = make_coco(tmp_path / "coco")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"masks='.*empty': has no mask of val2014, such as nothing.png, 000000000005"):
        Coco(root, masks=tmp_path / "empty")
    with pytest.raises(ValueError, match=r"masks='.*nowhere': has no mask of val2014"):
        Coco(root, masks=tmp_path / "nowhere")
    Coco(root, masks=tmp_path / "nowhere", ground_truth=False)
    folder = write_masks(root, tmp_path / "masks")
    photo = f"{Coco(root).names[1]}.png"
    dataset = Coco(root, masks=folder)
    Image.fromarray(np.where(DRAWN == 3, 4, DRAWN).astype(np.uint8)).save(folder / photo)
    with pytest.raises(ValueError, match=rf"{photo}: label 4 is neither from 0 to 3 nor 255"):
        dataset[1]
    Image.fromarray(DRAWN[:-1]).save(folder / photo)
    with pytest.raises(
        ValueError, match=rf"{photo}: has \(43, 60\) pixels \(height, width\), but its photo has \(44, 60\)"
    ):
        dataset[1]
    (folder / photo).unlink()
    with pytest.raises(ValueError, match=rf"masks/{photo}: cannot be read \(No such file"):
        dataset[1]
    assert not dataset[0].labels.any()


def test_masks_that_are_numbered_otherwise(tmp_path):
    """Such as with COCO's category ids, which have gaps: what passes for a class is none of the photo's."""
    root = make_coco(tmp_path / "coco")
    path = root / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] != 5]  # no blue
    path.write_text(json.dumps(content))
    ids = np.array([0, 1, 3, 5], np.uint8)
    folder = write_masks(root, tmp_path / "masks", change=lambda labels: ids[labels])
    with pytest.raises(ValueError, match=r"has label 3 \(blue\), which instances_val2014.json does not have in this"):
        Coco(root, masks=folder)[1]


def test_crowds_that_do_not_count(tmp_path):
    root = make_coco(tmp_path)
    path = root / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    large = {"counts": [0, 44 * 10, 44 * 50], "size": [44, 60]}  # over the left part of the red object
    content["annotations"][-1] |= {"segmentation": large, "area": 440}
    path.write_text(json.dumps(content))
    included, ignored = Coco(root)[1], Coco(root, crowds="ignore")[1]
    assert included.keys == ignored.keys == [0, 1, 2]
    expected = DRAWN.copy()
    expected[:, :10] = 3  # the crowd is larger, and so below the red object, which is 18 x 22
    expected[8:30, 4:22] = 1
    assert np.array_equal(included.labels, expected)
    assert np.array_equal(ignored.labels, np.where(expected == 3, 255, expected))
    content["annotations"][-1]["area"] = 1  # and now on top of it, unless it does not count
    path.write_text(json.dumps(content))
    assert (Coco(root)[1].labels[:, :10] == 3).all()
    assert np.array_equal(Coco(root, crowds="ignore")[1].labels, ignored.labels)


def test_crowds_that_are_neither(tmp_path):
    root = make_coco(tmp_path)
    with pytest.raises(ValueError, match=r"^crowds='drop': expects one of include, ignore\.$"):
        Coco(root, crowds="drop")
    with pytest.raises(ValueError, match=r"^crowds='ignore': applies to masks that are drawn; leave out masks\.$"):
        Coco(root, masks=tmp_path, crowds="ignore")
    for option in ("masks", "crowds"):
        with pytest.raises(ValueError, match=rf"^{option}='ignore': applies only to the layout coco\.$"):
            open_dataset("voc", tmp_path, **{option: "ignore"})


def test_records_say_which_masks_and_older_ones_stay_the_same(tmp_path):
    root = make_coco(tmp_path / "coco")
    masks = write_masks(root, tmp_path / "masks")
    plain = {"dataset": "coco", "root": str(root), "split": "val2014", "labels": None}
    assert source_of(open_dataset("coco", root)) == source_of(open_dataset("coco", root, crowds="include")) == plain
    assert source_of(open_dataset("coco", root, crowds="ignore")) == {**plain, "crowds": "ignore"}
    assert source_of(open_dataset("coco", root, masks=masks)) == {**plain, "masks": str(masks)}


@pytest.mark.usefixtures("colour_factory")
def test_commands_score_against_finished_masks(capsys):
    root = make_coco(Path("data"))
    write_masks(root, Path("masks"), crowds="ignore")
    network = [*MODEL, "--scales", "0.5", "--no-flip"]
    assert run("seeds", "coco", "--root", root, *network, "--masks", "masks", "--output", "seeds") == 0
    found = {}
    for name, options in {
        "drawn": [],
        "finished": ["--masks", "masks"],
        "ignored": ["--crowds", "ignore"],
    }.items():
        out = ["--json", f"{name}.json"]
        assert run("evaluate", "coco", "--root", root, "--seeds", "seeds", *options, *out) == 0
        found[name] = scores_in(f"{name}.json")["seeds in seeds"]["miou"]
    assert found["finished"] == found["ignored"] != found["drawn"]
    assert recorded_data(Path("seeds"), ground_truth=True)[1].labels[0, 0] == 255  # the seeds' record names the masks
    assert recorded_data(Path("seeds"), ground_truth=True, crowds="include")[1].labels[0, 0] == 3
    best = ["label-maps", "seeds", "--threshold", "best", "--output"]
    assert run(*best, "labels") == run(*best, "others", "--crowds", "ignore") == 0
    capsys.readouterr()
    assert run("label-maps", "seeds", "--output", "labels", "--masks", "masks") == 2
    assert "--masks: applies only to the best threshold" in capsys.readouterr().err
    assert run("evaluate", "coco", "--root", root, "--seeds", "seeds", "--masks", "nowhere") == 2
    assert "nowhere: has no mask of val2014" in capsys.readouterr().err
