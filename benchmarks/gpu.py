"""The library on a GPU, beside what people use there: tables, and a JSON file with the device and the versions.

    python benchmarks/gpu.py                     two minutes on an H200
    python benchmarks/gpu.py --tiny --device cpu the same code in small sizes anywhere: it measures nothing of interest

Times are medians of CUDA events over calls in turn, forward and backward. The limit is that of the special-function
units, 16 results a clock on each multiprocessor at the device's highest clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from harness import RESULTS, Results, header, header_text, slug, version_of, write_json

# isort: split
import gpu_clustering
import gpu_losses
import gpu_network
import torch
from gpu_clock import device_name, highest_clock
from gpu_clustering import Size
from gpu_network import Setting
from gpu_sparse import sparse_step

LOSSES = [(16, 10_000, 50), (1, 40_000, 50), (1, 1_000_000, 300)]
CLUSTERING = [Size(16, 10_000, 40), Size(1, 150_000, 60), Size(1, 1_000_000, 2_000)]
STEP = Setting(16, 10_000, 1.0)
SCENE = 125_000  # points, of 100,000 voxels
ROUNDS, SECONDS = 30, 6.0  # of one table, whatever comes first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes and two rounds, to see that it runs")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, …; cpu with --tiny")
    parser.add_argument("--output", type=Path, help="JSON file; by default benchmarks/results/gpu-{device}.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs an NVIDIA GPU, but torch.cuda.is_available() is false: nothing was measured")
    if device.type != "cuda" and not options.tiny:
        sys.exit(f"expected --device cuda, or --tiny with it, got {device}: nothing was measured")
    if device.index is not None:
        torch.cuda.set_device(device)  # events, streams and memory are asked for without naming it

    start = time.perf_counter()
    head = {"device": device_name(device), "clock_hz": highest_clock(device), **header()}
    head["versions"] |= {"cuda": torch.version.cuda, "triton": version_of("triton")}
    print(f"{head['device']}\n{header_text(head)}", flush=True)
    losses = [(2, 200, 5)] if options.tiny else LOSSES
    clustering = [Size(2, 300, 4)] if options.tiny else CLUSTERING
    step = Setting(2, 1024, 0.25, 4) if options.tiny else STEP
    rounds, seconds = (2, 1.0) if options.tiny else (ROUNDS, SECONDS)
    results = Results()
    for clouds, n, k in losses:
        gpu_losses.measure(results, clouds, n, k, device, rounds, seconds)
    for size in clustering:
        gpu_clustering.measure(results, size, device, rounds, seconds)
    gpu_network.geometry(results, step, device, rounds, seconds)
    gpu_network.training_step(results, step, device, rounds, seconds)
    sparse_step(results, 500 if options.tiny else SCENE, device, rounds, seconds)
    with tempfile.TemporaryDirectory() as folder:
        gpu_network.reading(results, Path(folder) / "chairs", step, device)

    path = options.output
    if path is None and not options.tiny:
        path = RESULTS / f"gpu-{slug(head['device'])}.json"
    if path is not None:
        write_json(path, head, {"gpu": results})
        print(f"\nresults  {path}")
    print(f"measured in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
