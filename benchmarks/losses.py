"""The losses against what people write today: broadcasting with autograd, torch.compile of that, and KeOps.

Forward and backward, aggregation included. Each peer's value and gradients are compared with the library's first.

    python benchmarks/losses.py              about three minutes
    python benchmarks/losses.py --quick      small sizes, for CI
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import NamedTuple

from harness import PeakMemory, Results, Table, in_new_process, missing, run_alone, timed

# isort: split
import torch
from problems import dice_problem
from torch import Tensor

from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    LogDiceLoss,
    ProbabilisticEmbeddingLoss,
    index_instances,
)
from probemb_lib.similarity import MIN_DISSIMILARITY

KEOPS = "KeOps LazyTensor"
CLASSES = 19  # columns of the score maps, of which 0 is the background


class Inputs(NamedTuple):
    mean: Tensor  # (N, D) leaf
    log_std: Tensor  # (N, D) leaf
    logits: Tensor  # (N, L) leaf
    instance: Tensor  # (N,) in [0, K)
    semantic: Tensor  # (N,)
    size: Tensor  # (K, 1) points of each instance
    inside: Tensor  # (N, K) bool


def draw(n: int, k: int) -> Inputs:
    mean, log_std, instance = dice_problem(n, k)
    logits = torch.randn(n, CLASSES, generator=torch.Generator().manual_seed(1)).requires_grad_()
    size = torch.bincount(instance, minlength=k)[:, None]
    if (size == 0).any():
        raise ValueError(f"expected more points, so that each instance has one: got {n} points, {k} instances")
    inside = instance[:, None] == torch.arange(k)
    return Inputs(mean, log_std, logits, instance, 1 + instance % (CLASSES - 1), size, inside)


# --- what one writes without the library


def centers(x: Inputs) -> tuple[Tensor, Tensor]:
    """Mean and variance (K, D) of the instances."""
    zero = x.mean.new_zeros(len(x.size), x.mean.shape[1])
    variance = torch.exp(2 * x.log_std)
    return zero.index_add(0, x.instance, x.mean) / x.size, zero.index_add(0, x.instance, variance) / x.size


def dice_of(inside: Tensor, everywhere: Tensor, points: int) -> Tensor:
    """From Σ κ of points with their own instance, and of all pairs."""
    return torch.log((everywhere + points) / (2 * inside))


def product_form(x: Inputs) -> Tensor:
    """κ as a product over the axes: (N, K, D) tensors."""
    variance = torch.exp(2 * x.log_std)
    c_mean, c_variance = centers(x)
    v = variance[:, None] + c_variance[None]  # (N, K, D)
    shape = torch.sqrt(2 * torch.sqrt(variance[:, None] * c_variance[None]) / v)
    kappa = (torch.exp(-((x.mean[:, None] - c_mean[None]) ** 2) / (4 * v)) * shape).prod(-1)
    own = kappa.gather(1, x.instance[:, None]).sum()
    return dice_of(own, kappa.sum(), len(x.mean))


def log_kappa(x: Inputs) -> Tensor:
    """(N, K) in log space, as the mathematics states it."""
    c_mean, c_variance = centers(x)
    c_log_std = 0.5 * c_variance.log()
    v = torch.exp(2 * x.log_std)[:, None] + c_variance[None]  # (N, K, D)
    ratio = 2 * torch.exp(x.log_std[:, None] + c_log_std[None]) / v
    return (0.5 * ratio.log() - (x.mean[:, None] - c_mean[None]) ** 2 / (4 * v)).sum(-1)


def log_form(x: Inputs) -> Tensor:
    kappa = log_kappa(x).exp()
    return dice_of(kappa.gather(1, x.instance[:, None]).sum(), kappa.sum(), len(x.mean))


def keops_form(x: Inputs) -> Tensor:
    """The sum over all pairs by KeOps' symbolic tensors, the rest by torch."""
    lazy = importlib.import_module("pykeops.torch").LazyTensor
    c_mean, c_variance = centers(x)
    c_log_std = 0.5 * c_variance.log()
    m, s = lazy(x.mean[:, None]), lazy(x.log_std[:, None])
    c, t = lazy(c_mean[None]), lazy(c_log_std[None])
    v = (2 * s).exp() + (2 * t).exp()
    shape = (0.5 * ((s - t).exp() + (t - s).exp())).log()
    kappa = (-0.25 * ((m - c) ** 2 / v).sum(-1) - 0.5 * shape.sum(-1)).exp()
    own_v = torch.exp(2 * x.log_std) + c_variance[x.instance]
    own_ratio = 2 * torch.exp(x.log_std + c_log_std[x.instance]) / own_v
    own = (0.5 * own_ratio.log() - (x.mean - c_mean[x.instance]) ** 2 / (4 * own_v)).sum(-1)
    return dice_of(own.exp().sum(), kappa.sum(1).sum(), len(x.mean))


def whole_form(x: Inputs) -> Tensor:
    """Eq. 15 over one (N, K) table of ln κ."""
    table = log_kappa(x)
    kappa = table.exp()
    outside = -torch.log((-torch.expm1(table)).clamp_min(MIN_DISSIMILARITY))
    bce = torch.where(x.inside, -table, outside).mean()
    own = kappa.gather(1, x.instance[:, None]).squeeze(1)
    log_p = x.logits.log_softmax(1).gather(1, x.semantic[:, None]).squeeze(1)
    score = -(own.detach() * log_p).mean() / CLASSES
    entropy = x.mean.shape[1] * 0.5 * math.log(2 * math.pi * math.e) + x.log_std.sum(1).mean()
    return bce + dice_of(own.sum(), kappa.sum(), len(x.mean)) + score + 0.001 * entropy


# --- side by side


def step(x: Inputs, loss: Callable[[], Tensor]) -> Callable[[], None]:
    def call() -> None:
        x.mean.grad = x.log_std.grad = x.logits.grad = None
        loss().backward()

    return call


def check_equal(x: Inputs, losses: dict[str, Callable[[], Tensor]], ours: str) -> None:
    """A peer that computes something else would not be one."""
    found = {}
    for name, loss in losses.items():
        step(x, loss)()
        found[name] = [loss().detach(), x.mean.grad, x.log_std.grad]
    for name, values in found.items():
        for value, expected in zip(values, found[ours], strict=True):
            if value is None or expected is None or (value - expected).norm() > 1e-3 * expected.norm():
                raise RuntimeError(f"{name} and {ours} differ: expected peers that compute the same loss")


def compare(title: str, x: Inputs, losses: dict[str, Callable[[], Tensor]], ours: str, rounds: int) -> Table:
    lacking = missing(["pykeops"]) if KEOPS in losses else None
    if lacking is not None:
        losses = {name: loss for name, loss in losses.items() if name != KEOPS}
    check_equal(x, losses, ours)
    rows = timed({name: step(x, loss) for name, loss in losses.items()}, rounds)
    n, k = x.inside.shape
    title = f"{title}, N = {n:,}, K = {k}, D = {x.mean.shape[1]}, forward + backward"
    return Table(title, rows, next(iter(rows)), ours, {} if lacking is None else {KEOPS: lacking})


def compare_dice(n: int, k: int, rounds: int, *, compiled: bool = True) -> Table:
    x = draw(n, k)
    index, module = index_instances(x.instance), LogDiceLoss()
    fast_product, fast = torch.compile(product_form), torch.compile(module, fullgraph=True)
    losses: dict[str, Callable[[], Tensor]] = {
        "broadcast, product form": lambda: product_form(x),
        "broadcast, log form": lambda: log_form(x),
        "torch.compile of the product form": lambda: fast_product(x),
        KEOPS: lambda: keops_form(x),
        "LogDiceLoss": lambda: module(GaussianEmbedding(x.mean, x.log_std), index),
        "LogDiceLoss under torch.compile": lambda: fast(GaussianEmbedding(x.mean, x.log_std), index),
    }
    if not compiled:
        losses = {name: loss for name, loss in losses.items() if "torch.compile" not in name}
    return compare("Log-Dice loss", x, losses, "LogDiceLoss", rounds)


def compare_whole(n: int, k: int, rounds: int, *, compiled: bool = True) -> Table:
    x = draw(n, k)
    index, module = index_instances(x.instance), ProbabilisticEmbeddingLoss()
    name = "ProbabilisticEmbeddingLoss"

    def output() -> HeadOutput:
        return HeadOutput(GaussianEmbedding(x.mean, x.log_std), x.logits)

    losses: dict[str, Callable[[], Tensor]] = {
        "broadcast, log form": lambda: whole_form(x),
        name: lambda: module(output(), index, x.semantic)["loss"],
    }
    if compiled:
        fast = torch.compile(module, fullgraph=True)
        losses[f"{name}, torch.compile"] = lambda: fast(output(), index, x.semantic)["loss"]
    return compare("Whole objective (Eq. 15)", x, losses, name, rounds)


def index_time(n: int, k: int, rounds: int) -> float:
    """Least seconds of `index_instances`, which a training step needs once, or the loader."""
    instance = dice_problem(n, k)[2]
    return timed({"index": lambda: index_instances(instance)}, rounds)["index"]["min_s"]


def dice_memory(n: int, k: int) -> float:
    """Peak megabytes of the Dice loss above its inputs, forward and backward."""
    small = dice_problem(1000, 10)
    LogDiceLoss()(GaussianEmbedding(*small[:2]), small[2]).backward()  # code and buffers are loaded
    mean, log_std, instance = dice_problem(n, k)
    index = index_instances(instance)
    with PeakMemory() as peak:
        LogDiceLoss()(GaussianEmbedding(mean, log_std), index).backward()
    return peak.megabytes


def benchmark(quick: bool) -> Results:
    results = Results()
    n, k, rounds = (4_000, 20, 3) if quick else (40_000, 50, 15)
    results.add(compare_dice(n, k, rounds))
    # Each compilation takes some ten seconds; CI has enough with those of the Dice loss.
    results.add(compare_whole(n, k, rounds, compiled=not quick))
    seconds = index_time(n, k, rounds)
    print(f"\nindex_instances, once a batch: {1e3 * seconds:.2f} ms")
    n, k = (200_000, 100) if quick else (1_000_000, 300)
    peak = in_new_process(dice_memory, n, k)
    print(f"\nMemory of the Dice loss above its inputs, N = {n:,}, K = {k}: {peak:.0f} MB")
    print(f"(one float32 matrix of N × K takes {4e-6 * n * k:,.0f} MB)")
    memory = {"points": n, "instances": k, "peak_mb": peak, "matrix_mb": 4e-6 * n * k}
    results.numbers = {"index_instances_s": seconds, "memory": memory}
    return results


if __name__ == "__main__":
    run_alone("losses", __doc__, benchmark)
