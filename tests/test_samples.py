import sys

import numpy as np
import pytest

from captum_regioncam import LayerRegionCam, find_stages, refine, to_mask
from captum_regioncam.evaluation.models import load_classifier
from captum_regioncam.samples import TARGETS, outline, photo


def test_the_network_sees_what_the_photos_show():
    classifier = load_classifier()
    for name, target in TARGETS.items():
        x = classifier.preprocess(classifier.fit(photo(name))[1])
        likeliest = classifier.model(x)[0].topk(5).indices.tolist()
        assert target in likeliest, (name, likeliest)


@pytest.mark.parametrize(("name", "share"), [("cat", 0.76), ("cup", 0.47), ("motorcycle", 0.32)])
def test_outlines_are_where_the_objects_are(name, share):
    truth, classifier = outline(name), load_classifier()
    assert truth.shape == photo(name).size[::-1]
    assert truth.mean() == pytest.approx(share, abs=0.01)
    x = classifier.preprocess(classifier.fit(photo(name))[1])
    attribution = LayerRegionCam(classifier.model, find_stages(classifier.model, x)).attribute(x, TARGETS[name])
    found = to_mask(attribution, 0.15, truth.shape)[0, 0].numpy()
    assert (_iou(found, truth) + _iou(~found, ~truth)) / 2 > 0.6
    refined = to_mask(refine(attribution, photo(name)), 0.15)[0, 0].numpy()
    assert _iou(refined, truth) > np.mean(truth)  # better than marking everything


def _iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_unknown_names():
    with pytest.raises(ValueError, match="name='dog': expects one of cat, cup, motorcycle, rocket, portrait"):
        photo("dog")
    with pytest.raises(ValueError, match=r"name='rocket': expects one of cat, cup, motorcycle\."):
        outline("rocket")


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(
        ImportError, match=r'chelsea.png comes with scikit-image: pip install "captum_regioncam\[demo\]"'
    ):
        photo("cat")
