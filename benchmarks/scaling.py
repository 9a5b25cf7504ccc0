"""Compare SIP with the dense affinity matrix that it replaces, as the number of positions grows: docs/scaling.png.

python benchmarks/scaling.py [--device cuda] [--channels 64] [--largest 896] [--output FILE]
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from measure import peak_bytes, synchronize

from captum_regioncam.method.sip import propagate

PICTURE = Path(__file__).parent.parent / "docs" / "scaling.png"
LARGEST_MATRIX = 14_000**2


def dense(features, semantics):
    """Propagate with the whole (P, P) affinity in memory."""
    looks = torch.nn.functional.normalize(features.flatten(2).relu(), dim=1)
    affinity = looks.transpose(1, 2) @ looks
    weighted = semantics.flatten(2) @ affinity
    return (weighted / affinity.sum(1, keepdim=True)).view_as(semantics)


def measure(function, device, repeats=5):
    function()
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), peak_bytes(function, device) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: cuda if it is available"
    )
    parser.add_argument("--channels", type=int, default=64, help="number of channels; default: %(default)s")
    parser.add_argument("--largest", type=int, default=896, help="side of the largest grid; default: %(default)s")
    parser.add_argument("--output", type=Path, default=PICTURE, help=f"picture to write; default: docs/{PICTURE.name}")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    rows = {"SIP": [], "dense affinity": []}
    for side in [side for side in (14, 28, 56, 80, 112, 160, 224, 448, 896) if side <= options.largest]:
        features = torch.rand(1, options.channels, side, side, device=device)
        semantics = torch.rand(1, 1, side, side, device=device)
        functions = {"SIP": propagate, "dense affinity": dense}
        if side**4 <= LARGEST_MATRIX:
            above_mean = semantics - semantics.mean((2, 3), keepdim=True)  # as propagate takes it, against rounding
            torch.testing.assert_close(propagate(features, semantics), dense(features, above_mean), atol=1e-4, rtol=0)
        else:
            functions.pop("dense affinity")
        for name, function in functions.items():
            seconds, megabytes = measure(lambda f=function, x=features, s=semantics: f(x, s), device)
            rows[name].append((side**2, seconds, megabytes))
            print(f"{name:15s} {side**2:8d} positions  {seconds * 1e3:10.2f} ms  {megabytes:10.1f} MiB")
    figure = Figure(figsize=(6, 7), layout="constrained")  # one above the other, for narrow screens
    for axis, column, label in zip(figure.subplots(2), (1, 2), ("seconds", "peak MiB"), strict=True):
        for name, points in rows.items():
            values = np.array(points)
            slope = np.polyfit(np.log(values[-4:, 0]), np.log(values[-4:, column]), 1)[0]
            axis.loglog(values[:, 0], values[:, column], "o-", label=f"{name}, slope {slope:.1f}")
        axis.set_xlabel("positions P", fontsize=12)
        axis.set_ylabel(label, fontsize=12)
        axis.tick_params(labelsize=11)
        axis.legend(fontsize=12)
    figure.savefig(options.output)


if __name__ == "__main__":
    main()
