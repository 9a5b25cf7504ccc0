"""What the tests need before anything is imported: a torchvision that imports, and figures without a screen."""

import os

import matplotlib as mpl
import pytest
import torch
from hypothesis import settings

mpl.use("Agg")
os.environ["HF_HUB_OFFLINE"] = "1"

try:
    import torchvision  # noqa: F401
except RuntimeError:  # a torchvision built against CUDA, beside a CPU build of torch, lacks two operators' schemas
    _library = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
