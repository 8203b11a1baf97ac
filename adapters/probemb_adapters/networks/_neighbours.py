"""Which voxels neighbour which, at every stride of a sparse network: lookups in sorted integer keys, each made once."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_SIZE = 15
"""Largest kernel: so far a key reaches beyond the outermost voxels."""

MAX_STRIDE = 1024
"""Voxels far from all others may be moved by multiples of this, which changes no stride up to it."""

_MARGIN = MAX_SIZE // 2


class KernelMap:
    """Which input voxel each tap of a kernel reads for each output voxel, and the other way round.

    Args:
        reads: (T, outputs) int64, rows of the input; −1 where that voxel is not occupied.
        read_by: (T, inputs) int64, the output that each input is read for; −1 where there is none.
        identity: the tap that reads for each output the same row, if there is one.
    """

    def __init__(self, reads: Tensor, read_by: Tensor, identity: int | None = None) -> None:
        self.reads, self.read_by, self.identity = reads, read_by, identity
        # What was derived from this map, and from the transposed one. Both share it and do not know each other: maps in
        # a circle would keep their memory, of each batch anew, until Python's collector of garbage comes by.
        self._derived: tuple[dict[str, Any], dict[str, Any]] = ({}, {})

    @property
    def outputs(self) -> int:
        return self.reads.shape[1]

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """For each tap the rows of the input and of the output that it connects."""
        own, other = self._derived
        if "pairs" in other:
            return [(target, source) for source, target in other["pairs"]]
        if "pairs" not in own:
            targets = [(row >= 0).nonzero().squeeze(1) for row in self.reads]
            own["pairs"] = [(row.index_select(0, t), t) for row, t in zip(self.reads, targets, strict=True)]
        pairs: list[tuple[Tensor, Tensor]] = own["pairs"]
        return pairs

    @property
    def columns(self) -> Tensor:
        """(outputs, T) as ``reads``, and the number of inputs, the row after the last, where that has −1."""
        own, _ = self._derived
        if "columns" not in own:
            own["columns"] = self.reads.t().masked_fill(self.reads.t() < 0, self.read_by.shape[1]).contiguous()
        columns: Tensor = own["columns"]
        return columns

    @property
    def transposed(self) -> KernelMap:
        """The map of the transposed convolution, whose inputs are the outputs here."""
        other = KernelMap(self.read_by, self.reads, self.identity)
        other._derived = self._derived[::-1]
        return other


class Level(NamedTuple):
    """The occupied voxels of a stride.

    Attributes:
        coordinates: (V, 4) cloud, x, y, z: as they came, or multiples of the stride.
        cells: (V, 4) int64 from 0, in units of the stride; far ones moved together where keys would overflow.
        key: (V,) int64 of the voxels, ascending.
        row: (V,) the row of each key; None where rows are in the order of their keys.
    """

    coordinates: Tensor
    cells: Tensor
    key: Tensor
    row: Tensor | None


class Neighbours:
    """The voxels of an input, their ancestors at strides 2, 4, …, and the maps of kernels between them.

    Args:
        coordinates: (V, 4) integers, distinct: cloud, x, y, z.

    Raises:
        ValueError: a voxel is there twice, or they spread over more cells than a key can number.
    """

    def __init__(self, coordinates: Tensor) -> None:
        cells, self.sizes = _from_zero(coordinates.long())
        key = self._keys(cells, 1)
        row = None
        if not bool((key[1:] > key[:-1]).all()):
            key, row = key.sort()
            if bool((key[1:] == key[:-1]).any()):
                raise ValueError(
                    "expected distinct voxels, got some twice: probemb_adapters.networks.voxels.voxelize finds the "
                    "distinct ones and the voxel of each point"
                )
        self._levels = {1: Level(coordinates, cells, key, row)}
        self._maps: dict[tuple[int, int], KernelMap] = {}

    def level(self, stride: int) -> Level:
        """The occupied voxels of a stride, a power of two; of others than 1 in the order of cloud, x, y, z."""
        if stride not in self._levels:
            self.strided(stride // 2)
        return self._levels[stride]

    def kernel_map(self, stride: int, size: int) -> KernelMap:
        """Of a kernel of an odd size whose outputs are its inputs."""
        if (stride, size) not in self._maps:
            self._maps[stride, size] = self._find(stride, size)
        return self._maps[stride, size]

    def strided(self, stride: int) -> KernelMap:
        """Of a kernel of size 2 from a stride to twice that."""
        if (stride, 2) not in self._maps:
            self._maps[stride, 2] = self._halve(stride)
        return self._maps[stride, 2]

    def _keys(self, cells: Tensor, stride: int) -> Tensor:
        """A number for each voxel, ordered by cloud, x, y, z, with room for the neighbours of the outermost."""
        _, *sizes = self.sizes
        key = cells[:, 0]
        for column, size in zip(cells[:, 1:].unbind(1), sizes, strict=True):
            key = key * (size // stride + 1 + 2 * _MARGIN) + (column + _MARGIN)
        return key

    def _find(self, stride: int, size: int) -> KernelMap:
        level, half = self.level(stride), size // 2
        steps_y = self.sizes[3] // stride + 1 + 2 * _MARGIN  # of a key, from a voxel to the next in y; 1 in z
        steps_x = steps_y * (self.sizes[2] // stride + 1 + 2 * _MARGIN)
        offset = torch.arange(-half, half + 1, device=level.key.device)
        first = (offset[:, None] * steps_y + offset * steps_x).flatten() - half  # (size², 1): y slow, x fast
        end = level.key.new_full((1,), torch.iinfo(torch.int64).max)
        key = torch.cat((level.key, end))
        wanted = level.key + first[:, None]  # (size², V)
        place = torch.searchsorted(key, wanted)
        found = []
        for _ in range(size):  # a run in z is a run in the keys
            hit = key[place] == wanted
            found.append(torch.where(hit, place, -1))
            place, wanted = place + hit, wanted + 1
        reads = torch.stack(found).flatten(0, 1)  # (size³, V), z slowest
        if level.row is not None:  # from the order of keys to that of rows
            row = torch.cat((level.row, level.row.new_full((1,), -1)))
            reads = torch.empty_like(reads).index_copy_(1, level.row, row[reads])
        return KernelMap(reads, reads.flip(0), identity=len(reads) // 2)

    def _halve(self, stride: int) -> KernelMap:
        fine = self.level(stride)
        cells = fine.cells.clone()
        cells[:, 1:] >>= 1
        key, parent = torch.unique(self._keys(cells, 2 * stride), return_inverse=True)
        place = fine.coordinates.clone()
        place[:, 1:] = place[:, 1:].div(2 * stride, rounding_mode="floor") * (2 * stride)
        child = torch.empty_like(key).index_copy_(0, parent, torch.arange(len(parent), device=key.device))  # any: equal
        self._levels[2 * stride] = Level(place[child], cells[child], key, None)
        tap = ((fine.cells[:, 1:] & 1) * fine.cells.new_tensor([1, 2, 4])).sum(1)
        child = torch.arange(len(parent), device=key.device)
        reads = torch.full((8, len(key)), -1, dtype=torch.int64, device=key.device)
        reads[tap, parent] = child
        read_by = torch.full((8, len(parent)), -1, dtype=torch.int64, device=key.device)
        read_by[tap, child] = parent
        return KernelMap(reads, read_by)


def _from_zero(coordinates: Tensor) -> tuple[Tensor, list[int]]:
    """(V, 4) counted from the lowest, or from a multiple of every stride below it, and the extent of each column."""
    if len(coordinates) == 0:
        return coordinates, [1, 1, 1, 1]
    origin = coordinates.amin(0)
    origin[1:] = origin[1:].div(MAX_STRIDE, rounding_mode="floor") * MAX_STRIDE
    cells = coordinates - origin
    low, high = torch.stack((cells.amin(0), cells.amax(0))).tolist()
    if min(low) < 0:  # 64 bits do not hold the difference
        raise ValueError("expected voxels that 63 bits can number, got coordinates 2^63 apart: leave stray points out")
    sizes = [last + 1 for last in high]
    if not _fits(sizes):
        cells = torch.stack([_moved_together(column) for column in cells.unbind(1)], 1)
        sizes = (cells.amax(0) + 1).tolist()
    if not _fits(sizes):
        raise ValueError(
            f"expected voxels that 63 bits can number, got an extent of {sizes} in clouds, x, y and z even without the "
            "gaps: leave stray points out"
        )
    return cells, sizes


def _fits(sizes: list[int]) -> bool:
    clouds, *extent = sizes
    return clouds * math.prod(size + 1 + 2 * _MARGIN for size in extent) < 2**63


def _moved_together(column: Tensor) -> Tensor:
    """A coordinate without its wide gaps: voxels stay neighbours, or not, at every stride."""
    values, index = torch.unique(column, return_inverse=True)
    gap = values.diff(prepend=values[:1])
    narrow = 2 * MAX_SIZE * MAX_STRIDE
    gap = torch.where(gap > narrow, narrow + gap % MAX_STRIDE, gap)
    moved: Tensor = values[0] + gap.cumsum(0)
    return moved[index]
