"""Groups of options that several commands have."""

import argparse
from pathlib import Path

from captum_regioncam.cli import values
from captum_regioncam.evaluation.datasets import LAYOUTS
from captum_regioncam.evaluation.metrics import ABSENT, UNLABELLED
from captum_regioncam.evaluation.protocol import DEFAULT_MODEL, INTERPOLATIONS, PRECISIONS, RESIZES, Protocol
from captum_regioncam.evaluation.titles import TITLES

__all__ = [
    "add_label_map_scores",
    "add_maps",
    "add_methods",
    "add_network",
    "add_photos",
    "add_refine",
    "add_resume",
    "add_threshold",
    "add_truth",
    "add_wait",
]


def add_photos(parser: argparse.ArgumentParser, dataset: str) -> None:
    """Add the options for the data set."""
    parser.add_argument(
        "--root", required=True, metavar="DIR", help=f"the data set's folder. {LAYOUTS[dataset].description}"
    )
    if split := LAYOUTS[dataset].split:
        parser.add_argument(
            "--split", default=split, metavar="NAME", help="split of the data set; default: %(default)s"
        )
    elif LAYOUTS[dataset].optional_split:
        parser.add_argument(
            "--split", metavar="NAME", help="split, only in wsolevaluation's layout (metadata/ILSVRC/); default: test"
        )
    else:
        parser.set_defaults(split=None)
    if LAYOUTS[dataset].labels_from:
        parser.add_argument(
            "--labels-from", "--labels", choices=("xml", "mask"), default=LAYOUTS[dataset].labels_from,
            help="take the classes of a photo from its XML file or from its mask; default: %(default)s",
        )  # fmt: skip
    else:
        parser.set_defaults(labels_from=None)
    if "masks" in LAYOUTS[dataset].options:
        add_truth(parser)
    else:
        parser.set_defaults(masks=None, crowds=None)
    parser.add_argument(
        "--limit", type=values.positive, metavar="N", help="only the first N photos; default: all photos"
    )


def add_truth(parser: argparse._ActionsContainer) -> None:
    """Add the options for the masks of coco."""
    parser.add_argument(
        "--masks", metavar="DIR",
        help="for coco: score against the finished masks (PNG) in this folder; default: masks are drawn from the "
        "annotations",
    )  # fmt: skip
    parser.add_argument(
        "--crowds", choices=("include", "ignore"),
        help="for coco: draw crowd regions into the masks (include), or do not count their pixels (ignore); default: "
        "include",
    )  # fmt: skip


def add_network(parser: argparse.ArgumentParser, protocol: Protocol, of_maps: bool = True) -> None:
    """Add the options for the network and for its input."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME",
        help="the network: %(default)s (default), torchvision:NAME, timm:NAME, or a function that returns it, as "
        "package.module:function or FILE.py:function",
    )  # fmt: skip
    group.add_argument(
        "--weights", metavar="FILE",
        help="a checkpoint (torch.save or safetensors), or 'none' for random weights; default: the model's own weights",
    )  # fmt: skip
    group.add_argument(
        "--weights-key", metavar="KEY",
        help="if the checkpoint contains several sets of weights, take those under this key, such as model_ema; "
        "default: those that fit best",
    )  # fmt: skip
    group.add_argument(
        "--allow-class", type=values.comma, action=_Extend, default=[], metavar="A,B",
        help="Python classes that the checkpoint may contain besides tensors and plain data, such as "
        "pathlib.PosixPath; only for files that you trust",
    )  # fmt: skip
    group.add_argument(
        "--layers", type=values.comma, metavar="A,B,C",
        help="dotted names of the layers; default: the stages, which are found automatically",
    )  # fmt: skip
    group.add_argument(
        "--reshape", metavar="LAYOUT",
        help="layout of the tensors of --layers: channels-last, or tokens:N[:M] with N tokens before the patches and M "
        "after them; default: it is measured",
    )  # fmt: skip
    group.add_argument(
        "--size", type=values.positive, metavar="N",
        help="side of the network's input, in pixels; default: the model's",
    )  # fmt: skip
    group.add_argument(
        "--mean", type=values.numbers(3), metavar="R,G,B",
        help="mean of each channel, for pixels in [0, 1]; default: the model's",
    )  # fmt: skip
    group.add_argument(
        "--std", type=values.numbers(3, above_zero=True), metavar="R,G,B",
        help="standard deviation of each channel, for pixels in [0, 1]; default: the model's",
    )  # fmt: skip
    group.add_argument(
        "--interpolation", choices=INTERPOLATIONS, metavar="NAME",
        help=f"interpolation that resizes the photo: {', '.join(INTERPOLATIONS)}; default: what a function's "
        "network specifies; otherwise the model's for --resize crop, and bicubic for the others",
    )  # fmt: skip
    group.add_argument(
        "--resize", choices=list(RESIZES), default=protocol.resize,
        help="squash: resize the whole photo to a square with the side --size; short: resize its short side to --size; "
        "crop: take the square in its centre; keep: keep its size; default: %(default)s",
    )  # fmt: skip
    group.add_argument(
        "--contrast", type=values.above_zero, default=4.0, metavar="C",
        help="power to which Region-CAM's maps, divided by their maximum, are raised; default: %(default)g",
    )  # fmt: skip
    if of_maps:  # layers are chosen in float32
        group.add_argument(
            "--precision", choices=PRECISIONS, default=PRECISIONS[0],
            help="precision of the network's forward and backward passes; the weights stay as they are, and maps are "
            "float32; default: %(default)s",
        )  # fmt: skip
    else:
        parser.set_defaults(precision=PRECISIONS[0])
    group.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; default: cuda if it is available, otherwise cpu"
    )


def add_maps(parser: argparse.ArgumentParser, protocol: Protocol, of_masks: bool = True) -> None:
    """Add the options for making maps."""
    add_network(parser, protocol)
    scales = ",".join(f"{scale:g}" for scale in protocol.scales)
    group = parser.add_argument_group("maps")
    group.add_argument(
        "--scales", type=values.numbers(None, above_zero=True), default=list(protocol.scales), metavar="S,S,...",
        help=f"scales of the network's input; the maps of all scales are added; default: {scales}",
    )  # fmt: skip
    group.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=protocol.flip,
        help=f"also add the maps of the mirrored photo; default: {'--flip' if protocol.flip else '--no-flip'}",
    )  # fmt: skip
    if of_masks:  # boxes are compared on a square, where every map is stretched
        group.add_argument(
            "--upsample", choices=("irn", "photo"), default=protocol.upsample,
            help="irn: upsample maps to the next multiples of 16, and crop them to the photo, as IRN does; photo: "
            "upsample them straight to the photo's size; default: %(default)s",
        )  # fmt: skip
        group.add_argument(
            "--normalize", choices=("max", "minmax"), default=protocol.normalize,
            help="max: divide each map by its maximum; minmax: stretch it from its minimum to its maximum; default: "
            "%(default)s",
        )  # fmt: skip
    else:
        parser.set_defaults(upsample=protocol.upsample, normalize=protocol.normalize)
    add_refine(group)
    group.add_argument(
        "--batch", type=values.positive, default=protocol.batch, metavar="N",
        help="number of consecutive photos that go through the network together if their inputs have the same size; "
        "default: %(default)s",
    )  # fmt: skip
    group.add_argument(
        "--readers", type=values.whole, metavar="N",
        help="number of processes that read photos ahead; default: 0 on the CPU, 4 with a GPU",
    )  # fmt: skip


def add_refine(group: argparse._ActionsContainer) -> None:
    """Add the option to refine maps."""
    group.add_argument(
        "--refine", action="store_true",
        help="refine the maps with the photo, so that they follow its edges; this improves masks, but not boxes",
    )  # fmt: skip


def add_methods(parser: argparse.ArgumentParser) -> None:
    """Add the option for one or several methods."""
    parser.add_argument(
        "--method", type=values.names_among(list(TITLES)), action=_Extend, default=["region-cam"], metavar="A,B",
        help=f"one or more of {', '.join(TITLES)}, separated by commas; cam and grad-cam use only the last layer; "
        "default: region-cam",
    )  # fmt: skip


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """Add the option for the background threshold."""
    parser.add_argument(
        "--threshold", type=values.fraction, default=0.15, metavar="T",
        help="background threshold: pixels where no map is above it are background; default: %(default)s",
    )  # fmt: skip


def add_label_map_scores(parser: argparse.ArgumentParser) -> None:
    """Add the options for finished label maps, and for the classes that a mean counts."""
    parser.add_argument(
        "--label-maps", type=Path, metavar="DIR",
        help="score the finished label maps in this folder (NAME.png, indexed or grey), also by precision, recall, FP "
        "and FN; no network is run",
    )  # fmt: skip
    parser.add_argument(
        "--unlabelled", choices=UNLABELLED, default="background",
        help="what a pixel of 255 in --label-maps counts as: background, as in IRN (default); missed, as in SEAM; or "
        "ignored, as if it were 255 in the mask, too",
    )  # fmt: skip
    parser.add_argument(
        "--absent", choices=ABSENT, default="ignore",
        help="how the mean treats classes that are in none of the masks: ignore leaves them out unless they are "
        "predicted, as IRN does (default); zero counts them as 0, as SEAM and MCTformer do; ignore-predicted always "
        "leaves them out, as CLIP-ES and ToCo do",
    )  # fmt: skip


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the option to wait for seeds."""
    parser.add_argument(
        "--wait", action="store_true",
        help="if a run is still writing the seeds, wait until it has finished; default: this is an error",
    )  # fmt: skip


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add the option to continue."""
    parser.add_argument(
        "--resume", action="store_true", help="continue where an earlier run of the same command was interrupted"
    )


class _Extend(argparse.Action):
    """Collect the values from every use of an option, in place of its default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        found = values if isinstance(values, list) else [values]
        before = getattr(namespace, self.dest)
        before = [] if before is self.default else before
        setattr(namespace, self.dest, list(dict.fromkeys([*before, *found])))
