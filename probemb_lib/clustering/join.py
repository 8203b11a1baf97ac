r"""Joining of found instances that are parts of one object. Not part of the paper.

A seed with a small σ takes a part of its object only, and what is left gets seeds of its own. The Gaussians c_k of the
instances as a whole, which refinement averages over n_k members (Eq. 3), tell parts of one object from neighbours:

    while κ(c_j, c_k) ≥ τ for some two instances of a cloud, those with the highest κ become one, with
    μ = (n_j μ_j + n_k μ_k) / (n_j + n_k),    σ² = (n_j σ_j² + n_k σ_k²) / (n_j + n_k)

as Eq. 3 averages over the members of both. docs/results.md has what it gains.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from probemb_lib.clustering.inputs import check_threshold, log_threshold
from probemb_lib.gaussian import GaussianEmbedding, check_embedding
from probemb_lib.instances import Instances

Floats = NDArray[np.float64]


@torch.no_grad()
def join_instances(found: Instances, threshold: float, *, class_aware: bool = False) -> Instances:
    """Make one of instances whose Gaussians are similar, the most similar first.

    For instances that were refined: their Gaussians are averages over their members. ``greedy_cluster(..., refine=True,
    join=threshold)`` does both, and so does :func:`~probemb_lib.cluster_tiles`. Decided in float64 on the CPU.

    Args:
        found: of :func:`~probemb_lib.refine_instances`, or of a clustering that refines.
        threshold: the least κ of two instances that become one, in (0, 1]; lower than that of the clustering, as that
            of objects which are apart is far lower. 0.2 in rooms.
        class_aware: only instances of the same class become one.

    Returns:
        Instances in the order of their first row in ``found``. Class and seed of an instance are those of its part with
        the highest score, the score is the mean over its points of what their parts have.

    Raises:
        TypeError: ``found`` is something else, such as instances that share points.
        ValueError: the threshold is not in (0, 1], or Gaussians are not finite.

    >>> from probemb_lib import greedy_cluster
    >>> x = GaussianEmbedding(torch.tensor([[0.0], [1.0], [2.2], [9.0]]), torch.zeros(4, 1))
    >>> p = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    >>> found = greedy_cluster(x, p, threshold=0.7, refine=True)  # the third point is out of the first one's reach
    >>> found.label, join_instances(found, 0.5).label
    (tensor([0, 0, 1, 2]), tensor([0, 0, 0, 1]))
    """
    if type(found) is not Instances:
        raise TypeError(f"expected Instances, which share no points, got {type(found).__name__}")
    check_threshold(threshold)
    x = check_embedding(found.embedding)
    device = found.label.device
    mean, log_std = (t.cpu().double() for t in x)
    variance = torch.exp(2 * log_std)
    size = found.size.cpu().double()
    apart = torch.stack([found.batch.cpu(), found.semantic.cpu() * class_aware])
    kind = torch.unique(apart, dim=1, return_inverse=True)[1]
    first = torch.arange(len(found))
    for k in range(int(kind.max()) + 1 if len(found) else 0):
        rows = (kind == k).nonzero().squeeze(1)
        parts = _parts(mean[rows].numpy(), variance[rows].numpy(), size[rows].numpy(), threshold)
        first[rows] = rows[torch.from_numpy(parts)]
    kept, row = torch.unique(first, return_inverse=True)
    if len(kept) == len(found):
        return found

    total = size.new_zeros(len(kept)).index_add(0, row, size)
    share = size / total[row]

    def mean_over_points(t: torch.Tensor) -> torch.Tensor:
        weight = share.reshape(-1, *[1] * (t.ndim - 1))
        return t.new_zeros((len(kept), *t.shape[1:])).index_add(0, row, weight * t)

    score = found.score.cpu().double()
    ranked = score.argsort(stable=True, descending=True)
    rank = torch.empty_like(ranked).index_copy(0, ranked, torch.arange(len(ranked)))
    best = ranked[torch.full_like(kept, len(ranked)).scatter_reduce(0, row, rank, "amin")].to(device)
    center = GaussianEmbedding(
        mean_over_points(mean).to(x.mean), mean_over_points(variance).log().mul(0.5).to(x.log_std)
    )
    score = mean_over_points(score).to(found.score)
    row = row.to(device)
    return replace(
        found,
        label=torch.where(found.label >= 0, row[found.label.clamp_min(0)], -1),
        semantic=found.semantic[best],
        score=score,
        seed=found.seed[best],
        batch=found.batch[best],
        embedding=center,
    )


def _parts(mean: Floats, variance: Floats, size: Floats, threshold: float) -> NDArray[np.int64]:
    """(K,) the lowest row of the object that each of K instances becomes a part of.

    Each row knows its most similar other one, so that joining two costs a comparison of their union with all, and new
    comparisons of the rows that were most similar to either of them.
    """
    count, dim = mean.shape
    mean, variance, size = mean.copy(), np.broadcast_to(variance, mean.shape).copy(), size.copy()
    volume = 0.25 * np.log(variance).sum(1)
    is_there = np.ones(count, dtype=np.bool_)
    part = np.arange(count)

    def to_others(i: int) -> Floats:
        both = variance + variance[i]
        apart = 0.5 * np.log(0.5 * both) + np.square(mean - mean[i]) / (4 * both)
        of_pair: Floats = np.where(is_there, volume + volume[i] - apart.sum(1), -math.inf)
        of_pair[i] = -math.inf
        return of_pair

    highest, other = np.full(count, -math.inf), np.zeros(count, dtype=np.int64)

    def look(i: int) -> Floats:
        row = to_others(i)
        other[i] = row.argmax()
        highest[i] = row[other[i]]
        return row

    for i in range(count):
        look(i)
    least = log_threshold(threshold, dim)
    while count > 1 and highest.max() >= least:
        i = int(highest.argmax())
        a, b = sorted((i, int(other[i])))
        share = size[b] / (size[a] + size[b])
        mean[a] += share * (mean[b] - mean[a])
        variance[a] += share * (variance[b] - variance[a])
        volume[a] = 0.25 * np.log(variance[a]).sum()
        size[a] += size[b]
        part[part == b] = a
        is_there[b], highest[b] = False, -math.inf
        row = look(a)
        stale = is_there & ((other == a) | (other == b))
        stale[a] = False
        closer = is_there & ~stale & (row > highest)
        closer[a] = False
        highest[closer], other[closer] = row[closer], a
        for r in np.flatnonzero(stale):
            look(int(r))
    return part
