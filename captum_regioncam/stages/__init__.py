"""Where in a network its stages are, and how their tensors lie on the input's grid: both are measured on a probe."""

from captum_regioncam.stages.finder import Stages, find_stages

__all__ = ["Stages", "find_stages"]
