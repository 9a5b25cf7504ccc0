"""What several commands do with their options: the network, the data set, and what failed."""

import re
from collections.abc import Collection, Mapping

import torch

from captum_regioncam.cli.options import Called, DataOptions, MapOptions, NetworkOptions
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.datasets import open_dataset
from captum_regioncam.evaluation.datasets.base import PhotoDataset
from captum_regioncam.evaluation.models import usable_device
from captum_regioncam.files.text import counted

__all__ = ["check_contrast", "check_size", "classifier_of", "data_of", "pace", "readers_of", "report_failures"]

_MOST_NAMES = 20


def check_size(network: NetworkOptions) -> None:
    """Check that a given size has an effect."""
    if network.size and network.resize == "keep":
        raise UsageError("--size: cannot be used with --resize keep; also pass --resize squash, short or crop.")


def check_contrast(called: Called, methods: Collection[str]) -> None:
    """Check that a given contrast has an effect."""
    if "region-cam" not in methods and "contrast" in called.given:
        raise UsageError("--contrast: applies only to region-cam, which --method does not name.")


def classifier_of(network: NetworkOptions, called: Called) -> Classifier:
    """Build the network, on its device, and say so if its weights are random."""
    classifier = Classifier.load(
        network.model,
        network.weights,
        weights_key=network.weights_key,
        allow_classes=network.allow_class,
        size=network.size,
        mean=network.mean,
        std=network.std,
        resize=network.resize,
        interpolation=network.interpolation,
        device=usable_device(network.device),
    )
    if network.weights == "none":
        say(f"captum-regioncam {called.command}: the weights are random (--weights none).", error=True)
    return classifier


def data_of(data: DataOptions, *, ground_truth: bool) -> PhotoDataset:
    """Open the data set."""
    return open_dataset(
        data.dataset,
        data.root,
        split=data.split,
        labels_from=data.labels_from,
        ground_truth=ground_truth,
        masks=data.masks,
        crowds=data.crowds,
    )


def readers_of(maps: MapOptions, network: NetworkOptions) -> int:
    """Return how many processes read photos ahead: none on a CPU, where they would slow the network down."""
    if maps.readers is not None:
        return maps.readers
    return 0 if not torch.cuda.is_available() or str(network.device).startswith("cpu") else 4


def report_failures(failures: Mapping[str, str], total: int, noun: str, did: str = "failed") -> None:
    """Print what failed, and why. Photos that failed for the same reason are listed together.

    Args:
        failures: {name: reason}.
        total: how many there were.
        noun: what they are, in the singular.
        did: what became of those that failed.
    """
    if not failures:
        return
    say(f"{len(failures):,} of {counted(total, noun)} {did}:", error=True)
    alike: dict[str, list[str]] = {}
    for name, reason in failures.items():
        alike.setdefault(re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "NAME", reason), []).append(name)
    for reason, names in sorted(alike.items(), key=lambda item: -len(item[1])):
        if len(names) == 1:
            [name] = names
            say(f"  {failures[name] if name in failures[name] else f'{name}: {failures[name]}'}", error=True)
        else:
            more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
            say(f"  {len(names):,} times: {reason}", error=True)
            say(f"    {', '.join(names[:_MOST_NAMES])}{more}", error=True)


def pace(photos: int, seconds: float) -> str:
    """Say how long photos took, and how many were done per second."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    took = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    return f"{counted(photos, 'photo')} in {took}, {photos / max(seconds, 1e-3):.1f} photos per second"
