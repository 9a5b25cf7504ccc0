import warnings

import numpy as np
import pytest
import torch

from captum_regioncam.evaluation import SegmentationMetric
from captum_regioncam.evaluation.metrics import segmentation


def confusions(photos, classes, thresholds):
    """The reference: label maps by argmax over a background plane, one threshold at a time."""
    for threshold in thresholds:
        confusion = np.zeros((classes + 1, classes + 1))
        for cams, keys, labels in photos:
            planes = np.pad(cams.numpy(), ((1, 0), (0, 0), (0, 0)), constant_values=threshold)
            predicted = np.pad(np.array(keys, int) + 1, (1, 0))[planes.argmax(0)]
            counted = labels != 255
            np.add.at(confusion, (labels[counted], predicted[counted]), 1)
        yield confusion


def iou(confusion):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right = confusion.diagonal()
        return right / (confusion.sum(0) + confusion.sum(1) - right)


def test_by_hand():
    # Two classes, six pixels, one of them ignored. At 0.5: background, class 1 wrong, class 2, class 2, background.
    score = SegmentationMetric(2, threshold=0.5)
    cams = torch.tensor([[[0.4, 0.9, 0.1], [0.2, 0.3, 0.9]], [[0.1, 0.2, 0.8], [0.7, 0.4, 0.2]]])
    labels = np.array([[0, 2, 2], [2, 1, 255]])
    score.update(cams, [0, 1], labels)
    result = score.compute()
    # background: 1 right of 2 predicted, 1 true. Class 1: 0 right of 1 and 1. Class 2: 2 right of 2 and 3.
    torch.testing.assert_close(result["per_class"], torch.tensor([1 / 2, 0, 2 / 3], dtype=torch.float64))
    assert result["miou"] == pytest.approx((1 / 2 + 0 + 2 / 3) / 3)
    # At 0.4 pixel (1, 1), 0.4 for class 2, is still background, and (0, 0) is a tie that background wins.
    at = result["thresholds"].tolist().index(0.4)
    assert result["curve"][at] == pytest.approx(result["miou"])
    # From 0.39 down it is class 2: background keeps none right but (0, 0)'s class 1 is wrong as well.
    assert result["curve"][at - 1] == pytest.approx((0 + 0 + 2 / 4) / 3)


def test_equals_argmax_at_every_threshold():
    generator = np.random.default_rng(0)
    photos = []
    for keys in ([0], [2, 1], [0, 1, 2], [2], []):
        # Scores on the thresholds themselves, and equal ones, are ties.
        cams = torch.from_numpy(generator.integers(0, 101, (len(keys), 9, 8)) / 100).float()
        photos.append((cams, keys, generator.choice([0, 1, 2, 3, 255], (9, 8))))
    score = SegmentationMetric(3)
    for cams, keys, labels in photos:
        score.update(cams, torch.tensor(keys, dtype=torch.long), labels)
    result = score.compute()
    thresholds = result["thresholds"].numpy()
    curve = [np.nanmean(iou(confusion)) for confusion in confusions(photos, 3, thresholds.astype(np.float32))]
    np.testing.assert_allclose(result["curve"].numpy(), curve, rtol=1e-12)
    assert result["best_miou"] == max(curve)
    assert result["best_threshold"] == thresholds[int(np.argmax(curve))]
    [fixed] = confusions(photos, 3, [np.float32(0.15)])
    np.testing.assert_allclose(result["per_class"].numpy(), iou(fixed), rtol=1e-12)


def test_class_that_is_nowhere_is_nan_and_left_out():
    score = SegmentationMetric(3)
    score.update(torch.full((1, 2, 2), 0.9), [1], np.array([[2, 2], [2, 0]]))
    result = score.compute()
    assert result["per_class"].isnan().tolist() == [False, True, False, True]
    assert result["miou"] == pytest.approx((0 + 3 / 4) / 2)


@pytest.mark.parametrize(("value", "miou"), [(0.0, 0.5), (1.0, 0.5)])
def test_constant_maps(value, miou):
    score = SegmentationMetric(1)
    score.update(torch.full((1, 2, 2), value), [0], np.array([[0, 0], [1, 1]]))
    # All background, or all foreground: half of each is right, and the other class is not hit at all.
    assert score.compute()["miou"] == pytest.approx(miou / 2)


def test_empty_mask_and_mask_of_nothing_that_counts():
    score = SegmentationMetric(1)
    score.update(torch.zeros(1, 2, 2), [0], np.zeros((2, 2)))
    score.update(torch.ones(1, 2, 2), [0], np.full((2, 2), 255))
    assert score.histogram.sum() == 4
    assert score.compute()["per_class"].tolist()[0] == 1
    assert score.compute()["per_class"].isnan().tolist() == [False, True]


def test_histograms_of_two_workers_add_up():
    one, two, both = (SegmentationMetric(2) for _ in range(3))
    for index, part in enumerate((one, two, one)):
        cams, labels = torch.rand(2, 5, 5), torch.randint(0, 3, (5, 5))
        part.update(cams, [0, 1], labels)
        both.update(cams, [0, 1], labels)
        assert part.histogram.sum() == 25 * (1 + (index == 2))
    assert torch.equal(one.histogram + two.histogram, both.histogram)
    both.reset()
    assert both.histogram.sum() == 0


@pytest.mark.parametrize(
    ("cams", "keys", "labels", "says"),
    [
        (torch.rand(1, 2, 2), [0, 1], np.zeros((2, 2)), r"cams of shape \(1, 2, 2\), keys \(2,\)"),
        (torch.rand(1, 2, 3), [0], np.zeros((2, 2)), r"labels \(2, 2\) do not go together"),
        (torch.rand(1, 2, 2), [2], np.zeros((2, 2)), "keys: 2 to 2 are not classes from 0 to 1"),
        (torch.rand(1, 2, 2), [0], np.full((2, 2), 3), "labels: 3 to 3 are not classes from 0 to 2"),
        (torch.full((1, 2, 2), torch.nan), [0], np.zeros((2, 2)), "NaN"),
    ],
)
def test_wrong_input(cams, keys, labels, says):
    score = SegmentationMetric(2)
    with pytest.raises(ValueError, match=says):
        score.update(cams, keys, labels)
    assert score.histogram.sum() == 0


@pytest.mark.parametrize("classes", [0, 2.5, "3"])
def test_no_classes(classes):
    with pytest.raises(ValueError, match=f"num_classes={classes!r}"):
        SegmentationMetric(classes)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threshold": 1.5}, "threshold: expects numbers from 0 to 1, got 1.5"),
        ({"threshold": "0.15"}, "threshold: .* got '0.15'"),
        ({"threshold": torch.tensor([0.1, 0.2])}, r"threshold: .* got tensor\(\[0.1000, 0.2000\]\)"),
        ({"threshold": None}, "threshold: .* got None"),
        ({"thresholds": [0.1, float("nan")]}, "thresholds: .* got nan"),
        ({"thresholds": [-0.1]}, "thresholds: .* got -0.1"),
        ({"thresholds": torch.rand(2, 2)}, r"thresholds: .* got tensor\("),
    ],
)
def test_thresholds_that_are_no_numbers(options, says):
    with pytest.raises(ValueError, match=says):
        SegmentationMetric(1, **options)


def test_thresholds_in_tensors_count_once():
    score = SegmentationMetric(1, threshold=torch.tensor(0.5), thresholds=torch.tensor([0.25, 0.5, 0.5, 0.75]))
    assert score.thresholds.tolist() == [0.25, 0.5, 0.75]
    assert score.threshold == 0.5
    score.update(torch.tensor([[[0.9, 0.7, 0.6, 0.1]]]), [0], np.array([[1, 0, 0, 0]]))
    assert score.compute()["curve"].tolist() == pytest.approx([(1 / 3 + 1 / 3) / 2, (1 / 3 + 1 / 3) / 2, 1])


def test_rows_of_a_large_photo_are_counted_block_by_block(monkeypatch):
    cams, labels = torch.rand(2, 9, 7), torch.randint(0, 3, (9, 7))
    labels[8, 0] = 255
    whole, blocks = SegmentationMetric(2), SegmentationMetric(2)
    whole.update(cams, [0, 1], labels)
    monkeypatch.setattr(segmentation, "_BLOCK", 15)  # two rows
    blocks.update(cams, [0, 1], labels)
    assert torch.equal(blocks.histogram, whole.histogram)
    labels[8, 0] = 9
    with pytest.raises(ValueError, match=r"labels: \d to 9 are not classes"):
        blocks.update(cams, [0, 1], labels)
    assert torch.equal(blocks.histogram, whole.histogram)
