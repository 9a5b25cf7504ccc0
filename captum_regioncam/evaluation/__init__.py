"""Weakly supervised segmentation and localisation: maps over scales, seed files, data sets and the field's metrics."""

from typing import TYPE_CHECKING

from captum_regioncam.lazy import lazily

if TYPE_CHECKING:
    from captum_regioncam.evaluation.datasets import (
        Coco,
        Ilsvrc2012,
        PhotoData,
        PhotoDataset,
        PhotoFolder,
        Sample,
        Voc2012,
        open_dataset,
    )
    from captum_regioncam.evaluation.label_maps.crf import confident_labels, crf_labels, crf_scores
    from captum_regioncam.evaluation.label_maps.threshold import label_map, save_label_map, save_overlay
    from captum_regioncam.evaluation.metrics.localization import LocalizationMetric, squash_boxes
    from captum_regioncam.evaluation.metrics.pixels import PixelMetric
    from captum_regioncam.evaluation.metrics.segmentation import SegmentationMetric
    from captum_regioncam.evaluation.multiscale import multiscale_maps, normalize
    from captum_regioncam.evaluation.seeds.files import load_seed, save_seed
    from captum_regioncam.evaluation.seeds.seed import Seed

    LocalizationScore, PixelAveragePrecision, SegmentationScore = LocalizationMetric, PixelMetric, SegmentationMetric

__all__ = [
    "Coco",
    "Ilsvrc2012",
    "LocalizationMetric",
    "PhotoData",
    "PhotoDataset",
    "PhotoFolder",
    "PixelMetric",
    "Sample",
    "Seed",
    "SegmentationMetric",
    "Voc2012",
    "confident_labels",
    "crf_labels",
    "crf_scores",
    "label_map",
    "load_seed",
    "multiscale_maps",
    "normalize",
    "open_dataset",
    "save_label_map",
    "save_overlay",
    "save_seed",
    "squash_boxes",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        **dict.fromkeys(["Coco", "Ilsvrc2012", "PhotoData", "PhotoDataset", "PhotoFolder", "Sample"], "datasets"),
        **dict.fromkeys(["Voc2012", "open_dataset"], "datasets"),
        **dict.fromkeys(["confident_labels", "crf_labels", "crf_scores"], "label_maps.crf"),
        **dict.fromkeys(["label_map", "save_label_map", "save_overlay"], "label_maps.threshold"),
        **dict.fromkeys(["LocalizationMetric", "squash_boxes"], "metrics.localization"),
        "PixelMetric": "metrics.pixels",
        "SegmentationMetric": "metrics.segmentation",
        **dict.fromkeys(["multiscale_maps", "normalize"], "multiscale"),
        **dict.fromkeys(["load_seed", "save_seed"], "seeds.files"),
        "Seed": "seeds.seed",
    },
    renamed={
        "LocalizationScore": "LocalizationMetric",
        "PixelAveragePrecision": "PixelMetric",
        "SegmentationScore": "SegmentationMetric",
    },
)
