"""PartNet's AP against a straightforward implementation: time a shape, and the memory that a shape leaves behind.

One thread. Both take the same shapes in turn, a few at a time, and must agree to the bit; the table shows medians of
the time a shape. The straightforward one does not take all of them.

    python benchmarks/partnet_ap.py [--shapes 1000] [--points 10000] [--predictions 60]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from run import cpu_name
from straightforward import Shape, partnet_ap, random_shape

from probemb_lib.metrics import PartNetAP

FOLDER = Path(__file__).resolve().parent
THRESHOLDS = (0.25, 0.5, 0.75)
CLASSES, INSTANCES, GROUP = 10, 15, 10  # of a level; in a shape; shapes taken at a time


def draw(first: int, count: int, points: int, predictions: int) -> list[Shape]:
    return [random_shape(seed, points, predictions, INSTANCES, CLASSES) for seed in range(first, first + count)]


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(shapes: int, points: int, predictions: int, reference_shapes: int) -> dict[str, float]:
    """Milliseconds a shape; masks are made as they are needed, outside the time."""
    metric, total = PartNetAP(CLASSES, THRESHOLDS), 0.0
    reference, ours = [], []
    warm = draw(0, 1, points, predictions)
    partnet_ap(warm, CLASSES, THRESHOLDS)
    PartNetAP(CLASSES, THRESHOLDS).update(*warm[0])
    for first in range(0, shapes, GROUP):
        group = draw(first, min(GROUP, shapes - first), points, predictions)
        own = PartNetAP(CLASSES, THRESHOLDS)

        def update(own: PartNetAP = own, group: list[Shape] = group) -> None:
            for x in group:
                own.update(*x)
            own.compute()

        elapsed = seconds(update)
        total += elapsed
        if first < reference_shapes:
            ours.append(1e3 * elapsed / len(group))
            start = time.perf_counter()
            expected = partnet_ap(group, CLASSES, THRESHOLDS)
            reference.append(1e3 * (time.perf_counter() - start) / len(group))
            for key, value in own.compute().items():
                np.testing.assert_array_equal(value, expected[key], err_msg=key, strict=True)
        metric.merge_state(own)
    return {
        "straightforward_ms": statistics.median(reference),
        "ours_ms": statistics.median(ours),
        "times_faster": statistics.median(r / o for r, o in zip(reference, ours, strict=True)),
        "all_shapes_s": total,
        "compute_all_ms": 1e3 * seconds(metric.compute),
        "state_bytes_a_shape": len(pickle.dumps(metric)) / shapes,
    }


def peak_mib(shapes: int, points: int, predictions: int) -> float:
    """Peak memory of a process that evaluates so many shapes one by one, above what it has after the first."""
    code = f"""
import pathlib
from partnet_ap import CLASSES, THRESHOLDS, PartNetAP, draw

def kilobytes(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

metric = PartNetAP(CLASSES, THRESHOLDS)
for i in range({shapes}):
    metric.update(*draw(i, 1, {points}, {predictions})[0])
    if i == 0:
        metric.compute()  # code and buffers are loaded
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = kilobytes("VmRSS")
metric.compute()
print(kilobytes("VmHWM") - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER)
    return int(out.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=int, default=1000)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--predictions", type=int, default=60, help="in a shape")
    parser.add_argument("--reference-shapes", type=int, default=100, help="that the straightforward one takes as well")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    sizes = (options.points, options.predictions)
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, numpy {np.__version__}, one thread, load {load:.1f}")
    result = measure(options.shapes, *sizes, options.reference_shapes)
    counts = (max(options.shapes // 10, 1), options.shapes) if Path("/proc/self/clear_refs").exists() else ()  # Linux
    peaks = {str(count): peak_mib(count, *sizes) for count in counts}
    print(f"\n{options.points:,} points, {options.predictions} predictions, {INSTANCES} instances, {CLASSES} classes")
    print(f"{'straightforward':32}{result['straightforward_ms']:10.2f} ms a shape")
    print(f"{'PartNetAP':32}{result['ours_ms']:10.2f} ms a shape")
    print(f"{'times faster':32}{result['times_faster']:10.1f}")
    print(f"{f'PartNetAP, {options.shapes:,} shapes':32}{result['all_shapes_s']:10.2f} s")
    print(f"{'compute() over all of them':32}{result['compute_all_ms']:10.1f} ms")
    print(f"{'state':32}{result['state_bytes_a_shape']:10.0f} bytes a shape")
    for count, peak in peaks.items():
        print(f"{f'peak memory for {int(count):,} shapes':32}{peak:10.1f} MiB")
    if options.output is not None:
        report = {"machine": cpu_name(), "threads": 1, "load": load, "numpy": np.__version__}
        report |= {"shapes": options.shapes, "points": options.points, "predictions": options.predictions}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        temporary = options.output.with_suffix(".tmp")
        temporary.write_text(json.dumps({**report, **result, "peak_mib": peaks}, indent=2) + "\n")
        os.replace(temporary, options.output)


if __name__ == "__main__":
    main()
