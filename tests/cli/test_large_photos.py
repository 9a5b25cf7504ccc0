"""Photos of extreme sizes: the commands need a bounded amount of memory, and say what is too large or too narrow."""

import json
from pathlib import Path

import pytest
from commands import MODEL, run
from made_datasets import make_folder
from PIL import Image

SCRIPT = """
import resource, sys
import numpy as np, torch
import torchvision_schemas
from captum_regioncam import overlay
from captum_regioncam.cli import main
from captum_regioncam.evaluation.models import load_classifier
import captum_regioncam.cli.explain
load_classifier()
own = 4096 * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (own + 1_500_000_000,) * 2)
picture = overlay(np.full((5000, 5000, 3), 100, np.uint8), torch.ones(1, 1, 1, 2).cumsum(-1), cmap="gray")
assert picture[0].tolist() == picture[-1].tolist() and picture[0, 0, 0] == 50 and picture[0, -1, 0] == 178
sys.exit(main(["explain", "thin.png", "flat.png", "huge.jpg", "--output", "out"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is set from what Linux counts")
def test_81_megapixels_and_lines_of_pixels_within_1500_megabytes(tmp_path, forked):
    Image.new("RGB", (1, 5000), "red").save(tmp_path / "thin.png")
    Image.new("RGB", (5000, 1), "red").save(tmp_path / "flat.png")
    Image.linear_gradient("L").resize((9000, 9000)).convert("RGB").save(tmp_path / "huge.jpg")
    (tmp_path / "script.py").write_text(SCRIPT)
    fork = forked(folder=tmp_path, script=str(tmp_path / "script.py"))
    out, err = fork.communicate(timeout=300)
    assert fork.returncode == 1, err
    assert out.splitlines()[-2].startswith("huge.jpg: ")
    lines = err.splitlines()
    assert lines[-3:] == [
        "2 of 3 photos failed:",
        "  thin.png: the photo has 1 x 5000 pixels, a ratio of 5000; at most 20 is possible. Crop the photo.",
        "  flat.png: the photo has 5000 x 1 pixels, a ratio of 5000; at most 20 is possible. Crop the photo.",
    ]
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["flat.png", "huge_cam.png", "thin.png"]
    with Image.open(tmp_path / "out" / "huge_cam.png") as picture:
        assert 700 < picture.width < 900


@pytest.mark.parametrize("resize", ["squash", "short", "crop", "keep"])
def test_seeds_and_evaluate_leave_out_what_is_too_narrow_or_too_large(colour_factory, capsys, resize):
    make_folder(Path("data"))
    options = ["--root", "data", *MODEL, "--resize", resize, "--method", "grad-cam"]
    sizes, refused = {"photo_1": (1, 50)}, {"photo_1": "the photo has 1 x 50 pixels, a ratio of 50; at most 20 is"}
    if resize == "keep":
        sizes["photo_2"] = (4100, 4100)
        refused["photo_2"] = "the photo has 4100 x 4100 pixels, which make an input of 4100 x 4100; at most 4096 x 4096"
    else:
        options += ["--size", 32]
    for name, size in sizes.items():
        Image.new("RGB", size).save(f"data/images/{name}.jpg")
        Image.new("L", size).save(f"data/masks/{name}.png")
    assert run("evaluate", "folder", *options, "--json", "out.json") == 1
    assert_refused(capsys.readouterr().err, refused)
    assert json.loads(Path("out.json").read_text())
    if resize != "crop":
        assert run("seeds", "folder", *options, "--output", "seeds") == 1
        assert_refused(capsys.readouterr().err, refused)
        assert {path.stem for path in Path("seeds").glob("*.npy")} == {f"photo_{i}" for i in range(4)} - set(refused)


def assert_refused(err, refused):
    assert f"{len(refused)} of 4 photos failed" in err
    for name, reason in refused.items():
        assert f"  {name}: {reason}" in err
