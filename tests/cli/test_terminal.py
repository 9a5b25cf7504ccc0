"""What the command line prints, whatever names files have and whoever reads on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import MODEL, SMALL, VOC_MODEL, run
from made_datasets import make_folder, make_voc
from PIL import Image
from places import TESTS

from captum_regioncam.cli.terminal import printable
from captum_regioncam.evaluation.runs import workers

pytestmark = pytest.mark.usefixtures("colour_factory")


def test_control_characters_are_printed_as_escapes(capsys):
    assert printable("a\x1b[31m\tb\u202ec\ud800\nd é") == "a\\x1b[31m\\tb\\u202ec\\ud800\nd é"
    for name in ("\x1b[2Jphoto.png", "no photo\x07.png"):
        Image.new("RGB", (40, 30), "red").save(name)
    Path("no photo\x07.png").write_bytes(b"no photo")
    assert run("explain", ".", *MODEL, "--size", "32", "--output", "out\x1b[1m") == 1
    make_folder(Path("data"))
    Path("data/masks/photo_1.png").rename("data/masks/photo_x.png")
    assert run("evaluate", "folder", "--root", "data", *MODEL, "--size", "32", "--seeds", "\x1b[5m") == 2
    assert run("seeds", "folder", "--root", "\x1b[6m", *MODEL, "--output", "seeds") == 2
    assert run("explain", "x.png", "--model", "\x1b[7m") == 2
    assert run("explain", "x.png", "--size", "\x1b[8m") == 2
    assert run("labels", "\x1b[9m", "--output", "seeds") == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert "\x07" not in out + err
    assert not [part for part in err.split("\x1b[")[1:] if part[0] != "A"]  # but for the progress bar's own
    assert "\\x1b[2Jphoto.png: " in out
    assert "no photo\\x07.png: not an image" in err
    for number in "56789":
        assert f"\\x1b[{number}m" in err


def test_seeds_in_a_folder_whose_name_looks_like_markup(capsys):
    root = make_voc(Path("voc"))
    assert run("seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "[red]x[/]\x1b") == 0
    assert run("evaluate", "voc", "--root", root, "--seeds", "[red]x[/]\x1b") == 0
    out = capsys.readouterr().out
    assert "[red]x[/]\\x1b" in out
    assert "\x1b" not in out


@pytest.mark.slow
@pytest.mark.parametrize("command", [["classes"], ["layers", *MODEL, "--size", "32"]])
def test_a_reader_that_closes_its_end(command):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as stdout:
        arguments = [sys.executable, str(TESTS / "run_cli.py"), *command]
        done = subprocess.run(arguments, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "3"}, "the environment has RANK='3'; torchrun sets both"),
        ({"RANK": ""}, "the environment has RANK=''; torchrun sets both"),
        ({"WORLD_SIZE": ""}, "the environment has WORLD_SIZE=''; torchrun sets both"),
        ({"WORLD_SIZE": "2"}, "the environment has WORLD_SIZE='2'; torchrun sets both"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "the environment has RANK='0' and WORLD_SIZE='two'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK from 0 to WORLD_SIZE - 1"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "has WORLD_SIZE=2 but no MASTER_ADDR and no MASTER_PORT"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},
            "WORLD_SIZE is 2, but the other processes cannot be reached",
        ),
    ],
)
def test_what_a_launcher_left_in_the_environment(variables, says, monkeypatch, capsys):
    root = make_voc(Path("voc"))
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(workers, "_JOIN", workers.timedelta(seconds=1))
    assert run("seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "seeds") == 2
    err = capsys.readouterr().err
    assert says in err
    assert "unset RANK and WORLD_SIZE" in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("seeds").exists()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run("seeds", "voc", "--root", root, *VOC_MODEL, *SMALL, "--output", "seeds") == 0


def test_the_bare_command_says_what_to_try(capsys):
    assert run() == 2
    err = capsys.readouterr().err
    assert err.endswith("try: captum-regioncam demo\n")
    assert "explain your own photos" in err
    assert run("seeds") == 2
    assert capsys.readouterr().err.endswith("required: DATASET; see captum-regioncam seeds --help\n")
