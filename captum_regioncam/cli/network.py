"""From the options of the command line to a network and its layers."""

import argparse
import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import Module

from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.errors import reason_of
from captum_regioncam.evaluation.classifier import Classifier, nearest
from captum_regioncam.evaluation.models import load_classifier
from captum_regioncam.stages import Stages, find_stages

__all__ = [
    "check_size",
    "classifier_of",
    "layers_named",
    "probe_of",
    "report_failures",
    "stages_of",
    "tried",
    "usable_device",
]


def check_size(options: argparse.Namespace) -> None:
    """Check that a given size has an effect."""
    if options.size and options.resize == "keep":
        raise UsageError("--size: cannot be used with --resize keep; also pass --resize squash, short or crop.")


def classifier_of(options: argparse.Namespace) -> Classifier:
    """Build the network that the options name, on its device, and say so if its weights are random."""
    classifier = load_classifier(
        options.model,
        options.weights,
        size=options.size,
        mean=options.mean,
        std=options.std,
        resize=options.resize,
    )
    classifier.model.to(usable_device(options.device))
    if options.weights == "none":
        say(f"captum-regioncam {options.command}: the weights are random (--weights none).", error=True)
    return classifier


def usable_device(name: str | None) -> torch.device:
    """Return the named device. Without a name, it is a CUDA device if there is one: of several, this process's own."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except Exception as error:
        raise UsageError(f"--device {name}: is not available here ({str(error).splitlines()[0]}).") from error
    if device.type == "cuda" and device.index is None:  # a launcher may show each process one device, or all of them
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return device


def layers_named(classifier: Classifier, names: list[str] | None) -> dict[str, Module] | None:
    """Return a network's modules by their names; None for None."""
    modules = dict(classifier.model.named_modules())
    for name in names or ():
        if not name or name not in modules:
            problem = f"--layers {name!r}: the model has no such layer. {nearest(name, modules)}"
            with contextlib.suppress(Exception):
                problem += f" The stages are {find_stages(classifier.model, probe_of(classifier)).describe()}."
            raise UsageError(problem)
    return None if names is None else {name: modules[name] for name in names}


def stages_of(model: Module, x: Tensor, named: dict[str, Module] | None) -> Stages:
    """Return the named layers, or else the stages found, with the reshape_transform that the model's layout needs.

    Raises:
        UsageError: no layer is named, and no stage is found.
    """
    if named is None:
        try:
            return find_stages(model, x)
        except ValueError as error:
            raise UsageError(f"--layers: pass their names, since the network shows no stages. {error}") from error
    with contextlib.suppress(ValueError):
        return Stages(named, find_stages(model, x).reshape_transform)
    return Stages(named)


def probe_of(classifier: Classifier) -> Tensor:
    """Return noise of the network's input size, always the same, to try the network on before the first photo."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, classifier.size, classifier.size, generator=generator).to(classifier.device)


@contextlib.contextmanager
def tried(classifier: Classifier) -> Iterator[Tensor]:
    """Yield what :func:`probe_of` returns. Whatever the network raises on it becomes an error of ``--model``."""
    probe = probe_of(classifier)
    try:
        yield probe
    except (UsageError, ValueError) as error:
        raise UsageError(reason_of(error)) from error
    except Exception as error:
        side = classifier.size
        raise UsageError(
            f"--model: fails on an input of 3 x {side} x {side} ({reason_of(error)}). Is --size right?"
        ) from error


def report_failures(failures: dict[str, str], total: int, what: str) -> None:
    """Print what failed, and why."""
    if failures:
        say(f"{len(failures)} of {total} {what}:", error=True)
        for name, reason in failures.items():
            say(f"  {reason if name in reason else f'{name}: {reason}'}", error=True)
