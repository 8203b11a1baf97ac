r"""ln κ of each point with the Gaussian of its own instance: one value a point, needed by every loss.

The value is that of :func:`~probemb_lib.log_bhattacharyya_paired`. Here the derivative is a closed form, stored by the
forward pass, and the arithmetic runs with one row a dimension, (D, M), where it vectorizes. In one dimension, with
v = σ_i² + σ_k², r = 1/v, Δ = μ_i − μ_k, q = Δ² r and t = tanh(ln σ_i − ln σ_k) = (σ_i² − σ_k²) r:

    ∂ ln κ/∂μ_i = −½ Δ r = −∂ ln κ/∂μ_k,   ∂ ln κ/∂ ln σ_i = ½ (q σ_i² r − t),   ∂ ln κ/∂ ln σ_k = ½ (q σ_k² r + t).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from probemb_lib.aggregate import InstanceIndex
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.segments import gather_columns, sum_of_row_segments


def member_similarity(points: GaussianEmbedding, centers: GaussianEmbedding, index: InstanceIndex) -> Tensor:
    """ln κ(e_i, c_{z_i}) of the points with an instance, (M,), in the order of ``index.member``.

    Args:
        points: N Gaussians, float32 or float64.
        centers: K Gaussians in the order of ``index``.

    Backward works once: a second differentiation raises an error.
    """
    result: Tensor = _MemberSimilarity.apply(
        points.mean,
        points.log_std.expand_as(points.mean),
        centers.mean,
        centers.log_std.expand_as(centers.mean),
        index.member,
        index.member_instance,
        index.member_ptr,
    )
    return result


class _MemberSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        log_std: Tensor,
        c_mean: Tensor,
        c_log_std: Tensor,
        member: Tensor,
        instance: Tensor,
        member_ptr: Tensor,
    ) -> Tensor:
        log_kappa: Tensor
        log_kappa, slopes = _forward(
            mean.detach(),
            log_std.detach(),
            c_mean.detach(),
            c_log_std.detach(),
            member,
            instance,
            torch.compiler.is_compiling(),
        )
        ctx.save_for_backward(slopes, member, member_ptr)
        ctx.num_points = mean.shape[0]
        return log_kappa

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        slopes, member, member_ptr = ctx.saved_tensors
        return *_backward(upstream, slopes, member, member_ptr, ctx.num_points), None, None, None


# Operators of their own are opaque to torch.compile: with the gathers fused in, Inductor would vectorize nothing.
@torch.library.custom_op("probemb_lib::member_similarity", mutates_args=())
def _forward(
    mean: Tensor,
    log_std: Tensor,
    c_mean: Tensor,
    c_log_std: Tensor,
    member: Tensor,
    instance: Tensor,
    compiled: bool,
) -> tuple[Tensor, Tensor]:
    x, c = gather_columns(mean, log_std, member), gather_columns(c_mean, c_log_std, instance)
    # Compiled code would be made anew for a size of 1.
    return (_compiled_kernel(x.shape[1], x.dtype) if compiled and member.numel() > 1 else _kernel)(x, c)


@_forward.register_fake
def _(mean, log_std, c_mean, c_log_std, member, instance, compiled):  # type: ignore[no-untyped-def]
    return mean.new_empty(member.shape[0]), mean.new_empty((3, mean.shape[1], member.shape[0]))


def _kernel(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """ln κ (M,), and its derivatives (3, D, M) by μ_i, ln σ_i and ln σ_k."""
    log_kappa: Tensor | float = 0.0
    slopes: list[list[Tensor]] = [[], [], []]
    for d in range(x.shape[1]):
        std, c_std = x[1, d].exp(), c[1, d].exp()
        variance, c_variance = std * std, c_std * c_std
        r = 1 / (variance + c_variance)
        delta = x[0, d] - c[0, d]
        scaled = delta * r
        half_q, difference = 0.5 * delta * scaled, variance - c_variance
        half_tanh = 0.5 * difference * r
        sinh = difference / (2 * std * c_std)
        # ln cosh = ½ ln(1 + sinh²), where the cut keeps float32 from infinity at σ ratios beyond e^44
        log_kappa = log_kappa - 0.5 * half_q - 0.25 * torch.log1p((sinh * sinh).clamp_max(1e38))
        slopes[0].append(-0.5 * scaled)
        slopes[1].append(half_q * variance * r - half_tanh)
        slopes[2].append(half_q * c_variance * r + half_tanh)
    return torch.as_tensor(log_kappa), torch.stack([torch.stack(s) for s in slopes])


@functools.cache
def _compiled_kernel(dim: int, dtype: torch.dtype) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return torch.compile(_kernel, dynamic=True, fullgraph=True)


@torch.library.custom_op("probemb_lib::member_similarity_backward", mutates_args=())
def _backward(
    upstream: Tensor, slopes: Tensor, member: Tensor, member_ptr: Tensor, num_points: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dim = slopes.shape[1]
    scaled = slopes * upstream  # (3, D, M)
    of_points = slopes.new_zeros((2, num_points, dim)).index_copy_(1, member, scaled[:2].transpose(1, 2))
    of_centers = sum_of_row_segments(scaled[::2].reshape(2 * dim, -1), member_ptr).T.contiguous()  # (K, 2 D)
    return of_points[0], of_points[1].clone(), -of_centers[:, :dim], of_centers[:, dim:].contiguous()


@_backward.register_fake
def _(upstream, slopes, member, member_ptr, num_points):  # type: ignore[no-untyped-def]
    dim, k = slopes.shape[1], member_ptr.shape[0] - 1
    points, centers = slopes.new_empty((num_points, dim)), slopes.new_empty((k, dim))
    return points, torch.empty_like(points), centers, torch.empty_like(centers)
