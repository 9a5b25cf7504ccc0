"""The command line in this process, and the networks that its tests name."""

from captum_regioncam.cli import main

MODEL = ["--model", "colour_factory:colour_net", "--layers", "relu1,relu2", "--device", "cpu"]
VOC_MODEL = ["--model", "colour_factory:voc_net", *MODEL[2:]]
SMALL = ["--mean", ".5,.5,.5", "--std", ".5,.5,.5", "--scales", "1,0.5"]


def run(*arguments):
    """Run a command and return its exit status, however it ends."""
    try:
        return main(list(map(str, arguments)))
    except SystemExit as error:
        return error.code
