"""The parser of the command line: every option of every command, with its default."""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from captum_regioncam import __version__
from captum_regioncam.cli import values
from captum_regioncam.cli.terminal import say
from captum_regioncam.evaluation.classifier import RESIZES
from captum_regioncam.evaluation.datasets import LAYOUTS
from captum_regioncam.evaluation.methods import METHODS
from captum_regioncam.evaluation.models import DEFAULT_MODEL
from captum_regioncam.evaluation.protocol import PROTOCOLS, Protocol
from captum_regioncam.evaluation.seeds import FORMATS

__all__ = ["MAP_OPTIONS", "build_parser"]

MAP_OPTIONS = (
    "model", "weights", "layers", "size", "mean", "std", "resize", "contrast", "device", "scales", "flip", "normalize",
    "upsample", "batch", "method",
)  # fmt: skip
"""The options for making maps, without meaning where none are made."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser. Its options hold the command's name in ``command``, and its data set in ``dataset``."""
    parser = _Parser(
        prog="captum-regioncam",
        description="Region-CAM: maps of whole objects, with edges where the objects' edges are.",
    )
    parser.add_argument("--version", action="version", version=f"captum-regioncam {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_demo(commands)
    _add_explain(commands)
    _add_layers(commands)
    _add_classes(commands)
    _add_seeds(commands)
    _add_labels(commands)
    _add_evaluate(commands)
    return parser


def _command(commands: Any, name: str, help: str, description: str, examples: str, **more: Any) -> Any:
    epilog = f"examples:\n{examples}" if examples else None
    return commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )


def _add_demo(commands: Any) -> None:
    demo = _command(commands, "demo", "explain a photo of a cat, offline", _DEMO, "")
    demo.add_argument(
        "--output", type=Path, default=Path("region_cam_demo.png"), metavar="FILE", help="default: %(default)s"
    )


def _add_explain(commands: Any) -> None:
    explain = _command(
        commands, "explain", "explain your own photos", _EXPLAIN, _EXPLAIN_EXAMPLES,
        usage="captum-regioncam explain IMAGE [IMAGE ...] [options]",
    )  # fmt: skip
    explain.add_argument("images", nargs="+", metavar="IMAGE", help="image files, and folders of them")
    _add_network(explain, Protocol())
    explain.add_argument(
        "--target", nargs="+", type=values.comma, default=[], metavar="CLASS",
        help="classes by number or name, separated by spaces or commas; default: the likeliest",
    )  # fmt: skip
    _add_methods(explain)
    explain.add_argument(
        "--output", type=values.folder, default=Path(), metavar="DIR", help="folder for IMAGE_cam.png; default: here"
    )
    explain.add_argument(
        "--save-npy", action="store_true",
        help="also write IMAGE_cam.npy: float32 (methods, classes, height, width), at the photo's size",
    )  # fmt: skip
    explain.add_argument(
        "--overlay", action="store_true",
        help="also write IMAGE_METHOD_CLASS.png for each method and class: the map over the photo, at its size",
    )  # fmt: skip


def _add_layers(commands: Any) -> None:
    layers = _command(commands, "layers", "list a network's layers and the chosen ones", _LAYERS, _LAYERS_EXAMPLES)
    _add_network(layers, Protocol())
    layers.add_argument("--all", action="store_true", help="also list the layers inside blocks")


def _add_classes(commands: Any) -> None:
    classes = _command(commands, "classes", "list a network's classes", _CLASSES, _CLASSES_EXAMPLES)
    classes.add_argument("word", nargs="?", metavar="WORD", help="only classes with this word in one of their names")
    classes.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME", help="default: %(default)s")
    classes.add_argument("--weights", default="none", help=argparse.SUPPRESS)


def _add_seeds(commands: Any) -> None:
    seeds = _command(commands, "seeds", "write seed files for weakly supervised segmentation", _SEEDS, _SEEDS_EXAMPLES)
    for name, dataset in _datasets(seeds, _SEEDS, ("voc", "coco", "folder")):
        _add_photos(dataset, name)
        _add_maps(dataset, PROTOCOLS[name])
        dataset.add_argument(
            "--method", type=values.name_among(list(METHODS)), default="region-cam", metavar="A",
            help=f"one of {', '.join(METHODS)}; default: %(default)s",
        )  # fmt: skip
        dataset.add_argument(
            "--format", choices=tuple(FORMATS), default="irn",
            help="the format of IRN, ReCAM, LPCAM (default); PSA, SEAM, MCTformer; CLIP-ES; or wsolevaluation",
        )  # fmt: skip
        dataset.add_argument("--output", type=values.folder, required=True, metavar="DIR", help="folder for NAME.npy")
        dataset.add_argument(
            "--label-maps", type=values.folder, metavar="DIR",
            help="folder for label maps at --threshold, written afterwards as by the command labels",
        )  # fmt: skip
        _add_threshold(dataset)
        _add_resume(dataset)


def _add_labels(commands: Any) -> None:
    labels = _command(commands, "labels", "write label maps from finished seeds", _LABELS, _LABELS_EXAMPLES)
    labels.set_defaults(given=functools.partial(_given, labels))
    labels.add_argument("seeds", type=Path, metavar="SEEDS", help="the folder of NAME.npy, in any format")
    labels.add_argument("--output", type=values.folder, required=True, metavar="DIR", help="folder for NAME.png")
    labels.add_argument(
        "--threshold", type=values.threshold, default=0.15, metavar="T",
        help="background threshold, or 'best': the one with the highest mIoU against the data set's masks; default: "
        "%(default)s",
    )  # fmt: skip
    labels.add_argument(
        "--overlay", type=values.folder, metavar="DIR", help="folder for NAME.png over the photo, half transparent"
    )
    labels.add_argument("--limit", type=values.positive, metavar="N", help="only the first N photos")
    _add_resume(labels)
    photos = labels.add_argument_group(
        "photos and masks", "for --threshold best, --overlay and --crf; default: the data set of the seeds"
    )
    photos.add_argument("--dataset", choices=("voc", "coco", "folder"), help="the layout of --root")
    photos.add_argument("--root", metavar="DIR", help="the data set's folder")
    photos.add_argument("--split", metavar="NAME", help="split of voc (default: train) or coco (default: val2014)")
    crf = labels.add_argument_group("dense CRF", 'needs the extra "crf"')
    crf.add_argument(
        "--crf", choices=("irn", "psa"),
        help="irn: refine each label map at --threshold as IRN does; psa: write the maps themselves, {0: background, "
        "class + 1: map}, for training PSA and SEAM, to a folder alpha-A for each --alpha",
    )  # fmt: skip
    crf.add_argument(
        "--confident", type=values.fractions, metavar="B,F", nargs="?", const=[0.05, 0.3],
        help="with --crf irn: instead of one threshold, label background below B, classes above F and 255 in between, "
        "as for IRN's training; default of B,F: 0.05,0.3",
    )  # fmt: skip
    crf.add_argument(
        "--alpha", type=values.numbers(None, above_zero=True), default=[4.0, 24.0], metavar="A,A",
        help="with --crf psa: powers of the background; default: 4,24",
    )  # fmt: skip


def _add_evaluate(commands: Any) -> None:
    evaluate = _command(
        commands, "evaluate", "score methods on photos with masks or boxes", _EVALUATE, _EVALUATE_EXAMPLES
    )
    for name, dataset in _datasets(evaluate, _EVALUATE, tuple(PROTOCOLS)):
        _add_photos(dataset, name)
        _add_maps(dataset, PROTOCOLS[name], of_masks=name != "ilsvrc")
        _add_methods(dataset)
        if name == "ilsvrc":
            dataset.add_argument(
                "--box", choices=("contour", "rectangle"), default="contour",
                help="of several boxes, take that of the largest contour (default) or the largest bounding rectangle",
            )  # fmt: skip
            dataset.add_argument(
                "--box-threshold", type=values.fraction, metavar="T",
                help="threshold for GT-known, Loc1 and Loc5; default: the best one",
            )  # fmt: skip
            dataset.add_argument(
                "--step", type=values.step, default=0.01, metavar="T",
                help="step between thresholds; default: %(default)s",
            )  # fmt: skip
        else:
            _add_threshold(dataset)
            dataset.add_argument("--seeds", type=Path, metavar="DIR", help="score these seed files; no network is run")
        dataset.add_argument("--json", type=Path, metavar="FILE", help="write the scores, in percent")
        dataset.add_argument(
            "--plot", type=Path, metavar="FILE", help="draw the score over the threshold, one curve per method"
        )
        _add_resume(dataset)


def _datasets(command: Any, description: str, names: Sequence[str]) -> list[tuple[str, Any]]:
    """Add a command's data sets; each shows its own protocol."""
    datasets = command.add_subparsers(dest="dataset", required=True, metavar="DATASET", title="data sets")
    parsers = []
    for name in names:
        parser = datasets.add_parser(
            name,
            help=LAYOUTS[name].description,
            description=f"{description}\n\nDefault protocol of {name}: {PROTOCOLS[name]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(given=functools.partial(_given, parser))
        parsers.append((name, parser))
    return parsers


def _given(parser: argparse.ArgumentParser, options: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Return those of the named options whose value is not the default."""
    return [name for name in names if getattr(options, name) != parser.get_default(name)]


def _add_photos(parser: Any, dataset: str) -> None:
    parser.add_argument("--root", required=True, metavar="DIR", help=LAYOUTS[dataset].description)
    if split := LAYOUTS[dataset].split:
        parser.add_argument("--split", default=split, metavar="NAME", help="default: %(default)s")
    if dataset == "voc":
        parser.add_argument(
            "--labels", choices=("xml", "mask"), default="xml", help="where the classes come from; default: %(default)s"
        )
    parser.add_argument("--limit", type=values.positive, metavar="N", help="only the first N photos")


def _add_network(parser: Any, protocol: Protocol) -> None:
    """Add the options for the network and for its input."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME",
        help="%(default)s (default), torchvision:resnet50, timm:NAME, or package.module:factory",
    )  # fmt: skip
    group.add_argument("--weights", metavar="FILE", help="a checkpoint, or 'none'; default: the model's own")
    group.add_argument("--layers", type=values.comma, metavar="A,B,C", help="dotted names; default: the stages found")
    group.add_argument("--size", type=values.positive, metavar="N", help="input side in pixels; default: the model's")
    group.add_argument(
        "--mean", type=values.numbers(3), metavar="R,G,B", help="of pixels in [0, 1]; default: the model's"
    )
    group.add_argument("--std", type=values.numbers(3, above_zero=True), metavar="R,G,B", help="likewise")
    group.add_argument(
        "--resize", choices=RESIZES, default=protocol.resize,
        help="squash the whole photo to N x N, bring its short side to N, crop its centre, or keep its size; default: "
        "%(default)s",
    )  # fmt: skip
    group.add_argument(
        "--contrast", type=values.above_zero, default=3.0, metavar="C",
        help="power that Region-CAM's maps are raised to; 1 gives the plain mean of the layers' maps; default: "
        "%(default)g",
    )  # fmt: skip
    group.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; default: cuda if available")


def _add_maps(parser: Any, protocol: Protocol, of_masks: bool = True) -> None:
    _add_network(parser, protocol)
    scales = ",".join(f"{scale:g}" for scale in protocol.scales)
    group = parser.add_argument_group("maps")
    group.add_argument(
        "--scales", type=values.numbers(None, above_zero=True), default=list(protocol.scales), metavar="S,S,...",
        help=f"scales of the network's input; their maps are added; default: {scales}",
    )  # fmt: skip
    group.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=protocol.flip,
        help=f"also add the maps of the mirrored photo; default: {'--flip' if protocol.flip else '--no-flip'}",
    )  # fmt: skip
    if of_masks:  # boxes are compared on a square, where every map is stretched
        group.add_argument(
            "--upsample", choices=("irn", "photo"), default=protocol.upsample,
            help="upsample maps to the next multiples of 16 and crop them to the photo, as IRN does, or upsample them "
            "straight to the photo's size; default: %(default)s",
        )  # fmt: skip
        group.add_argument(
            "--normalize", choices=("max", "minmax"), default=protocol.normalize,
            help="divide each map by its maximum, or stretch it from its minimum to its maximum; default: %(default)s",
        )  # fmt: skip
    group.add_argument(
        "--batch", type=values.positive, default=protocol.batch, metavar="N",
        help="number of neighbouring photos that go through the network together if their inputs have the same size; "
        "default: %(default)s",
    )  # fmt: skip
    group.add_argument(
        "--readers", type=values.whole, metavar="N",
        help="number of processes that read photos ahead; default: 0 on the CPU, 4 with a GPU",
    )  # fmt: skip


def _add_methods(parser: Any) -> None:
    parser.add_argument(
        "--method", type=values.names_among(list(METHODS)), action=_Extend, default=["region-cam"], metavar="A,B",
        help=f"one or more of {', '.join(METHODS)}; default: region-cam. CAM and Grad-CAM use only the last layer",
    )  # fmt: skip


def _add_threshold(parser: Any) -> None:
    parser.add_argument(
        "--threshold", type=values.fraction, default=0.15, metavar="T",
        help="background threshold; default: %(default)s",
    )  # fmt: skip


def _add_resume(parser: Any) -> None:
    parser.add_argument("--resume", action="store_true", help="continue where the same command was interrupted")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors name the remedy and hold no control characters."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where the options are listed, and exit with 2."""
        self.print_usage(sys.stderr)
        say(f"{self.prog}: error: {message}; see {self.prog} --help", error=True)
        sys.exit(2)


class _Extend(argparse.Action):
    """Collect the values of an option from each time it is given, in place of its default."""

    def __call__(self, parser: Any, namespace: Any, found: Any, option_string: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        before = [] if before is self.default else before
        setattr(namespace, self.dest, list(dict.fromkeys([*before, *found])))


_DEMO = """Run EfficientNet-Lite0 with its ImageNet weights on scikit-image's cat and draw the photo beside its
Grad-CAM, LayerCAM and Region-CAM. Needs the extra "demo", but no internet connection."""
_EXPLAIN = """For every image, write a picture of the photo and its class activation maps. An image that fails does not
stop the others; it is reported at the end, with exit status 1."""
_EXPLAIN_EXAMPLES = """  captum-regioncam explain cat.jpg
  captum-regioncam explain photos/*.jpg --target tabby 207 --method grad-cam,region-cam --output maps --save-npy
  captum-regioncam explain cat.jpg --model torchvision:resnet50 --layers relu,layer1,layer2,layer3,layer4"""
_LAYERS = """List the layers whose outputs are on a grid, with their shapes for one photo of the network's size. Those
marked with * are the chosen ones: those of --layers, or else the stages found."""
_LAYERS_EXAMPLES = """  captum-regioncam layers --model torchvision:resnet50
  captum-regioncam layers --model timm:vit_tiny_patch16_224 --weights none --all"""
_CLASSES = """List the numbers and names of a network's classes, which --target takes."""
_CLASSES_EXAMPLES = """  captum-regioncam classes cat
  captum-regioncam classes --model torchvision:resnet50 dog"""
_SEEDS = """For every photo, write a seed, NAME.npy: the maps of its labelled classes, added over scales and flips.
A photo that fails does not stop the others. Under torchrun, processes share the photos."""
_SEEDS_EXAMPLES = """  captum-regioncam seeds voc --root VOCdevkit/VOC2012 --model examples.irn_resnet50:network \\
      --weights res50_cam.pth --output seeds
  torchrun --nproc-per-node 4 -m captum_regioncam seeds voc --root VOCdevkit/VOC2012 ... --output seeds --resume
  captum-regioncam seeds voc --help      the options and defaults of voc"""
_LABELS = """Write label maps from finished seeds, with VOC's palette: each pixel's best class, or the background where
no map is above the threshold. No network is run. Under torchrun, processes share the photos."""
_LABELS_EXAMPLES = """  captum-regioncam labels seeds --output labels --threshold 0.3
  captum-regioncam labels seeds --output labels --threshold best --overlay overlays
  captum-regioncam labels seeds --output ir_label --crf irn --confident
  captum-regioncam labels seeds --output crf --crf psa --alpha 4,24"""
_EVALUATE = """Score methods side by side: mIoU of label maps (voc, coco, folder) or boxes (ilsvrc). Under torchrun,
processes share the photos."""
_EVALUATE_EXAMPLES = """  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --seeds seeds --plot miou.png
  captum-regioncam evaluate ilsvrc --root ILSVRC --model torchvision:vgg16 --method region-cam,layer-cam
  captum-regioncam evaluate folder --root photos --method region-cam,grad-cam --resize crop --json out.json
  captum-regioncam evaluate voc --help   the options and defaults of voc"""
