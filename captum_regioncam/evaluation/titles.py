"""What the methods are called; without their code, so that the command line can list them at once."""

__all__ = ["TITLES"]

TITLES = {"cam": "CAM", "grad-cam": "Grad-CAM", "layer-cam": "LayerCAM", "region-cam": "Region-CAM"}
