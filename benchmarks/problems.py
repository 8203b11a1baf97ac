"""Random problems that several benchmarks share, and Eq. 11 as one writes it down."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probemb_lib import GaussianEmbedding


def dice_problem(n: int, k: int, dim: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, log_std and instance of points around the centres of their instances, as during training."""
    generator = torch.Generator().manual_seed(0)
    instance = torch.randint(0, k, (n,), generator=generator)
    centers = torch.rand(k, dim, generator=generator)
    mean = centers[instance] + 0.1 * torch.randn(n, dim, generator=generator)
    log_std = 0.2 * torch.randn(n, dim, generator=generator) - 2
    return mean.requires_grad_(), log_std.requires_grad_(), instance


def blobs(n: int, k: int) -> tuple[GaussianEmbedding, Tensor]:
    """Gaussian blobs at a fixed density: embeddings and scores as a trained network gives them."""
    random = np.random.default_rng(0)
    centers = random.random((k, 3)) * k ** (1 / 3)
    which = random.integers(0, k, n)
    mean = centers[which] + 0.04 * random.normal(size=(n, 3))
    log_std = np.log(0.08) + 0.1 * random.normal(size=(n, 3))
    score = 1 - np.linalg.norm(mean - centers[which], axis=1) / 0.32 + 0.02 * random.normal(size=n)
    as_tensor = [torch.from_numpy(a).float() for a in (mean, log_std, score.clip(0.01, 0.99))]
    return GaussianEmbedding(as_tensor[0], as_tensor[1]), as_tensor[2]


def plain_loop(
    embedding: GaussianEmbedding, score: Tensor, threshold: float = 0.35, *, semantic: Tensor | None = None
) -> Tensor:
    """Eq. 11 as one writes it down: each seed against all points, or those of its class."""
    variance, std = torch.exp(2 * embedding.log_std), embedding.log_std.exp()
    label, score, count = torch.full_like(score, -1, dtype=torch.int64), score.clone(), 0
    while (top := score.max(0)).values > -torch.inf:
        v = variance + variance[top.indices]
        distance = ((embedding.mean - embedding.mean[top.indices]) ** 2 / (4 * v)).sum(1)
        kappa = torch.exp(-distance) * (2 * std * std[top.indices] / v).prod(1).sqrt()
        members = (kappa >= threshold) & (label < 0)
        if semantic is not None:
            members &= semantic == semantic[top.indices]
        members[top.indices] = True
        label[members], score[members], count = count, -torch.inf, count + 1
    return label
