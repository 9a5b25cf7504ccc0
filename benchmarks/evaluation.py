"""What evaluating costs on top of computing the maps, and how its memory grows with the number of photos.

python benchmarks/evaluation.py                              2,000 made-up photos at 224 px
python benchmarks/evaluation.py --photos 100 --options=--scales=1,0.5,1.5,2 --options=--flip
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import import_torchvision, process_memory
from PIL import Image

import_torchvision()

from captum_regioncam import cli  # noqa: E402
from captum_regioncam.evaluation import commands  # noqa: E402


def make_photos(root, count, width=500, height=375):
    """Write one photo and one mask, each under as many names."""
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--options", action="append", default=[], help="of the command evaluate")
    options = parser.parse_args()
    seconds, memory = [], []
    attribute = commands._Maps._attribute

    def timed(self, *arguments):
        start = time.perf_counter()
        maps = attribute(self, *arguments)
        seconds.append(time.perf_counter() - start)
        calls = 1 + sum(option.count(",") for option in options.options if option.startswith("--scales"))
        if len(seconds) in (calls * options.photos // 10, calls * options.photos) and len(memory) < 2:
            memory.append(process_memory("VmRSS"))
        return maps

    commands._Maps._attribute = timed
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_photos(root, options.photos)
        for network in options.networks:
            # Memory is watched over all photos of the first network; the others' cost shows in a tenth of them.
            photos = options.photos if network == options.networks[0] else options.photos // 10
            seconds.clear()
            arguments = ["evaluate", "folder", "--root", folder, "--model", f"torchvision:{network}"]
            arguments += ["--weights", "none", *options.options]
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                status = cli.main([*arguments, "--limit", str(photos)])
            total = time.perf_counter() - start
            # The first photos' hidden costs (imports, looking for stages) are not the evaluation's.
            maps = sum(seconds)
            print(
                f"{network}, {photos:,} photos of 500 x 375{' ' * bool(options.options)}{' '.join(options.options)}: "
                f"maps {maps / photos * 1000:.1f} ms a photo; reading and scoring add {(total - maps) / maps:.1%}",
                flush=True,
            )
            if status:
                sys.exit(f"evaluate exited with {status}")
        few, all_ = options.photos // 10, options.photos
        print(f"memory after {few:,} photos {memory[0]:.0f} MiB, after {all_:,} photos {memory[1]:.0f} MiB")


if __name__ == "__main__":
    main()
