"""``captum-regioncam classes``: the numbers and names of a network's classes."""

import argparse

from captum_regioncam.cli.terminal import say
from captum_regioncam.cli.usage import UsageError
from captum_regioncam.evaluation.models import load_classifier

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print the classes; return the exit status."""
    classifier = load_classifier(options.model, options.weights)
    if not classifier.class_names:
        raise UsageError(f"--model {options.model}: its classes have no names; they are numbered from 0.")
    found = range(len(classifier.class_names)) if options.word is None else classifier.classes_with(options.word)
    if not found:
        raise UsageError(f"{options.word}: no class has that in its name.")
    for index in found:
        say(f"{index:4}  {classifier.class_names[index]}")
    return 0
