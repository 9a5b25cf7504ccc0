"""The code blocks of README and docs run as they stand, and the troubleshooting page has every message."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from helpers import small_net
from made_datasets import ColourNet, make_voc
from PIL import Image
from places import ROOT
from torch import nn

import captum_regioncam
from captum_regioncam import LayerRegionCam, find_stages
from captum_regioncam.evaluation import Classifier, Seed, Voc2012, save_seed, write_label_maps

PACKAGE = Path(captum_regioncam.__file__).parent


def segmenter():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1)).eval()


def resnet():
    model, x = torchvision.models.resnet18(weights=None).eval(), torch.randn(1, 3, 64, 64)
    return {"model": model, "x": x, "photo": np.zeros((64, 64, 3), np.uint8)}


def on_cpu():
    return resnet() | {"device": "cpu", "torch": torch, "LayerRegionCam": LayerRegionCam, "find_stages": find_stages}


def captum():
    model, x = small_net()
    other = {"segmenter": segmenter(), "classifier": lambda x: {"logits": model(x)}, "layer": model.relu2}
    return {"model": model, "x": x, "photo": np.zeros((8, 8, 3), np.uint8), **other}


def outputs():
    """A segmentation network, a detector and an encoder, as small as they may be."""

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.layer4 = nn.Conv2d(3, 8, 3, 2, 1), nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())

        def forward(self, x):
            return self.layer4(self.stem(x).relu())

    class Network(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.backbone, self.head, self.wrap = Backbone(), nn.Conv2d(8, 5, 1), wrap

        def forward(self, x):
            x = torch.stack(list(x))
            return self.wrap(self.head(self.backbone(x)))

    def detections(scores):
        boxes = torch.tensor([[0.0, 0, 8, 8], [8, 8, 16, 20], [30, 30, 50, 60]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 2, 3]), "scores": one.mean((1, 2))[:3]} for one in scores]

    detector, x = Network(detections).eval(), torch.randn(1, 3, 64, 64)
    return {
        "x": x,
        "segmenter": Network(lambda scores: {"out": scores}).eval(),
        "detector": detector,
        "detections": detector(list(x))[0],
        "encoder": Network(lambda scores: scores.mean((2, 3))).eval(),
        "embeddings": torch.randn(4, 5),
        "torch": torch,
    }


def transformer():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, embed_dim=24, num_heads=2, num_classes=3)
    return {"model": model, "x": torch.randn(1, 3, 64, 64)}


def small():
    names = captum()
    return {"model": names["model"], "x": names["x"][:1], "photo": names["photo"]}


def stages():
    return {"model": torchvision.models.resnet18(weights=None).eval(), "x": torch.randn(1, 3, 64, 64)}


def sharded():
    make_voc(Path())
    dataset = Voc2012("VOCdevkit/VOC2012")
    return {"dataset": dataset, "maps_of": lambda sample: torch.rand(len(sample.keys), *sample.labels.shape)}


def library():
    make_voc(Path())
    return {"model": ColourNet(20).eval(), "np": np}


def factories():
    return {"MyNetwork": ColourNet}


def seeded():
    names = library()
    data = Voc2012("VOCdevkit/VOC2012")
    for sample in data:
        maps = np.zeros((len(sample.keys), *sample.labels.shape), np.float32)
        save_seed(f"seeds/{sample.name}.npy", Seed(torch.tensor(sample.keys), torch.tensor(maps[:, ::4, ::4]), maps))
    return names


def voc():
    maps = np.zeros((1, 8, 8), np.float32)
    save_seed("seeds/2007_000032.npy", Seed(torch.tensor([0]), torch.tensor(maps[:, ::4, ::4]), maps))
    make_voc(Path())
    model = ColourNet().eval()
    return {"model": model, "preprocess": Classifier(model).preprocess}


def scores():
    content = {"region-cam": {"miou": 60.0}, "provenance": {"checkpoint": {"name": "res50_cam.pth", "sha256": "0"}}}
    Path("voc.json").write_text(json.dumps(content))
    return {}


PAGES = [
    ("README.md", resnet, 4),
    ("docs/how-to/choose-layers.md", stages, 4),
    ("docs/how-to/command-line.md", factories, 1),
    ("docs/how-to/captum.md", captum, 7),
    ("docs/how-to/transformers.md", transformer, 3),
    ("docs/how-to/outputs.md", outputs, 3),
    ("docs/how-to/many-classes.md", captum, 2),
    ("docs/how-to/two-halves.md", resnet, 4),
    ("docs/how-to/masks.md", small, 2),
    ("docs/how-to/seeds.md", voc, 3),
    ("docs/how-to/python.md", library, 4),
    ("docs/how-to/gpu.md", on_cpu, 2),
    ("docs/how-to/scores.md", seeded, 1),
    ("docs/how-to/files.md", scores, 1),
    ("docs/how-to/torchrun.md", sharded, 1),
    ("docs/how-to/compare.md", small, 1),
]


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize(("page", "names", "count"), PAGES)
def test_code_blocks_run(page, names, count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert len(blocks) == count
    variables = names()
    for block in blocks:
        exec(block, variables)
    produced = [value for value in variables.values() if isinstance(value, torch.Tensor)]
    assert all(value.isfinite().all() for value in produced)


def test_the_folder_of_the_page_about_files(tmp_path, monkeypatch):
    """The listing at the top of the page is that of a folder that two runs wrote to."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "how-to" / "files.md").read_text()
    first, *lines = re.search(r"```text\n(.*?)```", page, re.DOTALL)[1].splitlines()
    listed = dict(line.split(maxsplit=1) for line in lines)
    for name in ("cat", "cup"):
        maps = np.full((1, 4, 4), 0.1, np.float32)
        save_seed(f"{name}.npy", Seed(torch.tensor([0]), torch.tensor(maps[:, ::4, ::4]), maps))
    folder = Path(first)
    write_label_maps(".", folder)
    (folder / "notes.txt").write_text("mine")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "cup.png")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == listed.keys()
    assert [name for name in before if not before[name]] == [name for name in listed if listed[name] == "empty"]
    lists = json.loads(before[".captum_regioncam.json"])["runs"][0]["results"]
    assert lists.keys() == {name for name in listed if listed[name].startswith("listed")}

    written = write_label_maps(".", folder, threshold=0.05)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed - {".captum_regioncam.json"} == {name for name in listed if "replaced" in listed[name]}
    assert {f"{name}.png" for name in written.failures} == {name for name in listed if "edited" in listed[name]}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_of_the_documentation_exist(page):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^make (\w+)", (ROOT / page).read_text(), re.MULTILINE)
    assert len(named) >= 2
    assert set(named) <= set(targets)


def test_every_page_with_code_is_run():
    pages = [
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs" / "how-to").glob("*.md")),
        ROOT / "README.md",
    ]
    with_code = {page.relative_to(ROOT).as_posix() for page in pages if "```python" in page.read_text()}
    assert with_code == {page for page, _, _ in PAGES}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def messages():
    """The constant parts of every message that the library raises or warns with, and the constants they name."""
    for path in [path for room in (".", "method", "network", "stages") for path in (PACKAGE / room).glob("*.py")]:
        if path.stem in ("watch", "extras", "lazy"):
            continue  # what watch raises, find_stages catches; the others are Python's own errors
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            is_warning = isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
            if (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)) or is_warning:
                call = node if is_warning else node.exc
                if call.args:
                    parts = [
                        n.value for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant) and type(n.value) is str
                    ]
                    yield path.name, [part for part in parts if len(part) > 12]


def test_troubleshooting_has_every_message():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    symptoms = re.findall(r"`([^`]+)`", " ".join(line for line in page.splitlines() if not line.startswith(": ")))
    found = 0
    for name, parts in messages():
        if parts:  # a message that is all variable is told by its pieces, which are constants of the module
            found += 1
            pieces = [piece.strip(" .:;,(") for symptom in symptoms for piece in symptom.split("…") if len(piece) > 8]
            assert any(piece in part for part in parts for piece in pieces), (name, parts)
    assert found > 25


def test_troubleshooting_quotes_what_the_code_says():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    constants = " ".join(
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and type(node.value) is str
    )
    quoted = [line for line in page.splitlines() if line.startswith("`")]
    assert len(quoted) > 20
    for symptom in re.findall(r"`([^`]+)`", " ".join(quoted)):
        for piece in symptom.split("…"):
            for words in re.findall(r"[\w][\w ,()'*/-]{11,}\w", piece):
                assert words in constants, (symptom, words)


def test_table_of_models_has_every_family():
    lines = (ROOT / "docs" / "models.md").read_text().splitlines()
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("| ")]
    assert rows.pop(0) == ["family", "network", "stages", "outcome"]
    assert len(rows) >= 150
    assert len({family for family, *_ in rows}) == len(rows)
    for _, network, stages, outcome in rows:
        if re.fullmatch(r"map(; last call of \w+)*", outcome):
            assert network
            assert stages
        else:
            assert re.match("no stages: |not built here: ", outcome), outcome
            assert not stages
