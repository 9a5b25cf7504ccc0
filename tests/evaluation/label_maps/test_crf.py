"""Dense CRF against the pipelines' own steps."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation import Seed, confident_labels, crf_labels, crf_scores
from captum_regioncam.evaluation.label_maps.choice import strategy_of

HEIGHT, WIDTH = 31, 45


@pytest.fixture
def dcrf():
    return pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 could not be built here")


@pytest.fixture
def seed():
    """A photo of two patches with clear edges, and blurred maps that do not keep to them."""
    pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    pixels[6:24, 5:20] = (220, 60, 60)
    pixels[10:28, 26:41] = (60, 60, 220)
    pixels[24:30, 6:18] = (60, 200, 60)  # where the first map is low, but not nothing
    noise = np.random.default_rng(0).integers(0, 12, pixels.shape, dtype=np.uint8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    maps = [np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 60) for y, x in ((15, 12), (19, 34))]
    return Image.fromarray(pixels + noise), np.array(maps, dtype=np.float32), np.array([4, 14])


def irn_crf_inference_label(dcrf, img, labels, n_labels, t=10, gt_prob=0.7):
    """The steps of IRN's misc/imutils.py."""
    from pydensecrf.utils import unary_from_labels

    height, width = img.shape[:2]
    model = dcrf.DenseCRF2D(width, height, n_labels)
    model.setUnaryEnergy(unary_from_labels(labels, n_labels, gt_prob=gt_prob, zero_unsure=False))
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.ascontiguousarray(np.copy(img)), compat=10)
    return np.argmax(np.array(model.inference(t)).reshape((n_labels, height, width)), axis=0)


def irn_refined(dcrf, photo, maps, keys, threshold):
    keys = np.pad(keys + 1, (1, 0), mode="constant")
    planes = np.pad(maps, ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=threshold)
    return keys[irn_crf_inference_label(dcrf, np.asarray(photo), planes.argmax(0), len(keys))]


def test_labels_are_irn_s(dcrf, seed):
    photo, maps, keys = seed
    for threshold in (0.15, 0.4):
        labels = crf_labels(photo, maps, keys, threshold)
        assert np.array_equal(labels, irn_refined(dcrf, photo, maps, keys, threshold))
    # The maps reach over the patches' edges, the refined labels do not.
    assert set(np.unique(labels)) == {0, 5, 15}
    assert (labels[8:22, 7:18] == 5).all()
    assert not labels[:3].any()


def test_confident_labels_are_irn_s(dcrf, seed):
    photo, maps, keys = seed
    foreground, background = (irn_refined(dcrf, photo, maps, keys, threshold) for threshold in (0.3, 0.05))
    expected = foreground.copy()
    expected[foreground == 0] = 255
    expected[background + foreground == 0] = 0
    labels = confident_labels(photo, maps, keys)
    assert np.array_equal(labels, expected)
    assert set(np.unique(labels)) == {0, 5, 15, 255}


@pytest.mark.parametrize("alpha", [4, 24])
def test_scores_are_psa_s(dcrf, seed, alpha):
    from pydensecrf.utils import unary_from_softmax

    photo, maps, _ = seed
    probabilities = np.concatenate([np.power(1 - np.max(maps, axis=0, keepdims=True), alpha), maps])
    model = dcrf.DenseCRF2D(WIDTH, HEIGHT, 3)
    model.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.array(photo), compat=10)
    expected = np.array(model.inference(10)).reshape(3, HEIGHT, WIDTH)
    scores = crf_scores(photo, maps, alpha)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("keys", [[4, 254], [-1, 4], [300, 4]])
def test_classes_that_8_bits_do_not_hold(seed, keys):
    """They would become other classes, or pixels that do not count."""
    photo, maps, _ = seed
    for refine in (crf_labels, confident_labels):
        with pytest.raises(
            ValueError, match=rf"keys=\[{keys[0]}, {keys[1]}\]: an 8-bit label map holds classes 0 to 253"
        ):
            refine(photo, maps, keys)


def test_without_the_extra(monkeypatch, seed):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    photo, maps, keys = seed
    with pytest.raises(ImportError, match=r'pip install "captum_regioncam\[crf\]".*needs a C\+\+ compiler'):
        crf_labels(photo, maps, keys)


def dense_crf(dcrf, pixels, probabilities, pos_w, pos_xy_std, bi_w, bi_xy_std, bi_rgb_std):
    """The DenseCRF of CLIP-ES's and ToCo's scripts."""
    from pydensecrf.utils import unary_from_softmax

    count, height, width = probabilities.shape
    model = dcrf.DenseCRF2D(width, height, count)
    model.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    model.addPairwiseGaussian(sxy=pos_xy_std, compat=pos_w)
    model.addPairwiseBilateral(sxy=bi_xy_std, srgb=bi_rgb_std, rgbim=np.ascontiguousarray(pixels), compat=bi_w)
    return np.array(model.inference(10)).reshape(count, height, width)


def labelled(strategy, photo, maps, keys):
    return strategy.labels_of(Seed(torch.from_numpy(keys), torch.zeros(len(keys), 8, 12), maps), photo)


def test_clip_es_s_labels(dcrf, seed):
    """eval_cam_with_crf.py: the background of power 1, the mean subtracted in BGR, and 255 below 0.95."""
    photo, maps, keys = seed
    bgr = np.asarray(photo)[:, :, ::-1].astype(np.float32) - np.array((104.008, 116.669, 122.675), np.float32)
    pixels = np.trunc(bgr).astype(int) % 256
    planes = np.concatenate([1 - maps.max(0, keepdims=True), maps])
    probabilities = dense_crf(dcrf, pixels.astype(np.uint8), planes, 3, 1, 4, 67, 3)
    expected = np.array([0, 5, 15])[probabilities.argmax(0)]
    assert np.array_equal(labelled(strategy_of(crf="clip-es"), photo, maps, keys), expected)
    expected[probabilities.max(0) < 0.95] = 255
    assert set(np.unique(expected)) == {0, 5, 15, 255}
    for confident in (True, 0.95):
        strategy = strategy_of(crf="clip-es", confident=confident)
        assert np.array_equal(labelled(strategy, photo, maps, keys), expected)
    assert strategy.settings() == {"background": "clip-es", "power": 1.0, "crf": "clip-es", "confident": 0.95}
    constant = strategy_of(0.3, crf="clip-es", background="constant")
    planes[0] = 0.3
    probabilities = dense_crf(dcrf, pixels.astype(np.uint8), planes, 3, 1, 4, 67, 3)
    assert np.array_equal(labelled(constant, photo, maps, keys), np.array([0, 5, 15])[probabilities.argmax(0)])


def test_toco_s_labels(dcrf, seed):
    """infer_cam_crf_label.py: a constant background, the softmax, and labels at a high and a low one."""
    photo, maps, keys = seed
    found = {}
    for threshold in (0.25, 0.7):
        planes = torch.from_numpy(np.pad(maps, ((1, 0), (0, 0), (0, 0)), constant_values=threshold))
        probabilities = dense_crf(dcrf, np.array(photo), planes.softmax(0).numpy(), 3, 3, 4, 36, 3)
        found[threshold] = np.array([0, 5, 15])[probabilities.argmax(0)]
        labels = labelled(strategy_of(threshold, crf="toco"), photo, maps, keys)
        assert np.array_equal(labels, found[threshold])
    high, low = found[0.7], found[0.25]
    expected = np.where(high == 0, 255, high)
    expected[high + low == 0] = 0
    for confident in (True, (0.25, 0.7)):
        labels = labelled(strategy_of(crf="toco", confident=confident), photo, maps, keys)
        assert np.array_equal(labels, expected)
    assert 255 in labels


def test_irn_s_crf_with_clip_es_s_background(dcrf, seed):
    photo, maps, keys = seed
    planes = np.concatenate([(1 - maps.max(0, keepdims=True)) ** 2, maps])
    expected = np.array([0, 5, 15])[irn_crf_inference_label(dcrf, np.asarray(photo), planes.argmax(0), 3)]
    strategy = strategy_of(crf="irn", background="clip-es", power=2)
    assert np.array_equal(labelled(strategy, photo, maps, keys), expected)
    assert strategy.settings() == {"background": "clip-es", "power": 2.0, "crf": "irn", "confident": None}
    assert not labelled(strategy, photo, np.zeros((0, HEIGHT, WIDTH), np.float32), np.zeros(0, int)).any()


def test_clip_es_s_background_alone(seed):
    """eval_cam.py with --cam_eval_thres of 1 and more."""
    _, maps, keys = seed
    for power in (1, 2.5):
        planes = np.concatenate([np.power(1 - maps.max(0, keepdims=True), power), maps])
        strategy = strategy_of(background="clip-es", power=power)
        assert np.array_equal(labelled(strategy, None, maps, keys), np.array([0, 5, 15])[planes.argmax(0)])
    assert not strategy.needs_photo


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"background": "none"}, "background='none': expects one of constant, clip-es"),
        ({"power": 2}, "power=2: requires background='clip-es'"),
        ({"power": 0, "background": "clip-es"}, "power=0: expects a number above 0"),
        ({"crf": "psa", "background": "constant"}, "background='constant': cannot be used with crf='psa'"),
        ({"crf": "psa", "confident": True}, "confident: requires crf='irn', toco or clip-es"),
        ({"crf": "irn", "confident": 0.95}, "confident=0.95: expects two numbers from 0 to 1"),
        ({"crf": "toco", "confident": (0.1, 0.2, 0.3)}, r"confident=\(0.1, 0.2, 0.3\): expects two numbers"),
        (
            {"crf": "clip-es", "confident": (0.1, 0.2)},
            r"confident=\(0.1, 0.2\): expects a number from 0 to 1 with crf=",
        ),
        ({"crf": "clip-es", "confident": "best"}, "confident='best': expects a number from 0 to 1 with crf="),
        ({"crf": "irn", "background": "clip-es", "confident": True}, "confident: cannot be used with background="),
    ],
)
def test_arguments_that_do_not_go_together(options, says):
    with pytest.raises(ArgumentError, match=says):
        strategy_of(**options)
