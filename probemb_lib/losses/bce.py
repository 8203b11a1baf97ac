r"""Binary cross entropy of points and instances (Eq. 4 of the paper).

    L = 1/(N K) Σ_k Σ_i ( −ln κ(e_i, c_k) if z_i = k, else −ln(1 − κ(e_i, c_k)) )

for each cloud of N points that are not ignored and K instances; the mean over the clouds with an instance follows.
1 − κ is not taken under 1e-6, see ``probemb_lib.similarity.MIN_DISSIMILARITY``.
"""

from __future__ import annotations

from torch import Tensor, nn

from probemb_lib.aggregate import Covariance, InstanceIndex
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.losses._terms import InstanceTerms, instance_terms
from probemb_lib.segments import mean_over_clouds, segment_sum


def instance_bce(
    embedding: GaussianEmbedding,
    instance: Tensor | InstanceIndex,
    batch: Tensor | None = None,
    *,
    covariance: Covariance = "mean",
) -> Tensor:
    """Binary cross entropy of points and instances (Eq. 4). Arguments as in :func:`~probemb_lib.functional.log_dice`.

    Returns:
        A scalar ≥ 0; 0, with a gradient of 0, where no cloud has an instance.

    >>> import torch
    >>> x = GaussianEmbedding(torch.tensor([[0.0], [4.0]]), torch.zeros(2, 1))
    >>> instance_bce(x, torch.tensor([0, 1]))  # ½ · −ln(1 − e^−2)
    tensor(0.0727)
    """
    return bce_of(instance_terms(embedding, instance, batch, covariance, with_sums=True, with_outside=True))


def bce_of(terms: InstanceTerms, per_instance: bool = False) -> Tensor:
    """The loss from shared terms, whose sums are per cloud or per instance."""
    assert terms.sums is not None
    assert terms.sums.outside is not None
    index, outside = terms.instances, terms.sums.outside
    if per_instance:
        outside = segment_sum(outside, index.instance_ptr, index.batch)
    cloud = index.point_batch.index_select(0, index.member)
    inside = -segment_sum(terms.log_own, index.member_ptr[index.instance_ptr], cloud)
    pairs = index.ptr.diff().to(inside.dtype) * index.instance_ptr.diff()
    return mean_over_clouds((inside + outside) / pairs.clamp_min(1), pairs > 0, terms.embedding.mean)


class InstanceBCELoss(nn.Module):
    """:func:`instance_bce` as a module: ``InstanceBCELoss()(embedding, instance, batch)``."""

    def __init__(self, *, covariance: Covariance = "mean") -> None:
        super().__init__()
        self.covariance = covariance

    def forward(
        self, embedding: GaussianEmbedding, instance: Tensor | InstanceIndex, batch: Tensor | None = None
    ) -> Tensor:
        return instance_bce(embedding, instance, batch, covariance=self.covariance)
