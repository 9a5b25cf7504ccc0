"""Weights from checkpoints as training scripts write them: found, counted, and loaded whole or not at all.

A tensor in a file has a path, the keys that lead to it: ``state_dict.module.fc.weight``. What comes before the model's
own names, ``state_dict.module``, is the *weights key*. It is searched for, so neither dicts around the state dict nor
prefixes in it (DistributedDataParallel, ``torch.compile``, Lightning, EMA, MoCo) need to be known.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.classifier import nearest
from captum_regioncam.files.text import counted

__all__ = ["Match", "load", "match", "under_key"]

_FIRST = ("state_dict", "model_state_dict", "model_state", "model", "net", "teacher")
"""If several weights keys fit, one with one of these names is taken, in this order; otherwise the first in the file."""
_MOST_NAMED = 2


@dataclass(frozen=True)
class Match:
    """Where a model's tensors are in a file.

    Attributes:
        keys: the weights keys that are used: one, and those beside it that have what it lacks, such as "head".
        others: the weights keys that would have filled the model as well.
        fitting: {the model's name: the path in the file}.
        misfits: {the model's name: (the path in the file, its shape there, its shape in the model)}.
        missing: the model's names of those that the file lacks.
        built: likewise, for integer buffers, which the model makes itself: counters and indices.
        left: paths of what the model does not have.
    """

    keys: Sequence[str]
    others: Sequence[str]
    fitting: Mapping[str, str]
    misfits: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...]]]
    missing: Sequence[str]
    built: Sequence[str]
    left: Sequence[str]

    @property
    def is_whole(self) -> bool:
        """Whether every tensor of the model is filled, except those that it makes itself."""
        return bool(self.fitting) and not self.misfits and not self.missing

    @property
    def classes(self) -> int | None:
        """The number of classes in the file, if nothing else differs from the model."""
        shapes = [(theirs, ours) for _, theirs, ours in self.misfits.values()]
        numbers = {(theirs[:1], ours[:1]) for theirs, ours in shapes}
        alike = all(theirs and ours and theirs[1:] == ours[1:] for theirs, ours in shapes)
        return shapes[0][0][0] if len(numbers) == 1 and alike and self.fitting and not self.missing else None

    @property
    def _count(self) -> str:
        total = len(self.fitting) + len(self.misfits) + len(self.missing) + len(self.built)
        keys = " and ".join(key for key in self.keys if key)
        return (
            f"{len(self.fitting)} of {counted(total, 'tensor')} fit{'s' * (total == 1)}"
            + f" (weights key {keys})" * bool(keys)
        )

    def report(self) -> str:
        """Return what is loaded, what is not, and what could have been."""
        parts = [self._count]
        if self.others:
            parts.append(f"weights keys that fit as well: {_first(self.others)}")
        if self.built:
            parts.append(f"not in the file, and left as built: {_some(self.built)}")
        if self.left:
            parts.append(f"left over in the file: {_some(self.left)}")
        return "; ".join(parts)

    def error(self, path: str, tensors: Iterable[str]) -> ArgumentError:
        """Return the error of a file that does not fill the model."""
        factory = Argument("model", "package.module:factory")
        weights = Argument("weights", path)
        if not self.fitting and not self.misfits:
            return ArgumentError(
                weights,
                f": does not fit the model: the file has {_some(list(tensors))}; the model's are "
                f"{_some([*self.missing, *self.built])}. Pass ",
                Argument("model"), " with the network that the file was made from.",
            )  # fmt: skip
        problems = [
            f"{name} has shape {theirs}, the model's {ours}"
            for name, (_, theirs, ours) in list(self.misfits.items())[:_MOST_NAMED]
        ]
        if len(self.misfits) > _MOST_NAMED:
            problems.append(f"{len(self.misfits) - _MOST_NAMED} more have other shapes")
        if self.missing:
            others = f" and has {_some(self.left)} that the model lacks" if self.left else ""
            problems.append(f"the file lacks {_some(self.missing)}{others}")
        remedy = "as it was trained" if self.classes is None else f"with {self.classes} classes"
        return ArgumentError(
            weights, f": does not fit the model: {self._count}; {'; '.join(problems)}. Pass ", factory,
            f", a function that builds the network {remedy}.",
        )  # fmt: skip


def _some(names: Sequence[str]) -> str:
    """Return how many tensors there are, with the first names."""
    return f"{len(names):,} tensor{'s' * (len(names) != 1)} ({_first(names)})"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + ", ..." * (len(names) > _MOST_NAMED)


def under_key(tensors: Mapping[str, Tensor], key: str | None) -> dict[str, Tensor]:
    """Return the tensors of a file that are under a weights key, or all.

    Raises:
        ArgumentError: there are none; the message gives the nearest keys.
    """
    if key is None:
        return dict(tensors)
    found = {path: tensor for path, tensor in tensors.items() if path.startswith(f"{key}.")}
    if not found:
        parents = (path.rsplit(".", count)[0] for path in tensors for count in range(path.count("."), 0, -1))
        raise ArgumentError(Argument("weights_key", key), f": the file has no such key. {nearest(key, parents)}")
    return found


def match(model: Module, tensors: Mapping[str, Tensor]) -> Match:
    """Find a model's tensors in a file: the weights key under which the most of them fit, by name and shape.

    If the model is wrapped, so that all its names begin alike ("net."), the file may lack that beginning.
    """
    wanted = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    wrapped = _common_start(list(wanted))
    names = {_without(wrapped, name): name for name in wanted}
    found = _by_key(tensors, names)

    def fits(name: str, path: str) -> bool:
        ours = wanted[names[name]]
        return is_lazy(ours) or ours.shape == tensors[path].shape

    fitting = {key: sum(fits(*pair) for pair in pairs.items()) for key, pairs in found.items()}
    keys = _chosen(found, fitting, wrapped)
    paths = {names[name]: path for key in keys for name, path in found[key].items()}
    misfits = {name: path for name, path in paths.items() if not fits(_without(wrapped, name), path)}
    missing = [name for name in wanted if name not in paths]
    built = [name for name in missing if wanted[name].dtype == torch.int64]
    taken = set(paths.values())
    return Match(
        keys=[f".{key}".removesuffix(f".{wrapped}").removeprefix(".") if wrapped else key for key in keys],
        others=[key for key in found if key not in keys and fitting[key] == fitting[keys[0]]],
        fitting={name: path for name, path in paths.items() if name not in misfits},
        misfits={n: (path, tuple(tensors[path].shape), tuple(wanted[n].shape)) for n, path in misfits.items()},
        missing=[name for name in missing if name not in built],
        built=built,
        left=[path for path in tensors if path not in taken],
    )


def _common_start(names: Sequence[str]) -> str:
    """Return what all names begin with, whole parts of them: "net" of "net.conv.weight" and "net.fc.weight"."""
    first = names[0] if names else ""
    starts = (first.rsplit(".", count)[0] for count in range(1, first.count(".") + 1))
    return next((start for start in starts if all(name.startswith(f"{start}.") for name in names)), "")


def _without(start: str, name: str) -> str:
    return name.removeprefix(f"{start}.") if start else name


def _by_key(tensors: Iterable[str], names: Container[str]) -> dict[str, dict[str, str]]:
    """Split each path where one of the model's names begins: {weights key: {name: path}}."""
    found: dict[str, dict[str, str]] = {}
    for path in tensors:
        parts = path.split(".")
        for cut in range(len(parts)):
            if (name := ".".join(parts[cut:])) in names:
                found.setdefault(".".join(parts[:cut]), {})[name] = path
    return found


def _chosen(found: Mapping[str, Mapping[str, str]], fitting: Mapping[str, int], wrapped: str) -> list[str]:
    """Return the weights key under which the most tensors fit, and those beside it that have the others."""

    def rank(key: str) -> tuple[int, bool, int]:
        parts = key.split(".")
        usual = [_FIRST.index(part) for part in parts if part in _FIRST]
        return -fitting[key], not f".{key}".endswith(f".{wrapped}"), min(usual, default=len(_FIRST))

    keys = sorted(found, key=rank)[:1]
    while True:
        have = {name for key in keys for name in found[key]}
        beside = [  # not a second copy of the network, which is no head for the first, nor what lies elsewhere
            key
            for key in found
            if key.rpartition(".")[0] == keys[0].rpartition(".")[0]
            and not found[key].keys() & have
            and fitting[key] == len(found[key])
        ]
        most = max((fitting[key] for key in beside), default=0)
        largest = [key for key in beside if fitting[key] == most]
        if len(largest) != 1:  # none, or several: choosing one of them would be a guess
            return keys
        keys += largest


def load(model: Module, path: str, tensors: Mapping[str, Tensor], found: Match) -> str:
    """Fill a model with the tensors found.

    Args:
        model: the network.
        path: the file, for messages.
        tensors: what is in it.
        found: where the model's tensors are.

    Returns:
        How many fit, and what is left over.

    Raises:
        ArgumentError: a tensor of the model would not be filled; the message says what fits and what to pass.
    """
    if found.is_whole:
        fitting = {name: tensors[of_file] for name, of_file in found.fitting.items()}
        Module.load_state_dict(model, fitting, strict=False)  # a network's own method may skip tensors
        return found.report()
    key = found.keys[0] if found.keys else ""
    own = {_without(key, name): tensor for name, tensor in tensors.items() if not key or name.startswith(f"{key}.")}
    try:  # some networks rename or resize tensors that their older versions saved
        Module.load_state_dict(model, own)
    except Exception:
        raise found.error(path, tensors) from None
    return f"the network renames or changes old tensors itself, and took all {len(own)}"
