"""The trial of a network on noise before the first photo, and the choice of its layers: those named, or the stages."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import Module

from captum_regioncam.errors import Argument, ArgumentError, reason_of
from captum_regioncam.evaluation.classifier import Classifier, nearest
from captum_regioncam.evaluation.reshaping import reshape_of
from captum_regioncam.evaluation.score_check import problem_with_two
from captum_regioncam.stages.finder import Stages, find_stages, stages_at

__all__ = ["check_layers", "check_mode", "choose_layers", "probe_of", "tried"]


def choose_layers(
    classifier: Classifier,
    layers: Sequence[str] | None = None,
    x: Tensor | None = None,
    reshape: str | None = None,
) -> Stages:
    """Return the named layers, or else the stages found, with the ``reshape_transform`` that each layout needs.

    Args:
        classifier: the network.
        layers: dotted names; None for the stages.
        x: an input to run the network on. Default: noise.
        reshape: the layout of the named layers, as in :func:`reshape_of`. Default: the classifier's ``reshape``; if it
            has none, the layout is measured.

    Raises:
        ArgumentError: a layer has no such name, another layout, or positions that do not say what is where; or none is
            named, and no stage is found.
    """
    check_layers(classifier, layers)
    x = probe_of(classifier) if x is None else x
    transform = None if reshape is None else reshape_of(classifier, layers, reshape, x)
    if reshape is None and classifier.reshape is not None and layers is not None:
        try:
            transform = reshape_of(classifier, layers, classifier.reshape, x)
        except ArgumentError as error:
            raise ArgumentError(Argument("model"), ": its preprocessing has ", *error.parts) from error
    if layers is None:
        try:
            return find_stages(classifier.model, x)
        except ValueError as error:
            raise ArgumentError(
                Argument("layers"), f": pass their names, since the network shows no stages. {error}"
            ) from error
    if transform is not None:
        return Stages({name: classifier.model.get_submodule(name) for name in layers}, transform)
    try:
        return stages_at(classifier.model, x, names=layers)
    except ValueError as error:
        raise ArgumentError(Argument("layers"), f": {error}") from error


def check_mode(classifier: Classifier) -> None:
    """Check that a network is in evaluation mode.

    Raises:
        ArgumentError: it is in training mode, where dropout would change the maps, and batch normalisation the network.
    """
    if classifier.model.training:
        remedy = "call model.eval() first"
        if type(classifier.model).train is not Module.train:  # such as IRN's, which changes nothing
            remedy += ", or, if that has no effect, set training = False on each of model.modules()"
        raise ArgumentError(Argument("classifier"), f": its network is in training mode; {remedy}.")


def check_layers(classifier: Classifier, layers: Sequence[str] | None) -> None:
    """Check that a network has the named layers.

    Raises:
        ArgumentError: it does not; the message gives the nearest names.
    """
    modules = dict(classifier.model.named_modules())
    for name in layers or ():
        if not name or name not in modules:
            problem = f": the model has no such layer. {nearest(name, modules)}"
            with contextlib.suppress(Exception):
                problem += f" The stages are {find_stages(classifier.model, probe_of(classifier)).describe()}."
            raise ArgumentError(Argument("layers", name), problem)


def probe_of(classifier: Classifier) -> Tensor:
    """Return noise of the network's input size, always the same: (1, 3, size, size)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, classifier.size, classifier.size, generator=generator).to(classifier.device)


@contextlib.contextmanager
def tried(classifier: Classifier) -> Iterator[Tensor]:
    """Yield what :func:`probe_of` returns. Whatever the network raises on it becomes an error of the model."""
    probe = probe_of(classifier)
    try:
        yield probe
    except ArgumentError:
        raise
    except ValueError as error:
        raise ArgumentError(reason_of(error)) from error
    except Exception as error:
        if problem := problem_with_two(classifier, probe):
            raise ArgumentError(Argument("model"), problem) from error
        side = classifier.size
        raise ArgumentError(
            Argument("model"), f": fails on an input of 3 x {side} x {side} ({reason_of(error)}). Is ",
            Argument("size"), " right?",
        ) from error  # fmt: skip
