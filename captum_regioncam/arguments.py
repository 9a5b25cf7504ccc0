"""What the commands share: arguments of the command line, and what they stand for."""

import argparse
import contextlib
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from captum_regioncam.classifiers import (
    DEFAULT_MODEL,
    RESIZES,
    Classifier,
    UsageError,
    load_classifier,
    nearest,
)
from captum_regioncam.methods import METHODS
from captum_regioncam.stages import Stages, find_stages

__all__ = [
    "add_model_arguments",
    "check_picture",
    "classifier_of",
    "comma",
    "folder",
    "layers_named",
    "methods",
    "numbers",
    "positive",
    "report_failures",
    "stages_of",
    "usable_device",
]


def comma(values: str) -> list[str]:
    """Split at the commas."""
    return [value.strip() for value in values.split(",")]


def methods(values: str) -> list[str]:
    """Parse names of methods, with commas between them."""
    named = comma(values)
    for method in named:
        if method not in METHODS:
            raise argparse.ArgumentTypeError(f"{method!r} is none of {', '.join(METHODS)}")
    return list(dict.fromkeys(named))


def numbers(count: int | None, *, above_zero: bool = False) -> Callable[[str], list[float]]:
    """Make the parser of so many numbers with commas between them; of at least one where ``count`` is None."""

    def parse(values: str) -> list[float]:
        try:
            parsed = [float(value) for value in values.split(",")]
        except ValueError:
            parsed = []
        if not parsed or len(parsed) != (count or len(parsed)) or not all(map(math.isfinite, parsed)):
            wanted = {
                None: "numbers with commas between them",
                1: "a number",
                3: "three numbers with commas between them",
            }
            raise argparse.ArgumentTypeError(f"{values!r} is not {wanted[count]}")
        if above_zero and min(parsed) <= 0:
            raise argparse.ArgumentTypeError(f"{values!r}: has to be above 0")
        return parsed

    return parse


def positive(value: str) -> int:
    """Parse a positive whole number."""
    if not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive whole number")
    return int(value)


def _contrast(value: str) -> float:
    return numbers(1, above_zero=True)(value)[0]


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which network, and how photos come to it."""
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME",
        help="%(default)s (default), torchvision:resnet50, timm:NAME, or package.module:factory",
    )  # fmt: skip
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint, or 'none'; default: the model's own")
    parser.add_argument("--layers", type=comma, metavar="A,B,C", help="dotted names; default: the stages found")
    parser.add_argument("--size", type=positive, metavar="N", help="input side in pixels; default: the model's")
    parser.add_argument("--mean", type=numbers(3), metavar="R,G,B", help="of pixels in [0, 1]; default: the model's")
    parser.add_argument("--std", type=numbers(3, above_zero=True), metavar="R,G,B", help="likewise")
    parser.add_argument(
        "--resize", choices=RESIZES,
        help="squash the whole photo to N x N (default), its short side to N, crop its centre, or keep its size "
        "(default for seeds, voc and coco without --size)",
    )  # fmt: skip
    parser.add_argument(
        "--contrast", type=_contrast, default=3.0, metavar="C",
        help="power that Region-CAM's maps are taken to; 1 gives the plain mean of the layers' maps; default: "
        "%(default)g",
    )  # fmt: skip
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; default: cuda where there is one")


def check_picture(option: str, path: Path) -> None:
    """See that a picture can be written to a path: a file, of a format that matplotlib has."""
    if path.is_dir() or path.suffix.lower() not in ("", ".png", ".jpg", ".jpeg", ".pdf", ".svg"):
        raise UsageError(f"{option} {path}: expects a file to write, .png, .jpg, .pdf or .svg.")


def classifier_of(options: argparse.Namespace) -> Classifier:
    """Build the network that :func:`add_model_arguments`' options name, and say so where its weights are random."""
    classifier = load_classifier(
        options.model,
        options.weights,
        size=options.size,
        mean=options.mean,
        std=options.std,
        resize=options.resize or "squash",
    )
    if options.weights == "none":
        print(f"captum-regioncam {options.command}: the weights are random (--weights none).", file=sys.stderr)
    return classifier


def report_failures(failures: dict[str, str], total: int, what: str) -> None:
    """Say what failed, and why."""
    if failures:
        print(f"{len(failures)} of {total} {what}:", file=sys.stderr)
        for name, reason in failures.items():
            print(f"  {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)


def layers_named(model: Module, names: list[str] | None) -> dict[str, Module] | None:
    """Return a model's modules by their names; None for None."""
    modules = dict(model.named_modules())
    for name in names or ():
        if not name or name not in modules:
            raise UsageError(f"--layers {name!r}: the model has no such layer. {nearest(name, modules)}")
    return None if names is None else {name: modules[name] for name in names}


def stages_of(model: Module, x: Tensor, named: dict[str, Module] | None) -> Stages:
    """Return the layers asked for, or else found, with the reshape_transform that the model's layout needs."""
    if named is None:
        return find_stages(model, x)
    with contextlib.suppress(ValueError):
        return Stages(named, find_stages(model, x).reshape_transform)
    return Stages(named)


def usable_device(name: str | None) -> torch.device:
    """Return the device asked for; without a name CUDA's where there is one."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except Exception as error:
        raise UsageError(f"--device {name}: not to be had here ({str(error).splitlines()[0]}).") from error
    return device


def folder(path: str) -> Path:
    """Parse the path of a folder to write to."""
    if Path(path).exists() and not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a file; give a folder")
    return Path(path)
