"""``captum-regioncam app``: a page to try the methods on one's own photos."""

import signal
import threading
from dataclasses import dataclass

from captum_regioncam.app.explainer import Explainer
from captum_regioncam.app.serving import served
from captum_regioncam.cli.common import check_size, classifier_of
from captum_regioncam.cli.options import Called, NetworkOptions
from captum_regioncam.cli.terminal import say

__all__ = ["Options", "run"]

_ENDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@dataclass(frozen=True)
class Options:
    """The options of ``captum-regioncam app``."""

    network: NetworkOptions
    port: int | None
    share: bool


def run(options: Options, called: Called) -> int:
    """Serve the page until the user stops it; return the exit status."""
    check_size(options.network)
    network = options.network
    say("Loading the network and trying each method on it; this takes up to a minute.", error=True)
    explainer = Explainer.of(
        classifier_of(network, called), layers=network.layers, reshape=network.reshape, precision=network.precision
    )
    for reason in explainer.missing.values():
        say(f"Not available for this network: {reason}", error=True)
    with served(explainer, port=options.port, share=options.share, contrast=network.contrast) as address:
        say(f"The page is at {address}")
        say("Stop it with Ctrl-C.", error=True)
        _wait()
    return 0


def _wait() -> None:
    """Wait for Ctrl-C or another signal to stop, so that everything is cleaned up."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in _ENDS}
    try:
        stopped.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
