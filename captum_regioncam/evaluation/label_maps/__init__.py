"""Label maps: a class at each pixel, made from a seed by a strategy, one strategy a module.

To add one, write a module like :mod:`~captum_regioncam.evaluation.label_maps.threshold`, with a frozen dataclass that
is a :class:`~captum_regioncam.evaluation.label_maps.strategy.Labelling` (one label for each pixel) or another
:class:`~captum_regioncam.evaluation.label_maps.strategy.Strategy`. Its fields are its parameters, and ``settings`` must
return all of them, so that no folder is continued with others. Then name it in ``CRFS`` and in ``strategy_of`` in
``choice.py``; ``label-maps --crf`` offers what is in ``CRFS``. A pipeline's dense CRF of its own is a
:class:`~captum_regioncam.evaluation.label_maps.crf_labelling.CrfLabelling`; ``toco_crf.py`` is the shortest.
:func:`~captum_regioncam.evaluation.write_label_maps` does the rest: reading seeds and photos, sharing, resuming, and
the record.
"""

__all__ = ["BACKGROUNDS", "CRFS"]

CRFS = ("irn", "psa", "clip-es", "toco")
"""The pipelines whose dense CRF can be used."""
BACKGROUNDS = ("constant", "clip-es")
"""The maps of the background, by name."""
