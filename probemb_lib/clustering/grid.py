"""A regular grid over points, and which of them lie in a box: the spatial index of the clusterings on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SCANS_BEFORE_INDEX = 4  # building the index costs about as much as so many scans of one coordinate of all points
MIN_POINTS_FOR_INDEX = 1000  # a scan of fewer is as quick as a look into the index
MAX_CELLS_PER_AXIS = 1 << 10
MAX_GRID_AXES = 3
MAX_GRID_ROWS = 4096  # cells along the last axis lie together: a box is a number of rows
ROUNDING = 1e-3  # no coordinate in cells is off by more, in float32

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
AnyFloats = NDArray[np.floating[Any]]


class _Axis(NamedTuple):
    """One coordinate, cut into cells."""

    number: int  # of the coordinate
    low: float
    scale: float
    last: int  # cell
    stride: int

    def cells(self, x: AnyFloats) -> NDArray[np.int32]:
        """The cell of each coordinate; those beyond the ends are in the first and the last."""
        cell = x - self.low
        with np.errstate(over="ignore"):
            cell *= self.scale
        return np.clip(cell, 0, self.last, out=cell).astype(np.int32)

    def span(self, center: float, reach: float) -> tuple[int, int]:
        """The first and the last cell with coordinates within reach."""
        first = (center - reach - self.low) * self.scale - ROUNDING
        last = (center + reach - self.low) * self.scale + ROUNDING
        return int(min(max(first, 0.0), self.last)), int(min(max(last, 0.0), self.last))


class Grid:
    """Points sorted by the cell of a regular grid; the cells of a row along the last axis follow each other.

    Args:
        coordinates: of all points, one array an axis.
        reach: typical distance along each axis, from a point to the end of a box. The axes with most of these count.
    """

    def __init__(self, coordinates: Sequence[AnyFloats] | AnyFloats, reach: Floats) -> None:
        step = max(1, len(coordinates[0]) // 1000)
        ends = np.array([_ends(x, step) for x in coordinates])
        with np.errstate(over="ignore"):  # their number is limited below
            cells = (ends[:, 1] - ends[:, 0]) / np.maximum(reach, 1e-300)
        numbers = np.sort(np.argsort(-cells, kind="stable")[:MAX_GRID_AXES])
        # About two cells a reach: smaller boxes of candidates cost more rows.
        self.count = np.minimum(2 * cells[numbers], MAX_CELLS_PER_AXIS - 1).astype(np.int64) + 1
        tiny = 4096 * np.finfo(coordinates[0].dtype).tiny
        self.axes = []
        stride = int(self.count.prod())
        key = np.zeros(len(coordinates[0]), dtype=np.int32)
        for number, count in zip(numbers.tolist(), self.count.tolist(), strict=True):
            low, high = ends[number].tolist()
            stride //= count
            axis = _Axis(number, low, count / max(high - low, tiny), count - 1, stride)
            key += axis.cells(coordinates[number]) * np.int32(stride)
            self.axes.append(axis)
        # Two passes by 16 bits, which numpy sorts in linear time (MAX_CELLS_PER_AXIS ** 3 < 2 ** 31).
        order = np.argsort((key & 0xFFFF).astype(np.uint16), kind="stable")
        if self.count.prod() > 1 << 16:
            order = order[np.argsort((key >> 16).astype(np.uint16)[order], kind="stable")]
        self.order, self.key = order, key[order]

    def rows(
        self, center: Sequence[float] | Floats, reach: Sequence[float] | Floats, most: float = math.inf
    ) -> tuple[Integers, Integers] | None:
        """Where the rows of cells of a box start and end in the sorted points; None if they are too many."""
        spans = [axis.span(float(center[axis.number]), float(reach[axis.number])) for axis in self.axes]
        if math.prod(last - first + 1 for first, last in spans[:-1]) > min(MAX_GRID_ROWS, most):
            return None
        base = np.zeros(1, dtype=np.int32)
        for axis, (first, last) in zip(self.axes[:-1], spans[:-1], strict=True):
            steps = np.arange(first, last + 1, dtype=np.int32)
            steps *= axis.stride
            base = (base[:, None] + steps).ravel()
        first, last = spans[-1]
        return self.key.searchsorted(base + first), self.key.searchsorted(base + (last + 1))

    def keep(self, positions: Integers) -> None:
        """Forget all but some of the sorted points."""
        self.order, self.key = self.order.take(positions), self.key.take(positions)


def _ends(x: AnyFloats, step: int) -> tuple[float, float]:
    """Lowest and highest coordinate, or of nearly all points if others are so far away that cells would be large."""
    low, high = float(x.min()), float(x.max())
    sample = np.sort(x[::step])
    few = sample.size // 100
    near, far = float(sample[few]), float(sample[-1 - few])
    most = far - near
    if high - low > 10 * most > 0:
        low, high = max(low, near - most), min(high, far + most)
    return float(x.dtype.type(low)), high


def ranges(starts: Integers, ends: Integers) -> Integers:
    """All positions of some ranges, one after the other."""
    filled = ends > starts
    starts, lengths = starts[filled], (ends - starts)[filled]
    ends = lengths.cumsum()
    positions = (starts - ends + lengths).repeat(lengths)
    positions += np.arange(positions.size)
    return positions
