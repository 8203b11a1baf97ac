"""Labelled clouds in numpy: what checks and suggested settings ask of them. Large batches are looked at in samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probemb_lib.positions import median_spacing, nearest_others

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CLOUDS = 16  # of a batch whose neighbours are looked at
POINTS = 2_000  # of a cloud whose nearest neighbour is searched


@dataclass(frozen=True)
class InstanceTable:
    """The K instances of a batch, by cloud and id.

    Attributes:
        of: (N,) row of the instance of a point, or −1.
        cloud, id, size: (K,).
        center: (K, D) mean of the points.
        radius: (K,) distance from the mean within which 98 % of the points lie.
    """

    of: Integers
    cloud: Integers
    id: Integers
    size: Integers
    center: Floats
    radius: Floats


@dataclass(frozen=True)
class Labelled:
    """Positions (N, D) in float64, all finite, with ids, classes and cloud numbers from 0 without gaps (N,)."""

    positions: Floats
    instance: Integers
    semantic: Integers | None
    cloud: Integers
    cloud_number: Integers  # as `batch` had it

    @cached_property
    def clouds(self) -> list[Integers]:
        """The rows of each cloud."""
        order = np.argsort(self.cloud, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.cloud))[:-1]) if len(order) else []

    @cached_property
    def table(self) -> InstanceTable:
        member = np.flatnonzero(self.instance >= 0)
        ids, rank = np.unique(self.instance[member], return_inverse=True)
        key, row = np.unique(self.cloud[member] * max(1, len(ids)) + rank, return_inverse=True)
        of = np.full(len(self.instance), -1, dtype=np.int64)
        of[member] = row
        size = np.bincount(row, minlength=len(key))
        points = self.positions[member]
        center = np.stack([np.bincount(row, x, len(key)) for x in points.T], axis=1) / size[:, None]
        distance = np.linalg.norm(points - center[row], axis=1)
        order = np.lexsort((distance, row))
        last = np.cumsum(size)
        radius = distance[order][last - size + (0.98 * (size - 1)).astype(np.int64)]
        cloud = key // max(1, len(ids))
        return InstanceTable(of, cloud, ids[key % max(1, len(ids))] if len(ids) else key, size, center, radius)

    @cached_property
    def neighbours(self) -> list[tuple[Integers, Integers, Floats]]:
        """For some clouds: rows of a sample of points, the row nearest to each, and its distance."""
        return list(self._neighbours())

    def _neighbours(self) -> Iterator[tuple[Integers, Integers, Floats]]:
        rng = np.random.default_rng(0)
        clouds = [rows for rows in self.clouds if len(rows) > 1]
        for rows in clouds[:: -(-len(clouds) // CLOUDS) or 1]:
            sample = rng.choice(len(rows), min(POINTS, len(rows)), replace=False)
            other, distance = nearest_others(self.positions[rows], sample)
            yield rows[sample], rows[other], distance

    @cached_property
    def spacing(self) -> float:
        """Median distance to the nearest other point that is not the same; NaN where there is none."""
        return median_spacing(np.concatenate([np.zeros(0), *(distance for _, _, distance in self.neighbours)]))


def labelled(positions: Any, instance: Any, semantic: Any = None, batch: Any = None) -> Labelled:
    """Checked arrays or tensors as :class:`Labelled`; points whose position is not finite are left out."""
    x = as_array(positions).astype(np.float64)
    finite = np.isfinite(x).all(axis=1)
    number = np.zeros(len(x), dtype=np.int64) if batch is None else as_array(batch).astype(np.int64)
    cloud_number, cloud = np.unique(number[finite], return_inverse=True)
    classes = None if semantic is None else as_array(semantic).astype(np.int64)[finite]
    ids = as_array(instance).astype(np.int64)[finite]
    return Labelled(x[finite], ids, classes, cloud, cloud_number)


def as_array(x: Any) -> NDArray[Any]:
    """A tensor of any device and type, or what numpy makes an array of."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return x.float().numpy() if x.dtype == torch.bfloat16 else np.asarray(x.as_subclass(Tensor).numpy())
    return np.asarray(x)
