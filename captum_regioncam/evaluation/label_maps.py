"""Seed files in the format of IRN (Ahn et al., CVPR 2019), and label maps as VOC keeps them."""

import io
import os
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captum_regioncam.files import written_whole

__all__ = ["Seed", "label_map", "load_seed", "save_label_map", "save_seed", "seed_grid"]


@dataclass(frozen=True)
class Seed:
    """The maps of one photo's classes.

    Attributes:
        keys: (K,) classes, counted without the background.
        cam: (K, ceil(height / 4), ceil(width / 4)) float32 in [0, 1].
        high_res: (K, height, width) float32 in [0, 1].

    Example::

        >>> maps = torch.rand(2, 375, 500)
        >>> seed = Seed(torch.tensor([7, 14]), torch.rand(2, 94, 125), maps.numpy())  # cat and person of VOC
        >>> seed.high_res.shape
        (2, 375, 500)
    """

    keys: Tensor
    cam: Tensor
    high_res: npt.NDArray[np.float32]


def seed_grid(height: int, width: int) -> tuple[int, int]:
    """Return the grid of ``Seed.cam``: a quarter of the photo's, rounded up."""
    return -(-height // 4), -(-width // 4)


def save_seed(path: str | os.PathLike[str], seed: Seed) -> None:
    """Write a seed as ``numpy.save`` of a dict: ``keys`` and ``cam`` as tensors, ``high_res`` as an array, like IRN.

    The file is whole or not there.

    Raises:
        ValueError: the shapes do not go together.

    Example::

        >>> seed = Seed(torch.tensor([7]), torch.rand(1, 2, 3), np.random.rand(1, 8, 12))
        >>> save_seed("2007_000032.npy", seed)
        >>> sorted(np.load("2007_000032.npy", allow_pickle=True).item())  # as IRN's scripts read it
        ['cam', 'high_res', 'keys']
    """
    count, height, width = seed.high_res.shape
    if seed.keys.shape != (count,) or tuple(seed.cam.shape) != (count, *seed_grid(height, width)):
        raise ValueError(
            f"seed: keys {tuple(seed.keys.shape)}, cam {tuple(seed.cam.shape)} and high_res {seed.high_res.shape} do "
            f"not go together: expects (K,), (K, ceil(H / 4), ceil(W / 4)) and (K, H, W)."
        )
    content = {
        "keys": seed.keys.cpu().long(),
        "cam": seed.cam.cpu().float().contiguous(),
        "high_res": np.ascontiguousarray(seed.high_res, dtype=np.float32),
    }
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.save(file, content)  # type: ignore[arg-type]


def load_seed(path: str | os.PathLike[str]) -> Seed:
    """Read a seed of ours or of IRN's, and run nothing that a pickle could hold besides tensors and arrays.

    Raises:
        ValueError: the file is missing, truncated, or no seed.

    Example::

        >>> save_seed("2007_000032.npy", Seed(torch.tensor([7]), torch.rand(1, 2, 3), np.random.rand(1, 8, 12)))
        >>> load_seed("2007_000032.npy").keys
        tensor([7])
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = header[version](file)
            if shape != () or dtype != np.dtype(object):
                raise ValueError(f"holds an array of {dtype}, not a dict")
            content = _Unpickler(file).load().item()
        keys, cam, high_res = (content[name] for name in ("keys", "cam", "high_res"))
        seed = Seed(torch.as_tensor(keys).long(), torch.as_tensor(cam).float(), np.asarray(high_res, dtype=np.float32))
        if len(seed.keys) != len(seed.high_res) or seed.high_res.ndim != 3:
            raise ValueError(f"has {len(seed.keys)} keys for maps of shape {seed.high_res.shape}")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not a whole seed file ({reason}).") from error
    return seed


class _Unpickler(pickle.Unpickler):
    """Load what tensors and arrays are made of, and nothing else."""

    _ALLOWED = frozenset(
        {
            ("builtins", "dict"),
            ("collections", "OrderedDict"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.numeric", "_frombuffer"),
            ("torch._utils", "_rebuild_tensor_v2"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage_from_bytes
        if (module, name) not in self._ALLOWED:
            raise ValueError(f"wants {module}.{name}, which no seed needs")
        return super().find_class(module, name)


def _storage_from_bytes(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def label_map(
    high_res: npt.NDArray[np.floating[Any]], keys: npt.ArrayLike, threshold: float = 0.15
) -> npt.NDArray[np.uint8]:
    """Give each pixel its best class, or the background where no map is above a threshold.

    Args:
        high_res: (K, height, width) in [0, 1].
        keys: (K,) classes, counted without the background.
        threshold: the background's constant map, which wins ties; IRN's is 0.15.

    Returns:
        (height, width): 0 for the background, otherwise key + 1.

    Raises:
        ValueError: a key is not within 0 to 253.

    Example::

        >>> label_map(np.array([[[0.1, 0.2, 0.9]], [[0.0, 0.3, 0.5]]]), keys=[7, 14])
        array([[ 0, 15,  8]], dtype=uint8)
    """
    classes = np.asarray(keys, dtype=np.int64) + 1
    if len(classes) and not 1 <= classes.min() <= classes.max() < 255:
        raise ValueError(f"keys={list(classes - 1)}: a label map of 8 bits holds classes 0 to 253.")
    planes = np.concatenate([np.full((1, *high_res.shape[1:]), threshold, dtype=high_res.dtype), high_res])
    labels: npt.NDArray[np.uint8] = np.concatenate([[0], classes]).astype(np.uint8)[planes.argmax(0)]
    return labels


def save_label_map(path: str | os.PathLike[str], labels: npt.NDArray[np.uint8]) -> None:
    """Write (height, width) labels as an indexed PNG with the palette of PASCAL VOC. It is whole or not there.

    Example::

        >>> save_label_map("2007_000032.png", np.array([[0, 8], [15, 255]], dtype=np.uint8))
        >>> Image.open("2007_000032.png").convert("RGB").getpixel((1, 0))  # VOC's colour of a cat
        (64, 0, 0)
    """
    image = Image.fromarray(labels)
    image.putpalette(_voc_palette())
    with written_whole(path) as temporary:
        image.save(temporary, format="PNG")


def _voc_palette() -> list[int]:
    """Return VOC's colours: bits 0, 3, 6 of a label are the high bits of red, 1, 4, 7 of green, 2, 5 of blue."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=int)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= (labels >> (3 * place + channel) & 1) << (7 - place)
    return [int(value) for value in colours.flatten()]
