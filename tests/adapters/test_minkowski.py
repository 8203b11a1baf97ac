"""Voxels, MinkUNet and the backbone on both engines, against dense convolutions of torch and brute force."""

from __future__ import annotations

import collections
import copy
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engines import ENGINES, needs_minkowski
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from paths import PACKAGES, PROJECT
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close
from torch_geometric.data import Data

from probemb_adapters.networks.engines import AnySparse, Engine, pick_engine, same_voxels, sparse_tensor
from probemb_adapters.networks.minkowski import (
    MinkowskiBackbone,
    MinkUNet,
    MinkUNet14A,
    MinkUNet18A,
    MinkUNet34C,
    voxelize,
)
from probemb_adapters.networks.minkunet import _Convolution
from probemb_adapters.networks.pretrained import load_pretrained
from probemb_lib import ProbabilisticEmbeddingLoss, ProbabilisticHead

VOXEL = 1 / 16  # a power of two: shifts by whole voxels are exact


class TinyUNet(MinkUNet):
    PLANES = (4, 6, 8, 10, 8, 6, 5, 4)
    LAYERS = (1, 2, 1, 1, 1, 1, 1, 2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def with_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as after a training: every parameter and statistic differs from its start."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def tiny(engine: Engine = "torch", out_channels: int | None = None) -> MinkowskiBackbone:
    return MinkowskiBackbone(with_statistics(TinyUNet(3, out_channels)), VOXEL, engine=engine).eval()


def scene(points: int = 300, extent: float = 3.0, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Features (N, 3) and positions (N, 3), with several points in some voxels."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(points, 3, generator=generator) * extent - extent / 2
    positions[points // 2 :] = (positions[: points - points // 2] / VOXEL).floor() * VOXEL + VOXEL / 3
    return torch.rand(points, 3, generator=generator), positions


# --- truth: the same network on a dense grid


def occupied(size: int, fraction: float, seed: int = 0) -> Tensor:
    """Distinct voxels (V, 3) of a cube that starts at 0, in random order."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.cartesian_prod(*[torch.arange(size)] * 3)
    return cells[torch.randperm(size**3, generator=generator)[: round(fraction * size**3)]]


def sparse(engine: Literal["minkowski", "torch"], features: Tensor, cells: Tensor) -> AnySparse:
    return sparse_tensor(features, F.pad(cells, (1, 0)).int(), engine)


def to_grid(rows: Tensor, cells: Tensor, size: int) -> Tensor:
    """(V, C) → (1, C, X, Y, Z)."""
    grid = rows.new_zeros(size, size, size, rows.shape[1])
    return grid.index_put(tuple(cells.unbind(1)), rows).permute(3, 0, 1, 2)[None]


def at(grid: Tensor, cells: Tensor) -> Tensor:
    """(1, C, X, Y, Z) → (V, C)."""
    return grid[0].permute(1, 2, 3, 0)[tuple(cells.unbind(1))]


def dense_weight(kernel: Tensor) -> Tensor:
    """(k³, in, out), x fastest → (out, in, x, y, z)."""
    if kernel.ndim == 2:
        kernel = kernel[None]
    size = round(len(kernel) ** (1 / 3))
    return kernel.view(size, size, size, *kernel.shape[1:]).permute(4, 3, 2, 1, 0)


def dense_unet(network: MinkUNet, grid: Tensor, mask: Tensor) -> Tensor:
    """MinkUNet with conv3d and conv_transpose3d; what is outside the mask (1, 1, X, Y, Z) of a level is zero."""

    def conv(grid: Tensor, layer: _Convolution, mask: Tensor) -> Tensor:
        return F.conv3d(grid, dense_weight(layer.kernel), padding=layer.kernel_size // 2) * mask

    def norm(grid: Tensor, layer: nn.Module, mask: Tensor) -> Tensor:
        cells = mask[0, 0].nonzero()
        bn = layer.bn
        rows = F.batch_norm(
            at(grid, cells), bn.running_mean.clone(), bn.running_var.clone(), bn.weight, bn.bias, bn.training
        )
        return to_grid(rows, cells, grid.shape[-1])

    def blocks(grid: Tensor, units: nn.Module, mask: Tensor) -> Tensor:
        for unit in units:
            y = norm(conv(grid, unit.conv1, mask), unit.norm1, mask).relu()
            y = norm(conv(y, unit.conv2, mask), unit.norm2, mask)
            if unit.downsample is not None:
                grid = norm(conv(grid, unit.downsample[0], mask), unit.downsample[1], mask)
            grid = (y + grid).relu()
        return grid

    grid = norm(conv(grid, network.conv0p1s1, mask), network.bn0, mask).relu()
    skips = []
    for i, name in enumerate(("conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2"), start=1):
        skips.append((grid, mask))
        mask = F.max_pool3d(mask, 2)
        grid = F.conv3d(grid, dense_weight(network.get_submodule(name).kernel), stride=2)
        grid = norm(grid, network.get_submodule(f"bn{i}"), mask).relu()
        grid = blocks(grid, network.get_submodule(f"block{i}"), mask)
    for i, name in enumerate(("convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2"), start=4):
        skip, mask = skips.pop()
        weight = dense_weight(network.get_submodule(name).kernel).transpose(0, 1)  # torch has in before out here
        grid = F.conv_transpose3d(grid, weight, stride=2) * mask
        grid = norm(grid, network.get_submodule(f"bntr{i}"), mask).relu()
        grid = blocks(torch.cat((grid, skip), 1), network.get_submodule(f"block{i + 1}"), mask)
    return conv(grid, network.final, mask) + network.final.bias.view(1, -1, 1, 1, 1) * mask


# --- convolutions


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("engine", ENGINES)
def test_convolution_equals_the_dense_one(engine: Literal["minkowski", "torch"], size: int) -> None:
    cells = occupied(7, 0.3)
    layer = _Convolution(3, 4, size, bias=True).double()
    nn.init.normal_(layer.bias)
    inputs = torch.randn(len(cells), 3, dtype=torch.float64, requires_grad=True)
    found = layer(sparse(engine, inputs, cells)).F
    padded = F.conv3d(to_grid(inputs, cells, 7), dense_weight(layer.kernel), layer.bias[0], padding=size // 2)
    expected = at(padded, cells)
    assert_close(found, expected)
    upstream = torch.randn_like(found)
    parameters = (inputs, layer.kernel, layer.bias)
    assert_close(torch.autograd.grad(found, parameters, upstream), torch.autograd.grad(expected, parameters, upstream))


@pytest.mark.parametrize("engine", ENGINES)
def test_strided_convolution_and_its_transpose_equal_the_dense_ones(engine: Literal["minkowski", "torch"]) -> None:
    cells = occupied(8, 0.15)
    down, up = _Convolution(3, 4, 2, stride=2).double(), _Convolution(4, 5, 2, stride=2, transposed=True).double()
    inputs = torch.randn(len(cells), 3, dtype=torch.float64, requires_grad=True)
    x = sparse(engine, inputs, cells)
    coarse = down(x)
    fine = up(coarse)
    assert same_voxels(fine, x)
    assert len(coarse.F) < len(cells)
    grid = F.conv3d(to_grid(inputs, cells, 8), dense_weight(down.kernel), stride=2)
    assert_close(coarse.F, at(grid, (coarse.C[:, 1:] // 2).long()))
    expected = at(F.conv_transpose3d(grid, dense_weight(up.kernel).transpose(0, 1), stride=2), cells)
    assert_close(fine.F, expected)
    upstream = torch.randn_like(expected)
    parameters = (inputs, down.kernel, up.kernel)
    assert_close(torch.autograd.grad(fine.F, parameters, upstream), torch.autograd.grad(expected, parameters, upstream))


@pytest.mark.parametrize(
    ("size", "number", "offset"),
    [
        (3, 0, (-1, -1, -1)),
        (3, 1, (0, -1, -1)),
        (3, 3, (-1, 0, -1)),
        (3, 9, (-1, -1, 0)),
        (3, 13, (0, 0, 0)),
        (5, 1, (-1, -2, -2)),
        (2, 1, (1, 0, 0)),
        (2, 4, (0, 0, 1)),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_numbering_of_kernel_offsets(
    engine: Literal["minkowski", "torch"], size: int, number: int, offset: tuple[int, int, int]
) -> None:
    """As the published weights have it; a wrong order would load without a complaint."""
    cells = torch.cartesian_prod(*[torch.arange(6)] * 3)
    layer = _Convolution(3, 3, size, stride=2 if size == 2 else 1).double()
    nn.init.zeros_(layer.kernel)
    with torch.no_grad():
        layer.kernel[number] = torch.eye(3)
    y = layer(sparse(engine, cells.double(), cells))
    place = y.C[:, 1:]
    inside = ((place >= 2) & (place < 4)).all(1)
    assert inside.any()
    assert_close(y.F[inside], (place[inside] + torch.tensor(offset)).double())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_network_equals_the_dense_one(engine: Literal["minkowski", "torch"], training: bool) -> None:
    size, cells = 32, occupied(32, 0.03)
    network = with_statistics(TinyUNet(3, 7)).double().train(training)
    nn.init.normal_(network.final.bias)
    inputs = torch.randn(len(cells), 3, dtype=torch.float64, requires_grad=True)
    mask = to_grid(torch.ones(len(cells), 1, dtype=torch.float64), cells, size)
    expected = at(dense_unet(network, to_grid(inputs, cells, size), mask), cells)
    found = network(sparse(engine, inputs, cells)).F
    assert found.shape == (len(cells), network.out_channels) == (len(cells), 7)
    assert_close(found, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(found)
    parameters = (inputs, *network.parameters())
    assert_close(
        torch.autograd.grad(found, parameters, upstream),
        torch.autograd.grad(expected, parameters, upstream),
        rtol=1e-8,
        atol=1e-8,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_negative_coordinates_are_strided_downwards(engine: Literal["minkowski", "torch"]) -> None:
    layer = _Convolution(1, 1, 2, stride=2)
    y = layer(sparse(engine, torch.rand(4, 1), torch.tensor([[-3, 0, 0], [-1, 0, 0], [1, 0, 0], [-2, 0, 0]])))
    assert sorted(y.C[:, 1].tolist()) == [-4, -2, 0]


# --- networks


def test_names_and_shapes_are_those_of_the_published_weights() -> None:
    listed = (PROJECT / "tests" / "data" / "minkunet" / "mink16unet34c.txt").read_text().splitlines()
    expected = [(name, tuple(map(int, shape))) for name, *shape in map(str.split, listed)]
    found = [(name, tuple(tensor.shape)) for name, tensor in MinkUNet34C(3, 20).state_dict().items()]
    assert found == expected
    headless = MinkUNet34C().state_dict()
    assert list(headless) == [name for name, _ in expected[:-2]]
    assert MinkUNet34C(conv1_kernel_size=3).conv0p1s1.kernel.shape == (27, 3, 32)


def test_variants() -> None:
    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    assert [count(variant()) for variant in (MinkUNet14A, MinkUNet18A, MinkUNet34C)] == [8022560, 15491232, 37854112]
    assert MinkUNet14A.PLANES == MinkUNet18A.PLANES
    network = MinkUNet14A(4, 6)
    assert (network.in_channels, network.out_channels, MinkUNet14A().out_channels) == (4, 6, 96)
    assert "kernel_size=5" in repr(network.conv0p1s1)


def test_initialization() -> None:
    network = MinkUNet18A(3, 20)
    for module in network.modules():
        if isinstance(module, _Convolution) and module.kernel.numel() > 5000:
            fan_out = module.kernel_size**3 * module.kernel.shape[-1]
            assert module.kernel.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        if isinstance(module, nn.BatchNorm1d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    assert (network.final.bias == 0).all()


def test_34c_on_a_scene() -> None:
    features, positions = scene(300)
    backbone = MinkowskiBackbone(MinkUNet34C(3, 20), VOXEL, engine="torch")
    backbone(features, positions).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in backbone.parameters())
    assert backbone.network.block4[5].norm2.bn.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinkUNet14A(in_channels=0), "expected in_channels >= 1, got 0"),
        (lambda: MinkUNet14A(out_channels=0), "expected out_channels >= 1, got 0"),
        (lambda: MinkUNet14A(conv1_kernel_size=4), "odd conv1_kernel_size >= 3, got 4"),
        (lambda: MinkUNet14A(conv1_kernel_size=1), "odd conv1_kernel_size >= 3, got 1"),
    ],
)
def test_errors_of_the_network(make: Callable[[], MinkUNet], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_errors_of_a_pass() -> None:
    features, positions = scene(20)
    with pytest.raises(ValueError, match=r"expected 3 channels, got features \(\d+, 2\)"):
        tiny()(features[:, :2], positions)
    for points in (positions[:1], torch.rand(20, 3) * 0.9):
        with pytest.raises(ValueError, match="at least two cells of 16x16x16 voxels in training"):
            tiny().train()(features[: len(points)], points)
    two_clouds = tiny().train()(features, torch.rand(20, 3) * 0.9, torch.arange(20) % 2)
    assert two_clouds.isfinite().all()
    frozen = tiny().train()
    for module in frozen.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    assert frozen(features[:1], positions[:1]).shape == (1, 4)


# --- voxels


def brute_voxels(positions: Tensor, size: float, batch: Tensor) -> tuple[list[list[int]], list[int]]:
    cells = [
        (int(b), *(math.floor(x / size) for x in row))
        for b, row in zip(batch.tolist(), positions.tolist(), strict=True)
    ]
    distinct = sorted(set(cells))
    return [list(cell) for cell in distinct], [distinct.index(cell) for cell in cells]


@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([0.05, 0.5, 3.0]), st.sampled_from([1.0, 1e3]))
@settings(max_examples=30)
def test_voxels_equal_brute_force(seed: int, points: int, size: float, extent: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    positions = (torch.rand(points, 3, generator=generator) - 0.5) * extent
    batch = torch.randint(0, 3, (points,), generator=generator) * 7
    before = positions.clone()
    coordinates, index = voxelize(positions, size, batch)
    assert (coordinates.dtype, index.dtype) == (torch.int32, torch.int64)
    assert (coordinates.tolist(), index.tolist()) == brute_voxels(positions, size, batch)
    assert torch.equal(positions, before)


def test_voxels_in_far_corners() -> None:
    """More cells between the corners than int64 can count."""
    corners = torch.cartesian_prod(*[torch.tensor([-8e6, 8e6], dtype=torch.float64)] * 3)
    positions = torch.cat((corners, corners + 0.5, corners + 1))[torch.randperm(24)]
    coordinates, index = voxelize(positions, 1.0)
    assert (coordinates.tolist(), index.tolist()) == brute_voxels(positions, 1.0, torch.zeros(24))
    assert len(coordinates) == 16


@pytest.mark.parametrize("engine", ENGINES)
def test_voxels_far_from_the_origin(engine: Literal["minkowski", "torch"]) -> None:
    """10 km away, neighbouring voxels of 2 cm are told apart in float32, and strided rightly by the engine."""
    centers = (torch.arange(40) + 0.5) * 0.02 + 10000
    coordinates, index = voxelize(centers[:, None].expand(-1, 3).float(), 0.02)
    assert len(coordinates) == 40
    assert torch.equal(index, torch.arange(40))
    farthest = torch.tensor([[2**23 - 1, -(2**23) + 1, 2**23 - 3]])
    assert _Convolution(1, 1, 2, stride=2)(sparse(engine, torch.ones(1, 1), farthest)).C[0, 1:].tolist() == [
        2**23 - 2,
        -(2**23),
        2**23 - 4,
    ]


def test_voxels_of_no_point() -> None:
    coordinates, index = voxelize(torch.zeros(0, 3), 0.02, torch.zeros(0, dtype=torch.int32))
    assert (coordinates.shape, coordinates.dtype, index.shape, index.dtype) == ((0, 4), torch.int32, (0,), torch.int64)


@pytest.mark.parametrize(
    ("positions", "size", "batch", "error", "message"),
    [
        (torch.zeros(3), 0.1, None, ValueError, r"positions: expected shape \(N, 3\), got \(3,\)"),
        (torch.zeros(3, 2), 0.1, None, ValueError, r"positions: expected shape \(N, 3\), got \(3, 2\)"),
        (
            torch.zeros(3, 3, dtype=torch.int64),
            0.1,
            None,
            TypeError,
            "positions: expected float32 or float64, got torch.int64",
        ),
        (torch.full((3, 3), torch.nan), 0.1, None, ValueError, "positions: expected finite numbers"),
        (torch.full((3, 3), torch.inf), 0.1, None, ValueError, "positions: expected finite numbers"),
        (torch.full((3, 3), 1e5), 0.02, None, ValueError, "less than 4194304 voxels of 0.02 from the origin"),
        (torch.full((3, 3), -1e6).double(), 0.02, None, ValueError, "less than 8388608 voxels.*got 1e.06: subtract"),
        (torch.zeros(3, 3).half(), 0.1, None, TypeError, "got torch.float16: half precision moves points"),
        (torch.zeros(3, 3), 0.0, None, ValueError, "voxel_size: expected a positive number.*got 0.0"),
        (torch.zeros(3, 3), math.nan, None, ValueError, "voxel_size: expected a positive number.*got nan"),
        (torch.zeros(3, 3), 0.1, torch.zeros(3), TypeError, "batch: expected an integer type, got torch.float32"),
        (torch.zeros(3, 3), 0.1, torch.zeros(3) > 0, TypeError, "batch: expected an integer type, got torch.bool"),
        (torch.zeros(3, 3), 0.1, torch.zeros(2).int(), ValueError, r"batch: expected shape \(3,\), got \(2,\)"),
        (torch.zeros(3, 3), 0.1, torch.tensor([0, -1, 0]), ValueError, r"batch: expected 0 .*got -1 .. 0"),
        (torch.zeros(3, 3), 0.1, torch.tensor([0, 0, 2**31]), ValueError, "batch: expected 0 .*got 0 .. 2147483648"),
    ],
)
def test_errors_of_voxels(
    positions: Tensor, size: float, batch: Tensor | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        voxelize(positions, size, batch)


# --- backbone


@pytest.mark.parametrize("engine", ENGINES)
def test_points_get_what_the_network_gives_their_voxel(engine: Literal["minkowski", "torch"]) -> None:
    """Mean of the features, the network and the way back, each spelled out."""
    features, positions = scene(120)
    backbone = tiny(engine, out_channels=5)
    cells = torch.from_numpy(np.floor(positions.numpy() / VOXEL)).long()
    distinct, members = [], []
    for point, cell in enumerate(cells.tolist()):
        if cell not in distinct:
            distinct.append(cell)
            members.append([])
        members[distinct.index(cell)].append(point)
    assert max(map(len, members)) > 1
    means = torch.stack([features[points].mean(0) for points in members])
    on_voxels = backbone.network(sparse(engine, means, torch.tensor(distinct))).F
    found = backbone(features, positions)
    for row, points in zip(on_voxels, members, strict=True):
        assert_close(found[points], row.expand(len(points), -1), rtol=1e-4, atol=1e-5)
        assert (found[points] == found[points[0]]).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_order_of_points_is_free(engine: Literal["minkowski", "torch"]) -> None:
    features, positions = scene()
    batch = torch.randint(0, 3, (300,))
    order = torch.randperm(300)
    backbone = tiny(engine)
    expected = backbone(features, positions, batch)[order]
    assert_close(backbone(features[order], positions[order], batch[order]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_same_bits_again(engine: Literal["minkowski", "torch"]) -> None:
    """Also in another order of the points, where no voxel holds two whose sum would round otherwise."""
    features, positions = scene(100)
    positions = positions[:50]
    features = features[:50].requires_grad_()
    backbone = tiny(engine).train()
    order = torch.randperm(50)

    def gradients(order: Tensor) -> list[Tensor]:
        output = backbone(features[order], positions[order])
        restored = output.new_zeros(output.shape).index_copy(0, order, output)
        return [restored, *torch.autograd.grad(restored.sin().sum(), [features, *backbone.parameters()])]

    first = gradients(torch.arange(50))
    assert len(voxelize(positions, VOXEL).coordinates) == 50
    for again in (gradients(torch.arange(50)), gradients(order)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("shift", [(16, 0, 0), (-160, 32, 1600), (-(2**14), 2**14, 0)])
@pytest.mark.parametrize("engine", ENGINES)
def test_shift_by_cells_of_16_voxels(engine: Literal["minkowski", "torch"], shift: tuple[int, int, int]) -> None:
    """So negative coordinates are no different from positive ones."""
    features, positions = scene()
    positions = (positions * 1024).round() / 1024  # on a grid that float32 also has where it is shifted to
    backbone = tiny(engine)
    moved = positions + torch.tensor(shift) * VOXEL
    assert_close(backbone(features, moved), backbone(features, positions), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_batch_equals_its_scenes_one_by_one(engine: Literal["minkowski", "torch"]) -> None:
    """Unsorted, of different sizes, with an empty one between them and one of a single point."""
    scenes = {0: scene(100, seed=2), 2: scene(60, seed=3), 3: scene(1, seed=4)}
    features = torch.cat([f for f, _ in scenes.values()])
    positions = torch.cat([p for _, p in scenes.values()])
    batch = torch.cat([torch.full((len(f),), b) for b, (f, _) in scenes.items()])
    order = torch.randperm(len(batch))
    backbone = tiny(engine)
    found = torch.empty(len(batch), 4)
    found[order] = backbone(features[order], positions[order], batch[order].int()).detach()
    for b, alone in scenes.items():
        assert_close(found[batch == b], backbone(*alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_point(engine: Literal["minkowski", "torch"]) -> None:
    backbone = tiny(engine, out_channels=5).train()
    features = torch.zeros(0, 3, requires_grad=True)
    output = backbone(features, torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert output.shape == (0, 5)
    output.sum().backward()  # every parameter takes part, as processes that train together expect
    assert all(p.grad is not None and (p.grad == 0).all() for p in backbone.parameters())
    assert features.grad is not None


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_by_finite_differences(engine: Literal["minkowski", "torch"]) -> None:
    features, positions = scene(12, extent=1.5)
    backbone = tiny(engine, out_channels=2).double()
    inputs = features.double().requires_grad_()
    assert len(voxelize(positions, VOXEL).coordinates) < 12
    assert torch.autograd.gradcheck(lambda f: backbone(f, positions), (inputs,))


@needs_minkowski
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_reaches_only_what_comes_after_minkowski_engine(dtype: torch.dtype) -> None:
    features, positions = scene()
    backbone = tiny("minkowski", out_channels=5)
    with torch.autocast("cpu", dtype=dtype):
        found = backbone(features, positions)
        assert (found @ found.T).dtype == dtype
    assert found.dtype == torch.float32
    assert torch.equal(found, backbone(features, positions))
    assert_close(backbone(features.to(dtype), positions), found, rtol=0.1, atol=0.1)
    assert backbone.double()(features, positions).dtype == torch.float64


def test_autocast_in_torch() -> None:
    """Products in bfloat16, sums in float32; the features come back in the dtype of the parameters."""
    features, positions = scene()
    backbone = tiny("torch", out_channels=5).train()
    exact = backbone(features, positions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = backbone(features, positions)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    assert (found - exact).norm() < 0.1 * exact.norm()
    found.square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in backbone.parameters())


class Halving(nn.Module):
    """A network whose features belong to other voxels than its input's."""

    out_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.convolution = _Convolution(3, 4, 2, stride=2)

    def forward(self, x: object) -> object:
        return self.convolution(x)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda f, p: MinkowskiBackbone(nn.Linear(3, 4)), TypeError, "an int out_channels, got None"),
        (lambda f, p: MinkowskiBackbone(Halving(), 0.0), ValueError, "voxel_size: expected a positive number"),
        (lambda f, p: tiny()(f[0], p), ValueError, r"expected features \(N, C\).*got \(3,\) and \(9, 3\)"),
        (lambda f, p: tiny()(f, p[1:]), ValueError, r"expected features \(N, C\).*got \(9, 3\) and \(8, 3\)"),
        (lambda f, p: tiny()(f.long(), p), TypeError, "features: expected floating point, got torch.int64"),
        (lambda f, p: MinkowskiBackbone(Halving(), engine="spconv"), ValueError, "expected auto, minkowski or torch"),
        (lambda f, p: tiny().bfloat16()(f, p), TypeError, "float32 or float64.*got torch.bfloat16"),
        (lambda f, p: MinkowskiBackbone(Halving(), engine="torch")(f, p), ValueError, "stride 2 after 1"),
        (lambda f, p: tiny()(f, p * torch.nan), ValueError, "positions: expected finite"),
        (lambda f, p: tiny()(f, p, torch.zeros(3).long()), ValueError, r"batch: expected shape \(9,\)"),
    ],
)
def test_errors_of_the_backbone(run: Callable[[Tensor, Tensor], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(*scene(9))


@pytest.mark.parametrize("engine", ENGINES)
def test_copies_and_pickles(engine: Literal["minkowski", "torch"]) -> None:
    features, positions = scene()
    backbone = tiny(engine, out_channels=5)
    expected = backbone(features, positions)
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(twin(features, positions), expected)
        twin.network.final.bias.data.add_(1)
    assert torch.equal(backbone(features, positions), expected)
    other = MinkowskiBackbone(TinyUNet(3, 5), VOXEL, engine=engine).eval()
    other.load_state_dict(backbone.state_dict())
    assert torch.equal(other(features, positions), expected)
    assert "voxel_size=0.0625" in repr(backbone)


class OnData(nn.Module):
    """As the examples pass their batches."""

    def __init__(self, backbone: MinkowskiBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, data: Data) -> Tensor:
        return self.backbone(data.x, data.pos)


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("torch", "32-true"),
        pytest.param("minkowski", "32-true", marks=needs_minkowski),
        pytest.param("minkowski", "bf16-mixed", marks=needs_minkowski),
    ],
)
def test_fabric_sets_it_up(engine: Literal["minkowski", "torch"], precision: Literal["32-true", "bf16-mixed"]) -> None:
    features, positions = scene()
    plain = OnData(tiny(engine))
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    model = copy.deepcopy(plain)
    wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    found = wrapped(Data(x=features, pos=positions))
    assert torch.equal(found, plain(Data(x=features, pos=positions)))
    fabric.backward(found.square().mean())
    optimizer.step()
    assert not torch.equal(model.backbone.network.conv0p1s1.kernel, plain.backbone.network.conv0p1s1.kernel)


def test_fabric_rounding_positions_is_an_error() -> None:
    wrapped = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed").setup(tiny())
    with pytest.raises(
        TypeError, match=r"got torch\.bfloat16: half precision moves points.*inside a torch_geometric Data"
    ):
        wrapped(*scene())


def test_step_of_training_lowers_the_loss() -> None:
    """From points to the loss of the paper and back, with the smallest published network."""
    generator = torch.Generator().manual_seed(0)
    instance = torch.arange(240) % 6
    centers = torch.rand(6, 3, generator=generator) * 4
    positions = centers[instance] + torch.rand(240, 3, generator=generator) * 0.5
    batch = instance % 2
    features = torch.rand(240, 3, generator=generator)
    semantic = 1 + instance % 18
    backbone = MinkowskiBackbone(MinkUNet14A(), 0.05, engine="torch")
    head = ProbabilisticHead(backbone.out_channels, 19, offset_scale=2.0)
    criterion = ProbabilisticEmbeddingLoss()
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=1e-3)

    def loss() -> Tensor:
        output = head(backbone(features, positions, batch), positions, batch)
        return criterion(output, instance, semantic, batch)["loss"]

    before = loss()
    before.backward()
    optimizer.step()
    assert loss() < before - 0.01


# --- weights of others


def state(seed: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return with_statistics(TinyUNet(3, 7)).state_dict()


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_weights_are_found_under_wrappers_and_prefixes(wrapper: str | None, prefix: str) -> None:
    source = state()
    named = {prefix + name: tensor for name, tensor in source.items()}
    checkpoint = named if wrapper is None else {"epoch": 3, wrapper: named, "optimizer": {"lr": 0.1}}
    network = TinyUNet(3, 7)
    report = load_pretrained(network, checkpoint)
    assert (report.prefix, report.loaded) == (prefix, tuple(source))
    assert not report.missing + report.unexpected
    assert not report.mismatched
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), source.values(), strict=True))
    assert str(report) == f"loaded {len(source)} of {len(source)} tensors" + (f" under {prefix!r}" if prefix else "")


def test_only_what_fits_is_copied() -> None:
    source = {f"module.{name}": tensor for name, tensor in state().items() if name != "bn0.bn.bias"}
    source |= {f"head.{i}": torch.zeros(2) for i in range(8)}
    network = TinyUNet(3, 9)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_pretrained(network, source)
    after = network.state_dict()
    assert report.missing == ("bn0.bn.bias",)
    assert report.mismatched == {"final.kernel": ((4, 9), (4, 7)), "final.bias": ((1, 9), (1, 7))}
    assert report.unexpected == tuple(f"head.{i}" for i in range(8))
    assert len(report.loaded) == len(before) - 3
    for name in before:
        assert torch.equal(after[name], source[f"module.{name}"] if name in report.loaded else before[name])
    assert str(report).splitlines() == [
        f"loaded {len(before) - 3} of {len(before)} tensors under 'module.'",
        "mismatched 2: final.kernel is (4, 9), there (4, 7), final.bias is (1, 9), there (1, 7)",
        "missing 1: bn0.bn.bias",
        "unexpected 8: head.0, head.1, head.2, head.3, head.4, head.5, and 2 more",
    ]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state(), path)
    else:
        torch.save({"state_dict": state(), "iteration": 7}, path)
    network = TinyUNet(3, 7).double()
    assert len(load_pretrained(network, path).loaded) == len(state())
    assert_close(network.block3[0].conv1.kernel, state()["block3.0.conv1.kernel"].double())


def test_prefix_that_two_parts_share() -> None:
    source = {f"{part}.{name}": tensor for part in ("student", "teacher") for name, tensor in state().items()}
    network = TinyUNet(3, 7)
    with pytest.raises(ValueError, match=r"one part that fits, got 'student\.', 'teacher\.': pass a prefix"):
        load_pretrained(network, source)
    assert load_pretrained(network, source, prefix="teacher.").prefix == "teacher."
    assert load_pretrained(network, source | state()).prefix == ""
    wider = {f"student.{name}": torch.zeros(*tensor.shape, 2) for name, tensor in state().items()}
    assert load_pretrained(network, source | wider).prefix == "teacher."


class NotTensors:
    pass


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    network = TinyUNet(3, 7)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=r"nothing fits, expected tensors such as conv0p1s1.kernel.*got a \(1,\)"):
        load_pretrained(network, {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"nothing fits, .*got no tensor and looked under 'module.'"):
        load_pretrained(network, {"state_dict": {"epoch": 1}}, prefix="module.")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth is missing"):
        load_pretrained(network, tmp_path / "nowhere.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth: expected a dict of tensors, got list"):
        load_pretrained(network, tmp_path / "list.pth")
    torch.save({"state_dict": state(), "config": NotTensors()}, tmp_path / "code.pth")
    for name, content in (("cut.safetensors", b"12"), ("cut.pth", b"12")):
        (tmp_path / name).write_bytes(content)
    for name in ("code.pth", "cut.safetensors", "cut.pth"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a checkpoint .*weights_only=False"):
            load_pretrained(network, tmp_path / name)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_missing_safetensors_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(state(), tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"a\.safetensors needs safetensors .*pip install -e .\.\[train\]"):
        load_pretrained(TinyUNet(3, 7), tmp_path / "a.safetensors")


# --- importing the engine


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    kept |= {"PYTHONPATH": PACKAGES} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept, timeout=120)


def test_without_minkowski_engine_torch_computes() -> None:
    code = (
        "import sys; sys.modules['MinkowskiEngine'] = None; import torch;"
        "from probemb_adapters.networks.minkowski import MinkowskiBackbone, MinkUNet14A;"
        "x = torch.rand(50, 3); print(MinkowskiBackbone(MinkUNet14A()).eval()(x, x).shape);"
        "MinkowskiBackbone(MinkUNet14A(), engine='minkowski')"
    )
    done = run(code)
    assert done.returncode == 1
    assert done.stdout == "torch.Size([50, 96])\n"
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: sparse convolutions by MinkowskiEngine need it in version 0.5.4 (")
    assert "python -m probemb_adapters.networks.minkowski_build" in message
    assert "make minkowski" in message


@needs_minkowski
def test_minkowski_engine_is_taken_where_it_is() -> None:
    assert pick_engine("auto", "cpu") == "minkowski"
    assert pick_engine("auto", "meta") == "torch"
    with pytest.raises(ValueError, match=r"expected features on cpu.*got meta: take engine=\"torch\""):
        pick_engine("minkowski", "meta")


@needs_minkowski
def test_import_is_quiet_and_changes_no_setting() -> None:
    """On a machine with many processors, where the engine would set OMP_NUM_THREADS and warn."""
    code = (
        "import collections.abc, os; os.cpu_count = lambda: 64; before = dict(os.environ), set(dir(collections));"
        "import probemb_adapters.networks._minkowski_engine; assert before == (dict(os.environ), set(dir(collections)))"
    )
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_minkowski
def test_settings_that_are_there_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from probemb_adapters.networks._minkowski_engine import _lent_surroundings

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(collections, "Sequence", "theirs", raising=False)
    with _lent_surroundings():
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert collections.Sequence == "theirs"
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert collections.Sequence == "theirs"
