r"""Clustering by learnable margins (Neven et al., CVPR 2019), the method that Table 6 of the paper compares with.

The open point with the highest seed value proposes all foreground points with φ(e_i) > ½ in its own Gaussian, whether
they are open or not. The proposal becomes an instance if it is large enough and more than half of it is open. Either
way its points are open no more. Every decision is taken in float64: φ > ½ is Σ_d (e_id − e_0d)² / σ_0d² < 2 ln 2.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probemb_lib.clustering.grid import MIN_POINTS_FOR_INDEX, SCANS_BEFORE_INDEX, Floats, Grid, Integers, ranges
from probemb_lib.clustering.inputs import best_foreground, check_clustering, check_limits
from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, check_embedding, plain_tensor
from probemb_lib.margin.instances import MarginInstances

LIMIT = 2 * math.log(2)  # of Σ z²


@torch.no_grad()
def margin_cluster(
    embedding: GaussianEmbedding,
    probabilities: Tensor,
    *,
    batch: Tensor | None = None,
    foreground: float = 0.5,
    min_score: float = 0.5,
    min_points: int = 129,
    background: int | None = 0,
    class_aware: bool = True,
) -> MarginInstances:
    """Group points into instances by the margins that they predict.

    Only points with a seed value above ``foreground`` take part, in the class of their highest seed map. While
    ``min_points`` or more of them are open: the open point with the highest seed value is the next seed, and is open no
    more; the search ends where that value is under ``min_score``. Its proposal is all points, open or not, within its
    own margin (φ > ½). With at least ``min_points`` points, more than half of them open, it becomes an instance. Then
    its points are open no more. Ties: lowest point, then lowest class.

    Args:
        embedding: N votes and their σ, of a :class:`~probemb_lib.LearnableMarginHead`.
        probabilities: (N, L) seed maps in [0, 1].
        batch: (N,) cloud of each point, in any order; None is one cloud. Points of two clouds never join.
        foreground: seed value that a point must exceed to take part.
        min_score: least seed value of a seed; Neven et al. use up to 0.9.
        min_points: least size of an instance. Neven et al. ask for more than 128 pixels; a single point never is one,
            because the seed does not count as open.
        background: column of no instance, which is not looked at; None: there is no such column.
        class_aware: cluster each class by itself, one class after the other; False: all points together.

    Returns:
        Instances, on the device of the input, with their masks as found (:class:`MarginInstances`): label is the last
        instance of a point, semantic the seed's class, embedding the seeds' Gaussians.

    Raises:
        TypeError, ValueError: as :func:`~probemb_lib.greedy_cluster`.

    >>> x = GaussianEmbedding(torch.tensor([[0.0], [0.1], [0.2], [9.0]]), torch.zeros(4, 1))
    >>> found = margin_cluster(x, torch.tensor([[0.0, 0.8], [0.0, 0.9], [0.0, 0.7], [0.0, 0.6]]), min_points=2)
    >>> found.label, found.score, found.seed
    (tensor([ 0,  0,  0, -1]), tensor([0.9000]), tensor([1]))
    """
    x = check_embedding(embedding)
    check_limits(min_score, min_points)
    probabilities, batch = check_clustering(x, probabilities, background, batch)
    if math.isnan(foreground):
        raise ValueError("expected a number for foreground, got NaN; -inf lets all points take part")
    device, n = x.mean.device, x.mean.shape[0]
    point_batch = torch.zeros(n, dtype=torch.int64, device=device) if batch is None else batch.long()
    score, semantic = best_foreground(at_least_float32(probabilities), background)

    rows = (score > foreground).nonzero().squeeze(1)
    group = torch.stack([point_batch[rows], semantic[rows] if class_aware else torch.zeros_like(rows)])
    keys, of_row = torch.unique(group, dim=1, return_inverse=True)  # by cloud, then class
    seeds: list[Integers] = []
    members: list[Integers] = []
    for g in range(keys.shape[1]):
        own = rows[of_row == g]
        mean, log_std = (t.index_select(0, own).cpu().double().expand(-1, x.dim).T.contiguous().numpy() for t in x)
        found = _proposals(mean, log_std, score[own].cpu().numpy(), min_score, min_points)
        own_rows = own.cpu().numpy()
        seeds += [own_rows[[seed]] for seed, _ in found]
        members += [own_rows[proposal] for _, proposal in found]

    label = np.full(n, -1, dtype=np.int64)
    for k, of_instance in enumerate(members):
        label[of_instance] = k
    none = np.zeros(0, dtype=np.int64)
    seed = torch.from_numpy(np.concatenate([none, *seeds])).to(device)
    ptr = np.cumsum([0, *(m.size for m in members)], dtype=np.int64)
    return MarginInstances(
        label=torch.from_numpy(label).to(device),
        semantic=semantic[seed],
        score=score[seed],
        seed=seed,
        batch=point_batch[seed],
        embedding=GaussianEmbedding(*(plain_tensor(t, "embedding")[seed].detach() for t in embedding)),
        point_batch=point_batch,
        member=torch.from_numpy(np.concatenate([none, *members])).to(device),
        member_ptr=torch.from_numpy(ptr).to(device),
    )


def _proposals(
    mean: Floats, log_std: Floats, score: NDArray[np.floating], min_score: float, min_points: int
) -> list[tuple[int, Integers]]:
    """The accepted seeds among n foreground points, each with the rows of its proposal in ascending order.

    Args:
        mean, log_std: (D, n) float64.
        score: (n,) seed values.
    """
    n = score.size
    is_open = np.ones(n, dtype=np.bool_)
    left = n
    found: list[tuple[int, Integers]] = []
    ranked = np.argsort(-score, kind="stable")
    ranked = ranked[score[ranked] >= score.dtype.type(min_score)]
    neighbours = _Neighbours(mean, log_std)
    for seed in ranked.tolist():
        if left < min_points:
            break
        if not is_open[seed]:
            continue
        is_open[seed] = False
        left -= 1
        proposal = neighbours(seed)
        fresh = int(is_open[proposal].sum())
        if proposal.size >= min_points and 2 * fresh > proposal.size:
            found.append((seed, proposal))
        is_open[proposal] = False
        left -= fresh
    return found


class _Neighbours:
    """All points within the margin of a seed, by scans of all points first, and by a grid when these have cost more."""

    def __init__(self, mean: Floats, log_std: Floats) -> None:
        self.mean, self.std = mean, np.exp(log_std)
        self.grid: Grid | None = None
        self.scans = 0

    def __call__(self, seed: int) -> Integers:
        center, std = self.mean[:, seed], self.std[:, seed]
        reach = self._reach(std)
        near = self._candidates(center, reach)
        distance = np.zeros(near.size)
        with np.errstate(over="ignore"):  # infinitely far is far
            for x, c, s in zip(self.mean, center, std, strict=True):
                distance += np.square((x[near] - c) / s)
        return np.sort(near[distance < LIMIT])

    def _candidates(self, center: Floats, reach: Floats) -> Integers:
        """Rows that contain the proposal."""
        n = self.mean.shape[1]
        if self.grid is None and self.scans > SCANS_BEFORE_INDEX and n > MIN_POINTS_FOR_INDEX:
            sample = self.std[:, :: max(1, n // 1000)]
            self.grid = Grid(self.mean, np.median(self._reach(sample), axis=1))
        cells = self.grid.rows(center, reach) if self.grid is not None else None
        if self.grid is not None and cells is not None:
            return np.asarray(self.grid.order[ranges(*cells)])
        self.scans += 1
        return np.flatnonzero(np.abs(self.mean[0] - center[0]) <= reach[0])

    @staticmethod
    def _reach(std: Floats) -> Floats:
        """The margin along each axis, and a little for rounding."""
        return np.asarray(std * (math.sqrt(LIMIT) * (1 + 1e-9)))
