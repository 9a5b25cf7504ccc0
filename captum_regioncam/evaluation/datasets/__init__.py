"""Data sets in the layouts they are distributed in, one module each: photos, their classes and their ground truth.

A data set of your own needs no layout: see :class:`~captum_regioncam.evaluation.PhotoData`. To add a layout, write a
module like :mod:`~captum_regioncam.evaluation.datasets.folder`, with a subclass of ``PhotoDataset`` that takes the
folder (``root``) and whichever of ``split``, ``labels_from`` and ``ground_truth`` it needs. It sets ``names``,
``classes`` and ``index_files`` (so that a run is not continued with another index), and its ``__getitem__`` returns a
``Sample``. If wsolevaluation has the data set, ``names`` are its image ids, with folders and extension, or else
``image_ids`` returns these: score maps are named after them. Add the class to ``LAYOUTS`` for ``open_dataset`` and the
command line, to ``PROTOCOLS`` in ``evaluation/protocol.py`` for its default protocol, and to the names that are
exported, here and in ``evaluation/__init__.py``.
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.lazy import lazily

if TYPE_CHECKING:
    from captum_regioncam.evaluation.datasets.base import PhotoData, PhotoDataset, Sample
    from captum_regioncam.evaluation.datasets.coco import Coco
    from captum_regioncam.evaluation.datasets.folder import PhotoFolder
    from captum_regioncam.evaluation.datasets.ilsvrc import Ilsvrc2012
    from captum_regioncam.evaluation.datasets.voc import VOC_CLASSES, Voc2012
    from captum_regioncam.evaluation.datasets.wsol import Cub200, OpenImages30k

__all__ = [
    "LAYOUTS",
    "VOC_CLASSES",
    "Coco",
    "Cub200",
    "Ilsvrc2012",
    "Layout",
    "OpenImages30k",
    "PhotoData",
    "PhotoDataset",
    "PhotoFolder",
    "Sample",
    "Voc2012",
    "open_dataset",
]


class Layout(NamedTuple):
    """A layout of folders and files, and the class that reads it.

    Attributes:
        module: the name of the class's module, which is imported when it is used.
        class_name: the class.
        description: what the folder contains, in one line.
        split: the class's default split; None if the layout has no splits.
        labels_from: the class's default of ``labels_from``; None if the classes of a photo have only one source.
        optional_truth: whether the class takes ``ground_truth``.
        truth: the ground truth for scores: "masks", "boxes" or "pixels"; see :class:`PhotoData`.
        optional_split: whether the class takes a split, but needs none.
        options: which of "masks" and "crowds" the class takes, too.
    """

    module: str
    class_name: str
    description: str
    split: str | None = None
    labels_from: str | None = None
    optional_truth: bool = True
    truth: str = "masks"
    optional_split: bool = False
    options: tuple[str, ...] = ()


LAYOUTS: Mapping[str, Layout] = {
    "voc": Layout(
        f"{__name__}.voc",
        "Voc2012",
        "PASCAL VOC 2012: JPEGImages/, Annotations/, SegmentationClass/, ImageSets/Segmentation/",
        split="train",
        labels_from="xml",
    ),
    "coco": Layout(
        f"{__name__}.coco",
        "Coco",
        "MS COCO: SPLIT/ and annotations/instances_SPLIT.json",
        split="val2014",
        options=("masks", "crowds"),
    ),
    "ilsvrc": Layout(
        f"{__name__}.ilsvrc",
        "Ilsvrc2012",
        "ILSVRC2012's validation photos with boxes",
        optional_truth=False,
        truth="boxes",
        optional_split=True,
    ),
    "cub": Layout(
        f"{__name__}.wsol",
        "Cub200",
        "CUB-200-2011 as in wsolevaluation: metadata/CUB/SPLIT/ and dataset/CUB/",
        split="test",
        truth="boxes",
    ),
    "openimages": Layout(
        f"{__name__}.wsol",
        "OpenImages30k",
        "OpenImages30k as in wsolevaluation: metadata/OpenImages/SPLIT/ and dataset/OpenImages/",
        split="test",
        truth="pixels",
    ),
    "folder": Layout(
        f"{__name__}.folder",
        "PhotoFolder",
        "images/, masks/ and index.json: photos of one object each, which seeds and scores count as foreground",
    ),
}
"""The layouts by name."""


def open_dataset(
    name: str,
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    labels_from: str | None = None,
    ground_truth: bool = True,
    masks: str | os.PathLike[str] | None = None,
    crowds: str | None = None,
) -> "PhotoDataset":
    """Open a data set by the name of its layout.

    Args:
        name: "voc" (:class:`Voc2012`), "coco" (:class:`Coco`), "ilsvrc" (:class:`Ilsvrc2012`), "cub"
            (:class:`Cub200`), "openimages" (:class:`OpenImages30k`) or "folder" (:class:`PhotoFolder`).
        root: the data set's folder.
        split: the split of "voc" (default: train), "coco" (default: val2014), "cub" and "openimages" (default: test).
            "ilsvrc" has splits only in wsolevaluation's layout, and "folder" has none.
        labels_from: for "voc", where a photo's classes come from: "xml" (default) or "mask".
        ground_truth: read the masks or boxes. "ilsvrc" always reads its boxes, which name the classes.
        masks: for "coco", a folder of finished masks; see :class:`Coco`. Default: they are drawn.
        crowds: for "coco", whether crowd regions are drawn ("include", default) or do not count ("ignore").

    Returns:
        The data set. Its ``source`` holds the ``dataset`` (the layout's name), the ``root`` (the absolute path), the
        ``split`` and the ``labels`` (``labels_from``); the last two are None if the layout has none. It also holds
        ``masks`` (the absolute path) and ``crowds`` where they are not the default.

    Raises:
        ArgumentError: there is no such layout, it does not take an argument that was given, or ``root`` is not in it.

    Example::

        >>> dataset = open_dataset("voc", "VOCdevkit/VOC2012", split="val")
        >>> dataset.names, dataset.source["labels"]
        (['2007_000001'], 'xml')
    """
    if name not in LAYOUTS:
        raise ArgumentError(Argument("name", name), f": expects one of {', '.join(LAYOUTS)}.")
    layout = LAYOUTS[name]
    if split is not None and layout.split is None and not layout.optional_split:
        raise ArgumentError(Argument("split", split), f": the layout {name} has no splits.")
    if labels_from is not None and layout.labels_from is None:
        raise ArgumentError(Argument("labels_from", labels_from), f": the layout {name} has only one source of labels.")
    for option, value in (("masks", masks), ("crowds", crowds)):
        if value is not None and option not in layout.options:
            takers = [other for other, its in LAYOUTS.items() if option in its.options]
            raise ArgumentError(Argument(option, value), f": applies only to the layout {', '.join(takers)}.")
    split, labels_from = split or layout.split, labels_from or layout.labels_from
    given: dict[str, Any] = {"split": split, "labels_from": labels_from, "masks": masks, "crowds": crowds}
    arguments = {argument: value for argument, value in given.items() if value is not None}
    if layout.optional_truth:
        arguments["ground_truth"] = ground_truth
    from captum_regioncam.evaluation.datasets.reading import MissingSplitError  # loads NumPy

    make = getattr(importlib.import_module(layout.module), layout.class_name)
    try:
        dataset: PhotoDataset = make(root, **arguments)
    except ArgumentError:
        raise
    except MissingSplitError as error:
        raise ArgumentError(Argument("split"), f": {error}") from error
    except ValueError as error:
        raise ArgumentError(Argument("root"), f": {error}") from error
    dataset.source = {
        "dataset": name, "root": str(Path(root).resolve()), "split": split, "labels": labels_from,
        **({} if masks is None else {"masks": str(Path(masks).resolve())}),
        **({} if crowds in (None, "include") else {"crowds": crowds}),
    }  # fmt: skip
    return dataset


__getattr__, __dir__ = lazily(
    __name__,
    {
        "Coco": "coco",
        "Ilsvrc2012": "ilsvrc",
        **dict.fromkeys(["PhotoData", "PhotoDataset", "Sample"], "base"),
        "PhotoFolder": "folder",
        **dict.fromkeys(["VOC_CLASSES", "Voc2012"], "voc"),
        **dict.fromkeys(["Cub200", "OpenImages30k"], "wsol"),
    },
)
