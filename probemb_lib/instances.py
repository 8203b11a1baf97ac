"""Instances that a clustering found in a batch of clouds, and what the clusterings ask of their input."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from probemb_lib.gaussian import GaussianEmbedding

# Within these limits, far beyond any use, no float64 number of the clustering overflows or underflows.
MAX_LOG_STD = 300.0
MAX_MEAN = 1e150


@dataclass(frozen=True)
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

    def masks(self) -> Tensor:
        """(K, N) bool, one mask an instance. Evaluators take ``label`` directly, without this memory."""
        return self.label == torch.arange(len(self), device=self.label.device)[:, None]

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


def keep_instances(found: Instances, keep: Tensor) -> Instances:
    """Only the instances where ``keep`` (K,) is true; the points of the others have label −1."""
    if bool(keep.all()):
        return found
    row = torch.where(keep, torch.cumsum(keep, 0) - 1, -1)
    return Instances(
        label=torch.where(found.label >= 0, row[found.label.clamp_min(0)], -1),
        semantic=found.semantic[keep],
        score=found.score[keep],
        seed=found.seed[keep],
        batch=found.batch[keep],
        embedding=found.embedding.select(keep),
        point_batch=found.point_batch,
    )


def best_foreground(probabilities: Tensor, background: int | None) -> tuple[Tensor, Tensor]:
    """The highest foreground score of each point (N,) and its column (N,), ties to the lowest."""
    n = probabilities.shape[0]
    if background is not None:
        probabilities = probabilities.clone()
        probabilities[:, background] = -math.inf
    if n == 0:
        return probabilities.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=probabilities.device)
    score, semantic = probabilities.max(dim=1)
    return score, semantic


def check_clustering(
    x: GaussianEmbedding,
    probabilities: Tensor,
    batch: Tensor | None,
    min_score: float,
    min_points: int,
    background: int | None,
) -> None:
    """Check the input of a clustering: shapes, dtypes, devices, options, and that all numbers are usable.

    Raises:
        TypeError, ValueError: see :func:`~probemb_lib.greedy_cluster`.
    """
    n = x.mean.shape[0]
    if math.isnan(min_score):
        raise ValueError("expected a number for min_score, got NaN; -inf is no limit")
    if min_points < 1:
        raise ValueError(f"expected min_points >= 1, got {min_points}")
    if probabilities.ndim != 2 or probabilities.shape[0] != n or probabilities.shape[1] < 1:
        raise ValueError(f"expected probabilities ({n}, L) with L >= 1, got {tuple(probabilities.shape)}")
    if not probabilities.is_floating_point():
        raise TypeError(f"expected floating-point probabilities, got {probabilities.dtype}")
    if probabilities.device != x.mean.device:
        raise TypeError(f"expected probabilities on {x.mean.device}, got {probabilities.device}")
    num_classes = probabilities.shape[1]
    if background is not None and not 0 <= background < num_classes:
        raise ValueError(f"expected background in [0, {num_classes}) or None, got {background}")
    if background is not None and num_classes < 2:
        raise ValueError("expected a foreground column beside the background, got 1 column; pass background=None?")
    if batch is not None:
        if batch.shape != (n,) or batch.device != x.mean.device:
            raise ValueError(f"expected batch ({n},) on {x.mean.device}, got {tuple(batch.shape)} on {batch.device}")
        if batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool:
            raise TypeError(f"batch: expected integers, got {batch.dtype}")
        if n and int(batch.min()) < 0:
            raise ValueError(f"expected cloud numbers >= 0 in batch, got {int(batch.min())}")
    limits = {"mean": MAX_MEAN, "log_std": MAX_LOG_STD, "probabilities": math.inf}
    for (name, limit), t in zip(limits.items(), (*x, probabilities), strict=True):
        if n == 0:
            break
        low, high = (float(v) for v in t.aminmax())  # NaN if there is one
        if not (-limit <= low and high <= limit and math.isfinite(low) and math.isfinite(high)):
            row = int((~(t.abs() <= limit) | t.isinf()).any(dim=1).nonzero()[0])
            within = "" if limit == math.inf else f" within ±{limit:g}"
            raise ValueError(f"expected finite {name}{within}, got {t[row].tolist()} at point {row}")
