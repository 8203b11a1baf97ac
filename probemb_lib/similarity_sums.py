r"""Sums of similarities over all points and instances of a cloud: the cost of the method, without an (N, K) tensor.

For the points i and the instances k of one cloud, with κ_ik = κ(e_i, c_k):

    similar_k = Σ_i κ_ik                          (Dice, Eq. 5)
    outside_k = Σ_{i: z_i ≠ k} −ln(1 − κ_ik)      (cross entropy, Eq. 4)

Derivatives in one dimension, with v = σ_i² + σ_k², r = 1/v, Δ = μ_i − μ_k, q = Δ² r:

    ∂ ln κ/∂μ_i = −½ Δ r         ∂ ln κ/∂ ln σ_i = ½ + σ_i² r (½ q − 1)

and the same with i and k exchanged for the centre. A weight w_ik = ∂f/∂ ln κ_ik, which is κ for the first sum and
κ/(1 − κ) for the second, turns them into the sums' derivatives.

Where the loss needs the sums of a whole cloud only, the derivatives are summed in the same pass as the values and
backward is a scaling. Where it needs them per instance, backward runs the pass again with its weights. Memory is
O(N + K): the pass works through tiles of points and instances that stay in cache, with eager torch in place, under
torch.compile by loops that Inductor fuses, and on CUDA in eager mode and float32 by Triton kernels.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probemb_lib.aggregate import InstanceIndex
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.segments import put, take
from probemb_lib.similarity import MIN_DISSIMILARITY

TILE_ELEMENTS_CPU = 1 << 18  # pairs in a tile: about a dozen float32 planes of this size stay in the last cache
TILE_ELEMENTS_COMPILED = 1 << 19  # one or two planes, and 0.2 ms a call
TILE_ELEMENTS_GPU = 1 << 22
MAX_TILE_CENTERS = 512
MAX_Q = 1e3  # of ¼ Δ² r in derivatives: κ is 0 long before, and r times more could be infinite, and 0 · ∞ NaN
MAX_TWIN_DIM = 8  # of the Triton kernels, which unroll D: compiling takes 10 s there, and minutes for 32


TileSums = Callable[..., tuple[list[Tensor], ...]]


class SimilaritySums(NamedTuple):
    """Sums over the points, per cloud (B,) or per instance (K,); ``outside`` is None where it was not asked for."""

    similar: Tensor
    outside: Tensor | None


def similarity_sums(
    points: GaussianEmbedding,
    centers: GaussianEmbedding,
    index: InstanceIndex,
    *,
    per_instance: bool = False,
    outside: bool = False,
) -> SimilaritySums:
    """Σ_i κ(e_i, c_k) and Σ_{i∉k} −ln(1 − κ(e_i, c_k)) over the valid points of each instance's cloud.

    Args:
        points: N Gaussians, float32 or float64.
        centers: K Gaussians in the order of ``index``.
        per_instance: return (K,) sums; else they are summed over the instances of a cloud, (B,), at half the cost.
        outside: also sum −ln(1 − κ) over the points outside the instance. 1 − κ is not taken under 1e-6.

    Backward works once: a second differentiation raises an error.

    Raises:
        ValueError: points, centres and index differ in number, dimension or device.
    """
    if not torch.compiler.is_compiling():
        _check(points, centers, index)
    args = (
        points.mean,
        points.log_std.expand_as(points.mean),
        centers.mean,
        centers.log_std.expand_as(centers.mean),
        index,
        outside,
    )
    similar, negative_log = (_PerInstance if per_instance else _PerCloud).apply(*args)
    return SimilaritySums(similar, negative_log if outside else None)


def _check(points: GaussianEmbedding, centers: GaussianEmbedding, index: InstanceIndex) -> None:
    n, k, dim = index.index.shape[0], index.num_instances, points.mean.shape[1]
    if points.mean.shape[0] != n or centers.mean.shape != (k, dim):
        raise ValueError(
            f"expected points ({n}, {dim}) and centers ({k}, {dim}), as the index has {n} points and {k} instances, "
            f"got {tuple(points.mean.shape)} and {tuple(centers.mean.shape)}"
        )
    devices = {points.mean.device, centers.mean.device, index.index.device}
    if len(devices) > 1:
        raise ValueError(
            f"expected one device, got points on {points.mean.device}, centers on {centers.mean.device} and the index "
            f"on {index.index.device}"
        )


class _PerCloud(torch.autograd.Function):
    """Sums over a cloud: the derivative of each sum is stored by the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        log_std: Tensor,
        c_mean: Tensor,
        c_log_std: Tensor,
        index: InstanceIndex,
        outside: bool,
    ) -> tuple[Tensor, Tensor]:
        similar, negative_log, grad, c_grad = _run(
            mean, log_std, c_mean, c_log_std, index, outside, any(ctx.needs_input_grad[:4]), None
        )
        ctx.save_for_backward(grad, c_grad, index.point_batch, index.batch)
        b = index.instance_ptr
        return _cloud_sum(similar, b), _cloud_sum(negative_log, b)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad, c_grad, point_batch, batch = ctx.saved_tensors  # (S, 2, D, N), (S, 2, D, K)
        scale = torch.stack(upstream[: grad.shape[0]])  # (S, B)
        scaled = _scale_by_cloud_opaque if torch.compiler.is_compiling() else _scale_by_cloud
        g, c = scaled(grad, scale, point_batch), scaled(c_grad, scale, batch)
        return g[0].T, g[1].T, c[0].T, c[1].T, None, None


class _PerInstance(torch.autograd.Function):
    """Sums per instance: backward knows the weight of each and passes over the tiles again."""

    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        log_std: Tensor,
        c_mean: Tensor,
        c_log_std: Tensor,
        index: InstanceIndex,
        outside: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.outside = outside
        ctx.save_for_backward(mean, log_std, c_mean, c_log_std, *index)
        similar, negative_log, _, _ = _run(mean, log_std, c_mean, c_log_std, index, outside, False, None)
        return similar, negative_log

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        mean, log_std, c_mean, c_log_std, *index = ctx.saved_tensors
        _, _, g, c = _run(
            mean, log_std, c_mean, c_log_std, InstanceIndex(*index), ctx.outside, True, torch.stack(upstream)
        )
        return g[0, 0].T, g[0, 1].T, c[0, 0].T, c[0, 1].T, None, None


def _scale_by_cloud(grad: Tensor, scale: Tensor, cloud: Tensor) -> Tensor:
    """Σ_s of the derivatives (S, 2, D, N) times the upstream gradient (S, B) of each point's cloud: (2, D, N)."""
    result = torch.zeros_like(grad[0])
    for g, of_cloud in zip(grad, scale, strict=True):
        result.addcmul_(g, of_cloud if of_cloud.shape[0] == 1 else of_cloud.index_select(0, cloud))
    return result


@torch.library.custom_op("probemb_lib::scale_by_cloud", mutates_args=())
def _scale_by_cloud_opaque(grad: Tensor, scale: Tensor, cloud: Tensor) -> Tensor:
    return _scale_by_cloud(grad, scale, cloud)


@_scale_by_cloud_opaque.register_fake
def _(grad: Tensor, scale: Tensor, cloud: Tensor) -> Tensor:
    return torch.empty_like(grad[0])


def _cloud_sum(x: Tensor, instance_ptr: Tensor) -> Tensor:
    # Not sum_of_segments: its change of dtype makes torch.compile build another graph for a batch of one cloud.
    return torch.segment_reduce(x, "sum", offsets=instance_ptr, axis=0, initial=0)


def _run(
    mean: Tensor,
    log_std: Tensor,
    c_mean: Tensor,
    c_log_std: Tensor,
    index: InstanceIndex,
    outside: bool,
    gradients: bool,
    weights: Tensor | None,
) -> list[Tensor]:
    embeddings = mean.detach(), log_std.detach(), c_mean.detach(), c_log_std.detach()
    results: list[Tensor]
    if _has_twin(*embeddings):
        from probemb_lib._triton.similarity_sums import all_clouds

        similar, negative_log, grad, c_grad = all_clouds(*embeddings, index, weights, outside, gradients)
        return [similar, negative_log, grad.transpose(2, 3), c_grad.transpose(2, 3)]
    results = _all_clouds(
        *embeddings,
        index.index,
        index.order,
        index.ptr,
        index.instance_ptr,
        weights,
        outside,
        gradients,
        torch.compiler.is_compiling(),
    )
    return results


def _has_twin(*embeddings: Tensor) -> bool:
    x = embeddings[0]
    return (
        x.is_cuda
        and all(t.dtype == torch.float32 for t in embeddings)
        and x.shape[-1] <= MAX_TWIN_DIM
        and not torch.compiler.is_compiling()
        and _triton_runs_on(x.device)
    )


@functools.cache
def _triton_runs_on(device: torch.device) -> bool:
    """NVIDIA GPUs since Ampere, with a Triton for which the kernels have been compiled and tested."""
    if torch.version.cuda is None or importlib.util.find_spec("triton") is None:
        return False
    major, minor = (int(n) for n in importlib.metadata.version("triton").split(".")[:2])
    return (major, minor) >= (3, 7) and torch.cuda.get_device_capability(device) >= (8, 0)


# An operator of its own is opaque to torch.compile, so the loop over clouds of any number and size neither breaks the
# caller's graph nor enters its shapes; the loops inside are compiled on their own, once for all sizes.
@torch.library.custom_op("probemb_lib::similarity_sums", mutates_args=())
def _all_clouds(
    mean: Tensor,
    log_std: Tensor,
    c_mean: Tensor,
    c_log_std: Tensor,
    index: Tensor,
    order: Tensor,
    ptr: Tensor,
    instance_ptr: Tensor,
    weights: Tensor | None,
    outside: bool,
    gradients: bool,
    compiled: bool,
) -> list[Tensor]:
    """Values and derivatives, cloud by cloud.

    Returns ``similar`` (K,), ``outside`` (K,), and the derivatives for points (S, 2, D, N) and centres (S, 2, D, K),
    where 2 is (μ, ln σ) and S counts the sums: one for each that was asked for, or a single one weighted per
    instance with ``weights`` (2, K); S = 0 without gradients.
    """
    n = mean.shape[0]
    k = c_mean.shape[0]
    sets = 0 if not gradients else 1 if weights is not None else 1 + outside
    # One row a dimension has unit stride along the sums. Rows (3, D, V) of points are ½ μ, σ and σ², of centres ½ μ,
    # 2 σ and σ²: what a pair needs, with the factors that powers of two carry without rounding.
    std, c_std, member = log_std.T.exp(), c_log_std.T.exp(), index
    x = torch.stack([0.5 * mean.T, std, std * std])
    c = torch.stack([0.5 * c_mean.T, 2 * c_std, c_std * c_std])
    in_order = mean.device.type == "cpu" and torch.equal(order, torch.arange(n))  # the points of most batches are
    if not in_order:
        x, member = take(x, order), index.index_select(0, order)
    w = c.new_ones((2, k)) if weights is None else weights
    similar, negative_log = c.new_zeros(k), c.new_zeros(k)
    x_grad, c_grad = x.new_zeros((sets, 2, *x.shape[1:])), c.new_zeros((sets, 2, *c.shape[1:]))
    p, q = ptr.tolist(), instance_ptr.tolist()
    for p0, p1, k0, k1 in zip(p, p[1:], q, q[1:], strict=False):
        if p1 > p0 and k1 > k0:
            _cloud(
                x[:, :, p0:p1],
                c[:, :, k0:k1],
                member[p0:p1] - k0,
                w[:, k0:k1],
                outside,
                weights is not None,
                compiled,
                similar[k0:k1],
                negative_log[k0:k1],
                x_grad[..., p0:p1],
                c_grad[..., k0:k1],
            )
    return [similar, negative_log, x_grad if in_order else put(x_grad, order, n), c_grad]


@_all_clouds.register_fake
def _(  # type: ignore[no-untyped-def]
    mean, log_std, c_mean, c_log_std, index, order, ptr, instance_ptr, weights, outside, gradients, compiled
):
    sets = 0 if not gradients else 1 if weights is not None else 1 + outside
    k = c_mean.shape[0]
    return [
        c_mean.new_empty(k),
        c_mean.new_empty(k),
        mean.new_empty((sets, 2, *mean.T.shape)),
        c_mean.new_empty((sets, 2, *c_mean.T.shape)),
    ]


def _cloud(
    x: Tensor,
    c: Tensor,
    member: Tensor,
    w: Tensor,
    outside: bool,
    weighted: bool,
    compiled: bool,
    similar: Tensor,
    negative_log: Tensor,
    x_grad: Tensor,
    c_grad: Tensor,
) -> None:
    """Add one cloud's sums to the outputs, tile by tile."""
    n, k = x.shape[2], c.shape[2]
    tile_k = min(k, MAX_TILE_CENTERS)
    on_cpu = TILE_ELEMENTS_COMPILED if compiled else TILE_ELEMENTS_CPU
    tile_n = (on_cpu if x.device.type == "cpu" else TILE_ELEMENTS_GPU) // tile_k
    tile_n = min(n, max(64, tile_n // 64 * 64))  # rows that begin on a cache line are read faster
    for k0 in range(0, k, tile_k):
        kk = slice(k0, min(k0 + tile_k, k))
        ids = torch.arange(kk.start, kk.stop, device=member.device)
        for n0 in range(0, n, tile_n):
            nn = slice(n0, min(n0 + tile_n, n))
            results = (similar[kk], negative_log[kk], x_grad[..., nn], c_grad[..., kk])
            # Compiled code would be made anew for a size of 1.
            add_tile = _add_fused_tile if compiled and min(kk.stop - kk.start, nn.stop - nn.start) > 1 else _add_tile
            add_tile(x[:, :, nn], c[:, :, kk], member[nn], ids, w[:, kk], outside, weighted, *results)


def _add_tile(
    x: Tensor,
    c: Tensor,
    member: Tensor,
    ids: Tensor,
    w: Tensor,
    outside: bool,
    weighted: bool,
    similar: Tensor,
    negative_log: Tensor,
    x_grad: Tensor,
    c_grad: Tensor,
) -> None:
    """Add one tile of T points and K centres; planes are (D, K, T) and (K, T). In place: eager torch is bound by
    passes over memory."""
    half_mean, std, variance = x[:, :, None, :].unbind()  # (D, 1, T)
    c_half_mean, c_twice_std, c_variance = c[:, :, :, None].unbind()  # (D, K, 1)
    r = (variance + c_variance).reciprocal_()  # 1/v
    q = half_mean - c_half_mean  # ½ Δ
    t = q * r  # ½ Δ r
    q.mul_(t)  # ¼ Δ² r
    minus_q = q.sum(0).neg_()
    e = minus_q.exp()
    # β² = Π 2 σi σk r: one square root for all dimensions.
    beta2 = (r * c_twice_std).mul_(std).prod(0)
    beta = beta2.sqrt()
    kappa = e * beta
    similar += kappa.sum(1)

    weights = [kappa]
    if outside:
        is_outside = member != ids[:, None]
        # 1 − β = (1 − β⁴) / ((1 + β) (1 + β²)), and 1 − κ = (1 − e) + e (1 − β): nothing cancels near equality.
        one_minus_beta = _one_minus_beta4(variance, c_variance, r).div_(beta.add_(1).mul_(beta2.add_(1)))
        one_minus = torch.addcmul(minus_q.expm1_().neg_(), e, one_minus_beta)
        one_minus = torch.where(kappa < 0.25, 1 - kappa, one_minus)  # fewer roundings, where nothing cancels anyway
        above_floor = one_minus > MIN_DISSIMILARITY
        one_minus.clamp_(min=MIN_DISSIMILARITY)
        weights.append((kappa / one_minus).mul_(is_outside & above_floor))
        negative_log -= one_minus.log_().mul_(is_outside).sum(1)
    if x_grad.shape[0] == 0:
        return
    if weighted:
        combined = kappa * w[0][:, None]
        if outside:
            combined += weights[1].mul_(w[1][:, None])
        weights = [combined]
    q.clamp_(max=MAX_Q).mul_(2).sub_(1).mul_(r)  # r (½ Δ² r − 1)
    for s, weight in enumerate(weights):
        last = s == len(weights) - 1
        for j, plane in enumerate((t, q)):
            product = plane.mul_(weight) if last else plane * weight  # (D, K, T)
            over_k, over_t = product.sum(1), product.sum(2)
            if j == 0:
                x_grad[s, 0] -= over_k
                c_grad[s, 0] += over_t
            else:
                x_grad[s, 1] += over_k.mul_(variance[:, 0]).add_(weight.sum(0), alpha=0.5)
                c_grad[s, 1] += over_t.mul_(c_variance[:, :, 0]).add_(weight.sum(1), alpha=0.5)


def _one_minus_beta4(variance: Tensor, c_variance: Tensor, r: Tensor) -> Tensor:
    """1 − Π_d (1 − t²) with t = tanh(ln σi − ln σk) = (σi² − σk²) r, as (K, T)."""
    t2 = ((variance - c_variance).mul_(r)).square_()  # (D, K, T)
    rest = t2[0]
    for d in range(1, t2.shape[0]):
        rest.addcmul_(rest, t2[d], value=-1).add_(t2[d])  # C ← C + (1 − C) t²
    return rest


def _add_fused_tile(
    x: Tensor,
    c: Tensor,
    member: Tensor,
    ids: Tensor,
    w: Tensor,
    outside: bool,
    weighted: bool,
    similar: Tensor,
    negative_log: Tensor,
    x_grad: Tensor,
    c_grad: Tensor,
) -> None:
    """The same tile by compiled loops."""
    # Slices of a larger batch, and a K or T that equals D or 2, would otherwise be compiled anew.
    x, c, w = x.contiguous(), c.contiguous(), w.contiguous()
    for t in (x, c, w):
        torch._dynamo.mark_static(t, list(range(t.ndim - 1)))
    flags = (outside, weighted, x_grad.shape[0])
    sums, of_points, of_centers, _ = _compiled_tile(x.shape[1], x.dtype, *flags)(x, c, member, ids, w, *flags)
    similar += sums[0]
    if outside:
        negative_log += sums[1]
    for s in range(x_grad.shape[0]):
        x_grad[s] += of_points[s]
        c_grad[s] += of_centers[s]


def _fused_tile(
    x: Tensor, c: Tensor, member: Tensor, ids: Tensor, w: Tensor, outside: bool, weighted: bool, sets: int
) -> tuple[list[Tensor], ...]:
    """Sums of a tile, and their derivatives for points (2, D, T) and centres (2, D, K). Planes are (K, T); D is
    unrolled, and points lie along the last axis, so that every loop vectorizes."""
    dim = x.shape[1]
    r, t, q, factors, tanh = [], [], [], [], []
    for d in range(dim):
        half_mean, std, variance = (row[None, :] for row in x[:, d])
        c_half_mean, c_twice_std, c_variance = (row[:, None] for row in c[:, d])
        r.append(1 / (variance + c_variance))
        half_delta = half_mean - c_half_mean
        t.append(half_delta * r[d])
        q.append(half_delta * t[d])
        factors.append(std * c_twice_std * r[d])
        tanh.append((variance - c_variance) * r[d])
    minus_q, beta2 = -functools.reduce(torch.add, q), functools.reduce(torch.mul, factors)
    e, beta = torch.exp(minus_q), torch.sqrt(beta2)
    kappa = e * beta
    weights, sums = [kappa], [kappa.sum(1)]
    if outside:
        is_outside = member[None, :] != ids[:, None]
        one_minus_beta4 = functools.reduce(lambda c, t2: c + (1 - c) * t2, [a * a for a in tanh])
        one_minus = e * one_minus_beta4 / ((1 + beta) * (1 + beta2)) - torch.expm1(minus_q)
        one_minus = torch.where(kappa < 0.25, 1 - kappa, one_minus)
        sums.append(-torch.where(is_outside, one_minus.clamp_min(MIN_DISSIMILARITY).log(), 0.0).sum(1))
        weights.append(torch.where(is_outside & (one_minus > MIN_DISSIMILARITY), kappa / one_minus, 0.0))
    if weighted:
        combined = weights[0] * w[0][:, None]
        weights = [combined + weights[1] * w[1][:, None] if outside else combined]
    of_points: list[Tensor] = []
    of_centers: list[Tensor] = []
    for weight in weights[:sets]:
        for axis, sign, v, result in ((0, -1, x[2], of_points), (1, 1, c[2], of_centers)):
            half = 0.5 * weight.sum(axis)
            of_mean = [sign * (weight * t[d]).sum(axis) for d in range(dim)]
            of_log_std = [v[d] * (weight * r[d] * (2 * q[d].clamp_max(MAX_Q) - 1)).sum(axis) + half for d in range(dim)]
            result.append(torch.stack([torch.stack(of_mean), torch.stack(of_log_std)]))
    # The weights are returned only to be stored: both sums then read them, and no exponential is taken twice.
    return sums, of_points, of_centers, weights


@functools.cache
def _compiled_tile(dim: int, dtype: torch.dtype, outside: bool, weighted: bool, sets: int) -> TileSums:
    """``_fused_tile`` compiled once for all sizes. Each variant is a function of its own, as torch.compile counts the
    compilations of a function and gives up after some."""
    variant = types.FunctionType(_fused_tile.__code__.replace(), _fused_tile.__globals__)
    return torch.compile(variant, dynamic=True, fullgraph=True)
