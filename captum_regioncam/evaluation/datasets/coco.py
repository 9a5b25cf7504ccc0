"""MS COCO 2014 and 2017."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np

from captum_regioncam.evaluation.datasets.base import PhotoDataset, Sample, checked_names, data_root, photo_of_size

__all__ = ["Coco"]


class Coco(PhotoDataset):
    """MS COCO 2014 or 2017: SPLIT/ and annotations/instances_SPLIT.json, read by pycocotools.

    The semantic mask is drawn from all instances, including crowds. Larger instances are drawn first, so that objects
    on top of others stay visible.

    Args:
        root: the folder that contains both.
        split: such as train2014 or val2017.
        ground_truth: draw the masks.

    Raises:
        ValueError: as in :class:`PhotoDataset`.

    Example::

        >>> dataset = Coco("coco", split="val2014")
        >>> [dataset.classes[key] for key in dataset[2].keys]
        ['red', 'green']
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "val2014", ground_truth: bool = True) -> None:
        from pycocotools.coco import COCO

        annotations = f"annotations/instances_{split}.json"
        self.root = data_root(root, ["", "coco"], [split, annotations], "COCO")
        self.split, self.ground_truth = split, ground_truth
        self.index_files = [self.root / annotations]
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                self.coco = COCO(str(self.root / annotations))
            except (ValueError, KeyError, AssertionError) as error:
                raise ValueError(f"{self.root / annotations}: cannot be read ({error!r}).") from error
        categories = self.coco.loadCats(sorted(self.coco.getCatIds()))
        self.classes = [category["name"] for category in categories]
        self._keys = {category["id"]: key for key, category in enumerate(categories)}
        self._images = self.coco.loadImgs(sorted(self.coco.getImgIds()))
        files = [Path(image["file_name"]) for image in self._images]
        self.names = checked_names([file.with_suffix("").as_posix() for file in files], self.root / annotations)

    def __getitem__(self, index: int) -> Sample:
        image = self._images[index]
        size = (image["width"], image["height"])
        photo = photo_of_size(self.root / self.split / image["file_name"], size)
        instances = self.coco.loadAnns(self.coco.getAnnIds(imgIds=image["id"]))
        keys = sorted({self._keys[instance["category_id"]] for instance in instances})
        labels = None
        if self.ground_truth:
            labels = np.zeros((image["height"], image["width"]), dtype=np.uint8)
            for instance in sorted(instances, key=lambda instance: -instance["area"]):
                labels[self.coco.annToMask(instance) > 0] = self._keys[instance["category_id"]] + 1
        return Sample(self.names[index], photo, keys, keys, labels)
