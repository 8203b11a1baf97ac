"""The fused sums over points and instances against float64 loops: values, gradients,
tiles, ragged batches, memory, repeatability, and compiled."""

from __future__ import annotations

import functools
import subprocess
import sys
import types

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import draw_problem
from sum_cases import case, expected_gradients, expected_sums, leaves, weights
from torch import Tensor
from torch._dynamo.utils import counters
from torch.autograd import gradcheck

from probemb_lib import GaussianEmbedding, InstanceIndex, _tile_compiled, index_instances
from probemb_lib import similarity_sums as module
from probemb_lib._tile_eager import Pairs, PairSums, add_tile
from probemb_lib.similarity_sums import similarity_sums

MODES = pytest.mark.parametrize("per_instance", [False, True], ids=["cloud", "instance"])
OUTSIDE = pytest.mark.parametrize("outside", [False, True], ids=["similar", "outside"])


def gradients(
    points: GaussianEmbedding, centers: GaussianEmbedding, index: InstanceIndex, per_instance: bool, outside: bool
) -> list[Tensor]:
    inputs = leaves(points, centers)
    sums = [s for s in similarity_sums(*inputs, index, per_instance=per_instance, outside=outside) if s is not None]
    value = sum((s * w).sum() for s, w in zip(sums, weights(*sums), strict=True))
    return list(torch.autograd.grad(value, [t for e in inputs for t in e]))


PROBLEMS = {
    "ragged": draw_problem(0, n=70, num_clouds=5),
    "one cloud": draw_problem(1, num_clouds=1).change(batch=None),
    "many instances": draw_problem(2, n=60, num_clouds=2, num_instances=25),
    "isotropic": draw_problem(3, isotropic=True),
    "plane": draw_problem(4, dim=2),
    "line": draw_problem(5, dim=1),
    "six": draw_problem(6, dim=6),
    "all ignored": draw_problem(7).change(instance=np.full(40, oracles.IGNORED)),
    "no instance": draw_problem(8).change(instance=np.full(40, -1)),
    "one point": draw_problem(9, n=1, num_clouds=1, background=False, ignored=False),
    "no point": draw_problem(10, n=0),
    "each point an instance": draw_problem(11, n=20, num_clouds=2).change(instance=np.arange(20)),
}
EVERY = pytest.mark.parametrize("name", PROBLEMS)


# --- values and gradients


@EVERY
@MODES
@OUTSIDE
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_values(name: str, per_instance: bool, outside: bool, dtype: torch.dtype, tolerance: float) -> None:
    p = PROBLEMS[name]
    points, centers, index = case(p, dtype)
    got = similarity_sums(points, centers, index, per_instance=per_instance, outside=outside)
    expected = expected_sums(p, points, centers, index, per_instance)
    assert got.similar.dtype == dtype
    torch.testing.assert_close(got.similar.double(), expected[0], rtol=tolerance, atol=tolerance)
    if outside:
        assert got.outside is not None
        torch.testing.assert_close(got.outside.double(), expected[1], rtol=tolerance, atol=tolerance)
    else:
        assert got.outside is None


@EVERY
@MODES
@OUTSIDE
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_gradients(name: str, per_instance: bool, outside: bool, dtype: torch.dtype, tolerance: float) -> None:
    p = PROBLEMS[name]
    points, centers, index = case(p, dtype)
    got = gradients(points, centers, index, per_instance, outside)
    for g, e in zip(got, expected_gradients(p, points, centers, index, per_instance, outside), strict=True):
        torch.testing.assert_close(g.double(), e, rtol=tolerance, atol=tolerance)


def test_the_oracles_reject() -> None:
    """A point too many, and a gradient with the wrong weight."""
    p = PROBLEMS["ragged"]
    points, centers, index = case(p)
    got = similarity_sums(points, centers, index, per_instance=True, outside=True)
    with_ignored = p.change(instance=np.where(p.instance == oracles.IGNORED, -1, p.instance))
    for ours, right, wrong in zip(
        got,
        expected_sums(p, points, centers, index, True),
        expected_sums(with_ignored, points, centers, index, True),
        strict=True,
    ):
        torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(ours, wrong, rtol=1e-10, atol=1e-10)
    ours = gradients(points, centers, index, True, True)
    wrong = expected_gradients(with_ignored, points, centers, index, True, True)
    for g, e in zip(ours, wrong, strict=True):
        with pytest.raises(AssertionError):
            torch.testing.assert_close(g, e, rtol=1e-10, atol=1e-10)


@MODES
@OUTSIDE
@pytest.mark.parametrize(("pairs", "max_centers"), [(1, 512), (64, 1), (130, 2), (1 << 17, 3), (640, 7)])
def test_tiles(
    per_instance: bool, outside: bool, pairs: int, max_centers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clouds of more than one tile in both directions, with tiles that the cloud does not fill."""
    p = draw_problem(12, n=290, num_clouds=2, num_instances=9)
    points, centers, index = case(p)
    expected = similarity_sums(points, centers, index, per_instance=per_instance, outside=outside)
    slopes = gradients(points, centers, index, per_instance, outside)
    monkeypatch.setattr(module, "TILE_ELEMENTS_CPU", pairs)
    monkeypatch.setattr(module, "MAX_TILE_CENTERS", max_centers)
    got = similarity_sums(points, centers, index, per_instance=per_instance, outside=outside)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients(points, centers, index, per_instance, outside), slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_many_tiles_against_the_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    p = draw_problem(13, n=150, num_clouds=1, num_instances=5)
    points, centers, index = case(p)
    monkeypatch.setattr(module, "TILE_ELEMENTS_CPU", 64)
    monkeypatch.setattr(module, "MAX_TILE_CENTERS", 2)
    got = similarity_sums(points, centers, index, per_instance=True, outside=True)
    for ours, right in zip(got, expected_sums(p, points, centers, index, True), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)


@MODES
@OUTSIDE
@pytest.mark.parametrize("isotropic", [False, True])
def test_gradcheck(per_instance: bool, outside: bool, isotropic: bool) -> None:
    p = draw_problem(14, n=7, dim=2, num_clouds=2, num_instances=2, isotropic=isotropic)
    points, centers, index = case(p)
    inputs = [t.requires_grad_() for t in (*points, *centers)]

    def f(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
        sums = similarity_sums(
            GaussianEmbedding(a, b), GaussianEmbedding(c, d), index, per_instance=per_instance, outside=outside
        )
        return tuple(s for s in sums if s is not None)

    assert gradcheck(f, inputs)


@MODES
def test_gradients_of_some_inputs_only(per_instance: bool) -> None:
    """Centres that are constants, and one sum of the two used."""
    p = PROBLEMS["ragged"]
    points, centers, index = case(p)
    (x,) = leaves(points)
    similarity_sums(x, centers, index, per_instance=per_instance, outside=True).similar.sum().backward()
    (y,), c = leaves(points), centers
    kernel = oracles.broadcast_sums(*y, *c, p.instance, p.batch)[0].sum()
    kernel.backward()
    torch.testing.assert_close(x.mean.grad, y.mean.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(x.log_std.grad, y.log_std.grad, rtol=1e-10, atol=1e-12)
    assert c.mean.grad is None
    assert not similarity_sums(points, centers, index, per_instance=per_instance).similar.requires_grad
    with torch.no_grad():
        assert not similarity_sums(x, centers, index, per_instance=per_instance).similar.requires_grad


@MODES
def test_second_derivatives_raise(per_instance: bool) -> None:
    points, centers, index = case(PROBLEMS["ragged"])
    x, c = leaves(points, centers)
    value = similarity_sums(x, c, index, per_instance=per_instance).similar.square().sum()
    (slope,) = torch.autograd.grad(value, x.mean, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


# --- extremes


@MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 3, 6])
def test_sigma_from_e_minus_12_to_e_12(per_instance: bool, dtype: torch.dtype, dim: int) -> None:
    """Any mixture of tiny, equal and huge σ, dimension by dimension, is finite, and right in the values."""
    rng = np.random.default_rng(dim)
    p = draw_problem(15, n=80, dim=dim, num_clouds=2)
    p = p.change(log_std=rng.choice([-12.0, -6.0, 0.0, 6.0, 12.0], (80, dim)))
    points, centers, index = case(p, dtype)
    centers = GaussianEmbedding(
        centers.mean, torch.tensor(rng.choice([-12.0, 0.0, 12.0], centers.mean.shape), dtype=dtype)
    )
    got = similarity_sums(points, centers, index, per_instance=per_instance, outside=True)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    for ours, right in zip(got, expected_sums(p, points, centers, index, per_instance), strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=tolerance, atol=tolerance)
    for g in gradients(points, centers, index, per_instance, True):
        assert torch.isfinite(g).all()


@MODES
def test_identical_gaussians_are_at_the_floor(per_instance: bool) -> None:
    """κ = 1 with a foreign centre: −ln 1e-6 a pair, without a gradient."""
    x = GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4, 3))
    index = index_instances(torch.tensor([0, 0, 1, -1]))
    points, centers = leaves(x, x.select(torch.tensor([0, 1])))
    got = similarity_sums(points, centers, index, per_instance=per_instance, outside=True)
    assert got.outside is not None
    torch.testing.assert_close(got.similar.sum(), torch.tensor(8.0))
    torch.testing.assert_close(got.outside.sum(), torch.tensor(5 * -np.log(1e-6)).float())
    got.outside.sum().backward()
    for t in (*points, *centers):
        torch.testing.assert_close(t.grad, torch.zeros_like(t), rtol=0, atol=0)


@MODES
@pytest.mark.parametrize(("gap", "below"), [(1e-4, True), (1e-3, True), (1e-2, False)])
def test_gradient_ends_at_the_floor(per_instance: bool, gap: float, below: bool) -> None:
    x = GaussianEmbedding(torch.zeros(2, 3), torch.zeros(2, 3))
    points, centers = leaves(x, GaussianEmbedding(x.mean + gap, x.log_std - gap / 2))
    index = index_instances(torch.tensor([0, 1]))
    outside = similarity_sums(points, centers, index, per_instance=per_instance, outside=True).outside
    assert outside is not None
    outside.sum().backward()
    for t in (*points, *centers):
        assert t.grad is not None
        assert bool((t.grad == 0).all()) == below


@pytest.mark.parametrize("gap", [1e-2, 3e-2, 1e-1])
@pytest.mark.parametrize("of_sigma", [False, True])
def test_one_minus_kappa_keeps_its_digits_in_float32(gap: float, of_sigma: bool) -> None:
    """Close to the floor, −ln(1 − κ) by way of 1 − κ itself would be off by several percent."""
    x = GaussianEmbedding(torch.zeros(2, 3), torch.zeros(2, 3))
    shifted = x.log_std + gap if of_sigma else x.log_std
    centers = GaussianEmbedding(x.mean if of_sigma else x.mean + gap, shifted)
    index = index_instances(torch.tensor([0, 1]))
    got = similarity_sums(x, centers, index, outside=True).outside
    log_kappa = float(oracles.log_kappa_digits(x.mean[0], x.log_std[0], centers.mean[0], centers.log_std[0]))
    expected = -2 * np.log(-np.expm1(log_kappa))
    np.testing.assert_allclose(got, [expected], rtol=1e-5)


@MODES
@pytest.mark.parametrize("distance", [1.0, 1e3])
@pytest.mark.parametrize("log_std", [-23.0, -38.0])
def test_far_apart_with_tiny_sigma_has_no_gradient(per_instance: bool, distance: float, log_std: float) -> None:
    """Δ² / σ² and its products with 1/σ² leave float32 where κ is 0 already."""
    x = GaussianEmbedding(torch.zeros(4, 3), torch.full((4, 3), log_std))
    points, centers = leaves(x, GaussianEmbedding(distance * torch.tensor([[-1.0] * 3, [1.0] * 3]), x.log_std[:2]))
    index = index_instances(torch.tensor([0, 0, 1, 1]))
    sums = similarity_sums(points, centers, index, per_instance=per_instance, outside=True)
    for s in sums:
        assert s is not None
        assert (s == 0).all()
    sum((s.sum() for s in sums), torch.zeros(())).backward()
    for t in (*points, *centers):
        assert t.grad is not None
        assert (t.grad == 0).all()


@pytest.mark.parametrize("ratio", [3.0, 6.0])
def test_small_similarities_keep_their_digits_outside(ratio: float) -> None:
    """κ small because of σ: −ln(1 − κ) ≈ κ by 1 − κ, one rounding instead of several to the same side."""
    n = 4000
    generator = torch.Generator().manual_seed(0)
    x = GaussianEmbedding(*(0.3 * torch.randn(2, n, 3, generator=generator)))
    c = GaussianEmbedding(torch.zeros(2, 3), torch.full((2, 3), ratio))
    index = index_instances(torch.arange(n) % 2)
    got = similarity_sums(x, c, index, outside=True).outside
    exact = similarity_sums(x.to(dtype=torch.float64), c.to(dtype=torch.float64), index, outside=True).outside
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=0)


# --- properties


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_permuting_points_changes_nothing(seed: int, per_instance: bool) -> None:
    p = draw_problem(seed % 50)
    points, centers, index = case(p)
    order = torch.randperm(len(p.mean), generator=torch.Generator().manual_seed(seed))
    assert p.batch is not None
    turned = index_instances(torch.tensor(p.instance)[order], torch.tensor(p.batch)[order])
    # A cloud that is last and empty is not seen by an index of raw labels: both see the same labels.
    a = similarity_sums(points, centers, index, per_instance=per_instance, outside=True)
    b = similarity_sums(points.select(order), centers, turned, per_instance=per_instance, outside=True)
    for u, v in zip(a, b, strict=True):
        torch.testing.assert_close(u, v, rtol=1e-12, atol=1e-12)


@MODES
def test_two_runs_are_equal_to_the_bit(per_instance: bool) -> None:
    p = draw_problem(16, n=3000, num_clouds=3, num_instances=20)
    index = index_instances(torch.tensor(p.instance), torch.tensor(p.batch))
    points = GaussianEmbedding(torch.tensor(p.mean).float(), torch.tensor(p.log_std).float())
    centers = points.select(torch.arange(index.num_instances))
    first, second = (gradients(points, centers, index, per_instance, True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


# --- memory

MEMORY = """
import torch
torch.set_num_threads(1)
from probemb_lib import GaussianEmbedding, index_instances
from probemb_lib.similarity_sums import similarity_sums

def peak():
    with open("/proc/self/status") as file:  # of this process alone; getrusage starts at the parent's
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

def run(n, k):
    points = GaussianEmbedding(torch.rand(n, 3, requires_grad=True), torch.zeros(n, 3, requires_grad=True))
    centers = GaussianEmbedding(torch.rand(k, 3, requires_grad=True), torch.zeros(k, 3, requires_grad=True))
    index = index_instances(torch.arange(n) % k)
    before = peak()
    for per_instance in (False, True):
        sums = similarity_sums(points, centers, index, per_instance=per_instance, outside=True)
        (sums.similar.sum() + sums.outside.sum()).backward()
    return peak() - before

run(1000, 10)
grown = run(200_000, 300)
before = peak()
table = torch.ones(200_000, 300)
print(grown, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_pairs() -> None:
    """200,000 points × 300 instances: one float32 table of the pairs is 240 MB; the whole pass takes far less."""
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    grown, of_table = map(int, result.stdout.split())
    table = 200_000 * 300 * 4
    assert grown < 0.4 * table
    assert of_table > 0.5 * table  # the measure would see it


# --- compiled


@OUTSIDE
@pytest.mark.parametrize(("gradients", "weighted"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("dim", [1, 3])
def test_the_loops_to_fuse_are_those_of_the_eager_tile(
    dim: int, gradients: bool, weighted: bool, outside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as they stand, in float64: what torch.compile makes of them is compared below."""
    monkeypatch.setattr(_tile_compiled, "compiled_tile", lambda *_: _tile_compiled.fused_tile)
    sets = gradients * (1 if weighted else 1 + outside)
    generator = torch.Generator().manual_seed(dim)
    half_mean, log_std = torch.randn(2, dim, 23, generator=generator, dtype=torch.float64)
    std = log_std.exp()
    c, c_std = half_mean[:, :6] + 0.3, std[:, :6].flip(1)
    member = torch.randint(-1, 6, (23,), generator=generator)
    upstream = torch.rand(2, 6, generator=generator, dtype=torch.float64) if weighted else None
    tile = Pairs(
        torch.stack([half_mean, std, std**2]), torch.stack([c, 2 * c_std, c_std**2]), member, torch.arange(6), upstream
    )
    made = []
    for add in (add_tile, _tile_compiled.add_fused_tile):
        zeros = [torch.zeros(size, dtype=torch.float64) for size in (6, 6, (sets, 2, dim, 23), (sets, 2, dim, 6))]
        made.append(PairSums(*zeros))
        add(tile, outside, made[-1])
    for eager, fused in zip(*made, strict=True):
        torch.testing.assert_close(fused, eager, rtol=1e-12, atol=1e-12)
    assert (made[0].outside > 0).any() == outside
    assert made[0].of_points.any() == gradients


@MODES
def test_compiled_with_changing_sizes(per_instance: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """fullgraph=True on an InstanceIndex; once the sizes were seen to change nothing is compiled again, be it one cloud
    or many, or as many instances as dimensions.

    Everything runs as traced, which needs no C++ compiler; losses/test_combined.py runs Inductor's code.
    """

    @functools.cache
    def traced(*_: object) -> _tile_compiled.FusedTile:
        variant = types.FunctionType(
            _tile_compiled.fused_tile.__code__.replace(), _tile_compiled.fused_tile.__globals__
        )
        return torch.compile(variant, dynamic=True, fullgraph=True, backend="eager")

    monkeypatch.setattr(_tile_compiled, "compiled_tile", traced)
    torch._dynamo.reset()
    compiled = torch.compile(similarity_sums, fullgraph=True, backend="eager")
    graphs = []
    for n, num_clouds, num_instances in [(50, 2, 2), (81, 3, 6), (93, 4, 9), (200, 5, 13), (37, 1, 8)]:
        p = draw_problem(n, n=n, num_clouds=num_clouds, num_instances=num_instances)
        points, centers, index = case(p, torch.float32)
        outputs, slopes = [], []
        for f in (similarity_sums, compiled):
            x, c = leaves(points, centers)
            sums = f(x, c, index, per_instance=per_instance, outside=True)
            value = sum((s * w).sum() for s, w in zip(sums, weights(*sums), strict=True))
            outputs.append(sums)
            slopes.append(torch.autograd.grad(value, [*x, *c]))
        for eager, fast in (*zip(*outputs, strict=True), *zip(*slopes, strict=True)):
            torch.testing.assert_close(fast, eager, rtol=1e-4, atol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert traced.cache_info().currsize == (2 if per_instance else 1)  # per instance, values and derivatives apart
    assert graphs[0] > 0
    assert graphs[1:] == [graphs[1]] * 4, graphs


@pytest.mark.parametrize(
    ("points", "centers", "message"),
    [
        ((4, 3), (2, 3), r"expected points \(5, 3\) and centers \(2, 3\).*got \(4, 3\) and \(2, 3\)"),
        ((6, 3), (2, 3), r"got \(6, 3\) and \(2, 3\)"),
        ((5, 3), (1, 3), r"got \(5, 3\) and \(1, 3\)"),
        ((5, 3), (3, 3), r"got \(5, 3\) and \(3, 3\)"),
        ((5, 3), (2, 2), r"got \(5, 3\) and \(2, 2\)"),
    ],
)
def test_what_does_not_fit_the_index(points: tuple[int, int], centers: tuple[int, int], message: str) -> None:
    x, c = (GaussianEmbedding(torch.rand(shape), torch.rand(shape)) for shape in (points, centers))
    index = index_instances(torch.tensor([0, 0, 1, 1, -1]))
    with pytest.raises(ValueError, match=message):
        similarity_sums(x, c, index)


def test_two_devices() -> None:
    x = GaussianEmbedding(torch.rand(5, 3), torch.rand(5, 3))
    c = GaussianEmbedding(torch.rand(2, 3, device="meta"), torch.rand(2, 3, device="meta"))
    with pytest.raises(ValueError, match="expected one device, got points on cpu, centers on meta"):
        similarity_sums(x, c, index_instances(torch.tensor([0, 0, 1, 1, -1])))
