"""The greedy loop of Eq. 11 for one cloud. Two ways to the same labels: numpy with a spatial index, and plain torch.

Every decision κ ≥ τ is taken on ln κ in float64. A spatial index only proposes candidates, by a bound that no member
can exceed. With L = −ln τ, a dimension alone gives Δ² / (4 (σ_i² + σ_s²)) + ½ ln cosh(ln σ_i/σ_s) ≤ L, so

    Δ² ≤ 4 σ_s² (1 + r²) (L − ½ ln cosh ln r),   r = σ_i/σ_s ≤ (largest σ of the cloud)/σ_s,

which is bounded whatever σ_i is, since ln cosh grows with |ln r|.

Nothing here overflows or underflows in float64 for |ln σ| ≤ 300, |μ| ≤ 1e150 and τ ≥ 1e-50, which the caller checks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FIRST_SEEDS = 1024  # seeds are ranked in growing chunks: few are needed when instances are large
MAX_CELLS_PER_AXIS = 1 << 10
MAX_GRID_AXES = 3
MAX_GRID_ROWS = 4096  # cells along the last axis lie together: a box is a number of rows
SCANS_BEFORE_INDEX = 4  # building the index costs about as much as so many scans of all points
MIN_POINTS_FOR_INDEX = 1000  # a scan of fewer is as quick as a look into the index

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class _Reach:
    """How far from a seed, along one axis, a member can lie: √(4 σ_s² max_r (1 + r²)(L − ½ ln cosh ln r))."""

    def __init__(self, log_tau: float) -> None:
        bound = -log_tau
        widest = bound * 2 + math.log(2 + 1e-12)  # ½ ln cosh x ≤ L  ⟸  |x| ≤ 2 L + ln 2
        self.log_r = np.linspace(-widest, widest, 1025)
        left, right = self.log_r[:-1], self.log_r[1:]
        nearest = np.where(left >= 0, left, np.where(right <= 0, right, 0.0))  # the r of the interval nearest to 1
        half_log_cosh = 0.5 * (np.abs(nearest) + np.log1p(np.exp(-2 * np.abs(nearest))) - math.log(2))
        squared = 4 * (1 + np.exp(2 * right)) * np.maximum(bound - half_log_cosh, 0)
        self.squared = np.maximum.accumulate(squared)  # the largest over all r up to the right end of an interval

    def __call__(self, std: Floats, max_std: Floats) -> Floats:
        log_ratio = np.log(max_std) - np.log(std)
        interval = np.searchsorted(self.log_r, log_ratio).clip(1, len(self.squared)) - 1
        return np.asarray(std * np.sqrt(self.squared[interval]) * (1 + 1e-9))


class _Grid:
    """Points sorted by the cell of a regular grid; the cells of a row along the last axis follow each other."""

    def __init__(self, mean: Floats, reach: Floats) -> None:
        low, high = mean.min(1), mean.max(1)
        with np.errstate(over="ignore"):  # their number is limited below
            cells = (high - low) / np.maximum(reach, 1e-300)
        self.axes = np.sort(np.argsort(-cells, kind="stable")[:MAX_GRID_AXES])
        self.low = low[self.axes]
        # About two cells a reach: smaller boxes of candidates cost more rows.
        self.count = np.minimum(2 * cells[self.axes], MAX_CELLS_PER_AXIS - 1).astype(np.int64) + 1
        self.width = np.maximum((high - low)[self.axes] / self.count, 1e-300)
        self.stride = np.append(np.cumprod(self.count[::-1])[::-1][1:], 1)
        key = self._cell(mean[self.axes[0], :], 0) * self.stride[0]
        for j in range(1, len(self.axes)):
            key += self._cell(mean[self.axes[j], :], j) * self.stride[j]
        # Two passes by 16 bits, which numpy sorts in linear time (MAX_CELLS_PER_AXIS ** 3 < 2 ** 32).
        order = np.argsort((key & 0xFFFF).astype(np.uint16), kind="stable")
        if self.count.prod() > 1 << 16:
            order = order[np.argsort((key[order] >> 16).astype(np.uint16), kind="stable")]
        self.order, self.key = order, key[order]

    def _cell(self, x: Floats, j: int) -> Integers:
        cell = ((x - self.low[j]) / self.width[j]).astype(np.int64)
        return np.asarray(np.minimum(cell, self.count[j] - 1))

    def rows(self, center: Floats, reach: Floats) -> tuple[Integers, Integers] | None:
        """Where the rows of cells of a box start and end in the sorted points; None if there are too many."""
        with np.errstate(over="ignore", invalid="ignore"):
            a = np.clip((center - reach)[self.axes] - self.low, 0, None) / self.width
            b = np.clip((center + reach)[self.axes] - self.low, 0, None) / self.width
        first = np.minimum(a, self.count - 1).astype(np.int64)
        last = np.minimum(b, self.count - 1).astype(np.int64)
        if (last - first + 1)[:-1].prod() > MAX_GRID_ROWS:
            return None
        base = np.zeros(1, dtype=np.int64)
        for j in range(len(self.axes) - 1):
            steps = np.arange(first[j], last[j] + 1) * self.stride[j]
            base = (base[:, None] + steps).ravel()
        return np.searchsorted(self.key, base + first[-1]), np.searchsorted(self.key, base + last[-1] + 1)


def greedy_indexed(
    mean: Floats,
    log_std: Floats,
    score: NDArray[np.floating],
    group: Integers | None,
    tau: float,
    min_score: float,
) -> tuple[Integers, Integers]:
    """Greedy clustering of n eligible points of one cloud on a CPU.

    Args:
        mean, log_std: (D, n) float64.
        score: (n,) best foreground score.
        group: (n,) only points of the seed's group join it; None: all do.
        tau: threshold in (0, 1].
        min_score: no seed below it.

    Returns:
        label (n,), numbered by creation, −1 none; seeds (K,).
    """
    n = mean.shape[1]
    label = np.full(n, -1, dtype=np.int64)
    seeds: list[int] = []
    if n == 0:
        return label, np.zeros(0, dtype=np.int64)
    log_tau = math.log(tau)
    std = np.exp(log_std)
    max_std = std.max(1)
    reach_of = _Reach(log_tau)
    grid: _Grid | None = None
    alive = np.arange(n)  # for scans; the index keeps its own order
    x_alive = mean[0]
    open_points = n
    scanned = 0

    can_seed = np.flatnonzero(score >= score.dtype.type(min_score))
    chunk = FIRST_SEEDS
    while can_seed.size:
        ranked, can_seed = _best(score, can_seed, chunk)
        chunk *= 4
        for seed in ranked.tolist():
            if label[seed] >= 0:
                continue
            center, reach = mean[:, seed], reach_of(std[:, seed], max_std)
            if grid is None and scanned > SCANS_BEFORE_INDEX * n and open_points > MIN_POINTS_FOR_INDEX:
                alive = np.flatnonzero(label < 0)
                sample = std[:, alive[:: max(1, alive.size // 1000)]]
                typical = np.median(reach_of(sample, max_std[:, None]), axis=1)
                grid = _Grid(mean[:, alive], typical)
                order = alive[grid.order]  # a row of cells is a slice of it
            rows = grid.rows(center, reach) if grid is not None else None
            if rows is None:
                if alive.size > 2 * open_points:
                    alive = alive[label[alive] < 0]
                    x_alive = mean[0, alive]
                elif x_alive.size != alive.size:
                    x_alive = mean[0, alive]
                near = alive[(x_alive >= center[0] - reach[0]) & (x_alive <= center[0] + reach[0])]
                scanned += alive.size
            else:
                near = order[_ranges(*rows)]
            near = near[label[near] < 0]
            if group is not None:
                near = near[group[near] == group[seed]]
            near = near[_joins(mean, std, near, seed, log_tau)]
            label[near] = len(seeds)  # the seed itself among them
            seeds.append(seed)
            open_points -= near.size
        can_seed = can_seed[label[can_seed] < 0]
    return label, np.array(seeds, dtype=np.int64)


def _best(score: NDArray[np.floating], rows: Integers, count: int) -> tuple[Integers, Integers]:
    """The ``count`` best rows (more where scores tie), ranked by score and then by row; and the others."""
    s = score[rows]
    if rows.size > count:
        least = np.partition(s, rows.size - count)[rows.size - count]
        first = s >= least
        rows, s, rest = rows[first], s[first], rows[~first]
    else:
        rest = rows[:0]
    return rows[np.argsort(-s, kind="stable")], rest


def _ranges(starts: Integers, ends: Integers) -> Integers:
    """All positions of some ranges, one after the other."""
    filled = ends > starts
    starts, lengths = starts[filled], (ends - starts)[filled]
    begin = np.cumsum(lengths) - lengths
    return np.repeat(starts - begin, lengths) + np.arange(lengths.sum())


def _joins(mean: Floats, std: Floats, rows: Integers, seed: int, log_tau: float) -> NDArray[np.bool_]:
    """κ(row, seed) ≥ τ by float64 logarithms; the distance alone decides most, and costs no logarithm."""
    distance = np.zeros(rows.size)
    ratio = np.ones(rows.size)
    for d in range(mean.shape[0]):
        s, c = std[d, rows], std[d, seed]
        variance = s * s + c * c
        delta = mean[d, rows] - mean[d, seed]
        distance += delta * delta / variance
        ratio *= (2 * c) * s / variance  # in this order exactly 1 for s = c: κ of equal Gaussians is 1
    joins = distance <= -4 * log_tau + 1e-9
    some = np.flatnonzero(joins)
    with np.errstate(divide="ignore"):
        log_kappa = 0.5 * np.log(ratio[some]) - 0.25 * distance[some]
    joins[some] = log_kappa >= log_tau
    return joins


def greedy_plain(
    mean: Tensor, log_std: Tensor, score: Tensor, group: Tensor | None, tau: float, min_score: float
) -> tuple[Tensor, Tensor]:
    """The same on any device, without an index: each seed is compared with all points that are left.

    Arguments as in :func:`greedy_indexed`, as tensors. One read-back to the host for each instance.
    """
    n = mean.shape[1]
    label = torch.full((n,), -1, dtype=torch.int64, device=mean.device)
    seeds: list[int] = []
    log_tau = math.log(tau)
    std = log_std.exp()
    # Rows by rank, so that the first row that is left is the next seed.
    rows = torch.argsort(score, descending=True, stable=True)
    could_seed = score >= min_score
    rest = rows
    while rest.numel():
        seed = rest[:1]
        if not bool(could_seed[seed]):
            break
        s, c = std[:, rest], std[:, seed]
        variance = s * s + c * c
        delta = mean[:, rest] - mean[:, seed]
        log_kappa = 0.5 * ((2 * c) * s / variance).prod(0).log() - 0.25 * (delta * delta / variance).sum(0)
        joins = log_kappa >= log_tau
        if group is not None:
            joins &= group[rest] == group[seed]
        joins[0] = True  # κ = 1, but on no device may rounding make this loop endless
        label[rest[joins]] = len(seeds)
        seeds.append(int(seed))
        rest = rest[~joins]
    return label, torch.tensor(seeds, dtype=torch.int64, device=mean.device)
