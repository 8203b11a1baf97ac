"""The sums over all pairs, the index and the whole objective on a device, beside what people write today."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator

import torch
from gpu_clock import Peer, special_function_limit, table, timed
from harness import Results
from torch import Tensor

from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    LogDiceLoss,
    ProbabilisticEmbeddingLoss,
    index_instances,
)
from probemb_lib import similarity_sums as module
from probemb_lib.similarity_sums import similarity_sums
from probemb_lib.twins import run_on

SPECIAL_FUNCTIONS_A_PAIR = 4  # in three dimensions: three reciprocal roots and one exponential


@contextlib.contextmanager
def without_twin() -> Iterator[None]:
    """Eager torch in place of the Triton twin."""
    twin = module._has_twin
    module._has_twin = lambda *embeddings: False
    try:
        yield
    finally:
        module._has_twin = twin


class Problem:
    """Clouds of one size, so that peers can do without ragged batches: points around the centres of their instances,
    and centres that are leaves of their own."""

    def __init__(self, clouds: int, n: int, k: int, device: torch.device) -> None:
        g = torch.Generator(device).manual_seed(0)
        self.clouds, self.n, self.k, self.device = clouds, n, k, device
        instance = torch.randint(0, k, (clouds, n), device=device, generator=g)
        instance[:, :k] = torch.arange(k, device=device)  # none is empty
        cloud = torch.arange(clouds, device=device)[:, None].expand(clouds, n)
        self.labels, self.batch = instance.flatten(), cloud.flatten()
        self.index = index_instances(self.labels, self.batch)
        place = torch.rand(clouds, k, 3, device=device, generator=g)
        noise, spread = (torch.randn(clouds * n, 3, device=device, generator=g) for _ in range(2))
        self.points = GaussianEmbedding(place[cloud, instance].view(-1, 3) + 0.1 * noise, 0.2 * spread - 2)
        spread = torch.randn(clouds * k, 3, device=device, generator=g)
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


def forward_and_backward(inputs: list[Tensor], total: Callable[[], Tensor]) -> Peer:
    def call() -> None:
        for t in inputs:
            t.grad = None
        total().backward()

    return call


def peers(p: Problem) -> dict[str, Peer]:
    """Σ κ by each way, forward and backward."""
    inputs = p.leaves()

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

    def tiles() -> None:
        with without_twin():
            forward_and_backward(inputs, fused(False, False))()

    found = {
        "similarity_sums": forward_and_backward(inputs, fused(False, False)),
        "similarity_sums, per instance": forward_and_backward(inputs, fused(False, True)),
        "similarity_sums, with BCE": forward_and_backward(inputs, fused(True, False)),
        "similarity_sums, torch.compile": forward_and_backward(inputs, torch.compile(fused(False, False))),
        "eager torch, tiles": tiles,
        "broadcast, autograd": forward_and_backward(inputs, dense(broadcast)),
        "broadcast, torch.compile": forward_and_backward(inputs, dense(torch.compile(broadcast))),
    }
    if importlib.util.find_spec("pykeops") is not None:
        found["KeOps"] = forward_and_backward(inputs, dense(keops))
    return found


def objective(p: Problem) -> dict[str, Peer]:
    """The index, and losses given an index; as a captured graph where the device has them."""
    mean, log_std = p.leaves()[:2]
    logits = torch.zeros(len(p.labels), 2, device=p.device, requires_grad=True)
    semantic = torch.ones_like(p.labels)
    inputs, dice, whole = [mean, log_std, logits], LogDiceLoss(), ProbabilisticEmbeddingLoss()

    def total() -> Tensor:
        output = HeadOutput(GaussianEmbedding(mean, log_std), logits)
        return whole(output, p.index, semantic)["loss"]

    found: dict[str, Peer] = {
        "whole objective": forward_and_backward(inputs, total),
        "whole objective, forward": lambda: total().detach(),
        "whole objective, torch.compile": forward_and_backward(inputs, torch.compile(total)),
        "LogDiceLoss": forward_and_backward(inputs, lambda: dice(GaussianEmbedding(mean, log_std), p.index)),
        "index_instances": lambda: index_instances(p.labels, p.batch),
    }
    if p.device.type == "cuda" and run_on(p.device):  # plain torch reads sizes back
        found["whole objective, CUDA graph"] = captured(forward_and_backward(inputs, total))
    return found


def captured(call: Peer) -> Peer:
    """The launches of a call, recorded once and sent as one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def accuracy(p: Problem) -> dict[str, dict[str, float]]:
    """Errors against float64, relative in the norm, of the twin and of eager torch; and equal bits of repeated runs."""

    def run(dtype: torch.dtype) -> dict[str, Tensor]:
        inputs = p.leaves(dtype)
        x, c = GaussianEmbedding(*inputs[:2]), GaussianEmbedding(*inputs[2:])
        sums = similarity_sums(x, c, p.index, per_instance=True, outside=True)
        if sums.outside is None:
            raise RuntimeError("outside=True gave no sums")
        (sums.similar.log().sum() + sums.outside.log1p().sum()).backward()
        names = ("of mean", "of log_std", "of centres' mean", "of centres' log_std")
        slopes = {name: t.grad for name, t in zip(names, inputs, strict=True) if t.grad is not None}
        return {"similar": sums.similar.detach(), "outside": sums.outside.detach(), **slopes}

    ours, again = run(torch.float32), run(torch.float32)
    with without_twin():
        theirs, exact = run(torch.float32), run(torch.float64)
    return {
        name: {
            "ours": float((ours[name] - right).norm() / right.norm()),
            "tiles": float((theirs[name] - right).norm() / right.norm()),
            "repeats": float(torch.equal(ours[name], again[name])),
        }
        for name, right in exact.items()
    }


def measure(results: Results, clouds: int, n: int, k: int, device: torch.device, rounds: int, seconds: float) -> None:
    """Add the sums, the objective and the accuracy of one size."""
    p = Problem(clouds, n, k, device)
    size = f"{clouds} x {n:,} points, {k} instances each"
    least = special_function_limit(SPECIAL_FUNCTIONS_A_PAIR * clouds * n * k, device)
    times = timed(peers(p), rounds, device, seconds=seconds)
    print(table(f"Sums over all pairs, forward and backward, {size}", times, "broadcast, autograd", least), flush=True)
    whole = timed(objective(p), rounds, device, seconds=seconds)
    print(table(f"Objective, {size}", whole, "whole objective"), flush=True)
    errors = accuracy(p)
    for name, row in errors.items():
        print(f"error {name:26}{row['ours']:12.1e}   tiles {row['tiles']:.1e}   repeats {bool(row['repeats'])}")
    results.numbers[f"losses_{clouds}_{n}_{k}"] = {
        "sums": times,
        "objective": whole,
        "limit_s": least,
        "accuracy": errors,
    }
