"""The Triton twins of the sums of segments and of the members' own similarity, against torch in float64.

On a machine with a GPU these run there (`make gpu`), elsewhere in Triton's interpreter:
tests/core/test_objective_twins.py starts them in a process of their own, since Triton reads TRITON_INTERPRET when it is
imported.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from oracles import draw_problem
from torch import Tensor

from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    ProbabilisticEmbeddingLoss,
    aggregate_instances,
    index_instances,
    member_similarity,
    segments,
)
from probemb_lib._triton import member_similarity as member_twin
from probemb_lib._triton import segments as segment_twin
from probemb_lib.segments import max_of_segments, segment_logsumexp, segment_sum, sum_of_segments

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = torch.finfo(torch.float32).eps
LENGTHS = [[0, 3, 0, 0, 2, 1, 0], [4], [0], [0, 0], [], [1] * 40, [5000, 1, 0, 700], [3000]]


class Launches:
    """A kernel that counts its launches."""

    def __init__(self, kernel: Any, name: str, counts: Counter[str]) -> None:
        self.kernel, self.name, self.counts = kernel, name, counts

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.counts[self.name] += 1
        return self.kernel[grid]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kernel was launched; float32 goes to the twins in the interpreter as well."""
    counts: Counter[str] = Counter()
    for module, name in ((segment_twin, "reduce_kernel"), (member_twin, "own_kernel")):
        monkeypatch.setattr(module, name, Launches(getattr(module, name), name, counts))
    if DEVICE == "cpu":
        for user in (segments, member_similarity):
            monkeypatch.setattr(user, "has_twin", lambda x: x.dtype == torch.float32)
    return counts


def layout(lengths: list[int]) -> tuple[Tensor, Tensor]:
    sizes = torch.tensor(lengths, dtype=torch.int64, device=DEVICE)
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return ptr, torch.arange(len(lengths), device=DEVICE).repeat_interleave(sizes)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[-1])).to(DEVICE)


pytestmark = pytest.mark.filterwarnings(
    "ignore:overflow:RuntimeWarning", "ignore:divide by zero:RuntimeWarning"
)  # numpy


# --- segments


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("rows", [(), (3,), (2, 2)])
@pytest.mark.parametrize("part", [4096, 512])
def test_sums(
    lengths: list[int],
    rows: tuple[int, ...],
    part: int,
    launches: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Correctly rounded float32 of the sum in float64, but for the last bit; one launch, or two with several parts."""
    monkeypatch.setattr(segment_twin, "PART", part)
    monkeypatch.setattr(segment_twin, "LONG", 2 * part)
    ptr, _ = layout(lengths)
    x = draw(*rows, sum(lengths))
    got = sum_of_segments(x, ptr)
    parts = segment_twin.parts_of_segment(sum(lengths), max(1, len(lengths)))
    assert (parts > 1) == (part == 512 and lengths in ([3000], [5000, 1, 0, 700]))
    assert launches["reduce_kernel"] == (0 if x.numel() == 0 else 1 if parts == 1 else 2)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), sum_of_segments(x.double(), ptr), rtol=1.01 * EPS, atol=1e-12)
    if x.numel() > 0:
        with pytest.raises(AssertionError):
            torch.testing.assert_close(got.double(), sum_of_segments(1.00001 * x.double(), ptr), rtol=1e-6, atol=1e-12)
    again = sum_of_segments(x, ptr)
    torch.testing.assert_close(again, got, rtol=0, atol=0)
    if rows == ():
        torch.testing.assert_close(max_of_segments(x, ptr).double(), max_of_segments(x.double(), ptr), rtol=0, atol=0)


@pytest.mark.usefixtures("launches")
def test_sums_of_any_strides() -> None:
    ptr, _ = layout([70, 0, 130])
    wide = draw(200, 7)
    for x in (wide.T[2:5], wide.T[::3], draw(3, 2, 200)[::2], draw(1).expand(2, 200)):
        torch.testing.assert_close(sum_of_segments(x, ptr), sum_of_segments(x.contiguous(), ptr), rtol=0, atol=0)


@pytest.mark.usefixtures("launches")
def test_derivatives_of_sums() -> None:
    ptr, segment = layout([7, 0, 30, 1])
    results = []
    for dtype in (torch.float32, torch.float64):
        x = (10 * draw(38)).to(dtype).requires_grad_()
        values = segment_sum(x, ptr, segment), segment_logsumexp(x, ptr, segment)
        (slope,) = torch.autograd.grad((values[0].square() + values[1] ** 3).sum(), x)
        results.append([v.double() for v in (*values, slope)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_infinite_and_missing_values(launches: Counter[str]) -> None:
    ptr, _ = layout([2, 2, 2])
    x = torch.tensor([1.0, float("inf"), float("nan"), 0.0, -1e38, -3e38], device=DEVICE)
    torch.testing.assert_close(
        sum_of_segments(x, ptr), torch.tensor([np.inf, np.nan, -np.inf], device=DEVICE).float(), equal_nan=True
    )
    torch.testing.assert_close(max_of_segments(x, ptr)[::2].cpu(), torch.tensor([np.inf, -1e38]).float())
    assert launches["reduce_kernel"] == 2


def test_float64_stays_on_torch(launches: Counter[str]) -> None:
    ptr, _ = layout([2, 2])
    assert sum_of_segments(draw(4).double(), ptr).dtype == torch.float64
    assert not launches


# --- members


def own(points: GaussianEmbedding, centers: GaussianEmbedding, size: Tensor | None) -> list[Tensor]:
    moments, of_centers = (torch.stack([e.mean.T, (2 * e.log_std).exp().T]) for e in (points, centers))
    instance = torch.arange(len(points.mean), device=DEVICE) % len(centers.mean)
    return list(member_similarity.own_similarity(moments, of_centers, size, instance))


def on_torch(points: GaussianEmbedding, centers: GaussianEmbedding, size: Tensor | None) -> list[Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(member_similarity, "has_twin", lambda x: False)
        return own(points, centers, size)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("dim", [1, 3, 6])
@pytest.mark.parametrize("spread", [1e-3, 0.1, 1.0, 8.0])
def test_own_similarity(independent: bool, dim: int, spread: float, launches: Counter[str]) -> None:
    """In one launch; errors of at most twice those of torch in float32, in the norm of each result."""
    points = GaussianEmbedding(draw(500, dim), spread * draw(2, 500, dim)[0])
    centers = GaussianEmbedding(0.1 * draw(7, dim), spread * draw(2, 7, dim)[0])
    size = torch.arange(1, 8, device=DEVICE) if independent else None
    got, of_torch = own(points, centers, size), on_torch(points, centers, size)
    assert launches["own_kernel"] == 1
    # In float64 from the same float32 variances.
    exact = [GaussianEmbedding(e.mean.double(), 0.5 * (2 * e.log_std).exp().double().log()) for e in (points, centers)]
    for ours, theirs, right in zip(got, of_torch, on_torch(*exact, size), strict=True):
        assert ours.shape == theirs.shape == right.shape
        assert ours.dtype == torch.float32
        error, of_theirs = (ours - right).norm(), (theirs - right).norm()
        assert error <= 2 * of_theirs + EPS * right.norm(), f"{error / right.norm()}, torch {of_theirs / right.norm()}"
        with pytest.raises(AssertionError):
            assert (1.00001 * ours - right).norm() <= 2 * of_theirs + EPS * right.norm()


@pytest.mark.usefixtures("launches")
def test_extreme_ratios_of_sigma() -> None:
    levels = torch.tensor([-39.0, -12.0, -1.0, 0.0, 12.0, 39.0], device=DEVICE)
    pairs = torch.cartesian_prod(levels, levels)
    pairs = pairs[pairs[:, 0] <= pairs[:, 1] + 12]  # of a point, at most √n times its instance's
    n = len(pairs)
    points, centers = (GaussianEmbedding(torch.zeros(n, 1, device=DEVICE), pairs[:, j : j + 1]) for j in range(2))
    got, right = own(points, centers, None), on_torch(points, centers, None)
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-6)
    assert all(torch.isfinite(t).all() for t in got)


@pytest.mark.usefixtures("launches")
def test_identical_gaussians_are_exactly_zero() -> None:
    points = GaussianEmbedding(draw(300, 3), draw(2, 300, 3)[1])
    assert (own(points, points, None)[0] == 0).all()


@pytest.mark.usefixtures("launches")
def test_nan_is_not_hidden() -> None:
    for field in range(2):
        points = GaussianEmbedding(torch.zeros(3, 2, device=DEVICE), torch.zeros(3, 2, device=DEVICE))
        points[field][1, 0] = torch.nan
        assert own(points, points.select(torch.tensor([0], device=DEVICE)), None)[0].isnan().tolist() == [0, 1, 0]


def test_no_member(launches: Counter[str]) -> None:
    moments = torch.zeros(2, 2, 0, device=DEVICE)
    found = member_similarity.own_similarity(moments, moments, None, torch.zeros(0, dtype=torch.int64, device=DEVICE))
    assert [tuple(t.shape) for t in found] == [(0,), (3, 2, 0), (2, 0)]
    assert not launches


# --- the whole


@pytest.mark.parametrize("per_instance", [False, True])
@pytest.mark.parametrize("covariance", ["mean", "independent"])
def test_whole_loss(per_instance: bool, covariance: Any, launches: Counter[str]) -> None:
    """Values and gradients of torch in float64; five or six sums of segments, a pass over the members, and one sum of
    segments backward."""
    p = draw_problem(21, n=60, num_clouds=3)
    labels = [torch.tensor(t, device=DEVICE) for t in (p.instance, p.semantic, p.batch)]
    loss = ProbabilisticEmbeddingLoss(per_instance_dice=per_instance, covariance=covariance)
    results = []
    for dtype in (torch.float64, torch.float32):
        leaves = [torch.tensor(a, device=DEVICE, dtype=dtype).requires_grad_() for a in (p.mean, p.log_std, p.logits)]
        parts = loss(HeadOutput(GaussianEmbedding(*leaves[:2]), leaves[2]), *labels)
        forward = dict(launches)
        slopes = torch.autograd.grad(parts["loss"], leaves)
        results.append([t.double() for t in (*parts.values(), *slopes)])
    assert forward == {"reduce_kernel": 5 + 2 * per_instance, "own_kernel": 1}
    assert launches == {"reduce_kernel": 6 + 2 * per_instance, "own_kernel": 1}
    torch.testing.assert_close(*results, rtol=2e-4, atol=2e-5)


def test_aggregation(launches: Counter[str]) -> None:
    index = index_instances(torch.arange(90, device=DEVICE) % 4)
    x = GaussianEmbedding(draw(90, 3), draw(2, 90, 3)[1])
    got, right = aggregate_instances(x, index), aggregate_instances(x.to(dtype=torch.float64), index)
    torch.testing.assert_close(got.to(dtype=torch.float64), right, rtol=1e-6, atol=1e-6)
    assert launches["reduce_kernel"] == 1
