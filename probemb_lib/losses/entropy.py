r"""Entropy regularizer (Eq. 7 of the paper): keeps σ from growing until everything is similar.

    H(e_i) = (D/2) ln(2πe) + Σ_d ln σ_id

The paper sums over points. With its weight of 0.001 and thousands of points that sum outweighs all else and training
collapses; the mean does not, and is the default (docs/decisions.md).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from probemb_lib.aggregate import InstanceIndex, as_index
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.losses._terms import CloudTerm, expanded, mean_over_clouds, sum_over_clouds

Reduction = Literal["mean", "sum"]


def entropy_regularizer(
    embedding: GaussianEmbedding,
    instance: Tensor | InstanceIndex,
    batch: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Differential entropy of the embeddings in nats (Eq. 7), averaged over clouds.

    Args:
        embedding: N Gaussians.
        instance: (N,) ids or their index; ignored points (−100) are left out.
        batch: (N,) cloud of each point; not needed with an index.
        reduction: "mean" or "sum" over the points of a cloud.

    >>> import torch
    >>> entropy_regularizer(GaussianEmbedding(torch.zeros(4, 1), torch.zeros(4, 1)), torch.zeros(4, dtype=torch.int64))
    tensor(1.4189)
    """
    check_reduction(reduction)
    x = expanded(embedding)
    index = as_index(instance, batch, x.mean)
    total = sum_over_clouds(log_volume(x)[None], index)[0]
    return mean_over_clouds(entropy_of(total, index.ptr.diff(), x.mean.shape[1], reduction))[0]


def check_reduction(reduction: Reduction) -> None:
    """One of the two."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f'expected reduction "mean" or "sum", got {reduction!r}')


def log_volume(x: GaussianEmbedding) -> Tensor:
    """Σ_d ln σ_d of each point, (N,); an isotropic σ counts once for each dimension."""
    return x.log_std.sum(1)


def entropy_of(log_volume: Tensor, points: Tensor, dim: int, reduction: Reduction) -> CloudTerm:
    """From the sums over a cloud's points, (B,), and their number."""
    total = torch.add(log_volume, points, alpha=0.5 * dim * math.log(2 * math.pi * math.e))
    return CloudTerm(total, points if reduction == "mean" else points.clamp_max(1))


class EntropyRegularizer(nn.Module):
    """:func:`entropy_regularizer` as a module: ``EntropyRegularizer()(embedding, instance, batch)``."""

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(
        self, embedding: GaussianEmbedding, instance: Tensor | InstanceIndex, batch: Tensor | None = None
    ) -> Tensor:
        return entropy_regularizer(embedding, instance, batch, reduction=self.reduction)
