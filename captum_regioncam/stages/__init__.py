"""Where in a network its stages are: the modules that end each resolution, or evenly spaced transformer blocks."""

from captum_regioncam.stages.finder import Stages, find_stages

__all__ = ["Stages", "find_stages"]
