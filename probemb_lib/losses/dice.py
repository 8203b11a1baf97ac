r"""Log-Dice loss of points and instances (Eq. 5 of the paper).

    L = −ln( 2 Σ_k Σ_i κ(e_i, c_k) [z_i = k] / Σ_k Σ_i (κ(e_i, c_k) + [z_i = k]) )

pooled over points i and instances k of a cloud, as the paper writes it; or the same for each instance alone, averaged
over the instances of a cloud. The mean over clouds follows. Points of no instance count in κ, ignored points nowhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from probemb_lib.aggregate import Covariance, InstanceIndex, member_instance
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.losses._terms import CloudTerm, InstanceTerms, instance_terms, mean_over_clouds
from probemb_lib.segments import segment_logsumexp, segment_sum


def log_dice(
    embedding: GaussianEmbedding,
    instance: Tensor | InstanceIndex,
    batch: Tensor | None = None,
    *,
    per_instance: bool = False,
    covariance: Covariance = "mean",
) -> Tensor:
    """Log-Dice loss (Eq. 5).

    Args:
        embedding: N Gaussians.
        instance: (N,) ids (≥ 0 an instance, −1 none, −100 ignored), or their index.
        batch: (N,) cloud of each point; not needed with an index.
        per_instance: one Dice an instance, averaged over the cloud, so that small instances weigh as much as large.
        covariance: see :func:`~probemb_lib.aggregate_instances`.

    Returns:
        A scalar ≥ 0; 0, with a gradient of 0, where no cloud has an instance.

    >>> x = GaussianEmbedding(torch.tensor([[0.0], [0.0], [9.0]]), torch.full((3, 1), -3.0))
    >>> log_dice(x, torch.tensor([0, 0, 1]))
    tensor(0.)
    """
    terms = instance_terms(embedding, instance, batch, covariance, per_instance=per_instance)
    return mean_over_clouds(dice_of(terms, per_instance))[0]


def dice_of(terms: InstanceTerms, per_instance: bool) -> CloudTerm:
    """From shared terms. ln Σ κ of the members is a log-sum-exp: finite also where every κ underflows."""
    index, similar = terms.instances, terms.sums.similar
    if per_instance:
        log_inside = segment_logsumexp(terms.members.log_own, index.member_ptr, member_instance(index))
        dice = torch.log(similar + index.size) - log_inside - math.log(2)
        return CloudTerm(segment_sum(dice, index.instance_ptr, index.batch), terms.instance_counts)
    log_inside = segment_logsumexp(*terms.members)
    dice = torch.log(similar + terms.member_counts.clamp_min(1)) - log_inside - math.log(2)
    return CloudTerm(dice, terms.member_counts.clamp_max(1))


class LogDiceLoss(nn.Module):
    """:func:`log_dice` as a module: ``LogDiceLoss()(embedding, instance, batch)``."""

    def __init__(self, *, per_instance: bool = False, covariance: Covariance = "mean") -> None:
        super().__init__()
        self.per_instance, self.covariance = per_instance, covariance

    def forward(
        self, embedding: GaussianEmbedding, instance: Tensor | InstanceIndex, batch: Tensor | None = None
    ) -> Tensor:
        return log_dice(embedding, instance, batch, per_instance=self.per_instance, covariance=self.covariance)
