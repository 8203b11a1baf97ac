"""What needs a real GPU: the size of things. `make gpu` runs these after tests/gpu/twin_cases.py."""

from __future__ import annotations

import pytest
import torch

from probemb_lib import GaussianEmbedding, InstanceIndex, LogDiceLoss, index_instances
from probemb_lib import similarity_sums as module
from probemb_lib.similarity_sums import similarity_sums


@pytest.fixture(autouse=True)
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.fail("expected a CUDA device, torch.cuda.is_available() is false; run these by `make gpu`")
    torch.manual_seed(0)
    return torch.device("cuda")


def problem(n: int, k: int, clouds: int, device: torch.device) -> tuple[GaussianEmbedding, InstanceIndex]:
    """Points around the centres of their instances, in clouds of very different size."""
    share = torch.rand(clouds, device=device).square() + 1e-3
    batch = torch.multinomial(share, n, replacement=True)
    instance = torch.randint(0, k, (n,), device=device)
    mean = torch.rand(k, 3, device=device)[instance] + 0.1 * torch.randn(n, 3, device=device)
    log_std = 0.2 * torch.randn(n, 3, device=device) - 2
    return GaussianEmbedding(mean.requires_grad_(), log_std.requires_grad_()), index_instances(instance, batch)


def centers_of(index: InstanceIndex, device: torch.device) -> GaussianEmbedding:
    k = index.num_instances
    return GaussianEmbedding(torch.rand(k, 3, device=device), torch.full((k, 3), -2.0, device=device))


def run(
    points: GaussianEmbedding, centers: GaussianEmbedding, index: InstanceIndex, per_instance: bool
) -> list[torch.Tensor]:
    inputs = [t.detach().clone().requires_grad_() for t in (*points, *centers)]
    sums = similarity_sums(
        GaussianEmbedding(*inputs[:2]), GaussianEmbedding(*inputs[2:]), index, per_instance=per_instance, outside=True
    )
    assert sums.outside is not None
    total = sums.similar.log1p().sum() + 0.1 * sums.outside.log1p().sum()
    return [sums.similar.detach(), sums.outside.detach(), *torch.autograd.grad(total, inputs)]


@pytest.mark.parametrize("per_instance", [False, True], ids=["cloud", "instance"])
@pytest.mark.parametrize(("n", "k", "clouds"), [(160_000, 50, 16), (99_991, 7, 300), (300_001, 201, 1)])
def test_against_float64(
    n: int, k: int, clouds: int, per_instance: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most twice the error of eager torch in float32, and the same bits each time."""
    points, index = problem(n, k, clouds, device)
    centers = centers_of(index, device)
    assert module._has_twin(points.mean)
    ours, again = run(points, centers, index, per_instance), run(points, centers, index, per_instance)
    double = points.to(dtype=torch.float64), centers.to(dtype=torch.float64)
    monkeypatch.setattr(module, "_has_twin", lambda *xs: False)
    theirs, exact = run(points, centers, index, per_instance), run(*double, index, per_instance)
    for a, b, same, right in zip(ours, theirs, again, exact, strict=True):
        assert torch.equal(a, same)
        assert (a - right).norm() <= 2 * (b - right).norm() + 2e-7 * right.norm()


def test_many_pairs_in_little_memory(device: torch.device) -> None:
    """10^10 pairs, 10,000,000 points of 1,000 instances: memory for a few numbers a point."""
    points, index = problem(10_000_000, 1_000, 1, device)
    centers = centers_of(index, device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    similar = similarity_sums(points, centers, index).similar
    similar.sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 1.5e9
    assert torch.isfinite(similar).all()
    rows = torch.arange(0, 10_000_000, 10_000, device=device)  # a thousand points, one of each instance
    few = GaussianEmbedding(*(t.detach()[rows].double().requires_grad_() for t in points))
    of_few = index_instances(torch.arange(1_000, device=device))
    similarity_sums(few, centers.to(dtype=torch.float64), of_few).similar.sum().backward()
    for t, right in zip(points, few, strict=True):
        assert t.grad is not None
        torch.testing.assert_close(t.grad[rows].double(), right.grad, rtol=1e-4, atol=1e-4)


def test_no_synchronization(device: torch.device) -> None:
    """Launches wait for nothing on the host."""
    points, index = problem(20_000, 20, 4, device)
    centers = centers_of(index, device)
    similarity_sums(points, centers, index, outside=True).similar.sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        similarity_sums(points, centers, index, outside=True).similar.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_under_autocast_and_compile(device: torch.device) -> None:
    points, index = problem(20_000, 20, 4, device)
    plain = LogDiceLoss()(points, index)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        torch.testing.assert_close(LogDiceLoss()(points, index), plain)
    torch.testing.assert_close(torch.compile(LogDiceLoss(), fullgraph=True)(points, index), plain, rtol=1e-5, atol=1e-5)
