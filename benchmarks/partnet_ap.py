"""PartNet's AP against a straightforward implementation: time a shape, and the memory that a shape leaves behind.

One thread. Both take the same shapes in turn, a few at a time, and must agree to the bit. The straightforward one does
not take all of them.

    python benchmarks/partnet_ap.py              1,000 shapes
    python benchmarks/partnet_ap.py --quick      small shapes, for CI
"""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

from harness import PeakMemory, Results, Table, Times, clocked, in_new_process, run_alone, summary

# isort: split
import numpy as np
from straightforward import Shape, partnet_ap, random_shape

from probemb_lib.metrics import PartNetAP

THRESHOLDS = (0.25, 0.5, 0.75)
CLASSES, INSTANCES, GROUP = 10, 15, 10  # of a level; in a shape; shapes taken at a time


def draw(first: int, count: int, points: int, predictions: int) -> list[Shape]:
    return [random_shape(seed, points, predictions, INSTANCES, CLASSES) for seed in range(first, first + count)]


def measure(shapes: int, points: int, predictions: int, reference_shapes: int) -> dict[str, Any]:
    """Rows of a table, for a shape, and other numbers. Masks are made as they are needed, outside the time."""
    metric, total = PartNetAP(CLASSES, THRESHOLDS), 0.0
    times: dict[str, list[Times]] = {"straightforward": [], "PartNetAP": []}
    warm = draw(0, 1, points, predictions)
    partnet_ap(warm, CLASSES, THRESHOLDS)
    PartNetAP(CLASSES, THRESHOLDS).update(*warm[0])
    size = min(GROUP, reference_shapes, shapes)
    for first in range(0, shapes, size):
        group = draw(first, min(size, shapes - first), points, predictions)
        own = PartNetAP(CLASSES, THRESHOLDS)

        def update(own: PartNetAP = own, group: list[Shape] = group) -> dict[str, np.ndarray]:
            for x in group:
                own.update(*x)
            return own.compute()

        found, elapsed = clocked(update)
        total += elapsed.wall
        if first + size <= reference_shapes:
            times["PartNetAP"].append(elapsed)
            expected, elapsed = clocked(partial(partnet_ap, group, CLASSES, THRESHOLDS))
            times["straightforward"].append(elapsed)
            for key, value in found.items():
                np.testing.assert_array_equal(value, expected[key], err_msg=key, strict=True)
        metric.merge_state(own)
    rows = {name: summary(each, size) for name, each in times.items()}
    return {
        "rows": rows,
        "times_faster": rows["straightforward"]["min_s"] / rows["PartNetAP"]["min_s"],
        "all_shapes_s": total,
        "compute_all_ms": 1e3 * clocked(metric.compute)[1].wall,
        "state_bytes_a_shape": len(pickle.dumps(metric)) / shapes,
    }


def peak_mb(shapes: int, points: int, predictions: int) -> float:
    """Peak megabytes of evaluating so many shapes one by one, above what is there after the first."""
    metric = PartNetAP(CLASSES, THRESHOLDS)
    metric.update(*draw(0, 1, points, predictions)[0])
    metric.compute()  # code and buffers are loaded
    with PeakMemory() as peak:
        for seed in range(1, shapes):
            metric.update(*draw(seed, 1, points, predictions)[0])
        metric.compute()
    return peak.megabytes


def benchmark(quick: bool) -> Results:
    shapes, points, predictions = (20, 2_000, 20) if quick else (1_000, 10_000, 60)
    counts = [shapes] if quick else [shapes // 10, shapes]
    results = Results()
    numbers = measure(shapes, points, predictions, 10 if quick else 100)
    title = f"PartNetAP: a shape of {points:,} points, {predictions} predictions, {INSTANCES} instances"
    results.add(Table(title, numbers.pop("rows"), "straightforward", "PartNetAP"))
    peaks = {str(n): in_new_process(peak_mb, n, points, predictions) for n in counts}
    print(f"{shapes:,} shapes: {numbers['all_shapes_s']:.2f} s", end="")
    print(f", compute() over all of them {numbers['compute_all_ms']:.1f} ms", end="")
    print(f", state {numbers['state_bytes_a_shape']:.0f} bytes a shape")
    for count, peak in peaks.items():
        print(f"peak memory for {int(count):,} shapes {peak:.1f} MB")
    results.numbers = {"shapes": shapes, **numbers, "peak_mb": peaks}
    return results


if __name__ == "__main__":
    run_alone("partnet_ap", __doc__, benchmark)
