import cv2
import numpy as np
import pytest
import torch
from pipelines import WsolEvaluation

from captum_regioncam.evaluation import LocalizationMetric, PixelMetric, squash_boxes


def block(*boxes, value=1.0, side=224):
    cam = torch.zeros(side, side)
    for x0, y0, x1, y1 in boxes:
        cam[y0:y1, x0:x1] = value
    return cam


def scored(cam, boxes, rank=0, **options):
    score = LocalizationMetric(**options)
    score.update(cam, torch.tensor(boxes), rank)
    return {name: value.tolist() for name, value in score.compute().items()}


def test_box_by_hand():
    # The block's rectangle is (20, 50, 20 + 100, 50 + 40) = (20, 50, 120, 90), 101 x 41 pixels with both edges.
    cam = block((20, 50, 120, 90))
    assert scored(cam, [[20, 50, 120, 90]])["gt_known"] == 1
    # As wide, and from y 50 to 131: 82 rows, of which 41 are shared: IoU exactly 0.5, a hit; 0.7 is missed.
    result = scored(cam, [[20, 50, 120, 131]])
    assert (result["gt_known"], result["max_box_acc"]) == (1, 1)
    assert result["max_box_acc_v2"] == pytest.approx(2 / 3)
    assert scored(cam, [[20, 50, 120, 132]])["gt_known"] == 0


def test_rank_decides_loc1_and_loc5():
    cam, boxes = block((20, 50, 120, 90)), [[20, 50, 120, 90]]
    assert [scored(cam, boxes, rank)["loc1"] for rank in (0, 1, 4, 5)] == [1, 0, 0, 0]
    assert [scored(cam, boxes, rank)["loc5"] for rank in (0, 1, 4, 5)] == [1, 1, 1, 0]
    assert scored(cam, boxes, 5)["gt_known"] == 1


def test_thresholds_and_curve():
    # A weak surrounding of 0.5 (127 of 255): up to t = 0.49 the box is the whole, from 0.5 on the core.
    cam = block((0, 0, 200, 200), value=0.5) + block((50, 50, 100, 100), value=0.5)
    result = scored(cam, [[50, 50, 100, 100]])
    first = next(t for t, hit in zip(result["thresholds"], result["curve"], strict=True) if hit)
    assert round(first * 100) == 50
    assert result["threshold"] == first
    assert scored(cam, [[50, 50, 100, 100]], threshold=0.15)["gt_known"] == 0
    assert scored(cam, [[0, 0, 200, 200]], threshold=0.15)["gt_known"] == 1
    assert len(scored(cam, [[0, 0, 9, 9]], step=0.001)["curve"]) == 1000


def test_largest_contour_or_rectangle_or_any():
    # A thin diagonal has little area and a large rectangle.
    cam = block((150, 20, 200, 70))
    for i in range(140):
        cam[80 + i, i : i + 2] = 1
    square, diagonal = [[150, 20, 200, 70]], [[0, 80, 141, 220]]
    assert scored(cam, square)["gt_known"] == 1
    assert scored(cam, square, box="rectangle")["gt_known"] == 0
    assert scored(cam, diagonal, box="rectangle")["gt_known"] == 1
    assert scored(cam, diagonal)["gt_known"] == 0
    assert scored(cam, diagonal)["max_box_acc_v2"] == 1  # of all contours the best


def test_several_boxes_any_of_which_is_a_hit():
    cam = block((20, 50, 120, 90))
    assert scored(cam, [[200, 200, 210, 210], [20, 50, 120, 90]])["gt_known"] == 1


@pytest.mark.parametrize("cam", [torch.full((9, 9), 3.0), torch.full((9, 9), torch.nan), torch.zeros(9, 9)])
def test_constant_and_nan_maps_count_as_zeros(cam):
    assert scored(cam, [[0, 0, 100, 100]])["max_box_acc_v2"] == 0
    assert scored(cam, [[0, 0, 0, 0]])["gt_known"] == 1  # the box of nothing is (0, 0, 0, 0)


def test_equals_a_threshold_at_a_time():
    generator = np.random.default_rng(1)
    score = LocalizationMetric(side=64)
    hits, hits_any = np.zeros(100), np.zeros((3, 100))
    for _ in range(6):
        x0, y0 = generator.integers(0, 30, 2)
        cam = generator.random((16, 16)).astype(np.float32)
        cam[y0 // 4 : (y0 + 25) // 4, x0 // 4 : (x0 + 30) // 4] += 0.7
        cam = cv2.GaussianBlur(cam, (5, 5), 0)
        true = np.array([x0, y0, x0 + 30, y0 + 25])
        score.update(torch.from_numpy(cam), true[None])
        pixels = cv2.resize(cam, (64, 64), interpolation=cv2.INTER_CUBIC)
        pixels = ((pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255).astype(np.uint8)
        for index, t in enumerate(np.arange(0, 1, 0.01)):
            _, mask = cv2.threshold(pixels, int(t * pixels.max()), 255, cv2.THRESH_BINARY)
            contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
            areas = [cv2.contourArea(contour) for contour in contours]
            ious, largest = [], areas.index(max(areas))
            for contour in contours:
                x, y, w, h = cv2.boundingRect(contour)
                box = np.array([x, y, min(x + w, 63), min(y + h, 63)])
                sides = np.minimum(box[2:], true[2:]) - np.maximum(box[:2], true[:2]) + 1
                both = sides.clip(0).prod()
                areas = (box[2:] - box[:2] + 1).prod() + (true[2:] - true[:2] + 1).prod()
                ious.append(both / (areas - both))
            hits[index] += ious[largest] >= 0.5
            hits_any[:, index] += [max(ious) >= least for least in (0.3, 0.5, 0.7)]
    result = score.compute()
    np.testing.assert_allclose(result["curve"], hits / 6, atol=1e-6)
    np.testing.assert_allclose(result["curves_v2"], hits_any / 6, atol=1e-6)
    assert result["max_box_acc"] == pytest.approx(hits.max() / 6)
    assert result["max_box_acc_v2"] == pytest.approx(hits_any.max(1).mean() / 6)
    assert 0 < hits.sum() < 0.9 * hits.size * 6  # neither nothing nor all


def random_maps(seed):
    """Smooth maps, maps of few values (many ties), a constant one and one with NaN; one to four boxes each."""
    generator = np.random.default_rng(seed)
    for index in range(14):
        cam = cv2.GaussianBlur(generator.random((28, 28)).astype(np.float32), (7, 7), 0)
        if index % 2:
            cam = (cam * 8).round().astype(np.float32) / 8
        cam = np.ones((28, 28), np.float32) if index == 12 else cam
        cam[3, 3] = np.nan if index == 13 else cam[3, 3]
        corners = generator.integers([0, 0, 120, 120], [90, 90, 224, 224], (1 + index % 4, 4))
        yield cam, corners, (generator.random((28, 28)) > 0.6).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_equals_wsolevaluation(seed):
    theirs, boxes, pixels = WsolEvaluation(0.01), LocalizationMetric(step=0.01), PixelMetric()
    fine = WsolEvaluation(0.001)
    for cam, true, mask in random_maps(seed):
        theirs.add_boxes(cam, true)
        boxes.update(torch.from_numpy(cam), true)
        mask[0] = 255  # does not count
        fine.add_mask(cam, mask)
        pixels.update(torch.from_numpy(cam), mask)
    result = boxes.compute()
    assert float(result["max_box_acc"]) == pytest.approx(theirs.max_box_acc(False, [50]), abs=1e-6)
    assert float(result["max_box_acc_v2"]) == pytest.approx(theirs.max_box_acc(True, [30, 50, 70]), abs=1e-6)
    np.testing.assert_allclose(result["curve"], theirs.hits[False][50] / theirs.count, atol=1e-6)
    curves = np.array([theirs.hits[True][iou] for iou in (30, 50, 70)]) / theirs.count
    np.testing.assert_allclose(result["curves_v2"], curves, atol=1e-6)
    assert 0 < float(result["max_box_acc"]) < 1
    assert float(pixels.compute()) == pytest.approx(fine.pxap(), abs=1e-12)


def test_squash_boxes_truncates():
    # 500 x 375 to 224: x by 0.448, y by 0.5973.
    assert squash_boxes([[10, 10, 499, 374]], (500, 375)).tolist() == [[4, 5, 223, 223]]
    assert squash_boxes([[180, 0, 340, 360]], (640, 360)).tolist() == [[63, 0, 119, 224]]  # 63, not 62.999...
    assert squash_boxes(np.array([[0, 3, 50, 9]]), (100, 10), side=10).tolist() == [[0, 3, 5, 9]]
    with pytest.raises(ValueError, match=r"size=224: expects \(width, height\)"):
        squash_boxes([[0, 0, 1, 1]], 224)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"step": 0}, "step=0"),
        ({"step": torch.tensor([0.1, 0.2])}, r"step=tensor\(\[0.1000, 0.2000\]\): expects a number"),
        ({"threshold": 1.0}, "threshold=1.0"),
        ({"threshold": "0.15"}, "threshold='0.15': expects a number"),
        ({"box": "hull"}, "box='hull'"),
        ({"side": 0}, "side=0: expects a whole number"),
        ({"side": 22.4}, "side=22.4: expects a whole number"),
    ],
)
def test_wrong_options(options, says):
    with pytest.raises(ValueError, match=says):
        LocalizationMetric(**options)


def test_wrong_shapes():
    score = LocalizationMetric()
    with pytest.raises(ValueError, match=r"boxes of shape \(0, 4\)"):
        score.update(torch.rand(4, 4), np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"cam of shape \(1, 4, 4\)"):
        score.update(torch.rand(1, 4, 4), np.zeros((1, 4)))
    assert score.photos == 0
