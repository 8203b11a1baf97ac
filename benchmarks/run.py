"""Losses and clustering against what people write today, in one run: a table, and a JSON file with the machine.

One thread. Leave the machine alone meanwhile: with other load the ratios mean nothing. Peers are measured in turn,
several rounds; the table shows the median of the rounds and, in the JSON, the minimum as well.

    python benchmarks/run.py              everything, about three minutes
    python benchmarks/run.py --quick      small sizes, for CI
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy
import torch
from torch import Tensor

from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    LogDiceLoss,
    ProbabilisticEmbeddingLoss,
    greedy_cluster,
    index_instances,
    log_bhattacharyya,
)

ROOT = Path(__file__).resolve().parent


def timed(peers: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Median and minimum seconds of each peer, called in turn; the first call of each is not counted."""
    for call in peers.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, call in peers.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: {"median_s": statistics.median(s), "min_s": min(s)} for name, s in seconds.items()}


def show(title: str, rows: dict[str, dict[str, float]], baseline: str) -> None:
    print(f"\n{title}\n{'':44}{'median ms':>12}{'times faster':>14}")
    for name, row in rows.items():
        ratio = rows[baseline]["median_s"] / row["median_s"]
        print(f"{name:44}{1e3 * row['median_s']:12.2f}{ratio:14.2f}")


def dice_problem(n: int, k: int, dim: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Points around the centres of their instances, as during training."""
    generator = torch.Generator().manual_seed(0)
    instance = torch.randint(0, k, (n,), generator=generator)
    centers = torch.rand(k, dim, generator=generator)
    mean = centers[instance] + 0.1 * torch.randn(n, dim, generator=generator)
    log_std = 0.2 * torch.randn(n, dim, generator=generator) - 2
    return mean.requires_grad_(), log_std.requires_grad_(), instance


def dice(n: int, k: int, rounds: int) -> dict[str, dict[str, float]]:
    """Log-Dice loss, forward and backward, aggregation included."""
    mean, log_std, instance = dice_problem(n, k)
    index = index_instances(instance)
    rows = torch.arange(n)

    def broadcast() -> None:
        """The formula as one writes it down: (N, K, D) tensors, autograd."""
        size = torch.bincount(instance, minlength=k)[:, None]
        variance = torch.exp(2 * log_std)
        c_mean = torch.zeros(k, 3).index_add(0, instance, mean) / size
        c_variance = torch.zeros(k, 3).index_add(0, instance, variance) / size
        v = variance[:, None] + c_variance[None]
        shape = torch.sqrt(2 * torch.sqrt(variance[:, None] * c_variance[None]) / v)
        kappa = (torch.exp(-((mean[:, None] - c_mean[None]) ** 2) / (4 * v)) * shape).prod(-1)
        loss = -torch.log(2 * kappa[rows, instance].sum() / (kappa.sum() + n))
        mean.grad = log_std.grad = None
        loss.backward()

    def broadcast_log() -> None:
        """The same in log space, as the mathematics states it."""
        size = torch.bincount(instance, minlength=k)[:, None]
        c_mean = torch.zeros(k, 3).index_add(0, instance, mean) / size
        c_log_std = 0.5 * torch.log(torch.zeros(k, 3).index_add(0, instance, torch.exp(2 * log_std)) / size)
        kappa = log_bhattacharyya(GaussianEmbedding(mean, log_std), GaussianEmbedding(c_mean, c_log_std)).exp()
        loss = -torch.log(2 * kappa[rows, instance].sum() / (kappa.sum() + n))
        mean.grad = log_std.grad = None
        loss.backward()

    module = LogDiceLoss()
    compiled = torch.compile(module, fullgraph=True)

    def ours(loss: Callable[..., Tensor]) -> Callable[[], None]:
        def call() -> None:
            mean.grad = log_std.grad = None
            loss(GaussianEmbedding(mean, log_std), index).backward()

        return call

    compiled_broadcast = torch.compile(broadcast)
    peers = {
        "broadcast, product form": broadcast,
        "broadcast, log form": broadcast_log,
        "torch.compile of the product form": compiled_broadcast,
        "LogDiceLoss": ours(module),
        "LogDiceLoss under torch.compile": ours(compiled),
    }
    results = timed(peers, rounds)
    show(f"Log-Dice loss, N = {n:,}, K = {k}, D = 3, forward + backward", results, "broadcast, product form")
    return results


def whole_loss(n: int, k: int, rounds: int) -> dict[str, dict[str, float]]:
    """The whole objective (Eq. 15): BCE, Dice, score and entropy."""
    mean, log_std, instance = dice_problem(n, k)
    index = index_instances(instance)
    semantic = torch.ones(n, dtype=torch.int64)
    logits = torch.randn(n, 2, requires_grad=True)
    module = ProbabilisticEmbeddingLoss()
    compiled = torch.compile(module, fullgraph=True)

    def ours(loss: Callable[..., dict[str, Tensor]]) -> Callable[[], None]:
        return lambda: loss(HeadOutput(GaussianEmbedding(mean, log_std), logits), index, semantic)["loss"].backward()

    peers = {
        "ProbabilisticEmbeddingLoss": ours(module),
        "... under torch.compile": ours(compiled),
        "index_instances, once a batch": lambda: index_instances(instance),
    }
    results = timed(peers, rounds)
    show(f"Whole objective, N = {n:,}, K = {k}", results, "ProbabilisticEmbeddingLoss")
    return results


def blobs(n: int, k: int) -> tuple[GaussianEmbedding, Tensor]:
    """Gaussian blobs at a fixed density: embeddings as a trained network gives them."""
    random = np.random.default_rng(0)
    centers = random.random((k, 3)) * k ** (1 / 3)
    which = random.integers(0, k, n)
    mean = centers[which] + 0.04 * random.normal(size=(n, 3))
    log_std = np.log(0.08) + 0.1 * random.normal(size=(n, 3))
    score = 1 - np.linalg.norm(mean - centers[which], axis=1) / 0.32 + 0.02 * random.normal(size=n)
    as_tensor = [torch.from_numpy(a).float() for a in (mean, log_std, score.clip(0.01, 0.99))]
    return GaussianEmbedding(as_tensor[0], as_tensor[1]), as_tensor[2]


def plain_loop(embedding: GaussianEmbedding, score: Tensor, threshold: float = 0.35) -> Tensor:
    """Eq. 11 as one writes it down: each seed against all points."""
    variance, std = torch.exp(2 * embedding.log_std), embedding.log_std.exp()
    label, score, count = torch.full(score.shape, -1), score.clone(), 0
    while (top := score.max(0)).values > -torch.inf:
        v = variance + variance[top.indices]
        distance = ((embedding.mean - embedding.mean[top.indices]) ** 2 / (4 * v)).sum(1)
        kappa = torch.exp(-distance) * (2 * std * std[top.indices] / v).prod(1).sqrt()
        members = (kappa >= threshold) & (label < 0)
        members[top.indices] = True
        label[members], score[members], count = count, -torch.inf, count + 1
    return label


def clustering(n: int, k: int, rounds: int, with_loop: bool) -> dict[str, dict[str, float]]:
    embedding, score = blobs(n, k)
    peers: dict[str, Callable[[], object]] = {}
    if with_loop:
        same = torch.equal(
            plain_loop(embedding, score), greedy_cluster(embedding, score[:, None], background=None).label
        )
        if not same:
            raise RuntimeError("greedy_cluster and the plain loop give different labels")
        peers["plain loop of Eq. 11"] = lambda: plain_loop(embedding, score)
    peers["greedy_cluster"] = lambda: greedy_cluster(embedding, score[:, None], background=None)
    results = timed(peers, rounds)
    show(f"Clustering, {n:,} points, {k:,} instances", results, next(iter(peers)))
    return results


def memory(n: int, k: int) -> dict[str, float]:
    """Peak memory above the inputs of the Dice loss, forward and backward, in a process of its own."""
    code = f"""
import pathlib, torch
torch.set_num_threads(1)
from benchmarks.run import dice_problem
from probemb_lib import GaussianEmbedding, LogDiceLoss, index_instances

def kilobytes(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

small = dice_problem(1000, 10)
LogDiceLoss()(GaussianEmbedding(*small[:2]), small[2]).backward()  # code and buffers are loaded
mean, log_std, instance = dice_problem({n}, {k})
index = index_instances(instance)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = kilobytes("VmRSS")
LogDiceLoss()(GaussianEmbedding(mean, log_std), index).backward()
print(kilobytes("VmHWM") - before)
"""
    if not Path("/proc/self/clear_refs").exists():
        print("\nMemory is measured on Linux only")
        return {}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    peak = int(out.stdout) * 1024 / 1e6
    full = 4e-6 * n * k
    print(f"\nMemory of the Dice loss above its inputs, N = {n:,}, K = {k}: {peak:.0f} MB")
    print(f"(one float32 matrix of N × K takes {full:,.0f} MB)")
    return {"peak_mb": peak, "matrix_mb": full}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds, for CI")
    parser.add_argument("--output", type=Path, help="JSON file to write; by default benchmarks/results/{machine}.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    results: dict[str, object] = {
        "machine": cpu_name(),
        "threads": 1,
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() or None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }
    load = os.getloadavg()[0]
    print(f"{results['machine']}, torch {torch.__version__}, one thread, load {load:.1f}")
    if load > 0.7:
        print("WARNING: the machine is busy; ratios will not mean much")
    results["load"] = load
    if options.quick:
        results["dice_4000_20"] = dice(4_000, 20, 3)
        results["loss_4000_20"] = whole_loss(4_000, 20, 3)
        results["clustering_10000_40"] = clustering(10_000, 40, 3, True)
        results["memory_200000_100"] = memory(200_000, 100)
    else:
        results["dice_40000_50"] = dice(40_000, 50, 15)
        results["loss_40000_50"] = whole_loss(40_000, 50, 15)
        results["clustering_10000_40"] = clustering(10_000, 40, 9, True)
        results["clustering_150000_60"] = clustering(150_000, 60, 9, True)
        results["clustering_1000000_2000"] = clustering(1_000_000, 2_000, 3, False)
        results["memory_1000000_300"] = memory(1_000_000, 300)
    path = options.output
    if path is None and not options.quick:
        path = ROOT / "results" / f"{cpu_name().lower().replace(' ', '-')}.json"
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2) + "\n")
        print(f"\nresults  {path}")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
