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

import math
from dataclasses import replace

import torch
from torch import Tensor

from probemb_lib.aggregate import InstanceIndex, aggregate_members, index_instances, member_instance
from probemb_lib.clustering.inputs import best_foreground, check_clustering
from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, check_embedding, columns
from probemb_lib.instances import Instances
from probemb_lib.segments import segment_sum, take

SIZE_EXPONENT = 0.25  # of the instance's share of the cloud, in the score
BLOCK = 4096  # points that are compared with the same instances
PAIRS_AT_ONCE = 1 << 19  # 4 MB a table of them
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
    All of it is computed in float64. Members may be of other classes, also where the clustering was class-aware.

    ``greedy_cluster(..., refine=True)`` does this, and so does :func:`~probemb_lib.fit_threshold`. A threshold fitted
    with refinement is often lower than one without.

    Args:
        embedding: N Gaussians, those that were clustered.
        probabilities: (N, L) score maps in [0, 1].
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
    if type(found) is not Instances:
        raise TypeError(f"expected Instances, which share no points, got {type(found).__name__}")
    x = check_embedding(embedding)
    n, k = x.mean.shape[0], len(found)
    if found.label.shape != (n,):
        raise ValueError(f"expected instances of {n} points, got {tuple(found.label.shape)}")
    if found.label.device != x.mean.device:
        raise TypeError(f"expected instances on {x.mean.device}, got {found.label.device}")
    probabilities, _ = check_clustering(x, probabilities, background, found.point_batch)
    if n and int(found.label.max()) >= k:
        raise ValueError(f"expected labels under {k}, the number of instances, got {int(found.label.max())}")
    if found.embedding.dim != x.dim:
        raise ValueError(f"expected instances of dimension {x.dim}, got {found.embedding.dim}")
    if bool((found.batch.diff() < 0).any()):
        raise ValueError("expected instances sorted by cloud, those of a cloud together")

    # In float64 as the clustering: float32 has no square of all that its checks let through.
    device = x.mean.device
    place = device if device.type == "cuda" else torch.device("cpu")  # not every device has float64
    points = columns(x).to(place)
    index = index_instances(found.label).to(place)
    members = take(points, index.member)
    if reassign:
        center = aggregate_members(members.double(), index, "mean")
        best = _most_similar(members, center, index, found.batch.to(place)[index.id])
        label = found.label.to(place).index_copy(0, index.member, index.id[best])
        width = x.log_std.shape[1]
        embedding = GaussianEmbedding(
            x.mean.new_zeros(k, x.dim).index_copy(0, index.id.to(device), center[0].T.to(x.mean)),
            x.log_std.new_zeros(k, width).index_copy(0, index.id.to(device), center[1, :width].T.to(x.mean)),
        )
        found = replace(found, label=label.to(device), embedding=embedding)
        index = index_instances(label)
        members = take(points, index.member)
    keep = torch.zeros(k, dtype=torch.bool, device=device).index_fill(0, index.id.to(device), True)
    found = found.keep(keep)
    if len(found) == 0:
        return found
    center = columns(check_embedding(found.embedding)).to(place).double()
    own = member_instance(index)
    kappa = torch.cat(
        [
            _log_kappa(some.double(), center[..., of_some]).exp()
            for some, of_some in zip(members.split(PAIRS_AT_ONCE, 2), own.split(PAIRS_AT_ONCE), strict=True)
        ]
    )
    probability = take(at_least_float32(probabilities).to(place).T, index.member)
    best, semantic = best_foreground(_mean_over_members(probability, index).T, background)
    cloud, points_of_cloud = torch.unique(found.point_batch, return_counts=True)
    share = index.size / points_of_cloud.to(place)[torch.searchsorted(cloud, found.batch).to(place)].double()
    score = best * _mean_over_members(kappa[None], index)[0] * share**SIZE_EXPONENT
    return replace(found, semantic=semantic.to(device), score=score.to(best.dtype).to(device))


def _mean_over_members(x: Tensor, index: InstanceIndex) -> Tensor:
    """Rows in the order of ``index.member``, (C, M): their means over each instance, (C, K)."""
    return segment_sum(x, index.member_ptr, member_instance(index)) / index.size


def _most_similar(members: Tensor, center: Tensor, index: InstanceIndex, cloud: Tensor) -> Tensor:
    """(M,) the instance with the highest κ of each member.

    Small clouds compare all pairs. In others a block of points of one instance has a box of means and largest σ, which
    bound κ with other instances from above; an instance whose bound is below the lowest κ that the points of the block
    have with their own is none of theirs.

    Args:
        members: μ and ln σ of the members in the order of the index, (2, D, M).
        center: μ and ln σ of the instances, (2, D, K), float64.
        cloud: (K,) cloud of each instance; those of a cloud lie together.
    """
    best = torch.empty_like(member_instance(index))
    ptr = index.member_ptr.tolist()
    first, size = 0, torch.unique_consecutive(cloud, return_counts=True)[1].tolist()
    for count in size:
        last = first + count
        of_cloud = center[..., first:last]
        if (ptr[last] - ptr[first]) * count <= PAIRS_AT_ONCE:
            points = members[..., ptr[first] : ptr[last]].double()
            best[ptr[first] : ptr[last]] = first + _log_kappa(points[:, :, None], of_cloud[..., None]).argmax(0)
        else:
            for k in range(first, last):
                for start in range(ptr[k], ptr[k + 1], BLOCK):
                    stop = min(start + BLOCK, ptr[k + 1])
                    points = members[..., start:stop].double()
                    rival = _rivals(points, center[..., k : k + 1], of_cloud)
                    step = max(1, PAIRS_AT_ONCE // rival.numel())
                    for some, out in zip(points.split(step, 2), best[start:stop].split(step), strict=True):
                        out.copy_(first + rival[_log_kappa(some[:, :, None], of_cloud[..., rival, None]).argmax(0)])
        first = last
    return best


def _rivals(points: Tensor, own: Tensor, center: Tensor) -> Tensor:
    """Which instances may be the most similar of any of the points (2, D, n), their own (2, D, 1) among them."""
    lowest = _log_kappa(points, own).min()
    low, high = points[0].aminmax(dim=1, keepdim=True)
    gap = torch.maximum(low - center[0], center[0] - high).clamp_min(0)
    variance = torch.exp(2 * center[1]) + torch.exp(2 * points[1].amax(1, keepdim=True))
    bound = -(gap.square() / (4 * variance)).sum(0)  # ln cosh ≥ 0
    return (bound >= lowest - ROUNDING * (1 - lowest)).nonzero().squeeze(1)


def _log_kappa(x: Tensor, y: Tensor) -> Tensor:
    """ln κ of μ and ln σ (2, D, …) that broadcast, float64: (…). ln cosh as a logarithm of the variances."""
    variance_x, variance_y = torch.exp(2 * x[1]), torch.exp(2 * y[1])
    total = 0.5 * (y[1].sum(0) + x[1].sum(0) + x.shape[1] * math.log(2))
    for d in range(x.shape[1]):
        both = variance_x[d] + variance_y[d]
        distance = (x[0, d] - y[0, d]).square_().div_(both).mul_(0.25)
        total -= distance.add_(both.log_(), alpha=0.5)
    return total
