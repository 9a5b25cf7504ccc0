"""Region-CAM as a Captum attribution: maps of whole objects, with edges where the objects' edges are."""

from captum_regioncam.errors import LayerError, TargetError
from captum_regioncam.layer_cam import LayerCam
from captum_regioncam.region_cam import LayerRegionCam
from captum_regioncam.reshape import channels_last, tokens_to_grid
from captum_regioncam.stages import Stages, find_stages
from captum_regioncam.visualization import show_attributions

__version__ = "0.2.0"

__all__ = [
    "LayerCam",
    "LayerError",
    "LayerRegionCam",
    "Stages",
    "TargetError",
    "__version__",
    "channels_last",
    "find_stages",
    "show_attributions",
    "tokens_to_grid",
]
