"""What Region-CAM costs beyond the passes through the network that any gradient method needs.

python benchmarks/speed.py [--device cuda] [--batch 4] [--size 224] [--repeats 9]
"""

import argparse
import statistics

import torch
from captum.attr import LayerGradCam
from measure import import_torchvision, interleaved, peak_bytes, row

from captum_regioncam import LayerCam, LayerRegionCam
from captum_regioncam.sip import propagate

torchvision = import_torchvision()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval().to(device)
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    x = torch.randn(options.batch, 3, options.size, options.size, device=device)

    def floor():
        kept = []
        with model.layer1.register_forward_hook(lambda *call: kept.append(call[-1])):
            score = model(x)[:, 1].sum()
        return torch.autograd.grad(score, kept)

    methods = {
        "one forward, one backward to the first stage": floor,
        "Captum LayerGradCam, last stage": lambda: LayerGradCam(model, model.layer4).attribute(x, 1),
        "LayerCam, four stages": lambda: LayerCam(model, stages).attribute(x, 1),
        "LayerRegionCam, four stages": lambda: LayerRegionCam(model, stages).attribute(x, 1),
    }
    seconds = interleaved(methods, device, options.repeats)
    baseline = next(iter(seconds.values()))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"resnet50, batch {options.batch}, {options.size} px, {name}, torch {torch.__version__}, float32;")
    print(f"medians of {options.repeats} interleaved runs\n")
    print("| | seconds | ratio of medians | ratio run by run |\n|---|---|---|---|")
    for method, times in seconds.items():
        print(row(method, times, baseline))

    features = torch.rand(options.batch, 256, options.size // 4, options.size // 4, device=device)
    semantics = torch.rand(options.batch, 1, *features.shape[2:], device=device)
    largest = features.numel() * features.element_size()
    extra = peak_bytes(lambda: propagate(features, semantics), device)
    print(
        f"\nSIP at the largest stage: peak of {extra / 2**20:.1f} MiB beyond features of {largest / 2**20:.1f} MiB",
        end="",
    )
    print(f" ({extra / largest:.2f} of them)")
    ratio = statistics.median(seconds["LayerRegionCam, four stages"]) / statistics.median(baseline)
    print(f"Region-CAM is within {ratio:.3f} of the floor")


if __name__ == "__main__":
    main()
