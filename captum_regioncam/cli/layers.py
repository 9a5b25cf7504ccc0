"""``captum-regioncam layers``: a network's layers, and the chosen ones."""

import argparse

from captum_regioncam.cli.network import classifier_of, layers_named, stages_of, tried
from captum_regioncam.cli.terminal import say
from captum_regioncam.stages.watch import watch

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print the layers; return the exit status."""
    classifier = classifier_of(options)
    with tried(classifier) as probe:
        chosen = stages_of(classifier.model, probe, layers_named(classifier, options.layers))
        calls, _ = watch(classifier.model, [probe])
    rows = []
    for call in calls:
        shape = call.input_shape if call.name in chosen.at_input else call.shape
        on_grid = call.name and len(call.shape) > 2
        if call.name in chosen or (on_grid and (options.all or call.name.count(".") < 2)):
            mark = "*" if call.name in chosen else " "
            kind = call.kind + " (input)" * (call.name in chosen.at_input)
            rows.append((mark, call.name, kind, " x ".join(map(str, shape[1:]))))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for row in rows:
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    say(f"* chosen: {chosen.describe()}")
    return 0
