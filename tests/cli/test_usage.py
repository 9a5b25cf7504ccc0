"""The words of the command line for what the library says, and the options that it makes of what the parser finds."""

import dataclasses
import importlib
import logging
from pathlib import Path
from typing import get_type_hints

import pytest

from captum_regioncam.cli.options import called_of, options_of
from captum_regioncam.cli.parser import COMMANDS, build_parser
from captum_regioncam.cli.usage import as_options
from captum_regioncam.errors import Argument, ArgumentError

LINES = {
    "demo": ["demo"],
    "explain": ["explain", "a.jpg", "--target", "1", "2"],
    "app": ["app"],
    "layers": ["layers"],
    "classes": ["classes", "cat"],
    "seeds": ["seeds", "voc", "--root", "data", "--output", "seeds"],
    "label-maps": ["label-maps", "seeds", "--output", "labels"],
    "labels": ["labels", "seeds", "--output", "labels"],
    "evaluate": ["evaluate", "ilsvrc", "--root", "data"],
}


@pytest.mark.parametrize(
    ("argument", "option", "python"),
    [
        (Argument("output", Path("a b")), "--output 'a b'", "output='a b'"),
        (Argument("label_maps"), "--label-maps", "label_maps"),
        (Argument("resume", True), "--resume", "resume=True"),
        (Argument("methods", "cam"), "--method cam", "methods='cam'"),
        (Argument("alphas", [4.0, 24.0]), "--alpha 4.0,24.0", "alphas=[4.0, 24.0]"),
        (Argument("scales", [1, 0.5]), "--scales 1,0.5", "scales=[1, 0.5]"),
        (Argument("layers", ""), "--layers ''", "layers=''"),
        (Argument("data"), "--dataset and --root", "data"),
        (Argument("seeds", "x"), "x", "seeds='x'"),
    ],
)
def test_arguments_as_options(argument, option, python):
    error = ArgumentError(argument, ": is wrong.")
    assert as_options(error, {"seeds": "SEEDS"}) == f"{option}: is wrong."
    assert str(error) == f"{python}: is wrong."


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_what_their_types_say(command):
    found = build_parser().parse_args(LINES[command])
    kind = importlib.import_module(f"captum_regioncam.cli.{COMMANDS[command]}").Options
    check(options_of(kind, found))
    called = called_of(found, ["captum-regioncam", *LINES[command]])
    assert called.command == ("label-maps" if command == "labels" else command)
    assert not called.given & {"resume", "contrast", "threshold"}


def check(options):
    """Check the values of a dataclass against its annotations, in the groups of options too."""
    for name, hint in get_type_hints(type(options)).items():
        value = getattr(options, name)
        if dataclasses.is_dataclass(value):
            assert type(value) is hint
            check(value)
            continue
        kinds = getattr(hint, "__args__", (hint,)) if "|" in str(hint) else (hint,)
        plain = tuple(getattr(kind, "__origin__", kind) for kind in kinds)
        assert isinstance(value, plain), (name, value, hint)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(options, next(iter(get_type_hints(type(options)))), None)


def test_options_that_differ_from_their_defaults():
    found = build_parser().parse_args([*LINES["seeds"], "--contrast", "2", "--labels", "mask", "--limit", "3"])
    called = called_of(found, ["captum-regioncam"])
    assert {"contrast", "labels_from", "limit"} <= called.given  # --labels is what the option was called up to 0.2
    assert called.settings["labels_from"] == "mask"
    assert "parser" not in called.settings


def test_logging_is_as_it_was_after_a_command(capsys):
    from commands import run

    log = logging.getLogger("captum_regioncam")
    before = log.level, log.propagate, list(log.handlers)
    assert run("label-maps", "nowhere", "--output", "labels") == 2
    assert capsys.readouterr().err == "captum-regioncam label-maps: error: nowhere: no such folder of seeds.\n"
    assert (log.level, log.propagate, list(log.handlers)) == before
