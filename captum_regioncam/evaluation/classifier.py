"""A network with the preprocessing of its photos and the names of its classes."""

import difflib
import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module

from captum_regioncam.arguments import real, whole
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.protocol import DEFAULT_MODEL, RESIZES
from captum_regioncam.files.photos import as_rgb, resized

__all__ = ["MAX_SIDE", "Classifier", "nearest"]

MAX_SIDE = 4096
"""The side, in pixels, of the largest square input. An input that is not square may have as many pixels."""
_MAX_RATIO = 20  # of a photo's sides
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode with its preprocessing and the names of its classes.

    Args:
        model: the network, from (N, 3, height, width) to (N, classes) scores.
        size: the side of the network's input, in pixels.
        mean, std: of each channel, for pixels scaled to [0, 1]. Default: those of ImageNet.
        class_names: one per class, synonyms separated by commas; empty if they are not known.
        resize: "squash" brings the whole photo to size x size; "short" its short side to size; "crop" takes the centre,
            with the short side at size / crop_ratio; "keep" keeps the photo's own size. Default: as the
            :class:`Protocol` says, and "squash" without one.
        crop_ratio: for "crop", the side of the square that is taken, over the photo's short side.
        interpolation: the interpolation of the resize for "crop".
        resampling: the interpolation of all other resizes, including those to the protocol's scales. Default: bicubic,
            as in IRN.
        reshape: the layout of named layers, unless it is given with them; see :func:`evaluate`.
        name: the network's name, for records. Default: its class.
        weights: the checkpoint's file, "none" for random weights, or None for the network's own; for records.
        weights_key: which of the weights in the file, if that was given; for records.
        given: for ``size``, ``mean`` and ``std``, what :meth:`load` was given and what is used; for records.
        own: the preprocessing that the network brought along, and its source; for records.

    Raises:
        ArgumentError: an argument has another type or is out of range.

    Example::

        >>> classifier = Classifier(model, size=224, resize="short")
        >>> classifier.input_size(500, 375)  # width and height
        (299, 224)
    """

    model: Module
    size: int = 224
    mean: Sequence[float] = _IMAGENET_MEAN
    std: Sequence[float] = _IMAGENET_STD
    class_names: Sequence[str] = ()
    resize: str | None = None
    crop_ratio: float = 224 / 256
    interpolation: Image.Resampling = Image.Resampling.BICUBIC
    resampling: Image.Resampling = Image.Resampling.BICUBIC
    reshape: str | None = None
    name: str = ""
    weights: str | None = None
    weights_key: str | None = None
    given: Mapping[str, tuple[object, object]] | None = None
    own: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, Module):
            raise ArgumentError(Argument("model"), f": expects a torch.nn.Module, got {type(self.model).__name__}.")
        if whole(self.size) < 1 or self.size > MAX_SIDE:
            raise ArgumentError(Argument("size", self.size), f": expects 1 to {MAX_SIDE} pixels.")
        object.__setattr__(self, "size", whole(self.size))
        for name, values in (("mean", self.mean), ("std", self.std)):
            numbers = tuple(map(real, values))
            if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
                raise ArgumentError(Argument(name, values), ": expects three numbers, one for each of R, G and B.")
            object.__setattr__(self, name, numbers)
        if min(self.std) <= 0:
            raise ArgumentError(Argument("std", self.std), ": expects numbers above 0.")
        if self.resize is not None and self.resize not in RESIZES:
            raise ArgumentError(Argument("resize", self.resize), f": expects one of {', '.join(RESIZES)}.")

    @classmethod
    def load(
        cls,
        name: str = DEFAULT_MODEL,
        weights: str | os.PathLike[str] | None = None,
        *,
        weights_key: str | None = None,
        allow_classes: Sequence[str] = (),
        size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: str | None = None,
        interpolation: str | None = None,
        device: str | torch.device | None = None,
    ) -> "Classifier":
        """Build a network by its name.

        Args:
            name: "efficientnet-lite0", "torchvision:NAME", "timm:NAME", "package.module:factory" or "FILE.py:factory",
                where the factory takes no argument and returns the network. The module may lie in the current folder;
                an installed one of the same name comes first.
            weights: a checkpoint of ``torch.save`` or safetensors, or "none" for random weights, always the same.
                Default: the model's own weights, which torchvision and timm download. The tensors of a checkpoint may
                be nested in dicts and have prefixes: those that match most of the model's names and shapes are taken.
                Every tensor of the model must be there, except counters. A log message says how many fit and what is
                left over. If the checkpoint has another number of classes, networks of torchvision and timm are built
                with that number; the names of their classes are then not known.
            weights_key: for a checkpoint with several weights, the keys of some of them, joined by dots: "model_ema".
                Default: those under "state_dict", "model_state_dict", "model_state", "model", "net" or "teacher", or
                else the first.
            allow_classes: dotted names of classes that the checkpoint may hold besides tensors and plain data, such as
                "pathlib.PosixPath". Creating their objects may run code that the file chooses, so allow classes only
                for files that you trust. A whole pickled network loads if all its classes are allowed.
            size: the side of the network's input, in pixels. Default: the size that the model was made for, or 224.
            mean: the mean of each channel, for pixels in [0, 1]. Default: the model's, or ImageNet's.
            std: the standard deviation of each channel, likewise. Default: the model's, or ImageNet's.
            resize: how photos enter the network; see the argument of the class.
            interpolation: the interpolation of every resize: "nearest", "bilinear", "bicubic", "lanczos", "box" or
                "hamming". Default: what a factory's network specifies; otherwise the model's for ``resize="crop"``, and
                bicubic for the others.
            device: the device to put the network on. Default: the CPU.

        The network of a factory may bring its preprocessing along, for the arguments that are not given here. Either
        the factory returns (network, preprocessing), or the network has one of these attributes:

        - ``preprocessing``, a mapping with any of ``size``, ``mean``, ``std``, ``interpolation``, ``crop_ratio`` and
          ``reshape``;
        - ``image_processor``, one of transformers;
        - ``pretrained_cfg``, timm's.

        For a network of transformers that was loaded from a folder, the folder's preprocessor_config.json counts, or
        else its ``config.image_size``. Nothing is downloaded. A log message says what was taken from where.

        Returns:
            The network in evaluation mode, with its preprocessing and the names of its classes, if they are known.

        Raises:
            ArgumentError: there is no such model, package or file, the file is not a checkpoint or does not fit, or an
                argument, or what the network brings along, is out of range.

        Example::

            >>> Classifier.load("torchvision:resnet18", "none").class_name(281)
            'tabby'
        """
        from captum_regioncam.evaluation.models import load_classifier

        path = None if weights is None else os.fspath(weights)
        return load_classifier(
            name, path, weights_key=weights_key, allow_classes=allow_classes, size=size, mean=mean, std=std,
            resize=resize, interpolation=interpolation, device=device,
        )  # fmt: skip

    @property
    def settings(self) -> dict[str, object]:
        """What a record says about the network, as JSON values."""
        model = type(self.model)
        settings: dict[str, object] = {
            "model": self.name or f"{model.__module__}:{model.__qualname__}",
            "weights": self.weights,
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            **({} if self.weights_key is None else {"weights_key": self.weights_key}),
            **({} if self.own is None else {"preprocessing": dict(self.own)}),
            **({"interpolation": self.interpolation.name.lower()} if "interpolation" in (self.given or ()) else {}),
        }
        if self.given is None:
            built = f"{self.model!r} {self.crop_ratio} {self.interpolation}"
            built += "" if self.resampling == Image.Resampling.BICUBIC else f" {self.resampling}"
            return settings | {"network": hashlib.sha256(built.encode()).hexdigest()[:16]}
        unchanged = {name: given for name, (given, value) in self.given.items() if settings[name] == value}
        return settings | unchanged

    def seen_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the edges of the part of a photo that the network sees: left, upper, right and lower, in pixels.

        Example::

            >>> Classifier(model, resize="crop").seen_box(500, 375)
            (86, 23, 414, 351)
        """
        if self.resize != "crop":
            return 0, 0, width, height
        side = max(1, round(min(width, height) * self.crop_ratio))
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height, in pixels, of the network's input for a photo of this width and height.

        Example::

            >>> Classifier(model, size=224, resize="squash").input_size(500, 375)
            (224, 224)
            >>> Classifier(model, size=224, resize="short").input_size(500, 375)
            (299, 224)
        """
        if self.resize == "keep":
            return width, height
        if self.resize == "short":
            scale = self.size / min(width, height)
            return max(1, round(width * scale)), max(1, round(height * scale))
        return self.size, self.size

    def seen(self, photo: Image.Image, scale: float = 1.0) -> Image.Image:
        """Return the part of a photo that the network sees, at the photo's resolution.

        Args:
            photo: the photo, in any of Pillow's modes.
            scale: the largest scale of the network's input.

        Returns:
            The photo itself or, with ``resize="crop"``, the square in its centre: an RGB image.

        Raises:
            ValueError: one side of the photo is more than 20 times as long as the other, or the input would be too
                large.
        """
        width, height = photo.size
        ratio = max(photo.size) / min(photo.size)
        if ratio > _MAX_RATIO:
            raise ValueError(
                f"the photo has {width} x {height} pixels, a ratio of {ratio:.4g}; at most {_MAX_RATIO} is possible. "
                "Crop the photo."
            )
        in_width, in_height = (round(side * scale) for side in self.input_size(width, height))
        if in_width * in_height > MAX_SIDE**2:
            remedy = "resize 'short'" if self.resize == "keep" else "a smaller size"
            remedy += " or smaller scales" if scale > 1 else ""
            raise ValueError(
                f"the photo has {width} x {height} pixels, which make an input of {in_width} x {in_height}; at most "
                f"{MAX_SIDE} x {MAX_SIDE} are possible. Use {remedy}."
            )
        photo = photo if photo.mode == "RGB" else as_rgb(photo)
        box = self.seen_box(width, height)
        return photo if box == (0, 0, width, height) else photo.crop(box)

    def fit(self, photo: Image.Image) -> tuple[Image.Image, Image.Image]:
        """Return the part of a photo that the network sees, at the photo's resolution and at the network's.

        Args:
            photo: the photo, in any of Pillow's modes.

        Returns:
            The part at the photo's resolution, and the same part resized to the network's input, as RGB images.

        Raises:
            ValueError: as in :meth:`seen`.

        Example::

            >>> seen, fitted = Classifier(model, size=224, resize="crop").fit(photo)
            >>> photo.size, seen.size, fitted.size
            ((500, 375), (328, 328), (224, 224))
        """
        seen = self.seen(photo)
        return seen, self.resized(seen, self.input_size(*photo.size))

    def transform(self, photo: Image.Image) -> Tensor:
        """Turn a photo into the network's input: :meth:`fit`, then :meth:`preprocess`.

        Args:
            photo: the photo, in any of Pillow's modes.

        Returns:
            (1, 3, height, width) float32 on the CPU.

        Raises:
            ValueError: as in :meth:`seen`.

        Example::

            >>> Classifier(model, size=224, resize="short").transform(photo).shape
            torch.Size([1, 3, 224, 299])
        """
        return self.preprocess(self.fit(photo)[1])

    def resized(self, seen: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Resize what the network sees to a (width, height) in pixels."""
        return resized(seen, size, self.interpolation if self.resize == "crop" else self.resampling)

    @property
    def device(self) -> torch.device:
        """The device that the network is on."""
        return next(self.model.parameters(), torch.empty(0)).device

    def preprocess(self, fitted: Image.Image | npt.NDArray[np.uint8]) -> Tensor:
        """Normalise an image of the network's input size.

        Args:
            fitted: an RGB image, or its (height, width, 3) uint8 pixels, such as the second that :meth:`fit` returns.

        Returns:
            The network's input, (1, 3, height, width) float32 on the CPU. The mean is subtracted from pixels in [0, 1],
            and the result is divided by the standard deviation.

        Example::

            >>> classifier = Classifier(model, size=224, resize="short")
            >>> classifier.preprocess(classifier.fit(photo)[1]).shape
            torch.Size([1, 3, 224, 299])
        """
        pixels = torch.from_numpy(np.array(fitted, dtype=np.float32)).permute(2, 0, 1) / 255
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return ((pixels - mean) / std)[None]

    def class_name(self, index: int) -> str:
        """Return the first name of a class, or "class N" if its name is not known.

        Example::

            >>> names = ["tench, Tinca tinca", "goldfish, Carassius auratus"]
            >>> classifier = Classifier(model, class_names=names)
            >>> classifier.class_name(1), classifier.class_name(2)
            ('goldfish', 'class 2')
        """
        return self.class_names[index].split(",")[0] if 0 <= index < len(self.class_names) else f"class {index}"

    def classes_with(self, word: str) -> list[int]:
        """Return the indices of the classes that have a word in one of their names, in any case.

        Example::

            >>> names = ["fire engine, fire truck", "garbage truck, dustcart"]
            >>> Classifier(model, class_names=names).classes_with("truck")
            [0, 1]
        """
        pattern = re.compile(rf"\b{re.escape(word.strip())}\b", re.IGNORECASE)
        return [index for index, names in enumerate(self.class_names) if pattern.search(names)]

    def class_index(self, target: str) -> int:
        """Find a class by its number, by its first name, or by any other of its names.

        Args:
            target: the number or the name, in any case.

        Returns:
            The index of the class, from 0.

        Raises:
            ArgumentError: no class, or more than one, has that name; the message gives the nearest names.

        Example::

            >>> names = ["fire engine, fire truck", "garbage truck, dustcart"]
            >>> classifier = Classifier(model, class_names=names)
            >>> classifier.class_index("dustcart"), classifier.class_index("0")
            (1, 0)
            >>> try:
            ...     classifier.class_index("truck")
            ... except ValueError as error:
            ...     print(error)
            target='truck': no class has exactly that name. Choose from: garbage truck (1),
            fire engine (0).
        """

        def error(message: str) -> ArgumentError:
            return ArgumentError(Argument("target", target), f": {message}")

        if re.fullmatch("-?[0-9]+", target):
            index = int(target)
            if index < 0 or (self.class_names and index >= len(self.class_names)):
                classes = f"0 to {len(self.class_names) - 1}" if self.class_names else "numbers from 0"
                raise error(f"the classes are {classes}.")
            return index
        if not self.class_names:
            raise error("the class names of this model are not known; give the class's number.")
        numbered = [(name.strip().lower(), i) for i, names in enumerate(self.class_names) for name in names.split(",")]
        wanted = target.strip().lower()
        first = {i for i, names in enumerate(self.class_names) if names.split(",")[0].strip().lower() == wanted}
        found = first or {index for name, index in numbered if name == wanted}
        if len(found) > 1:
            choices = ", ".join(f"{index} ({self.class_names[index]})" for index in sorted(found))
            raise error(f"several classes have that name: {choices}. Give the number.")
        if not found and (several := self.classes_with(target)):
            has_word = re.compile(rf"\b{re.escape(wanted)}\b", re.IGNORECASE)
            several.sort(key=lambda index: not has_word.search(self.class_name(index)))  # before its other names
            choices = ", ".join(f"{self.class_name(index)} ({index})" for index in several)
            raise error(f"no class has exactly that name. Choose from: {choices}.")
        if not found:
            raise error(f"no such class. {nearest(target, (name for name, _ in numbered))}")
        return found.pop()


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a sentence with the words nearest to one that is not among them."""
    close = difflib.get_close_matches(word, list(dict.fromkeys(words)), n=5, cutoff=0.4)
    return f"Nearest: {', '.join(close)}." if close else "There is no similar name."
