"""Weights files as training scripts write them: each loads whole, or one line says what it is and what to pass."""

import argparse
import json
import logging
import re
import sys
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import timm
import timm.utils
import torch
import torchvision
from commands import run
from helpers import small_net
from PIL import Image
from safetensors.torch import save_file
from skimage.data import chelsea
from torch import nn
from torch.optim.swa_utils import AveragedModel

from captum_regioncam.evaluation.classifier import Classifier

NETWORKS = """
import torch
import transformers
from torch import nn
from captum_regioncam import class_scores


class Net(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.layer1(x).mean((2, 3)))


class Renaming(Net):
    def _load_from_state_dict(self, state, prefix, *others):
        for name in [name for name in state if name.startswith(prefix + "conv1.")]:
            state[name.replace("conv1.", "layer1.0.")] = state.pop(name)
        super()._load_from_state_dict(state, prefix, *others)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def wrapped():
    return nn.Sequential(Net())


def vit():
    torch.manual_seed(1)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = transformers.ViTConfig(image_size=32, patch_size=16, num_labels=5, **sizes)
    return transformers.ViTForImageClassification(config)


def vit_scores():
    return class_scores(vit())
"""

FACTORY = "Pass model='package.module:factory', a function that builds the network as it was trained."


@pytest.fixture(autouse=True)
def networks(tmp_path, monkeypatch):
    """A module of networks in the current folder, where the weights files go."""
    (tmp_path / "own.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import own

    yield own
    sys.modules.pop("own", None)


def loaded(caplog, file="w.pth", name="own:Net", **options):
    """Load a network; return its tensors and the message."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "captum_regioncam"):
        classifier = Classifier.load(name, file, **options)
    [message] = caplog.messages
    assert "\n" not in message
    return classifier.model.state_dict(), message


def refusal(file="w.pth", name="own:Net", **options):
    """Return why a file is refused."""
    with pytest.raises(ValueError, match=r"^(weights|allow)") as error:
        Classifier.load(name, file, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def trained(make):
    """A network with random statistics, as training leaves them."""
    network = make()
    for buffer in network.buffers():
        buffer.copy_(torch.randint(1, 9, buffer.shape))
    return network


def optimizer_of(network):
    """The state of an optimizer after a step."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def prefixed(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def files(own, net, other):
    """Yield the checkpoints that load: what is saved, and what the message says besides the file and "9 of 9 ...".

    ``net`` is what shall be loaded, and ``other`` another network of its kind.
    """
    state, others = net.state_dict(), other.state_dict()
    backbone = {name: value for name, value in state.items() if not name.startswith("fc.")}
    head = {name: value for name, value in state.items() if name.startswith("fc.")}
    average = AveragedModel(net)
    average.update_parameters(net)
    args = argparse.Namespace(arch="net", lr=0.1, output_dir="out")
    yield "the state dict", state, ""
    yield "DataParallel", nn.DataParallel(net).state_dict(), " (weights key module)"
    yield "torch.compile", torch.compile(net, backend="eager").state_dict(), " (weights key _orig_mod)"
    yield "both", torch.compile(nn.DataParallel(net), backend="eager").state_dict(), " (weights key _orig_mod.module)"
    yield (
        "SWA", average.state_dict(),
        " (weights key module); left over in the file: 1 tensor (n_averaged)",
    )  # fmt: skip
    for key in ("net", "model_state", "model_state_dict", "model", "network_weights"):
        yield key, {"epoch": 3, key: state}, f" (weights key {key})"
    yield "a list", [3, state], " (weights key 1)"
    yield (
        "Lightning",
        {"epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.5.0", "loops": {"fit_loop": {"state_dict": {}}},
         "state_dict": {**prefixed("model.", state), "loss.weight": torch.ones(5)}, "callbacks": {},
         "optimizer_states": [optimizer_of(other)], "lr_schedulers": [], "hyper_parameters": {"lr": 0.1}},
        " (weights key state_dict.model); left over in the file: 7 tensors (state_dict.loss.weight, optimizer_states.0."
        "state.0.momentum_buffer, ...)",
    )  # fmt: skip
    yield (
        "torchvision's reference script",
        {"model": state, "optimizer": optimizer_of(other), "lr_scheduler": {"last_epoch": 3}, "epoch": 3, "args": args,
         "model_ema": AveragedModel(other).state_dict()},
        " (weights key model); weights keys that fit as well: model_ema.module; left over in the file: 16 tensors "
        "(optimizer.state.0.momentum_buffer, optimizer.state.1.momentum_buffer, ...)",
    )  # fmt: skip
    yield (
        "MoCo",
        {"epoch": 3, "arch": "net", "state_dict": {**prefixed("module.encoder_q.", state),
         **prefixed("module.encoder_k.", others), "module.queue": torch.ones(2, 4), "module.queue_ptr": torch.ones(1)}},
        " (weights key state_dict.module.encoder_q); weights keys that fit as well: state_dict.module.encoder_k; left "
        "over in the file: 11 tensors (state_dict.module.encoder_k.layer1.0.weight, "
        "state_dict.module.encoder_k.layer1.0.bias, ...)",
    )  # fmt: skip
    yield (
        "DINO",
        {"student": prefixed("module.backbone.", others), "teacher": prefixed("backbone.", state), "args": args},
        " (weights key teacher.backbone); weights keys that fit as well: student.module.backbone; left over in the "
        "file: 9 tensors (student.module.backbone.layer1.0.weight, student.module.backbone.layer1.0.bias, ...)",
    )  # fmt: skip
    yield (
        "mmpretrain",
        {"meta": {"epoch": 3}, "state_dict": {**prefixed("backbone.", backbone), **prefixed("head.", head),
         "data_preprocessor.mean": torch.ones(3)}},
        " (weights key state_dict.backbone and state_dict.head); left over in the file: 1 tensor "
        "(state_dict.data_preprocessor.mean)",
    )  # fmt: skip
    yield "the format before torch 1.6", {"state_dict": state, "args": args}, " (weights key state_dict)"
    without = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    yield "torch 0.4", without, "; not in the file, and left as built: 1 tensor (layer1.1.num_batches_tracked)"


NAMES = [
    "the state dict", "DataParallel", "torch.compile", "both", "SWA", "net", "model_state", "model_state_dict", "model",
    "network_weights", "a list", "Lightning", "torchvision's reference script", "MoCo", "DINO", "mmpretrain",
    "the format before torch 1.6", "torch 0.4",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*DataParallel")
def test_files_that_load(name, networks, caplog):
    net, other = trained(networks.Net), trained(networks.Net)
    cases = {name: case for name, *case in files(networks, net, other)}
    assert list(cases) == NAMES
    content, said = cases[name]
    torch.save(content, "w.pth", _use_new_zipfile_serialization=name != "the format before torch 1.6")
    found, message = loaded(caplog)
    wanted = net.state_dict()
    count = 9
    if name == "torch 0.4":
        found.pop("layer1.1.num_batches_tracked"), wanted.pop("layer1.1.num_batches_tracked")
        count = 8
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert message == f"w.pth: {count} of 9 tensors fit{said}."


def test_every_one_of_several_weights_can_be_chosen(networks, caplog):
    net, average = trained(networks.Net), trained(networks.Net)
    torch.save({"model": net.state_dict(), "model_ema": prefixed("module.", average.state_dict())}, "w.pth")
    for key in ("model_ema", "model_ema.module"):
        found, message = loaded(caplog, weights_key=key)
        torch.testing.assert_close(found, average.state_dict())
        assert message == "w.pth: 9 of 9 tensors fit (weights key model_ema.module)."
    assert Classifier.load("own:Net", "w.pth", weights_key="model").settings["weights_key"] == "model"
    assert "weights_key" not in Classifier.load("own:Net", "w.pth").settings
    with pytest.raises(ValueError, match=r"^weights_key='modelema': the file has no such key. Nearest: model_ema, "):
        Classifier.load("own:Net", "w.pth", weights_key="modelema")
    with pytest.raises(ValueError, match=r"^weights_key='model': requires weights with a file.$"):
        Classifier.load("own:Net", "none", weights_key="model")
    with pytest.raises(ValueError, match=r"^allow_classes: requires weights with a file.$"):
        Classifier.load("own:Net", allow_classes=["pathlib.Path"])


def test_timm_s_own_saver(networks, tmp_path, caplog):
    net, average = trained(networks.Net), timm.utils.ModelEmaV3(networks.Net())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    saver = timm.utils.CheckpointSaver(
        net, optimizer, args=argparse.Namespace(model="net"), model_ema=average, checkpoint_dir=str(tmp_path)
    )
    saver.save_checkpoint(3, metric=71.5)
    found, message = loaded(caplog, "last.pth.tar")
    torch.testing.assert_close(found, net.state_dict())
    assert "(weights key state_dict); weights keys that fit as well: state_dict_ema" in message
    found, _ = loaded(caplog, "last.pth.tar", weights_key="state_dict_ema")
    torch.testing.assert_close(found, average.module.state_dict())


def test_safetensors(networks, tmp_path, caplog, monkeypatch):
    net = trained(networks.Net)
    save_file(prefixed("backbone.", net.state_dict()), "w.pth")
    found, message = loaded(caplog)
    torch.testing.assert_close(found, net.state_dict())
    assert message == "w.pth: 9 of 9 tensors fit (weights key backbone)."
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[:-10])
    assert "'w.pth': is a damaged safetensors file (" in refusal()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'this needs: pip install "captum_regioncam\[eval\]" \('):
        Classifier.load("own:Net", "w.pth")


def test_a_network_of_transformers(networks, tmp_path, caplog):
    state = networks.vit().state_dict()
    save_file(state, "w.safetensors")
    found, message = loaded(caplog, "w.safetensors", "own:vit_scores")
    torch.testing.assert_close(found, prefixed("model.", state))
    assert message == f"w.safetensors: {len(state)} of {len(state)} tensors fit."


def test_a_model_inside_another(networks, caplog):
    net = trained(networks.Net)
    for content in (net.state_dict(), {"model": prefixed("0.", net.state_dict())}):
        torch.save(content, "w.pth")
        found, message = loaded(caplog, name="own:wrapped")
        torch.testing.assert_close(found, prefixed("0.", net.state_dict()))
        assert message == "w.pth: 9 of 9 tensors fit" + " (weights key model)" * ("model" in content) + "."


def test_a_network_that_renames_old_tensors_itself(networks, caplog):
    net = trained(networks.Net)
    old = {name.replace("layer1.0.", "conv1."): value for name, value in net.state_dict().items()}
    torch.save({"state_dict": old, "optimizer": optimizer_of(net)}, "w.pth")
    state = {name: value.clone() for name, value in net.state_dict().items()}
    found, message = loaded(caplog, name="own:Renaming")
    torch.testing.assert_close(found, state)
    assert message == "w.pth: the network renames or changes old tensors itself, and took all 9."


def test_lazy_networks_and_scalars(networks, caplog):
    net, _ = small_net(classes=5)
    torch.save({"net": net.state_dict()}, "w.pth")
    found, message = loaded(caplog, name="helpers:SmallNet")
    torch.testing.assert_close(found, net.state_dict())
    assert message == "w.pth: 8 of 8 tensors fit (weights key net)."
    torch.save({"scale": torch.tensor(2.0)}, "w.pth")
    assert refusal(name="own:Scaled").endswith("0 of 1 tensor fits; scale has shape (), the model's (1,). " + FACTORY)


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "timm:mobilenetv3_small_050"])
def test_another_number_of_classes(name, caplog):
    source, _, model = name.partition(":")
    make = timm.create_model if source == "timm" else torchvision.models.get_model
    net = make(model, num_classes=20)
    torch.save({"state_dict": net.state_dict()}, "w.pth")
    with caplog.at_level(logging.INFO, "captum_regioncam"):
        classifier = Classifier.load(name, "w.pth")
    torch.testing.assert_close(classifier.model.state_dict(), net.state_dict())
    assert list(classifier.class_names) == []
    count = len(net.state_dict())
    assert caplog.messages == [
        f"w.pth: {count} of {count} tensors fit (weights key state_dict); it has 20 classes, whose names are not known."
    ]


def test_files_that_do_not_fit(networks, tmp_path):
    def of(state):
        torch.save({"state_dict": state}, "w.pth")
        return refusal()

    state = networks.Net(20).state_dict()
    assert of(prefixed("module.", state)) == (
        "weights='w.pth': does not fit the model: 7 of 9 tensors fit (weights key state_dict.module); fc.weight "
        "has shape (20, 6), the model's (5, 6); fc.bias has shape (20,), the model's (5,). Pass "
        "model='package.module:factory', a function that builds the network with 20 classes."
    )
    trunk = {name: value for name, value in state.items() if not name.startswith("fc.")}
    assert of(trunk) == (
        "weights='w.pth': does not fit the model: 7 of 9 tensors fit (weights key state_dict); the file lacks 2 "
        "tensors (fc.weight, fc.bias). Pass model='package.module:factory', a function that builds the network as it "
        "was trained."
    )
    head = networks.Net().fc.state_dict()
    two = {**prefixed("backbone.", trunk), **prefixed("head.fc.", head), **prefixed("auxiliary.fc.", head)}
    assert "7 of 9 tensors fit (weights key state_dict.backbone); the file lacks 2 tensors" in of(two)
    elsewhere = {**prefixed("q.net.", trunk), **prefixed("k.fc.", head)}
    assert "the file lacks 2 tensors (fc.weight, fc.bias)" in of(elsewhere)
    half = {name: value for name, value in networks.Net().state_dict().items() if "running" not in name}
    assert "7 of 9 tensors fit (weights key state_dict); the file lacks 2 tensors (layer1.1.running_mean, " in of(half)
    torch.save(nn.Linear(3, 2).state_dict(), "w.pth")
    assert refusal() == (
        "weights='w.pth': does not fit the model: the file has 2 tensors (weight, bias); the model's are 9 tensors "
        "(layer1.0.weight, layer1.0.bias, ...). Pass model with the network that the file was made from."
    )
    for content, what in (([1], "list of [int]"), ({"epoch": 3}, "dict of 'epoch'"), (3, "int")):
        torch.save(content, "w.pth")
        assert refusal() == f"weights='w.pth': has no tensors; it holds {what}."


def test_content_that_holds_itself():
    content = {"epoch": 3}
    content["again"] = content
    torch.save(content, "w.pth")
    assert refusal() == "weights='w.pth': is nested too deeply, or contains itself."


def test_the_command_line(networks, capsys):
    Image.fromarray(chelsea()).save("cat.png")
    net, average = trained(networks.Net), trained(networks.Net)
    args = argparse.Namespace(lr=np.dtype("float32"))
    torch.save({"model": net.state_dict(), "model_ema": average.state_dict(), "args": args}, "w.pth")
    explain = [
        "explain",
        "cat.png",
        "--model",
        "own:Net",
        "--weights",
        "w.pth",
        "--method",
        "grad-cam",
        "--layers",
        "layer1",
    ]
    assert run(*explain, "--output", "maps") == 2
    error = "captum-regioncam explain: error: --weights w.pth: holds classes besides tensors and plain data. "
    err = capsys.readouterr().err
    assert err.startswith(error)
    assert err.endswith("allow what it needs: --allow-class numpy.dtype.\n")
    allowed = ["--allow-class", "numpy.dtype", "--allow-class", "numpy.dtypes.Float32DType"]
    assert run(*explain, *allowed, "--weights-key", "model_ema", "--output", "maps") == 0
    assert capsys.readouterr().out.startswith("w.pth: 9 of 9 tensors fit (weights key model_ema).\ncat.png: class ")
    manifest = json.loads(Path("maps/manifest.json").read_text())
    assert manifest["settings"]["weights_key"] == "model_ema"
    assert run(*explain, *allowed, "--weights-key", "ema", "--output", "maps") == 2
    assert "error: --weights-key ema: the file has no such key. Nearest: model_ema" in capsys.readouterr().err


def test_files_that_need_classes(networks, tmp_path, caplog):
    net = trained(networks.Net)
    args = argparse.Namespace(output_dir=PurePosixPath("out"))
    for new in (True, False):
        torch.save({"model": net.state_dict(), "args": args}, "w.pth", _use_new_zipfile_serialization=new)
        said = refusal()
        assert said.startswith(
            "weights='w.pth': holds classes besides tensors and plain data. Where it was made, run "
            "torch.save(state_dict, FILE). Or, if you trust the file, allow what it needs: allow_classes=['pathlib."
        )
        needed = said.split("'")[-2]
        torch.testing.assert_close(loaded(caplog, allow_classes=[needed])[0], net.state_dict())
    torch.save({"model": net.state_dict(), "accuracy": np.float64(71.5)}, "w.pth")
    names: list[str] = []
    while len(names) < 3:
        names = refusal(allow_classes=names).partition("allow_classes=[")[2].strip("].").replace("'", "").split(", ")
    assert "numpy.dtypes.Float64DType" in names
    torch.testing.assert_close(loaded(caplog, allow_classes=names)[0], net.state_dict())
    assert refusal(allow_classes=["no_module.Thing"]) == (
        "allow_classes='no_module.Thing': cannot be imported (No module named 'no_module'); expects "
        "package.module.Class."
    )


def test_a_whole_pickled_network(networks, caplog):
    net = trained(networks.Net)
    torch.save(net, "w.pth")
    said = refusal()
    assert said.startswith(
        "weights='w.pth': is a whole network, pickled with its classes. Where it was made, run "
        "torch.save(model.state_dict(), FILE). Or, if you trust the file, allow what it needs: "
        "allow_classes=['own.Net', 'torch.nn.modules.activation.ReLU', "
    )
    names = said.partition("=[")[2].partition("]")[0].replace("'", "").split(", ")
    torch.testing.assert_close(loaded(caplog, allow_classes=names)[0], net.state_dict())


def truncated(path, state):
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


def truncated_legacy(path, state):
    torch.save(state, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])


def archive(path, state):
    with zipfile.ZipFile(path, "w") as file:
        for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
            file.writestr(name, "text")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path, state: None, "no such file."),
        (lambda path, state: path.mkdir(), "is a folder; give the file in it."),
        (lambda path, state: path.touch(), "is empty. Download or copy it again."),
        (
            lambda path, state: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
            "is a Git LFS pointer, not the file itself. Run git lfs pull in its repository.",
        ),
        (
            lambda path, state: path.write_text("\n<!DOCTYPE html><html>Quota exceeded</html>"),
            "is a web page, not a checkpoint. Open it to read why, and download the file itself.",
        ),
        (truncated, "is truncated or damaged. Download or copy it again."),
        (
            truncated_legacy,
            "cannot be read by torch.load; it may be truncated or damaged (unexpected EOF, expected N more bytes. The "
            "file might be corrupted).",
        ),
        (archive, "is a zip archive of other files (a.txt, b.txt, c.txt, ...), not a checkpoint. Unpack it first."),
        (
            lambda path, state: torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3)).save(path),
            "is TorchScript, a network with its code. Save its tensors: torch.save(torch.jit.load('w.pth')"
            ".state_dict(), FILE).",
        ),
        (
            lambda path, state: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(9)),
            r"is not a checkpoint of torch.save; it begins with b'\x89HDF\r\n\x1a\n\x00\x00\x00\x00'.",
        ),
        (
            lambda path, state: path.write_bytes(b"\x80\x04N."),
            r"is a pickle, but not a checkpoint of torch.save; it begins with b'\x80\x04N.'.",
        ),
    ],
    ids=["missing", "folder", "empty", "lfs", "html", "truncated", "legacy", "zip", "torchscript", "hdf5", "pickle"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_files_that_are_something_else(write, said, networks, tmp_path):
    write(tmp_path / "w.pth", networks.Net().state_dict())
    assert re.sub(r"\d+ more bytes", "N more bytes", refusal()) == f"weights='w.pth': {said}"


def test_code_in_a_file_never_runs(networks, tmp_path):
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": networks.Net().state_dict(), "code": Code()}, "w.pth")
    assert "holds classes besides tensors and plain data" in refusal()
    assert not (tmp_path / "ran").exists()
