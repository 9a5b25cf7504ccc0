"""Where results come from: versions, command, network, weights, settings, device and date."""

import hashlib
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch
from torch.nn import Module

import captum_regioncam
from captum_regioncam.files.outputs import MARK
from captum_regioncam.files.stamps import sha256

__all__ = ["checkpoint_of", "device_name", "provenance"]

_PACKAGES = ("torch", "captum", "numpy")
_IF_USED = ("torchvision", "timm", "transformers")


def provenance(more: Mapping[str, object]) -> dict[str, object]:
    """Return what a record or a file of scores says about its origin, as JSON values.

    Args:
        more: further entries, such as ``command_line`` (default: this process's), ``model``, ``weights``,
            ``layers``, ``device`` and ``settings``.
    """
    versions = {"captum_regioncam": captum_regioncam.__version__} | {name: metadata.version(name) for name in _PACKAGES}
    versions |= {
        name: sys.modules[name].__version__ for name in _IF_USED if hasattr(sys.modules.get(name), "__version__")
    }
    return {
        "written_by": f"{MARK} {versions['captum_regioncam']}",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command_line": sys.argv,
        "python": sys.version.split()[0],
        "versions": versions,
        **more,
    }


def checkpoint_of(model: Module, weights: str | None) -> dict[str, str]:
    """Return the name of a network's checkpoint, the SHA-256 of its file, and that of the network's state dict.

    Args:
        model: the network, with its weights.
        weights: the checkpoint's file; "none" for random weights; None for the model's own.
    """
    names = {None: "the model's own weights", "none": "random weights (none)"}
    of_file = {"sha256": sha256(Path(weights))} if weights is not None and Path(weights).is_file() else {}
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor) and not tensor.is_quantized:
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return {"name": names.get(weights, str(weights)), **of_file, "state_dict_sha256": digest.hexdigest()}


def device_name(device: torch.device) -> str:
    """Return a device's name, and that of the GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
