"""The fused sums on a GPU against what people write today, in one run: a table, and a JSON file with the device.

    python benchmarks/gpu.py              about five minutes
    python benchmarks/gpu.py --quick      small sizes

Times are medians of CUDA events over repeated calls in turn, forward and backward. The limit is that of the
special-function units, 16 results a clock on each multiprocessor: a pair in three dimensions needs three reciprocal
roots and one exponential.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness import RESULTS, Results, header, slug, version_of, write_json

# isort: split
import torch
from torch import Tensor

from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    InstanceIndex,
    LogDiceLoss,
    ProbabilisticEmbeddingLoss,
    index_instances,
)
from probemb_lib import similarity_sums as module
from probemb_lib.similarity_sums import similarity_sums

DEVICE = "cuda"
SPECIAL_FUNCTIONS_A_PAIR = 4
SPECIAL_FUNCTIONS_A_CLOCK = 16  # on one multiprocessor, compute capability 8.0 and 9.0

Peer = Callable[[], object]


@contextlib.contextmanager
def without_twin() -> Iterator[None]:
    """Eager torch in place of the Triton twin."""
    twin = module._has_twin
    module._has_twin = lambda x: False
    try:
        yield
    finally:
        module._has_twin = twin


class Problem:
    """Clouds of one size, so that peers can do without ragged batches: points around the centres of their instances,
    and centres that are leaves of their own."""

    def __init__(self, clouds: int, n: int, k: int) -> None:
        g = torch.Generator(DEVICE).manual_seed(0)
        self.clouds, self.n, self.k = clouds, n, k
        instance = torch.randint(0, k, (clouds, n), device=DEVICE, generator=g)
        instance[:, :k] = torch.arange(k, device=DEVICE)  # none is empty
        cloud = torch.arange(clouds, device=DEVICE)[:, None].expand(clouds, n)
        self.index: InstanceIndex = index_instances(instance.flatten(), cloud.flatten())
        place = torch.rand(clouds, k, 3, device=DEVICE, generator=g)
        noise, spread = (torch.randn(clouds * n, 3, device=DEVICE, generator=g) for _ in range(2))
        self.points = GaussianEmbedding(place[cloud, instance].view(-1, 3) + 0.1 * noise, 0.2 * spread - 2)
        spread = torch.randn(clouds * k, 3, device=DEVICE, generator=g)
        self.centers = GaussianEmbedding(place.view(-1, 3), 0.2 * spread - 2)

    def leaves(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return [t.detach().to(dtype, copy=True).requires_grad_() for t in (*self.points, *self.centers)]


def broadcast(mean: Tensor, log_std: Tensor, c_mean: Tensor, c_log_std: Tensor) -> Tensor:
    """Σ κ as one writes it down: points (B, N, 1, D) and centres (B, 1, K, D) make (B, N, K, D) tensors."""
    variance, c_variance = torch.exp(2 * log_std), torch.exp(2 * c_log_std)
    v = variance + c_variance
    shape = torch.sqrt(2 * torch.sqrt(variance * c_variance) / v)
    return (torch.exp(-((mean - c_mean) ** 2) / (4 * v)) * shape).prod(-1).sum()


def keops(mean: Tensor, log_std: Tensor, c_mean: Tensor, c_log_std: Tensor) -> Tensor:
    """The same by KeOps' symbolic tensors."""
    lazy = importlib.import_module("pykeops.torch").LazyTensor
    x, s, y, c = (lazy(t.contiguous()) for t in (mean, log_std, c_mean, c_log_std))
    v = (2 * s).exp() + (2 * c).exp()
    log_kappa = -0.25 * ((x - y) ** 2 / v).sum(-1) - 0.5 * (0.5 * ((s - c).exp() + (c - s).exp())).log().sum(-1)
    total: Tensor = log_kappa.exp().sum(2).sum()
    return total


def peers(p: Problem) -> dict[str, Peer]:
    inputs = p.leaves()

    def step(total: Callable[[], Tensor]) -> Peer:
        def call() -> None:
            for t in inputs:
                t.grad = None
            total().backward()

        return call

    def fused(outside: bool, per_instance: bool) -> Callable[[], Tensor]:
        def total() -> Tensor:
            x, c = GaussianEmbedding(*inputs[:2]), GaussianEmbedding(*inputs[2:])
            sums = similarity_sums(x, c, p.index, per_instance=per_instance, outside=outside)
            return sums.similar.sum() if sums.outside is None else sums.similar.sum() + sums.outside.sum()

        return total

    def dense(of_pairs: Callable[..., Tensor]) -> Callable[[], Tensor]:
        points, centers = (p.clouds, -1, 1, 3), (p.clouds, 1, -1, 3)
        return lambda: of_pairs(
            *(t.view(shape) for t, shape in zip(inputs, (points, points, centers, centers), strict=True))
        )

    def eager_torch() -> None:
        with without_twin():
            step(fused(False, False))()

    losses = {"LogDiceLoss": LogDiceLoss(), "LogDiceLoss, per instance": LogDiceLoss(per_instance=True)}
    semantic = torch.ones(p.clouds * p.n, dtype=torch.int64, device=DEVICE)
    logits = torch.zeros(p.clouds * p.n, 2, device=DEVICE, requires_grad=True)
    whole = ProbabilisticEmbeddingLoss()
    found: dict[str, Peer] = {
        "Triton": step(fused(False, False)),
        "Triton, per instance": step(fused(False, True)),
        "Triton, with BCE": step(fused(True, False)),
        "eager torch, tiles": eager_torch,
        "torch.compile of ours": step(torch.compile(fused(False, False))),
        "broadcast, autograd": step(dense(broadcast)),
        "broadcast, torch.compile": step(dense(torch.compile(broadcast))),
    }
    for name, loss in losses.items():
        found[name] = step(lambda loss=loss: loss(GaussianEmbedding(*inputs[:2]), p.index))  # type: ignore[misc]
    found["ProbabilisticEmbeddingLoss"] = step(
        lambda: whole(HeadOutput(GaussianEmbedding(*inputs[:2]), logits), p.index, semantic)["loss"]
    )
    if importlib.util.find_spec("pykeops") is not None:
        found["KeOps"] = step(dense(keops))
    return found


def timed(calls: dict[str, Peer], rounds: int) -> dict[str, dict[str, float] | None]:
    """Median and minimum seconds on the device's clock, called in turn; None where memory does not suffice."""
    seconds: dict[str, list[float] | None] = {}
    for name, call in calls.items():
        try:
            for _ in range(3):
                call()
            torch.cuda.synchronize()
            seconds[name] = []
        except torch.OutOfMemoryError:
            seconds[name] = None
        torch.cuda.empty_cache()
    for _ in range(rounds):
        for name, call in calls.items():
            times = seconds[name]
            if times is None:
                continue
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
    return {
        name: None if times is None else {"median_s": statistics.median(times), "min_s": min(times)}
        for name, times in seconds.items()
    }


def accuracy(p: Problem) -> dict[str, dict[str, float]]:
    """Errors against float64, relative in the norm, of the twin and of eager torch; and equal bits of repeated runs."""

    def run(dtype: torch.dtype) -> dict[str, Tensor]:
        inputs = p.leaves(dtype)
        x, c = GaussianEmbedding(*inputs[:2]), GaussianEmbedding(*inputs[2:])
        sums = similarity_sums(x, c, p.index, per_instance=True, outside=True)
        assert sums.outside is not None
        (sums.similar.log().sum() + sums.outside.log1p().sum()).backward()
        names = ("of mean", "of log_std", "of centres' mean", "of centres' log_std")
        slopes = {name: t.grad for name, t in zip(names, inputs, strict=True) if t.grad is not None}
        return {"similar": sums.similar.detach(), "outside": sums.outside.detach(), **slopes}

    ours, again = run(torch.float32), run(torch.float32)
    with without_twin():
        theirs, exact = run(torch.float32), run(torch.float64)
    return {
        name: {
            "twin": float((ours[name] - right).norm() / right.norm()),
            "torch": float((theirs[name] - right).norm() / right.norm()),
            "repeats": float(torch.equal(ours[name], again[name])),
        }
        for name, right in exact.items()
    }


def limit(pairs: int) -> float | None:
    """Seconds that the special-function units need for the pairs, where torch knows the clock."""
    device: Any = torch.cuda.get_device_properties(0)
    clock = getattr(device, "clock_rate", None)  # kHz
    if clock is None:
        return None
    a_second = SPECIAL_FUNCTIONS_A_CLOCK * device.multi_processor_count * clock * 1e3
    return float(SPECIAL_FUNCTIONS_A_PAIR * pairs / a_second)


def measure(clouds: int, n: int, k: int, rounds: int) -> dict[str, object]:
    p = Problem(clouds, n, k)
    times = timed(peers(p), rounds)
    baseline, least = times["broadcast, autograd"], limit(clouds * n * k)
    print(f"\n{clouds} clouds of {n:,} points and {k} instances, forward + backward")
    print(f"{'':32}{'median ms':>12}{'times faster':>14}{'of the limit':>14}")
    for name, row in times.items():
        if row is None:
            print(f"{name:32}{'out of memory':>12}")
            continue
        faster = f"{baseline['median_s'] / row['median_s']:.1f}" if baseline else ""
        share = f"{100 * least / row['median_s']:.0f} %" if least else ""
        print(f"{name:32}{1e3 * row['median_s']:12.3f}{faster:>14}{share:>14}")
    errors = accuracy(p)
    for name, row in errors.items():
        print(f"error {name:26}{row['twin']:12.1e}   eager torch {row['torch']:.1e}   repeats {bool(row['repeats'])}")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    peers(p)["Triton"]()
    memory = torch.cuda.max_memory_allocated() - before
    return {"times": times, "limit_s": least, "accuracy": errors, "memory_bytes": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--output", type=Path, help="JSON file; by default benchmarks/results/gpu-{device}.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs an NVIDIA GPU, but torch.cuda.is_available() is false: nothing was measured")
    device = torch.cuda.get_device_name(0)
    if not module._has_twin(torch.zeros(1, device=DEVICE)):
        sys.exit(f"the Triton twin does not run here (torch {torch.__version__}, {device}): nothing was measured")
    head = {"device": device, **header()}
    head["versions"] |= {"cuda": torch.version.cuda, "triton": version_of("triton")}
    results = Results()
    print(f"{device}, torch {torch.__version__}")
    sizes = [(4, 2_000, 10)] if options.quick else [(16, 10_000, 50), (1, 40_000, 50), (1, 1_000_000, 300)]
    for clouds, n, k in sizes:
        results.numbers[f"sums_{clouds}_{n}_{k}"] = measure(clouds, n, k, 5 if options.quick else 30)
    path = options.output
    if path is None and not options.quick:
        path = RESULTS / f"gpu-{slug(device)}.json"
    if path is not None:
        write_json(path, head, {"gpu": results})
        print(f"\nresults  {path}")


if __name__ == "__main__":
    main()
