"""Weights files: the tensors in a file or, if it has none, a sentence that says what it is instead."""

import argparse
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_regioncam.errors import Argument, ArgumentError, reason_of
from captum_regioncam.evaluation.user_code import named_object
from captum_regioncam.extras import extra
from captum_regioncam.files.inputs import open_file
from captum_regioncam.network.outputs import describe

__all__ = ["read_tensors"]

# Training scripts save their arguments beside the weights. A Namespace is a bag of attributes: creating one runs no
# code of the file's, and what is in it must be allowed separately.
_PLAIN = [argparse.Namespace]
_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # in files of torch's format before 1.6
_LARGEST_HEADER = 100_000_000  # bytes, the limit of the library safetensors itself


def read_tensors(path: str, allow_classes: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read a weights file without running code from it.

    Args:
        path: what ``torch.save`` wrote, or a safetensors file.
        allow_classes: dotted names of classes that the file may hold besides tensors and plain data.

    Returns:
        {path: tensor} in the file's order, where a path has the keys that lead to the tensor: ``state_dict.fc.weight``.

    Raises:
        ArgumentError: the file is something else, or holds other classes or no tensors.
        ImportError: it is a safetensors file, and safetensors is not installed.
    """
    allowed = {name: _allowed(name) for name in allow_classes}
    try:
        content = _content(path, allowed)
        try:
            tensors = dict(_tensors(content))
        except RecursionError:
            raise _NoCheckpointError("is nested too deeply, or contains itself.") from None
    except _NoCheckpointError as error:
        raise ArgumentError(Argument("weights", path), f": {error}") from error
    except _NeedsClassesError as error:
        allow = Argument("allow_classes", [*allow_classes, *error.names])
        raise ArgumentError(
            Argument("weights", path), f": {error} Or, if you trust the file, allow what it needs: ", allow, "."
        ) from error
    if not tensors:
        raise ArgumentError(Argument("weights", path), f": has no tensors; it holds {describe(content)}.")
    return tensors


class _NoCheckpointError(Exception):
    """The file is not a checkpoint; the message says what it is and what to do."""


class _NeedsClassesError(Exception):
    """The file needs classes that are not allowed."""

    def __init__(self, names: Sequence[str]) -> None:
        if any(name.startswith("torch.nn.modules.") for name in names):
            what = "is a whole network, pickled with its classes. Where it was made, run torch.save(model.state_dict()"
        else:
            what = "holds classes besides tensors and plain data. Where it was made, run torch.save(state_dict"
        super().__init__(f"{what}, FILE).")
        self.names = names


def _allowed(name: str) -> object:
    try:
        return named_object(name)
    except Exception as error:
        raise ArgumentError(
            Argument("allow_classes", name), f": cannot be imported ({reason_of(error)}); expects package.module.Class."
        ) from error


def _tensors(content: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a file's content, however deep, with their paths."""
    if isinstance(content, Tensor):
        yield path, content
    elif isinstance(content, Module):
        yield from _tensors(content.state_dict(), path)
    elif isinstance(content, (Mapping, list, tuple)):
        for key, value in content.items() if isinstance(content, Mapping) else enumerate(content):
            yield from _tensors(value, f"{path}.{key}" if path else str(key))


def _content(path: str, allowed: Mapping[str, object]) -> Any:
    if not os.path.lexists(path):
        raise _NoCheckpointError("no such file.")
    if os.path.isdir(path):
        raise _NoCheckpointError("is a folder; give the file in it.")
    try:
        with open_file(path) as file:
            start, size = file.read(512), os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        raise _NoCheckpointError(reason_of(error).removeprefix(f"{path}: ")) from error
    if not size:
        raise _NoCheckpointError("is empty. Download or copy it again.")
    if start.startswith(b"version https://git-lfs.github.com"):
        raise _NoCheckpointError("is a Git LFS pointer, not the file itself. Run git lfs pull in its repository.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise _NoCheckpointError("is a web page, not a checkpoint. Open it to read why, and download the file itself.")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LARGEST_HEADER:
        return _safetensors(path)
    if start.startswith(b"PK"):
        _check_archive(path)
    return _pickled(path, start, allowed)


def _safetensors(path: str) -> dict[str, Tensor]:
    with extra("eval"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _NoCheckpointError(
            f"is a damaged safetensors file ({reason_of(error)}). Download or copy it again."
        ) from error


def _check_archive(path: str) -> None:
    """Check that a zip archive is a checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _NoCheckpointError("is truncated or damaged. Download or copy it again.") from error
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside:
        raise _NoCheckpointError(
            "is TorchScript, a network with its code. Save its tensors: "
            f"torch.save(torch.jit.load({Path(path).name!r}).state_dict(), FILE)."
        )
    if "data.pkl" not in inside:
        listed = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        raise _NoCheckpointError(f"is a zip archive of other files ({listed}), not a checkpoint. Unpack it first.")


def _pickled(path: str, start: bytes, allowed: Mapping[str, object]) -> Any:
    if not start.startswith(b"PK") and _MAGIC not in start[:32]:
        what = "a pickle, but not" if start.startswith(b"\x80") else "not"
        raise _NoCheckpointError(f"is {what} a checkpoint of torch.save; it begins with {start[:12]!r}.")
    classes: list[Any] = [*_PLAIN, *((found, name) for name, found in allowed.items())]
    with torch.serialization.safe_globals(classes), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of old kinds of storages and pickles
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            if names := [name for name in _unsafe_names(path, str(error)) if name not in allowed]:
                raise _NeedsClassesError(names) from error
            reason = reason_of(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0].rstrip(".")
            raise _NoCheckpointError(
                f"cannot be read by torch.load; it may be truncated or damaged ({reason})."
            ) from error


def _unsafe_names(path: str, message: str) -> list[str]:
    """Return the names of the classes that a file needs, but only the first for files of torch's format before 1.6."""
    with suppress(Exception):
        if names := torch.serialization.get_unsafe_globals_in_checkpoint(path):
            return sorted(names)
    return re.findall(r"(?:GLOBAL|got <class ')\s*([\w.]*\w)(?: was not|'>)", message)
