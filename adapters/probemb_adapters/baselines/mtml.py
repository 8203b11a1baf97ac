r"""MTML: Lahoud, Ghanem, Pollefeys and Oswald, "3D Instance Segmentation via Multi-Task Metric Learning", ICCV 2019,
arXiv 1906.08650.

Two tasks: an embedding with the discriminative loss L_FE (:mod:`probemb_adapters.baselines.discriminative`), and for
each point the unit vector v towards the centre of mass z_c of its instance,

    L_dir = −1/C Σ_c 1/N_c Σ_i v_i · (z_c − x_i) / ‖z_c − x_i‖      (Eq. 5)
    L     = α_FE L_FE + α_dir L_dir                                  (Eq. 6)

with α = ½ for both; the authors' public training program has α_dir = 1, and an embedding of 4 dimensions. Directions
point to the centre, as there; Eq. 5 is printed with the other sign. A point in the very centre asks for no direction.
Classes are learned beside it by cross entropy.

Grouping: mean shift of the embedding at several bandwidths gives candidates. A candidate's score is how well directions
agree with its own centre, ½ (1 + mean v · direction to the centre), times its class's probability; candidates that
overlap a better one are suppressed. The paper's score has the coherence of the embedding too, the members within a
threshold of the centre: within a flat kernel all are. It also takes connected parts of candidates, which is left out.
Its bandwidths, thresholds and the overlap are not published as a program; those here are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from probemb_adapters.baselines.discriminative import discriminative_loss, mean_shift
from probemb_adapters.baselines.embedding import gaussian
from probemb_adapters.baselines.method import (
    Branches,
    best_first,
    cloud_numbers,
    foreground_clouds,
    instances_of,
    mean_or_nothing,
    semantic_loss,
    total,
)
from probemb_adapters.baselines.proposals import labels_of, suppress
from probemb_lib import GaussianEmbedding, InstanceIndex, Instances
from probemb_lib.aggregate import as_index
from probemb_lib.gaussian import at_least_float32
from probemb_lib.head import HIDDEN


class MTMLOutput(NamedTuple):
    """What the head gives for N points.

    Attributes:
        embedding: N deterministic embeddings.
        logits: (N, L).
        direction: (N, D) unit vectors.
        positions: (N, D).
    """

    embedding: GaussianEmbedding
    logits: Tensor
    direction: Tensor
    positions: Tensor

    @property
    def probabilities(self) -> Tensor:
        """softmax(logits), (N, L)."""
        return self.logits.softmax(1)


def centers_of(positions: Tensor, index: InstanceIndex) -> Tensor:
    """(K, D) the mean position of each instance."""
    sums = positions.new_zeros((len(index.size), positions.shape[1]))
    return sums.index_add(0, index.member_instance, positions[index.member]) / index.size[:, None]


def direction_loss(
    direction: Tensor, positions: Tensor, instance: Tensor | InstanceIndex, batch: Tensor | None = None
) -> Tensor:
    """L_dir, the mean over the clouds with an instance.

    Args:
        direction: (N, D) vectors of length 1.
        positions: (N, D).

    >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    >>> direction_loss(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), x, torch.tensor([3, 3]))
    tensor(-0.5000)
    """
    index = as_index(instance, batch, direction)
    own = index.member_instance
    target = normalize(centers_of(positions, index)[own] - positions[index.member])
    cosine = (direction[index.member] * target).sum(1) / index.size[own]
    of_instance = cosine.new_zeros(len(index.size)).index_add(0, own, cosine)
    clouds = [k for k in of_instance.tensor_split(index.instance_ptr[1:-1].cpu()) if k.numel()]
    return mean_or_nothing([-k.mean() for k in clouds], direction)


class MTMLHead(nn.Module):
    """An embedding, class logits and directions."""

    def __init__(
        self, in_channels: int, num_classes: int, dim: int, position_dim: int, hidden: Sequence[int] = HIDDEN
    ) -> None:
        super().__init__()
        self.branches = Branches(in_channels, (dim, num_classes, position_dim), hidden)

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> MTMLOutput:
        """``batch`` is accepted so that the heads exchange, and not needed."""
        mean, logits, direction = self.branches(features)
        return MTMLOutput(gaussian(mean, None, None, 1.0), logits, normalize(direction), at_least_float32(positions))


class MTML:
    """The method.

    Args:
        in_channels, num_classes, hidden: see :class:`~probemb_lib.ProbabilisticHead`.
        dim: of the embedding.
        position_dim: of the positions.
        delta_v, delta_d: margins.
        bandwidths: of mean shift, each of which proposes instances.
        max_overlap: IoU with a better candidate above which one is suppressed.
        min_points: least size of an instance.
        background: column of no instance, or None.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dim: int = 8,
        position_dim: int = 3,
        delta_v: float = 0.5,
        delta_d: float = 1.5,
        bandwidths: Sequence[float] = (0.5, 1.0, 1.5),
        max_overlap: float = 0.3,
        min_points: int = 1,
        background: int | None = 0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        self.head = MTMLHead(in_channels, num_classes, dim, position_dim, hidden)
        self.delta_v, self.delta_d, self.bandwidths, self.max_overlap = delta_v, delta_d, bandwidths, max_overlap
        self.min_points, self.background = min_points, background

    def loss(
        self, output: MTMLOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        index = as_index(instance, batch, output.logits)
        terms = discriminative_loss(output.embedding, index, delta_v=self.delta_v, delta_d=self.delta_d)
        terms["direction"] = direction_loss(output.direction, output.positions, index)
        terms["semantic"] = semantic_loss(output.logits, index, semantic, self.background)
        return total({"var": 0.5, "dist": 0.5, "reg": 0.0005, "direction": 0.5}, terms)

    @torch.no_grad()
    def group(self, output: MTMLOutput, batch: Tensor | None = None) -> Instances:
        p = output.probabilities
        cloud = cloud_numbers(p, batch)
        label, scores = torch.full_like(cloud, -1), [p.new_zeros(0)]
        for rows in foreground_clouds(p, cloud, self.background):
            masks = self._candidates(output, rows, best_first(p[rows], self.background))
            score = agreement(masks, output.positions[rows], output.direction[rows])
            kept = suppress(masks, score, self.max_overlap)
            own = labels_of(masks[kept])
            label[rows] = torch.where(own >= 0, own + sum(map(len, scores)), -1)
            scores.append(score[kept])
        found = instances_of(label, p, output.embedding, batch, background=self.background, min_points=self.min_points)
        # The class's probability and the agreement of the directions.
        score = torch.cat(scores)[label[found.seed]] if len(found) else found.score
        return replace(found, score=found.score * score)

    def _candidates(self, output: MTMLOutput, rows: Tensor, order: Tensor) -> Tensor:
        """(P, n) masks of all bandwidths."""
        found = [mean_shift(output.embedding.select(rows), order, b) for b in self.bandwidths]
        return torch.cat([label == torch.arange(int(label.max()) + 1, device=rows.device)[:, None] for label in found])


def agreement(masks: Tensor, positions: Tensor, direction: Tensor) -> Tensor:
    """½ (1 + mean cosine of the directions with those to the centre) of each mask (P, n): (P,) in [0, 1]."""
    cosines = []
    for mask in masks:
        x = positions[mask]
        cosines.append((normalize(x.mean(0) - x) * direction[mask]).sum(1).mean())
    return (1 + torch.stack(cosines)) / 2 if cosines else positions.new_zeros(0)
