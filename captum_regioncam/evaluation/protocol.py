"""How photos enter a network, and how their maps become seeds and scores: the defaults of each data set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from captum_regioncam.arguments import real, whole
from captum_regioncam.errors import Argument, ArgumentError

__all__ = [
    "DEFAULT_MODEL",
    "INTERPOLATIONS",
    "NORMALIZATIONS",
    "PRECISIONS",
    "PROTOCOLS",
    "RESIZES",
    "UPSAMPLINGS",
    "Protocol",
]

DEFAULT_MODEL = "efficientnet-lite0"
RESIZES = {
    "squash": "the whole photo squashed to the network's size",
    "short": "the photo's short side at the network's size",
    "crop": "the centre crop",
    "keep": "photos at their own size",
}
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""The interpolations that can resize photos, by Pillow's names in lower case."""
PRECISIONS = ("float32", "bfloat16", "float16")
"""The precisions in which a network's passes can be computed."""
NORMALIZATIONS = {"max": "divided by its maximum", "minmax": "stretched from its minimum to its maximum"}
UPSAMPLINGS = {
    "photo": "to the photo's size",
    "irn": "to the next multiples of 16, then cropped to the photo",
    "boxes": "to 224 x 224, where boxes and masks are compared",
}


@dataclass(frozen=True)
class Protocol:
    """What :func:`write_seeds` and :func:`evaluate` do with a photo.

    Attributes:
        scales: scales of the network's input; their maps are added.
        flip: add the maps of the mirrored photo.
        resize: how photos enter the network: "squash", "short", "crop" or "keep". If the :class:`Classifier` has a
            ``resize`` of its own, that counts.
        normalize: "max" or "minmax"; see :func:`normalize`.
        upsample: "photo" upsamples maps to the photo's size; "irn" to the next multiples of 16, and crops them to the
            photo; "boxes" to the 224 x 224 pixels on which boxes, and masks for PxAP, are compared.
        batch: how many consecutive photos with equal input sizes the network gets at once.

    Raises:
        ArgumentError: a value is none of these.

    Example::

        >>> print(Protocol(scales=(1, 0.5), flip=True))
        the whole photo squashed to the network's size; scales 1, 0.5, with flips; maps upsampled to the photo's size;
        each stretched from its minimum to its maximum
    """

    scales: Sequence[float] = (1.0,)
    flip: bool = False
    resize: str = "squash"
    normalize: str = "minmax"
    upsample: str = "photo"
    batch: int = 4

    def __post_init__(self) -> None:
        known = {"resize": RESIZES, "normalize": NORMALIZATIONS, "upsample": UPSAMPLINGS}
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise ArgumentError(Argument(name, value), f": expects one of {', '.join(values)}.")
        scales = tuple(map(real, self.scales))
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ArgumentError(Argument("scales", list(self.scales)), ": expects at least one factor, each above 0.")
        if not whole(self.batch):
            raise ArgumentError(Argument("batch", self.batch), ": expects a whole number above 0.")
        object.__setattr__(self, "scales", scales)
        object.__setattr__(self, "batch", whole(self.batch))

    @classmethod
    def irn(cls) -> "Protocol":
        """Return IRN's protocol (Ahn et al., CVPR 2019), for seeds of PASCAL VOC and MS COCO.

        Example::

            >>> print(Protocol.irn())
            photos at their own size; scales 1, 0.5, 1.5, 2, with flips; maps upsampled to the next multiples of 16,
            then cropped to the photo; each divided by its maximum
        """
        return cls((1.0, 0.5, 1.5, 2.0), flip=True, resize="keep", normalize="max", upsample="irn", batch=1)

    @classmethod
    def wsol(cls) -> "Protocol":
        """Return the protocol of Choe et al. (CVPR 2020): boxes, or masks for PxAP, on squashed photos.

        Example::

            >>> print(Protocol.wsol())
            the whole photo squashed to the network's size; scale 1, without flips; maps upsampled to 224 x 224, where
            boxes and masks are compared; each stretched from its minimum to its maximum
        """
        return cls(upsample="boxes")

    @classmethod
    def of(cls, data: object) -> "Protocol":
        """Return a data set's default: that of its layout if :func:`open_dataset` opened it, otherwise one scale."""
        return PROTOCOLS.get(str((getattr(data, "source", None) or {}).get("dataset")), cls())

    def __str__(self) -> str:
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return (
            f"{RESIZES[self.resize]}; scale{'s' * (len(self.scales) > 1)} {scales}, with{'' if self.flip else 'out'} "
            f"flips; maps upsampled {UPSAMPLINGS[self.upsample]}; each {NORMALIZATIONS[self.normalize]}"
        )


PROTOCOLS = {
    **dict.fromkeys(("voc", "coco"), Protocol.irn()),
    **dict.fromkeys(("ilsvrc", "cub", "openimages"), Protocol.wsol()),
    "folder": Protocol(),
}
"""The default protocols, by the layout of the data set."""
