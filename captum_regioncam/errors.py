"""What this package raises for input that it cannot attribute.

Captum reports the same mistakes as ``AssertionError`` or ``IndexError``, depending on their form. Code written for
LayerGradCam may catch either, so these are both, and a ``ValueError`` for everybody else.
"""

__all__ = ["LayerError", "TargetError"]


class LayerError(ValueError, AssertionError):
    """A layer that cannot be attributed: never reached, not spatial, not finite, without influence on the score.

    Example::

        >>> try:
        ...     LayerRegionCam(model, model.fc).attribute(x, target=0)
        ... except LayerError as error:
        ...     print(str(error)[:73])
        layer 'fc' (Linear) gives a tensor of shape (2, 1000), which is not on a
    """


class TargetError(ValueError, IndexError, AssertionError):
    """A target that does not select one score per example from what the forward function returned.

    Example::

        >>> try:
        ...     cam.attribute(x, target=1000)
        ... except TargetError as error:
        ...     print(error)
        target=1000 is out of range: forward_func returns the scores of 1000 classes, 0 to 999.
    """
