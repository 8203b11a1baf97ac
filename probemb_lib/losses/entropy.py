r"""Entropy regularizer (Eq. 7 of the paper): keeps σ from growing until everything is similar.

    H(e_i) = (D/2) ln(2πe) + Σ_d ln σ_id

The paper sums over points. With its weight of 0.001 and thousands of points that sum outweighs all else and training
collapses; the mean does not, and is the default (docs/decisions.md).
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from probemb_lib.aggregate import InstanceIndex, as_index
from probemb_lib.gaussian import GaussianEmbedding, check_embedding
from probemb_lib.segments import gather_points, mean_over_clouds, segment_sum

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
    if reduction not in ("mean", "sum"):
        raise ValueError(f'expected reduction "mean" or "sum", got {reduction!r}')
    x = check_embedding(embedding)
    index = as_index(instance, batch, x.mean)
    repeat = x.dim // x.log_std.shape[1]  # an isotropic σ counts once for each dimension
    entropy = 0.5 * x.dim * math.log(2 * math.pi * math.e) + repeat * x.log_std.sum(1)  # (N,)
    clouds = index.point_batch.index_select(0, index.order)
    total = segment_sum(gather_points(entropy, index.order), index.ptr, clouds)
    points = index.ptr.diff()
    per_cloud = total / points.clamp_min(1) if reduction == "mean" else total
    return mean_over_clouds(per_cloud, points > 0, x.log_std)


class EntropyRegularizer(nn.Module):
    """:func:`entropy_regularizer` as a module: ``EntropyRegularizer()(embedding, instance, batch)``."""

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(
        self, embedding: GaussianEmbedding, instance: Tensor | InstanceIndex, batch: Tensor | None = None
    ) -> Tensor:
        return entropy_regularizer(embedding, instance, batch, reduction=self.reduction)
