r"""Refinement of found instances by their members: another group, class and confidence. Not part of the paper.

Training compares points with the Gaussian of their instance (Eq. 3); clustering compares them with that of a single
point, the seed, and takes class and confidence from it (Eq. 11). Once instances are found, their members can answer:

    c_k   = the Gaussian of instance k from its members (Eq. 3)
    z_i   = argmax_k κ(e_i, c_k)                               over the instances of the point's cloud
    l_k   = argmax_l P̄_k[l],    P̄_k = mean of P[i] over z_i = k
    score = P̄_k[l_k] · κ̄_k · (n_k / N)^¼,    κ̄_k = mean of κ(e_i, c_k) over z_i = k

with n_k of the N points of the cloud. docs/results.md has what each of them gains.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from probemb_lib.aggregate import InstanceIndex, aggregate_instances, index_instances
from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, check_embedding
from probemb_lib.instances import Instances, best_foreground, check_clustering, keep_instances
from probemb_lib.segments import segment_sum, take
from probemb_lib.similarity import log_bhattacharyya, log_bhattacharyya_paired

SIZE_EXPONENT = 0.25  # of the instance's share of the cloud, in the score
BLOCK = 4096  # points that are compared with the same instances
PAIRS_AT_ONCE = 1 << 19  # 40 MB in three dimensions
ROUNDING = 1e-9  # far above the rounding of ln κ in float64, far below what it costs to compare with more instances


@torch.no_grad()
def refine_instances(
    embedding: GaussianEmbedding,
    probabilities: Tensor,
    found: Instances,
    *,
    background: int | None = 0,
    reassign: bool = True,
) -> Instances:
    """Give points to the most similar instance, and take class and score of an instance from all of its points.

    Each point with an instance moves to the one of its cloud whose Gaussian, the mean of its members (Eq. 3), has the
    highest κ with it; instances that lose all points are dropped. The class of an instance becomes the foreground
    column with the highest mean probability over its points, and its score that mean, times the mean κ, times the
    fourth root of its share of the cloud's points. Points with label −1 keep it. Ties go to the lower row or column.
    The most similar instance is decided in float64.

    ``greedy_cluster(..., refine=True)`` does this, and so does :func:`~probemb_lib.fit_threshold`. A threshold fitted
    with refinement is often lower than one without.

    Args:
        embedding: N Gaussians, those that were clustered.
        probabilities: (N, L) score maps.
        found: the instances, of :func:`~probemb_lib.greedy_cluster` or :func:`~probemb_lib.cluster_tiles`.
        background: column of the background, which no instance gets; None: there is none.
        reassign: False leaves the points where they are; κ is then that with ``found.embedding``.

    Returns:
        Instances in the order of ``found`` with the Gaussians that their points were compared with. ``seed`` is the
        point that the instance started from, which may have moved to another.

    Raises:
        TypeError, ValueError: as :func:`~probemb_lib.greedy_cluster`, or ``found`` is of other points.

    >>> from probemb_lib import greedy_cluster
    >>> x = GaussianEmbedding(torch.tensor([[0.0], [1.6], [2.0], [2.5]]), torch.zeros(4, 1))
    >>> p = torch.tensor([[0.1, 0.9, 0.0], [0.1, 0.3, 0.6], [0.1, 0.3, 0.6], [0.2, 0.0, 0.8]])
    >>> found = greedy_cluster(x, p, threshold=0.7)  # the first seed takes the second point, at κ = 0.73
    >>> found.label, refine_instances(x, p, found).label
    (tensor([0, 0, 1, 1]), tensor([0, 1, 1, 1]))
    """
    x = check_embedding(embedding)
    n, k = x.mean.shape[0], len(found)
    if found.label.shape != (n,):
        raise ValueError(f"expected instances of {n} points, got {tuple(found.label.shape)}")
    if found.label.device != x.mean.device:
        raise TypeError(f"expected instances on {x.mean.device}, got {found.label.device}")
    check_clustering(x, probabilities, found.point_batch, 0.0, 1, background)
    if n and int(found.label.max()) >= k:
        raise ValueError(f"expected labels under {k}, the number of instances, got {int(found.label.max())}")
    if found.embedding.dim != x.dim:
        raise ValueError(f"expected instances of dimension {x.dim}, got {found.embedding.dim}")

    if reassign:
        found = _reassign(x, found)
    index = index_instances(found.label)
    found = keep_instances(found, torch.zeros(k, dtype=torch.bool, device=x.mean.device).index_fill(0, index.id, True))
    if len(found) == 0:
        return found
    probability = at_least_float32(probabilities)
    mean = _mean_over_members(take(probability.T, index.member), index).T  # (K, L)
    kappa = log_bhattacharyya_paired(
        x.select(index.member), check_embedding(found.embedding).select(index.member_instance)
    ).exp()
    best, semantic = best_foreground(mean, background)
    points = torch.bincount(found.point_batch)[found.batch]
    share = (index.size / points).to(best.dtype)
    score = best * _mean_over_members(kappa[None], index)[0].to(best.dtype) * share**SIZE_EXPONENT
    return replace(found, semantic=semantic, score=score)


def _mean_over_members(x: Tensor, index: InstanceIndex) -> Tensor:
    """Rows in the order of ``index.member``, (C, M): their means over each instance, (C, K)."""
    return segment_sum(x, index.member_ptr, index.member_instance) / index.size


def _reassign(x: GaussianEmbedding, found: Instances) -> Instances:
    """Each point with the most similar instance of its cloud; ``embedding`` is what it was compared with."""
    index = index_instances(found.label)
    center = aggregate_instances(x, index)
    device = x.mean.device
    place = device if device.type == "cuda" else torch.device("cpu")  # float64 is not everywhere
    best = _most_similar(x.to(place), center.to(place), index.to(place), found.batch[index.id].to(place))
    label = found.label.index_copy(0, index.member, index.id[best.to(device)])
    whole = found.embedding.mean.shape[0], center.log_std.shape[1]
    embedding = GaussianEmbedding(
        found.embedding.mean.to(center.mean.dtype).index_copy(0, index.id, center.mean),
        center.log_std.new_zeros(whole).index_copy(0, index.id, center.log_std),
    )
    return replace(found, label=label, embedding=embedding)


def _most_similar(x: GaussianEmbedding, center: GaussianEmbedding, index: InstanceIndex, cloud: Tensor) -> Tensor:
    """(M,) the instance with the highest κ of each member, in the order of ``index.member``.

    Exact, and far from comparing all pairs: a block of points of one instance has a box of means and largest σ, whose
    distance to the mean of another instance bounds κ from above; an instance whose bound is below the lowest κ that
    the points of the block have with their own is none of theirs.
    """
    center = center.to(dtype=torch.float64)
    variance = torch.exp(2 * center.log_std)
    # Instances of a cloud lie together, as their rows do.
    first = torch.searchsorted(cloud, cloud, right=False).tolist()
    last = torch.searchsorted(cloud, cloud, right=True).tolist()
    best = index.member_instance.clone()
    ptr = index.member_ptr.tolist()
    x = x.select(index.member)
    for k in range(len(ptr) - 1):
        of_cloud = slice(first[k], last[k])
        if last[k] - first[k] == 1:
            continue
        own = GaussianEmbedding(*(t[k : k + 1] for t in center))
        for start in range(ptr[k], ptr[k + 1], BLOCK):
            stop = min(start + BLOCK, ptr[k + 1])
            points = GaussianEmbedding(*(t[start:stop] for t in x)).to(dtype=torch.float64)
            lowest = log_bhattacharyya(points, own).min()
            low, high = points.mean.aminmax(dim=0)
            gap = torch.maximum(low - center.mean[of_cloud], center.mean[of_cloud] - high).clamp_min(0)
            widest = torch.exp(2 * points.log_std.amax(0))
            bound = -(gap.square() / (4 * (variance[of_cloud] + widest))).sum(1)
            rival = first[k] + (bound >= lowest - ROUNDING * (1 - lowest)).nonzero().squeeze(1)
            if rival.numel() == 1:
                continue
            against = center.select(rival)
            for part in range(start, stop, max(1, PAIRS_AT_ONCE // rival.numel())):
                end = min(part + max(1, PAIRS_AT_ONCE // rival.numel()), stop)
                some = GaussianEmbedding(*(t[part - start : end - start] for t in points))
                best[part:end] = rival[log_bhattacharyya(some, against).argmax(1)]
    return best
