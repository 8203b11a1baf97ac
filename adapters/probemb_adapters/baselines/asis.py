r"""ASIS: Wang, Liu, Shen, Shen and Jia, "Associatively Segmenting Instances and Semantics in Point Clouds", CVPR 2019,
arXiv 1902.09852.

Two branches give features of classes F_sem and of instances F_ins, and each informs the other (section 3.2):

    F_sins = F_ins + ReLU(linear(F_sem)),   E = linear(F_sins), the embedding, D = 5;
    F_isem,i = max over the neighbours of i of F_sem,   logits = linear(F_isem),

where the neighbours of a point are the at most K = 30 nearest in the embedding, itself first, that are within δ_v. The
loss is the discriminative one (:mod:`probemb_adapters.baselines.discriminative`) with d = ‖·‖₁ and weight 0.001 of
L_reg, beside cross entropy. Mean shift with bandwidth 0.6 gives the instances.

All this is as in the authors' public program, but: it groups by scikit-learn's mean shift, where a point belongs to
the nearest mode, with bandwidth 1 by default, and drops instances under a quarter of the mean size of their class; here
points that the mean has reached leave, as in the grouping of the discriminative loss, and `min_points` decides. Its
dropout before both last layers is left out, as our branches have none.

With Gaussian embeddings d = √(−ln κ) everywhere: in the loss, among neighbours, in mean shift.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from probemb_adapters.baselines.discriminative import cluster_foreground, discriminative_loss
from probemb_adapters.baselines.embedding import Distance, distance_matrix, gaussian, kernel_distance, manhattan
from probemb_adapters.baselines.method import Branches, cloud_numbers, instances_of, nothing, semantic_loss, total
from probemb_lib import GaussianEmbedding, HeadOutput, InstanceIndex, Instances
from probemb_lib.aggregate import as_index
from probemb_lib.gaussian import at_least_float32
from probemb_lib.head import HIDDEN

TILE = 1 << 20
"""Distances of one tile of the search for neighbours."""


@torch.no_grad()
def neighbours(
    x: GaussianEmbedding, batch: Tensor, count: int, radius: float, distance: Distance
) -> tuple[Tensor, Tensor]:
    """The nearest points in the embedding, of the own cloud: rows (N, count), and whether each is within ``radius``.

    The first is the point itself. Where a cloud has fewer points, or they are farther, the point itself stands there.
    """
    rows = torch.arange(len(batch), device=batch.device)[:, None].repeat(1, count)
    within = torch.zeros_like(rows, dtype=torch.bool)
    within[:, 0] = True
    order = batch.argsort(stable=True)
    for own in order.split(batch[order].unique_consecutive(return_counts=True)[1].tolist()):
        near = min(count, len(own))
        for tile in own.split(max(1, TILE // len(own))):
            d = distance_matrix(x.select(tile), x.select(own), distance)
            d[tile[:, None] == own] = -1  # itself, before its equals
            least, column = d.topk(near, dim=1, largest=False)
            within[tile, :near] = least <= radius
            rows[tile, :near] = torch.where(least <= radius, own[column], tile[:, None])
    return rows, within


class ASISHead(nn.Module):
    """The two branches and what each gives the other; see the module."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dim: int,
        *,
        probabilistic: bool,
        neighbours: int,
        radius: float,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__()
        width = hidden[-1] if hidden else in_channels
        self.dim, self.neighbours, self.radius = dim, neighbours, radius
        self.distance: Distance = kernel_distance if probabilistic else manhattan
        self.branches = Branches(in_channels, (width, width), hidden[:-1])
        self.adapt = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.embed = nn.Linear(width, 2 * dim if probabilistic else dim)
        self.classify = nn.Linear(width, num_classes)

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> HeadOutput:
        semantic, instance = (branch.relu() for branch in self.branches(features))
        embedding = at_least_float32(self.embed(instance + self.adapt(semantic))) + nothing(*self.parameters())
        offset, *log_std = embedding.split(self.dim, dim=1)
        x = gaussian(offset, None, log_std[0] if log_std else None, 1.0)
        fused = semantic
        if len(features):
            cloud = cloud_numbers(features, batch)
            rows, _ = neighbours(x.detach(), cloud, self.neighbours, self.radius, self.distance)
            fused = semantic[rows].amax(1)  # (N, K, width) → (N, width)
        return HeadOutput(x, at_least_float32(self.classify(fused)))


class ASIS:
    """The method.

    Args:
        in_channels, num_classes, hidden: see :class:`~probemb_lib.ProbabilisticHead`; the last layer of both branches
            is where they meet.
        dim: of the embedding.
        probabilistic: Gaussian embeddings, compared by κ, for ‖·‖₁.
        neighbours: K, the point itself counted.
        delta_v, delta_d: margins.
        bandwidth: of mean shift.
        min_points: least size of an instance.
        background: column of no instance, or None.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dim: int = 5,
        probabilistic: bool = False,
        neighbours: int = 30,
        delta_v: float = 0.5,
        delta_d: float = 1.5,
        bandwidth: float = 0.6,
        min_points: int = 1,
        background: int | None = 0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        self.head = ASISHead(
            in_channels,
            num_classes,
            dim,
            probabilistic=probabilistic,
            neighbours=neighbours,
            radius=delta_v,
            hidden=hidden,
        )
        self.delta_v, self.delta_d, self.bandwidth = delta_v, delta_d, bandwidth
        self.min_points, self.background = min_points, background

    def loss(
        self, output: HeadOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        index = as_index(instance, batch, output.logits)
        terms = discriminative_loss(
            output.embedding, index, delta_v=self.delta_v, delta_d=self.delta_d, distance=self.head.distance
        )
        terms["semantic"] = semantic_loss(output.logits, index, semantic, self.background)
        return total({"reg": 0.001}, terms)

    @torch.no_grad()
    def group(self, output: HeadOutput, batch: Tensor | None = None) -> Instances:
        x, p = output.embedding, output.probabilities
        label = cluster_foreground(x, p, batch, self.bandwidth, self.background, self.head.distance)
        return instances_of(label, p, x, batch, background=self.background, min_points=self.min_points)
