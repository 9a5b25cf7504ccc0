"""``captum-regioncam layers`` on networks that it cannot list."""

import sys

import pytest
from commands import run

FACTORY = """
from torch import nn

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))

def fails():
    net = flat()
    net.register_forward_pre_hook(lambda *call: {}["key"])
    return net

def unused():
    net = flat()
    net.extra = nn.Conv2d(3, 3, 1)
    net.forward = lambda x: net[1](net[0](x))
    return net
"""


@pytest.fixture
def odd_nets(tmp_path, monkeypatch):
    (tmp_path / "odd_nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("odd_nets", None)


@pytest.mark.usefixtures("odd_nets")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["flat", "--size", 8],
            "--layers: pass their names, since the network shows no stages. find_stages: no module",
        ),
        (["flat"], "--model: fails on an input of 3 x 224 x 224 (mat1 and mat2 shapes cannot be multiplied"),
        (["fails", "--size", 8], "--model: fails on an input of 3 x 8 x 8 ('key'). Is --size right?"),
    ],
)
def test_networks_without_grids_and_networks_that_fail(arguments, says, capsys):
    factory, *options = arguments
    assert run("layers", "--model", f"odd_nets:{factory}", *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"captum-regioncam layers: error: {says}")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.usefixtures("odd_nets")
def test_a_layer_that_never_runs(capsys):
    assert run("layers", "--model", "odd_nets:unused", "--size", 8, "--layers", "extra") == 0
    assert capsys.readouterr().out == "* chosen: extra\n"
