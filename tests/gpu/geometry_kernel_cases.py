"""The Triton kernels of PointNet++'s geometry against the CPU's way: equal, also where rounding decides.

On a machine with a GPU these run there (`make gpu`), elsewhere in Triton's interpreter:
tests/adapters/test_geometry_kernels.py starts them in a process of their own.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from probemb_adapters.networks import _by_cloud as by_cloud
from probemb_adapters.networks._triton import farthest_points as launches
from probemb_adapters.networks._triton.balls import balls
from probemb_adapters.networks._triton.nearest import nearest

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FEW = DEVICE == "cpu"  # samples, as the interpreter takes milliseconds for each
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture(autouse=True)
def _fma(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreters before Triton 3.9 round twice in an fma; here all round as torch does on this CPU."""
    if DEVICE == "cuda":
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")

    def create_fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
        total = torch.addcmul(*(torch.from_numpy(handle.data) for handle in (z, x, y)))
        return interpreter.TensorHandle(total.numpy(), z.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", create_fma)


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small clouds, too, keep their distances in global memory."""
    monkeypatch.setattr(launches, "REGISTERS", 0)


def random_cloud(clouds: int, points: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(clouds, points, 3, generator=torch.Generator().manual_seed(points), dtype=dtype) * 2 - 1


def lattice(clouds: int, points: int, dtype: torch.dtype, shift: float = 0.0) -> Tensor:
    """Multiples of 0.07 on three faces of a box: distances tie, or differ by the rounding alone."""
    x = random_cloud(clouds, points, dtype)
    x.scatter_(2, torch.arange(points).remainder(3)[None, :, None].expand(clouds, -1, -1), 0.5)
    return (x / 0.07).round() * 0.07 + shift


def check(x: Tensor, count: int, first: Tensor | None = None) -> None:
    first = torch.zeros(len(x), dtype=torch.int64) if first is None else first
    samples = launches.farthest(x.to(DEVICE), first.to(DEVICE), count)
    assert samples.dtype == torch.int64
    torch.testing.assert_close(samples.cpu(), by_cloud.farthest(x, first, count))


def grid(clouds: int, points: int, dtype: torch.dtype, most: int) -> Tensor:
    generator = torch.Generator().manual_seed(points)
    return torch.randint(-most, most + 1, (clouds, points, 3), generator=generator).to(dtype)


@DTYPES
@pytest.mark.parametrize("points", [1, 2, 5, 127, 512, 513, 1025, 2500])
def test_with_ties_and_duplicates(points: int, dtype: torch.dtype) -> None:
    """At most 27 or 125 positions, so that samples run out and index 0 repeats."""
    check(grid(2, points, dtype, 1 if FEW else 2), min(points, 30 if FEW else 140))


@DTYPES
@pytest.mark.parametrize("shift", [0.0, 30.0])
@pytest.mark.parametrize("points", [500, 1500])
def test_where_rounding_decides(points: int, shift: float, dtype: torch.dtype) -> None:
    check(lattice(1, points, dtype, shift), 150)


@DTYPES
@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("points", [1, 5, 512, 1500])
def test_in_memory(points: int, dtype: torch.dtype) -> None:
    check(lattice(1, points, dtype), min(points, 40 if FEW else 150))
    check(grid(2, points, dtype, 1), min(points, 30))


@pytest.mark.parametrize("points", [4097, 10_000, 10_241, 65_536])
def test_large_clouds(points: int) -> None:
    check(lattice(1, points, torch.float32), 5 if FEW else 512)
    check(random_cloud(2, points), 5 if FEW else 512)


def test_first_samples_and_views() -> None:
    x = random_cloud(4, 600)
    first = torch.tensor([599, 0, 17, 300])
    check(x, 20, first)
    check(x.transpose(1, 2).contiguous().transpose(1, 2)[:, ::2], 20, first // 2)
    check(x[:1].expand(3, -1, -1), 20, first[:3])


def test_overflow_and_least_numbers() -> None:
    x = random_cloud(2, 300)
    check(x * 3e19, 20)  # squares are infinite, or nearly
    check(x * 1e-22, 20)  # squares are subnormal: not rounded to 0
    check(x * 1e-30, 20)


def test_all_points_once() -> None:
    x = random_cloud(1, 60)
    samples = launches.farthest(x.to(DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE), 60)
    assert samples.sort(1).values.tolist() == [list(range(60))]


def test_shapes_of_launches() -> None:
    for itemsize in (4, 8):
        for points in range(1, 70_000, 97):
            warps, chunk, chunks = launches.shape(points, itemsize)
            assert chunk == 32 * warps * launches.POINTS_A_LANE
            assert chunks == 0 or (chunks - 1) * chunk < points <= chunks * chunk
            assert chunks * launches.POINTS_A_LANE * itemsize <= launches.REGISTERS
    assert launches.shape(10_000, 4) == (16, 2048, 5)


# --- ball query


def check_balls(centers: Tensor, x: Tensor, radius: float, count: int) -> Tensor:
    index = balls(centers.to(DEVICE), x.to(DEVICE), radius, count).cpu()
    torch.testing.assert_close(index, by_cloud.balls(centers, x, radius, count, 2**18))
    return index


@DTYPES
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_balls(shift: float, dtype: torch.dtype) -> None:
    x = lattice(1, 100 if FEW else 3_000, dtype, shift)
    check_balls(x[:, :33], x, 0.07 * 5, 3)  # 3, 4, 0 in steps
    check_balls(x[:, :30] + torch.tensor([0.0, 0.003, 0.0], dtype=dtype), x, 0.15, 2)  # some are empty


@DTYPES
@pytest.mark.parametrize("points", [1, 9, 34])
def test_balls_with_ties_and_duplicates(points: int, dtype: torch.dtype) -> None:
    x = grid(3, points, dtype, 1)
    centers = x[:, : 1 + points // 2].contiguous()
    centers[1] += 0.5
    centers[2, 0] += 9  # empty
    for radius, count in ((0.5, 1), (1.0, 5), (3.0, 70)):
        check_balls(centers, x, radius, count)


def test_balls_of_large_radius() -> None:
    x = random_cloud(1, 20)
    assert (check_balls(x, x, 1e30, 25)[0, :, :20] == torch.arange(20)).all()  # its square is infinite in float32
    check_balls(x * 3e19, x * 3e19, 1e30, 25)


# --- nearest neighbours


def check_nearest(queries: Tensor, x: Tensor, k: int) -> None:
    ours = nearest(queries.to(DEVICE), x.to(DEVICE), k)
    for got, expected in zip(ours, by_cloud.nearest(queries, x, k, 2**18), strict=True):
        torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=0)


@DTYPES
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_nearest(shift: float, dtype: torch.dtype) -> None:
    x = lattice(2, 130 if FEW else 3_000, dtype, shift)
    check_nearest(x, x[:, :41], 3)
    check_nearest(x + 0.003, x[:, :40], 1)


@DTYPES
@pytest.mark.parametrize(("points", "k"), [(1, 1), (3, 3), (4, 2), (9, 8), (66, 8)])
def test_nearest_with_ties_and_duplicates(points: int, k: int, dtype: torch.dtype) -> None:
    x = grid(3, points, dtype, 1)
    check_nearest(x[:, :50] + 0.5, x, k)
    check_nearest(grid(3, 129, dtype, 2), x, k)


def test_nearest_where_squares_overflow() -> None:
    x = torch.tensor([[[3e30, 0, 0], [1, 0, 0], [-3e30, 0, 0], [2e30, 0, 0]]])
    check_nearest(x[:, 1:2], x, 4)


def test_views() -> None:
    x = random_cloud(2, 90).transpose(1, 2).contiguous().transpose(1, 2)
    check_balls(x[:, :40:2], x[:, ::2], 0.4, 5)
    check_nearest(x[:, :40:2], x[:, ::2], 3)
    check_nearest(x[:1].expand(2, -1, -1), x[:, ::2], 3)
