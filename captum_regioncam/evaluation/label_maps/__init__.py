"""Label maps: a class at each pixel, made from a seed by a strategy, one strategy a module.

To add one, write a module like :mod:`~captum_regioncam.evaluation.label_maps.threshold`, with a frozen dataclass that
is a :class:`~captum_regioncam.evaluation.label_maps.strategy.Labelling` (one label for each pixel) or another
:class:`~captum_regioncam.evaluation.label_maps.strategy.Strategy`. Its fields are its parameters, and ``settings`` must
return all of them, so that no folder is continued with others. Then name it in ``CRFS`` and in ``strategy_of`` in
``writing.py``; ``label-maps --crf`` offers what is in ``CRFS``. :func:`~captum_regioncam.evaluation.write_label_maps`
does the rest: reading seeds and photos, sharing, resuming, and the record.
"""

__all__ = ["CRFS"]

CRFS = ("irn", "psa")
"""Whose way of dense CRF there is."""
