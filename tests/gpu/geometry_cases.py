"""PointNet++'s geometry on a real GPU: indices of the CPU, few launches, one wait, bounded memory. By `make gpu`."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from probemb_adapters.networks import _all_clouds as all_clouds
from probemb_adapters.networks import _by_cloud as by_cloud
from probemb_adapters.networks.pointnet2 import (
    PointNet2,
    ball_query,
    farthest_point_sample,
    local_covariance,
    nearest_neighbors,
)
from probemb_lib import twins

CLOSE = [(torch.float32, 0.0), (torch.float32, 30.0), (torch.float64, 0.0)]  # 30: half the digits are lost


@pytest.fixture(autouse=True)
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.fail("expected a CUDA device, torch.cuda.is_available() is false; run these by `make gpu`")
    torch.manual_seed(0)
    return torch.device("cuda")


def lattice(clouds: int, points: int, dtype: torch.dtype, shift: float) -> Tensor:
    """Multiples of 0.01 on three faces of a box: distances tie, or differ by the rounding alone."""
    x = torch.rand(clouds, points, 3, dtype=dtype) * 2 - 1
    x.scatter_(2, torch.arange(points).remainder(3)[None, :, None].expand(clouds, -1, -1), 0.5)
    return (x / 0.01).round() * 0.01 + shift


@pytest.mark.parametrize("kernels_run", [True, False])
@pytest.mark.parametrize(("dtype", "shift"), CLOSE)
def test_indices_are_those_of_the_cpu(
    dtype: torch.dtype, shift: float, kernels_run: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in plain torch, where there is no Triton."""
    monkeypatch.setattr(all_clouds, "run_on", lambda device: kernels_run)
    x = lattice(3, 5_000, dtype, shift)
    samples = farthest_point_sample(x, 512)
    assert_close(farthest_point_sample(x.to(device), 512).cpu(), samples)
    first = torch.tensor([0, 17, 4_999])
    ours = all_clouds.farthest(x.to(device), first.to(device), 99)
    assert_close(ours.cpu(), by_cloud.farthest(x, first, 99))
    centers = x.gather(1, samples[..., None].expand(-1, -1, 3))
    for points in (centers, centers + 0.003, centers + 5):
        for radius in (0.2, 0.05, 0.01 * 5):
            balls = ball_query(points, x, radius)
            assert_close(ball_query(points.to(device), x.to(device), radius).cpu(), balls)
        for k in (3, 9):
            found = nearest_neighbors(x.to(device), points.to(device), k)
            for got, expected in zip(found, nearest_neighbors(x, points, k), strict=True):
                assert_close(got.cpu(), expected, rtol=0, atol=0)
    assert_close(local_covariance(x.to(device)).cpu(), local_covariance(x), rtol=1e-4, atol=1e-5)


def test_public_functions_take_the_kernels(device: torch.device) -> None:
    x = lattice(2, 3_000, torch.float32, 0.0).to(device)
    twins.missing.cache_clear()
    twins.warn_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels(lambda: farthest_point_sample(x, 300)) < 30
    assert kernels(lambda: ball_query(x, x, 0.2)) < 30
    assert kernels(lambda: nearest_neighbors(x, x, 3)) < 30


def kernels(call: Callable[[], object]) -> int:
    call()
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        call()
        torch.cuda.synchronize()
    return sum(event.count for event in record.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA)


def test_kernels_of_a_step_do_not_grow_with_the_clouds(device: torch.device) -> None:
    net = PointNet2().to(device)
    few, many = (torch.rand(clouds, 1_000, 3, device=device) for clouds in (4, 16))
    counts = [kernels(lambda x=x: net(x).sum().backward()) for x in (few, many)]  # type: ignore[misc]
    assert counts[1] <= 1.2 * counts[0]  # moments of batch norm go tile by tile
    assert counts[1] < 1_000


def test_the_network_waits_once(device: torch.device) -> None:
    """For the check that positions are finite."""
    net, x = PointNet2().to(device), torch.rand(4, 2_000, 3, device=device)
    net(x)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            net(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchronizing" in str(warning.message)]
    assert len(waits) == 1, waits


@pytest.mark.parametrize("kernels_run", [True, False])
def test_memory_is_bounded(kernels_run: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """10^10 pairs; in plain torch a table of 2^24 distances, its differences and ranks are 300 MB."""
    monkeypatch.setattr(all_clouds, "run_on", lambda device: kernels_run)
    x = torch.rand(1, 100_000, 3, device=device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    local_covariance(x)
    nearest_neighbors(x, x, 3)
    assert torch.cuda.max_memory_allocated() - before < 5e8
