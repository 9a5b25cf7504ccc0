"""Measure the cost of Region-CAM beyond the network's own passes, and its peers' cost.

python benchmarks/speed.py                     the table of the documentation
python benchmarks/speed.py --networks resnet50 --sizes 512 --batches 1 8 --targets 1 5 20 --repeats 5

Every row is interleaved with its floor: only one forward pass, and one backward pass per target to the first stage.
Memory is measured in a fresh process for each row.
"""

import argparse
import contextlib
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import summary
import torch
from captum.attr import LayerGradCam
from measure import import_torchvision, interleaved, peak_bytes, process_memory, row

from captum_regioncam import LayerCam, LayerRegionCam, find_stages
from captum_regioncam.method.sip import propagate

torchvision = import_torchvision()
TABLE = Path(__file__).parent.parent / "docs" / "speed-table.md"
FLOOR = "the floor"


FOUR_LAYERS = "resnet50's four layers"


def build(network, size, batch, device):
    torch.manual_seed(0)
    name = "resnet50" if network == FOUR_LAYERS else network
    model = torchvision.models.get_model(name, weights=None).eval().to(device)
    x = torch.randn(batch, 3, size, size, device=device)
    stages = find_stages(model, x[:1], min_stride=4 if network == FOUR_LAYERS else 2)
    return model, x, stages


def floor(model, x, stages, targets):
    first = next(iter(stages.values()))
    kept = []
    with first.register_forward_hook(lambda *call: kept.append(call[-1])):
        scores = model(x)
    for target in targets:
        torch.autograd.grad(scores[:, target].sum(), kept, retain_graph=target != targets[-1])


def grad_cam(model, x, stages, targets):
    cam = LayerGradCam(model, list(stages.values())[-1])
    for target in targets:
        cam.attribute(x, target)


def layer_cam(model, x, stages, targets):
    LayerCam(model, stages).attribute_targets(x, targets)


def region_cam(model, x, stages, targets):
    LayerRegionCam(model, stages).attribute_targets(x, targets)


def region_cam_calls(model, x, stages, targets):
    cam = LayerRegionCam(model, stages)
    for target in targets:
        cam.attribute(x, target)


def pytorch_grad_cam(model, x, stages, targets):
    from pytorch_grad_cam import LayerCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with LayerCAM(model=model, target_layers=list(stages.values())) as cam:
        for target in targets:
            cam(input_tensor=x, targets=[ClassifierOutputTarget(target)] * len(x))


def torch_cam(model, x, stages, targets):
    from torchcam.methods import LayerCAM

    with LayerCAM(model, list(stages)) as cam:
        scores = model(x)
        for target in targets:
            cam.fuse_cams(cam([target] * len(x), scores, retain_graph=target != targets[-1]))


METHODS = {
    FLOOR: floor,
    "LayerRegionCam": region_cam,
    "LayerCam": layer_cam,
    "Captum LayerGradCam, last stage": grad_cam,
    "pytorch-grad-cam LayerCAM": pytorch_grad_cam,
    "torch-cam LayerCAM": torch_cam,
    "LayerRegionCam, one call per target": region_cam_calls,
}


def process_peak(method, network, size, batch, targets, device):
    """Return the peak memory, in MiB, of a fresh process that does nothing else."""
    command = [sys.executable, __file__, "--alone", method, "--networks", network, "--device", device.type]
    command += ["--sizes", str(size), "--batches", str(batch), "--targets", str(targets)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def alone(options):
    device = torch.device(options.device)
    model, x, stages = build(options.networks[0], options.sizes[0], options.batches[0], device)
    METHODS[options.alone](model, x, stages, list(range(options.targets[0])))
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated(device) / 2**20)
    else:
        print(process_memory("VmHWM"))


def compare(network, size, batch, targets, methods, options, device):
    model, x, stages = build(network, size, batch, device)
    functions = {name: (lambda run=METHODS[name]: run(model, x, stages, list(range(targets)))) for name in methods}
    quiet = contextlib.redirect_stderr(io.StringIO())
    with quiet:  # the peers' progress bars
        seconds = interleaved(functions, device, options.repeats, warmup=1)
    lines = []
    for name, times in seconds.items():
        memory = ""
        if options.memory:
            memory = f"{process_peak(name, network, size, batch, targets, device):,.0f}"
        lines.append(row(f"{network}, {size} px, batch {batch}, K = {targets} | {name}", times, seconds[FLOOR], memory))
        print(lines[-1], flush=True)
    return lines


def sip_memory(device):
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.rand(4, 256, 56, 56, device=device).to(dtype)
        semantics = torch.rand(4, 1, 56, 56, device=device)
        largest = features.numel() * features.element_size()
        extra = peak_bytes(lambda f=features, s=semantics: propagate(f, s), device)
        yield (
            f"SIP alone at resnet50's largest stage (batch 4, {dtype}): a peak of {extra / 2**20:.1f} MiB beside "
            f"features of {largest / 2**20:.1f} MiB."
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: cuda if it is available"
    )
    parser.add_argument(
        "--networks", nargs="+", default=["resnet50", "vgg16", "mobilenet_v2"],
        help="names of torchvision's networks; default: resnet50 vgg16 mobilenet_v2",
    )  # fmt: skip
    parser.add_argument("--sizes", type=int, nargs="+", default=[224], help="sides of the input; default: 224")
    parser.add_argument("--batches", type=int, nargs="+", default=[8], help="photos per batch; default: 8")
    parser.add_argument("--targets", type=int, nargs="+", default=[1], help="numbers of targets; default: 1")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS)[:-1], help="default: all but the last"
    )
    parser.add_argument("--repeats", type=int, default=11, help="runs of each method; default: %(default)s")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure memory")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}, which the documentation includes")
    parser.add_argument("--alone", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        return alone(options)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        "| run | method | seconds | ratio to the floor | range of the ratio | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    runs = [
        (n, s, b, k) for n in options.networks for s in options.sizes for b in options.batches for k in options.targets
    ]
    for network, size, batch, targets in runs:
        lines += compare(network, size, batch, targets, [FLOOR, *dict.fromkeys(options.methods)], options, device)
    if tuple(sys.argv[1:]) in ((), ("--write",)):  # the documentation's table has other sizes and many targets, too
        lines += compare(FOUR_LAYERS, 224, 4, 1, [FLOOR, "LayerRegionCam"], options, device)
        few = argparse.Namespace(**{**vars(options), "repeats": 3})
        for network, size, batch, targets in itertools.product(options.networks, (224, 512), (1, 8), (1, 5, 20)):
            few.memory = size == 512 and targets == 1
            methods = [FLOOR, "LayerRegionCam"]
            if size == 224 and targets == 20:
                methods.append("LayerRegionCam, one call per target")
            listed = (size, batch, targets) == (224, 8, 1)
            long = batch == 8 and targets > (1 if size == 512 else 5) and network != "mobilenet_v2"
            if not listed and not long:
                lines += compare(network, size, batch, targets, methods, few, device)
    lines += [
        "",
        f"{name}, torch {torch.__version__}, float32; medians of interleaved runs: {options.repeats} where all methods "
        "are listed, otherwise 3.",
    ]
    lines += sip_memory(device)
    print("\n".join(lines[-3:]))
    if options.write:
        text, _, _ = TABLE.read_text().partition(lines[0])
        TABLE.write_text(text + "\n".join(lines) + "\n")
        summary.main()


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    main()
