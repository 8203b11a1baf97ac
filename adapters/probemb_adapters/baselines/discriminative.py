r"""The discriminative loss and mean shift: De Brabandere, Neven and Van Gool, "Semantic Instance Segmentation with a
Discriminative Loss Function", 2017, arXiv 1708.02551.

For a cloud of C instances with N_c points each, embeddings e and the centres μ_c of the instances,

    L_var  = 1/C Σ_c 1/N_c Σ_i [d(μ_c, e_i) − δ_v]₊²            (Eq. 1)
    L_dist = 1/(C (C − 1)) Σ_{a ≠ b} [2 δ_d − d(μ_a, μ_b)]₊²    (Eq. 2)
    L_reg  = 1/C Σ_c d(μ_c, 0)                                  (Eq. 3)
    L      = L_var + L_dist + 0.001 L_reg                       (Eq. 4)

with d = ‖·‖₂, δ_v = 0.5 and δ_d = 1.5. Classes are learned beside it by cross entropy.

Grouping (section 2.3): around an open point all open points within the bandwidth are averaged, again around their mean
until they stay the same, and become an instance. The paper starts at a random point; here at the one with the highest
foreground probability, so that the result does not depend on the order of points.

With Gaussian embeddings d = √(−ln κ), and the centre of an instance is its aggregate
(:func:`~probemb_lib.aggregate_instances`); 0 then is the Gaussian at the origin with the σ of the centre.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import relu

from probemb_adapters.baselines.embedding import Distance, EmbeddingHead, kernel_distance, repeated
from probemb_adapters.baselines.method import (
    best_first,
    cloud_numbers,
    foreground_clouds,
    instances_of,
    nothing,
    semantic_loss,
    total,
)
from probemb_lib import GaussianEmbedding, HeadOutput, InstanceIndex, Instances, aggregate_instances
from probemb_lib.aggregate import as_index
from probemb_lib.head import HIDDEN

ITERATIONS = 50  # of mean shift around one point


def discriminative_loss(
    embedding: GaussianEmbedding,
    instance: Tensor | InstanceIndex,
    batch: Tensor | None = None,
    *,
    delta_v: float = 0.5,
    delta_d: float = 1.5,
    distance: Distance = kernel_distance,
) -> dict[str, Tensor]:
    """The terms "var", "dist" and "reg" (Eqs. 1-3), each the mean over the clouds that have it: one instance, or two.

    Args:
        embedding: N Gaussians; of deterministic ones σ² = 1/8 makes ``distance`` Euclidean.
        instance: (N,) ids, or their index.
        batch: (N,) cloud of each point; not needed with an index.
        delta_v, delta_d: margins, in the unit of ``distance``.

    >>> x = GaussianEmbedding(torch.tensor([[0.0], [2.0], [3.0]]), torch.full((3, 1), -0.5 * 8 ** 0.5))
    >>> losses = discriminative_loss(x, torch.tensor([0, 0, 1]), distance=lambda x, y: (x.mean - y.mean).abs().sum(-1))
    >>> {name: round(value.item(), 3) for name, value in losses.items()}
    {'var': 0.125, 'dist': 1.0, 'reg': 2.0}
    """
    index = as_index(instance, batch, embedding.mean)
    centers = aggregate_instances(embedding, index)
    own = index.member_instance
    pull = relu(distance(embedding.select(index.member), centers.select(own)) - delta_v).square()  # (M,)
    pull = pull.new_zeros(len(index.size)).index_add(0, own, pull) / index.size  # (K,)
    a, b = ((index.batch[:, None] == index.batch) & ~_diagonal(index)).nonzero().unbind(1)
    push = relu(2 * delta_d - distance(centers.select(a), centers.select(b))).square()  # (pairs,)
    size = distance(centers, centers._replace(mean=torch.zeros_like(centers.mean)))  # (K,)
    count = torch.bincount(index.batch, minlength=index.num_clouds)
    return {
        "var": _mean(pull, index.batch, count, embedding),
        "dist": _mean(push, index.batch[a], count * (count - 1), embedding),
        "reg": _mean(size, index.batch, count, embedding),
    }


def _diagonal(index: InstanceIndex) -> Tensor:
    return torch.eye(len(index.size), dtype=torch.bool, device=index.size.device)


def _mean(values: Tensor, cloud: Tensor, count: Tensor, embedding: GaussianEmbedding) -> Tensor:
    """The mean of a cloud's values, then over the clouds that have any."""
    sums = values.new_zeros(len(count)).index_add(0, cloud, values)
    having = (count > 0).sum()
    return (sums / count.clamp_min(1)).sum() / having.clamp_min(1) + nothing(*embedding)


@torch.no_grad()
def mean_shift(x: GaussianEmbedding, order: Tensor, bandwidth: float, distance: Distance = kernel_distance) -> Tensor:
    """Clusters of one cloud by mean shift with a flat kernel: (n,) numbers from 0, in the order of creation.

    Args:
        x: n Gaussians.
        order: (n,) rows, those to start at first.
        bandwidth: radius of the kernel, in the unit of ``distance``.
    """
    label = torch.full((len(order),), -1, dtype=torch.int64, device=x.mean.device)
    rows, count = torch.arange(len(order), device=x.mean.device), 0
    for start in order.tolist():
        if label[start] >= 0:
            continue
        rows = rows[label[rows] < 0]
        open_points, near, center = x.select(rows), rows == start, x.select(rows[rows == start])
        for _ in range(ITERATIONS):
            found = distance(open_points, repeated(center, len(rows))) <= bandwidth
            if not bool(found.any()) or bool((found == near).all()):
                break
            near = found
            center = _aggregate(open_points.select(near))
        label[rows[near]] = count
        label[start] = count  # also where the mean has left it behind
        count += 1
    return label


def _aggregate(x: GaussianEmbedding) -> GaussianEmbedding:
    """Mean μ and mean σ² of some Gaussians, one row."""
    return GaussianEmbedding(x.mean.mean(0, keepdim=True), 0.5 * x.log_std.mul(2).exp().mean(0, keepdim=True).log())


def cluster_foreground(
    embedding: GaussianEmbedding,
    probabilities: Tensor,
    batch: Tensor | None,
    bandwidth: float,
    background: int | None,
    distance: Distance = kernel_distance,
) -> Tensor:
    """:func:`mean_shift` of the foreground of each cloud: (N,) numbers that no two clouds share, −1 the background."""
    batch = cloud_numbers(probabilities, batch)
    label, count = torch.full_like(batch, -1), 0
    for rows in foreground_clouds(probabilities, batch, background):
        own = mean_shift(embedding.select(rows), best_first(probabilities[rows], background), bandwidth, distance)
        label[rows] = own + count
        count += int(own.max()) + 1
    return label


class DiscriminativeEmbedding:
    """The method: a free embedding, the discriminative loss and mean shift.

    Args:
        in_channels, num_classes, hidden: see :class:`~probemb_lib.ProbabilisticHead`.
        dim: of the embedding; the paper takes 8 on streets, 16 on leaves.
        probabilistic: Gaussian embeddings, compared by κ.
        delta_v, delta_d: margins.
        bandwidth: of mean shift; by default δ_v, as in the paper.
        min_points: least size of an instance.
        background: column of no instance, or None.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dim: int = 8,
        probabilistic: bool = False,
        delta_v: float = 0.5,
        delta_d: float = 1.5,
        bandwidth: float | None = None,
        min_points: int = 1,
        background: int | None = 0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        self.head = EmbeddingHead(in_channels, num_classes, dim, probabilistic=probabilistic, hidden=hidden)
        self.delta_v, self.delta_d, self.background, self.min_points = delta_v, delta_d, background, min_points
        self.bandwidth = delta_v if bandwidth is None else bandwidth

    def loss(
        self, output: HeadOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        index = as_index(instance, batch, output.logits)
        terms = discriminative_loss(output.embedding, index, delta_v=self.delta_v, delta_d=self.delta_d)
        terms["semantic"] = semantic_loss(output.logits, index, semantic, self.background)
        return total({"reg": 0.001}, terms)

    @torch.no_grad()
    def group(self, output: HeadOutput, batch: Tensor | None = None) -> Instances:
        x, p = output.embedding, output.probabilities
        label = cluster_foreground(x, p, batch, self.bandwidth, self.background)
        return instances_of(label, p, x, batch, background=self.background, min_points=self.min_points)
