"""The README's figures are those of the tables that it refers to, and PyPI shows it with links that lead somewhere."""

import re
import runpy

import pytest
from places import ROOT

README = " ".join((ROOT / "README.md").read_text().split())
METHOD = (ROOT / "docs" / "method.md").read_text()


def table(title):
    """The rows of the table below a title in bold: {method: {"best" or "0.15": the figures of three networks}}."""
    lines = METHOD[METHOD.index(title) :].split("\n\n", 2)[1].splitlines()
    rows, method = {}, ""
    for line in lines[2:]:
        name, *cells = (cell.strip(" *") for cell in line.strip("|").split("|"))
        if "best" in name:
            method = name.replace("*", "").split(", best")[0]
            rows[method] = {"best": [float(re.match(r"[\d.]+", cell.replace("*", ""))[0]) for cell in cells]}
        elif name.startswith("at 0.15"):
            rows[method]["0.15"] = [float(cell.split(" / ")[0]) for cell in cells]
    return rows


def mean(figures):
    return f"{sum(figures) / len(figures):.1f}"


def test_photos():
    rows = table("**98 photos of one object each**")
    plain, refined = rows["Region-CAM"], rows["Region-CAM, refined"]
    cam, layer_cam = rows["LayerGradCam, the same stages"], rows["LayerCAM, the same stages"]
    assert f"mIoU {mean(plain['best'])} at the best threshold and {mean(plain['0.15'])} at 0.15" in README
    assert f"refined with the photo, {mean(refined['best'])} and {mean(refined['0.15'])}" in README
    assert f"LayerGradCam has {mean(cam['best'])} and {mean(cam['0.15'])}" in README
    assert f"LayerCAM {mean(layer_cam['best'])} and {mean(layer_cam['0.15'])}" in README


def test_frames():
    rows = table("**40 frames of 15 videos**")
    ours, cam = sorted(rows["Region-CAM"]["best"]), sorted(rows["Captum's LayerGradCam"]["best"])
    assert f"best mIoU of {ours[0]} to {ours[-1]} with three networks, and LayerGradCam {cam[0]} to {cam[-1]}" in README


def test_speed():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    [row] = re.findall(r"\| resnet50 \| (.*) \|\n", page)
    ours, _, pytorch_grad_cam, torch_cam = (cell.split(" / ") for cell in row.split(" | "))
    assert f"time and memory are {ours[0]} and {ours[1]} times" in README
    assert f"takes {torch_cam[0]} and {torch_cam[1]} in torch-cam" in README
    assert f"{pytorch_grad_cam[0]} and {pytorch_grad_cam[1]} in pytorch-grad-cam" in README


@pytest.fixture(scope="module")
def on_pypi():
    setup = runpy.run_path(str(ROOT / "setup.py"))
    return setup["SITE"], setup["readme_for_pypi"]((ROOT / "README.md").read_text())


def test_links_on_pypi(on_pypi):
    site, text = on_pypi
    links = re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    assert len(links) > 30
    for link in (one or other for one, other in links):
        assert link.startswith("https://"), link
        if not link.startswith(site):
            continue
        path = link.removeprefix(f"{site}/").partition("#")[0]
        if path.startswith("_images/"):
            assert list((ROOT / "docs").glob(f"**/{path.removeprefix('_images/')}")), path
        else:
            sources = [(ROOT / "docs" / path).with_suffix(suffix) for suffix in (".md", ".rst")]
            assert any(source.exists() for source in sources), path
