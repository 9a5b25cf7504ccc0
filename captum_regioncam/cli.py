"""The command line: ``captum-regioncam demo | explain | seeds | evaluate``; the last two are in evaluation/."""

import argparse
import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captum_regioncam.arguments import (
    add_model_arguments,
    check_picture,
    classifier_of,
    folder,
    layers_named,
    methods,
    report_failures,
    stages_of,
    usable_device,
)
from captum_regioncam.classifiers import Classifier, UsageError, load_classifier
from captum_regioncam.cli_evaluation import add_commands
from captum_regioncam.files import read_photo, written_whole
from captum_regioncam.methods import METHODS, TITLES
from captum_regioncam.stages import Stages, find_stages
from captum_regioncam.visualization import show_attributions

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``captum-regioncam``.

    Args:
        arguments: what follows the command's name; default the process's own.

    Returns:
        The exit status: 0, or 1 where some images failed. Unusable arguments exit with 2, Ctrl-C with 130.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except UsageError as error:
        parser.exit(2, f"captum-regioncam {options.command}: error: {error}\n")
    except KeyboardInterrupt:
        how = " The same command with --resume goes on from here." if options.command == "seeds" else ""
        parser.exit(130, f"captum-regioncam {options.command}: stopped.{how}\n")
    return status


def _demo(options: argparse.Namespace) -> int:
    check_picture("--output", options.output)
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
    print(f"Stages, shallow to deep: {stages.describe()}")
    start = time.perf_counter()
    METHODS["region-cam"](classifier.model, stages)(x, classes[:1])
    print(f"Region-CAM of one photo over {len(stages)} stages: {time.perf_counter() - start:.2f} s")
    figure = show_attributions(
        np.asarray(photo), _maps(classifier, stages, ["grad-cam", "layer-cam", "region-cam"], x, classes[:1])
    )
    _save_figure(figure, options.output)
    print(f"Wrote {options.output}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    classifier = classifier_of(options)
    device = usable_device(options.device)
    classifier.model.to(device)
    targets = list(dict.fromkeys(classifier.class_index(target) for target in options.target))
    named = layers_named(classifier.model, options.layers)
    layers: Stages | None = None
    outputs = _outputs(options.images, options.output)
    failures: dict[str, str] = {}
    for image in tqdm(options.images, unit="photo", disable=len(options.images) == 1):
        try:
            seen, fitted = classifier.fit(read_photo(image))
            x = classifier.preprocess(fitted).to(device)
            classes = targets or _top(classifier, x, 1)[1]
            layers = layers or stages_of(classifier.model, x, named)
            maps = _maps(classifier, layers, options.method, x, classes, options.contrast)
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
    report_failures(failures, len(options.images), "images failed")
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
    classifier: Classifier, layers: Stages, methods: list[str], x: Tensor, targets: list[int], contrast: float = 3.0
) -> dict[str, Tensor]:
    """Return a map per target and method, titled by both."""
    attributed = {
        method: METHODS[method](classifier.model, layers, contrast=contrast)(x, targets) for method in methods
    }
    return {
        f"{TITLES[method]}\n{classifier.class_name(target)} ({target})": maps[:, index : index + 1]
        for index, target in enumerate(targets)
        for method, maps in attributed.items()
    }


def _at_photo_size(maps: dict[str, Tensor], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    upsampled = [LayerAttribution.interpolate(one.float(), size, interpolate_mode="bilinear") for one in maps.values()]
    stacked: npt.NDArray[np.float32] = torch.cat(upsampled, dim=1)[0].detach().cpu().numpy()
    return stacked


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
    add_model_arguments(explain)
    explain.add_argument(
        "--target", nargs="+", default=[], metavar="CLASS", help="classes by number or name; default: the likeliest"
    )
    explain.add_argument(
        "--method", type=methods, default=["region-cam"], metavar="A,B",
        help=f"of {', '.join(METHODS)}; default: region-cam. CAM and Grad-CAM take the last layer",
    )  # fmt: skip
    explain.add_argument(
        "--output", type=folder, default=Path(), metavar="DIR", help="where IMAGE_cam.png goes; default: here"
    )
    explain.add_argument(
        "--save-npy", action="store_true",
        help="also IMAGE_cam.npy: float32 (methods, classes, height, width), at the photo's size",
    )  # fmt: skip
    explain.set_defaults(run=_explain)
    add_commands(commands)
    return parser


_DEMO = """Run EfficientNet-Lite0 with its ImageNet weights on scikit-image's cat and draw the photo beside its
Grad-CAM, LayerCAM and Region-CAM. Needs the extra "demo" and no network."""
_EXPLAIN = """Write, for every image, a picture of the photo and its class activation maps. An image that fails does not
stop the others; it is reported at the end, with exit status 1."""
_EXAMPLES = """examples:
  captum-regioncam explain cat.jpg
  captum-regioncam explain photos/*.jpg --target tabby 207 --method grad-cam,region-cam --output maps --save-npy
  captum-regioncam explain cat.jpg --model torchvision:resnet50 --layers relu,layer1,layer2,layer3,layer4"""
