r"""Semi-convolutional embeddings: Novotny, Albanie, Larlus and Vedaldi, "Semi-convolutional Operators for Instance
Segmentation", ECCV 2018, arXiv 1807.10712.

The embedding of a point is its position plus what the network adds, Ψ_i = x_i + Φ_i, with zeros where Ψ has more
dimensions than the position, and all points of an instance are drawn to one place, their mean:

    L_pull = 1/C Σ_c 1/N_c Σ_i d(Ψ_i, mean_c Ψ).

The paper adds up the instances where this takes their mean. Points are compared by a Laplace kernel
K(i, j) = exp(−d(Ψ_i, Ψ_j)), d = ‖·‖₂/s, whose s the paper learns while it is a constant here (with Gaussian embeddings
σ is learned, of each point). The paper multiplies it into the masks of Mask R-CNN around a seed of the box. Without
boxes, the mask of an instance is the kernel around its seed, the member whose Ψ is nearest to the mean, trained by
binary cross entropy over all points of the cloud:

    L_mask = 1/C Σ_c 1/N Σ_i −[z_i = c] ln K(i, seed_c) − [z_i ≠ c] ln(1 − K(i, seed_c)).

The pull alone has no need to keep instances apart where the operator is convolutional, as the paper argues; a network
that knows absolute positions (PointNet++) can undo x, and collapses without the second term.

Grouping: greedy, as the probabilistic method: the open point with the highest foreground probability is the next seed,
its members are the open points with K ≥ ½. With Gaussian embeddings d = √(−ln κ).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from probemb_adapters.baselines.embedding import EmbeddingHead, all_pairs, kernel_distance
from probemb_adapters.baselines.method import clouds_of, mean_or_nothing, semantic_loss, total
from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    InstanceIndex,
    Instances,
    aggregate_instances,
    greedy_cluster,
)
from probemb_lib.aggregate import as_index
from probemb_lib.head import HIDDEN


def pull_loss(embedding: GaussianEmbedding, instance: Tensor | InstanceIndex, batch: Tensor | None = None) -> Tensor:
    """L_pull, the mean over the clouds with an instance.

    >>> x = GaussianEmbedding(torch.tensor([[0.0], [2.0]]), torch.full((2, 1), -0.5 * math.log(8)))
    >>> pull_loss(x, torch.tensor([0, 0]))
    tensor(1.)
    """
    index = as_index(instance, batch, embedding.mean)
    own, size = index.member_instance, index.size
    centers = aggregate_instances(embedding, index)
    d = kernel_distance(embedding.select(index.member), centers.select(own)) / size[own]
    of_instance = d.new_zeros(len(size)).index_add(0, own, d)  # (K,)
    clouds = [k for k in of_instance.tensor_split(index.instance_ptr[1:-1].cpu()) if k.numel()]
    return mean_or_nothing([k.mean() for k in clouds], *embedding)


def mask_loss(embedding: GaussianEmbedding, instance: Tensor | InstanceIndex, batch: Tensor | None = None) -> Tensor:
    """L_mask, the mean over the clouds with an instance."""
    index = as_index(instance, batch, embedding.mean)
    seeds = seed_points(embedding.detach(), index)
    terms = []
    for rows in clouds_of(index):
        own = seeds[index.batch == index.point_batch[rows[0]]]  # (C,)
        if own.numel():
            d = all_pairs(embedding.select(own), embedding.select(rows), kernel_distance)  # (C, n)
            inside = index.index[own][:, None] == index.index[rows]
            terms.append(torch.where(inside, d, -torch.log(-torch.expm1(-d))).mean())
    return mean_or_nothing(terms, *embedding)


def seed_points(embedding: GaussianEmbedding, index: InstanceIndex) -> Tensor:
    """(K,) row of the member nearest to the mean of each instance, ties to the lowest."""
    own = index.member_instance
    d = kernel_distance(embedding.select(index.member), aggregate_instances(embedding, index).select(own))
    order = d.argsort(stable=True)
    order = order[own[order].argsort(stable=True)]
    return index.member[order[index.member_ptr[:-1]]]


class SemiConvolutionalEmbedding:
    """The method: positions plus offsets, the two losses above, greedy grouping.

    Args:
        in_channels, num_classes, hidden: see :class:`~probemb_lib.ProbabilisticHead`.
        dim: of the embedding, at least that of the positions.
        probabilistic: Gaussian embeddings, compared by κ.
        scale: s, in the unit of the positions: about the radius of a small instance.
        mask_weight: of L_mask; 0 leaves the pull alone.
        threshold: of K in the grouping.
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
        scale: float = 0.25,
        mask_weight: float = 1.0,
        threshold: float = 0.5,
        min_points: int = 1,
        background: int | None = 0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        self.head = EmbeddingHead(
            in_channels,
            num_classes,
            dim,
            probabilistic=probabilistic,
            semi_convolutional=True,
            scale=scale,
            hidden=hidden,
        )
        self.mask_weight, self.threshold = mask_weight, threshold
        self.min_points, self.background = min_points, background

    def loss(
        self, output: HeadOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        index = as_index(instance, batch, output.logits)
        terms = {
            "pull": pull_loss(output.embedding, index),
            "mask": mask_loss(output.embedding, index),
            "semantic": semantic_loss(output.logits, index, semantic, self.background),
        }
        return total({"mask": self.mask_weight}, terms)

    @torch.no_grad()
    def group(self, output: HeadOutput, batch: Tensor | None = None) -> Instances:
        return greedy_cluster(
            output.embedding,
            output.probabilities,
            batch=batch,
            threshold=math.exp(-(math.log(self.threshold) ** 2)),  # κ = exp(−d²), K = exp(−d)
            min_points=self.min_points,
            background=self.background,
        )
