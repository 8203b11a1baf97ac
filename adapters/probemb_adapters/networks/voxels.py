"""The voxels of points, for networks on sparse grids; plain torch, no engine."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_REACH = 2**23
"""Farthest coordinate: the engine rounds to float32 where it strides, exact to 2²⁴; the rest is for the kernels."""


class Voxels(NamedTuple):
    """The occupied voxels of N points.

    Attributes:
        coordinates: (V, 4) int32, distinct, sorted: cloud, x, y, z; in voxels.
        index: (N,) int64, the voxel of each point.
    """

    coordinates: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls here


@torch.no_grad()
def voxelize(positions: Tensor, voxel_size: float, batch: Tensor | None = None) -> Voxels:
    """The voxel of each point, ⌊x / voxel_size⌋ in each axis, and the voxels that have points.

    The quotient is taken in float64, so a point belongs to the voxel in which its coordinates lie exactly.

    Args:
        positions: (N, 3) float32 or float64, N ≥ 0.
        voxel_size: edge of a voxel, > 0, in the unit of the positions.
        batch: (N,) any integer type, the cloud of each point, in any order; None is one cloud. Clouds share no voxel.

    Raises:
        TypeError: positions are of another dtype, or batch is not of an integer type.
        ValueError: other shapes; positions not finite, or so far from the origin that their dtype or the engine cannot
            tell neighbouring voxels apart (84 km at 2 cm in float32, 168 km in float64); a voxel_size that is not
            positive; a negative batch.

    >>> voxels = voxelize(torch.tensor([[0.7, 0, 0], [-0.1, 0, 0], [0.5, 0, 0.2]]), voxel_size=0.5)
    >>> voxels.coordinates, voxels.index
    (tensor([[ 0, -1,  0,  0],
             [ 0,  1,  0,  0]], dtype=torch.int32), tensor([1, 0, 1]))
    """
    check_voxel_size(voxel_size)
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError(f"positions: expected shape (N, 3), got {tuple(positions.shape)}")
    if positions.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"positions: expected float32 or float64, got {positions.dtype}: half precision moves points to other "
            "voxels. lightning-fabric's mixed precision converts tensors that are arguments, but none inside a "
            "torch_geometric Data"
        )
    batch = _checked_batch(batch, positions)
    if len(positions) == 0:
        return Voxels(positions.new_zeros((0, 4), dtype=torch.int32), batch)
    if not torch.isfinite(positions).all():
        raise ValueError("positions: expected finite numbers, got a NaN or an infinity")
    cells = torch.floor(positions.double() / voxel_size)  # (N, 3)
    reach = min(_REACH, 0.5 / torch.finfo(positions.dtype).eps)  # from there, two numbers are over half a voxel apart
    if cells.abs().max() >= reach:
        raise ValueError(
            f"positions: expected less than {reach:.0f} voxels of {voxel_size} from the origin, beyond which voxels "
            f"cannot be told apart in {positions.dtype}, got {positions.abs().max():g}: subtract an origin near the "
            "scene, in float64"
        )
    coordinates, index = _distinct_rows(torch.cat((batch[:, None], cells.long()), 1))
    return Voxels(coordinates.int(), index)


def check_voxel_size(voxel_size: float) -> None:
    if not (voxel_size > 0 and math.isfinite(voxel_size)):
        raise ValueError(f"voxel_size: expected a positive number in the unit of the positions, got {voxel_size}")


def _checked_batch(batch: Tensor | None, positions: Tensor) -> Tensor:
    """The cloud of each point, (N,) int64."""
    if batch is None:
        return torch.zeros(len(positions), dtype=torch.int64, device=positions.device)
    if batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool:
        raise TypeError(f"batch: expected an integer type, got {batch.dtype}")
    if batch.shape != positions.shape[:1]:
        raise ValueError(f"batch: expected shape ({len(positions)},), got {tuple(batch.shape)}")
    batch = batch.long()
    if batch.numel() > 0 and not (batch.min() >= 0 and batch.max() < 2**31):
        raise ValueError(f"batch: expected 0 .. 2**31 - 1, got {int(batch.min())} .. {int(batch.max())}")
    return batch


def _distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows in sorted order, and the place of each row (N,) among them; int64, at least one row."""
    low = rows.amin(0)
    extent = (rows.amax(0) - low + 1).tolist()
    if math.prod(extent) >= 2**63:  # stray points in far corners: slower, and the same order
        distinct, index = torch.unique(rows, dim=0, return_inverse=True)
        return distinct, index
    key = torch.zeros_like(rows[:, 0])
    for column, size in zip((rows - low).unbind(1), extent, strict=True):
        key = key * size + column
    key, index = torch.unique(key, return_inverse=True)
    columns = []
    for size in reversed(extent):
        columns.append(key % size)
        key = key.div(size, rounding_mode="floor")
    return torch.stack(columns[::-1], 1) + low, index
