"""Growth of time and peak memory: the Dice loss over points and over instances, the clustering at a fixed density.

Every curve is measured in a process of its own, on one thread, with the memory above the input. Exponents are fitted
to the logarithms.

    python benchmarks/growth.py              to 10,000,000 points, about a quarter of an hour and 4 GB
    python benchmarks/growth.py --quick      small sizes, for CI
"""

from __future__ import annotations

import time
from collections.abc import Callable

from harness import Growth, PeakMemory, Results, in_new_process, run_alone

# isort: split
from problems import blobs, dice_problem

from probemb_lib import GaussianEmbedding, LogDiceLoss, greedy_cluster, index_instances

POINTS, INSTANCES = 40_000, 50  # of the Dice loss, where the other one grows
POINTS_AN_INSTANCE = 500  # of the clustering
REPEAT_UNTIL_S = 1.0

Curve = list[tuple[float, float]]  # seconds and megabytes of each size


def dice(n: int, k: int) -> tuple[float, float]:
    """Forward and backward: least seconds of some calls, and peak megabytes."""
    mean, log_std, instance = dice_problem(n, k)
    index = index_instances(instance)

    def call() -> None:
        mean.grad = log_std.grad = None
        LogDiceLoss()(GaussianEmbedding(mean, log_std), index).backward()

    return _measure(call)


def clustering(n: int) -> tuple[float, float]:
    embedding, score = blobs(n, max(1, n // POINTS_AN_INSTANCE))
    return _measure(lambda: greedy_cluster(embedding, score[:, None], background=None))


def _measure(call: Callable[[], object]) -> tuple[float, float]:
    with PeakMemory() as peak:
        start = time.perf_counter()
        call()
        seconds = [time.perf_counter() - start]
    while sum(seconds) < REPEAT_UNTIL_S:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds), peak.megabytes


def dice_curve(sizes: list[tuple[int, int]]) -> Curve:
    dice(1000, 10)  # code and buffers are loaded
    return [dice(n, k) for n, k in sizes]


def clustering_curve(sizes: list[int]) -> Curve:
    clustering(2 * POINTS_AN_INSTANCE)
    return [clustering(n) for n in sizes]


def grown(title: str, size: str, x: list[int], curve: Curve) -> Growth:
    seconds, megabytes = zip(*curve, strict=True)
    return Growth(title, size, [float(v) for v in x], list(seconds), list(megabytes))


def growth(points: list[int], instances: list[int], clustered: list[int], largest: tuple[int, int] | None) -> Results:
    """largest: points and instances of one more Dice loss, on its own."""
    results = Results()
    curve = in_new_process(dice_curve, [(n, INSTANCES) for n in points])
    results.add(grown(f"Dice loss, forward + backward, {INSTANCES} instances", "points", points, curve))
    curve = in_new_process(dice_curve, [(POINTS, k) for k in instances])
    results.add(grown(f"Dice loss, forward + backward, {POINTS:,} points", "instances", instances, curve))
    curve = in_new_process(clustering_curve, clustered)
    results.add(grown(f"greedy_cluster, {POINTS_AN_INSTANCE} points an instance", "points", clustered, curve))
    if largest is not None:
        ((seconds, peak),) = in_new_process(dice_curve, [largest])
        n, k = largest
        results.numbers["largest_dice"] = {
            "points": n,
            "instances": k,
            "seconds": seconds,
            "peak_mb": peak,
            "matrix_mb": 4e-6 * n * k,
        }
        print(f"\nDice loss of {n:,} points and {k:,} instances: {seconds:.1f} s, {peak:,.0f} MB above its inputs")
        print(f"(one float32 matrix of N × K takes {4e-6 * n * k:,.0f} MB)")
    return results


def benchmark(quick: bool) -> Results:
    if quick:
        return growth([10_000, 30_000, 100_000], [10, 30, 100], [10_000, 30_000, 100_000], None)
    points = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000]
    clustered = [*points, 10_000_000]
    return growth(points, [10, 30, 100, 300, 1_000], clustered, (10_000_000, 1_000))


if __name__ == "__main__":
    run_alone("growth", __doc__, benchmark)
