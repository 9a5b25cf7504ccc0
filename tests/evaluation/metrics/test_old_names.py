"""Names of version 0.2 that stay for one version."""

import pickle

import pytest
import torch

from captum_regioncam import evaluation

OLD = {
    "LocalizationScore": "LocalizationMetric",
    "PixelAveragePrecision": "PixelMetric",
    "SegmentationScore": "SegmentationMetric",
}


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_an_old_name_is_the_same_class_and_names_the_new_one(old, new):
    with pytest.warns(DeprecationWarning, match=rf"evaluation\.{old} has been renamed: use {new}\.") as warned:
        found = getattr(evaluation, old)
    assert found is getattr(evaluation, new)
    assert warned[0].filename == __file__
    assert new in evaluation.__all__
    assert old not in (*evaluation.__all__, *dir(evaluation))


def test_code_of_version_0_2_runs():
    with pytest.warns(DeprecationWarning, match="use SegmentationMetric"):
        from captum_regioncam.evaluation import SegmentationScore
    metric = SegmentationScore(num_classes=1, threshold=0.5)
    metric.update(torch.tensor([[[0.9, 0.7, 0.2, 0.1]]]), torch.tensor([0]), torch.tensor([[1, 0, 0, 0]]))
    again = pickle.loads(pickle.dumps(metric))
    assert isinstance(again, SegmentationScore)
    assert isinstance(again, evaluation.SegmentationMetric)
    assert float(again.compute()["best_threshold"]) == 0.7
