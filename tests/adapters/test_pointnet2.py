"""PointNet++: its geometry against brute force and scipy's k-d tree, its network against a literal one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from operations import Operations
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.testing import assert_close

from probemb_adapters.networks import _all_clouds as all_clouds
from probemb_adapters.networks import _by_cloud as by_cloud
from probemb_adapters.networks import point_geometry, pointnet2
from probemb_adapters.networks.pointnet2 import (
    PointNet2,
    ball_query,
    farthest_point_sample,
    interpolate,
    local_covariance,
    nearest_neighbors,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
GEOMETRY = ["farthest_point_sample", "ball_query", "nearest_neighbors", "interpolate", "local_covariance", "PointNet2"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def cloud(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 3, generator=generator, dtype=dtype) * 2 - 1


def grid_clouds(max_points: int = 40) -> st.SearchStrategy[Tensor]:
    """Points on a small integer grid: distances are exact, ties and duplicates are common."""

    def build(size: tuple[int, int], seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(-2, 3, (*size, 3), generator=generator).float()

    sizes = st.tuples(st.integers(1, 3), st.integers(1, max_points))
    return st.builds(build, sizes, st.integers(0, 2**31))


def lattice_clouds(points: int, *, dtype: torch.dtype = torch.float32, shift: float = 0.0) -> Tensor:
    """On three faces of a box, at multiples of 0.07: distances tie, or differ by the rounding alone."""
    x = cloud(2, points)
    x.scatter_(2, torch.arange(points).remainder(3)[None, :, None].expand(2, -1, -1), 0.5)
    return (x / 0.07).round().to(dtype) * 0.07 + shift


# --- truth, in numpy, straight from the definitions


def brute_squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((a[:, None] - b[None]) ** 2).sum(-1)


def brute_fps(x: NDArray[np.float64], count: int, first: int = 0) -> list[int]:
    square = brute_squares(x, x)
    taken = [first]
    while len(taken) < count:
        taken.append(int(np.argmax(square[taken].min(0))))  # the first of equal maxima
    return taken


def brute_ball(c: NDArray[np.float64], x: NDArray[np.float64], radius: float, count: int) -> list[list[int]]:
    balls = []
    for row in brute_squares(c, x):
        hits = np.flatnonzero(row < radius**2)[:count].tolist() or [int(row.argmin())]
        balls.append(hits + hits[:1] * (count - len(hits)))
    return balls


def brute_interpolate(
    to: NDArray[np.float64], source: NDArray[np.float64], f: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    out = []
    for row in brute_squares(to, source):
        near = np.argsort(row, kind="stable")[:k]
        if row[near[0]] == 0:
            out.append(f[near[row[near] == 0]].mean(0))
        else:
            out.append((f[near] / row[near, None]).sum(0) / (1 / row[near]).sum())
    return np.stack(out)


def rounded_squares(a: Tensor, b: Tensor) -> Tensor:
    """All squared distances, (A, 3), (B, 3) -> (A, B), in the arithmetic that the module names."""
    dx, dy, dz = (a[:, None] - b[None]).permute(2, 0, 1).contiguous()
    return (dx * dx).addcmul(dy, dy).addcmul(dz, dz)


CLOSE = [(torch.float32, 0.0), (torch.float32, 30.0), (torch.float64, 0.0)]  # 30: half the digits are lost


@pytest.mark.parametrize(("dtype", "shift"), CLOSE)
def test_ties_and_near_ties(dtype: torch.dtype, shift: float) -> None:
    """Every index is that of the definition in the positions' dtype, also where rounding decides."""
    x = lattice_clouds(700, dtype=dtype, shift=shift)
    samples = farthest_point_sample(x, 200)
    centers = torch.stack([p[i] for p, i in zip(x, samples, strict=True)])
    radius = 0.07 * 5  # 3, 4, 0 in steps
    balls = ball_query(centers, x, radius, 20)
    square, near = nearest_neighbors(x, centers, 3)
    decided = 0
    for b in range(2):
        own, to_centers = rounded_squares(x[b], x[b]), rounded_squares(x[b], centers[b])
        least, expected = torch.full((700,), torch.inf, dtype=dtype), [0]
        for _ in range(199):
            least = torch.minimum(least, own[expected[-1]])
            expected.append(int(least.numpy().argmax()))
        assert samples[b].tolist() == expected
        inside = to_centers.t() < torch.tensor(radius**2, dtype=dtype)
        exact = brute_squares(centers[b].double().numpy(), x[b].double().numpy())
        decided += int((inside.numpy() != (exact < radius**2)).sum())
        for row, hits in zip(balls[b].tolist(), inside, strict=True):
            first = hits.nonzero()[:20, 0].tolist()  # never empty: the centre is one of the points
            assert row == first + first[:1] * (20 - len(first))
        assert_close(near[b], to_centers.sort(dim=1, stable=True).indices[:, :3])
        assert_close(square[b], to_centers.sort(1).values[:, :3], rtol=0, atol=0)
    if dtype == torch.float32 and shift == 0:
        assert decided > 0, "float32 must decide somewhere otherwise than exact numbers would"


# --- all clouds at once, as on a GPU, against cloud by cloud


@pytest.mark.parametrize(("dtype", "shift"), CLOSE)
@pytest.mark.parametrize("tile", [1, 5_000, 2**24])
def test_all_clouds_at_once(tile: int, dtype: torch.dtype, shift: float) -> None:
    x = lattice_clouds(500, dtype=dtype, shift=shift)
    first = torch.tensor([3, 0])
    samples = all_clouds.farthest(x, first, 90)
    assert_close(samples, by_cloud.farthest(x, first, 90))
    centers = x.gather(1, samples[..., None].expand(-1, -1, 3))
    for points in (centers, centers + 0.003, centers + 5):  # each with a neighbour, or some, or none in reach
        for radius in (0.15, 0.07 * 5):
            expected = by_cloud.balls(points, x, radius, 9, 2**18)
            assert_close(all_clouds.balls(points, x, radius, 9, tile), expected)
        for ours, theirs in zip(
            all_clouds.nearest(x, points, 4, tile), by_cloud.nearest(x, points, 4, 2**18), strict=True
        ):
            assert_close(ours, theirs, rtol=0, atol=0)
    spread = by_cloud.covariance(x, 0.15, 12, 2**18)
    assert_close(all_clouds.covariance(x, 0.15, 12, tile), spread, rtol=1e-5, atol=1e-6)


@given(grid_clouds(), st.data())
@settings(max_examples=60, deadline=None)
def test_all_clouds_at_once_with_ties(x: Tensor, data: st.DataObject) -> None:
    batch, points, _ = x.shape
    count, k, slots = (data.draw(st.integers(1, most)) for most in (points, points, points + 9))
    radius, tile = data.draw(st.sampled_from([0.5, 1.0, 2.0, 3.0])), data.draw(st.integers(1, 5_000))
    first = data.draw(st.integers(0, points - 1)) * torch.ones(batch, dtype=torch.int64)
    assert_close(all_clouds.farthest(x, first, count), by_cloud.farthest(x, first, count))
    queries = x[:, :10] + data.draw(st.sampled_from([0.0, 0.5, 7.0]))
    expected = by_cloud.balls(queries, x, radius, slots, tile)
    assert_close(all_clouds.balls(queries, x, radius, slots, tile), expected)
    expected_square, expected = by_cloud.nearest(queries, x, k, tile)
    square, index = all_clouds.nearest(queries, x, k, tile)
    assert_close(square, expected_square, rtol=0, atol=0)
    assert_close(index, expected)
    spread = by_cloud.covariance(x, radius, slots, tile)
    assert_close(all_clouds.covariance(x, radius, slots, tile), spread, rtol=1e-5, atol=1e-6)


def test_nearest_where_squares_overflow() -> None:
    x = torch.tensor([[[3e30, 0, 0], [1, 0, 0], [-3e30, 0, 0], [2e30, 0, 0]]])
    square, index = all_clouds.nearest(x[:, 1:2], x, 4, 100)
    assert index.tolist() == [[[1, 0, 2, 3]]]
    assert_close(square[0, 0, 1:], torch.full((3,), torch.finfo(torch.float32).max))
    for ours, theirs in zip(by_cloud.nearest(x[:, 1:2], x, 4, 100), (square, index), strict=True):
        assert_close(ours, theirs, rtol=0, atol=0)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_geometry, "by_cloud", all_clouds)
    for module in (point_geometry, pointnet2):
        monkeypatch.setattr(module, "tile_size", lambda tile, device: tile or 2**24)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_operations_do_not_grow_with_the_clouds() -> None:
    calls: dict[str, Callable[[Tensor], object]] = {
        "farthest_point_sample": lambda x: farthest_point_sample(x, 40),
        "ball_query": lambda x: ball_query(x[:, :70], x, 0.3),
        "nearest_neighbors": lambda x: nearest_neighbors(x, x[:, :70], 3),
        "interpolate": lambda x: interpolate(x, x[:, :70], x[:, :70]),
        "local_covariance": lambda x: local_covariance(x, 0.3),
        "PointNet2": PointNet2(width=1 / 16),
    }
    for name, call in calls.items():
        counts = []
        for clouds in (4, 16):
            with Operations() as operations:
                call(cloud(clouds, 150))
            assert operations.read_backs == 1, f"{name} waits for more than the check that values are finite"
            counts.append(operations.counts)
        assert counts[0] == counts[1], name


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_network_with_all_clouds_at_once(momentum: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    net = random_norms(PointNet2(width=1 / 16)).double()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.momentum = momentum
    other = copy.deepcopy(net)
    x = lattice_clouds(700, dtype=torch.float64)
    out = net(x)
    monkeypatch.undo()
    assert_close(out, other(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dtype", "shift"), CLOSE)
def test_comparisons_left_out_on_cpu(dtype: torch.dtype, shift: float) -> None:
    """Patches and trees give what all distances give."""
    x = lattice_clouds(500, dtype=dtype, shift=shift)
    queries = x[0, :300] + 0.003
    planes = x[1].t().contiguous()
    limit = torch.tensor(0.15**2, dtype=dtype)
    for tile in (1, 5_000, 2**18):
        by_patch = by_cloud._first_inside_by_patch(queries, planes, limit, 3, tile)
        index, found = by_cloud._first_inside(queries, planes, limit, 3, tile)
        assert 0 in found
        assert bool((found >= 3).any())
        assert_close(by_patch[0][found > 0], index[found > 0])
        assert_close(by_patch[1].clamp(max=3), found.clamp(max=3))
        for ours, all_pairs in zip(
            by_cloud._nearest(queries, planes, 4, tile),
            by_cloud._least(queries, planes, 4, tile),
            strict=True,
        ):
            assert_close(ours, all_pairs, rtol=0, atol=0)


def test_many_clouds_are_sampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = cloud(5, 60)
    expected = farthest_point_sample(x, 20)
    monkeypatch.setattr(by_cloud, "CACHED", 130)  # two clouds at a time
    assert_close(farthest_point_sample(x, 20), expected)


# --- farthest-point sampling


@given(grid_clouds(), st.data())
@settings(max_examples=60, deadline=None)
def test_fps_is_the_definition(x: Tensor, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, x.shape[1]))
    expected = [brute_fps(p.double().numpy(), count) for p in x]
    assert_close(farthest_point_sample(x, count), torch.tensor(expected))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fps_of_random_points(device: str, dtype: torch.dtype) -> None:
    x = cloud(2, 700, dtype=dtype)
    expected = torch.tensor([brute_fps(p.double().numpy(), 60) for p in x])
    assert_close(farthest_point_sample(x.to(device), 60).cpu(), expected)


def test_fps_with_random_start() -> None:
    x = cloud(4, 50)
    index = farthest_point_sample(x, 10, generator=torch.Generator().manual_seed(3))
    first = torch.randint(50, (4,), generator=torch.Generator().manual_seed(3))
    assert len(first.unique()) > 1
    expected = [brute_fps(p.double().numpy(), 10, int(f)) for p, f in zip(x, first, strict=True)]
    assert_close(index, torch.tensor(expected))


@given(grid_clouds(60), st.data())
@settings(max_examples=40, deadline=None)
def test_fps_of_its_own_samples_is_their_beginning(x: Tensor, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, x.shape[1]))
    less = data.draw(st.integers(1, count))
    samples = torch.gather(x, 1, farthest_point_sample(x, count)[..., None].expand(-1, -1, 3))
    again = torch.gather(samples, 1, farthest_point_sample(samples, less)[..., None].expand(-1, -1, 3))
    assert_close(again, samples[:, :less], rtol=0, atol=0)


def test_fps_repeats_index_0_when_positions_run_out() -> None:
    x = torch.zeros(1, 5, 3)
    x[0, 3] = 1
    assert farthest_point_sample(x, 5).tolist() == [[0, 3, 0, 0, 0]]


def test_fps_invariances() -> None:
    x = cloud(2, 100, dtype=torch.float64)
    expected = farthest_point_sample(x, 20)
    assert_close(farthest_point_sample(4 * x, 20), expected)
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(99)])  # keeps the first point
    assert_close(order[farthest_point_sample(x[:, order], 20)], expected)


# --- ball query


@given(grid_clouds(), st.integers(1, 12), st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), st.integers(1, 200))
@settings(max_examples=80, deadline=None)
def test_ball_query_is_the_definition(x: Tensor, count: int, radius: float, tile: int) -> None:
    centers = torch.flip(x, [1])[:, : max(1, x.shape[1] // 2)]  # the radius often hits a distance exactly
    expected = [brute_ball(c.numpy(), p.numpy(), radius, count) for c, p in zip(centers, x, strict=True)]
    assert_close(ball_query(centers, x, radius, count), torch.tensor(expected))
    assert_close(ball_query(centers, x, radius, count, tile=tile), torch.tensor(expected))


@pytest.mark.parametrize("device", DEVICES)
def test_ball_query_against_scipy(device: str) -> None:
    x, centers = cloud(2, 3000), cloud(2, 50, seed=1)
    index = ball_query(centers.to(device), x.to(device), 0.4, 64).cpu()
    for found, c, p in zip(index, centers, x, strict=True):
        balls = cKDTree(p.double().numpy()).query_ball_point(c.double().numpy(), 0.4, return_sorted=True)
        assert min(map(len, balls)) < 64 < max(map(len, balls)), "both kinds of ball must occur"
        for row, ball in zip(found.tolist(), balls, strict=True):
            assert row == (ball[:64] + ball[:1] * 64)[:64]


def test_ball_query_boundary_is_outside() -> None:
    x = torch.tensor([[[0.5, 0, 0], [0, 0.25, 0], [0, 0, np.nextafter(np.float32(0.5), np.float32(0))]]])
    assert ball_query(torch.zeros(1, 1, 3), x, 0.5, 3).tolist() == [[[1, 2, 1]]]


def test_ball_query_without_a_hit_takes_the_nearest() -> None:
    x = cloud(1, 200)
    centers = torch.tensor([[[5.0, 5, 5], [0, 0, 0]]])
    index = ball_query(centers, x, 0.5, 4)
    assert index[0, 0].tolist() == [int(np.argmin(brute_squares(centers[0].numpy(), x[0].numpy())[0]))] * 4
    assert len(index[0, 1].unique()) == 4


# --- nearest neighbours and interpolation


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("points", [3, 50, 512, 1000])  # 3: as many as k
@pytest.mark.parametrize("k", [1, 3])
def test_nearest_neighbors_against_scipy(device: str, points: int, k: int) -> None:
    x, queries = cloud(2, points), cloud(2, 40, seed=1)
    square, index = nearest_neighbors(queries.to(device), x.to(device), k)
    for s, i, q, p in zip(square.cpu(), index.cpu(), queries, x, strict=True):
        distance, expected = cKDTree(p.double().numpy()).query(q.double().numpy(), k=[*range(1, k + 1)])
        assert_close(i, torch.from_numpy(expected))
        np.testing.assert_allclose(s.sqrt(), distance, rtol=1e-6)


@given(grid_clouds(200), st.integers(1, 6), st.integers(1, 500))
@settings(max_examples=60, deadline=None)
def test_nearest_neighbors_with_ties(x: Tensor, k: int, tile: int) -> None:
    k = min(k, x.shape[1])
    queries = x[:, :10] + 0.5
    square, index = nearest_neighbors(queries, x, k)
    for s, i, q, p in zip(square.numpy(), index.numpy(), queries.numpy(), x.numpy(), strict=True):
        truth = brute_squares(q, p)
        np.testing.assert_array_equal(i, np.argsort(truth, kind="stable")[:, :k])
        np.testing.assert_array_equal(s, np.take_along_axis(truth, i, 1))
    again = nearest_neighbors(queries, x, k, tile=tile)
    assert_close(again[0], square, rtol=0, atol=0)
    assert_close(again[1], index)


def test_distances_do_not_cancel_far_from_the_origin() -> None:
    x = torch.round(cloud(1, 300) * 1024) / 1024 + 4096.0  # exact in float32; |x|² - 2xy + |y|² is off by units
    square, _ = nearest_neighbors(x[:, :50], x, 3)
    np.testing.assert_allclose(
        square[0].double(), np.sort(brute_squares(x[0, :50].double().numpy(), x[0].double().numpy()))[:, :3],
        rtol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("points", "k"), [(1, 3), (2, 3), (60, 3), (60, 1), (300, 5)])
def test_interpolate_is_the_definition(device: str, points: int, k: int) -> None:
    source, to, f = cloud(2, points), cloud(2, 70, seed=1), torch.randn(2, points, 5)
    to[:, 0] = source[:, 0]  # coincides
    result = interpolate(to.to(device), source.to(device), f.to(device), k).cpu()
    expected = [brute_interpolate(*(t[b].double().numpy() for t in (to, source, f)), k) for b in range(2)]
    np.testing.assert_allclose(result, np.stack(expected), rtol=1e-5, atol=1e-5)
    assert_close(interpolate(to, source, f, k, tile=7), interpolate(to, source, f, k), rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_interpolate_is_scale_invariant(scale: float) -> None:
    source, to, f = cloud(1, 30), cloud(1, 20, seed=1), torch.randn(1, 30, 4)
    assert_close(interpolate(to * scale, source * scale, f), interpolate(to, source, f), rtol=1e-4, atol=1e-5)


def test_interpolate_averages_coincident_sources() -> None:
    x = torch.zeros(1, 2, 3)
    assert_close(interpolate(x, x, torch.tensor([[[1.0], [3]]])), torch.full((1, 2, 1), 2.0))


def test_interpolate_gradient() -> None:
    source, to = cloud(2, 6, dtype=torch.float64), cloud(2, 9, seed=1, dtype=torch.float64)
    f = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: interpolate(to, source, f), (f,))
    to.requires_grad_()
    interpolate(to, source, f).sum().backward()
    assert to.grad is None


@pytest.mark.parametrize("count", [4, 200])
def test_local_covariance_is_that_of_the_neighbours(count: int) -> None:
    x = cloud(2, 150, dtype=torch.float64)
    x[0, 0] = 9.0  # a point without neighbours
    got = local_covariance(x, 0.4, count).numpy()
    for points, rows in zip(x.numpy(), got, strict=True):
        for center, row in zip(points, rows, strict=True):
            inside = points[((points - center) ** 2).sum(1) < 0.4**2][:count]
            c = np.cov(inside.T, bias=True) / 0.4**2
            np.testing.assert_allclose(row, [c[0, 0], c[1, 1], c[2, 2], c[0, 1], c[0, 2], c[1, 2]], atol=1e-12)


def test_local_covariance_of_a_plane_is_flat_along_its_normal() -> None:
    x = cloud(1, 2000)
    x[..., 1] = 0.3
    covariance = local_covariance(x, 0.2)
    assert_close(covariance[..., [1, 3, 5]], torch.zeros(1, 2000, 3), rtol=0, atol=1e-12)
    assert bool((covariance[..., [0, 2]] > 0.01).all())
    assert not local_covariance(x.requires_grad_()).requires_grad


def test_half_precision_is_computed_in_float32() -> None:
    x = cloud(1, 60).half()
    f = torch.randn(1, 60, 4).bfloat16()
    assert_close(farthest_point_sample(x, 9), farthest_point_sample(x.float(), 9))
    assert_close(ball_query(x, x, 0.5, 9), ball_query(x.float(), x.float(), 0.5, 9))
    assert_close(interpolate(x, x[:, :9], f[:, :9]), interpolate(x.float(), x[:, :9].float(), f[:, :9].float()))


def test_inputs_may_be_strided_and_stay_as_they_are() -> None:
    x = cloud(2, 90)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)[:, ::2]
    before = strided.clone()
    f = torch.randn(4, 45, 2).transpose(1, 2).reshape(2, 2, 90).transpose(1, 2)[:, ::2]
    assert not strided.is_contiguous()
    assert not f.is_contiguous()
    assert_close(farthest_point_sample(strided, 9), farthest_point_sample(before, 9))
    assert_close(ball_query(strided, strided, 0.5, 9), ball_query(before, before, 0.5, 9))
    assert_close(interpolate(strided, strided, f), interpolate(before, before, f.clone()))
    assert_close(strided, before, rtol=0, atol=0)


# --- the network


def literal(net: PointNet2, positions: Tensor, features: Tensor | None) -> Tensor:
    """The same network from the paper's steps: gather, concatenate, every layer in full, then the maximum."""

    def layers(mlp: nn.Module, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        for linear, norm in zip(mlp.linears, mlp.norms, strict=True):
            rows = F.relu(norm(linear(rows)))
        return rows.view(*x.shape[:-1], -1)

    def take(x: Tensor, index: Tensor) -> Tensor:
        return torch.stack([row[i] for row, i in zip(x, index, strict=True)])

    def abstract(mlp: nn.Module, x: Tensor, f: Tensor | None, count: int, radius: float) -> tuple[Tensor, Tensor]:
        centers = take(x, farthest_point_sample(x, min(count, x.shape[1])))
        index = ball_query(centers, x, radius, 64)
        parts = [take(x, index) - centers[:, :, None], *([] if f is None else [take(f, index)])]
        return centers, layers(mlp, torch.cat(parts, -1)).amax(2)

    c1, f1 = abstract(net.sa1, positions, features, 512, 0.2)
    c2, f2 = abstract(net.sa2, c1, f1, 128, 0.4)
    f3 = layers(net.sa3, torch.cat([c2, f2], -1)).amax(1, keepdim=True)
    f2 = layers(net.fp3, torch.cat([f2, f3.expand(-1, f2.shape[1], -1)], -1))
    f1 = layers(net.fp2, torch.cat([f1, interpolate(c1, c2, f2)], -1))
    raw = positions if features is None else torch.cat([positions, features], -1)
    return layers(net.fp1, torch.cat([raw, interpolate(positions, c1, f1)], -1))


def random_norms(net: PointNet2) -> PointNet2:
    """Slopes of both signs, other running statistics than 0 and 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight, 0.0, 1.0)
            nn.init.normal_(module.bias, 0.5, 0.5)
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("in_channels", "momentum"), [(0, 0.1), (2, None)])
def test_network_is_the_literal_one(training: bool, in_channels: int, momentum: float | None) -> None:
    net = random_norms(PointNet2(in_channels, 7)).double().train(training)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = momentum
    other = copy.deepcopy(net)
    x = cloud(2, 80, dtype=torch.float64)
    f = torch.randn(2, 80, in_channels, dtype=torch.float64) if in_channels else None
    probe = torch.randn(2, 80, 7, dtype=torch.float64)
    for _ in range(2):  # twice: running statistics with momentum None depend on the step
        out, expected = net(x, f), literal(other, x, f)
        assert_close(out, expected, rtol=1e-9, atol=1e-9)
    (out * probe).sum().backward()
    (expected * probe).sum().backward()
    for (name, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
        assert a.grad is not None, name
        assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-7 * float(b.grad.abs().max()), msg=name)
    for (name, a), b in zip(net.named_buffers(), other.buffers(), strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)


def test_network_with_all_levels_full() -> None:
    net = random_norms(PointNet2()).eval()
    x = cloud(1, 1500)
    with torch.no_grad():
        assert_close(net(x), literal(net, x, None), rtol=1e-3, atol=1e-3)
        moved = net(x + 100.0)  # positions enter the global level and the finest one, so this differs
        assert not torch.allclose(moved, net(x))


def test_maximum_with_moments_gradient() -> None:
    z = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pointnet2._MaxAndMoments.apply, (z,))
    top, mean, variance = pointnet2._MaxAndMoments.apply(z)
    rows = z.detach().flatten(0, 1)
    assert_close(top.detach(), z.detach().amax(1))
    assert_close(mean.detach(), rows.mean(0))
    assert_close(variance.detach(), rows.var(0, unbiased=False))


def test_network_gradient() -> None:
    net = random_norms(PointNet2(1, 2)).double().eval()
    x = cloud(1, 8, dtype=torch.float64)
    f = torch.randn(1, 8, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: net(x, f), (f,))


def test_other_norms_take_the_plain_way() -> None:
    net = random_norms(PointNet2()).double().eval()
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net)).eval()
    untracked = copy.deepcopy(net).train()
    for module in untracked.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    x = cloud(2, 60, dtype=torch.float64)
    assert_close(synchronized(x), net(x), rtol=1e-9, atol=1e-9)
    assert_close(untracked(x), net.train()(x), rtol=1e-9, atol=1e-9)


def test_clouds_and_order_of_points() -> None:
    net = random_norms(PointNet2()).eval()
    x = cloud(3, 60)  # every point is a centre; up to 60 in a ball, so nothing is cut off
    out = net(x)
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(59)])
    assert_close(net(x[:, order]), out[:, order], rtol=1e-3, atol=1e-3)
    assert_close(net(x[1:2]), out[1:2], rtol=1e-3, atol=1e-3)
    assert_close(net(x[[2, 0, 1]]), out[[2, 0, 1]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("points", [1, 2, 5])
def test_tiny_clouds(points: int) -> None:
    net = PointNet2(out_channels=4)
    assert net.eval()(cloud(1, points)).shape == (1, points, 4)
    assert net.train()(cloud(2, points)).isfinite().all()


def test_training_lowers_the_loss() -> None:
    net = PointNet2()
    x = cloud(2, 128)
    target = (x[..., 0] > 0).long()
    head = nn.Linear(128, 2)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=1e-3)
    losses = []
    for _ in range(6):
        loss = F.cross_entropy(head(net(x)).flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", DEVICES)
def test_autocast(device: str, dtype: torch.dtype) -> None:
    net = PointNet2(in_channels=1).to(device)
    x, f = cloud(2, 64).to(device), torch.randn(2, 64, 1, device=device)
    exact = net(x, f)
    with torch.autocast(device, dtype=dtype):
        out = net(x, f.to(dtype))
        out.float().square().mean().backward()
    assert out.isfinite().all()
    with torch.autocast(device, dtype=dtype):
        plain = literal(net, x, f)
    assert (out - exact).norm() < 1.2 * (plain - exact).norm()  # no less exact than layer by layer
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_half_the_width_has_a_quarter_of_the_parameters() -> None:
    whole, half = (sum(p.numel() for p in PointNet2(width=width).parameters()) for width in (1.0, 0.5))
    assert 0.24 < half / whole < 0.27
    assert PointNet2(width=0.5, out_channels=96)(cloud(1, 20).expand(2, -1, -1)).shape == (2, 20, 96)


def test_parameters_and_state() -> None:
    net = PointNet2(in_channels=3, out_channels=96)
    state = net.state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if "linears" in k}
    assert shapes == {
        "sa1.linears.0.weight": (64, 6),
        "sa1.linears.1.weight": (64, 64),
        "sa1.linears.2.weight": (128, 64),
        "sa2.linears.0.weight": (128, 131),
        "sa2.linears.1.weight": (128, 128),
        "sa2.linears.2.weight": (256, 128),
        "sa3.linears.0.weight": (256, 259),
        "sa3.linears.1.weight": (512, 256),
        "sa3.linears.2.weight": (1024, 512),
        "fp3.linears.0.weight": (256, 1280),
        "fp3.linears.1.weight": (256, 256),
        "fp2.linears.0.weight": (256, 384),
        "fp2.linears.1.weight": (128, 256),
        "fp1.linears.0.weight": (128, 134),
        "fp1.linears.1.weight": (96, 128),
    }
    norms = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert set(state) - set(shapes) == {
        k.replace("linears", "norms").replace("weight", n) for k in shapes for n in norms
    }
    assert sum(p.numel() for p in PointNet2().parameters()) == 1_364_928
    again = PointNet2(in_channels=3, out_channels=96)
    again.load_state_dict(state)
    x, f = cloud(1, 40), torch.rand(1, 40, 3)
    assert_close(again.eval()(x, f), net.eval()(x, f), rtol=0, atol=0)


# --- errors


def call(name: str, x: Tensor) -> object:
    return {
        "farthest_point_sample": lambda: farthest_point_sample(x, 1),
        "ball_query": lambda: ball_query(x, x, 1.0),
        "nearest_neighbors": lambda: nearest_neighbors(x, x, 1),
        "interpolate": lambda: interpolate(x, x, torch.rand(1, 4, 2)),
        "local_covariance": lambda: local_covariance(x),
        "PointNet2": lambda: PointNet2()(x),
    }[name]()


@pytest.mark.parametrize("name", GEOMETRY)
def test_bad_positions(name: str) -> None:
    for shape in [(4, 3), (1, 4, 2), (1, 0, 3), (0, 4, 3)]:
        with pytest.raises(ValueError, match=r"expected shape \(B, N, 3\)"):
            call(name, torch.zeros(shape))
    with pytest.raises(TypeError, match=r"floating point, got torch\.int64"):
        call(name, torch.zeros(1, 4, 3, dtype=torch.int64))
    for value in (float("nan"), float("inf")):
        x = cloud(1, 4)
        x[0, 2, 1] = value
        with pytest.raises(ValueError, match="finite"):
            call(name, x)


def test_bad_arguments() -> None:
    x = cloud(2, 4)
    for count in (0, 5):
        with pytest.raises(ValueError, match="count: expected 1 to N = 4"):
            farthest_point_sample(x, count)
    with pytest.raises(ValueError, match="one batch size, got 1 and 2"):
        ball_query(x[:1], x, 1.0)
    for radius in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="radius"):
            ball_query(x, x, radius)
    with pytest.raises(ValueError, match="count"):
        ball_query(x, x, 1.0, 0)
    with pytest.raises(ValueError, match="tile"):
        ball_query(x, x, 1.0, tile=0)
    for k in (0, 5):
        with pytest.raises(ValueError, match="k: expected 1 to M = 4"):
            nearest_neighbors(x, x, k)
    with pytest.raises(ValueError, match="k: expected at least 1"):
        interpolate(x, x, torch.rand(2, 4, 1), 0)
    for shape in [(2, 4), (2, 3, 1), (1, 4, 1)]:
        with pytest.raises(ValueError, match=r"features: expected shape \(2, 4, C\)"):
            interpolate(x, x, torch.rand(shape))
    with pytest.raises(TypeError, match="features: expected floating point"):
        interpolate(x, x, torch.ones(2, 4, 1, dtype=torch.int64))


def test_bad_network_arguments() -> None:
    with pytest.raises(ValueError, match="width: expected at least 1/64"):
        PointNet2(width=0.001)
    with pytest.raises(ValueError, match="got -1 and 128"):
        PointNet2(-1)
    with pytest.raises(ValueError, match="got 0 and 0"):
        PointNet2(0, 0)
    x = cloud(2, 8)
    with pytest.raises(ValueError, match=r"expected shape \(2, 8, 3\), got None"):
        PointNet2(3)(x)
    with pytest.raises(ValueError, match="expected None"):
        PointNet2()(x, torch.rand(2, 8, 3))
    with pytest.raises(ValueError, match=r"expected shape \(2, 8, 3\), got \(2, 8, 4\)"):
        PointNet2(3)(x, torch.rand(2, 8, 4))
    with pytest.raises(TypeError, match=r"parameters in float32 or float64, got torch\.bfloat16: for mixed precision"):
        PointNet2(width=0.125).bfloat16()(torch.rand(1, 8, 3))
    with pytest.raises(TypeError, match="divide by 255"):
        PointNet2(3)(x, torch.zeros(2, 8, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        PointNet2()(x[:1, :1])
