"""The command line in this process, and the networks that its tests name."""

import json
from pathlib import Path

from captum_regioncam.cli import main
from captum_regioncam.evaluation.runs import progress

MODEL = ["--model", "colour_factory:colour_net", "--layers", "relu1,relu2", "--device", "cpu"]
VOC_MODEL = ["--model", "colour_factory:voc_net", *MODEL[2:]]
SMALL = ["--mean", ".5,.5,.5", "--std", ".5,.5,.5", "--scales", "1,0.5"]


def run(*arguments):
    """Run a command and return its exit status, however it ends."""
    try:
        return main(list(map(str, arguments)))
    except SystemExit as error:
        return error.code


def stopped_before_the_scores(monkeypatch, *arguments):
    """Evaluate until all photos are counted and saved, and stop before the scores."""

    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(progress, "_LEAST", 0)
        patched.setattr(progress, "_SHARE", 1e9)
        patched.setattr(progress.Progress, "finish", stop)
        assert run(*arguments) == 130


def scores_in(path):
    """Read the scores of a file that evaluate wrote, without its provenance."""
    content = json.loads(Path(path).read_text())
    assert content.pop("provenance")["written_by"].startswith("written by captum_regioncam ")
    return content
