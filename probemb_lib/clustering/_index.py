"""The greedy loop of Eq. 11 for one cloud on a CPU: numpy, with a spatial index once scans have cost as much as one.

Every decision κ ≥ τ is that of ln κ in float64, as :func:`~probemb_lib.clustering.inputs.log_threshold` says; below,
ln τ is that number. Most are taken in the dtype of the input: where ln κ is farther from ln τ than rounding can bring
it, see :class:`_Left`. What is not compared at all is out of reach by a bound that no member can exceed. With
L = −ln τ, a dimension alone gives Δ² / (4 (σ_i² + σ_s²)) + ½ ln cosh(ln σ_i/σ_s) ≤ L, so

    |ln σ_i − ln σ_s| ≤ arcosh e^{2L}
    Δ² ≤ 4 σ_s² (1 + r²) (L − ½ ln cosh ln r),   r = σ_i/σ_s ≤ (largest σ of the cloud)/σ_s,

which is bounded whatever σ_i is, since ln cosh grows with |ln r|.

Nothing here overflows or underflows in float64 for |ln σ| ≤ 300, |μ| ≤ 1e150 and τ ≥ 1e-50, which the caller checks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probemb_lib.clustering.grid import (
    MIN_POINTS_FOR_INDEX,
    SCANS_BEFORE_INDEX,
    AnyFloats,
    Floats,
    Grid,
    Integers,
    ranges,
)
from probemb_lib.clustering.inputs import log_threshold

FIRST_SEEDS = 256  # seeds are ranked in growing chunks: few are needed when instances are large
COMPARISON = 8  # of a point with a seed costs as much as looking at so many coordinates in a scan
MIN_POINTS_A_ROW = 8  # a box of the grid with fewer, had all points been in it, does not pay
SLACK = 1e-12  # of ln κ near ln τ, more than rounding in float64
BLOCK = 1 << 14  # points compared at a time: what is computed on the way stays in the cache


class _Reach:
    """How far from a seed, along one axis, a member can lie: √(4 σ_s² max_r (1 + r²)(L − ½ ln cosh ln r))."""

    def __init__(self, log_tau: float) -> None:
        bound = SLACK - log_tau
        widest = bound * 2 + math.log(2 + 1e-12)  # ½ ln cosh x ≤ L  ⟸  |x| ≤ 2 L + ln 2
        self.log_r = np.linspace(-widest, widest, 1025)
        left, right = self.log_r[:-1], self.log_r[1:]
        nearest = np.where(left >= 0, left, np.where(right <= 0, right, 0.0))  # the r of the interval nearest to 1
        half_log_cosh = 0.5 * (np.abs(nearest) + np.log1p(np.exp(-2 * np.abs(nearest))) - math.log(2))
        squared = 4 * (1 + np.exp(2 * right)) * np.maximum(bound - half_log_cosh, 0)
        self.squared = np.maximum.accumulate(squared)  # the largest over all r up to the right end of an interval

    def __call__(self, std: Floats, max_std: Floats) -> Floats:
        log_ratio = np.log(max_std) - np.log(std)
        interval = np.minimum(np.maximum(self.log_r.searchsorted(log_ratio), 1), len(self.squared)) - 1
        return np.asarray(std * np.sqrt(self.squared[interval]) * (1 + 1e-9))


@lru_cache(maxsize=8)
def _reach(log_tau: float) -> _Reach:
    """Once for all clouds of a batch."""
    return _Reach(log_tau)


class _Seeds(NamedTuple):
    """S points that become seeds if they are still open when it is their turn."""

    center: list[list[float]]  # (S, 2 D) μ and ln σ
    reach: list[list[float]]  # (S, 2 D) of members from there
    columns: AnyFloats  # (S, 2 D, 1) μ and σ in the dtype of comparison


class _Left:
    """The points without a label, and some that got one since, as columns in an order of their own: that of the grid.

    float32 input is compared in float32 first, where its numbers allow. The relative rounding errors of σ_i and σ_s
    (3 ε each), of σ² sums (8 ε), of each Δ²/(σ_i² + σ_s²) (11 ε) and of each 2 σ_i σ_s/(σ_i² + σ_s²) (16 ε) add up to
    less than ε (9 D + L (16 + D)) in ln κ near ln τ. Within twice that, float64 decides.
    """

    def __init__(self, mean: AnyFloats, log_std: AnyFloats, group: Integers | None, tau: float) -> None:
        self.given = (mean, log_std)
        self.dim, n = mean.shape
        self.log_tau = log_threshold(tau, self.dim)
        self.columns = np.empty((2 * self.dim, n), np.result_type(mean, log_std))  # μ and σ
        self.columns[: self.dim], self.columns[self.dim :] = mean, log_std
        low, high = self.columns.min(1).astype(np.float64), self.columns.max(1).astype(np.float64)
        largest = np.maximum(-low, high)
        # Squares shall be float32 numbers, and a product of ratios that is none shall be of a κ < τ.
        if largest[: self.dim].max() > 1e18 or largest[self.dim :].max() > 20 or self.log_tau < -40:
            self.columns = self.columns.astype(np.float64, copy=False)
        np.exp(self.columns[self.dim :], out=self.columns[self.dim :])
        self.rounding = 2 * float(np.finfo(self.columns.dtype).eps) * (9 * self.dim - self.log_tau * (16 + self.dim))
        self.extent = (high - low)[: self.dim].tolist()
        self.max_std = np.exp(high[self.dim :])
        self.reach = _reach(self.log_tau)
        bound = SLACK - self.log_tau
        log_reach = 2 * bound + math.log1p(math.sqrt(-math.expm1(-4 * bound)))  # arcosh e^2L
        self.log_reach = log_reach * (1 + 1e-9)
        self.group = group
        self.group_of = np.zeros(0, dtype=np.int64) if group is None else group  # as given
        self.rows = np.arange(n)
        self.is_open = np.ones(n, dtype=np.bool_)
        self.open = n
        self.grid: Grid | None = None
        self.scanned = 0

    def seeds(self, points: Integers) -> _Seeds:
        mean, log_std = (t[:, points].astype(np.float64).T for t in self.given)  # (S, D)
        std = np.exp(log_std)
        reach = np.empty((points.size, 2 * self.dim))
        reach[:, : self.dim], reach[:, self.dim :] = self.reach(std, self.max_std), self.log_reach
        return _Seeds(
            np.concatenate([mean, log_std], axis=1).tolist(),
            reach.tolist(),
            np.concatenate([mean, std], axis=1, dtype=self.columns.dtype)[:, :, None],
        )

    def take(self, seed: int, center: list[float], reach: list[float], columns: AnyFloats) -> Integers:
        """The members of a seed, which are left no more."""
        near = self._candidates(center, reach)
        if self.group is not None:
            near = near.take((self.group.take(near) == self.group_of[seed]).nonzero()[0])
        blocks = [self._similar(near[i : i + BLOCK], seed, columns) for i in range(0, near.size, BLOCK)]
        near = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
        self.is_open[near] = False
        self.open -= near.size
        return self.rows.take(near)

    def _candidates(self, center: list[float], reach: list[float]) -> Integers:
        """Where the points that are left are that a seed reaches, and some more, in ascending order."""
        if 2 * self.open < self.rows.size:
            self._keep(self.is_open.nonzero()[0])
        scans_cost_more = self.scanned > SCANS_BEFORE_INDEX * self.rows.size
        if self.grid is None and scans_cost_more and self.open > MIN_POINTS_FOR_INDEX:
            self._build_grid()
        if self.grid is not None:
            rows = self.grid.rows(center, reach, self.rows.size // MIN_POINTS_A_ROW)
            if rows is not None:
                near = ranges(*rows)
                return np.asarray(near.take(self.is_open.take(near).nonzero()[0]))
        return self._scan(center, reach)

    def _scan(self, center: list[float], reach: list[float]) -> Integers:
        d = max(range(self.dim), key=lambda d: self.extent[d] / (reach[d] + 1e-300))
        x = self.columns[d]
        near = ((x >= center[d] - reach[d]) & (x <= center[d] + reach[d]) & self.is_open).nonzero()[0]
        self.scanned += x.size + COMPARISON * near.size
        return np.asarray(near)

    def _build_grid(self) -> None:
        points = self.is_open.nonzero()[0]
        mean, std = np.split(self.columns.take(points, axis=1), 2)
        log_std = self.given[1][:, self.rows.take(points)].astype(std.dtype)  # that of σ would be rounded
        sample = std[:, :: max(1, points.size // 1000)].T.astype(np.float64)
        typical = np.median(self.reach(sample, self.max_std), axis=0)
        grid = Grid([*mean, *log_std], np.append(typical, np.full(self.dim, self.log_reach)))
        self._keep(points.take(grid.order))
        self.grid = grid

    def _keep(self, positions: Integers) -> None:
        self.columns = self.columns.take(positions, axis=1)
        self.rows = self.rows.take(positions)
        if self.group is not None:
            self.group = self.group.take(positions)
        self.is_open = np.ones(positions.size, dtype=np.bool_)
        if self.grid is not None:
            self.grid.keep(positions)

    def _similar(self, near: Integers, seed: int, center: AnyFloats) -> Integers:
        """Those of some points in ascending order that have κ ≥ τ with the seed."""
        first, last = near[0], near[-1] + 1
        columns = self.columns[:, first:last] if last - first == near.size else self.columns.take(near, axis=1)
        std, std_of_seed = columns[self.dim :], center[self.dim :]
        delta = columns[: self.dim] - center[: self.dim]
        delta *= delta
        variance = std * std
        variance += std_of_seed * std_of_seed
        delta /= variance
        ratio = std * (2 * std_of_seed)
        ratio /= variance
        log_kappa = 0.5 * np.log(np.multiply.reduce(ratio)) - 0.25 * np.add.reduce(delta)
        some = (log_kappa >= self.log_tau - self.rounding).nonzero()[0]
        near, log_kappa = near.take(some), log_kappa.take(some)
        unsure = (log_kappa <= self.log_tau + self.rounding).nonzero()[0]
        if unsure.size:
            joins = np.ones(near.size, dtype=np.bool_)
            joins[unsure] = self._decide(self.rows.take(near.take(unsure)), seed)
            near = near[joins]
        return near

    def _decide(self, rows: Integers, seed: int) -> NDArray[np.bool_]:
        """κ(row, seed) ≥ τ by float64 logarithms."""
        mean, log_std = (t[:, np.append(rows, seed)].astype(np.float64) for t in self.given)
        std = np.exp(log_std)
        s, c = std[:, :-1], std[:, -1:]
        variance = s * s + c * c
        delta = mean[:, :-1] - mean[:, -1:]
        ratio = (2 * c) * s / variance  # in this order exactly 1 for s = c: κ of equal Gaussians is 1
        log_kappa = 0.5 * np.log(ratio.prod(0)) - 0.25 * (delta * delta / variance).sum(0)
        return np.asarray(log_kappa >= self.log_tau)


def greedy_indexed(
    mean: AnyFloats,
    log_std: AnyFloats,
    score: AnyFloats,
    group: Integers | None,
    tau: float,
    min_score: float,
) -> tuple[Integers, Integers]:
    """Greedy clustering of n eligible points of one cloud on a CPU.

    Args:
        mean, log_std: (D, n) float32 or float64.
        score: (n,) best foreground score.
        group: (n,) only points of the seed's group join it; None: all do.
        tau: threshold in (0, 1].
        min_score: no seed below it.

    Returns:
        label (n,), numbered by creation, −1 none; seeds (K,).
    """
    label = np.full(score.size, -1, dtype=np.int64)
    seeds: list[int] = []
    if score.size == 0:
        return label, np.array(seeds, dtype=np.int64)
    with np.errstate(over="ignore", divide="ignore", under="ignore"):  # infinitely far is far
        left = _Left(mean, log_std, group, tau)
        for points in _ranked(score, min_score, label):
            for seed, *where in zip(points.tolist(), *left.seeds(points), strict=True):
                if label[seed] < 0:
                    label[left.take(seed, *where)] = len(seeds)
                    label[seed] = len(seeds)  # κ = 1, but nowhere may rounding make this loop endless
                    seeds.append(seed)
    return label, np.array(seeds, dtype=np.int64)


def _ranked(score: AnyFloats, min_score: float, label: Integers) -> Iterator[Integers]:
    """The points without a label by score, then by number, a few at a time, while they are given labels."""
    waiting = np.flatnonzero(score >= score.dtype.type(min_score))
    count = 1 if waiting.size > FIRST_SEEDS else FIRST_SEEDS  # one may be all
    while waiting.size:
        best = _best(score, waiting, count)
        for first in range(0, best.size, FIRST_SEEDS):
            some = best[first : first + FIRST_SEEDS]
            yield some[label[some] < 0]
        waiting = waiting.take((label.take(waiting) < 0).nonzero()[0])
        count = max(FIRST_SEEDS, 4 * count)


def _best(score: AnyFloats, rows: Integers, count: int) -> Integers:
    """The ``count`` best rows, ranked by score and then by row; ``rows`` are ascending."""
    s = score.take(rows)
    if rows.size > count:
        least = s.max() if count == 1 else np.partition(s, rows.size - count)[rows.size - count]
        better = (s > least).nonzero()[0]
        some = np.append(better, (s == least).nonzero()[0][: count - better.size])
        rows, s = rows.take(some), s.take(some)
    return rows.take(np.argsort(-s, kind="stable"))
