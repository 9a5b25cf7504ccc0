"""Weakly supervised segmentation and localisation: maps over scales, seeds, label maps, data sets and metrics.

Whatever is imported from here is loaded when it is used: data sets need no OpenCV, and seeds no torchmetrics.
"""

from typing import TYPE_CHECKING

from captum_regioncam.lazy import lazily

if TYPE_CHECKING:
    from captum_regioncam.evaluation.classifier import Classifier
    from captum_regioncam.evaluation.datasets import (
        Coco,
        Cub200,
        Ilsvrc2012,
        OpenImages30k,
        PhotoData,
        PhotoDataset,
        PhotoFolder,
        Sample,
        Voc2012,
        open_dataset,
    )
    from captum_regioncam.evaluation.explanations.writing import Explanations, write_explanations
    from captum_regioncam.evaluation.label_maps.irn_crf import confident_labels, crf_labels
    from captum_regioncam.evaluation.label_maps.pictures import save_label_map, save_overlay
    from captum_regioncam.evaluation.label_maps.psa_crf import crf_scores
    from captum_regioncam.evaluation.label_maps.threshold import label_map
    from captum_regioncam.evaluation.label_maps.writing import WrittenLabelMaps, write_label_maps
    from captum_regioncam.evaluation.metrics.label_maps import LabelMapMetric
    from captum_regioncam.evaluation.metrics.localization import LocalizationMetric, squash_boxes
    from captum_regioncam.evaluation.metrics.pixels import PixelMetric
    from captum_regioncam.evaluation.metrics.segmentation import SegmentationMetric
    from captum_regioncam.evaluation.multiscale import multiscale_maps, normalize
    from captum_regioncam.evaluation.protocol import Protocol
    from captum_regioncam.evaluation.runs.report import Report
    from captum_regioncam.evaluation.scoring.evaluating import evaluate, evaluate_label_maps, evaluate_seeds
    from captum_regioncam.evaluation.seeds.files import load_seed, save_seed
    from captum_regioncam.evaluation.seeds.seed import Seed
    from captum_regioncam.evaluation.seeds.writing import WrittenSeeds, write_seeds

    LocalizationScore, PixelAveragePrecision, SegmentationScore = LocalizationMetric, PixelMetric, SegmentationMetric

_HOMES = {
    "classifier": ["Classifier"],
    "datasets": [
        "Coco", "Cub200", "Ilsvrc2012", "OpenImages30k", "PhotoData", "PhotoDataset", "PhotoFolder", "Sample",
        "Voc2012", "open_dataset",
    ],
    "explanations.writing": ["Explanations", "write_explanations"],
    "label_maps.irn_crf": ["confident_labels", "crf_labels"],
    "label_maps.pictures": ["save_label_map", "save_overlay"],
    "label_maps.psa_crf": ["crf_scores"],
    "label_maps.threshold": ["label_map"],
    "label_maps.writing": ["WrittenLabelMaps", "write_label_maps"],
    "metrics.label_maps": ["LabelMapMetric"],
    "metrics.localization": ["LocalizationMetric", "squash_boxes"],
    "metrics.pixels": ["PixelMetric"],
    "metrics.segmentation": ["SegmentationMetric"],
    "multiscale": ["multiscale_maps", "normalize"],
    "protocol": ["Protocol"],
    "runs.report": ["Report"],
    "scoring.evaluating": ["evaluate", "evaluate_label_maps", "evaluate_seeds"],
    "seeds.files": ["load_seed", "save_seed"],
    "seeds.seed": ["Seed"],
    "seeds.writing": ["WrittenSeeds", "write_seeds"],
}  # fmt: skip

__all__ = [
    "Classifier",
    "Coco",
    "Cub200",
    "Explanations",
    "Ilsvrc2012",
    "LabelMapMetric",
    "LocalizationMetric",
    "OpenImages30k",
    "PhotoData",
    "PhotoDataset",
    "PhotoFolder",
    "PixelMetric",
    "Protocol",
    "Report",
    "Sample",
    "Seed",
    "SegmentationMetric",
    "Voc2012",
    "WrittenLabelMaps",
    "WrittenSeeds",
    "confident_labels",
    "crf_labels",
    "crf_scores",
    "evaluate",
    "evaluate_label_maps",
    "evaluate_seeds",
    "label_map",
    "load_seed",
    "multiscale_maps",
    "normalize",
    "open_dataset",
    "save_label_map",
    "save_overlay",
    "save_seed",
    "squash_boxes",
    "write_explanations",
    "write_label_maps",
    "write_seeds",
]

__getattr__, __dir__ = lazily(
    __name__,
    {name: home for home, names in _HOMES.items() for name in names},
    renamed={
        "LocalizationScore": "LocalizationMetric",
        "PixelAveragePrecision": "PixelMetric",
        "SegmentationScore": "SegmentationMetric",
    },
)
