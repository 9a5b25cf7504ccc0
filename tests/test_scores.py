"""Networks that return more than class scores: segmentation networks, detectors, CLIP; all with random weights."""

import copy
import pickle
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import LayerGradCam
from helpers import CONVS, small_net
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from narrow_networks import narrow_networks
from torch import nn

from captum_regioncam import (
    LayerError,
    LayerRegionCam,
    TargetError,
    box_score,
    class_scores,
    find_stages,
    segmentation_score,
    similarity_score,
)


def returning(model, wrap):
    return lambda x: wrap(model(x))


@pytest.mark.parametrize(
    ("wrap", "pick"),
    [
        (lambda scores: scores, None),
        (lambda scores: {"aux": scores * 2, "out": scores}, 'model(x)["out"]'),
        (lambda scores: {"anything": scores}, 'model(x)["anything"]'),
        (lambda scores: SimpleNamespace(loss=None, logits=scores), "model(x).logits"),
        (lambda scores: (None, scores, scores * 2), "model(x)[1]"),
    ],
)
def test_class_scores_picks_them(wrap, pick):
    model, x = small_net()
    network = returning(model, wrap)
    expected = LayerGradCam(model, model.relu2).attribute(x, target=1)
    torch.testing.assert_close(LayerGradCam(class_scores(network), model.relu2).attribute(x, target=1), expected)
    region = LayerRegionCam(class_scores(network), model.relu2).attribute(x, target=1)
    torch.testing.assert_close(region, LayerRegionCam(model, model.relu2).attribute(x, target=1))
    if pick:
        with pytest.raises(TypeError) as error:
            LayerRegionCam(network, model.relu2).attribute(x, target=1)
        assert pick in str(error.value)
        assert "class_scores(model)" in str(error.value)


def test_what_has_no_scores():
    with pytest.raises(TypeError, match=r"returned dict of 'a': there is no tensor of scores in it\. Pass a function"):
        class_scores(lambda x: {"a": 1})(torch.zeros(1))
    missing = "Is a return statement missing?"
    for wrap in (
        class_scores,
        lambda model: segmentation_score(model, 0),
        lambda model: similarity_score(model, torch.ones(1)),
    ):
        with pytest.raises(TypeError) as error:
            wrap(lambda x: None)(torch.zeros(1))
        assert str(error.value) == f"the network returned None: there is no tensor of scores in it. {missing}"
    model, x = small_net()
    for returned, message in (
        (None, f"None, not a tensor of scores. {missing}"),
        (1.5, "float, not a tensor of scores. Pass a function that picks one score per example or per class."),
    ):
        with pytest.raises(TypeError) as error:
            LayerRegionCam(lambda x, returned=returned: (model(x), returned)[1], model.relu2).attribute(x, 0)
        assert str(error.value) == f"forward_func returned {message}"


def test_layers_are_the_model_s_own():
    model, x = small_net()
    scores = class_scores(model)
    assert scores.training == model.training
    assert scores.model.relu2 is model.relu2
    assert [name.removeprefix("model.") for name in find_stages(scores, x)] == list(find_stages(model, x))


SEGMENTERS = {
    "deeplabv3_resnet50": "backbone.layer4",
    "fcn_resnet50": "backbone.layer4",
    "lraspp_mobilenet_v3_large": "backbone.16",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmentation_networks_of_torchvision(name, monkeypatch):
    narrow_networks(monkeypatch.setattr)
    make = getattr(torchvision.models.segmentation, name)
    model = make(weights=None, weights_backbone=None, num_classes=5).eval()
    layer = model.get_submodule(SEGMENTERS[name])
    x = torch.randn(2, 3, 96, 64)
    logits = model(x)["out"]
    region = torch.zeros(96, 64, dtype=torch.bool)
    region[20:60, 10:40] = True
    torch.testing.assert_close(segmentation_score(model, 3, region)(x), (logits[:, 3] * region).sum((1, 2)))
    own = logits.argmax(1) == logits[0].argmax(0).flatten()[0]  # a class that is somewhere
    found = int(logits[0].argmax(0).flatten()[0])
    expected = torch.stack([(logits[i, found] * (own[i] if own[i].any() else 1)).sum() for i in range(2)])
    torch.testing.assert_close(segmentation_score(model, found)(x), expected)
    # The map is that of the sum, as autograd takes it.
    maps = LayerRegionCam(segmentation_score(model, 3, region), layer).attribute(x)
    by_hand = LayerRegionCam(lambda x: (model(x)["out"][:, 3] * region).sum((1, 2)), layer).attribute(x)
    torch.testing.assert_close(maps, by_hand)
    assert maps.flatten(1).amax(1).min() > 0.5
    every = LayerRegionCam(segmentation_score(model, 3), find_stages(model, x)).attribute(x)
    assert every.shape[2] > maps.shape[2]


def test_segmentation_scores_that_do_not_fit():
    model, x = small_net()
    with pytest.raises(ValueError, match=r"class_index=1: the network returned a tensor of shape \(3, 5\)"):
        segmentation_score(model, 1)(x)
    for class_index in (3, -1):
        with pytest.raises(
            ValueError, match=rf"class_index={class_index}: .* \(3, 3, 8, 8\), whose classes are 0 to 2\.$"
        ):
            segmentation_score(lambda x: x, class_index)(x)
    with pytest.raises(ValueError, match=r"class_index=1: .* \(3, 1, 8, 8\), whose only class is 0\.$"):
        segmentation_score(lambda x: x[:, :1], 1)(x)
    for scores in (x.mean((2, 3)), x[..., None, None]):
        with pytest.raises(ValueError, match=r"expects \(N, classes, \*grid\) with a grid of 1 to 3 dimensions"):
            segmentation_score(lambda x, scores=scores: scores, 1)(x)
    for size in [(4, 4), (8,), (2, 8, 8), (3, 1, 8, 8), ()]:
        with pytest.raises(ValueError, match="mask of shape") as error:
            segmentation_score(lambda x: x, 1, torch.ones(size))(x)
        assert str(error.value) == (
            f"mask of shape {size}: the network scores (8, 8) positions of 3 examples; expects (8, 8) or (3, 8, 8). "
            "torch.nn.functional.interpolate resizes masks."
        )
    for mask, kind in (([["a"]], "<U1"), (np.full((8, 8), None), "object")):
        with pytest.raises(ValueError, match=f"mask: expects True and False, or numbers; got {kind}"):
            segmentation_score(lambda x: x, 1, mask)


@pytest.mark.parametrize("size", [(9,), (9, 7), (4, 9, 7)])
def test_a_segmentation_without_a_dimension_for_the_classes(size):
    # Its rows would be read as classes.
    x = torch.randn(2, 3, *size)
    with pytest.raises(ValueError, match=r"the size of its input without .* lambda x: model\(x\)\[:, None\]"):
        segmentation_score(lambda x: x[:, 0], 0)(x)
    score = segmentation_score(lambda x: x[:, 0][:, None], 0)(x)
    torch.testing.assert_close(score, (x[:, 0] * (x[:, 0] > 0)).flatten(1).sum(1))


LOGITS = st.integers(1, 3).flatmap(
    lambda dimensions: arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 4), *[st.integers(1, 4)] * dimensions),
        elements=st.integers(-3, 3),
    )
)


@given(logits=LOGITS, data=st.data())
def test_the_score_of_a_region_is_a_sum_over_positions(logits, data):
    classes, *grid = logits.shape[1:]
    class_index = data.draw(st.integers(0, classes - 1))
    mask_shape = data.draw(st.sampled_from([tuple(grid), (len(logits), *grid), (1, *grid)]))
    mask = data.draw(arrays(np.bool_, mask_shape))
    own, masked = [], []
    for example, its_mask in zip(logits, np.broadcast_to(mask, (len(logits), *grid)), strict=True):
        found, total, inside = [], 0.0, 0.0
        for position in np.ndindex(*grid):
            scores = [plane[position] for plane in example]
            first = scores.index(max(scores))
            if scores[0] > 0 if classes == 1 else first == class_index:
                found.append(scores[class_index])
            total += scores[class_index]
            inside += scores[class_index] * its_mask[position]
        own.append(sum(found) if found else total)
        masked.append(inside)
    x = torch.from_numpy(logits)
    assert segmentation_score(lambda x: x, class_index)(x).tolist() == own
    turned = np.flip(np.flip(mask).copy())  # strides below 0, which torch refuses
    for given_mask in (mask, mask.tolist(), torch.from_numpy(mask), mask * 0.5, mask.astype(np.uint16), turned):
        assert segmentation_score(lambda x: x, class_index, given_mask)(x).tolist() == masked


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_segmentations_of_signals_images_and_volumes(dimensions):
    conv = CONVS[dimensions]
    model = nn.Sequential(conv(3, 6, 3, padding=1), nn.ReLU(), conv(6, 1, 3, padding=1)).eval()
    x, cam = torch.randn(2, 3, *[6] * dimensions), LayerRegionCam(segmentation_score(model, 0), model[1])
    maps = cam.attribute(x)
    with torch.no_grad():
        is_object = model(x)[:, 0] > 0
    assert 0 < is_object.sum() < is_object.numel()
    by_hand = LayerRegionCam(lambda x: (model(x)[:, 0] * is_object).flatten(1).sum(1), model[1]).attribute(x)
    torch.testing.assert_close(maps, by_hand)
    assert maps.shape == (2, 1, *x.shape[2:])
    wrapped = segmentation_score(lambda x: (x.mean(), x.flatten(1), model(x).flatten(2), model(x), model(x) * 2), 0)
    torch.testing.assert_close(wrapped(x), segmentation_score(model, 0)(x))


@pytest.fixture
def detector(monkeypatch):
    """Faster R-CNN; its suppression of overlaps, an operator of torchvision's own library, is written out here."""

    def nms(boxes, scores, iou_threshold):
        kept = []
        for index in scores.argsort(descending=True).tolist():
            others = boxes[kept] if kept else boxes[:0]
            if not len(others) or torchvision.ops.box_iou(boxes[index : index + 1], others).max() <= iou_threshold:
                kept.append(index)
        return torch.tensor(kept, dtype=torch.long)

    monkeypatch.setattr(torchvision.ops.boxes, "nms", nms)
    roi_align = sys.modules["torchvision.ops.roi_align"]  # which would compile what it falls back to
    monkeypatch.setattr(roi_align, "_roi_align", roi_align._roi_align.__wrapped__)

    def batched(boxes, scores, labels, iou_threshold):
        return nms(boxes + 1000.0 * labels[:, None], scores, iou_threshold)

    for name in ("_batched_nms_coordinate_trick", "_batched_nms_vanilla"):
        monkeypatch.setattr(torchvision.ops.boxes, name, batched)
    return torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=4,
        min_size=96,
        max_size=96,
        rpn_post_nms_top_n_test=30,
        box_score_thresh=0.0,
    ).eval()


@pytest.mark.filterwarnings("ignore:The maps of examples")
@pytest.mark.slow
def test_a_detector_of_torchvision(detector):
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        [found] = detector(list(x))
    assert len(found["boxes"]) > 3
    boxes = found["boxes"][[2, 0]] + 0.25  # nearly
    labels = found["labels"][[2, 0]]
    score = box_score(detector, boxes, labels)
    values = score(x)
    assert values.shape == (1, 2)
    torch.testing.assert_close(values[0], found["scores"][[2, 0]], rtol=1e-4, atol=1e-5)
    assert box_score(detector, torch.tensor([[-50.0, -50.0, -40.0, -40.0]]))(x).tolist() == [[0.0]]
    layer = detector.backbone.body["16"]
    maps = LayerRegionCam(score, layer).attribute_targets(x, [0, 1])

    def by_hand(x):
        return torch.stack([detector(list(x))[0]["scores"][[2, 0]]])

    torch.testing.assert_close(maps, LayerRegionCam(by_hand, layer).attribute_targets(x, [0, 1]))
    assert maps.amax() > 0.5
    detector.roi_heads.score_thresh = 2.0
    with pytest.warns(UserWarning, match=MISSED) as warned:
        assert not LayerRegionCam(score, layer).attribute(x, 1).any()
    assert re.match(MISSED + r"box 1 of example 0, \[.*\], label \d \(nothing is detected\)\. ", str(warned[0].message))


def test_boxes_are_matched_by_iou_and_label():
    def detect(images):
        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 2, 1]), "scores": torch.tensor([0.9, 0.8, 0.7])}] * 2

    x = torch.zeros(2, 3, 4, 4)
    wanted = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8.5], [50, 50, 60, 70], [100, 100, 101, 101]])
    torch.testing.assert_close(box_score(detect, wanted)(x), torch.tensor([[0.9, 0.8, 0.7, 0.0]]).expand(2, 4))
    labelled = box_score(detect, wanted[:2], torch.tensor([2, 3]))(x)
    torch.testing.assert_close(labelled, torch.tensor([[0.8, 0.0]]).expand(2, 2))
    assert box_score(detect, wanted[2:3], min_iou=0.6)(x).tolist() == [[0.0], [0.0]]
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}]
    assert box_score(lambda images: nothing, wanted)(x[:1]).tolist() == [[0.0] * 4]
    assert box_score(detect, wanted, torch.tensor([2, 1, 1, 1]), min_iou=0)(x[:1])[0, 3] == 0
    for same in (wanted.numpy(), wanted.tolist(), wanted.clone().requires_grad_()):
        torch.testing.assert_close(box_score(detect, same)(x), box_score(detect, wanted)(x))
    for labels in (np.array([2, 3]), [2, 3]):
        torch.testing.assert_close(box_score(detect, wanted[:2], labels)(x), labelled)


@pytest.mark.parametrize(
    ("boxes", "options", "message"),
    [
        ([1, 2, 3, 4], {}, r"boxes of shape \(4,\): expects \(B, 4\)"),
        (
            [[0, 0, 9, 9], [50, 60, 10, 70]],
            {},
            r"boxes\[1\]=\[50, 60, 10, 70\]: expects x0, y0, x1, y1 with x0 < x1 and",
        ),
        ([[5.0, 5.0, 9.0, 5.0]], {}, r"boxes\[0\]=\[5\.0, 5\.0, 9\.0, 5\.0\]: expects"),
        ([[0, 0, 9, 9]], {"labels": [1, 2]}, r"labels of shape \(2,\): expects one for each of the 1 boxes"),
        ([[0, 0, 9, 9]], {"labels": 1}, r"labels of shape \(\): expects one for each of the 1 boxes"),
        ([[0, 0, 9, 9]], {"min_iou": 50}, "min_iou=50: expects a number from 0 to 1"),
        ([[0, 0, 9, 9]], {"min_iou": "half"}, "min_iou='half': expects a number from 0 to 1"),
    ],
)
def test_boxes_that_are_none(boxes, options, message):
    with pytest.raises(ValueError, match=message):
        box_score(Detector(), boxes, **options)


MISSED = "box_score: no detection matches "
REMEDY = (
    " There is no score to attribute. Pass boxes (x0, y0, x1, y1) in pixels, and labels, that the detector finds in "
    "these photos, or a lower min_iou."
)


class Detector(torch.nn.Module):
    """Finds the same boxes in every photo, with scores that depend on the photo."""

    def __init__(self, keys=("boxes", "labels", "scores")):
        super().__init__()
        self.conv, self.relu, self.head, self.keys = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), keys
        self.boxes = torch.tensor([[0.0, 0, 8, 8], [8, 8, 16, 20]])

    def forward(self, images):
        sides = [max(image.shape[side] for image in images) for side in (1, 2)]
        x = torch.stack([F.pad(one, (0, sides[1] - one.shape[2], 0, sides[0] - one.shape[1])) for one in images])
        scores = self.head(self.relu(self.conv(x))).mean((2, 3))[:, : len(self.boxes)]
        labels = torch.tensor([1, 2])[: len(self.boxes)]
        return [{k: {"boxes": self.boxes, "labels": labels, "scores": own}[k] for k in self.keys} for own in scores]


@pytest.mark.filterwarnings("ignore:The maps of examples")
def test_boxes_that_no_detection_matches():
    detector, x = Detector(), torch.rand(1, 3, 9, 9)
    boxes, labels = [[0.0, 0, 8, 7], [100, 100, 110, 110], [8, 8, 16, 12], [8, 8, 16, 20]], [1, 1, 2, 1]
    first = detector(x)[0]["scores"][0].item()
    cam = LayerRegionCam(box_score(detector, boxes), detector.relu)
    expected = LayerRegionCam(lambda x: detector(x)[0]["scores"][None], detector.relu).attribute(x, 0)
    torch.testing.assert_close(cam.attribute(x, 0), expected)  # and no warning of the others
    with pytest.warns(UserWarning, match=MISSED) as warned:
        assert not cam.attribute(x, 1).any()
    box = "[100.0, 100.0, 110.0, 110.0]"
    near = f"(nearest: [0.0, 0.0, 8.0, 8.0], label 1, score {round(first, 2)}, IoU 0.00)"
    assert str(warned[0].message) == f"{MISSED}box 1 of example 0, {box} {near}.{REMEDY}"
    with pytest.warns(UserWarning, match=MISSED) as warned:
        maps = cam.attribute_targets(x, [0, 2])
    torch.testing.assert_close(maps[:, :1], expected)
    assert f"{MISSED}box 2 of example 0, [8.0, 8.0, 16.0, 12.0] (nearest: [8.0, " in str(warned[0].message)
    assert "label 2, score" in str(warned[0].message)
    assert "IoU 0.33)." in str(warned[0].message)
    with pytest.warns(UserWarning, match=MISSED) as warned:
        LayerRegionCam(box_score(detector, boxes, labels), detector.relu).attribute(x, 3)
    assert "box 3 of example 0, [8.0, 8.0, 16.0, 20.0], label 1 (nearest: [8.0, " in str(warned[0].message)
    assert "IoU 1.00)." in str(warned[0].message)
    with pytest.warns(UserWarning, match=MISSED) as warned:
        cam.attribute(x.expand(5, 3, 9, 9), 1)
    assert str(warned[0].message).count("box 1 of example") == 3
    assert f"IoU 0.00) and 2 more.{REMEDY}" in str(warned[0].message)
    assert box_score(detector, boxes)(x)[0, 1] == 0  # without a backward pass, without a word


@pytest.mark.filterwarnings("ignore:The maps of examples")
def test_nothing_is_detected():
    detector, x = Detector(), torch.rand(2, 3, 9, 9)
    detector.boxes = detector.boxes[:0]
    score = box_score(detector, [[0.0, 0, 8, 7]])
    with pytest.warns(UserWarning, match=r"box 0 of example 0, .* \(nothing is detected\), box 0 of example 1, "):
        assert not LayerRegionCam(score, detector.relu).attribute(x, 0).any()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    blind = box_score(lambda images: detector(images) and [nothing] * 2, [[0.0, 0, 8, 7]])
    assert blind(x).tolist() == [[0.0], [0.0]]
    with pytest.raises(LayerError, match=MISSED + r"box 0 of example 0, \[0\.0, 0\.0, 8\.0, 7\.0\] \(nothing is"):
        LayerRegionCam(blind, detector.relu).attribute(x, 0)
    assert not detector.relu._forward_hooks


@pytest.mark.parametrize(
    ("returned", "described"),
    [
        (None, "None"),
        (torch.zeros(2, 3), r"a torch\.float32 tensor of shape \(2, 3\)"),
        ({"loss": torch.tensor(1.0)}, "dict of 'loss'"),
        ([{"boxes": 1, "scores": 1}], r"list of \[dict of 'boxes', 'scores'\]"),
        (({}, []), r"tuple of \[dict of , list of \[\]\]"),
    ],
)
def test_a_detector_that_returns_something_else(returned, described):
    score = box_score(lambda images: returned, [[0, 0, 9, 9]], [1])
    with pytest.raises(
        TypeError, match=rf"the detector returned {described}; .* dict of 'boxes', 'labels', 'scores' for"
    ):
        score(torch.zeros(2, 3, 4, 4))
    detector = Detector(keys=("boxes", "scores"))
    assert box_score(detector, [[0, 0, 8, 9]])(torch.rand(2, 3, 4, 4)).shape == (2, 1)  # labels are needed for labels


def test_images_of_different_sizes():
    detector, images = Detector(), [torch.rand(3, 9, 9), torch.rand(3, 7, 12)]
    score = box_score(detector, [[0, 0, 8, 9], [8, 8, 16, 20]])
    expected = torch.stack([one["scores"] for one in detector(images)])
    for photos in (images, tuple(images)):
        torch.testing.assert_close(score(photos), expected)
    torch.testing.assert_close(score(*images), expected)
    torch.testing.assert_close(score(images[0]), torch.stack([detector(images[:1])[0]["scores"]]))
    alike = torch.rand(2, 3, 9, 9)
    cam = LayerRegionCam(score, detector.relu)
    for photos in (list(alike), tuple(alike)):
        torch.testing.assert_close(cam.attribute(photos, 1), cam.attribute(alike, 1))
    assert cam.attribute(images, 1).shape == (2, 1, 7, 10)


@pytest.fixture(scope="module")
def clip():
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**text, "num_hidden_layers": 4, "image_size": 64, "patch_size": 16}
    config = transformers.CLIPConfig(
        text_config={**text, "vocab_size": 99, "max_position_embeddings": 16, "eos_token_id": 98, "bos_token_id": 97},
        vision_config=vision,
        projection_dim=24,
    )
    torch.manual_seed(0)
    return transformers.CLIPModel(config).eval()


def test_clip(clip):
    texts = torch.tensor([[97, 5, 6, 98], [97, 7, 8, 98], [97, 9, 9, 98]])
    with torch.no_grad():
        embeddings = clip.get_text_features(input_ids=texts)
    embeddings = embeddings if isinstance(embeddings, torch.Tensor) else embeddings.pooler_output
    x = torch.randn(2, 3, 64, 64)
    score = similarity_score(clip.get_image_features, embeddings)
    with torch.no_grad():
        output = clip(input_ids=texts, pixel_values=x)
    torch.testing.assert_close(score(x), F.normalize(output.image_embeds, dim=-1) @ F.normalize(embeddings, dim=-1).T)
    stages = find_stages(clip.vision_model, x)
    assert len(stages) == 4
    maps = LayerRegionCam(score, stages).attribute_targets(x, [0, 2])
    assert maps.shape == (2, 2, 4, 4)
    assert maps.flatten(2).amax(2).min() > 0.5
    with pytest.raises(ValueError, match=r"embeddings of shape \(1, 5\): the encoder returned .* expects \(N, 5\)"):
        similarity_score(clip.get_image_features, torch.rand(5))(x)


@pytest.mark.parametrize(
    ("wrap", "pick"),
    [
        (lambda scores: (scores.mean(), scores), "model(x)[1]"),
        (lambda scores: {"loss": scores.mean(), "scores": scores}, 'model(x)["scores"]'),
        (lambda scores: SimpleNamespace(loss=scores.mean(), scores=scores), "model(x).scores"),
    ],
)
def test_a_loss_before_the_scores_is_passed_over(wrap, pick):
    model, x = small_net()
    network = returning(model, wrap)
    expected = LayerRegionCam(model, model.relu2).attribute(x, target=1)
    assert torch.equal(LayerRegionCam(class_scores(network), model.relu2).attribute(x, target=1), expected)
    with pytest.raises(TypeError) as error:
        LayerRegionCam(network, model.relu2).attribute(x, target=1)
    assert pick in str(error.value)


def test_one_score_per_example_comes_before_other_tensors():
    scores, features = torch.rand(2), torch.rand(2, 7)
    assert class_scores(lambda x: (torch.tensor(3.0), scores, features))(0) is scores
    model, x = small_net()
    loss_alone = class_scores(lambda x: (model(x).mean(),))
    with pytest.raises(TargetError, match="one number for the whole batch"):
        LayerRegionCam(loss_alone, model.relu2).attribute(x, target=1)


def test_of_unnamed_tensors_that_with_the_dimensions_of_the_score_is_taken():
    logits, tokens, pooled = torch.rand(2, 5, 4, 4), torch.rand(2, 9, 6), torch.rand(2, 6)
    score = segmentation_score(lambda x: (torch.tensor(0.5), pooled, logits), 3, torch.ones(4, 4))
    torch.testing.assert_close(score(0), logits[:, 3].sum((1, 2)))
    texts = torch.rand(3, 6)
    expected = F.normalize(pooled, dim=-1) @ F.normalize(texts, dim=-1).T
    torch.testing.assert_close(similarity_score(lambda x: (torch.tensor(0.5), tokens, pooled), texts)(0), expected)
    named = {"last_hidden_state": tokens[:, 0], "image_embeds": pooled}
    torch.testing.assert_close(similarity_score(lambda x: named, texts)(0), expected)


def test_a_transformer_called_with_labels():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        num_labels=4, attn_implementation="eager",
    )  # fmt: skip
    model, x = transformers.ViTForImageClassification(config).eval(), torch.randn(2, 3, 32, 32)
    labels = torch.tensor([1, 2])
    scores = class_scores(lambda x: model(x, labels=labels, return_dict=False))
    torch.testing.assert_close(scores(x), model(x).logits)


class Mixed(torch.nn.Module):
    """Some modules train and some do not; what it returns fits any score."""

    def __init__(self):
        super().__init__()
        self.conv, self.drop = torch.nn.Conv2d(3, 5, 1), torch.nn.Dropout()

    def forward(self, x):
        if isinstance(x, list):
            boxes, labels = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1])
            return [{"boxes": boxes, "labels": labels, "scores": self.conv(one).mean().view(1)} for one in x]
        return self.conv(x)


class Embeds(Mixed):
    """The same, as an encoder."""

    def forward(self, x):
        return self.conv(x).mean((2, 3))


WRAPPED = {
    "class_scores": (Mixed, class_scores),
    "segmentation_score": (Mixed, lambda model: segmentation_score(model, 2)),
    "segmentation_score of a mask": (Mixed, lambda model: segmentation_score(model, 2, torch.eye(8))),
    "box_score": (Mixed, lambda model: box_score(model, torch.tensor([[0.0, 0, 10, 9]]), torch.tensor([1]))),
    "similarity_score": (Embeds, lambda model: similarity_score(model, torch.ones(3, 5))),
}


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("name", WRAPPED)
def test_wrapping_changes_no_mode(name, is_training):
    make, wrap = WRAPPED[name]
    model = make().train(is_training)
    model.drop.train(not is_training)
    score = wrap(model)
    assert [module.training for module in model.modules()] == [is_training, is_training, not is_training]
    assert score.training is is_training
    score.train()
    assert all(module.training for module in (score, *model.modules()))
    score.eval()
    assert not any(module.training for module in (score, *model.modules()))


@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_wrapped_can_be_saved_and_copied(name, tmp_path):
    make, wrap = WRAPPED[name]
    score, x = wrap(make()), torch.randn(2, 3, 8, 8)
    expected = score(x)
    assert expected.shape[0] == 2
    assert expected.any()
    torch.save(score, tmp_path / "score.pt")
    loaded = torch.load(tmp_path / "score.pt", weights_only=False)
    for other in (pickle.loads(pickle.dumps(score)), copy.deepcopy(score), loaded):
        assert other.model is not score.model
        assert torch.equal(other(x), expected)


@pytest.mark.parametrize("class_index", [2.9, 2.0, True, "2", None])
def test_a_class_of_a_segmentation_is_an_integer(class_index):
    with pytest.raises(ValueError, match=rf"class_index={class_index!r}: a class is an integer"):
        segmentation_score(Mixed(), class_index)
    assert segmentation_score(Mixed(), np.int64(2))(torch.zeros(1, 3, 4, 4)).shape == (1,)
