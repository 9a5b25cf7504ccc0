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
    parser.add_argument("--root", required=True, metavar="DIR", help=LAYOUTS[dataset].description)
    if split := LAYOUTS[dataset].split:
        parser.add_argument("--split", default=split, metavar="NAME", help="default: %(default)s")
    elif LAYOUTS[dataset].optional_split:
        parser.add_argument(
            "--split", metavar="NAME", help="of wsolevaluation's layout, metadata/ILSVRC/; default: test"
        )
    else:
        parser.set_defaults(split=None)
    if LAYOUTS[dataset].labels_from:
        parser.add_argument(
            "--labels-from", "--labels", choices=("xml", "mask"), default=LAYOUTS[dataset].labels_from,
            help="where the classes come from; default: %(default)s",
        )  # fmt: skip
    else:
        parser.set_defaults(labels_from=None)
    if "masks" in LAYOUTS[dataset].options:
        add_truth(parser)
    else:
        parser.set_defaults(masks=None, crowds=None)
    parser.add_argument("--limit", type=values.positive, metavar="N", help="only the first N photos")


def add_truth(parser: argparse._ActionsContainer) -> None:
    """Add the options for the masks of coco."""
    parser.add_argument(
        "--masks", metavar="DIR", help="score against the masks of this folder (PNG); default: drawn from --root's JSON"
    )
    parser.add_argument(
        "--crowds", choices=("include", "ignore"),
        help="draw crowd regions into the masks (default), or do not count their pixels",
    )  # fmt: skip


def add_network(parser: argparse.ArgumentParser, protocol: Protocol, of_maps: bool = True) -> None:
    """Add the options for the network and for its input."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME",
        help="%(default)s (default), torchvision:resnet50, timm:NAME, package.module:factory or FILE.py:factory",
    )  # fmt: skip
    group.add_argument("--weights", metavar="FILE", help="a checkpoint, or 'none'; default: the model's own")
    group.add_argument(
        "--weights-key", metavar="KEY",
        help="of several weights in the checkpoint, those under this key, such as model_ema; default: those that fit",
    )  # fmt: skip
    group.add_argument(
        "--allow-class", type=values.comma, action=_Extend, default=[], metavar="A,B",
        help="classes that the checkpoint may hold, such as pathlib.PosixPath; only for files that you trust",
    )  # fmt: skip
    group.add_argument("--layers", type=values.comma, metavar="A,B,C", help="dotted names; default: the stages found")
    group.add_argument(
        "--reshape", metavar="LAYOUT",
        help="layout of --layers: channels-last, or tokens:N[:M], N tokens before the patches, M after; "
        "default: measured",
    )  # fmt: skip
    group.add_argument("--size", type=values.positive, metavar="N", help="input side in pixels; default: the model's")
    group.add_argument(
        "--mean", type=values.numbers(3), metavar="R,G,B", help="of pixels in [0, 1]; default: the model's"
    )
    group.add_argument("--std", type=values.numbers(3, above_zero=True), metavar="R,G,B", help="likewise")
    group.add_argument(
        "--interpolation", choices=INTERPOLATIONS, metavar="NAME",
        help=f"of every resize of the photo: {', '.join(INTERPOLATIONS)}; default: what a factory's network says, or "
        "else the model's for --resize crop, and bicubic",
    )  # fmt: skip
    group.add_argument(
        "--resize", choices=list(RESIZES), default=protocol.resize,
        help="squash the whole photo to N x N, bring its short side to N, crop its centre, or keep its size; default: "
        "%(default)s",
    )  # fmt: skip
    group.add_argument(
        "--contrast", type=values.above_zero, default=4.0, metavar="C",
        help="power that Region-CAM's maps, divided by their maximum, are raised to; default: %(default)g",
    )  # fmt: skip
    if of_maps:  # layers are chosen in float32
        group.add_argument(
            "--precision", choices=PRECISIONS, default=PRECISIONS[0],
            help="of the network's passes; the weights stay as they are, and maps are float32; default: %(default)s",
        )  # fmt: skip
    else:
        parser.set_defaults(precision=PRECISIONS[0])
    group.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; default: cuda if available")


def add_maps(parser: argparse.ArgumentParser, protocol: Protocol, of_masks: bool = True) -> None:
    """Add the options for making maps."""
    add_network(parser, protocol)
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
    else:
        parser.set_defaults(upsample=protocol.upsample, normalize=protocol.normalize)
    add_refine(group)
    group.add_argument(
        "--batch", type=values.positive, default=protocol.batch, metavar="N",
        help="number of neighbouring photos that go through the network together if their inputs have the same size; "
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
        help="refine the maps with the photo, so that they follow its edges; for masks, as boxes are better without",
    )  # fmt: skip


def add_methods(parser: argparse.ArgumentParser) -> None:
    """Add the option for one or several methods."""
    parser.add_argument(
        "--method", type=values.names_among(list(TITLES)), action=_Extend, default=["region-cam"], metavar="A,B",
        help=f"one or more of {', '.join(TITLES)}; default: region-cam. CAM and Grad-CAM use only the last layer",
    )  # fmt: skip


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """Add the option for the background threshold."""
    parser.add_argument(
        "--threshold", type=values.fraction, default=0.15, metavar="T",
        help="background threshold; default: %(default)s",
    )  # fmt: skip


def add_label_map_scores(parser: argparse.ArgumentParser) -> None:
    """Add the options for finished label maps, and for the classes that a mean counts."""
    parser.add_argument(
        "--label-maps", type=Path, metavar="DIR",
        help="score these label maps, NAME.png, indexed or grey: also precision, recall, FP and FN; no network is run",
    )  # fmt: skip
    parser.add_argument(
        "--unlabelled", choices=UNLABELLED, default="background",
        help="what 255 in --label-maps counts as: background, as IRN's reader has it (default); missed, as SEAM's; or "
        "ignored, as if it were not in the masks either",
    )  # fmt: skip
    parser.add_argument(
        "--absent", choices=ABSENT, default="ignore",
        help="classes that the photos lack: ignore leaves out what is neither in the masks nor predicted, as IRN "
        "(default); zero counts it as 0, as SEAM and MCTformer; ignore-predicted leaves out all that is not in the "
        "masks, as CLIP-ES and ToCo",
    )  # fmt: skip


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the option to wait for seeds."""
    parser.add_argument(
        "--wait", action="store_true", help="if a run is still writing the seeds, wait until it has finished"
    )


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add the option to continue."""
    parser.add_argument("--resume", action="store_true", help="continue where the same command was interrupted")


class _Extend(argparse.Action):
    """Collect the values of an option from each time it is given, in place of its default."""

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
