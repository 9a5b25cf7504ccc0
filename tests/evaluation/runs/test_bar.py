"""The progress of a run in a terminal, and in a log file."""

import io
import sys

import pytest
from commands import MODEL, run
from made_datasets import make_folder

from captum_regioncam.evaluation.runs import bar
from captum_regioncam.evaluation.runs.bar import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, total, every=60.0):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(bar, "_EVERY", every)
    with progress_bar(total, "seed", hidden=False, what="waiting") as progress:
        for _ in range(total):
            progress.update()
    return stream.getvalue()


def test_a_log_file_gets_lines(monkeypatch):
    lines = shown(monkeypatch, io.StringIO(), 3).splitlines()
    assert [line.split(" [")[0] for line in lines] == [
        "waiting:   0% 0/3 seeds",
        "waiting: 100% 3/3 seeds",
        "",
    ]
    often = shown(monkeypatch, io.StringIO(), 3, every=0.0).splitlines()
    assert [line.split(" [")[0] for line in often[:-2]] == [
        "waiting:   0% 0/3 seeds", "waiting:  33% 1/3 seeds", "waiting:  67% 2/3 seeds", "waiting: 100% 3/3 seeds",
    ]  # fmt: skip
    assert shown(monkeypatch, io.StringIO(), 1).startswith("waiting:   0% 0/1 seed [")
    assert shown(monkeypatch, io.StringIO(), 0).startswith("waiting:   0% 0/0 seeds [")


def test_a_terminal_gets_a_bar(monkeypatch):
    text = shown(monkeypatch, Terminal(), 3)
    assert text.startswith("\rwaiting:   0%|")
    assert "waiting: 100%|##########| 3/3 [" in text.replace("█", "#")


def test_nothing_is_shown_if_it_is_hidden(monkeypatch):
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar(3, "seed", hidden=True) as progress:
            progress.update()
        assert stream.getvalue() == ""


@pytest.mark.usefixtures("colour_factory")
def test_messages_do_not_repeat_the_progress_in_a_log_file(tmp_path, capsys):
    make_folder(tmp_path / "data", photos=5)
    assert run("explain", "data/images", *MODEL, "--size", "32", "--target", "1", "--output", "out") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 5 + 1
    assert [line.split(" [")[0] for line in err.splitlines()] == ["  0% 0/5 photos", "100% 5/5 photos", ""]
    assert "\r" not in err
