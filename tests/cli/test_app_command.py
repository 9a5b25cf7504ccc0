"""``captum-regioncam app``, without the page itself: tests/app has that."""

import contextlib
import os
import signal
import threading

import pytest
from commands import MODEL, run

from captum_regioncam.cli import app


@pytest.fixture
def serving(monkeypatch):
    """A page that is not served, and a signal as soon as the command waits for one."""
    found = {}

    class Signalled(threading.Event):
        def wait(self, timeout=None):
            os.kill(os.getpid(), found["signal"])
            return super().wait(10)

    @contextlib.contextmanager
    def served(explainer, **options):
        found.update(options, explainer=explainer)
        yield "http://127.0.0.1:7860/"
        found["closed"] = True

    monkeypatch.setattr(app, "served", served)
    monkeypatch.setattr(app.threading, "Event", Signalled)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_page_in_order(colour_factory, capsys, serving, number):
    before = signal.getsignal(number)
    serving["signal"] = number
    assert run("app", *MODEL, "--port", "7999", "--contrast", "3") == 0
    printed = capsys.readouterr()
    assert printed.out == "The page is at http://127.0.0.1:7860/\n"
    assert printed.err.startswith("Loading the network")
    assert printed.err.endswith("\nStop it with Ctrl-C.\n")
    assert serving["closed"]
    assert (serving["port"], serving["share"], serving["contrast"]) == (7999, False, 3.0)
    assert list(serving["explainer"].attributions) == ["cam", "grad-cam", "layer-cam", "region-cam"]
    assert signal.getsignal(number) is before


def test_a_method_that_does_not_work_is_told(colour_factory, capsys, serving):
    serving["signal"] = signal.SIGINT
    assert run("app", "--model", "colour_factory:colour_net", "--layers", "relu1", "--device", "cpu", "--share") == 0
    assert serving["share"]
    assert "Not available for this network: cam: CAM needs global average pooling" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["80", "x", "70000"])
def test_ports_that_nobody_may_open_are_refused(capsys, port):
    assert run("app", "--port", port) == 2
    assert f"'{port}' is not a port, 1024 to 65535" in capsys.readouterr().err
