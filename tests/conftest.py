"""What the tests need before anything is imported: a torchvision that imports, and figures without a screen."""

import os

import matplotlib as mpl
import pytest
import torch
import torchvision_schemas  # noqa: F401
from hypothesis import settings

mpl.use("Agg")
os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
