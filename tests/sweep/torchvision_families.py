"""Torchvision: a small member of each module that registers networks."""

import sys
from collections import defaultdict
from functools import partial
from typing import Any

import torch
import torchvision
import torchvision_schemas  # noqa: F401
from families import Builder, Built, NotBuilt, noise
from torch import Tensor
from torchvision import models

RESIZE = {"min_size": 224, "max_size": 224}
FEW = {"num_classes": 4}  # as many of the boxes are compared, each with each
TWO_STEPS = {**FEW, **RESIZE, "box_score_thresh": 0.0, "rpn_post_nms_top_n_test": 30, "box_detections_per_img": 90}
ONE_STEP = {**FEW, "score_thresh": 0.0, "topk_candidates": 20, "detections_per_img": 300}
MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnext": ("convnext_tiny", {}),
    "detection-faster_rcnn": ("fasterrcnn_resnet50_fpn", TWO_STEPS),
    "detection-fcos": ("fcos_resnet50_fpn", {**ONE_STEP, **RESIZE}),
    "detection-keypoint_rcnn": ("keypointrcnn_resnet50_fpn", {**TWO_STEPS, "box_detections_per_img": 5}),
    "detection-mask_rcnn": ("maskrcnn_resnet50_fpn", {**TWO_STEPS, "box_detections_per_img": 5}),
    "detection-retinanet": ("retinanet_resnet50_fpn", {**ONE_STEP, **RESIZE}),
    "detection-ssd": ("ssd300_vgg16", ONE_STEP),
    "detection-ssdlite": ("ssdlite320_mobilenet_v3_large", ONE_STEP),
    "googlenet": ("googlenet", {"init_weights": False}),
    "inception": ("inception_v3", {"init_weights": False}),
    "mobilenetv3": ("mobilenet_v3_small", {}),
    "optical_flow-raft": ("raft_small", {}),
    "regnet": ("regnet_y_400mf", {}),
    "resnet": ("resnet18", {}),
    "segmentation-fcn": ("fcn_resnet50", {}),
    "swin_transformer": ("swin_t", {}),
    "vision_transformer": ("vit_b_16", {"image_size": 112}),
    "video-mvit": ("mvit_v2_s", {}),
    "video-resnet": ("r3d_18", {}),
    "video-swin_transformer": ("swin3d_t", {}),
}
"""Module -> (network, options), where the network that comes first by name is large, or needs options."""
SIZES = {"ssd300_vgg16": (300, 300), "ssdlite320_mobilenet_v3_large": (320, 320), "inception_v3": (299, 299),
         "mvit_v2_s": (16, 224, 224), "s3d": (16, 224, 224), "r3d_18": (8, 64, 64), "swin3d_t": (8, 112, 112),
         "raft_small": (128, 128), "vit_b_16": (112, 112)}  # fmt: skip
FIRST = {"video": (8, 112, 112)}


if not torchvision.extension._has_ops():  # built against CUDA, beside a CPU build of torch
    torchvision.ops.boxes._assert_has_ops = lambda: None
    roi_align = sys.modules["torchvision.ops.roi_align"]
    roi_align._roi_align = roi_align._roi_align.__wrapped__  # which needs no compiler

    def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        kept: list[int] = []
        overlaps = torchvision.ops.box_iou(boxes, boxes) > iou_threshold
        left = torch.ones(len(boxes), dtype=torch.bool)
        for index in scores.argsort(descending=True).tolist():
            if left[index]:
                kept.append(index)
                left &= ~overlaps[index]
        return torch.tensor(kept, dtype=torch.long)

    _library = torch.library.Library("torchvision", "IMPL")
    _library.impl("nms", _nms, "CPU")


def families() -> dict[str, Builder]:
    """Walk the registry: {family: builder}."""
    networks = defaultdict(list)
    for network in models.list_models():
        _, _, *path = models.get_model_builder(network).__module__.split(".")
        networks["-".join(path)].append(network)
    return {f"torchvision-{module}": partial(_build, module, found[0]) for module, found in sorted(networks.items())}


def _class_scores(detector: Any, x: Tensor) -> Tensor:
    """Return the mean scores of a single-shot detector's anchors, (N, classes), of all resolutions."""
    features = detector.backbone(x)
    scores: Tensor = detector.head(list(features.values()))["cls_logits"].mean(1)
    return scores


def _build(module: str, first: str) -> Built:
    network, options = MEMBERS.get(module, (first, {}))
    kind = module.split("-")[0] if "-" in module else "classification"
    if kind == "quantization":
        raise NotBuilt("quantised networks have no gradients")
    if kind in ("segmentation", "detection"):
        options = {"weights_backbone": None, **options}
    model = models.get_model(network, weights=None, **options).eval()
    x = noise(3, *SIZES.get(network, FIRST.get(kind, (224, 224))))
    if kind == "detection":  # of which a box's score depends on some resolutions only
        backbone = getattr(model.backbone, "body", model.backbone)
        if network.startswith("ssd"):  # whose best boxes are all of one resolution
            return Built(network, backbone, x, partial(_class_scores, model), dense=True)
        return Built(
            network, backbone, x, lambda x: torch.stack([one["scores"].sum() for one in model(x)])[:, None], dense=True
        )
    if kind == "segmentation":
        return Built(network, model, x, lambda x: model(x)["out"].mean((2, 3)), dense=True)
    if kind == "optical_flow":
        later = noise(3, 128, 128).flip(3)
        return Built(
            network, model, x, lambda x, y: model(x, y)[-1].mean((2, 3)), lambda x: (x, later.expand_as(x)), True
        )
    return Built(network, model, x, model)
