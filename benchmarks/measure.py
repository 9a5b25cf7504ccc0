"""Seconds and bytes: interleaved timings, and the peak of what a call allocates."""

import contextlib
import statistics
import time
from pathlib import Path

import torch


def import_torchvision():
    """Import torchvision, even if it was built against another torch than the one installed."""
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(functions, device, repeats=9, warmup=2):
    """Time functions in turn, A B A B ..., so that they meet the same machine: {name: [seconds]}."""
    seconds = {name: [] for name in functions}
    for repeat in range(warmup + repeats):
        for name, function in functions.items():
            synchronize(device)
            start = time.perf_counter()
            function()
            synchronize(device)
            if repeat >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_bytes(function, device):
    """Return the largest number of bytes of tensors that a call holds at once, beyond those alive before it."""
    function()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        result = function()
    del result
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def process_memory(what):
    """Return this process's memory in MiB, according to Linux: "VmRSS" now, "VmHWM" at its peak.

    getrusage does not serve, as its peak is inherited from the parent process.
    """
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) / 1024


def row(name, seconds, floor, memory):
    """Return one line of a Markdown table: median, its ratio to the floor's, the range of each run's ratio, memory."""
    ratios = sorted(a / b for a, b in zip(seconds, floor, strict=True))
    median = statistics.median(seconds)
    ratio = median / statistics.median(floor)
    return f"| {name} | {median:.4f} | {ratio:.3f} | {ratios[0]:.2f} to {ratios[-1]:.2f} | {memory} |"
