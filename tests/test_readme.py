"""The README's Python runs as it stands, on a network of its own kind."""

import re
from pathlib import Path

import numpy as np
import torch
import torchvision

README = Path(__file__).parent.parent / "README.md"


def test_code_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        "model": torchvision.models.resnet18(weights=None).eval(),
        "x": torch.randn(1, 3, 64, 64),
        "photo": np.zeros((64, 64, 3), np.uint8),
    }
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert names["upsampled"].shape == (1, 1, 64, 64)
    assert (tmp_path / "maps.png").stat().st_size > 0
