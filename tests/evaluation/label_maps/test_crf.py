"""Dense CRF against the pipelines' own steps."""

import sys

import numpy as np
import pytest
from PIL import Image

from captum_regioncam.evaluation import confident_labels, crf_labels, crf_scores

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
