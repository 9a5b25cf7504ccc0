"""Every example of the package's docstrings prints what it says."""

import doctest
import importlib.util
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import LayerAttribution
from made_datasets import make_coco, make_cub, make_folder, make_ilsvrc, make_openimages, make_voc
from PIL import Image
from torchvision.models.resnet import BasicBlock, ResNet

import captum_regioncam
import captum_regioncam.evaluation
from captum_regioncam.evaluation.datasets import VOC_CLASSES

MODULES = [
    module.name
    for module in pkgutil.walk_packages(captum_regioncam.__path__, "captum_regioncam.")
    if not module.name.endswith(("__main__", "app.page"))  # which runs, or imports Gradio, for seconds
    and (not module.name.endswith(("irn_crf", "psa_crf")) or importlib.util.find_spec("pydensecrf"))
]


def names(folder):
    """What the examples take for granted: a network, an input, a photo, and the data sets in the working directory."""
    make_voc(folder)
    make_coco(folder / "coco")
    make_ilsvrc(folder / "ILSVRC2012")
    make_openimages(make_cub(folder / "wsolevaluation"))
    make_folder(folder / "photos")
    for sample in captum_regioncam.evaluation.open_dataset("voc", folder):
        height, width = sample.labels.shape
        maps = torch.rand(len(sample.keys), height, width)
        seed = captum_regioncam.evaluation.Seed(torch.tensor(sample.keys), maps[:, ::4, ::4], maps.numpy())
        captum_regioncam.evaluation.save_seed(folder / f"seeds/{sample.name}.npy", seed)
    model = ResNet(BasicBlock, [1, 1, 1, 1]).eval()
    x = torch.randn(2, 3, 224, 224)
    cam = captum_regioncam.LayerRegionCam(model, captum_regioncam.find_stages(model, x))
    return {
        **{name: getattr(captum_regioncam, name) for name in captum_regioncam.__all__},
        **{name: getattr(captum_regioncam.evaluation, name) for name in captum_regioncam.evaluation.__all__},
        **{"model": model, "x": x, "cam": cam, "attribution": cam.attribute(x[:1], target=1)},
        **{
            "photo": Image.new("RGB", (500, 375), "gray"),
            "preprocess": captum_regioncam.evaluation.Classifier(model).preprocess,
        },
        **{"np": np, "torch": torch, "torchvision": torchvision, "Image": Image},
        **{"LayerAttribution": LayerAttribution, "VOC_CLASSES": VOC_CLASSES},
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The maps of examples")  # a gray photo and random weights
def test_examples_print_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = names(Path())
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    for name in MODULES:
        module = importlib.import_module(name)
        for test in doctest.DocTestFinder(exclude_empty=True).find(module):
            test.globs = {**vars(module), **variables}
            runner.run(test, clear_globs=False)
    assert runner.tries > 40
    assert runner.failures == 0
