"""From what the parser found to the frozen options of a command."""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, get_type_hints

from captum_regioncam.evaluation.protocol import Protocol

__all__ = ["MAP_OPTIONS", "Called", "DataOptions", "MapOptions", "NetworkOptions", "called_of", "options_of"]

Options = TypeVar("Options")
_NOT_SETTINGS = (
    "command", "command_line", "parser", "json", "plot", "csv", "latex", "per_class", "per_photo", "gallery", "resume",
    "readers",
)  # fmt: skip


@dataclass(frozen=True)
class Called:
    """How a command was called.

    Attributes:
        command: the command's name.
        command_line: the command and its arguments.
        given: the options whose values are not the defaults, and the lists that were given, whatever they contain.
        settings: the options that the results may depend on, as JSON values.
    """

    command: str
    command_line: list[str] = field(default_factory=list)
    given: frozenset[str] = frozenset()
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, object]:
        """What a record says about the command."""
        return {"command_line": self.command_line, "settings": self.settings}


@dataclass(frozen=True)
class NetworkOptions:
    """The network, its layers and its input; see ``captum-regioncam explain --help``."""

    model: str
    weights: str | None
    weights_key: str | None
    allow_class: list[str]
    layers: list[str] | None
    reshape: str | None
    size: int | None
    mean: list[float] | None
    std: list[float] | None
    interpolation: str | None
    resize: str
    contrast: float
    precision: str
    device: str | None


@dataclass(frozen=True)
class DataOptions:
    """The data set; see ``captum-regioncam seeds voc --help``."""

    dataset: str
    root: str
    split: str | None
    labels_from: str | None
    masks: str | None
    crowds: str | None
    limit: int | None


@dataclass(frozen=True)
class MapOptions:
    """How maps are made; see ``captum-regioncam seeds voc --help``."""

    scales: list[float]
    flip: bool
    normalize: str
    upsample: str
    batch: int
    readers: int | None
    refine: bool

    def protocol(self, resize: str) -> Protocol:
        """Return the protocol that the options define."""
        return Protocol(self.scales, self.flip, resize, self.normalize, self.upsample, self.batch)


MAP_OPTIONS = {*NetworkOptions.__annotations__, *MapOptions.__annotations__, "method"} - {"readers", "refine"}
"""The options for making maps; they have no effect where no maps are made."""


def called_of(found: argparse.Namespace, command_line: list[str]) -> Called:
    """Return how a command was called, from what the parser found."""
    values = {name: value for name, value in vars(found).items() if name not in _NOT_SETTINGS}
    defaults = {name: found.parser.get_default(name) for name in values}
    given = (
        name
        for name, value in values.items()
        if value != defaults[name] or (isinstance(value, list) and value is not defaults[name])
    )
    command = "label-maps" if found.command == "labels" else found.command
    return Called(command, command_line, frozenset(given), json.loads(json.dumps(values, default=str)))


def options_of(kind: type[Options], found: argparse.Namespace) -> Options:
    """Return a command's options: each field is the option of the same name, or a group of options."""
    hints = get_type_hints(kind)
    values = {
        name: options_of(hint, found) if hasattr(hint, "__dataclass_fields__") else getattr(found, name)
        for name, hint in hints.items()
    }
    make: Callable[..., Options] = kind  # type: ignore[explicit-any]  # each kind has arguments of its own
    return make(**values)
