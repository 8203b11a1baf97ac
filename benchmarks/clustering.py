"""Clustering against what people use today: plain loops, scikit-learn, and cases where an index cannot help.

Peers take turns on one thread. A peer that would take minutes at a size is left out there. How the clustering grows
with the points is measured by benchmarks/growth.py.

    python benchmarks/clustering.py             about ten minutes
    python benchmarks/clustering.py --quick     small sizes, for CI
"""

from __future__ import annotations

import math
from collections.abc import Callable

from harness import Results, Row, Table, clocked, run_alone, summary, timed

# isort: split
import numpy as np
import torch
from problems import blobs, plain_loop
from sklearn.cluster import DBSCAN, HDBSCAN, MeanShift
from torch import Tensor

from probemb_lib import GaussianEmbedding, greedy_cluster, margin_cluster

RELATIVE, ABSOLUTE = 1.2, 5e-3  # of the plain loop's seconds, where an index cannot help
ENOUGH_S = 30.0  # of one comparison
PLAIN, PLAIN_MARGINS = "plain loop of Eq. 11", "plain loop of learnable margins"


def plain_margin_loop(embedding: GaussianEmbedding, score: Tensor, min_points: int) -> Tensor:
    """Neven et al. as one writes it down: each seed against all foreground points."""
    rows = (score > 0.5).nonzero().squeeze(1)
    mean, variance, score = embedding.mean[rows], torch.exp(2 * embedding.log_std[rows]), score[rows]
    found, is_open, count = torch.full(rows.shape, -1), torch.ones(rows.shape, dtype=torch.bool), 0
    while is_open.sum() >= min_points:
        top = torch.where(is_open, score, -1).argmax()
        if score[top] < 0.5:
            break
        is_open[top] = False
        proposal = torch.exp(-((mean - mean[top]) ** 2 / (2 * variance[top])).sum(1)) > 0.5
        size = proposal.sum()
        if size >= min_points and 2 * (proposal & is_open).sum() > size:
            found[proposal], count = count, count + 1
        is_open &= ~proposal
    label = torch.full(embedding.mean.shape[:1], -1)
    label[rows] = found
    return label


def peers(n: int, k: int, rounds: int, largest: dict[str, int]) -> tuple[Table, Table]:
    """Greedy clustering and learnable margins. largest: most points that a peer of another package is given."""
    embedding, score = blobs(n, k)
    x, p = embedding.mean.numpy(), score[:, None]
    min_points = max(2, n // k // 4)

    def ours() -> Tensor:
        return greedy_cluster(embedding, p, background=None).label

    def margins() -> Tensor:
        return margin_cluster(embedding, p, background=None, min_points=min_points).label

    calls: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain_loop(embedding, score),
        "greedy_cluster": ours,
        PLAIN_MARGINS: lambda: plain_margin_loop(embedding, score, min_points),
        "margin_cluster": margins,
    }
    others = {
        "MeanShift": ("bin_seeding", MeanShift(bandwidth=0.16, bin_seeding=True)),
        "DBSCAN": ("eps 0.02", DBSCAN(eps=0.02, min_samples=5)),
        "HDBSCAN": ("", HDBSCAN(min_cluster_size=min_points, copy=True)),
    }
    left_out = {}
    for name, (setting, other) in others.items():
        full_name = f"scikit-learn {name}" + (f", {setting}" if setting else "")
        if n <= largest[name]:
            calls[full_name] = lambda fit=other.fit_predict: fit(x)  # type: ignore[misc]
        else:
            left_out[full_name] = "left out: minutes at this size"
    different = int((ours() != plain_loop(embedding, score)).sum())
    different_margins = int((margins() != plain_margin_loop(embedding, score, min_points)).sum())
    rows = timed(calls, rounds, seconds=ENOUGH_S)
    of_margins = {name: rows.pop(name) for name in (PLAIN_MARGINS, "margin_cluster")}
    note = "labels that differ from those of the plain loop in float32: "
    size = f"{n:,} points, {k:,} instances"
    return (
        Table(f"Clustering, {size}", rows, PLAIN, "greedy_cluster", left_out, f"{note}{different}"),
        Table(
            f"Learnable margins, {size}",
            of_margins,
            PLAIN_MARGINS,
            "margin_cluster",
            note=f"{note}{different_margins}",
        ),
    )


def many_instances(n: int, k: int, rounds: int) -> Table:
    """The plain loop takes minutes there, so it is called once."""
    embedding, score = blobs(n, k)
    rows = timed({"greedy_cluster": lambda: greedy_cluster(embedding, score[:, None], background=None)}, rounds)
    rows = {PLAIN: summary([clocked(lambda: plain_loop(embedding, score))[1]]), **rows}
    return Table(f"Clustering, {n:,} points, {k:,} instances", rows, PLAIN, "greedy_cluster")


def hard(n: int, small: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Means (n, D) and log_std (n, D) or (n, 1) where an index cannot help, or would have to be a different one."""
    r = np.random.default_rng(0)

    def dense(count: int, instances: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
        center = r.random((instances, dim)) * instances ** (1 / dim)
        mean = center[r.integers(0, instances, count)] + 0.04 * r.normal(size=(count, dim))
        return mean, math.log(0.08) + 0.1 * r.normal(size=(count, dim))

    far, far_std = dense(n, 60, 3)
    far[7] = 1e6
    wide, wide_std = dense(n, 60, 3)
    wide_std[7] = 9
    cube = r.random((small, 3)) * 4
    cases = {
        "one instance": (r.random((n, 3)) * 0.01, np.zeros((n, 1))),
        "two huge instances": (r.integers(0, 2, (n, 1)) * 9.0 + r.normal(size=(n, 3)) * 0.1, np.zeros((n, 3))),
        "all in one place": (np.ones((n, 3)), np.zeros((n, 3))),
        "one place, σ 1e-3 to 1e3": (np.ones((small, 3)), r.uniform(-6.9, 6.9, (small, 3))),
        "σ 1e-3 to 1e3, a σ an axis": (cube, r.uniform(-6.9, 6.9, (small, 3))),
        "σ 1e-3 to 1e3, one σ a point": (cube, r.uniform(-6.9, 6.9, (small, 1))),
        "σ 1e-3 or 1e3": (cube, r.choice([-6.9, 6.9], (small, 1))),
        "σ 1 or 8, few are large": (cube, r.choice([-4.0, -1.9], (small, 1), p=[0.8, 0.2])),
        "needles": (cube, r.choice([-6.9, 6.9], (small, 3))),
        "a line": (r.random((small, 1)) * 20 * np.ones(3), np.full((small, 1), -2.5)),
        "a point far away": (far, far_std),
        "a point of huge σ": (wide, wide_std),
    }
    for count in (small // 10, small // 4, small):
        cases[f"every point its own, {count:,}"] = (cube[:count], np.full((count, 1), -7.0))
    for dim in (1, 2, 3, 6):
        cases[f"40 instances, D = {dim}"] = dense(small, 40, dim)
    for count in (100, 1000):
        cases[f"few points, {count:,}"] = dense(count, 10, 3)
    return cases


def index_cannot_help(n: int, small: int, rounds: int) -> dict[str, Row]:
    """Ratios to the plain loop; the limit is 1.2 times its time and 5 ms."""
    limit = f"{RELATIVE} times the plain loop + {1e3 * ABSOLUTE:.0f} ms"
    print(f"\nWhere an index cannot help (limit: {limit}), least CPU time")
    print(f"{'':34}{'points':>10}{'instances':>11}{'plain ms':>12}{'ours ms':>11}{'ours/plain':>12}{'of limit':>10}")
    results = {}
    random = torch.Generator().manual_seed(0)
    for name, arrays in hard(n, small).items():
        embedding = GaussianEmbedding(*(torch.from_numpy(a).float() for a in arrays))
        score = torch.rand(len(embedding.mean), generator=random)
        results[name] = compare(name, embedding, score, None, rounds)
    embedding = GaussianEmbedding(torch.rand(small, 3, generator=random), torch.full((small, 1), -1.0))
    semantic = torch.randint(0, 20, (small,), generator=random)
    score = torch.rand(small, generator=random)
    results["20 classes, class_aware"] = compare("20 classes, class_aware", embedding, score, semantic, rounds)
    for clouds, points in ((small // 50, 20), (small // 100, 100)):
        results[f"{clouds} clouds of {points}"] = compare_clouds(clouds, points, rounds)
    return results


def compare_clouds(clouds: int, points: int, rounds: int) -> Row:
    """Many small clouds in one call against a plain loop for each."""
    embedding, score = blobs(clouds * points, 5)
    batch = torch.arange(clouds).repeat_interleave(points)
    each = [(embedding.select(batch == b), score[batch == b]) for b in range(clouds)]
    calls: dict[str, Callable[[], object]] = {
        "plain": lambda: [plain_loop(*cloud) for cloud in each],
        "ours": lambda: greedy_cluster(embedding, score[:, None], batch=batch, background=None),
    }
    found = greedy_cluster(embedding, score[:, None], batch=batch, background=None)
    return report(f"{clouds} clouds of {points}", len(score), len(found), timed(calls, rounds, seconds=ENOUGH_S))


def compare(name: str, embedding: GaussianEmbedding, score: Tensor, semantic: Tensor | None, rounds: int) -> Row:
    probabilities = score[:, None]
    if semantic is not None:
        probabilities = torch.zeros(len(score), 20).scatter(1, semantic[:, None], probabilities)
    found = greedy_cluster(embedding, probabilities, background=None, class_aware=semantic is not None)
    seconds = timed(
        {
            "plain": lambda: plain_loop(embedding, score, semantic=semantic),
            "ours": lambda: greedy_cluster(embedding, probabilities, background=None, class_aware=semantic is not None),
        },
        rounds,
        seconds=ENOUGH_S,
    )
    return report(name, len(score), len(found), seconds)


def report(name: str, points: int, instances: int, seconds: dict[str, Row]) -> Row:
    plain, ours = seconds["plain"]["cpu_s"], seconds["ours"]["cpu_s"]
    row = {"points": points, "instances": instances, "plain_s": plain, "ours_s": ours}
    row |= {"ratio": ours / plain, "of_limit": ours / (RELATIVE * plain + ABSOLUTE)}
    print(
        f"{name:34}{points:10,}{instances:11,}{1e3 * plain:12.2f}{1e3 * ours:11.2f}"
        f"{row['ratio']:12.2f}{row['of_limit']:10.2f}",
        flush=True,
    )
    return row


def benchmark(quick: bool) -> Results:
    results = Results()
    if quick:
        sizes, largest = [(4_000, 20)], dict.fromkeys(("MeanShift", "DBSCAN", "HDBSCAN"), 4_000)
    else:
        sizes, largest = [(10_000, 40), (150_000, 60)], {"MeanShift": 10_000, "DBSCAN": 150_000, "HDBSCAN": 10_000}
    for n, k in sizes:
        for table in peers(n, k, 3 if quick else 9, largest):
            results.add(table)
    if not quick:
        results.add(many_instances(1_000_000, 2_000, 3))
    hard_cases = index_cannot_help(10_000, 1_000, 2) if quick else index_cannot_help(150_000, 20_000, 5)
    results.numbers = {"index_cannot_help": hard_cases}
    return results


if __name__ == "__main__":
    run_alone("clustering", __doc__, benchmark)
