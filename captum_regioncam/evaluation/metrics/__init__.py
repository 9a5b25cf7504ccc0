"""The field's metrics of segmentation and localisation."""

__all__ = ["ABSENT", "UNLABELLED"]

ABSENT = ("ignore", "zero", "ignore-predicted")
"""How a mean treats classes that are absent from the ground truth: it leaves them out unless they are predicted (IRN),
counts them as 0 (SEAM, MCTformer), or always leaves them out (CLIP-ES, ToCo)."""
UNLABELLED = ("background", "missed", "ignored")
"""What a predicted 255 counts as: in IRN and ReCAM, in SEAM and MCTformer, and in ToCo."""
