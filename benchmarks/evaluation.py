"""Measure how long an evaluation takes, its cost beyond the maps, and how its memory grows with the number of photos.

python benchmarks/evaluation.py                              2,000 made-up photos at 224 px
python benchmarks/evaluation.py --photos 100 --options=--scales=1,0.5,1.5,2 --options=--flip
python benchmarks/evaluation.py --irn --photos 4             seeds at IRN's protocol beside IRN's own make_cam
"""

import argparse
import contextlib
import io
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measure import import_torchvision, process_memory
from PIL import Image

import_torchvision()

import torchvision  # noqa: E402

from captum_regioncam import cli  # noqa: E402
from captum_regioncam.evaluation.photo_maps import PhotoMaps  # noqa: E402


def make_photos(root, count, width=500, height=375):
    """Write one photo and one mask, each under ``count`` names."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize((width, height))
    mask = np.zeros((height, width), np.uint8)
    mask[80:260, 120:380] = 255
    noise.save(root / "images" / "photo_0.jpg", quality=95)
    Image.fromarray(mask).save(root / "masks" / "photo_0.png")
    for index in range(1, count):
        for folder, ending in (("images", "jpg"), ("masks", "png")):
            (root / folder / f"photo_{index}.{ending}").symlink_to(root / folder / f"photo_0.{ending}")
    entries = [{"name": f"photo_{index}", "target": index % 1000} for index in range(count)]
    (root / "index.json").write_text(json.dumps(entries))


class Watched:
    """The time that a run spends on maps, and its memory after a tenth of the photos and after all."""

    def __init__(self, photos):
        self.photos, self.done, self.seconds, self.memory = photos, 0, 0.0, []
        self.sums = PhotoMaps.sums

    def __enter__(self):
        def sums(maps, method, photos, sizes):
            start = time.perf_counter()
            found = self.sums(maps, method, photos, sizes)
            self.seconds += time.perf_counter() - start
            self.done += len(photos)
            if self.done >= [self.photos // 10, self.photos, math.inf][len(self.memory)]:
                self.memory.append(process_memory("VmRSS"))
            return found

        PhotoMaps.sums = sums
        return self

    def __exit__(self, *error):
        PhotoMaps.sums = self.sums


def evaluated(arguments, photos):
    """Run ``evaluate`` and return what was watched, and the seconds that it took."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli.main([*arguments, "--limit", "4"])  # pays the costs that arise once, such as imports
        with Watched(photos) as watched:
            start = time.perf_counter()
            status = cli.main([*arguments, "--limit", str(photos)])
            seconds = time.perf_counter() - start
    if status:
        sys.exit(f"evaluate exited with {status}")
    return watched, seconds


def irn_network():
    """IRN's ResNet-50, with random weights: the last stage has no stride, and there are 20 classes."""
    network = torchvision.models.resnet50(num_classes=20)
    for layer in (network.layer4[0].conv2, network.layer4[0].downsample[0]):
        layer.stride = (1, 1)
    return network


def make_cam(network, root, names, output, scales=(1.0, 0.5, 1.5, 2.0)):
    """IRN's step make_cam (Ahn et al., CVPR 2019): forward passes of each photo and its flip at each scale.

    The CAM is what the classifier gives at each position. The maps are added at a quarter of the photo's size and at
    its full size, and divided by their maximum.
    """
    features = torch.nn.Sequential(*list(network.children())[:-2])
    classifier = network.fc.weight[:, :, None, None]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for number, name in enumerate(names):
        photo = Image.open(root / "images" / f"{name}.jpg").convert("RGB")
        width, height = photo.size
        total = {(-(-height // 4), -(-width // 4)): 0, (-(-height // 16) * 16, -(-width // 16) * 16): 0}
        for scale in scales:
            resized = photo.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
            x = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float().div(255).sub(mean).div(std)
            with torch.no_grad():
                plain, mirrored = F.conv2d(features(torch.cat([x, x.flip(-1)])), classifier).relu()
            maps = plain + mirrored.flip(-1)
            for size in total:
                total[size] = total[size] + F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
        strided, full = total.values()
        strided, full = strided[number % 20 : number % 20 + 1], full[number % 20 : number % 20 + 1, :height, :width]
        found = {"keys": torch.tensor([number % 20]), "cam": strided / (strided.amax() + 1e-5)}
        np.save(output / f"{name}.npy", {**found, "high_res": (full / (full.amax() + 1e-5)).numpy()})


def compare_with_make_cam(root, photos):
    """Print how long seeds take at IRN's protocol, over the time of make_cam for the same network and photos."""
    names = [f"photo_{index}" for index in range(photos)]
    entries = [{"name": name, "target": index % 20} for index, name in enumerate(names)]
    (root / "index.json").write_text(json.dumps(entries))
    torch.manual_seed(0)
    network = irn_network().eval()
    protocol = ["--scales=1,0.5,1.5,2", "--flip", "--resize=keep", "--upsample=irn", "--normalize=max", "--batch=1"]
    ways = {
        "Region-CAM": [],
        "Region-CAM, bfloat16": ["--precision=bfloat16"],
        "Region-CAM, without scale 2": ["--scales=1,0.5,1.5"],
        "Grad-CAM at each scale": ["--method=grad-cam"],
    }
    seconds = {}

    def timed(way, run, count):
        start = time.perf_counter()
        run(names[:count])
        seconds[way] = time.perf_counter() - start

    def seeds(options):
        def run(names):
            with tempfile.TemporaryDirectory() as output, contextlib.redirect_stdout(io.StringIO()):
                arguments = ["seeds", "folder", "--root", str(root), "--model", "evaluation:irn_network"]
                arguments += ["--weights", "none", *protocol, *options, "--limit", str(len(names))]
                if status := cli.main([*arguments, "--output", output]):
                    sys.exit(f"seeds exited with {status}")

        return run

    with tempfile.TemporaryDirectory() as output:
        (baseline := Path(output) / "make_cam").mkdir()
        runs = {"make_cam": lambda names: make_cam(network, root, names, baseline)}
        runs |= {way: seeds(options) for way, options in ways.items()}
        for way, run in runs.items():
            timed(way, run, 1)  # the costs that arise once
            once = seconds[way]
            timed(way, run, photos)
            seconds[way] = (seconds[way] - once) / (photos - 1)
            print(
                f"{way}: {seconds[way]:.2f} s per photo of 500 x 375, {seconds[way] / seconds['make_cam']:.2f} times "
                "make_cam",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000, help="number of photos; default: %(default)s")
    parser.add_argument(
        "--networks", nargs="+", default=["mobilenet_v2", "resnet50"],
        help="names of torchvision's networks; default: mobilenet_v2 resnet50",
    )  # fmt: skip
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="values of --batch; default: 1 4")
    parser.add_argument(
        "--options", action="append", default=[], help="an option of the command evaluate; may be given several times"
    )
    parser.add_argument(
        "--irn", action="store_true", help="instead, compare seeds at IRN's protocol with IRN's own make_cam"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.irn:
            make_photos(Path(folder), max(2, options.photos))
            compare_with_make_cam(Path(folder), max(2, options.photos))
            return
        make_photos(Path(folder), options.photos)
        for network in options.networks:
            for batch in options.batches:
                # Memory is watched over all photos of one run. A tenth of the photos shows the cost of the others.
                all_of_them = network == options.networks[0] and batch == options.batches[-1]
                photos = options.photos if all_of_them else options.photos // 10
                arguments = ["evaluate", "folder", "--root", folder, "--model", f"torchvision:{network}"]
                arguments += ["--weights", "none", "--batch", str(batch), *options.options]
                watched, seconds = evaluated(arguments, photos)
                maps, rest = watched.seconds, seconds - watched.seconds
                print(
                    f"{network}, {photos:,} photos of 500 x 375, --batch {batch} {' '.join(options.options)}: "
                    f"{seconds / photos * 1000:.1f} ms per photo: maps {maps / photos * 1000:.1f}, reading and "
                    f"scoring {rest / photos * 1000:.1f} ({rest / maps:.0%} of the maps); 10,000 photos take "
                    f"{seconds / photos * 10_000 / 60:.0f} min",
                    flush=True,
                )
                if all_of_them:
                    few, many = watched.memory
                    print(f"memory after {photos // 10:,} photos {few:.0f} MiB, after {photos:,} photos {many:.0f} MiB")


if __name__ == "__main__":
    main()
