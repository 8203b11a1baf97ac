r"""The Gaussian of each instance, and ln κ of its points with it: what every loss needs of the points of instances.

An instance of n points has μ_k = mean of μ_i and, with V_k = mean of σ_i², σ_k² = V_k, or V_k / n where the points
count as independent. In one dimension, with Δ = μ_k − μ_i, ρ = σ_i² / σ_k², h = 1 − ρ, p = 1 / (1 + ρ),
s = Δ / (σ_i² + σ_k²) = Δ p / σ_k² and q = Δ s:

    −4 ln κ = q + ln(1 + sinh²),   sinh² = h² / 4ρ = sinh²(ln σ_i − ln σ_k),

    2 ∂ ln κ/∂μ_i = s = −2 ∂ ln κ/∂μ_k,   2 ∂ ln κ/∂ ln σ_i = (h + q ρ) p,   −2 ∂ ln κ/∂ ln σ_k = (h − q) p.

A gradient G by μ_k and ln σ_k reaches the points of k as

    ∂μ_k/∂μ_i = 1/n,   ∂ ln σ_k/∂ ln σ_i = σ_i² / (n V_k).

The derivatives are stored by the forward pass. Arithmetic runs with one row a dimension, (D, M), where it vectorizes;
on CUDA in eager mode and float32 it is a Triton kernel (``_triton/member_similarity.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probemb_lib.aggregate import Covariance, InstanceIndex, check_covariance, member_instance
from probemb_lib.gaussian import GaussianEmbedding, columns
from probemb_lib.segments import has_twin, put, sum_of_segments, take


def member_similarity(
    x: GaussianEmbedding, index: InstanceIndex, covariance: Covariance
) -> tuple[GaussianEmbedding, Tensor]:
    """The K Gaussians of :func:`~probemb_lib.aggregate_instances`, and ln κ(e_i, c_{z_i}) of the points with an
    instance, (M,), in the order of ``index.member``.

    Args:
        x: N Gaussians, float32 or float64, with μ and ln σ of the same shape.

    Backward works once: a second differentiation raises an error.
    """
    check_covariance(covariance)
    mean, log_std, log_kappa = _MemberSimilarity.apply(x.mean, x.log_std, index, covariance == "independent")
    return GaussianEmbedding(mean, log_std), log_kappa


class _MemberSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mean: Tensor, log_std: Tensor, index: InstanceIndex, independent: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        instance, size = member_instance(index), index.size
        members = take(columns(GaussianEmbedding(mean.detach(), log_std.detach())), index.member)  # (2, D, M)
        moments = torch.stack([members[0], torch.exp(2 * members[1])])  # μ and σ²
        centers = sum_of_segments(moments, index.member_ptr) / size  # (2, D, K)
        c_log_std = 0.5 * centers[1].log()
        if independent:
            c_log_std = c_log_std - 0.5 * size.to(mean.dtype).log()
        own = own_similarity(moments, centers, size if independent else None, instance)
        ctx.save_for_backward(own.slopes, own.share, instance, index.member, index.member_ptr, size)
        ctx.length = mean.shape[0]
        return centers[0].T, c_log_std.T, own.log_kappa

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, of_mean: Tensor, of_log_std: Tensor, of_log_kappa: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        slopes, share, instance, member, ptr, size = ctx.saved_tensors
        scaled = slopes * (0.5 * of_log_kappa)  # (3, D, M)
        of_centers = torch.stack([of_mean.T, of_log_std.T]) - sum_of_segments(scaled[1:], ptr)
        through = take(of_centers / size, instance)  # (2, D, M)
        scaled[1].add_(through[0])
        scaled[0].addcmul_(through[1], share)
        grad = put(scaled[:2], member, ctx.length)
        return grad[1].T, grad[0].T, None, None


class OwnSimilarity(NamedTuple):
    """Of each member point with its instance: ln κ (M,); (h + q ρ) p, s and (h − q) p (3, D, M); σ_i² / V_k (D, M)."""

    log_kappa: Tensor
    slopes: Tensor
    share: Tensor


def own_similarity(moments: Tensor, centers: Tensor, size: Tensor | None, instance: Tensor) -> OwnSimilarity:
    """From μ and σ² of the members (2, D, M), and μ and V of the instances (2, D, K); σ_k² is V / ``size``."""
    if not torch.compiler.is_compiling() and has_twin(moments):
        from probemb_lib._triton.member_similarity import own_similarity as twin

        return OwnSimilarity(*twin(moments, centers, size, instance))
    (mean, variance), (c_mean, c_variance) = moments, take(centers, instance)
    ratio = share = variance / c_variance
    if size is not None:
        of_own = take(size, instance)
        ratio, c_variance = share * of_own, c_variance / of_own
    part, h = (ratio + 1).reciprocal_(), 1 - ratio
    delta = c_mean - mean
    s = delta * (part / c_variance)
    q = delta * s
    # The cut keeps float32 from infinity at σ ratios beyond e^44.
    sinh2 = (h / ratio).mul_(h).clamp_max_(1e38).mul_(0.25)
    log_kappa = -0.25 * sinh2.log1p_().add_(q).sum(0)
    slopes = [torch.addcmul(h, q, ratio).mul_(part), s, (h - q).mul_(part)]
    return OwnSimilarity(log_kappa, torch.stack(slopes), share)
