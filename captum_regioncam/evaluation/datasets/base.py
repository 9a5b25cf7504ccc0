"""What the data sets have in common: names, classes and samples."""

import hashlib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset

from captum_regioncam.files.stamps import sha256

__all__ = [
    "PhotoData",
    "PhotoDataset",
    "Sample",
    "fingerprint_of",
    "image_ids_of",
    "index_of",
    "source_of",
]


@dataclass(frozen=True)
class Sample:
    """One photo.

    Attributes:
        name: the photo's name, unique in the data set; seeds are named after it.
        photo: the photo, an RGB image.
        keys: its K classes, counted from 0 without the background.
        targets: for each key, the index of the network's output.
        labels: (height, width): 0 for the background, key + 1 for a class, and 255 for pixels that do not count; None
            if unknown.
        boxes: (B, 4) x0, y0, x1, y1 in the photo's pixels, not rounded; None if unknown.

    Example::

        >>> Sample("2007_000032", photo=Image.new("RGB", (500, 375)), keys=[0, 14], targets=[0, 14]).labels is None
        True
    """

    name: str
    photo: Image.Image
    keys: list[int]
    targets: list[int]
    labels: npt.NDArray[np.uint8] | None = None
    boxes: npt.NDArray[np.float64] | None = None


class PhotoData(typing.Protocol):
    """What a data set of your own must have: ``names``, ``classes``, and samples by number. Its class does not matter.

    It may also have ``index_files``, the paths of the files that list its photos and classes, and ``source``, a mapping
    with the keys that :func:`open_dataset` gives it and JSON values. They are for the record of a run, so that no run
    is resumed with other data. ``truth`` says what :func:`evaluate` scores against: "masks" (default), "boxes", or
    "pixels", which are masks whose ``labels`` are squashed to (224, 224), for PxAP. ``outputs`` says how many classes
    the network must have, if its outputs are the classes of the data set. ``image_ids`` says what wsolevaluation calls
    the photos, if it does not use their names. Processes that read photos ahead need a data set that can be pickled.

    Attributes:
        names: the names of the photos, in the order of the samples.
        classes: the names of the classes, in the order of the keys.

    Example::

        >>> class Cats:
        ...     names, classes = ["tabby", "tiger"], ["cat"]
        ...     def __getitem__(self, index):
        ...         return Sample(self.names[index], Image.new("RGB", (500, 375)), keys=[0], targets=[281 + index])
        >>> data: PhotoData = Cats()
        >>> data[1].targets
        [282]
    """

    @property
    def names(self) -> Sequence[str]:
        """The names of the photos, in the order of the samples."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, in the order of the keys."""

    def __getitem__(self, index: int, /) -> Sample:
        """Read a photo by its number."""


class PhotoDataset(Dataset[Sample]):
    """What the data sets have in common.

    The benchmarks' ground truth belongs to the stored pixels, as their reference code reads them. If only the photo
    turned by its EXIF orientation has the size of the ground truth, the turned photo is used. A :class:`PhotoFolder`
    always turns its photos by their EXIF orientation.

    Attributes:
        names: the names of the photos, in the order of the samples.
        classes: the names of the classes, in the order of the keys.
        source: where the data set comes from; empty unless :func:`open_dataset` opened it.
        truth: the ground truth for scores: "masks", "boxes" or "pixels"; see :class:`PhotoData`.

    Raises:
        ValueError: on construction, if the layout is incomplete (the message says what is missing, and where); on
            access, if a file of the photo is missing, truncated or does not fit.

    Example::

        >>> dataset = Voc2012("VOCdevkit/VOC2012", split="train")
        >>> len(dataset) == len(dataset.names)
        True
        >>> for sample in dataset:
        ...     print(sample.name, sample.photo.size, sample.keys)
        ...     break
        2007_000001 (60, 44) [0, 1]
    """

    names: Sequence[str]
    classes: Sequence[str]
    index_files: Sequence[Path] = ()
    """The files that list the photos, their classes or targets."""
    source: Mapping[str, object] = {}
    truth: str = "masks"

    @property
    def outputs(self) -> int | None:
        """How many classes the network must have; None if each sample names its own output."""
        return len(self.classes)

    @property
    def has_truth(self) -> bool:
        """Whether there seem to be masks or boxes to score against, also if they are not read."""
        return True

    @property
    def image_ids(self) -> Sequence[str]:
        """What wsolevaluation calls the photos: paths with their extension, after which score maps are named."""
        return self.names

    def __len__(self) -> int:
        return len(self.names)

    def fingerprint(self) -> str:
        """Return a hash of the names, the classes and the files that list them: it changes when the index does."""
        return index_of(self)


def fingerprint_of(names: Sequence[str], classes: Sequence[str], index_files: Iterable[Path] = ()) -> str:
    """Return a hash of a data set's names, its classes and the contents of the files that list them.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256(repr((list(names), list(classes))).encode("utf-8", "surrogateescape"))
    for path in index_files:
        digest.update(sha256(path).encode())
    return digest.hexdigest()[:16]


def index_of(data: PhotoData) -> str:
    """Return a hash of a data set's names, classes and, if it has any, index files."""
    return fingerprint_of(data.names, data.classes, getattr(data, "index_files", ()))


def image_ids_of(data: PhotoData) -> Sequence[str]:
    """Return what wsolevaluation calls the photos of a data set: their names, unless it says otherwise."""
    ids: Sequence[str] = getattr(data, "image_ids", data.names)
    return ids


def source_of(data: PhotoData) -> dict[str, object]:
    """Return where a data set comes from, under the names of :func:`open_dataset`; None for what it does not say.

    It has ``masks`` and ``crowds`` only if the data set says them, so that older records stay the same. The ``dataset``
    of one without a source is its class, as ``package.module:Class``.
    """
    source = getattr(data, "source", None) or {"dataset": f"{type(data).__module__}:{type(data).__qualname__}"}
    truth = {name: source[name] for name in ("masks", "crowds") if source.get(name) is not None}
    return {name: source.get(name) for name in ("dataset", "root", "split", "labels")} | truth
