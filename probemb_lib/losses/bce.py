r"""Binary cross entropy of points and instances (Eq. 4 of the paper).

    L = 1/(N K) Σ_k Σ_i ( −ln κ(e_i, c_k) if z_i = k, else −ln(1 − κ(e_i, c_k)) )

for each cloud of N points that are not ignored and K instances; the mean over the clouds with an instance follows.
1 − κ is not taken under 1e-6, see ``probemb_lib.similarity.MIN_DISSIMILARITY``.
"""

from __future__ import annotations

from torch import Tensor, nn

from probemb_lib.aggregate import Covariance, InstanceIndex
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.losses._terms import CloudTerm, InstanceTerms, instance_terms, mean_over_clouds
from probemb_lib.segments import segment_sum


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
    return mean_over_clouds(bce_of(instance_terms(embedding, instance, batch, covariance, with_outside=True)))[0]


def bce_of(terms: InstanceTerms, per_instance: bool = False) -> CloudTerm:
    """From shared terms, whose sums are per cloud or per instance."""
    assert terms.sums.outside is not None
    index, outside = terms.instances, terms.sums.outside
    if per_instance:
        outside = segment_sum(outside, index.instance_ptr, index.batch)
    return CloudTerm(outside - segment_sum(*terms.members), terms.points * terms.instance_counts)


class InstanceBCELoss(nn.Module):
    """:func:`instance_bce` as a module: ``InstanceBCELoss()(embedding, instance, batch)``."""

    def __init__(self, *, covariance: Covariance = "mean") -> None:
        super().__init__()
        self.covariance = covariance

    def forward(
        self, embedding: GaussianEmbedding, instance: Tensor | InstanceIndex, batch: Tensor | None = None
    ) -> Tensor:
        return instance_bce(embedding, instance, batch, covariance=self.covariance)
