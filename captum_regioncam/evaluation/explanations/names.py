"""The names of the files that explain photos."""

import os
from pathlib import Path, PurePosixPath

from captum_regioncam.files.outputs import fits

__all__ = ["MANIFEST", "mask_name", "npy_name", "overlay_name", "picture_names"]

MANIFEST = "manifest.json"


def picture_names(images: list[str], folder: Path) -> dict[str, str]:
    """Name each image's picture after the image, as a path below the output folder.

    If the images' folders differ, the pictures' folders do too. A picture never takes the place of a photo or of
    another picture.
    """
    parents = {image: Path(os.path.abspath(image)).parent for image in images}
    common = Path(os.path.commonpath([*parents.values()])) if parents else Path()
    taken = set(map(os.path.realpath, images))
    outputs = {}
    for image, parent in parents.items():
        here, path = parent.relative_to(common), Path(image)
        stems = (path.stem, path.name.replace(".", "_"), *(f"{path.stem}_{i}" for i in range(2, len(images) + 3)))
        names = (here / fits(stem, "_cam.png") for stem in stems)
        outputs[image] = next(name.as_posix() for name in names if os.path.realpath(folder / name) not in taken)
        taken.add(os.path.realpath(folder / outputs[image]))
    return outputs


def npy_name(picture: str) -> str:
    """Return the name of a picture's maps."""
    return picture.removesuffix(".png") + ".npy"


def overlay_name(picture: str, method: str, index: int) -> str:
    """Return the name of the overlay of a picture's method and class."""
    return _beside(picture, f"_{method}_{index}.png")


def mask_name(picture: str, method: str, index: int) -> str:
    """Return the name of the mask of a picture's method and class."""
    return _beside(picture, f"_{method}_{index}_mask.png")


def _beside(picture: str, ending: str) -> str:
    path = PurePosixPath(picture)
    return path.with_name(fits(path.name.removesuffix("_cam.png"), ending)).as_posix()
