"""What ``seeds``, ``labels`` and ``evaluate`` share: the data set, and the settings that a run records."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from captum_regioncam.cli.network import check_size
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation import PhotoDataset, datasets
from captum_regioncam.evaluation.photo_maps import PhotoMaps
from captum_regioncam.evaluation.protocol import PROTOCOLS, Protocol
from captum_regioncam.evaluation.runs.provenance import device_name, provenance

__all__ = ["check_contrast", "dataset_of", "made_of", "open_dataset", "origin", "protocol_of", "readers_of"]

_NOT_SETTINGS = ("command", "command_line", "given", "json", "plot", "resume", "readers")


def open_dataset(
    name: str, root: str, split: str | None = None, labels: str | None = None, *, ground_truth: bool
) -> PhotoDataset:
    """Open a data set by its name on the command line."""
    layout = datasets.LAYOUTS[name]
    split, labels = (split or None) if layout.split else None, labels if layout.labels_from else None
    try:
        return datasets.open_dataset(name, root, split=split, labels_from=labels, ground_truth=ground_truth)
    except ValueError as error:
        lists = (
            f"has no ImageSets/Segmentation/{split}.txt.",
            f"has no {split}, no annotations/instances_{split}.json.",
        )
        option = "--split" if str(error).endswith(lists) else "--root"
        raise UsageError(f"{option}: {error}") from error


def dataset_of(options: argparse.Namespace, *, ground_truth: bool) -> PhotoDataset:
    """Open the data set that the options of ``seeds`` or ``evaluate`` name."""
    split, labels = getattr(options, "split", None), getattr(options, "labels", None)
    return open_dataset(options.dataset, options.root, split, labels, ground_truth=ground_truth)


def check_contrast(options: argparse.Namespace, methods: Sequence[str]) -> None:
    """Check that a given contrast has an effect."""
    if "region-cam" not in methods and options.given(options, ["contrast"]):
        raise UsageError("--contrast: applies only to region-cam, which --method does not name.")


def protocol_of(options: argparse.Namespace) -> Protocol:
    """Return the protocol that the options define, and check that they go together."""
    check_size(options)
    default = PROTOCOLS[options.dataset]
    normalize, upsample = (getattr(options, name, getattr(default, name)) for name in ("normalize", "upsample"))
    return Protocol(options.scales, options.flip, options.resize, normalize, upsample, batch=options.batch)


def readers_of(options: argparse.Namespace) -> int:
    """Return how many processes read photos ahead. On a CPU, they would cost the network the time that they save."""
    if options.readers is not None:
        return int(options.readers)
    return 0 if not torch.cuda.is_available() or str(options.device).startswith("cpu") else 4


def made_of(options: argparse.Namespace, maps: PhotoMaps, dataset: PhotoDataset) -> dict[str, Any]:
    """Return the settings that the maps of a run depend on, as JSON values."""
    names = ["dataset", "split", "labels", "model", "size", "mean", "std", "resize", "method", "contrast", "scales"]
    names += ["flip", "upsample", "normalize", "batch"]
    settings = {name: getattr(options, name, None) for name in names}
    settings |= {"root": str(Path(options.root).resolve()), "layers": maps.stages.describe().split(", ")}
    weights, checkpoint = options.weights, maps.checkpoint
    if "sha256" in checkpoint:  # of a file, so that a run never continues with other weights
        weights = f"{weights} (sha256 {checkpoint['sha256'][:16]})"
    own = checkpoint.get("state_dict_sha256")
    return settings | {"index": dataset.fingerprint(), "checkpoint": own, "weights": weights}


def origin(options: argparse.Namespace, maps: PhotoMaps | None = None, **more: Any) -> dict[str, Any]:
    """Return where the results of a command come from, as JSON values."""
    plain = {name: value for name, value in vars(options).items() if name not in _NOT_SETTINGS}
    about: dict[str, Any] = {"settings": json.loads(json.dumps(plain, default=str))}
    if maps is not None:
        about |= {"model": options.model, "checkpoint": dict(maps.checkpoint)}
        about |= {"layers": maps.stages.describe().split(", "), "protocol": str(maps.protocol), "precision": "float32"}
        about |= {"device": device_name(maps.classifier.device)}
    if getattr(options, "dataset", None):
        about |= {"dataset": options.dataset, "split": getattr(options, "split", None)}
    return provenance(options.command_line, **about, **more)
