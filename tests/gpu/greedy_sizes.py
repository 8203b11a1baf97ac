"""The greedy clustering at real sizes on a GPU: labels of the CPU, memory, waiting. `make gpu` runs these."""

from __future__ import annotations

import math

import pytest
import torch
from cluster_cases import equal
from torch import Tensor

from probemb_lib import GaussianEmbedding, greedy_cluster
from probemb_lib.clustering import _rounds

SIZES = [(16, 10_000, 40), (1, 150_000, 60), (1, 1_000_000, 2_000), (3_000, 50, 5), (300, 2_000, 30)]


@pytest.fixture(autouse=True)
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.fail("expected a CUDA device, torch.cuda.is_available() is false; run these by `make gpu`")
    return torch.device("cuda")


def scene(clouds: int, n: int, instances: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Blobs of σ = 0.1 in cubes of unit density, the points of all clouds in no order."""
    g = torch.Generator().manual_seed(n)
    center = torch.rand(clouds, instances, 3, generator=g) * instances ** (1 / 3)
    cloud = torch.arange(clouds).repeat_interleave(n)[torch.randperm(clouds * n, generator=g)]
    own = torch.randint(0, instances, (clouds * n,), generator=g)
    mean = center[cloud, own] + 0.07 * torch.randn(clouds * n, 3, generator=g)
    log_std = math.log(0.1) + 0.3 * torch.randn(clouds * n, 3, generator=g)
    return {
        "mean": mean.to(dtype),
        "log_std": log_std.to(dtype),
        "score": torch.rand(clouds * n, 4, generator=g).to(dtype),
        "batch": cloud,
    }


def cluster(data: dict[str, Tensor], **options: object) -> Tensor:
    embedding = GaussianEmbedding(data["mean"], data["log_std"])
    label: Tensor = greedy_cluster(embedding, data["score"], batch=data["batch"], **options).label  # type: ignore[arg-type]
    return label


@pytest.mark.parametrize("class_aware", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_labels_of_the_cpu(
    size: tuple[int, int, int], dtype: torch.dtype, class_aware: bool, device: torch.device
) -> None:
    data = scene(*size, dtype)
    on_gpu = {name: t.to(device) for name, t in data.items()}
    assert _rounds._has_twin(on_gpu["mean"])
    options = {"class_aware": class_aware, "min_score": 0.1, "min_points": 3}
    equal(cluster(on_gpu, **options), cluster(data, **options))


def test_plain_torch_has_the_same_labels(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {name: t.to(device) for name, t in scene(16, 10_000, 40).items()}
    label = cluster(data)
    monkeypatch.setattr(_rounds, "_has_twin", lambda mean: False)
    equal(cluster(data), label.cpu())


def test_memory_and_waiting(device: torch.device) -> None:
    """Some tens of numbers a point, most of them for sorting; and the host waits a few times for thousands of seeds."""
    data = {name: t.to(device) for name, t in scene(1, 1_000_000, 2_000).items()}
    cluster(data)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchronizing") as waits:
            label = cluster(data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.max_memory_allocated() - before < 250e6
    assert int(label.max()) > 2_000
    assert len(waits) < 30
