"""Region-CAM as a Captum attribution: maps of whole objects, with edges where the objects' edges are."""

from typing import TYPE_CHECKING

from captum_regioncam.lazy import lazily

if TYPE_CHECKING:
    from captum_regioncam.errors import LayerError, TargetError
    from captum_regioncam.files.photos import read_photo
    from captum_regioncam.layer_cam import LayerCam
    from captum_regioncam.network.reshape import channels_last, tokens_to_grid
    from captum_regioncam.pictures import cut_out, overlay, to_hwc
    from captum_regioncam.refinement import refine
    from captum_regioncam.region_cam import LayerRegionCam
    from captum_regioncam.regions import to_boxes, to_mask
    from captum_regioncam.scores import box_score, class_scores, segmentation_score, similarity_score
    from captum_regioncam.stages.finder import Stages, find_stages
    from captum_regioncam.visualization import show_attributions

__version__ = "0.3.0"

__all__ = [
    "LayerCam",
    "LayerError",
    "LayerRegionCam",
    "Stages",
    "TargetError",
    "__version__",
    "box_score",
    "channels_last",
    "class_scores",
    "cut_out",
    "find_stages",
    "overlay",
    "read_photo",
    "refine",
    "segmentation_score",
    "show_attributions",
    "similarity_score",
    "to_boxes",
    "to_hwc",
    "to_mask",
    "tokens_to_grid",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "LayerCam": "layer_cam",
        "LayerError": "errors",
        "LayerRegionCam": "region_cam",
        "Stages": "stages.finder",
        "TargetError": "errors",
        "box_score": "scores",
        "channels_last": "network.reshape",
        "class_scores": "scores",
        "cut_out": "pictures",
        "find_stages": "stages.finder",
        "overlay": "pictures",
        "read_photo": "files.photos",
        "refine": "refinement",
        "segmentation_score": "scores",
        "show_attributions": "visualization",
        "similarity_score": "scores",
        "to_boxes": "regions",
        "to_hwc": "pictures",
        "to_mask": "regions",
        "tokens_to_grid": "network.reshape",
    },
)
