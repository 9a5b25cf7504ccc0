"""Data sets in the layouts they are distributed in: each gives a photo, its classes and its ground truth."""

from captum_regioncam.evaluation.datasets.base import PhotoDataset, Sample
from captum_regioncam.evaluation.datasets.coco import Coco
from captum_regioncam.evaluation.datasets.folder import PhotoFolder
from captum_regioncam.evaluation.datasets.ilsvrc import Ilsvrc2012
from captum_regioncam.evaluation.datasets.voc import VOC_CLASSES, Voc2012

__all__ = ["VOC_CLASSES", "Coco", "Ilsvrc2012", "PhotoDataset", "PhotoFolder", "Sample", "Voc2012"]
