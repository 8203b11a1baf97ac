"""Sparse convolution in plain torch: against loops over voxels, MinkowskiEngine, finite differences; its two ways."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from engines import needs_minkowski
from hypothesis import given, settings
from hypothesis import strategies as st
from operations import Operations
from torch import Tensor
from torch.testing import assert_close

from probemb_adapters.networks import sparse
from probemb_adapters.networks.engines import convolution, sparse_tensor
from probemb_adapters.networks.minkowski import MinkowskiBackbone, MinkUNet14A, MinkUNet34C
from probemb_adapters.networks.sparse import SparseTensor, convolve


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The way of GPUs, on the CPU, in small blocks."""
    monkeypatch.setattr(sparse, "_product", sparse._product_by_columns)
    monkeypatch.setattr(sparse, "_correlation", sparse._correlation_by_columns)
    monkeypatch.setattr(sparse, "GATHERED_AT_ONCE", 5000)
    return


def voxels(count: int, extent: int, seed: int = 0, clouds: int = 2) -> Tensor:
    """Distinct ones (V, 4) of several clouds, in no order, some of them negative."""
    generator = torch.Generator().manual_seed(seed)
    cloud = torch.randint(0, clouds, (count, 1), generator=generator)
    place = torch.randint(-extent, extent, (count, 3), generator=generator)
    distinct = torch.unique(torch.cat((cloud, place), 1), dim=0)
    return distinct[torch.randperm(len(distinct), generator=generator)]


# --- truth: loops


def loops(
    features: Tensor, coordinates: Tensor, kernel: Tensor, size: int, outputs: list[tuple[int, ...]], stride: int = 1
) -> Tensor:
    """y[o] = Σ x[o + offset] W[offset]; offsets with x fastest, in units of the voxels' own stride."""
    row = {tuple(c): i for i, c in enumerate(coordinates.tolist())}
    result = features.new_zeros(len(outputs), kernel.shape[2])
    low = -(size // 2) if size % 2 else 0
    for o, (cloud, *place) in enumerate(outputs):
        for tap in range(size**3):
            step = (tap % size + low, tap // size % size + low, tap // size**2 + low)
            i = row.get((cloud, *(p + stride * d for p, d in zip(place, step, strict=True))))
            if i is not None:
                result[o] += features[i] @ kernel[tap]
    return result


def tuples(coordinates: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in coordinates.tolist()]


@given(st.integers(0, 2**31), st.integers(1, 60), st.sampled_from([1, 3, 12]), st.sampled_from([3, 5]))
@settings(max_examples=15)
def test_convolution_equals_loops(seed: int, count: int, extent: int, size: int) -> None:
    coordinates = voxels(count, extent, seed)
    features = torch.randn(len(coordinates), 2, dtype=torch.float64)
    kernel = torch.randn(size**3, 2, 3, dtype=torch.float64)
    found = convolve(SparseTensor(features, coordinates), kernel, size)
    assert found.C is coordinates
    assert_close(found.F, loops(features, coordinates, kernel, size, tuples(coordinates)))


@given(st.integers(0, 2**31), st.integers(1, 60), st.sampled_from([1, 3, 12]))
@settings(max_examples=15)
def test_strides_and_the_way_back_equal_loops(seed: int, count: int, extent: int) -> None:
    coordinates = voxels(count, extent, seed)
    features = torch.randn(len(coordinates), 2, dtype=torch.float64)
    down, up, wide = (torch.randn(taps, 2, 2, dtype=torch.float64) for taps in (8, 8, 27))
    x = SparseTensor(features, coordinates)
    coarse = convolve(x, down, 2, 2)
    cells = sorted({(c, *(p // 2 * 2 for p in place)) for c, *place in tuples(coordinates)})
    assert (tuples(coarse.C), coarse.tensor_stride) == (cells, 2)
    assert_close(coarse.F, loops(features, coordinates, down, 2, cells))
    assert_close(convolve(coarse, wide, 3).F, loops(coarse.F, coarse.C, wide, 3, cells, stride=2))
    coarser = convolve(coarse, down, 2, 2)
    assert tuples(coarser.C) == sorted({(c, *(p // 4 * 4 for p in place)) for c, *place in cells})
    fine = convolve(coarse, up, 2, 2, transposed=True)
    assert (fine.C is x.C, fine.tensor_stride) == (True, 1)
    parent = {cell: i for i, cell in enumerate(cells)}
    for row, (cloud, *place) in zip(fine.F, tuples(coordinates), strict=True):
        tap = sum((p % 2) << axis for axis, p in enumerate(place))
        assert_close(row, coarse.F[parent[(cloud, *(p // 2 * 2 for p in place))]] @ up[tap])


# --- MinkowskiEngine


@needs_minkowski
@pytest.mark.parametrize("way", ["taps", "columns"])
def test_whole_network_equals_minkowski_engine(way: str, request: pytest.FixtureRequest) -> None:
    """MinkUNet14A, forward and backward, one set of weights."""
    if way == "columns":
        request.getfixturevalue("columns")
    network = MinkUNet14A(3).double()
    positions = torch.rand(700, 3, dtype=torch.float64) * 4 - 2
    batch = torch.arange(700) % 2
    inputs = torch.rand(700, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for engine in ("minkowski", "torch"):
        found = MinkowskiBackbone(network, 0.1, engine=engine)(inputs, positions, batch)  # type: ignore[arg-type]
        upstream = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
        results.append((found, *torch.autograd.grad(found, (inputs, *network.parameters()), upstream)))
    assert_close(results[1], results[0], rtol=1e-8, atol=1e-8)


@needs_minkowski
def test_the_order_of_voxels_does_not_matter_to_either() -> None:
    """Coarse voxels are numbered otherwise by the two; what comes back on the input's is not."""
    coordinates = voxels(300, 8)
    features = torch.randn(len(coordinates), 3, dtype=torch.float64)
    down, up = (torch.randn(8, a, b, dtype=torch.float64) for a, b in ((3, 4), (4, 5)))
    found = []
    for engine in ("minkowski", "torch"):
        x = sparse_tensor(features, coordinates.int(), engine)  # type: ignore[arg-type]
        found.append(convolution(convolution(x, down, 2, 2, False), up, 2, 2, True).F)
    assert_close(found[0], found[1])


# --- gradients, and the way of GPUs


def shapes() -> list[tuple[Callable[[SparseTensor, Tensor], SparseTensor], tuple[int, int, int]]]:
    def there_and_back(x: SparseTensor, kernel: Tensor) -> SparseTensor:
        return convolve(convolve(x, kernel, 2, 2), kernel.sin(), 2, 2, transposed=True)

    return [(lambda x, k: convolve(x, k, 3), (27, 2, 2)), (there_and_back, (8, 2, 2))]


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("way", ["taps", "columns"])
def test_gradients_by_finite_differences(case: int, way: str, request: pytest.FixtureRequest) -> None:
    if way == "columns":
        request.getfixturevalue("columns")
    run, shape = shapes()[case]
    coordinates = voxels(14, 2)
    features = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, k: run(SparseTensor(f, coordinates), k).F, (features, kernel))


def test_only_what_is_asked_for_is_computed() -> None:
    coordinates = voxels(40, 3)
    frozen = torch.randn(27, 2, 2)
    features = torch.randn(len(coordinates), 2, requires_grad=True)
    convolve(SparseTensor(features, coordinates), frozen, 3).F.sum().backward()
    assert features.grad is not None
    assert frozen.grad is None


def test_the_way_of_gpus_launches_little(columns: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution: three launches forward, eight backward, and no reading back."""
    monkeypatch.setattr(sparse, "GATHERED_AT_ONCE", 1 << 26)
    coordinates = voxels(200, 5)
    features = torch.randn(len(coordinates), 4, requires_grad=True)
    kernel = torch.randn(27, 4, 4, requires_grad=True)
    x = SparseTensor(features, coordinates)
    convolve(x, kernel, 3).F.sum().backward()  # the neighbours are found
    with Operations() as forward:
        y = convolve(x, kernel, 3).F
    upstream = torch.ones_like(y)
    with Operations() as backward:
        torch.autograd.grad(y, (features, kernel), upstream)
    assert (forward.total, forward.read_backs) == (3, 0)
    assert (backward.total, backward.read_backs) == (8, 0)


def test_launches_of_34c(columns: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "GATHERED_AT_ONCE", 1 << 26)
    backbone = MinkowskiBackbone(MinkUNet34C(), 0.1, engine="torch")
    positions = torch.rand(60, 3) * 4
    with Operations() as counted:
        backbone(positions, positions).sum().backward()
    assert counted.total < 1700
    assert counted.read_backs <= 10


# --- edges


@pytest.mark.parametrize("way", ["taps", "columns"])
def test_no_voxel_and_one(way: str, request: pytest.FixtureRequest) -> None:
    if way == "columns":
        request.getfixturevalue("columns")
    kernel, down = torch.randn(27, 2, 3, requires_grad=True), torch.randn(8, 3, 2)
    for count in (0, 1):
        x = SparseTensor(torch.ones(count, 2), torch.tensor([[0, -7, 3, 2]])[:count])
        y = convolve(x, kernel, 3)
        assert_close(y.F, kernel[13].sum(0).expand(count, 3))
        back = convolve(convolve(y, down, 2, 2), torch.ones(8, 2, 1), 2, 2, transposed=True)
        assert back.F.shape == (count, 1)
        back.F.sum().backward()
    assert kernel.grad is not None


@pytest.mark.parametrize("shift", [(2**23 - 40, -(2**23), 2**20), (10**9, -(10**9), 7 * 10**8)])
def test_far_from_the_origin(shift: tuple[int, int, int]) -> None:
    """By multiples of the coarsest stride nothing changes but the coordinates."""
    near = voxels(120, 6)
    far = near.clone()
    far[:, 1:] += torch.tensor(shift) // 16 * 16
    features, wide, down = torch.randn(len(near), 2), torch.randn(27, 2, 2), torch.randn(8, 2, 2)
    found = []
    for coordinates in (near, far):
        y = convolve(SparseTensor(features, coordinates), wide, 3)
        found.append(convolve(convolve(y, down, 2, 2), wide, 3))
    assert torch.equal(found[0].F, found[1].F)
    assert torch.equal(found[1].C - found[0].C, (far - near)[:1].expand(len(found[0].C), -1))


def test_in_far_corners() -> None:
    """More cells between the corners than 63 bits can number; neighbours stay what they are."""
    corners = torch.cartesian_prod(*[torch.tensor([-(2**23), 2**23 - 64])] * 3)
    near = voxels(30, 3, clouds=1)
    scattered = torch.cat([near + torch.nn.functional.pad(corner, (1, 0)) for corner in corners])
    kernel, down = torch.randn(27, 2, 2), torch.randn(8, 2, 2)
    features = torch.randn(len(near), 2)

    def run(coordinates: Tensor) -> SparseTensor:
        x = SparseTensor(features.repeat(len(coordinates) // len(near), 1), coordinates)
        return convolve(convolve(convolve(x, kernel, 3), down, 2, 2), kernel, 3)

    one, all_of_them = run(near), run(scattered)
    assert len(all_of_them.C) == 8 * len(one.C)
    rows = dict(zip(tuples(all_of_them.C), all_of_them.F, strict=True))
    for corner in corners:
        for (cloud, *place), expected in zip(tuples(one.C), one.F, strict=True):
            moved = (cloud, *(p + int(c) for p, c in zip(place, corner, strict=True)))
            assert_close(rows[moved], expected)


def test_same_bits_again() -> None:
    coordinates = voxels(400, 5)
    features, kernel = torch.randn(len(coordinates), 8), torch.randn(27, 8, 8)
    once, again = (convolve(SparseTensor(features, coordinates), kernel, 3).F for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """27 ones of which the sum in half precision would lose half."""
    coordinates = torch.nn.functional.pad(torch.cartesian_prod(*[torch.arange(3)] * 3), (1, 0))
    features = torch.full((27, 1), 1.0, dtype=dtype)
    kernel = torch.full((27, 1, 1), 2.0**-9, dtype=dtype)
    kernel[0] = 1
    found = convolve(SparseTensor(features, coordinates), kernel, 3).F[13]
    assert found.dtype == dtype
    assert found.item() == torch.tensor(1 + 26 * 2.0**-9).to(dtype).item() > 1.04


def test_the_gradient_of_a_kernel_is_summed_over_blocks_in_float32(columns: None) -> None:
    """4,096 ones in blocks of 185."""
    coordinates = torch.nn.functional.pad(torch.cartesian_prod(*[torch.arange(16)] * 3), (1, 0))
    kernel = torch.zeros(27, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    features = torch.ones(len(coordinates), 1, dtype=torch.bfloat16)
    convolve(SparseTensor(features, coordinates), kernel, 3).F.sum().backward()
    assert kernel.grad is not None
    assert kernel.grad.dtype == torch.bfloat16
    assert kernel.grad[13].item() == 4096


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda x, k: SparseTensor(torch.ones(2, 3), torch.zeros(2, 4).long()), ValueError, "distinct voxels"),
        (lambda x, k: SparseTensor(torch.ones(2, 3), torch.zeros(2, 3).long()), ValueError, r"\(V, 4\), got.*\(2, 3\)"),
        (lambda x, k: SparseTensor(torch.ones(2), torch.zeros(2, 4).long()), ValueError, r"features \(V, C\).*\(2,\)"),
        (lambda x, k: SparseTensor(torch.ones(2, 3), torch.zeros(2, 4)), TypeError, "integer coordinates, got"),
        (lambda x, k: SparseTensor(torch.ones(2, 3), torch.zeros(2, 4) > 0), TypeError, "got torch.float32 and torch"),
        (lambda x, k: SparseTensor(torch.ones(2, 3).long(), torch.zeros(2, 4).long()), TypeError, "floating-point"),
        (
            lambda x, k: SparseTensor(torch.ones(2, 3), torch.zeros(2, 4, dtype=torch.int64, device="meta")),
            ValueError,
            "one device, got cpu and meta",
        ),
        (lambda x, k: convolve(x, k[:8], 3), ValueError, r"expected a kernel \(27, 2, C'\), got \(8, 2, 2\)"),
        (lambda x, k: convolve(x, k[:, 0], 3), ValueError, r"got \(27, 2\)"),
        (lambda x, k: convolve(x, k, 3, 2), ValueError, "odd size up to 15 with stride 1.*got size 3, stride 2"),
        (lambda x, k: convolve(x, k[:8], 2), ValueError, "got size 2, stride 1"),
        (lambda x, k: convolve(x, k[:8], 2, 2, transposed=True), ValueError, "transposed True, tensor stride 1"),
    ],
)
def test_errors(run: Callable[[SparseTensor, Tensor], Any], error: type[Exception], message: str) -> None:
    x = SparseTensor(torch.ones(3, 2), torch.nn.functional.pad(torch.eye(3, dtype=torch.int64), (1, 0)))
    with pytest.raises(error, match=message):
        run(x, torch.ones(27, 2, 2))


def test_voxels_that_no_key_can_number() -> None:
    generator = torch.Generator().manual_seed(0)
    wild = torch.randint(-(2**62), 2**62, (5000, 4), generator=generator)
    wild[:, 0] = torch.arange(5000)
    with pytest.raises(ValueError, match="voxels that 63 bits can number"):
        SparseTensor(torch.ones(5000, 1), wild)
    apart = torch.tensor([[0, -(2**62), 0, 0], [0, 2**62, 0, 0], [0, 2**62, 1, 0]])
    with pytest.raises(ValueError, match=r"got coordinates 2\^63 apart"):
        SparseTensor(torch.ones(3, 1), apart)


def test_each_map_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()
    searched = torch.searchsorted

    def counting(*arguments: Any) -> Tensor:
        counted["searches"] += 1
        return searched(*arguments)

    monkeypatch.setattr(torch, "searchsorted", counting)
    backbone = MinkowskiBackbone(MinkUNet14A(), 0.1, engine="torch")
    backbone(torch.rand(50, 3), torch.rand(50, 3) * 4)
    assert counted["searches"] == 6  # kernels of 5 and 3 on the input, of 3 on four coarser strides


@pytest.mark.parametrize("way", ["taps", "columns"])
def test_maps_go_with_the_last_tensor_of_their_voxels(way: str, request: pytest.FixtureRequest) -> None:
    """At once: the collector of garbage, which would come for circles only, may let many batches pile up."""
    if way == "columns":
        request.getfixturevalue("columns")
    gc.disable()
    try:
        kernel = torch.ones(8, 1, 1, requires_grad=True)
        x = SparseTensor(torch.ones(20, 1), voxels(20, 4))
        kernel_map, found = weakref.ref(x.neighbours.strided(1)), weakref.ref(x.neighbours)
        y = convolve(convolve(x, kernel, 2, 2), kernel, 2, 2, transposed=True).F
        del x
        y.sum().backward()
        del y
        assert kernel_map() is None
        assert found() is None
    finally:
        gc.enable()
