"""Greedy clustering (Eq. 11) as its definition reads: loops, float64, logarithms. Imports nothing of the library."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Clusters(NamedTuple):
    """What the definition finds, and how far it is from finding something else."""

    label: np.ndarray  # (N,) row of the instance, −1 none
    semantic: np.ndarray  # (K,) column of the probabilities
    score: np.ndarray  # (K,) the seed's probability, dtype of the probabilities
    seed: np.ndarray  # (K,) row of the seed
    batch: np.ndarray  # (K,)
    margin: float  # smallest distance of ln κ from the limit of any two that were compared, 1 where κ = τ


def log_kappa(mean: np.ndarray, log_std: np.ndarray, i: int) -> np.ndarray:
    """ln κ of Gaussian i with all, (N,): Σ_d −Δ²/(4(σ²+σ_i²)) − ½ ln cosh(ln σ − ln σ_i)."""
    delta, d = mean - mean[i], log_std - log_std[i]
    a = np.abs(d)
    near = np.log1p(2 * np.sinh(np.minimum(a, 1) / 2) ** 2)
    far = a - math.log(2) + np.log1p(np.exp(-2 * a))
    shape = np.where(a < 1, near, far)
    return np.sum(-(delta**2) / (4 * (np.exp(2 * log_std) + np.exp(2 * log_std[i]))) - shape / 2, axis=1)


def greedy(
    mean: np.ndarray,
    log_std: np.ndarray,
    probabilities: np.ndarray,
    *,
    batch: np.ndarray | None = None,
    threshold: float = 0.35,
    min_score: float = 0.0,
    min_points: int = 1,
    background: int | None = 0,
    class_aware: bool = False,
) -> Clusters:
    """mean (N, D), log_std (N, D) or (N, 1), probabilities (N, L), of any float type."""
    n, num_classes = probabilities.shape
    mean64 = mean.astype(np.float64)
    log_std64 = np.broadcast_to(log_std.astype(np.float64), mean64.shape)
    batch = np.zeros(n, np.int64) if batch is None else batch
    columns = [c for c in range(num_classes) if c != background]
    open_ = np.ones(n, bool)
    best = np.full(n, -1)  # class of the highest foreground probability, the lowest of equal ones
    for i in range(n):
        best[i] = max(columns, key=lambda c: (probabilities[i, c], -c))
        open_[i] = background is None or max(range(num_classes), key=lambda c: (probabilities[i, c], -c)) != background
    score = probabilities[np.arange(n), best]
    limit = probabilities.dtype.type(min_score)
    tie = 1e-13 * mean.shape[1] * (1 - math.log(threshold))  # κ = τ joins, whatever rounding makes of it
    limit_of_log_kappa = math.log(threshold) - tie

    label = np.full(n, -1)
    seeds: list[int] = []
    margin = math.inf
    for b in sorted(set(batch.tolist())):
        while True:
            candidates = [i for i in range(n) if open_[i] and batch[i] == b]
            seed = max(candidates, key=lambda i: (score[i], -i), default=-1)
            if seed < 0 or score[seed] < limit:
                break
            compared = open_ & (batch == b)
            if class_aware:
                compared &= best == best[seed]
            log_k = log_kappa(mean64, log_std64, seed)
            distance = np.abs(log_k - limit_of_log_kappa)[compared]
            margin = min(margin, distance.min(initial=math.inf) / tie)
            members = compared & (log_k >= limit_of_log_kappa)
            open_ &= ~members
            if members.sum() >= min_points:
                label[members] = len(seeds)
                seeds.append(seed)
    rows = np.array(seeds, np.int64)
    return Clusters(label, best[rows], score[rows], rows, batch[rows], margin)
