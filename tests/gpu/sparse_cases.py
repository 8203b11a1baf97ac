"""Sparse convolutions on a real GPU: those of the CPU, the same bits again, mixed precision. By `make gpu`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from probemb_adapters.networks.minkowski import MinkowskiBackbone, MinkUNet14A


@pytest.fixture(autouse=True)
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.fail("expected a CUDA device, torch.cuda.is_available() is false; run these by `make gpu`")
    torch.manual_seed(0)
    return torch.device("cuda")


def test_network_is_that_of_the_cpu(device: torch.device) -> None:
    """In float64, forward and backward, two clouds in no order; twice the same bits."""
    on_cpu = MinkowskiBackbone(MinkUNet14A(), 0.1, engine="torch").double()
    on_gpu = copy.deepcopy(on_cpu).to(device)
    positions, batch = torch.rand(3000, 3, dtype=torch.float64) * 4 - 2, torch.randint(0, 2, (3000,))
    results = []
    for backbone, place in ((on_cpu, "cpu"), (on_gpu, device), (on_gpu, device)):
        x = positions.to(place)
        output = backbone(x, x, batch.to(place))
        gradients = torch.autograd.grad(output.sin().sum(), list(backbone.parameters()))
        results.append([output, *gradients])
    assert_close([t.cpu() for t in results[1]], results[0], rtol=1e-8, atol=1e-8)
    assert all(torch.equal(a, b) for a, b in zip(results[1], results[2], strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision(dtype: torch.dtype, device: torch.device) -> None:
    backbone = MinkowskiBackbone(MinkUNet14A(), 0.1, engine="torch").to(device)
    positions = torch.rand(3000, 3, device=device) * 4
    exact = backbone(positions, positions)
    with torch.autocast("cuda", dtype=dtype):
        found = backbone(positions, positions)
    assert found.dtype == torch.float32
    assert (found - exact).norm() < 0.1 * exact.norm()
    found.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
