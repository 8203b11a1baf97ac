r"""Squared error of the score maps (Neven et al. 2019), the first row of Table 2, for comparison.

    L = 1/N Σ_i Σ_{l ≠ background} (P[i, l] − Q[i, l])²

with the Q of the center-aware loss (Eq. 9) as a constant; on points of no instance Q is 0 in every foreground column.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probemb_lib.aggregate import Covariance, InstanceIndex
from probemb_lib.head import EmbeddingOutput
from probemb_lib.losses._terms import ScoreTargets, targets_and_similarity


def seed_mse(
    output: EmbeddingOutput,
    instance: Tensor | InstanceIndex,
    semantic: Tensor,
    batch: Tensor | None = None,
    *,
    background: int | None = 0,
    covariance: Covariance = "mean",
) -> Tensor:
    """Squared error of the score maps. Arguments as in :func:`~probemb_lib.functional.center_aware`.

    >>> from probemb_lib import GaussianEmbedding
    >>> x = GaussianEmbedding(torch.zeros(1, 3), torch.zeros(1, 3))
    >>> from probemb_lib import HeadOutput
    >>> seed_mse(HeadOutput(x, torch.zeros(1, 2)), torch.tensor([0]), torch.tensor([1]))  # (½ − 1)²
    tensor(0.2500)
    """
    targets, log_own = targets_and_similarity(output, instance, semantic, batch, background, covariance)
    return targets.average(seed_mse_of(targets, log_own))


def seed_mse_of(targets: ScoreTargets, log_own: Tensor) -> Tensor:
    """The loss of each point (N,), from shared terms."""
    p = targets.logits.log_softmax(dim=1).exp()
    kappa = targets.similarity(log_own, elsewhere=0)
    q = torch.zeros_like(p).scatter(1, targets.target.clamp_min(0)[:, None], kappa[:, None])
    error = (p - q).square()  # (N, L)
    asked = targets.counted & (targets.foreground | (targets.instances.index < 0))
    background = targets.background
    loss = error.sum(1) if background is None else error.sum(1) - error[:, background]
    return loss * asked


class SeedMSELoss(nn.Module):
    """:func:`seed_mse` as a module: ``SeedMSELoss()(output, instance, semantic, batch)``."""

    def __init__(self, *, background: int | None = 0, covariance: Covariance = "mean") -> None:
        super().__init__()
        self.background, self.covariance = background, covariance

    def forward(
        self,
        output: EmbeddingOutput,
        instance: Tensor | InstanceIndex,
        semantic: Tensor,
        batch: Tensor | None = None,
    ) -> Tensor:
        return seed_mse(output, instance, semantic, batch, background=self.background, covariance=self.covariance)

    def of_targets(self, targets: ScoreTargets, log_own: Tensor) -> Tensor:
        """The loss of each point (N,), where targets and ln κ of the members are known already."""
        return seed_mse_of(targets, log_own)
