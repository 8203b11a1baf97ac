"""Instances of a batch: which points belong to which, and the Gaussian of each (section 3.3, Eq. 3 of the paper)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from probemb_lib.gaussian import GaussianEmbedding, check_embedding, columns, plain_tensor, to_pack
from probemb_lib.labels import IGNORED, NO_INSTANCE
from probemb_lib.segments import gather_points, segment_sum

Covariance = Literal["mean", "independent"]

ID_BITS = 40  # of an id in the key that points are sorted by; 22 are left for the cloud
RANK_BITS = 31  # of its rank among the ids of the batch, where they are larger: no batch has 2^31 points


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
        return member_instance(self)

    def to(self, device: torch.device | str) -> InstanceIndex:
        """All tensors on another device."""
        return InstanceIndex(*(t.to(device) for t in self))


def member_instance(index: InstanceIndex) -> Tensor:
    """(M,) instance of each row of ``index.member``. A function, as torch.compile before 2.8 loses the value of a named
    tuple's property on its way into an autograd function."""
    return index.index.index_select(0, index.member)


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
    if batch is not None:
        batch = _integers(batch, "batch")
        if batch.shape != instance.shape or batch.device != instance.device:
            raise ValueError(
                f"expected batch like instance, {tuple(instance.shape)} on {instance.device}, "
                f"got {tuple(batch.shape)} on {batch.device}"
            )
    if instance.numel() == 0:
        none, ptr = torch.empty_like(instance), instance.new_zeros(2 if batch is None else 1)
        return InstanceIndex(none, none.bool(), none, none, none, none, none, ptr, ptr, none, instance.new_zeros(1))
    return _index_points(instance, batch, ID_BITS)


def _index_points(instance: Tensor, batch: Tensor | None, id_bits: int) -> InstanceIndex:
    """:func:`index_instances` of at least one point: one sort by cloud and id, and one question to the device.

    The key of the sort is cloud · 2^``id_bits`` + id; labels that do not fit are ranked, and sorted by their ranks.
    """
    n = instance.numel()
    valid = instance != IGNORED
    numbers = torch.arange(IGNORED, n + 1, device=instance.device)
    key = instance
    if batch is not None:  # negative ids stay, and come first
        key = torch.where(instance >= 0, torch.add(instance, batch, alpha=1 << id_bits), instance)
    key, rows = key.sort(stable=True)
    changes = (key[1:] != key[:-1]).cumsum(0)

    # All that decides about sizes, in one read-back: how many keys lie below −100, −99, …, 0; and the rest by name.
    below = torch.searchsorted(key, numbers[: 1 - IGNORED])
    facts = [below, instance.amax()[None], *([changes[-1:]] if n > 1 else [instance.new_zeros(1)])]
    if batch is not None:
        facts += [batch[:1], batch[-1:], (batch[1:] < batch[:-1]).any()[None]]
    answers: list[int] = torch.cat(facts).tolist()
    counts, (largest, changed, *of_clouds) = answers[: len(below)], answers[len(below) :]
    low, high, unsorted = of_clouds if of_clouds else (0, 0, 0)
    if batch is not None and unsorted:
        low, high = torch.stack(batch.aminmax()).tolist()
    if low < 0:
        raise ValueError(f"expected cloud numbers >= 0 in batch, got {low}")
    if high >> RANK_BITS > 0:
        raise ValueError(f"expected cloud numbers < 2^{RANK_BITS} in batch, got {high}")
    if batch is not None and max(largest >> id_bits, high >> (62 - id_bits)) > 0:
        names, ranks = instance.unique(return_inverse=True)
        negative = int((names < 0).sum())
        ranked = _index_points(torch.where(instance < 0, instance, ranks - negative), batch, RANK_BITS)
        return ranked._replace(id=names[negative:][ranked.id])
    if counts[0] > 0 or counts[NO_INSTANCE - IGNORED] > counts[1]:
        wrong = (instance < 0) & (instance != NO_INSTANCE) & (instance != IGNORED)
        raise ValueError(
            f"expected instance ids >= 0, {NO_INSTANCE} (no instance) or {IGNORED} (ignored), got "
            f"{int(instance[wrong][0])}; probemb_lib.LabelConvention converts what other codebases use"
        )

    ignored, first = counts[1], counts[-1]  # of the sorted points, ``first`` is the first member of an instance
    others = (ignored > 0) + (first > ignored)  # numbers that are not an instance's
    num_clouds, num_instances = high + 1, changed + 1 - others
    counting = numbers[-IGNORED:] if num_clouds <= n else torch.arange(num_clouds + 1, device=instance.device)
    number = changes[first - 1 :] - others if first > 0 else torch.nn.functional.pad(changes, (1, 0))
    member = rows[first:]
    member_ptr = torch.searchsorted(number, counting[: num_instances + 1])
    pairs = key[first:].index_select(0, member_ptr[:-1])
    clouds = torch.zeros_like(pairs) if batch is None else pairs >> id_bits
    point_batch = torch.zeros_like(instance) if batch is None else batch
    if ignored == 0 and not unsorted:
        order, cloud_of = numbers[-IGNORED:-1], point_batch
    else:
        cloud_of, order = torch.where(valid, point_batch, counting[num_clouds]).sort(stable=True)
        cloud_of, order = cloud_of[: n - ignored], order[: n - ignored]
    return InstanceIndex(
        index=torch.full_like(instance, NO_INSTANCE).index_copy_(0, member, number),
        valid=valid,
        size=member_ptr.diff(),
        batch=clouds,
        id=pairs if batch is None else pairs & ((1 << id_bits) - 1),
        point_batch=point_batch,
        order=order,
        ptr=torch.searchsorted(cloud_of, counting[: num_clouds + 1]),
        instance_ptr=torch.searchsorted(clouds, counting[: num_clouds + 1]),
        member=member,
        member_ptr=member_ptr,
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
    check_covariance(covariance)
    moments = torch.stack([x[0], torch.exp(2 * x[1])])
    mean, variance = (segment_sum(moments, index.member_ptr, member_instance(index)) / index.size).unbind()
    log_std = 0.5 * torch.log(variance)
    if covariance == "independent":
        log_std = log_std - 0.5 * torch.log(index.size.to(log_std.dtype))
    return torch.stack([mean, log_std])


def check_covariance(covariance: Covariance) -> None:
    """One of the two."""
    if covariance not in ("mean", "independent"):
        raise ValueError(f'expected covariance "mean" or "independent", got {covariance!r}')


def instance_classes(semantic: Tensor, index: InstanceIndex, num_classes: int) -> Tensor:
    """The class of each instance: that of most of its points, ties to the lowest; ignored points do not vote.

    Args:
        semantic: (N,) classes in [0, num_classes), −100 ignored.

    Returns:
        (K,) int64; −1 where all points of an instance are ignored.

    >>> instance_classes(torch.tensor([2, 1, 1]), index_instances(torch.tensor([0, 0, 0])), 3)
    tensor([1])
    """
    # One key a point; ignored points vote in a column of their own, the last.
    columns = num_classes + 1
    voted = semantic.index_select(0, index.member).clamp(-1, num_classes - 1).remainder(columns)
    key = torch.add(voted, member_instance(index), alpha=columns)
    # argmax does not promise the lowest of equal votes: rank by votes · L − class, which is positive with a vote.
    rank = torch.arange(0, -columns, -1, device=key.device).repeat(index.num_instances)
    rank = rank.scatter_add_(0, key, torch.full_like(key, num_classes)).view(-1, columns)[:, :num_classes]
    best, classes = rank.max(dim=1)
    return classes.masked_fill_(best <= 0, NO_INSTANCE)


def _integers(x: Tensor, name: str) -> Tensor:
    x = plain_tensor(x, name)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(
            f"{name}: expected integers, got {x.dtype}; cast whole numbers with .long(), NaN to {IGNORED} before"
        )
    if x.ndim != 1:
        raise ValueError(f"{name}: expected shape (N,), got {tuple(x.shape)}{to_pack(x, 1)}")
    return x.long()
