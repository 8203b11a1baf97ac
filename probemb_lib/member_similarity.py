r"""ln κ of each point with the Gaussian of its own instance: one value a point, needed by every loss.

The value is that of :func:`~probemb_lib.log_bhattacharyya_paired`. Here the derivative is a closed form, stored by the
forward pass, and the arithmetic runs with one row a dimension, (D, M), where it vectorizes. In one dimension, with
v = σ_i² + σ_k², r = 1/v, Δ = μ_i − μ_k, q = Δ² r and t = tanh(ln σ_i − ln σ_k) = (σ_i² − σ_k²) r:

    ∂ ln κ/∂μ_i = −½ Δ r = −∂ ln κ/∂μ_k,   ∂ ln κ/∂ ln σ_i = ½ (q σ_i² r − t),   ∂ ln κ/∂ ln σ_k = ½ (q σ_k² r + t).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probemb_lib.aggregate import InstanceIndex
from probemb_lib.segments import sum_of_segments, take


def member_similarity(members: Tensor, centers: Tensor, index: InstanceIndex) -> Tensor:
    """ln κ(e_i, c_{z_i}) of the points with an instance, (M,), in the order of ``index.member``.

    Args:
        members: μ and ln σ of these points, (2, D, M), float32 or float64.
        centers: μ and ln σ of the instances, (2, D, K).

    Backward works once: a second differentiation raises an error.
    """
    result: Tensor = _MemberSimilarity.apply(members, centers, index.member_instance, index.member_ptr)
    return result


class _MemberSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, members: Tensor, centers: Tensor, instance: Tensor, ptr: Tensor) -> Tensor:
        mean, log_std = members.detach()
        c_mean, c_log_std = centers.detach()
        of_own = take(torch.stack([c_mean, c_log_std.exp()]), instance)  # (2, D, M)
        log_kappa, slopes = _values_and_slopes(mean, log_std.exp(), *of_own)
        ctx.save_for_backward(slopes, ptr)
        return log_kappa

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        slopes, ptr = ctx.saved_tensors
        scaled = slopes * upstream  # (3, D, M)
        of_mean, of_log_std = sum_of_segments(scaled[::2], ptr).unbind()
        return scaled[:2], torch.stack([-of_mean, of_log_std]), None, None


def _values_and_slopes(mean: Tensor, std: Tensor, c_mean: Tensor, c_std: Tensor) -> tuple[Tensor, Tensor]:
    """ln κ (M,), and its derivatives (3, D, M) by μ_i, ln σ_i and ln σ_k, from (D, M) of each."""
    delta, variance, c_variance = mean - c_mean, std * std, c_std * c_std
    difference, r = variance - c_variance, 1 / (variance + c_variance)
    scaled = delta * r
    half_q, half_tanh = 0.5 * delta * scaled, 0.5 * difference * r
    sinh = difference / (2 * std * c_std)
    # ln cosh = ½ ln(1 + sinh²), where the cut keeps float32 from infinity at σ ratios beyond e^44
    log_kappa = -(0.5 * half_q + 0.25 * torch.log1p((sinh * sinh).clamp_max(1e38))).sum(0)
    slopes = [-0.5 * scaled, half_q * variance * r - half_tanh, half_q * c_variance * r + half_tanh]
    return log_kappa, torch.stack(slopes)
