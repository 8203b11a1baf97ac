r"""SGPN: Wang, Yu, Huang and Neumann, "SGPN: Similarity Group Proposal Network for 3D Point Cloud Instance
Segmentation", CVPR 2018, arXiv 1711.08588.

Every point proposes the points near it in a feature space, S_ij = ‖F_i − F_j‖₂. The double hinge over pairs of a cloud

    l(i, j) = S_ij                    in the same instance,
              α max(0, K₁ − S_ij)     in two instances of one class,
              max(0, K₂ − S_ij)       in instances of two classes,        K₂ > K₁,

here averaged over the pairs; points of no instance are in no pair. The confidence c_i learns how good a proposal is,

    L_conf = mean_i (c_i − IoU({j : S_ij < Th_S}, instance of i))²,

a constant target, 0 for points of no instance. α grows in the paper from 2 by 2 every 5 epochs; set ``alpha`` for that.

The paper keeps S, N × N. Here a tile of rows at a time is computed, and again in backward, so that memory is O(N).

Grouping: proposals of foreground points with c_i > Th_C and at least Th_M2 points are taken by descending confidence.
One that overlaps a group by IoU > Th_M1 is merged into it, and the larger of both stays; any other opens a group. A
point of several groups belongs to the one that was opened first (in the paper: to any). The score is the confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.utils.checkpoint import checkpoint

from probemb_adapters.baselines.method import (
    Branches,
    cloud_numbers,
    clouds_of,
    foreground_clouds,
    instances_of,
    mean_or_nothing,
    semantic_loss,
    total,
)
from probemb_adapters.baselines.proposals import labels_of, mask_iou
from probemb_lib import InstanceIndex, Instances
from probemb_lib.aggregate import as_index, instance_classes
from probemb_lib.gaussian import at_least_float32
from probemb_lib.head import HIDDEN

TILE = 1 << 22
"""Pairs of one tile."""


class SimilarityOutput(NamedTuple):
    """What the head gives for N points.

    Attributes:
        features: (N, F), compared by their distance.
        confidence: (N,) before the sigmoid.
        logits: (N, L).
        positions: (N, D).
    """

    features: Tensor
    confidence: Tensor
    logits: Tensor
    positions: Tensor


def distances(x: Tensor, rows: Tensor) -> Tensor:
    """S of some rows of x (N, F) with all, (R, N), by a product of matrices; 0 with itself, no slope under 1e-6.

    >>> distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([1]))
    tensor([[5., 0.]])
    """
    x = x - x.detach().mean(0)  # what large numbers would lose
    with torch.autocast(x.device.type, enabled=False):
        square = x.square().sum(1)
        s = (square[rows, None] + square - 2 * x[rows] @ x.T).clamp_min(1e-12).sqrt()
    return s.masked_fill(rows[:, None] == torch.arange(len(x), device=x.device), 0)


def double_hinge(
    s: Tensor, same_instance: Tensor, same_class: Tensor, alpha: float, margin: float, class_margin: float
) -> Tensor:
    """l of pairs, any shape: margin K₁ within a class, ``class_margin`` K₂ between classes.

    >>> same = torch.tensor([True, False, False])
    >>> double_hinge(torch.tensor([3.0, 3.0, 3.0]), same, torch.tensor([True, True, False]), 2.0, 10.0, 80.0)
    tensor([ 3., 14., 77.])
    """
    apart = torch.where(same_class, alpha * relu(margin - s), relu(class_margin - s))
    return torch.where(same_instance, s, apart)


def _tile(x: Tensor, rows: Tensor, of: Tensor, kind: Tensor, alpha: float, margins: tuple[float, float]) -> Tensor:
    """Σ of l over the pairs of some rows with all points."""
    same, same_class = of[rows][:, None] == of, kind[rows][:, None] == kind
    return double_hinge(distances(x, rows), same, same_class, alpha, *margins).sum()


@torch.no_grad()
def _proposal_iou(x: Tensor, rows: Tensor, of: Tensor, radius: float) -> Tensor:
    """IoU of the proposals of some rows with their instances; 0 for points of none."""
    proposed, true = distances(x, rows) < radius, of[rows][:, None] == of
    iou = (proposed & true).sum(1).to(x.dtype) / (proposed | true).sum(1)
    return torch.where(of[rows] >= 0, iou, 0)


def similarity_losses(
    features: Tensor,
    confidence: Tensor,
    instance: Tensor | InstanceIndex,
    semantic: Tensor,
    batch: Tensor | None = None,
    *,
    alpha: float = 2.0,
    margin: float = 10.0,
    class_margin: float = 80.0,
    radius: float = 10.0,
    num_classes: int,
    tile: int = TILE,
) -> dict[str, Tensor]:
    """The terms "similarity" and "confidence", each the mean over the clouds that have it.

    Args:
        features: (N, F).
        confidence: (N,) before the sigmoid.
        semantic: (N,) classes in [0, num_classes); the majority of an instance counts.
        radius: Th_S, within which a point proposes others.
        tile: pairs at a time.
    """
    index = as_index(instance, batch, features)
    class_of = instance_classes(semantic, index, num_classes)
    similarity, confident = [], []
    for rows in clouds_of(index):
        x, of = features[rows], index.index[rows]
        step = max(1, tile // len(rows))
        parts = torch.arange(len(rows), device=rows.device).split(step)
        iou = torch.cat([_proposal_iou(x.detach(), r, of, radius) for r in parts])
        confident.append((confidence[rows].sigmoid() - iou).square().mean())
        member = of >= 0
        if bool(member.any()):
            x, of = x[member], of[member]
            sums = [
                checkpoint(_tile, x, r, of, class_of[of], alpha, (margin, class_margin), use_reentrant=False)
                for r in torch.arange(len(of), device=of.device).split(max(1, tile // len(of)))
            ]
            similarity.append(torch.stack(sums).sum() / len(of) ** 2)
    return {
        "similarity": mean_or_nothing(similarity, features),
        "confidence": mean_or_nothing(confident, confidence),
    }


@torch.no_grad()
def merge_groups(
    features: Tensor, confidence: Tensor, *, radius: float, min_confidence: float, min_points: int, overlap: float
) -> tuple[Tensor, Tensor]:
    """The groups of one cloud: masks (G, n) in the order they were opened, and their confidence (G,).

    Args:
        features: (n, F).
        confidence: (n,) in [0, 1].
    """
    n = len(features)
    masks, scores = torch.zeros((0, n), dtype=torch.bool, device=features.device), []
    order = confidence.argsort(descending=True, stable=True)
    order = order[confidence[order] > min_confidence]
    for rows in order.split(max(1, TILE // max(n, 1))):
        proposals = distances(features, rows) < radius
        for row, mask, size in zip(rows.tolist(), proposals, proposals.sum(1).tolist(), strict=True):
            if size < min_points:
                continue
            shared = mask_iou(mask[None], masks)[0]
            if len(masks) and float(shared.max()) > overlap:
                group = int(shared.argmax())
                if size > int(masks[group].sum()):
                    masks[group] = mask
            else:
                masks = torch.cat([masks, mask[None]])
                scores.append(confidence[row])
    return masks, torch.stack(scores) if scores else confidence[:0]


class SimilarityHead(nn.Module):
    """Features to compare, confidences and class logits."""

    def __init__(self, in_channels: int, num_classes: int, width: int, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        self.branches = Branches(in_channels, (width, 1, num_classes), hidden)

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> SimilarityOutput:
        """``batch`` is accepted so that the heads exchange, and not needed."""
        similar, confidence, logits = self.branches(features)
        return SimilarityOutput(similar, confidence.squeeze(1), logits, at_least_float32(positions))


class SGPN:
    """The method.

    Args:
        in_channels, num_classes, hidden: see :class:`~probemb_lib.ProbabilisticHead`.
        width: F, of the features that are compared.
        alpha, margin, class_margin: α, K₁ and K₂ of the double hinge.
        radius: Th_S; by default K₁.
        min_confidence, overlap: Th_C and Th_M1.
        min_points: Th_M2, the least size of a proposal, and of an instance.
        background: column of no instance, or None.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        width: int = 128,
        alpha: float = 2.0,
        margin: float = 10.0,
        class_margin: float = 80.0,
        radius: float | None = None,
        min_confidence: float = 0.1,
        overlap: float = 0.6,
        min_points: int = 1,
        background: int | None = 0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        self.head = SimilarityHead(in_channels, num_classes, width, hidden)
        self.alpha, self.margin, self.class_margin = alpha, margin, class_margin
        self.radius = margin if radius is None else radius
        self.min_confidence, self.overlap = min_confidence, overlap
        self.min_points, self.background = min_points, background

    def loss(
        self, output: SimilarityOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        index = as_index(instance, batch, output.logits)
        terms = similarity_losses(
            output.features,
            output.confidence,
            index,
            semantic,
            alpha=self.alpha,
            margin=self.margin,
            class_margin=self.class_margin,
            radius=self.radius,
            num_classes=output.logits.shape[1],
        )
        terms["semantic"] = semantic_loss(output.logits, index, semantic, self.background)
        return total({}, terms)

    @torch.no_grad()
    def group(self, output: SimilarityOutput, batch: Tensor | None = None) -> Instances:
        p = output.logits.softmax(1)
        cloud = cloud_numbers(p, batch)
        label, scores = torch.full_like(cloud, -1), [p.new_zeros(0)]
        for rows in foreground_clouds(p, cloud, self.background):
            masks, score = merge_groups(
                output.features[rows],
                output.confidence[rows].sigmoid(),
                radius=self.radius,
                min_confidence=self.min_confidence,
                min_points=self.min_points,
                overlap=self.overlap,
            )
            own = labels_of(masks)
            label[rows] = torch.where(own >= 0, own + sum(map(len, scores)), -1)
            scores.append(score)
        return instances_of(
            label,
            p,
            output.positions,
            batch,
            background=self.background,
            score=torch.cat(scores),
            min_points=self.min_points,
        )
