"""The parser of the command line: the commands, and the options that only one of them has."""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from captum_regioncam import __version__
from captum_regioncam.cli import texts, values
from captum_regioncam.cli.groups import (
    add_label_map_scores,
    add_maps,
    add_methods,
    add_network,
    add_photos,
    add_refine,
    add_resume,
    add_threshold,
    add_truth,
    add_wait,
)
from captum_regioncam.cli.terminal import say
from captum_regioncam.evaluation.datasets import LAYOUTS
from captum_regioncam.evaluation.label_maps import BACKGROUNDS, CRFS
from captum_regioncam.evaluation.protocol import DEFAULT_MODEL, PROTOCOLS, Protocol
from captum_regioncam.evaluation.seeds import DTYPES, FORMATS
from captum_regioncam.evaluation.titles import TITLES

__all__ = ["COMMANDS", "build_parser"]

COMMANDS = {
    "demo": "demo",
    "explain": "explain",
    "app": "app",
    "layers": "layers",
    "classes": "classes",
    "seeds": "seeds",
    "label-maps": "label_maps",
    "labels": "label_maps",  # as the command was called up to 0.2
    "evaluate": "evaluate",
}
"""The commands, and the modules that they are in."""
_WITH_MASKS = [name for name, layout in LAYOUTS.items() if layout.truth == "masks"]


def build_parser() -> argparse.ArgumentParser:
    """Build the parser. What it parses has the command's name in ``command``, and the data set in ``dataset``."""
    parser = _Parser(
        prog="captum-regioncam",
        description="Region-CAM: maps of whole objects, with edges where the objects' edges are.",
        epilog=texts.AFTER_COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"captum-regioncam {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_demo(commands)
    _add_explain(commands)
    _add_app(commands)
    _add_layers(commands)
    _add_classes(commands)
    _add_seeds(commands)
    _add_label_maps(commands)
    _add_evaluate(commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    help: str,
    description: str,
    examples: str,
    aliases: Sequence[str] = (),
    usage: str | None = None,
) -> "_Parser":
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        aliases=aliases,
        usage=usage,
    )
    parser.set_defaults(parser=parser)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[_Parser]") -> None:
    demo = _command(commands, "demo", "explain a photo of a cat, offline", texts.DEMO, texts.DEMO_EXAMPLES)
    demo.add_argument(
        "--output", type=Path, default=Path("region_cam_demo.png"), metavar="FILE",
        help="picture to write: .png, .jpg, .pdf or .svg; default: %(default)s",
    )  # fmt: skip


def _add_explain(commands: "argparse._SubParsersAction[_Parser]") -> None:
    explain = _command(
        commands, "explain", "explain your own photos", texts.EXPLAIN, texts.EXPLAIN_EXAMPLES,
        usage="captum-regioncam explain IMAGE [IMAGE ...] [options]",
    )  # fmt: skip
    explain.add_argument("images", nargs="+", metavar="IMAGE", help="photos, and folders of photos")
    add_network(explain, Protocol())
    explain.add_argument(
        "--target", nargs="+", type=values.comma, default=[], metavar="CLASS",
        help="classes by number or name, separated by spaces or commas; default: the most likely class of each photo",
    )  # fmt: skip
    add_methods(explain)
    add_refine(explain)
    explain.add_argument(
        "--output", type=values.folder, default=Path(), metavar="DIR",
        help="folder for the pictures, IMAGE_cam.png; default: the current folder",
    )  # fmt: skip
    explain.add_argument(
        "--save-npy", action="store_true",
        help="also write the maps to IMAGE_cam.npy: float32 (methods, classes, height, width), at the photo's size",
    )  # fmt: skip
    explain.add_argument(
        "--overlay", action="store_true",
        help="also write IMAGE_METHOD_CLASS.png for each method and class: the map over the photo, at the photo's size",
    )  # fmt: skip
    explain.add_argument(
        "--masks", action="store_true",
        help="also write IMAGE_METHOD_CLASS_mask.png for each method and class: 255 where the map is above "
        "--threshold and 0 elsewhere, at the photo's size",
    )  # fmt: skip
    explain.add_argument(
        "--boxes", action="store_true",
        help="also write the boxes of the masks' regions to manifest.json, the largest region first: x0, y0, x1, y1 in "
        "the photo's pixels; needs the extra regions",
    )  # fmt: skip
    explain.add_argument(
        "--threshold", type=values.cut, default=0.15, metavar="T",
        help="threshold of --masks and --boxes: a share of each map's maximum, or 'otsu' to find one for each map, "
        "which needs the extra regions; default: %(default)s",
    )  # fmt: skip


def _add_app(commands: "argparse._SubParsersAction[_Parser]") -> None:
    app = _command(commands, "app", "try the methods on your own photos in a browser", texts.APP, texts.APP_EXAMPLES)
    app.add_argument(
        "--port", type=values.port, metavar="N",
        help="port of the page, 1024 to 65535; default: the first free one from 7860",
    )  # fmt: skip
    app.add_argument(
        "--share", action="store_true",
        help="also serve the page at a public address, through Gradio's servers; default: only on this computer",
    )  # fmt: skip
    add_network(app, Protocol())


def _add_layers(commands: "argparse._SubParsersAction[_Parser]") -> None:
    layers = _command(
        commands, "layers", "list a network's layers, and which of them are chosen", texts.LAYERS, texts.LAYERS_EXAMPLES
    )
    add_network(layers, Protocol(), of_maps=False)
    layers.add_argument("--all", action="store_true", help="also list the layers inside blocks")


def _add_classes(commands: "argparse._SubParsersAction[_Parser]") -> None:
    classes = _command(commands, "classes", "list a network's classes", texts.CLASSES, texts.CLASSES_EXAMPLES)
    classes.add_argument("word", nargs="?", metavar="WORD", help="only classes with this word in one of their names")
    classes.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME",
        help="the network: %(default)s (default), torchvision:NAME or timm:NAME",
    )  # fmt: skip
    classes.add_argument("--weights", default="none", help=argparse.SUPPRESS)


def _add_seeds(commands: "argparse._SubParsersAction[_Parser]") -> None:
    seeds = _command(
        commands, "seeds", "write seed files for weakly supervised segmentation and localisation", texts.SEEDS,
        texts.SEEDS_EXAMPLES,
    )  # fmt: skip
    for name, dataset in _datasets(seeds, texts.SEEDS, tuple(PROTOCOLS)):
        add_photos(dataset, name)
        add_maps(dataset, PROTOCOLS[name], of_masks=name in _WITH_MASKS)
        dataset.add_argument(
            "--method", type=values.name_among(list(TITLES)), default="region-cam", metavar="A",
            help=f"one of {', '.join(TITLES)}; default: %(default)s",
        )  # fmt: skip
        dataset.add_argument(
            "--format", choices=list(FORMATS), default="irn" if name in _WITH_MASKS else "wsol",
            help="format of the files. irn: IRN, ReCAM, LPCAM and ToCo; psa: PSA, SEAM and MCTformer; clip-es: "
            "CLIP-ES; wsol: wsolevaluation, whose maps are always 224 x 224, stretched from minimum to maximum; "
            "default: %(default)s",
        )  # fmt: skip
        dataset.add_argument(
            "--dtype", choices=DTYPES, default=DTYPES[0],
            help="dtype of the maps at the photo's size (high_res) in --format irn; default: %(default)s",
        )  # fmt: skip
        dataset.add_argument(
            "--no-high-res", dest="high_res", action="store_false",
            help="in --format irn, leave out the maps at the photo's size (high_res) and write only those at a quarter "
            "of it (cam)",
        )  # fmt: skip
        dataset.add_argument(
            "--output", type=values.folder, required=True, metavar="DIR", help="folder for the seeds, NAME.npy"
        )
        dataset.add_argument(
            "--label-maps", type=values.folder, metavar="DIR",
            help="folder for label maps at --threshold, which are written afterwards, as the command label-maps does",
        )  # fmt: skip
        add_threshold(dataset)
        dataset.add_argument(
            "--shard", type=values.shard, metavar="I/N",
            help="do only the I-th of N parts of the photos, such as 3/16, for schedulers without torchrun; all parts "
            "may run at the same time and write to one folder",
        )  # fmt: skip
        add_resume(dataset)


def _add_label_maps(commands: "argparse._SubParsersAction[_Parser]") -> None:
    labels = _command(
        commands, "label-maps", "write label maps from finished seeds", texts.LABEL_MAPS, texts.LABEL_MAPS_EXAMPLES,
        aliases=["labels"],
    )  # fmt: skip
    labels.add_argument("seeds", type=Path, metavar="SEEDS", help="folder of the seeds, NAME.npy, in any format")
    labels.add_argument(
        "--output", type=values.folder, required=True, metavar="DIR", help="folder for the label maps, NAME.png"
    )
    add_refine(labels)
    labels.add_argument(
        "--threshold", type=values.threshold, default=0.15, metavar="T",
        help="background threshold, or 'best': the one with the highest mIoU against the data set's masks. With --crf, "
        "this is the mIoU after the CRF, and takes about 9 CRFs for each photo; default: %(default)s",
    )  # fmt: skip
    labels.add_argument(
        "--overlay", type=values.folder, metavar="DIR",
        help="also write pictures of the label maps over the photos, half transparent, to this folder",
    )  # fmt: skip
    labels.add_argument("--limit", type=values.positive, metavar="N", help="only the first N seeds; default: all seeds")
    add_wait(labels)
    add_resume(labels)
    photos = labels.add_argument_group(
        "photos and masks",
        "needed for --refine, --threshold best, --confident best, --overlay and --crf;\n"
        "default: the data set that the seeds were made from",
    )
    photos.add_argument("--dataset", choices=_WITH_MASKS, help="layout of the data set in --root")
    photos.add_argument("--root", metavar="DIR", help="the data set's folder")
    photos.add_argument("--split", metavar="NAME", help="split of voc (default: train) or coco (default: val2014)")
    add_truth(photos)
    labels.add_argument(
        "--background", choices=BACKGROUNDS,
        help="map of the background. constant: the threshold; clip-es: (1 - the highest map) ** --power; default: "
        "clip-es with --crf clip-es, otherwise constant",
    )  # fmt: skip
    labels.add_argument(
        "--power", type=values.above_zero, default=1.0, metavar="P",
        help="power in --background clip-es; default: %(default)g",
    )  # fmt: skip
    labels.add_argument(
        "--best-photos", type=values.positive, metavar="N",
        help="choose the best threshold on N photos, evenly spread over all; default: on all photos",
    )  # fmt: skip
    crf = labels.add_argument_group("dense CRF", 'needs the extra "crf"')
    crf.add_argument(
        "--crf", choices=CRFS,
        help="refine with the dense CRF of a pipeline. irn: of the label map; toco: of the softmax of the maps and the "
        "background; clip-es: of the maps as probabilities; psa: write the refined maps themselves, {0: background, "
        "class + 1: map}, for training PSA and SEAM, to a folder alpha-A for each --alpha; default: no CRF",
    )  # fmt: skip
    crf.add_argument(
        "--confident", type=values.confident, metavar="B,F", nargs="?", const=True,
        help="for training, label only pixels that are certain, and give the others 255. With --crf irn or toco: "
        "background below B and classes above F (without a value: 0.05,0.3 for irn and 0.25,0.7 for toco), or 'best': "
        "0.1 below and 0.15 above the threshold that is best before the CRF. With --crf clip-es: the least probability "
        "(without a value: 0.95)",
    )  # fmt: skip
    crf.add_argument(
        "--alpha", type=values.numbers(None, above_zero=True), default=[4.0, 24.0], metavar="A,A",
        help="with --crf psa: powers of the background, separated by commas; default: 4,24",
    )  # fmt: skip


def _add_evaluate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    evaluate = _command(
        commands, "evaluate", "score methods on photos with masks or boxes", texts.EVALUATE, texts.EVALUATE_EXAMPLES
    )
    for name, dataset in _datasets(evaluate, texts.EVALUATE, tuple(PROTOCOLS)):
        add_photos(dataset, name)
        add_maps(dataset, PROTOCOLS[name], of_masks=name in _WITH_MASKS)
        add_methods(dataset)
        if name not in _WITH_MASKS:
            dataset.set_defaults(threshold=0.15, label_maps=None, absent="ignore", unlabelled="background")
        if LAYOUTS[name].truth == "boxes":
            dataset.add_argument(
                "--box", choices=("contour", "rectangle"), default="contour",
                help="if a map has several boxes, take that of the largest contour (default) or the largest bounding "
                "rectangle",
            )  # fmt: skip
            dataset.add_argument(
                "--box-threshold", type=values.fraction, metavar="T",
                help="threshold of the maps for GT-known, Loc1 and Loc5; default: the best one",
            )  # fmt: skip
            dataset.add_argument(
                "--step", type=values.step, default=0.01, metavar="T",
                help="step between the thresholds that are tried; default: %(default)s",
            )  # fmt: skip
        else:
            dataset.set_defaults(box="contour", box_threshold=None, step=0.01)
        if name in _WITH_MASKS:
            add_threshold(dataset)
            add_label_map_scores(dataset)
        dataset.add_argument(
            "--seeds", type=Path, nargs="+", action="extend", metavar="DIR",
            help="score the finished seeds in these folders; no network is run unless --method is given, too",
        )  # fmt: skip
        add_wait(dataset)
        _add_outputs(dataset, with_classes=name in _WITH_MASKS)
        add_resume(dataset)


def _add_outputs(dataset: "_Parser", with_classes: bool) -> None:
    """Add the options for what evaluate writes."""
    group = dataset.add_argument_group("files to write")
    group.add_argument("--json", type=Path, metavar="FILE", help="write the scores, in percent, as JSON")
    group.add_argument(
        "--csv", type=Path, metavar="FILE",
        help="write a line of scores for each method; the file must not exist yet",
    )  # fmt: skip
    group.add_argument(
        "--latex", type=Path, metavar="FILE", help="write the table in LaTeX, for the LaTeX package booktabs"
    )
    if with_classes:
        group.add_argument(
            "--per-class", action="store_true",
            help="also show the IoU of each class, and write it to --csv and --latex",
        )  # fmt: skip
    else:
        dataset.set_defaults(per_class=False)
    group.add_argument(
        "--per-photo",
        type=Path,
        metavar="FILE.csv",
        help="write a line of scores for each photo and method; the file must not exist yet",
    )
    group.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the score at each threshold, with one curve for each method"
    )
    group.add_argument(
        "--gallery", type=values.folder, metavar="DIR",
        help="folder for pictures of each method's twenty best, median and worst photos, and a page with all of them",
    )  # fmt: skip


def _datasets(command: "_Parser", description: str, names: Sequence[str]) -> Iterator[tuple[str, "_Parser"]]:
    """Add a command's data sets; each shows its own protocol."""
    datasets = command.add_subparsers(dest="dataset", required=True, metavar="DATASET", title="data sets")
    for name in names:
        parser = datasets.add_parser(
            name,
            help=LAYOUTS[name].description,
            description=f"{description}\n\n{textwrap.fill(f'Default protocol of {name}: {PROTOCOLS[name]}.', 118)}",
            epilog=f"For examples, see {command.prog} --help.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(parser=parser)
        yield name, parser


class _Parser(argparse.ArgumentParser):
    """A parser whose errors name the remedy and hold no control characters."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where the options are listed, and exit with 2."""
        self.print_usage(sys.stderr)
        say(f"{self.prog}: error: {message}; see {self.prog} --help", error=True)
        sys.exit(2)
