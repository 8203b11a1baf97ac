"""Instances that a clustering found in a batch of clouds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from probemb_lib.gaussian import GaussianEmbedding, check_embedding
from probemb_lib.similarity import log_bhattacharyya_paired

Own = TypeVar("Own", bound="Instances")


@dataclass(frozen=True, repr=False)
class Instances:
    """K instances found in a batch of clouds with N points, rows by cloud and then in the order of creation.

    Attributes:
        label: (N,) int64, row of the point's instance, −1 none.
        semantic: (K,) int64, column of the probabilities.
        score: (K,) the seed's probability for that class, the instance's confidence.
        seed: (K,) int64, row of the seed point.
        batch: (K,) int64, cloud.
        embedding: Gaussians that the points were compared with, (K, D): the seeds', or after
            :func:`~probemb_lib.refine_instances` those of all points.
        point_batch: (N,) int64, cloud of each point.
    """

    label: Tensor
    semantic: Tensor
    score: Tensor
    seed: Tensor
    batch: Tensor
    embedding: GaussianEmbedding
    point_batch: Tensor

    def __len__(self) -> int:
        return self.semantic.shape[0]

    def __repr__(self) -> str:
        """What there is and what it is called; the numbers of all points would fill pages."""
        names = ", ".join(field.name for field in fields(self))
        return f"{type(self).__name__}({len(self)} instances in {len(self.label)} points: {names})"

    @property
    def size(self) -> Tensor:
        """(K,) int64, points of each instance."""
        return torch.bincount(self.label[self.label >= 0], minlength=len(self))

    def masks(self) -> Tensor:
        """(K, N) bool, one mask an instance. Evaluators take ``label`` directly, without this memory."""
        return self.label == torch.arange(len(self), device=self.label.device)[:, None]

    def semantic_map(self, none: int = 0) -> Tensor:
        """(N,) int64, the class of each point's instance, and ``none`` outside all: column 0, the background's.

        >>> import torch
        >>> from probemb_lib import GaussianEmbedding, greedy_cluster
        >>> points = GaussianEmbedding(torch.tensor([[0.0], [0.1], [9.0]]), torch.zeros(3, 1))
        >>> greedy_cluster(points, torch.tensor([[0.1, 0.0, 0.9], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]])).semantic_map()
        tensor([2, 2, 0])
        """
        return torch.nn.functional.pad(self.semantic, (0, 1), value=none)[self.label]  # −1 reads the last

    def uncertainty(self, embedding: GaussianEmbedding) -> Tensor:
        """How unsure it is that a point belongs to its instance: 1 − s_k κ(x_i, k), of the instance k of point i.

        s is the instance's score, κ the similarity of the point to its Gaussian: probabilities, as far as they are
        calibrated, that the instance is one and that the point is of it. Not part of the paper, which reads σ as the
        uncertainty; σ is the scale of what a point belongs to, and says little about errors (docs/results.md).

        Args:
            embedding: N Gaussians, those that were clustered.

        Returns:
            (N,) in [0, 1], 1 outside all instances; float32 or better.

        Raises:
            TypeError, ValueError: no Gaussians, or not N of D dimensions.

        >>> from probemb_lib import greedy_cluster
        >>> points = GaussianEmbedding(torch.tensor([[0.0], [1.0], [9.0]]), torch.zeros(3, 1))
        >>> found = greedy_cluster(points, torch.tensor([[0.1, 0.9], [0.2, 0.8], [1.0, 0.0]]))
        >>> found.uncertainty(points)  # 1 − 0.9, 1 − 0.9 exp(−1/8), none
        tensor([0.1000, 0.2058, 1.0000])
        """
        x = check_embedding(embedding, "embedding")
        if x.mean.shape != (self.label.shape[0], self.embedding.dim):
            raise ValueError(
                f"embedding: expected the mean of the {self.label.shape[0]} points that were clustered, in "
                f"{self.embedding.dim} dimensions, got {tuple(x.mean.shape)}"
            )
        inside = self.label >= 0
        own = self.label[inside]
        sure = self.score[own] * self._log_similarity(x.select(inside), self.embedding.select(own)).exp()
        return sure.new_ones(inside.shape).masked_scatter(inside, 1 - sure)

    def _log_similarity(self, points: GaussianEmbedding, own: GaussianEmbedding) -> Tensor:
        """ln κ of points with the Gaussians of their instances, row by row."""
        return log_bhattacharyya_paired(points, own.to(dtype=points.mean.dtype))

    def cloud_masks(self, num_clouds: int | None = None) -> list[Tensor]:
        """(K_b, N_b) bool for each cloud: :meth:`masks` of :meth:`split`, so the memory of one cloud times another's
        instances is never taken.

        Args:
            num_clouds: as for :meth:`split`.
        """
        return [cloud.masks() for cloud in self.split(num_clouds)]

    def to(self: Own, device: torch.device | str) -> Own:
        """All tensors on another device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def keep(self: Own, mask: Tensor) -> Own:
        """Only some of the instances, in their order; the points of the others have label −1.

        Args:
            mask: (K,) bool, True for the instances to keep, for example ``found.size >= 20``.

        Raises:
            TypeError: ``mask`` is not bool.
            ValueError: ``mask`` is not (K,).
        """
        if mask.dtype != torch.bool:
            raise TypeError(f"mask: expected torch.bool, True for the instances to keep, got {mask.dtype}")
        if mask.shape != (len(self),):
            raise ValueError(f"mask: expected shape ({len(self)},), one value an instance, got {tuple(mask.shape)}")
        if bool(mask.all()):
            return self
        row = torch.where(mask, torch.cumsum(mask, 0) - 1, -1)
        return replace(
            self,
            label=torch.where(self.label >= 0, row[self.label.clamp_min(0)], -1),
            semantic=self.semantic[mask],
            score=self.score[mask],
            seed=self.seed[mask],
            batch=self.batch[mask],
            embedding=self.embedding.select(mask),
        )

    def split(self, num_clouds: int | None = None) -> list[Instances]:
        """One Instances a cloud; labels and seeds count the cloud's own instances and points, in packed order.

        Args:
            num_clouds: clouds of the batch, where the last of them may be empty; None: up to the last with a point.
        """
        found = int(self.point_batch.max()) + 1 if self.point_batch.numel() else 0
        if num_clouds is not None and num_clouds < found:
            raise ValueError(f"expected num_clouds >= {found}, as many as the batch has, got {num_clouds}")
        clouds = []
        for b in range(found if num_clouds is None else num_clouds):
            points, rows = self.point_batch == b, (self.batch == b).nonzero().squeeze(1)
            first = int(rows[0]) if rows.numel() else 0  # rows of a cloud lie together
            label = self.label[points]
            clouds.append(
                Instances(
                    label=torch.where(label >= 0, label - first, -1),
                    semantic=self.semantic[rows],
                    score=self.score[rows],
                    seed=(torch.cumsum(points, 0) - 1)[self.seed[rows]],
                    batch=torch.zeros_like(rows),
                    embedding=self.embedding.select(rows),
                    point_batch=torch.zeros_like(label),
                )
            )
        return clouds
