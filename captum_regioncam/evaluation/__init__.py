"""Weakly supervised segmentation and localisation: maps over scales, seed files, data sets and the field's metrics."""

try:
    from captum_regioncam.evaluation.crf import confident_labels, crf_labels, crf_scores
    from captum_regioncam.evaluation.datasets import Coco, Ilsvrc2012, PhotoDataset, PhotoFolder, Sample, Voc2012
    from captum_regioncam.evaluation.label_maps import label_map, save_label_map, save_overlay
    from captum_regioncam.evaluation.localization import LocalizationScore, PixelAveragePrecision, squash_boxes
    from captum_regioncam.evaluation.maps import multiscale_maps, normalize
    from captum_regioncam.evaluation.seed_files import Seed, load_seed, save_seed
    from captum_regioncam.evaluation.segmentation import SegmentationScore
except ImportError as error:
    raise ImportError(f'captum_regioncam.evaluation needs: pip install "captum_regioncam[eval]" ({error}).') from error
except RuntimeError as error:  # torchmetrics imports torchvision if it is installed
    if "torchvision::" not in str(error):
        raise
    raise ImportError(
        "captum_regioncam.evaluation needs torchmetrics, which imports torchvision. The one that is installed belongs "
        f"to another torch ({error}). Install the torchvision that matches this torch, or uninstall torchvision."
    ) from error

__all__ = [
    "Coco",
    "Ilsvrc2012",
    "LocalizationScore",
    "PhotoDataset",
    "PhotoFolder",
    "PixelAveragePrecision",
    "Sample",
    "Seed",
    "SegmentationScore",
    "Voc2012",
    "confident_labels",
    "crf_labels",
    "crf_scores",
    "label_map",
    "load_seed",
    "multiscale_maps",
    "normalize",
    "save_label_map",
    "save_overlay",
    "save_seed",
    "squash_boxes",
]
