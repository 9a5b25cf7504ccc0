"""The titles of the methods, without their code, so that the command line can list them quickly."""

__all__ = ["TITLES"]

TITLES = {"cam": "CAM", "grad-cam": "Grad-CAM", "layer-cam": "LayerCAM", "region-cam": "Region-CAM"}
