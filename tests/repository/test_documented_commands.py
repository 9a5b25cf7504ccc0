"""Every command of the documentation runs, in the order of its page, on small data in the layouts that it names."""

import json
import re
import shlex
import sys
from functools import cache
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from commands import run
from made_datasets import NAMES, make_coco, make_cub, make_folder, make_ilsvrc, make_openimages, make_voc
from narrow_networks import narrow_networks
from PIL import Image
from places import ROOT
from skimage import data

from examples.irn_resnet50 import coco_network, network

NEEDS_TORCH_CAM = pytest.mark.skipif(sys.version_info < (3, 11), reason="torch-cam 0.5 needs Python 3.11")
PAGES = {
    page.relative_to(ROOT).as_posix(): [
        command.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
        for command in re.sub(r" *\\\n *", " ", block).splitlines()
        if re.match(r"\$ (captum-regioncam|torchrun) ", command)
    ]
    for page in sorted((ROOT / "docs").glob("**/*.md"))
    if "_build" not in page.parts
}
PAGES["README.md"] = re.findall(r"`(captum-regioncam [^`]+)`", (ROOT / "README.md").read_text())
FACTORY = """
from torch import nn
def factory(classes=3):
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    return nn.Sequential(*layers)
birds, things = (lambda: factory(200)), (lambda: factory(100))
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with all that the commands name."""
    narrow_networks(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    make_voc(tmp_path, names=NAMES[:2])
    annotations = make_coco(tmp_path / "coco") / "annotations" / "instances_val2014.json"
    content = json.loads(annotations.read_text())
    known = {category["id"] for category in content["categories"]}
    content["categories"] += [{"id": n, "name": f"thing {n}"} for n in range(1, 84) if n not in known][:77]
    annotations.write_text(json.dumps(content))
    synsets = make_ilsvrc(tmp_path / "ILSVRC2012", photos=2) / "synset_words.txt"
    synsets.write_text("".join(f"n{number:02d} a thing\n" for number in range(1, 1001)))
    make_openimages(make_cub(tmp_path / "wsolevaluation", photos=2), photos=2)
    make_folder(tmp_path / "my_photos", photos=2)
    (tmp_path / "photos").mkdir()
    Image.fromarray(data.chelsea()).save("photos/cat.jpg")
    Image.fromarray(data.chelsea()).save("cat.jpg")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text(FACTORY)
    from package.module import factory

    torch.save(network().state_dict(), "res50_cam.pth")
    torch.save(coco_network().state_dict(), "coco_cam.pth")
    torch.save(factory().state_dict(), "cam.pth")
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), "vit.pth")

    @cache
    def download(url, *_, **__):
        name = re.search(r"(resnet50|vgg16)-", url)[1]
        return getattr(torchvision.models, name)(weights=None).state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    yield tmp_path
    for module in ("package", "package.module"):
        sys.modules.pop(module, None)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, commands in PAGES.items() if commands])
@pytest.mark.filterwarnings("ignore:The maps of examples")  # random weights
def test_commands_run(page, work, capsys, forked):
    if any("psa_seeds" in command for command in PAGES[page]):  # "seeds that another program wrote"
        made = ["--root", "VOCdevkit/VOC2012", "--model", "examples.irn_resnet50:network", "--weights", "res50_cam.pth"]
        assert run("seeds", "voc", *made, "--format", "psa", "--output", "psa_seeds") == 0
    for command in PAGES[page]:
        words = shlex.split(command)
        if words[1] == "app":
            continue  # which runs until it is stopped; tests/app has it
        words = [word for words in words for word in (sorted(glob(words)) if "*" in words else [words])]
        if "--crf" in words and find_spec("pydensecrf") is None:
            continue  # pydensecrf2 does not compile everywhere, as the page says
        if words[0] == "torchrun":
            fork = forked(*words[words.index("captum_regioncam") + 1 :], workers=2)
            _, err = fork.communicate(timeout=300)
            status = fork.returncode
        else:
            status = run(*words[1:])
            err = capsys.readouterr().err
        assert status == 0, (command, err[-2000:])
        written = [words[words.index(option) + 1] for option in ("--output", "--json", "--plot") if option in words]
        assert all(Path(path).exists() for path in written), command


def test_there_are_commands():
    assert sum(map(len, PAGES.values())) > 25


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "scaling.py --largest 28 --output scaling.png",
        pytest.param("peers.py", marks=NEEDS_TORCH_CAM),
        pytest.param("speed.py --networks resnet18 --sizes 32 --repeats 2 --no-memory", marks=NEEDS_TORCH_CAM),
        "evaluation.py --photos 20 --networks mobilenet_v2 --batches 4",
    ],
)
def test_benchmarks_run(command, tmp_path, forked):
    script, *options = command.split()
    fork = forked(*options, folder=tmp_path, script=str(ROOT / "benchmarks" / script))
    _, err = fork.communicate(timeout=300)
    assert fork.returncode == 0, err[-2000:]
