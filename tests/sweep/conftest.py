"""The sweep: all families of networks with --sweep, a sample of them without; --table writes what came out."""

import table

SAMPLE = [
    "torchvision-mobilenetv3",
    "torchvision-shufflenetv2",
    "torchvision-mnasnet",
    "timm-vision_transformer",
    "timm-levit",
    "timm-regnet",
    "timm-starnet",
    "timm-xcit",
    "transformers-vit",
    "transformers-beit",
    "transformers-swin",
    "transformers-convnext",
    "transformers-dinov2_with_registers",
    "transformers-segformer",
    "transformers-levit",
    "transformers-yolos-detection",
    "transformers-clip-zero-shot",
    "transformers-resnet-backbone",
    "transformers-videomae-video",
    "transformers-audio-spectrogram-transformer-audio",
    "transformers-wav2vec2-audio",
    "written-signal",
    "written-volume",
    "written-waveform",
    "written-unet",
    "written-siamese",
    "written-class-tokens",
    "written-detached",
    "written-auxiliary-head",
]
"""What make test runs: families that are quick, and of each layout at least one."""


def pytest_generate_tests(metafunc):
    if "family" in metafunc.fixturenames:
        names = SAMPLE
        if metafunc.config.getoption("--sweep"):
            from families import families

            names = list(families())
        metafunc.parametrize("family", names)


class Recorder:
    """Collects the rows of the table from the tests' reports, which also come from other processes."""

    def __init__(self):
        self.found = []

    def pytest_runtest_logreport(self, report):
        self.found += [value for name, value in report.user_properties if report.when == "call" and name == "sweep"]

    def pytest_sessionfinish(self, session):
        if self.found:
            table.write(self.found)


def pytest_configure(config):
    if config.getoption("--table") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())
