"""What the library has already, behind the same interface: its own method, learnable margins, positions alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from probemb_adapters.baselines.method import cloud_numbers, instances_of, nothing
from probemb_lib import (
    CenterAwareLoss,
    DeterministicHead,
    HeadOutput,
    InstanceIndex,
    Instances,
    LearnableMarginHead,
    LearnableMarginLoss,
    MarginOutput,
    ProbabilisticEmbeddingLoss,
    ProbabilisticHead,
    ScoreCrossEntropyLoss,
    greedy_cluster,
    margin_cluster,
)
from probemb_lib.aggregate import as_index
from probemb_lib.gaussian import at_least_float32
from probemb_lib.head import HIDDEN
from probemb_lib.losses.combined import ScoreLoss


class ProbabilisticEmbedding:
    """The method of this library: Eq. 15 and greedy clustering (Eq. 11).

    Args:
        in_channels, num_classes, dim, offset_scale, initial_std, hidden: see :class:`~probemb_lib.ProbabilisticHead`.
        probabilistic: False: σ is a constant (:class:`~probemb_lib.DeterministicHead`).
        complement: give what the similarity leaves of an instance's points to a column of its own
            (:class:`~probemb_lib.CenterAwareLoss`), for data of one class.
        cross_entropy: learn classes by the cross entropy of all points (Eq. 12) in place of the center-aware loss.
        score_weight: factor of the loss of the classes; None is the number of columns, which Eqs. 10 and 12 divide by.
        threshold: τ.
        refine: let the members decide, see :func:`~probemb_lib.refine_instances`.
        join: make one of instances that are so similar, see :func:`~probemb_lib.join_instances`.
        min_points: least size of an instance.
        background: column of no instance, or None.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dim: int = 3,
        probabilistic: bool = True,
        offset_scale: float = 1.0,
        initial_std: float | None = None,
        complement: bool = False,
        cross_entropy: bool = False,
        score_weight: float | None = 1.0,
        threshold: float = 0.35,
        refine: bool = False,
        join: float | None = None,
        min_points: int = 1,
        background: int | None = 0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        self.head: nn.Module
        columns = num_classes + complement
        if probabilistic:
            self.head = ProbabilisticHead(
                in_channels, columns, dim, offset_scale=offset_scale, initial_std=initial_std, hidden=hidden
            )
        else:
            self.head = DeterministicHead(in_channels, columns, dim, offset_scale=offset_scale, hidden=hidden)
        column = num_classes if complement else None
        score: ScoreLoss = CenterAwareLoss(background=background, complement=complement, complement_column=column)
        if cross_entropy:
            score = ScoreCrossEntropyLoss(background=background)
        weight = float(columns) if score_weight is None else score_weight
        self.objective, self.num_classes = ProbabilisticEmbeddingLoss(score, score_weight=weight), num_classes
        self.threshold, self.refine, self.join = threshold, refine, join
        self.min_points, self.background = min_points, background

    def loss(
        self, output: HeadOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.objective(output, instance, semantic, batch)
        return losses

    def group(self, output: HeadOutput, batch: Tensor | None = None) -> Instances:
        probabilities = output.probabilities[:, : self.num_classes]
        if self.background is not None and probabilities.shape[1] < output.logits.shape[1]:
            # Background is what is likelier that than all else together: else outer points would be left out.
            probabilities = probabilities.clone()
            probabilities[:, self.background] = (probabilities[:, self.background] > 0.5).to(probabilities)
        return greedy_cluster(
            output.embedding,
            probabilities,
            batch=batch,
            threshold=self.threshold,
            refine=self.refine,
            join=self.join,
            min_points=self.min_points,
            background=self.background,
        )


class LearnableMargin:
    """Neven et al., "Instance Segmentation by Jointly Optimizing Spatial Embeddings and Clustering Bandwidth", CVPR
    2019: :mod:`probemb_lib.margin`.

    Args:
        in_channels, num_classes, dim, offset_scale, initial_margin, hidden: see
            :class:`~probemb_lib.LearnableMarginHead`.
        min_score, min_points: see :func:`~probemb_lib.margin_cluster`.
        background: column of no instance, or None.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dim: int = 3,
        offset_scale: float = 1.0,
        initial_margin: float | None = None,
        min_score: float = 0.5,
        min_points: int = 129,
        background: int | None = 0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        self.head = LearnableMarginHead(
            in_channels, num_classes, dim, offset_scale=offset_scale, initial_margin=initial_margin, hidden=hidden
        )
        self.objective = LearnableMarginLoss(background=background)
        self.min_score, self.min_points, self.background = min_score, min_points, background

    def loss(
        self, output: MarginOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.objective(output, instance, semantic, batch)
        return losses

    def group(self, output: MarginOutput, batch: Tensor | None = None) -> Instances:
        return margin_cluster(
            output.embedding,
            output.probabilities,
            batch=batch,
            min_score=self.min_score,
            min_points=self.min_points,
            background=self.background,
        )


class AnyClusters(Protocol):
    """What a clustering of positions gives; that of `probemb_adapters.experiments.baselines` is one."""

    @property
    def label(self) -> Tensor: ...

    @property
    def score(self) -> Tensor: ...


class PositionOutput(NamedTuple):
    """The positions (N, D), as nothing is predicted."""

    positions: Tensor


class PositionHead(nn.Module):
    """Hands the positions on; without a parameter, and without a look at the features."""

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> PositionOutput:
        return PositionOutput(at_least_float32(positions) + nothing(features))


class PositionClusters:
    """Any clustering of the positions of a cloud, such as `probemb_adapters.experiments.baselines.DBSCAN`.

    All instances have class 0, so class-agnostic data alone make sense. The loss is 0.

    Args:
        clusterer: from positions (n, D) of a cloud to labels (n,) with −1 for none, and scores by label.
        min_points: least size of an instance.
    """

    def __init__(self, clusterer: Callable[[Tensor], AnyClusters], *, min_points: int = 1) -> None:
        self.head = PositionHead()
        self.clusterer, self.min_points = clusterer, min_points

    def loss(
        self, output: PositionOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        as_index(instance, batch, output.positions)  # the same checks
        return {"loss": nothing(output.positions)}

    @torch.no_grad()
    def group(self, output: PositionOutput, batch: Tensor | None = None) -> Instances:
        x = output.positions
        cloud = cloud_numbers(x, batch)
        label, scores = torch.full_like(cloud, -1), [x.new_zeros(0)]
        for b in cloud.unique():
            rows = (cloud == b).nonzero().squeeze(1)
            found = self.clusterer(x[rows])
            label[rows] = torch.where(found.label >= 0, found.label + sum(map(len, scores)), -1)
            scores.append(found.score.to(x.dtype))
        return instances_of(
            label,
            x.new_ones((len(x), 1)),
            x,
            batch,
            background=None,
            score=torch.cat(scores),
            min_points=self.min_points,
        )
