r"""PointGroup: Jiang, Zhao, Shi, Liu, Fu and Jia, "PointGroup: Dual-Set Point Grouping for 3D Instance Segmentation",
CVPR 2020, arXiv 2004.01658.

Each of the M points with an instance of a cloud has an offset o_i towards the centroid ĉ_i of its instance:

    L_reg = 1/M Σ_i ‖o_i − (ĉ_i − x_i)‖₁                             (Eq. 1)
    L_dir = −1/M Σ_i o_i/‖o_i‖ · (ĉ_i − x_i)/‖ĉ_i − x_i‖             (Eq. 2)

Points of one predicted class that are joined by steps of at most r make a cluster, once with the positions x and once
with the shifted x + o (section 3.2); clusters of fewer than N_θ points are dropped. A score network rates each cluster,
and learns by binary cross entropy how well it covers an instance (section 3.4):

    ŝ = 0 for IoU < θ_l = 0.25,   1 for IoU > θ_h = 0.75,   (IoU − θ_l)/(θ_h − θ_l) between,

IoU the largest with any instance of the cloud. Clusters that overlap a better one by IoU > 0.3 are suppressed.

Losses, their equal weights, N_θ, θ and both steps of the grouping are those of the authors' public program, which
besides drops clusters with a score of 0.09 or less, or 100 points or less, and lets instances share points.

Simplified: the score network is an MLP of the members' features and places about the cluster's centre, a maximum over
the members and an MLP, where the paper has a sparse U-Net; and it learns from the first step, not after a third of the
epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from probemb_adapters.baselines.method import (
    Branches,
    cloud_numbers,
    clouds_of,
    foreground_clouds,
    instances_of,
    mean_or_nothing,
    nothing,
    perceptron,
    semantic_loss,
    total,
)
from probemb_adapters.baselines.mtml import centers_of
from probemb_adapters.baselines.proposals import labels_of, suppress
from probemb_lib import InstanceIndex, Instances
from probemb_lib.aggregate import as_index
from probemb_lib.gaussian import at_least_float32
from probemb_lib.head import HIDDEN


class OffsetOutput(NamedTuple):
    """What the head gives for N points.

    Attributes:
        offset: (N, D).
        logits: (N, L).
        features: (N, C) of the backbone, for the score network.
        positions: (N, D).
    """

    offset: Tensor
    logits: Tensor
    features: Tensor
    positions: Tensor

    @property
    def probabilities(self) -> Tensor:
        """softmax(logits), (N, L)."""
        return self.logits.softmax(1)


def offset_losses(
    offset: Tensor, positions: Tensor, instance: Tensor | InstanceIndex, batch: Tensor | None = None
) -> dict[str, Tensor]:
    """The terms "offset" and "direction" (Eqs. 1 and 2), each the mean over the clouds with an instance.

    >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    >>> offset_losses(torch.tensor([[1.0, 1.0], [-1.0, 0.0]]), x, torch.tensor([0, 0]))
    {'offset': tensor(0.5000), 'direction': tensor(-0.8536)}
    """
    index = as_index(instance, batch, offset)
    member, own = index.member, index.member_instance
    target = centers_of(positions, index)[own] - positions[member]  # (M, D)
    far = (offset[member] - target).abs().sum(1)
    cosine = (normalize(offset[member]) * normalize(target)).sum(1)
    ends = index.member_ptr[index.instance_ptr[1:-1]].cpu()
    clouds = [(a, c) for a, c in zip(far.tensor_split(ends), cosine.tensor_split(ends), strict=True) if a.numel()]
    return {
        "offset": mean_or_nothing([a.mean() for a, _ in clouds], offset),
        "direction": mean_or_nothing([-c.mean() for _, c in clouds], offset),
    }


def components(points: Tensor, group: Tensor, radius: float) -> Tensor:
    """Points of one group that are joined by steps of at most ``radius``: (n,) the number of each point's component.

    >>> components(torch.tensor([[0.0], [1.0], [2.0], [5.0]]), torch.tensor([1, 1, 1, 1]), 1.0)
    tensor([0, 0, 0, 1])
    """
    x, of = points.detach().cpu().double().numpy(), group.cpu().numpy()
    pairs = cKDTree(x).query_pairs(radius, output_type="ndarray")
    a, b = pairs[of[pairs[:, 0]] == of[pairs[:, 1]]].T
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(x), len(x)))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long().to(points.device)


def soft_target(iou: Tensor, low: float = 0.25, high: float = 0.75) -> Tensor:
    """ŝ of the score network.

    >>> soft_target(torch.tensor([0.2, 0.5, 0.8]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return ((iou - low) / (high - low)).clamp(0, 1)


class OffsetHead(nn.Module):
    """Offsets and classes of points, scores of clusters."""

    def __init__(self, in_channels: int, num_classes: int, position_dim: int, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        width = hidden[-1] if hidden else in_channels
        self.branches = Branches(in_channels, (position_dim, num_classes), hidden)
        self.points = nn.Sequential(perceptron(in_channels + position_dim, width), nn.ReLU())
        self.clusters = perceptron(width, width, 1)

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> OffsetOutput:
        """``batch`` is accepted so that the heads exchange, and not needed."""
        offset, logits = self.branches(features)
        tied = nothing(*self.points.parameters(), *self.clusters.parameters())
        return OffsetOutput(offset + tied, logits, at_least_float32(features), at_least_float32(positions))

    def scores(self, output: OffsetOutput, rows: Tensor, masks: Tensor) -> Tensor:
        """(P,) before the sigmoid, of the clusters ``masks`` (P, n) of a cloud whose points are ``rows``."""
        of, point = masks.nonzero().unbind(1)
        x = output.positions[rows[point]]
        center = x.new_zeros((len(masks), x.shape[1])).index_add(0, of, x) / masks.sum(1)[:, None]
        members = self.points(torch.cat([output.features[rows[point]], x - center[of]], dim=1))
        index = of[:, None].expand_as(members)
        pooled = members.new_zeros((len(masks), members.shape[1])).scatter_reduce(0, index, members, "amax")
        return at_least_float32(self.clusters(pooled).squeeze(1))


class PointGroup:
    """The method.

    Args:
        in_channels, num_classes, hidden: see :class:`~probemb_lib.ProbabilisticHead`.
        position_dim: of the positions.
        radius: r, in the unit of the positions; the paper's 0.03 is for metres and points 0.02 apart.
        min_cluster: N_θ, 50 in the paper.
        max_overlap: IoU with a better cluster above which one is suppressed.
        min_points: least size of an instance, after its points went to better ones.
        background: column of no instance, or None.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        position_dim: int = 3,
        radius: float = 0.03,
        min_cluster: int = 50,
        max_overlap: float = 0.3,
        min_points: int = 1,
        background: int | None = 0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        self.head = OffsetHead(in_channels, num_classes, position_dim, hidden)
        self.radius, self.min_cluster, self.max_overlap = radius, min_cluster, max_overlap
        self.min_points, self.background = min_points, background

    @torch.no_grad()
    def clusters(self, output: OffsetOutput, rows: Tensor) -> Tensor:
        """(P, n) masks of the clusters of a cloud's foreground ``rows`` (n,): of its positions, then of the shifted."""
        columns = output.probabilities[rows]
        if self.background is not None:
            columns[:, self.background] = -1
        group, x = columns.argmax(1), output.positions[rows]
        found = [components(x, group, self.radius), components(x + output.offset[rows], group, self.radius)]
        masks = [label == torch.arange(int(label.max()) + 1, device=label.device)[:, None] for label in found]
        return torch.cat([m[m.sum(1) >= self.min_cluster] for m in masks])

    def loss(
        self, output: OffsetOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        index = as_index(instance, batch, output.logits)
        terms = offset_losses(output.offset, output.positions, index)
        terms["score"] = self._score_loss(output, index)
        terms["semantic"] = semantic_loss(output.logits, index, semantic, self.background)
        return total({}, terms)

    def _score_loss(self, output: OffsetOutput, index: InstanceIndex) -> Tensor:
        losses = []
        for valid in clouds_of(index):
            p = output.probabilities[valid]
            of_cloud = (index.batch == index.point_batch[valid[0]]).nonzero()  # (C, 1)
            for own in foreground_clouds(p, torch.zeros_like(valid), self.background):
                masks = self.clusters(output, valid[own])
                if len(masks) and len(of_cloud):
                    size = index.size[of_cloud[:, 0]]
                    iou = _iou_with(masks, index.index[valid[own]] == of_cloud, size).amax(1)
                    logit = self.head.scores(output, valid[own], masks)
                    losses.append(binary_cross_entropy_with_logits(logit, soft_target(iou)))
        return mean_or_nothing(losses, output.offset)

    @torch.no_grad()
    def group(self, output: OffsetOutput, batch: Tensor | None = None) -> Instances:
        p = output.probabilities
        cloud = cloud_numbers(p, batch)
        label, scores = torch.full_like(cloud, -1), [p.new_zeros(0)]
        for rows in foreground_clouds(p, cloud, self.background):
            masks = self.clusters(output, rows)
            score = self.head.scores(output, rows, masks).sigmoid() if len(masks) else p.new_zeros(0)
            kept = suppress(masks, score, self.max_overlap)
            own = labels_of(masks[kept])
            label[rows] = torch.where(own >= 0, own + sum(map(len, scores)), -1)
            scores.append(score[kept])
        return instances_of(
            label,
            p,
            output.positions,
            batch,
            background=self.background,
            score=torch.cat(scores),
            min_points=self.min_points,
        )


def _iou_with(masks: Tensor, instances: Tensor, size: Tensor) -> Tensor:
    """(P, C) IoU of clusters (P, n) with instances (C, n) that have ``size`` (C,) points, those outside too."""
    with torch.autocast(masks.device.type, enabled=False):
        both = masks.float() @ instances.float().T
    return both / (masks.sum(1)[:, None] + size - both)
