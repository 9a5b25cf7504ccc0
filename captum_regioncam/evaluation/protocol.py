"""The defaults for each data set: how photos enter the network, and how their maps become seeds and scores."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PROTOCOLS", "Protocol"]


@dataclass(frozen=True)
class Protocol:
    """What ``seeds`` and ``evaluate`` do with a photo.

    Attributes:
        scales: scales of the network's input; their maps are added.
        flip: add the maps of the mirrored photo.
        resize: see :class:`~captum_regioncam.evaluation.classifier.Classifier`.
        normalize: see :func:`~captum_regioncam.evaluation.normalize`.
        upsample: "photo" upsamples maps to the photo's size; "irn" to the next multiples of 16, and crops them; "boxes"
            to the 224 x 224 pixels on which :class:`~captum_regioncam.evaluation.LocalizationMetric` compares boxes.
        batch: how many neighbouring photos with equal input sizes the network gets at once.
    """

    scales: Sequence[float] = (1.0,)
    flip: bool = False
    resize: str = "squash"
    normalize: str = "minmax"
    upsample: str = "photo"
    batch: int = 4

    def __str__(self) -> str:
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        resize = {
            "squash": "the whole photo squashed to the network's size",
            "short": "the photo's short side at the network's size",
            "crop": "the centre crop",
            "keep": "photos at their own size",
        }
        normalize = {"max": "divided by its maximum", "minmax": "stretched from its minimum to its maximum"}
        upsample = {
            "photo": "to the photo's size",
            "irn": "to the next multiples of 16, then cropped to the photo",
            "boxes": "to 224 x 224, where boxes are compared",
        }
        return (
            f"{resize[self.resize]}; scale{'s' * (len(self.scales) > 1)} {scales}, with{'' if self.flip else 'out'} "
            f"flips; maps upsampled {upsample[self.upsample]}; each {normalize[self.normalize]}"
        )


_IRN = Protocol((1.0, 0.5, 1.5, 2.0), flip=True, resize="keep", normalize="max", upsample="irn", batch=1)
PROTOCOLS = {"voc": _IRN, "coco": _IRN, "ilsvrc": Protocol(upsample="boxes"), "folder": Protocol()}
"""IRN's (Ahn et al., CVPR 2019) for voc and coco; Choe et al.'s (CVPR 2020) for ilsvrc, and for folders of photos."""
