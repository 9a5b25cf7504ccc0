"""How long an evaluation takes, what it costs on top of the maps, and how its memory grows with the number of photos.

python benchmarks/evaluation.py                              2,000 made-up photos at 224 px
python benchmarks/evaluation.py --photos 100 --options=--scales=1,0.5,1.5,2 --options=--flip
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
from measure import import_torchvision, process_memory
from PIL import Image

import_torchvision()

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
        cli.main([*arguments, "--limit", "4"])  # so that costs that arise once, such as imports, are paid
        with Watched(photos) as watched:
            start = time.perf_counter()
            status = cli.main([*arguments, "--limit", str(photos)])
            seconds = time.perf_counter() - start
    if status:
        sys.exit(f"evaluate exited with {status}")
    return watched, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--options", action="append", default=[], help="options of the command evaluate")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
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
