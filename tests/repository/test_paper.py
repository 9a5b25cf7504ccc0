"""The scripts of examples/paper run with what the documentation says to install, and nothing else."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from made_datasets import NAMES, make_coco, make_ilsvrc, make_voc
from narrow_networks import narrow_networks
from places import ROOT

from examples.irn_resnet50 import coco_network, network

SCRIPTS = {
    "voc": ["--root", "VOCdevkit/VOC2012", "--weights", "res50_cam.pth"],
    "coco": ["--root", "coco", "--weights", "coco_cam.pth"],
    "ilsvrc": ["--root", "ILSVRC2012", "--weights", "none", "--size", "64"],
}
QUICK = ["--limit", "1", "--scales", "1"]
PROGRAM = """
import json, runpy, sys
import torchvision_schemas
from narrow_networks import narrow_networks
narrow_networks()
for script, *arguments in json.loads(sys.stdin.read()):
    sys.argv = [script, *arguments]
    sys.path.insert(0, script.rpartition("/")[0])
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code
"""


def installed_with(*extras):
    """The distributions that ``pip install "captum_regioncam[extras]"`` brings, by their normalised names."""
    found, waiting = set(), [("captum_regioncam", set(extras))]
    while waiting:
        name, wanted = waiting.pop()
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        key = (normalised(name), frozenset(wanted))
        if key in found:
            continue
        found.add(key)
        for requirement in requires:
            [other, own_extras] = re.match(r"([\w.-]+)\s*(?:\[([\w,\s-]*)\])?", requirement).groups()
            condition = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
            if not condition or condition[1] in wanted:
                waiting.append((other, set(re.split(r"\s*,\s*", own_extras or ""))))
    return {name for name, _ in found}


def link_packages(folder, distributions):
    """Make a folder of packages that holds these distributions alone."""
    folder.mkdir()
    for name in distributions - {"captum-regioncam"}:
        files = distribution(name).files
        for entry in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (folder / entry).exists():
                (folder / entry).symlink_to(distribution(name).locate_file(entry))
    return folder


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data sets and checkpoints that the scripts take, in the working directory."""
    monkeypatch.chdir(tmp_path)
    make_voc(tmp_path, names=NAMES[:2])
    annotations = make_coco(tmp_path / "coco", photos=2) / "annotations" / "instances_val2014.json"
    content = json.loads(annotations.read_text())
    known = {category["id"] for category in content["categories"]}
    content["categories"] += [{"id": n, "name": f"thing {n}"} for n in range(1, 84) if n not in known][:77]
    annotations.write_text(json.dumps(content))
    synsets = make_ilsvrc(tmp_path / "ILSVRC2012", photos=2) / "synset_words.txt"
    synsets.write_text("".join(f"n{number:02d} a thing\n" for number in range(1, 1001)))
    with monkeypatch.context() as patched:
        narrow_networks(patched.setattr)
        torch.save(network().state_dict(), "res50_cam.pth")
        torch.save(coco_network().state_dict(), "coco_cam.pth")


@pytest.mark.slow
def test_each_script_prints_its_table(data, tmp_path):
    [extras] = re.findall(r'pip install "\.\[([\w,]+)\]"', (ROOT / "docs" / "how-to" / "paper-tables.md").read_text())
    allowed = installed_with(*extras.split(","))
    assert "torchvision" in allowed
    assert "timm" not in allowed
    site = link_packages(tmp_path / "site", allowed)
    scripts = [
        [str(ROOT / "examples" / "paper" / f"{name}.py"), *options, *QUICK, "--output", f"paper_{name}"]
        for name, options in SCRIPTS.items()
    ]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", site)))
    done = subprocess.run(
        [sys.executable, "-S", "-W", "ignore", "-c", PROGRAM],
        input=json.dumps(scripts),
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {
        (cells[0], cells[1]): cells[2:]
        for cells in (re.split(r" \| ", line.strip("| ")) for line in done.stdout.splitlines() if line.startswith("|"))
    }
    here = json.loads(Path("paper_voc/irn-train.json").read_text())["region-cam"]["best_miou"]
    assert rows["IRN's ResNet-50, train", "region-cam"] == [
        "best_miou", "1", "60.12", f"{here:.2f}", f"{here - 60.12:+.2f}",
    ]  # fmt: skip
    assert rows["IRN's ResNet-50, val2014", "cam"][2] == "20.15"
    assert rows["VGG16, Choe et al.", "layer-cam"][:3] == ["loc1", "1", "47.20"]
    assert len(rows) == 2 + 2 * 4 + 4 + 2 * 3 + 2 * 4  # the tables share a head and a line


def test_the_commands_alone(data, forked):
    script = str(ROOT / "examples" / "paper" / "voc.py")
    fork = forked(*SCRIPTS["voc"], "--output", "paper", "--commands", "--limit", "1", script=script)
    out, err = fork.communicate(timeout=60)
    assert fork.returncode == 0, err
    first, second = out.splitlines()
    assert first.startswith("$ captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --split train --model ")
    assert first.endswith("--method cam,grad-cam,layer-cam,region-cam --limit 1 --json paper/irn-train.json")
    assert "--split val" in second
    assert not os.path.exists("paper")
