"""Region-CAM as a Captum attribution: maps of whole objects, with edges where the objects' edges are."""

from captum_regioncam.grids import channels_last, tokens_to_grid

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "channels_last",
    "tokens_to_grid",
]
