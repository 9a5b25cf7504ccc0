"""The command line: ``captum-regioncam demo`` and ``captum-regioncam explain``."""

import argparse
import contextlib
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution, LayerGradCam
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn import Module
from tqdm import tqdm

from captum_regioncam.baselines import LayerCam
from captum_regioncam.classifiers import DEFAULT_MODEL, RESIZES, Classifier, UsageError, load_classifier, nearest
from captum_regioncam.files import read_photo, written_whole
from captum_regioncam.region_cam import LayerRegionCam
from captum_regioncam.stage_finder import StageValues, find_stages
from captum_regioncam.visualization import show_attributions

__all__ = ["main"]

Attribute = Callable[[Tensor, list[int]], Sequence[Tensor]]
"""From an input and K targets to a map for each."""


def _grad_cam(model: Module, layers: StageValues) -> Attribute:
    if layers.reshape_transform is not None:
        raise UsageError("--method grad-cam: Captum's LayerGradCam knows no tokens and no channels-last tensors.")
    cam = LayerGradCam(model, layers[-1])
    return lambda x, targets: [cam.attribute(x, target, relu_attributions=True) for target in targets]


def _layer_cam(model: Module, layers: StageValues) -> Attribute:
    cam = LayerCam(model, layers)
    return lambda x, targets: torch.split(cam.attribute_targets(x, targets), 1, dim=1)


def _region_cam(model: Module, layers: StageValues) -> Attribute:
    cam = LayerRegionCam(model, layers)
    return lambda x, targets: torch.split(cam.attribute_targets(x, targets), 1, dim=1)


_METHODS: dict[str, tuple[str, Callable[[Module, StageValues], Attribute]]] = {
    "grad-cam": ("Grad-CAM", _grad_cam),
    "layer-cam": ("LayerCAM", _layer_cam),
    "region-cam": ("Region-CAM", _region_cam),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``captum-regioncam``.

    Args:
        arguments: what follows the command's name; default the process's own.

    Returns:
        The exit status: 0, or 1 where some images failed. Unusable arguments exit with 2.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except UsageError as error:
        parser.exit(2, f"captum-regioncam {options.command}: error: {error}\n")
    return status


def _demo(options: argparse.Namespace) -> int:
    if options.output.is_dir() or options.output.suffix[1:].lower() not in ("", "png", "jpg", "jpeg", "pdf", "svg"):
        raise UsageError(f"--output {options.output}: expects a file to write, .png, .jpg, .pdf or .svg.")
    try:
        from skimage.data import chelsea
    except ImportError as error:
        raise UsageError(f'the demo needs: pip install "captum_regioncam[demo]" ({error}).') from error
    classifier = load_classifier()
    photo = Image.fromarray(chelsea())
    x = classifier.preprocess(classifier.fit(photo)[1])
    probabilities, classes = _top(classifier, x, 5)
    print("EfficientNet-Lite0 sees in scikit-image's cat:")
    for probability, index in zip(probabilities, classes, strict=True):
        print(f"  {probability:6.1%}  {classifier.class_name(index)} ({index})")
    stages = find_stages(classifier.model, x)
    print(f"Stages, shallow to deep: {', '.join(stages)}")
    layers = stages.values()
    start = time.perf_counter()
    _region_cam(classifier.model, layers)(x, classes[:1])
    print(f"Region-CAM of one photo over {len(stages)} stages: {time.perf_counter() - start:.2f} s")
    figure = show_attributions(np.asarray(photo), _maps(classifier, layers, list(_METHODS), x, classes[:1]))
    _save_figure(figure, options.output)
    print(f"Wrote {options.output}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    classifier = load_classifier(
        options.model,
        options.weights,
        size=options.size,
        mean=options.mean,
        std=options.std,
        resize=options.resize,
    )
    if options.weights == "none":
        print("captum-regioncam explain: the weights are random (--weights none).", file=sys.stderr)
    device = _device(options.device)
    classifier.model.to(device)
    targets = list(dict.fromkeys(classifier.class_index(target) for target in options.target))
    if options.output.exists() and not options.output.is_dir():
        raise UsageError(f"--output {options.output}: is a file; give a folder.")
    named = None if options.layers is None else _layers(classifier.model, options.layers)
    layers: StageValues | None = None
    outputs = _outputs(options.images, options.output)
    failures: dict[str, str] = {}
    for image in tqdm(options.images, unit="photo", disable=len(options.images) == 1):
        try:
            seen, fitted = classifier.fit(read_photo(image))
            x = classifier.preprocess(fitted).to(device)
            classes = targets or _top(classifier, x, 1)[1]
            layers = layers or _stages(classifier.model, x, named)
            maps = _maps(classifier, layers, options.method, x, classes)
            output = outputs[image]
            figure = show_attributions(
                np.asarray(seen), maps, columns=min(1 + len(maps), 6), image_title=Path(image).name
            )
            _save_figure(figure, output)
            if options.save_npy:
                array = _at_photo_size(maps, (seen.height, seen.width))
                array = array.reshape(len(classes), len(options.method), *array.shape[1:]).swapaxes(0, 1)
                _save(functools.partial(np.save, arr=array), output.with_suffix(".npy"))
            tqdm.write(f"{image}: {', '.join(map(classifier.class_name, classes))} -> {output}")
        except Exception as error:
            failures[image] = str(error) or type(error).__name__
    if failures:
        print(f"{len(failures)} of {len(options.images)} images failed:", file=sys.stderr)
        for image, reason in failures.items():
            print(f"  {reason if image in reason else f'{image}: {reason}'}", file=sys.stderr)
    return int(bool(failures))


@torch.no_grad()
def _top(classifier: Classifier, x: Tensor, count: int) -> tuple[list[float], list[int]]:
    """Return the probabilities and the numbers of the likeliest classes."""
    scores = classifier.model(x)
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        raise UsageError("--model: the network does not return (N, classes) scores; wrap it in a factory that does.")
    top = scores[0].float().softmax(0).topk(min(count, scores.shape[1]))
    return top.values.tolist(), top.indices.tolist()


def _maps(
    classifier: Classifier, layers: StageValues, methods: list[str], x: Tensor, targets: list[int]
) -> dict[str, Tensor]:
    """Return a map per target and method, titled by both."""
    attributed = []
    for method in methods:
        title, attribution = _METHODS[method]
        attributed.append((title, attribution(classifier.model, layers)(x, targets)))
    return {
        f"{title}\n{classifier.class_name(target)} ({target})": maps[index]
        for index, target in enumerate(targets)
        for title, maps in attributed
    }


def _at_photo_size(maps: dict[str, Tensor], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    upsampled = [LayerAttribution.interpolate(one.float(), size, interpolate_mode="bilinear") for one in maps.values()]
    stacked: npt.NDArray[np.float32] = torch.cat(upsampled, dim=1)[0].detach().cpu().numpy()
    return stacked


def _layers(model: Module, names: list[str]) -> list[Module]:
    modules = dict(model.named_modules())
    for name in names:
        if not name or name not in modules:
            raise UsageError(f"--layers {name!r}: the model has no such layer. {nearest(name, modules)}")
    return [modules[name] for name in names]


def _stages(model: Module, x: Tensor, named: list[Module] | None) -> StageValues:
    """Return the layers asked for, or else found, with the reshape_transform that the model's layout needs."""
    if named is None:
        return find_stages(model, x).values()
    layers = StageValues(named)
    with contextlib.suppress(ValueError):
        layers.reshape_transform = find_stages(model, x).reshape_transform
    return layers


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except Exception as error:
        raise UsageError(f"--device {name}: not to be had here ({str(error).splitlines()[0]}).") from error
    return device


def _outputs(images: list[str], folder: Path) -> dict[str, Path]:
    """Name the picture of each image: photos of one folder after themselves, others with the folders they differ in."""
    parents = {image: Path(image).resolve().parent for image in images}
    common = Path(os.path.commonpath([*parents.values()]))
    taken = {Path(image).resolve() for image in images}  # a picture never replaces a photo, nor another picture
    outputs = {}
    for image, parent in parents.items():
        here, path = folder / parent.relative_to(common), Path(image)
        names = (path.stem, path.name.replace(".", "_"), *(f"{path.stem}_{i}" for i in range(2, len(images) + 3)))
        free = (here / f"{name}_cam.png" for name in names if (here / f"{name}_cam.png").resolve() not in taken)
        outputs[image] = next(free)
        taken.add(outputs[image].resolve())
    return outputs


def _save_figure(figure: Figure, path: Path) -> None:
    _save(functools.partial(figure.savefig, format=path.suffix[1:] or "png"), path)


def _save(write: Callable[[Path], object], path: Path) -> None:
    with written_whole(path) as temporary:
        write(temporary)


def _comma(values: str) -> list[str]:
    return [value.strip() for value in values.split(",")]


def _methods(values: str) -> list[str]:
    methods = _comma(values)
    for method in methods:
        if method not in _METHODS:
            raise argparse.ArgumentTypeError(f"{method!r} is none of {', '.join(_METHODS)}")
    return list(dict.fromkeys(methods))


def _three(values: str) -> list[float]:
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{values!r} is not three numbers with commas between them")
    return numbers


def _three_positive(values: str) -> list[float]:
    numbers = _three(values)
    if min(numbers) <= 0:
        raise argparse.ArgumentTypeError(f"{values!r}: a standard deviation is above 0")
    return numbers


def _positive(value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive whole number")
    return int(value)


def _parser() -> argparse.ArgumentParser:
    from captum_regioncam import __version__

    parser = argparse.ArgumentParser(
        prog="captum-regioncam",
        description="Region-CAM: maps of whole objects, with edges where the objects' edges are.",
    )
    parser.add_argument("--version", action="version", version=f"captum-regioncam {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="explain a photo of a cat, offline", description=_DEMO)
    demo.add_argument(
        "--output", type=Path, default=Path("region_cam_demo.png"), metavar="FILE", help="default: %(default)s"
    )
    demo.set_defaults(run=_demo)

    explain = commands.add_parser(
        "explain",
        usage="captum-regioncam explain IMAGE [IMAGE ...] [options]",
        help="explain photos of your own",
        description=_EXPLAIN,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    explain.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME",
        help="%(default)s (default), torchvision:resnet50, timm:NAME, or package.module:factory",
    )  # fmt: skip
    explain.add_argument("--weights", metavar="FILE", help="a checkpoint, or 'none'; default: the model's own")
    explain.add_argument("--layers", type=_comma, metavar="A,B,C", help="dotted names; default: the stages found")
    explain.add_argument(
        "--target", nargs="+", default=[], metavar="CLASS", help="classes by number or name; default: the likeliest"
    )
    explain.add_argument(
        "--method", type=_methods, default=["region-cam"], metavar="A,B",
        help=f"of {', '.join(_METHODS)}; default: region-cam. Grad-CAM takes the last layer",
    )  # fmt: skip
    explain.add_argument("--size", type=_positive, metavar="N", help="input side in pixels; default: the model's")
    explain.add_argument("--mean", type=_three, metavar="R,G,B", help="of pixels in [0, 1]; default: the model's")
    explain.add_argument("--std", type=_three_positive, metavar="R,G,B", help="likewise")
    explain.add_argument(
        "--resize", choices=RESIZES, default="squash",
        help="squash the whole photo to N x N (default), its short side to N, or crop its centre",
    )  # fmt: skip
    explain.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="where IMAGE_cam.png goes; default: here"
    )
    explain.add_argument(
        "--save-npy", action="store_true",
        help="also IMAGE_cam.npy: float32 (methods, classes, height, width), at the photo's size",
    )  # fmt: skip
    explain.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; default: cuda where there is one")
    explain.set_defaults(run=_explain)
    return parser


_DEMO = """Run EfficientNet-Lite0 with its ImageNet weights on scikit-image's cat and draw the photo beside its
Grad-CAM, LayerCAM and Region-CAM. Needs the extra "demo" and no network."""
_EXPLAIN = """Write, for every image, a picture of the photo and its class activation maps. An image that fails does not
stop the others; it is reported at the end, with exit status 1."""
_EXAMPLES = """examples:
  captum-regioncam explain cat.jpg
  captum-regioncam explain photos/*.jpg --target tabby 207 --method grad-cam,region-cam --output maps --save-npy
  captum-regioncam explain cat.jpg --model torchvision:resnet50 --layers relu,layer1,layer2,layer3,layer4"""
