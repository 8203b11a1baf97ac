"""The Gaussians of the instances and the similarity of their points, against float64 loops and plain autograd."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from oracles import draw_problem
from sum_cases import case, leaves, std, weights
from torch import Tensor
from torch.autograd import gradcheck

from probemb_lib import GaussianEmbedding, aggregate_instances, index_instances, log_bhattacharyya_paired
from probemb_lib.aggregate import Covariance
from probemb_lib.member_similarity import member_similarity, own_similarity

PROBLEMS = {
    "ragged": draw_problem(0, n=70, num_clouds=5),
    "one cloud": draw_problem(1, num_clouds=1).change(batch=None),
    "plane": draw_problem(4, dim=2),
    "line": draw_problem(5, dim=1),
    "six": draw_problem(6, dim=6),
    "wide σ": draw_problem(7, spread=3.0),
    "all ignored": draw_problem(7).change(instance=np.full(40, oracles.IGNORED)),
    "no instance": draw_problem(8).change(instance=np.full(40, -1)),
    "one point": draw_problem(9, n=1, num_clouds=1, background=False, ignored=False),
    "no point": draw_problem(10, n=0),
    "each point an instance": draw_problem(11, n=20, num_clouds=2).change(instance=np.arange(20)),
}
COVARIANCES = pytest.mark.parametrize("covariance", ["mean", "independent"])


def of_own(points: GaussianEmbedding, centers: GaussianEmbedding) -> Tensor:
    """ln κ of each point with the centre in the same row, whatever its σ."""
    moments, own = (torch.stack([e.mean.T, (2 * e.log_std).exp().T]) for e in (points, centers))
    return own_similarity(moments, own, None, torch.arange(len(points.mean))).log_kappa


@pytest.mark.parametrize("name", PROBLEMS)
@COVARIANCES
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_values_and_gradients(name: str, covariance: Covariance, dtype: torch.dtype, tolerance: float) -> None:
    p = PROBLEMS[name]
    points, _, index = case(p, dtype)
    (x,) = leaves(points)
    centers, got = member_similarity(x, index, covariance)
    (y,) = leaves(points.to(dtype=torch.float64))
    right_centers = aggregate_instances(y, index, covariance=covariance)
    right = log_bhattacharyya_paired(y.select(index.member), right_centers.select(index.member_instance))
    results, expected = (got, *centers), (right, *right_centers)
    for a, b in zip(results, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)

    of_points, of_centers = std(points), std(right_centers)
    looped = [
        oracles.log_kappa(points.mean[i].double(), of_points[i], right_centers.mean[k].detach().double(), of_centers[k])
        for i, k in zip(index.member.tolist(), index.member_instance.tolist(), strict=True)
    ]
    torch.testing.assert_close(got.double(), torch.tensor(looped, dtype=torch.float64), rtol=tolerance, atol=tolerance)
    if looped:
        with pytest.raises(AssertionError):
            torch.testing.assert_close(got.double(), right - 0.01, rtol=tolerance, atol=tolerance)

    slopes = [
        torch.autograd.grad(sum((v * w).sum() for v, w in zip(values, weights(*values), strict=True)), [*e])
        for values, e in ((results, x), (expected, y))
    ]
    for g, e in zip(*slopes, strict=True):
        torch.testing.assert_close(g.double(), e, rtol=tolerance, atol=tolerance)


@COVARIANCES
def test_gradcheck_and_second_derivative(covariance: Covariance) -> None:
    points, _, index = case(draw_problem(14, n=9, dim=2, num_clouds=2, num_instances=2))
    (x,) = leaves(points)

    def f(mean: Tensor, log_std: Tensor) -> tuple[Tensor, ...]:
        centers, log_kappa = member_similarity(GaussianEmbedding(mean, log_std), index, covariance)
        return (*centers, log_kappa)

    assert gradcheck(f, [*x])
    (slope,) = torch.autograd.grad(f(*x)[2].square().sum(), x.mean, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@COVARIANCES
@pytest.mark.parametrize("log_std", [-39.5, 0.0, 39.5])
def test_sigma_of_any_size(covariance: Covariance, log_std: float) -> None:
    """κ depends on ratios alone; nothing overflows or vanishes from e^−40 to e^40."""
    g = torch.Generator().manual_seed(0)
    unit = GaussianEmbedding(torch.randn(60, 3, generator=g).double(), 0.1 * torch.randn(60, 3, generator=g).double())
    index = index_instances(torch.arange(60) % 2)
    scaled = GaussianEmbedding(unit.mean * np.exp(log_std), unit.log_std + log_std).to(dtype=torch.float32)
    results = []
    for e in (unit, scaled):
        (x,) = leaves(e)
        centers, log_kappa = member_similarity(x, index, covariance)
        (slope,) = torch.autograd.grad(log_kappa.sum() + centers.log_std.sum(), x.log_std)
        results.append((log_kappa.detach().double(), slope.double()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_ratios_of_sigma(dtype: torch.dtype) -> None:
    levels = torch.tensor([-12.0, -1.0, 0.0, 12.0], dtype=dtype)
    pairs = torch.cartesian_prod(levels, levels, levels, levels)  # σ of a point and its centre in two dimensions
    n = len(pairs)
    x = GaussianEmbedding(torch.linspace(-1, 1, 2 * n, dtype=dtype).view(n, 2), pairs[:, :2])
    c = GaussianEmbedding(torch.zeros(n, 2, dtype=dtype), pairs[:, 2:])
    expected = [
        float(oracles.log_kappa_digits(m, u, [0.0, 0.0], v))
        for m, u, v in zip(x.mean.tolist(), x.log_std.tolist(), c.log_std.tolist(), strict=True)
    ]
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(
        of_own(x, c).double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


def test_one_sigma_that_dominates() -> None:
    """Points whose variance vanishes beside that of their instance: ratios down to e^−160, which float32 has not."""
    x = GaussianEmbedding(torch.zeros(4, 1), torch.tensor([[-39.0], [39.0], [0.0], [39.0]])).to(dtype=torch.float32)
    (x,) = leaves(x)
    _, log_kappa = member_similarity(x, index_instances(torch.tensor([0, 0, 1, 1])), "mean")
    assert torch.isfinite(log_kappa).all()
    for g in torch.autograd.grad(log_kappa.exp().sum(), [*x]):
        assert torch.isfinite(g).all()


def test_identical_gaussians_are_exactly_zero() -> None:
    points = GaussianEmbedding(torch.randn(6, 3), torch.randn(6, 3))
    assert (of_own(points, points) == 0).all()
    assert (member_similarity(points, index_instances(torch.arange(6)), "mean")[1] == 0).all()
