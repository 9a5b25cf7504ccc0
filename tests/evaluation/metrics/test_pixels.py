import numpy as np
import pytest
import torch

from captum_regioncam.evaluation import PixelMetric
from captum_regioncam.evaluation.metrics import segmentation


def test_by_hand():
    # Values from high to low, on the object or not: 1 yes, 0.75 no, 0.5 yes, 0 no. Precision 1, then 2 / 3.
    score = PixelMetric(bins=4)
    score.update(torch.tensor([[1.0, 0.75], [0.5, 0.0]]), np.array([[1, 0], [1, 0]]))
    assert float(score.compute()) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # A second photo counts pixel by pixel: its range is stretched, its 255 left out.
    score.update(torch.tensor([[5.0, 9.0], [7.0, 6.0]]), np.array([[0, 1], [255, 0]]))
    assert (score.inside.tolist(), score.outside.tolist()) == ([0, 0, 1, 0, 2], [2, 1, 0, 1, 0])
    assert float(score.compute()) == pytest.approx(2 / 3 * 1 + 1 / 3 * 3 / 4)


def test_the_precision_of_the_mask_itself_is_one_and_of_a_constant_the_share_of_the_object():
    mask = (torch.rand(8, 8) > 0.7).long()
    score = PixelMetric()
    score.update(mask.float(), mask)
    assert float(score.compute()) == 1
    score.reset()
    score.update(torch.ones(8, 8), mask.bool())
    assert float(score.compute()) == pytest.approx(float(mask.float().mean()))


def test_the_precision_of_blocks_of_rows_is_that_of_the_whole(monkeypatch):
    cam, mask = torch.rand(9, 7), torch.randint(0, 2, (9, 7))
    mask[4] = 255
    whole, blocks = PixelMetric(bins=10), PixelMetric(bins=10)
    whole.update(cam, mask)
    monkeypatch.setattr(segmentation, "_BLOCK", 15)  # two rows
    blocks.update(cam, mask)
    assert torch.equal(blocks.inside, whole.inside)
    assert torch.equal(blocks.outside, whole.outside)
    assert whole.inside.sum() + whole.outside.sum() == 8 * 7


def test_wrong_input():
    score = PixelMetric()
    with pytest.raises(ValueError, match=r"cam \(2, 2\) and mask \(3, 2\)"):
        score.update(torch.rand(2, 2), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="values 0, 1 and 255"):
        score.update(torch.rand(2, 2), np.full((2, 2), 7))
    for bins in (0, 2.5):
        with pytest.raises(ValueError, match=f"bins={bins}: expects at least 1"):
            PixelMetric(bins)
