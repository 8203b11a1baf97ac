"""Instances of a batch: which points belong to which, and the Gaussian of each (section 3.3, Eq. 3 of the paper)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from probemb_lib.gaussian import GaussianEmbedding, check_embedding, columns
from probemb_lib.labels import IGNORED, NO_INSTANCE
from probemb_lib.segments import gather_points, segment_sum

Covariance = Literal["mean", "independent"]


class InstanceIndex(NamedTuple):
    """Where the instances of a batch of clouds are; made once a batch by :func:`index_instances`.

    N points of B clouds hold K instances with M points; V points are not ignored. Instances are numbered by
    (cloud, id), so those of a cloud lie together. All tensors are int64 but ``valid``.

    Attributes:
        index: (N,) the instance of a point in [0, K), or −1.
        valid: (N,) bool, false where the point is ignored.
        size: (K,) points of an instance.
        batch: (K,) cloud of an instance.
        id: (K,) id of an instance as the labels gave it.
        point_batch: (N,) cloud of a point.
        order: (V,) rows of the valid points, sorted by cloud.
        ptr: (B+1,) cloud b owns ``order[ptr[b]:ptr[b+1]]``.
        instance_ptr: (B+1,) cloud b owns the instances ``instance_ptr[b]:instance_ptr[b+1]``.
        member: (M,) rows of the points with an instance, sorted by instance.
        member_ptr: (K+1,) instance k owns ``member[member_ptr[k]:member_ptr[k+1]]``.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls here
    valid: Tensor
    size: Tensor
    batch: Tensor
    id: Tensor
    point_batch: Tensor
    order: Tensor
    ptr: Tensor
    instance_ptr: Tensor
    member: Tensor
    member_ptr: Tensor

    @property
    def num_instances(self) -> int:
        """K, the instances of the batch."""
        return self.size.shape[0]

    @property
    def num_clouds(self) -> int:
        """B, the clouds of the batch, empty ones included."""
        return self.ptr.shape[0] - 1

    @property
    def member_instance(self) -> Tensor:
        """(M,) instance of each row of ``member``."""
        return self.index.index_select(0, self.member)

    def to(self, device: torch.device | str) -> InstanceIndex:
        """All tensors on another device."""
        return InstanceIndex(*(t.to(device) for t in self))


def index_instances(instance: Tensor, batch: Tensor | None = None) -> InstanceIndex:
    """Number the instances of a batch by (cloud, id).

    Args:
        instance: (N,) any integer type: ≥ 0 an instance (unique within its cloud), −1 none, −100 ignored.
        batch: (N,) cloud of each point, in any order; None is one cloud.

    Raises:
        TypeError: not integers.
        ValueError: shapes differ, a negative cloud, or an id that is neither ≥ 0, −1 nor −100.

    >>> i = index_instances(torch.tensor([7, 7, -1, 3, 7]), torch.tensor([0, 0, 0, 0, 1]))
    >>> i.index, i.id, i.batch
    (tensor([ 1,  1, -1,  0,  2]), tensor([3, 7, 7]), tensor([0, 0, 1]))
    """
    instance = _integers(instance, "instance")
    if batch is None:
        batch, num_clouds = torch.zeros_like(instance), 1
    else:
        batch = _integers(batch, "batch")
        if batch.shape != instance.shape or batch.device != instance.device:
            raise ValueError(
                f"expected batch like instance, {tuple(instance.shape)} on {instance.device}, "
                f"got {tuple(batch.shape)} on {batch.device}"
            )
        if batch.numel() and batch.min() < 0:
            raise ValueError(f"expected cloud numbers >= 0 in batch, got {int(batch.min())}")
        num_clouds = int(batch.max()) + 1 if batch.numel() else 0
    wrong = (instance < 0) & (instance != NO_INSTANCE) & (instance != IGNORED)
    if wrong.any():
        raise ValueError(
            f"expected instance ids >= 0, {NO_INSTANCE} (no instance) or {IGNORED} (ignored), got "
            f"{int(instance[wrong][0])}; probemb_lib.LabelConvention converts what other codebases use"
        )

    valid = instance != IGNORED
    rows = (instance >= 0).nonzero().squeeze(1)
    clouds, ids = batch[rows], instance[rows]
    number, size, cloud_of, id_of = _number_pairs(clouds, ids, num_clouds)
    index = torch.full_like(instance, NO_INSTANCE).index_copy(0, rows, number)

    order = valid.nonzero().squeeze(1)
    order = order[_stable_order(batch[order])]
    return InstanceIndex(
        index=index,
        valid=valid,
        size=size,
        batch=cloud_of,
        id=id_of,
        point_batch=batch,
        order=order,
        ptr=_ptr(torch.bincount(batch[order], minlength=num_clouds)),
        instance_ptr=_ptr(torch.bincount(cloud_of, minlength=num_clouds)),
        member=rows[_stable_order(number)],
        member_ptr=_ptr(size),
    )


def as_index(instance: Tensor | InstanceIndex, batch: Tensor | None, points: Tensor) -> InstanceIndex:
    """The index of raw ids, or the given one, checked against the points (N, …) that it is used with."""
    index = instance if isinstance(instance, InstanceIndex) else index_instances(instance, batch)
    if index.index.shape[0] != points.shape[0]:
        raise ValueError(f"expected instance labels for {points.shape[0]} points, got {index.index.shape[0]}")
    if index.index.device != points.device:
        raise ValueError(f"expected instance labels on {points.device}, got {index.index.device}")
    return index


def aggregate_instances(
    embedding: GaussianEmbedding,
    instance: Tensor | InstanceIndex,
    batch: Tensor | None = None,
    *,
    covariance: Covariance = "mean",
) -> GaussianEmbedding:
    """The Gaussian of each instance: μ_k = mean of μ_i and Σ_k = mean of Σ_i over its n points (Eq. 3).

    ``covariance="independent"`` is the literal variance of a mean of independent Gaussians, Σ_k = (1/n²) Σ_i Σ_i.
    It shrinks with n, so that no point can be similar to its own instance (docs/decisions.md).

    Args:
        embedding: N Gaussians.
        instance: (N,) ids, or their index; see :func:`index_instances`.
        batch: (N,) cloud of each point; not needed with an index.

    Returns:
        K Gaussians, in the order of the index: by cloud, then by id.

    >>> x = GaussianEmbedding(torch.tensor([[0.0], [2.0], [9.0]]), torch.zeros(3, 1))
    >>> aggregate_instances(x, torch.tensor([5, 5, -1])).mean
    tensor([[1.]])
    """
    x = check_embedding(embedding)
    index = as_index(instance, batch, x.mean)
    center = aggregate_members(gather_points(columns(x), index.member), index, covariance)
    return GaussianEmbedding(center[0].T, center[1].T[:, : x.log_std.shape[1]])


def aggregate_members(x: Tensor, index: InstanceIndex, covariance: Covariance) -> Tensor:
    """:func:`aggregate_instances` of the members' μ and ln σ (2, D, M), in the order of ``index.member``: (2, D, K)."""
    if covariance not in ("mean", "independent"):
        raise ValueError(f'expected covariance "mean" or "independent", got {covariance!r}')
    moments = torch.stack([x[0], torch.exp(2 * x[1])])
    mean, variance = (segment_sum(moments, index.member_ptr, index.member_instance) / index.size).unbind()
    log_std = 0.5 * torch.log(variance)
    if covariance == "independent":
        log_std = log_std - 0.5 * torch.log(index.size.to(log_std.dtype))
    return torch.stack([mean, log_std])


def instance_classes(semantic: Tensor, index: InstanceIndex, num_classes: int) -> Tensor:
    """The class of each instance: that of most of its points, ties to the lowest; ignored points do not vote.

    Args:
        semantic: (N,) classes in [0, num_classes), −100 ignored.

    Returns:
        (K,) int64; −1 where all points of an instance are ignored.

    >>> instance_classes(torch.tensor([2, 1, 1]), index_instances(torch.tensor([0, 0, 0])), 3)
    tensor([1])
    """
    voted = semantic.index_select(0, index.member)
    key = index.member_instance * (num_classes + 1) + torch.where(voted >= 0, voted, num_classes)
    votes = torch.zeros(index.num_instances * (num_classes + 1), dtype=torch.int64, device=semantic.device)
    votes = votes.scatter_add(0, key, torch.ones_like(key)).view(-1, num_classes + 1)[:, :num_classes]
    # argmax does not promise the lowest of equal votes: rank by votes, then by class.
    rank = votes * num_classes - torch.arange(num_classes, device=votes.device)
    return torch.where(votes.sum(1) > 0, rank.argmax(1), NO_INSTANCE)


def _integers(x: Tensor, name: str) -> Tensor:
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name}: expected integers, got {x.dtype}")
    if x.ndim != 1:
        raise ValueError(f"{name}: expected shape (N,), got {tuple(x.shape)}")
    return x.long()


def _ptr(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def _stable_order(key: Tensor) -> Tensor:
    """Rows sorted by key, equal keys in their order."""
    if key.numel() < 2 or bool((key[1:] >= key[:-1]).all()):
        return torch.arange(key.numel(), device=key.device)
    return torch.argsort(key, stable=True)


def _number_pairs(clouds: Tensor, ids: Tensor, num_clouds: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Number the distinct (cloud, id) in their order: number of each row, and size, cloud and id of each pair."""
    names = None
    span = int(ids.max()) + 1 if ids.numel() else 1
    if span * max(num_clouds, 1) > 4 * ids.numel() + 65536:  # far apart: rank them first
        names, ids = torch.unique(ids, return_inverse=True)
        span = names.numel()
    key = clouds * span + ids  # one number a pair; sorting or counting it is much faster than unique(dim=0)
    if span * max(num_clouds, 1) <= 4 * ids.numel() + 65536:
        counts = torch.bincount(key)
        pairs = counts.nonzero().squeeze(1)
        rank = torch.cumsum(counts > 0, 0) - 1
        number, size = rank[key], counts[pairs]
    else:
        pairs, number, size = torch.unique(key, return_inverse=True, return_counts=True)
    low = pairs % span
    return number, size, pairs // span, low if names is None else names[low]
