"""The scores of label maps against the readers that publish them, written out anew."""

import warnings

import numpy as np
import pytest
import torch

from captum_regioncam.evaluation import LabelMapMetric, SegmentationMetric
from captum_regioncam.evaluation.metrics import ABSENT, UNLABELLED, segmentation

CLASSES = 4  # class 3 (label 3) is only predicted, class 4 neither


@pytest.fixture
def photos():
    generator = np.random.default_rng(0)
    truths = [generator.choice([0, 0, 1, 2, 255], (9, 12)) for _ in range(3)]
    found = [
        np.where(generator.random((9, 12)) < 0.6, truth % 255, generator.integers(0, 4, (9, 12))) for truth in truths
    ]
    found[1][2:4, 3:7] = 255
    return list(zip(found, truths, strict=True))


def scored(photos, **options):
    metric = LabelMapMetric(CLASSES, **options)
    for found, truth in photos:
        metric.update(found, truth.astype(np.uint8))
    return {name: value.numpy() for name, value in metric.compute().items()}


def by_class(photos):
    """SEAM's counters: of each class, pixels that are right, predicted and true, where the truth is not 255."""
    right, found, true = np.zeros(CLASSES + 1), np.zeros(CLASSES + 1), np.zeros(CLASSES + 1)
    for prediction, truth in photos:
        counts = truth < 255
        for label in range(CLASSES + 1):
            found[label] += np.count_nonzero((prediction == label) & counts)
            true[label] += np.count_nonzero((truth == label) & counts)
            right[label] += np.count_nonzero((prediction == label) & (truth == label) & counts)
    return right, found, true


def test_by_hand():
    # Of the background, 3 pixels of 4 are right and 1 is called class 1; of class 1, 1 of 2 is right, 1 is 255.
    found = np.array([[0, 0, 0], [1, 1, 255], [2, 2, 2]])
    truth = np.array([[0, 0, 0], [0, 1, 1], [255, 255, 255]])
    metric = LabelMapMetric(2, unlabelled="missed")
    metric.update(found, truth)
    result = metric.compute()
    assert result["confusion"].tolist() == [[3, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    torch.testing.assert_close(result["per_class"][:2], torch.tensor([3 / 4, 1 / 3], dtype=torch.float64))
    torch.testing.assert_close(result["per_class_precision"][:2], torch.tensor([1, 1 / 2], dtype=torch.float64))
    torch.testing.assert_close(result["per_class_recall"][:2], torch.tensor([3 / 4, 1 / 2], dtype=torch.float64))
    torch.testing.assert_close(result["per_class_fp"][:2], torch.tensor([0, 1 / 3], dtype=torch.float64))
    torch.testing.assert_close(result["per_class_fn"][:2], torch.tensor([1 / 4, 1 / 3], dtype=torch.float64))
    assert result["per_class"].isnan().tolist() == [False, False, True]
    expected = {"pixel_accuracy": 4 / 6, "background_in_foreground": 1 / 2, "unlabelled": 1 / 6, "absent": 1}
    assert {name: float(result[name]) for name in expected} == pytest.approx(expected)


def test_equals_seam_s_and_mctformer_s_reader(photos):
    """evaluation.py: 1e-10 in the denominators makes 0 of classes that are nowhere; 255 is predicted as no class."""
    right, found, true = by_class(photos)
    union = true + found - right + 1e-10
    result = scored(photos, absent="zero", unlabelled="missed")
    assert result["miou"] == pytest.approx(np.mean(right / union), abs=1e-9)
    np.testing.assert_allclose(result["per_class"], right / union, atol=1e-9)
    assert result["fp"] == pytest.approx(np.mean((found - right) / union), abs=1e-9)
    assert result["fn"] == pytest.approx(np.mean((true - right) / union), abs=1e-9)
    # Readers made of it print TP / P and TP / T as well.
    assert result["precision"] == pytest.approx(np.mean(right / (found + 1e-10)), abs=1e-9)
    assert result["recall"] == pytest.approx(np.mean(right / (true + 1e-10)), abs=1e-9)


def test_equals_irn_s_and_recam_s_reader(photos):
    """eval_sem_seg.py: a predicted 255 becomes 0; NaN is left out; FP and FN are means over the classes alone."""
    confusion = np.zeros((256, 256), int)
    for prediction, truth in photos:
        labels = np.where(prediction == 255, 0, prediction)
        np.add.at(confusion, (truth[truth < 255], labels[truth < 255]), 1)
    confusion = confusion[: CLASSES + 1, : CLASSES + 1]
    true, found, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        union = true + found - right
        iou, fp, fn = right / union, 1 - true / union, 1 - found / union
    result = scored(photos)
    np.testing.assert_allclose(result["per_class"], iou, atol=1e-9)
    assert result["miou"] == pytest.approx(np.nanmean(iou), abs=1e-9)
    assert np.isnan(iou).tolist() == [False, False, False, False, True]
    np.testing.assert_allclose(result["per_class_fp"], fp, atol=1e-9)
    np.testing.assert_allclose(result["per_class_fn"], fn, atol=1e-9)
    assert result["fp_foreground"] == pytest.approx(np.nanmean(fp[1:]), abs=1e-9)
    assert result["fn_foreground"] == pytest.approx(np.nanmean(fn[1:]), abs=1e-9)
    # ReCAM's eval_cam.py: of the predicted foreground, what is in none of the classes.
    of_background = (found[1:].sum() - confusion[1:, 1:].sum()) / found[1:].sum()
    assert result["background_in_foreground"] == pytest.approx(of_background, abs=1e-9)
    assert result["absent"] == 2


def test_equals_clip_es_s_and_toco_s_reader(photos):
    """A histogram of what is true; classes without ground truth are left out; ToCo leaves out what is predicted 255."""
    size = CLASSES + 1
    histogram = np.zeros((size, size))
    for prediction, truth in photos:
        counts = (truth < size) & (prediction != 255)
        histogram += np.bincount(size * truth[counts] + prediction[counts], minlength=size**2).reshape(size, size)
    right, true = histogram.diagonal(), histogram.sum(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        iou = right / (true + histogram.sum(0) - right)
    result = scored(photos, absent="ignore-predicted", unlabelled="ignored")
    assert result["miou"] == pytest.approx(np.nanmean(iou[true > 0]), abs=1e-9)
    assert result["pixel_accuracy"] == pytest.approx(right.sum() / histogram.sum(), abs=1e-9)
    assert result["recall"] == pytest.approx(np.nanmean((right / np.maximum(true, 1))[true > 0]), abs=1e-9)
    assert np.isnan(result["per_class"]).tolist() == [False, False, False, True, True]


def test_all_ways_differ(photos):
    found = {
        (absent, way): float(scored(photos, absent=absent, unlabelled=way)["miou"])
        for absent in ABSENT
        for way in UNLABELLED
    }
    assert len(set(found.values())) == 9
    for result in (scored(photos, absent=absent, unlabelled=way) for absent, way in found):
        sums = result["per_class"] + result["per_class_fp"] + result["per_class_fn"]
        counted = ~np.isnan(sums) & (result["per_class_recall"] + result["per_class_precision"] > 0)
        np.testing.assert_allclose(sums[counted], 1)


@pytest.mark.parametrize("absent", ABSENT)
def test_seeds_count_absent_classes_likewise(absent):
    cams, truth = torch.tensor([[[0.9, 0.2, 0.9]], [[0.1, 0.8, 0.3]]]), np.array([[1, 0, 1]])
    seeds, labels = SegmentationMetric(3, threshold=0.5, absent=absent), LabelMapMetric(3, absent=absent)
    seeds.update(cams, [0, 1], truth)
    labels.update(np.array([[1, 2, 1]]), truth)
    found, expected = seeds.compute(), labels.compute()
    torch.testing.assert_close(found["per_class"], expected["per_class"], equal_nan=True)
    assert float(found["miou"]) == float(expected["miou"])
    # The background and class 2 are 0, class 1 is 1; class 3 is nowhere, and class 2 only predicted.
    assert float(found["miou"]) == {"ignore": 1 / 3, "zero": 1 / 4, "ignore-predicted": 1 / 2}[absent]
    assert int(found["absent"]) == int(expected["absent"]) == 2


def test_counts_of_two_workers_add_up(photos, monkeypatch):
    one, two, both = (LabelMapMetric(CLASSES) for _ in range(3))
    for metric, photo in zip((one, two, one), photos, strict=True):
        metric.update(*photo)
    monkeypatch.setattr(segmentation, "_BLOCK", 25)  # two rows at once
    for photo in photos:
        both.update(*photo)
    assert torch.equal(one.confusion + two.confusion, both.confusion)
    assert both.confusion.sum() == sum((truth < 255).sum() for _, truth in photos)


@pytest.mark.parametrize(
    ("found", "truth", "says"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"predicted of shape \(2, 3\) and labels of shape \(3, 2\)"),
        (np.full((1, 1), 5), np.zeros((1, 1)), "predicted: 5 is neither from 0 to 4 nor 255"),
        (np.full((1, 1), -1), np.zeros((1, 1)), "predicted: -1 is neither from 0 to 4 nor 255"),
        (np.zeros((1, 1)), np.full((1, 1), 21), "labels: 21 is neither from 0 to 4 nor 255"),
    ],
)
def test_wrong_input(found, truth, says):
    metric = LabelMapMetric(CLASSES)
    with pytest.raises(ValueError, match=says):
        metric.update(found, truth)
    assert metric.confusion.sum() == 0


def test_wrong_options():
    for options, says in [
        ({"num_classes": 0}, "num_classes=0: expects at least one"),
        ({"num_classes": 1, "absent": "one"}, "absent='one': expects one of ignore, zero, ignore-predicted"),
        ({"num_classes": 1, "unlabelled": "x"}, "unlabelled='x': expects one of background, missed, ignored"),
    ]:
        with pytest.raises(ValueError, match=says):
            LabelMapMetric(**options)
    with pytest.raises(ValueError, match="absent: expects one of ignore"):
        SegmentationMetric(1, absent=None)
