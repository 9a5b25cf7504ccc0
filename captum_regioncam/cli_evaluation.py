"""The command line of the evaluation: ``captum-regioncam seeds`` and ``captum-regioncam evaluate``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_regioncam.arguments import add_model_arguments, check_picture, folder, methods, numbers, positive
from captum_regioncam.classifiers import UsageError
from captum_regioncam.methods import METHODS

__all__ = ["add_commands"]

_WHOLE_PHOTO = ("squash", "short", "keep")


def _add_photos(parser: argparse.ArgumentParser, datasets: Sequence[str]) -> None:
    parser.add_argument("dataset", choices=datasets, help="which layout --root has")
    parser.add_argument("--root", required=True, metavar="DIR", help="the data set's folder")
    parser.add_argument("--split", metavar="NAME", help="of voc (default: train) or coco (default: val2014)")
    parser.add_argument(
        "--labels", choices=("xml", "mask"), default="xml", help="where voc's classes come from; default: %(default)s"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N photos alone")


def _add_maps(parser: argparse.ArgumentParser, scales: str) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--scales", type=numbers(None, above_zero=True), metavar="S,S,...",
        help=f"of the network's input, whose maps are added; default: {scales}",
    )  # fmt: skip
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="also of the mirrored photo; default: likewise",
    )
    parser.add_argument(
        "--normalize", choices=("max", "minmax"),
        help="divide each map by its maximum, as IRN does (default for voc and coco), or stretch it from minimum to "
        "maximum (default for the rest)",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=_fraction, default=0.15, metavar="T", help="of the background; default: %(default)s"
    )


def _fraction(value: str) -> float:
    found = numbers(None)(value)
    if len(found) > 1 or not 0 <= found[0] < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not from 0 to below 1")
    return found[0]


def _step(value: str) -> float:
    step = _fraction(value)
    if not step:
        raise argparse.ArgumentTypeError(f"{value!r} is not above 0")
    return step


def _check_outputs(options: argparse.Namespace) -> None:
    """See before a long run what would end it, or what would not be heeded."""
    for path in (options.json, options.plot):
        if path and path.is_dir():
            raise UsageError(f"{path}: is a folder; give a file to write.")
    if options.plot:
        check_picture("--plot", options.plot)
    if options.dataset == "ilsvrc" and (options.seeds or options.resize == "crop"):
        raise UsageError("evaluate ilsvrc: boxes are those of whole photos; give neither --seeds nor --resize crop.")
    if options.seeds and not options.seeds.is_dir():
        raise UsageError(f"--seeds {options.seeds}: no such folder.")
    if options.seeds and options.method:
        raise UsageError("--seeds: are scored as they are; give no --method with them.")


def _run(options: argparse.Namespace) -> int:
    """Fill in what the protocol of a data set says (maps of the photo's own size, scales and flips), and run."""
    of_seeds = options.command == "seeds" or options.dataset in ("voc", "coco")
    if options.resize is None:
        options.resize = "keep" if of_seeds and options.size is None else "squash"
    if options.command == "seeds" and options.resize not in _WHOLE_PHOTO:
        raise UsageError(f"--resize {options.resize}: a seed has the whole photo; choose {', '.join(_WHOLE_PHOTO)}.")
    if options.scales is None:
        options.scales = [1.0, 0.5, 1.5, 2.0] if of_seeds else [1.0]
    if options.flip is None:
        options.flip = of_seeds
    if options.normalize is None:
        options.normalize = "max" if of_seeds else "minmax"
    if options.size and options.resize == "keep":
        raise UsageError("--size: has no meaning with --resize keep.")
    if options.command == "evaluate":
        _check_outputs(options)
    try:
        import pycocotools  # noqa: F401

        from captum_regioncam.evaluation import commands
    except ImportError as error:
        hint = 'the command needs: pip install "captum_regioncam[eval]"'
        raise UsageError(str(error) if "captum_regioncam[eval]" in str(error) else f"{hint} ({error}).") from error
    if options.command == "seeds":
        return commands.seeds(options)
    options.method = list(dict.fromkeys(options.method or ["region-cam"]))
    return commands.evaluate(options)


def add_commands(commands: Any) -> None:
    """Add ``seeds`` and ``evaluate`` to the command line's parsers."""
    seeds = commands.add_parser(
        "seeds",
        help="write seed files for weakly supervised segmentation",
        description=_SEEDS,
        epilog=_SEEDS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_photos(seeds, ["voc", "coco", "folder"])
    _add_maps(seeds, "1,0.5,1.5,2 and flips, of the photo's own size")
    seeds.add_argument("--method", choices=METHODS, default="region-cam", help="default: %(default)s")
    seeds.add_argument(
        "--format", choices=("irn", "psa", "clip-es", "wsol"), default="irn",
        help="that of IRN, ReCAM, LPCAM (default); PSA, SEAM, MCTformer; CLIP-ES; or wsolevaluation's score maps",
    )  # fmt: skip
    seeds.add_argument("--output", type=folder, required=True, metavar="DIR", help="where NAME.npy goes")
    seeds.add_argument(
        "--label-maps", type=folder, metavar="DIR", help="also NAME.png at --threshold, with VOC's palette"
    )
    seeds.add_argument("--resume", action="store_true", help="go on where a run with the same settings ended")
    seeds.set_defaults(run=_run)

    evaluate = commands.add_parser(
        "evaluate",
        help="score methods on photos with masks or boxes",
        description=_EVALUATE,
        epilog=_EVALUATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_photos(evaluate, ["voc", "coco", "ilsvrc", "folder"])
    _add_maps(evaluate, "1,0.5,1.5,2 and flips for voc and coco, 1 without for the rest")
    evaluate.add_argument(
        "--method", type=methods, action="extend", metavar="A,B",
        help=f"of {', '.join(METHODS)}; may be repeated; default: region-cam",
    )  # fmt: skip
    evaluate.add_argument("--seeds", type=folder, metavar="DIR", help="score these seed files instead of new maps")
    boxes = evaluate.add_argument_group("boxes (ilsvrc)")
    boxes.add_argument("--box", choices=("contour", "rectangle"), default="contour", help="whose area is largest")
    boxes.add_argument("--box-threshold", type=_fraction, metavar="T", help="default: the best of the set")
    boxes.add_argument("--step", type=_step, default=0.01, metavar="T", help="between thresholds; default: 0.01")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the figures, in percent")
    evaluate.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the score over the threshold, a curve a method"
    )
    evaluate.set_defaults(run=_run)


_SEEDS = """Write a seed for every photo's labelled classes: NAME.npy, maps added over scales and flips.
A photo that fails does not stop the others. Under torchrun, processes share the photos."""
_SEEDS_EXAMPLES = """examples:
  captum-regioncam seeds voc --root VOCdevkit/VOC2012 --model examples.irn_resnet50:network \\
      --weights res50_cam.pth --output seeds --label-maps labels
  torchrun --nproc-per-node 4 -m captum_regioncam seeds voc --root VOCdevkit/VOC2012 ... --output seeds --resume"""
_EVALUATE = """Score methods side by side: mIoU of label maps (voc, coco, folder) or boxes (ilsvrc). Under torchrun,
processes share the photos."""
_EVALUATE_EXAMPLES = """examples:
  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --seeds seeds --plot miou.png
  captum-regioncam evaluate ilsvrc --root ILSVRC --model torchvision:vgg16 --method region-cam --method layer-cam
  captum-regioncam evaluate folder --root photos --method region-cam,grad-cam --resize crop --json out.json"""
