"""What this package raises for input that it cannot attribute.

Captum reports the same mistakes as ``AssertionError`` or ``IndexError``, depending on their form. Code written for
LayerGradCam may catch either, so these are both, and a ``ValueError`` for everybody else.
"""

__all__ = ["LayerError", "TargetError"]


class LayerError(ValueError, AssertionError):
    """A layer that cannot be attributed: never reached, not spatial, not finite, without influence on the score."""


class TargetError(ValueError, IndexError, AssertionError):
    """A target that does not select one score per example from what the forward function returned."""
