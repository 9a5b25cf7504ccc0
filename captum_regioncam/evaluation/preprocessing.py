"""The preprocessing that a factory's network brings along: a mapping of its own, transformers' or timm's."""

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch.nn import Module

from captum_regioncam.arguments import real, whole
from captum_regioncam.evaluation.classifier import MAX_SIDE
from captum_regioncam.evaluation.protocol import INTERPOLATIONS
from captum_regioncam.files.inputs import read_json

__all__ = ["Preprocessing", "interpolation_named", "preprocessing_of", "with_preprocessing"]


@dataclass(frozen=True)
class Preprocessing:
    """What a network says about its input.

    Attributes:
        source: where the network says so; "" if it says nothing.
        values: any of ``size``, ``mean``, ``std``, ``interpolation``, ``crop_ratio`` and ``reshape``, as
            :class:`~captum_regioncam.evaluation.Classifier` has them.
    """

    source: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recorded(self) -> dict[str, object]:
        """The source and the values, as JSON values."""
        return {"from": self.source, **{name: _plain(value) for name, value in self.values.items()}}

    def __str__(self) -> str:
        shown = (
            f"{name} {','.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in self.recorded.items()
            if name != "from"
        )
        return f"{', '.join(shown)} (from its {self.source})"


def with_preprocessing(made: object) -> object:
    """Return what a factory made. Of (network, preprocessing), return the network with the latter as an attribute.

    Raises:
        ValueError: the second of two is neither a mapping nor an image processor.
    """
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Module)):
        return made
    network, brought = made
    if isinstance(brought, Mapping):
        network.preprocessing = brought
    elif _processor(brought) is not None:
        network.image_processor = brought
    else:
        raise ValueError(
            f"the factory returned a network and {type(brought).__name__}; the second must be a mapping, as "
            "preprocessing, or an image processor of transformers"
        )
    return network


def preprocessing_of(model: Module, given: Collection[str] = ()) -> Preprocessing:
    """Return what a network's attributes say about its input.

    The first of these that exists counts:

    - ``preprocessing``, a mapping with any of the keys of :class:`Preprocessing`;
    - ``image_processor``, of transformers;
    - ``pretrained_cfg``, of timm;
    - preprocessor_config.json in the folder that a network of transformers was loaded from;
    - ``config.image_size``, of transformers.

    Nothing is downloaded.

    Args:
        model: the network.
        given: the keys that do not matter, because the caller gives them.

    Raises:
        ValueError: a value is out of range, or a mapping has another key.
    """
    config = _config(model)
    own, cfg = getattr(model, "preprocessing", None), getattr(model, "pretrained_cfg", None)
    processor = _processor(getattr(model, "image_processor", None))
    if isinstance(own, Mapping):
        source, found = "preprocessing", dict(own)
        if unknown := [name for name in found if name not in _CHECKS]:
            raise ValueError(f"its preprocessing has {unknown[0]!r}; expects any of {', '.join(_CHECKS)}")
    elif processor is not None:
        source, found = "image_processor", _of_transformers(processor)
    elif isinstance(cfg, Mapping):
        source, found = "pretrained_cfg", _of_timm(cfg)
    elif (path := _local_processor(config)) is not None:
        source, found = "preprocessor_config.json", _of_transformers(read_json(path))
    else:
        size = _side(getattr(config, "image_size", None))
        source, found = "config.image_size", {"size": size if whole(size) else None}  # others have two sides
    values = {}
    for name, value in found.items():
        if value is not None and name not in given:
            try:
                values[name] = _CHECKS[name](value)
            except ValueError as error:
                raise ValueError(f"its {source} gives {name} {value!r:.80}: expects {error}") from error
    return Preprocessing(source, values) if values else Preprocessing()


def interpolation_named(value: object) -> Image.Resampling:
    """Return Pillow's interpolation of a name, of Pillow's own constant, or of torchvision's.

    Raises:
        ValueError: it is not an interpolation; the message lists the names.
    """
    if isinstance(value, Image.Resampling):
        return value
    name = getattr(value, "value", value)
    if name not in INTERPOLATIONS:
        raise ValueError(f"one of {', '.join(INTERPOLATIONS)}")
    return Image.Resampling[name.upper()]


def _size(value: object) -> int:
    if not 1 <= whole(value) <= MAX_SIDE:
        raise ValueError(f"one side of a square, 1 to {MAX_SIDE} pixels; pass size")
    return whole(value)


def _three(value: object) -> tuple[float, ...]:
    numbers = tuple(map(real, value)) if isinstance(value, Iterable) else ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError("three numbers, one for each of R, G and B")
    return numbers


def _std(value: object) -> tuple[float, ...]:
    if min(numbers := _three(value)) <= 0:
        raise ValueError("numbers above 0")
    return numbers


def _ratio(value: object) -> float:
    if not 0 < real(value) <= 1:
        raise ValueError("a number above 0, at most 1")
    return real(value)


def _layout(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"channels-last|tokens:\d{1,6}(:\d{1,6})?", value):
        raise ValueError("tokens:N, tokens:N:M or channels-last")
    return value


_CHECKS = {
    "size": _size,
    "mean": _three,
    "std": _std,
    "interpolation": interpolation_named,
    "crop_ratio": _ratio,
    "reshape": _layout,
}


def _plain(value: object) -> object:
    if isinstance(value, Image.Resampling):
        return value.name.lower()
    return list(value) if isinstance(value, tuple) else value


def _of_timm(cfg: Mapping[str, Any]) -> dict[str, Any]:
    size, ratio, interpolation = cfg.get("input_size"), cfg.get("crop_pct"), cfg.get("interpolation")
    return {
        "size": _side(size[-2:] if isinstance(size, (list, tuple)) else size),
        "mean": cfg.get("mean"),
        "std": cfg.get("std"),
        "interpolation": None if interpolation == "random" else interpolation,
        "crop_ratio": None if ratio is None else min(real(ratio), 1.0),
    }


def _of_transformers(config: Any) -> dict[str, Any]:
    if not isinstance(config, Mapping):
        raise ValueError(f"its image processor has {type(config).__name__} instead of settings")
    size, crop = _side(config.get("size")), _side(config.get("crop_size")) if config.get("do_center_crop") else None
    ratio = config.get("crop_pct") or 1.0
    if whole(size) and whole(crop):
        ratio = min(1.0, crop / size)
    names = {"mean": "image_mean", "std": "image_std"} if config.get("do_normalize", True) else {}
    mean, std = (_channels(config.get(names[one]) if names else plain) for one, plain in (("mean", 0.0), ("std", 1.0)))
    factor = 255 * real(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 255.0
    offset = 1.0 if config.get("rescale_offset") else 0.0
    if mean is not None and std is not None and (offset or abs(factor - 1) > 1e-6):  # of pixels in another range
        mean, std = [(real(value) + offset) / factor for value in mean], [real(value) / factor for value in std]
    resample: Any = config.get("resample")
    known = isinstance(resample, int) and resample in {one.value for one in Image.Resampling}
    return {
        "size": crop or size if config.get("do_resize", True) else crop,
        "mean": mean,
        "std": std,
        "interpolation": Image.Resampling(resample) if known else resample,
        "crop_ratio": ratio,
    }


def _channels(value: Any) -> Any:
    """Return a value for each channel, where transformers has one for all of them."""
    return [value] * 3 if isinstance(value, (int, float)) else value


def _side(size: Any) -> Any:
    """Return the side of a square, which timm gives as two sides, and transformers as a mapping or a number."""
    if isinstance(size, Mapping):
        sides = [size.get(name) for name in ("height", "width")]
        size = size.get("shortest_edge") if sides == [None, None] else sides
    if isinstance(size, (list, tuple)) and len(size) == 2 and size[0] == size[1]:
        return size[0]
    return size


def _processor(processor: Any) -> Mapping[str, Any] | None:
    """Return the settings of an image processor of transformers; None of anything else."""
    if processor is None or not hasattr(processor, "image_mean") or not callable(getattr(processor, "to_dict", None)):
        return None
    settings: Mapping[str, Any] = processor.to_dict()
    return settings


def _config(model: Module) -> object:
    """Return the configuration of a network of transformers; None of others, whose ``config`` may be anything."""
    config = getattr(model, "config", None)
    return config if any(kind.__module__.startswith("transformers.") for kind in type(config).__mro__) else None


def _local_processor(config: object) -> Path | None:
    """Return the file with the image processor's settings in the folder that a network was loaded from, if any."""
    folder = getattr(config, "_name_or_path", None)
    path = Path(folder) / "preprocessor_config.json" if folder and isinstance(folder, str) else None
    return path if path is not None and os.path.isfile(path) else None
