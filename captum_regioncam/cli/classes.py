"""``captum-regioncam classes``: the numbers and names of a network's classes."""

from dataclasses import dataclass

from captum_regioncam.cli.options import Called
from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.classifier import Classifier

__all__ = ["Options", "run"]


@dataclass(frozen=True)
class Options:
    """The options of ``captum-regioncam classes``."""

    model: str
    weights: str
    word: str | None


def run(options: Options, called: Called) -> int:
    """Print the classes; return the exit status."""
    classifier = Classifier.load(options.model, options.weights)
    if not classifier.class_names:
        raise UsageError(f"--model {options.model}: its classes have no names; they are numbered from 0.")
    found = range(len(classifier.class_names)) if options.word is None else classifier.classes_with(options.word)
    if not found:
        raise UsageError(f"{options.word}: no class has this word in its name.")
    for index in found:
        say(f"{index:4}  {classifier.class_names[index]}")
    return 0
