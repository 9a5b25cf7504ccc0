"""The strategy that the arguments of ``write_label_maps`` name."""

import math
from collections.abc import Sequence
from typing import Literal

from captum_regioncam.arguments import real
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.label_maps import BACKGROUNDS, CRFS
from captum_regioncam.evaluation.label_maps.backgrounds import Background, Constant, Power
from captum_regioncam.evaluation.label_maps.clip_es_crf import ClipEsCrf
from captum_regioncam.evaluation.label_maps.crf_labelling import Confident, CrfLabelling
from captum_regioncam.evaluation.label_maps.dense_crf import import_crf
from captum_regioncam.evaluation.label_maps.irn_crf import IrnCrf
from captum_regioncam.evaluation.label_maps.psa_crf import PsaCrf
from captum_regioncam.evaluation.label_maps.strategy import Labelling, Strategy
from captum_regioncam.evaluation.label_maps.threshold import BestClass
from captum_regioncam.evaluation.label_maps.toco_crf import TocoCrf

__all__ = ["Confidence", "confident_around", "strategy_of"]

Confidence = tuple[float, float] | float | Literal["best"] | None
"""What ``confident`` may be; True counts as a number here."""
_CERTAIN = 0.95  # CLIP-ES's confidence
_ABOVE, _BELOW = 0.15, 0.1  # relative to the best threshold, as the authors of ReCAM choose IRN's thresholds


def strategy_of(
    threshold: float = 0.15,
    crf: str | None = None,
    confident: Confidence = None,
    alphas: Sequence[float] = (4.0, 24.0),
    background: str | None = None,
    power: float = 1.0,
) -> Strategy:
    """Return the strategy that the arguments describe; see :func:`write_label_maps`.

    Raises:
        ArgumentError: they do not go together.
        ImportError: pydensecrf2 is needed, and not installed.
    """
    if not 0 <= real(threshold) <= 1:
        raise ArgumentError(Argument("threshold", threshold), ": expects a number from 0 to 1.")
    alphas = list(map(real, alphas))
    if not alphas or not all(0 < alpha < math.inf for alpha in alphas):
        raise ArgumentError(Argument("alphas", alphas), ": expects at least one number, each above 0.")
    for name, value, known in (("crf", crf, CRFS), ("background", background, BACKGROUNDS)):
        if value is not None and value not in known:
            raise ArgumentError(Argument(name, value), f": expects one of {', '.join(known)}.")
    if crf == "psa" and background is not None:
        raise ArgumentError(
            Argument("background", background), ": cannot be used with ", Argument("crf", "psa"),
            ", whose background is that of ", Argument("alphas"), ".",
        )  # fmt: skip
    plane = _background(threshold, background or ("clip-es" if crf == "clip-es" else "constant"), power)
    if confident is not None and confident is not False:
        return _confident(crf, confident, plane)
    if crf is None:
        return BestClass(plane)
    import_crf()
    ways: dict[str, Strategy] = {
        "irn": IrnCrf(plane),
        "psa": PsaCrf(alphas),
        "clip-es": ClipEsCrf(plane),
        "toco": TocoCrf(plane),
    }
    return ways[crf]


def confident_around(threshold: float) -> tuple[float, float]:
    """Return the thresholds for confident labels around the best one: 0.1 below it, and 0.15 above it, in [0, 1].

    This is how the authors of ReCAM adapt IRN's ``conf_bg_thres`` and ``conf_fg_thres`` to other maps; around IRN's own
    threshold of 0.15, it gives IRN's own 0.05 and 0.3.
    """
    return max(0.0, round(threshold - _BELOW, 4)), min(1.0, round(threshold + _ABOVE, 4))


def _background(threshold: float, name: str, power: float) -> Background:
    if not 0 < real(power) < math.inf:
        raise ArgumentError(Argument("power", power), ": expects a number above 0.")
    if name == "clip-es":
        return Power(real(power))
    if real(power) != 1:
        raise ArgumentError(Argument("power", power), ": requires ", Argument("background", "clip-es"), ".")
    return Constant(real(threshold))


def _confident(crf: str | None, confident: Confidence, plane: Background) -> Labelling:
    """Return the strategy for confident labels."""
    ways: dict[str | None, CrfLabelling] = {"irn": IrnCrf(plane), "toco": TocoCrf(plane)}
    if crf == "clip-es":
        certain = _CERTAIN if confident is True else real(confident)
        if not 0 <= certain <= 1:
            raise ArgumentError(
                Argument("confident", confident), ": expects a number from 0 to 1 with ", Argument("crf", crf), "."
            )
        import_crf()
        return ClipEsCrf(plane, certain)
    if crf not in ways:
        raise ArgumentError(Argument("confident"), ": requires ", Argument("crf", "irn"), ", toco or clip-es.")
    if isinstance(plane, Power):
        raise ArgumentError(
            Argument("confident"), ": cannot be used with ", Argument("background", "clip-es"),
            ", which has no thresholds, except with ", Argument("crf", "clip-es"), ".",
        )  # fmt: skip
    pair = ways[crf].thresholds if confident is True else confident
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not 0 <= real(pair[0]) <= real(pair[1]) <= 1:
        raise ArgumentError(
            Argument("confident", confident),
            ": expects two numbers from 0 to 1, the first not greater than the second.",
        )
    import_crf()
    return Confident(ways[crf], real(pair[0]), real(pair[1]))
