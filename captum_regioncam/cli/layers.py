"""``captum-regioncam layers``: a network's layers, and the chosen ones."""

from dataclasses import dataclass

from captum_regioncam.cli.common import classifier_of
from captum_regioncam.cli.options import Called, NetworkOptions
from captum_regioncam.cli.terminal import say
from captum_regioncam.evaluation.layer_choice import choose_layers, tried
from captum_regioncam.stages.watch import watch

__all__ = ["Options", "run"]


@dataclass(frozen=True)
class Options:
    """The options of ``captum-regioncam layers``."""

    network: NetworkOptions
    all: bool


def run(options: Options, called: Called) -> int:
    """Print the layers; return the exit status."""
    classifier = classifier_of(options.network, called)
    with tried(classifier) as probe:
        chosen = choose_layers(classifier, options.network.layers, probe, options.network.reshape)
        with watch(classifier.model, [probe]) as (calls, _):
            pass
    ends = {(name.removesuffix(" (input)"), name in chosen.at_input) for name in chosen}
    rows = []
    for call in calls:
        on_grid = call.name and len(call.shape) > 2
        shown = on_grid and (options.all or call.name.count(".") < 2)
        for at_input in (True, False):
            is_chosen = (call.name, at_input) in ends
            if is_chosen or (shown and not at_input and (call.name, True) not in ends):
                shape = call.input_shape if at_input else call.shape
                kind = call.kind + " (input)" * at_input
                rows.append(("*" if is_chosen else " ", call.name, kind, " x ".join(map(str, shape[1:]))))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for row in rows:
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    say(f"* chosen: {chosen.describe()}")
    return 0
