"""Whatever is in a folder, and however a run ends: no file of the user's is ever changed or gone."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_datasets import FACTORY, everything, make_folder
from PIL import Image
from places import TESTS

KILLED = 137
FOLDERS = (".", "out", "work", "work/seeds", "maps", "data", "data/images", "data/masks")
NAMES = (
    "settings.json", "manifest.json", ".captum_regioncam.json", ".captum_regioncam.lock", ".lock", "scores.json",
    ".captum_regioncam-settings-x.json", ".captum_regioncam", "photo_0.npy", "photo_1.png", "photo_0_cam.png",
    "photo_0_cam.npy", "photo_1_region-cam_0.png", "photo_0_region-cam_0_mask.png", "photo_1_region-cam_1_mask.png",
    "scores.csv", "photos.csv", "scores.tex", "index.html", "region-cam-best.png", "pictures", "._photo_0.jpg",
    "notes.txt", "alpha-4", "plot.png", "photo_0.jpg",
)  # fmt: skip


folders = st.sampled_from(FOLDERS)
files = st.builds("{}/{}".format, folders, st.sampled_from(NAMES))
contents = st.sampled_from(["", "{}", "somebody's", "photo", "seed", "settings of 0.2", "link", "folder"])
network = ["--model", "colour_factory:colour_net", "--layers", "relu1,relu2", "--device", "cpu", "--size", "32"]
maybe = st.sampled_from([[], ["--resume"]])
photos = ["folder", "--root", "data", *network]
seeds = st.builds(
    lambda output, labels, more: ["seeds", *photos, "--output", output, *labels, *more],
    folders,
    st.one_of(st.just([]), st.builds(lambda folder: ["--label-maps", folder], folders)),
    maybe,
)
labels = st.builds(
    lambda folder, output, threshold, overlay, more: [
        "labels", folder, "--output", output, "--threshold", threshold, *overlay, *more,
    ],
    folders,
    folders,
    st.sampled_from(["0.2", "0.5"]),
    st.one_of(st.just([]), st.builds(lambda folder: ["--overlay", folder], folders)),
    maybe,
)  # fmt: skip
explain = st.builds(
    lambda image, output, more: ["explain", image, *network, "--output", output, *more],
    st.sampled_from(["data/images", "out", "maps", "data/images/photo_0.jpg"]),
    folders,
    st.sampled_from(
        [
            [],
            ["--overlay"],
            ["--masks", "--boxes"],
            ["--overlay", "--save-npy", "--target", "0"],
            ["--masks", "--threshold", "0.3", "--target", "0", "1"],
        ]
    ),
)
outputs = st.builds(
    lambda option, file: [option, file],
    st.sampled_from(["--json", "--plot", "--csv", "--latex", "--per-photo"]),
    files,
) | st.builds(lambda folder: ["--gallery", folder], st.one_of(folders, files))
evaluate = st.builds(
    lambda written, more: ["evaluate", *photos, *(word for words in written for word in words), *more],
    st.lists(outputs, min_size=1, max_size=3),
    maybe,
)
command = st.tuples(st.one_of(seeds, labels, explain, evaluate), st.one_of(st.none(), st.integers(1, 60)))


def make(path, content, seed):
    """Put something at a path, unless that is taken."""
    if os.path.lexists(path) or any(parent.is_file() for parent in path.parents):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if content == "photo":
        Image.new("RGB", (20, 15), "red").save(path, format="PNG")
    elif content == "seed":
        with path.open("wb") as file:
            np.save(file, {0: np.full((15, 20), 0.5, np.float32)}, allow_pickle=True)
    elif content == "settings of 0.2":
        path.write_text('{"dataset": "folder", "model": "m", "layers": [], "method": "region-cam", "threshold": 0.2}')
    elif content == "link":
        path.symlink_to(seed)
    elif content == "folder":
        path.mkdir()
    else:
        path.write_text(content)


@pytest.mark.slow
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=max(1, settings.default.max_examples * 3 // 20),
)
@given(st.lists(st.tuples(files, contents), max_size=8), st.lists(command, min_size=1, max_size=4))
def test_no_file_of_the_user_s_is_ever_changed_or_gone(killed, theirs, sequence):
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "colour_factory.py").write_text(FACTORY.format(tests=str(TESTS)))
        make_folder(home / "data", photos=2)
        for name, content in theirs:
            make(home / name, content, home / "data" / "index.json")
        before = everything(home)
        for arguments, killed_at in sequence:
            status, printed = killed(home, arguments, killed_at)
            assert status in (0, 1, 2, KILLED), printed
            assert "Traceback" not in printed
            now = everything(home)
            for name, found in before.items():
                same = now.get(name) == found if found[0] is not None else now[name][1] == found[1]  # a folder fills
                assert same, (name, arguments, killed_at, printed)
