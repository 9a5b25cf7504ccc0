"""The field's metrics of segmentation and localisation."""

__all__ = ["ABSENT", "UNLABELLED"]

ABSENT = ("ignore", "zero", "ignore-predicted")
"""What a mean over classes does with those that the photos lack: it leaves out what is in neither ground truth nor
prediction (IRN), counts it as 0 (SEAM, MCTformer), or leaves out what is not in the ground truth (CLIP-ES, ToCo)."""
UNLABELLED = ("background", "missed", "ignored")
"""What a predicted 255 counts as: for IRN's and ReCAM's readers, for SEAM's and MCTformer's, and for ToCo's."""
