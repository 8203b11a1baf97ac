r"""Sums of similarities over all points and instances of a cloud: the cost of the method, without an (N, K) tensor.

For the points i and the instances k of one cloud, with κ_ik = κ(e_i, c_k):

    similar_k = Σ_i κ_ik                          (Dice, Eq. 5)
    outside_k = Σ_{i: z_i ≠ k} −ln(1 − κ_ik)      (cross entropy, Eq. 4)

Where the loss needs the sums of a whole cloud only, the derivatives are summed in the same pass as the values and
backward is a scaling. Where it needs them per instance, backward runs the pass again with its weights. Memory is
O(N + K): the pass works through tiles of points and instances that stay in cache, with eager torch in place
(``_tile_eager.py``, which has the derivatives), under torch.compile by loops that Inductor fuses
(``_tile_compiled.py``), and on CUDA in float32 by Triton kernels (``_triton/``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probemb_lib._tile_compiled import add_fused_tile
from probemb_lib._tile_eager import Pairs, PairSums, add_tile
from probemb_lib.aggregate import InstanceIndex
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.segments import put, segment_reduce, take
from probemb_lib.twins import run_on, warn_once

TILE_ELEMENTS_CPU = 1 << 18  # pairs in a tile: about a dozen float32 planes of this size stay in the last cache
TILE_ELEMENTS_COMPILED = 1 << 19  # one or two planes, and 0.2 ms a call
TILE_ELEMENTS_GPU = 1 << 22
MAX_TILE_CENTERS = 512
MAX_TWIN_DIM = 8  # of the Triton kernels, which unroll D: compiling takes 10 s there, and minutes for 32


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
    similar, of_outside = (_PerInstance if per_instance else _PerCloud).apply(*args)
    return SimilaritySums(similar, of_outside if outside else None)


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
        with_outside: bool,
    ) -> tuple[Tensor, Tensor]:
        gaussians = GaussianEmbedding(mean, log_std), GaussianEmbedding(c_mean, c_log_std)
        sums = _sums(*gaussians, index, with_outside, gradients=any(ctx.needs_input_grad[:4]))
        ctx.save_for_backward(sums.of_points, sums.of_centers, index.point_batch, index.batch)
        return _cloud_sum(sums.similar, index.instance_ptr), _cloud_sum(sums.outside, index.instance_ptr)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        of_points, of_centers, point_batch, batch = ctx.saved_tensors  # (S, 2, D, N), (S, 2, D, K)
        scale = torch.stack(upstream[: of_points.shape[0]])  # (S, B)
        scaled = _scale_by_cloud_opaque if torch.compiler.is_compiling() else _scale_by_cloud
        g, c = scaled(of_points, scale, point_batch), scaled(of_centers, scale, batch)
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
        with_outside: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.with_outside = with_outside
        ctx.save_for_backward(mean, log_std, c_mean, c_log_std, *index)
        gaussians = GaussianEmbedding(mean, log_std), GaussianEmbedding(c_mean, c_log_std)
        sums = _sums(*gaussians, index, with_outside, gradients=False)
        return sums.similar, sums.outside

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        mean, log_std, c_mean, c_log_std, *index = ctx.saved_tensors
        gaussians = GaussianEmbedding(mean, log_std), GaussianEmbedding(c_mean, c_log_std)
        sums = _sums(
            *gaussians, InstanceIndex(*index), ctx.with_outside, gradients=True, upstream=torch.stack(upstream)
        )
        g, c = sums.of_points[0], sums.of_centers[0]  # (2, D, N), (2, D, K)
        return g[0].T, g[1].T, c[0].T, c[1].T, None, None


def _scale_by_cloud(grad: Tensor, scale: Tensor, cloud: Tensor) -> Tensor:
    """Σ_s of the derivatives (S, 2, D, N) times the upstream gradient (S, B) of each point's cloud: (2, D, N)."""
    if scale.shape[1] > 1:
        scale = scale.index_select(1, cloud)
    result = grad[0] * scale[0]
    for g, factor in zip(grad[1:], scale[1:], strict=True):
        result.addcmul_(g, factor)
    return result


@torch.library.custom_op(
    "probemb_lib::scale_by_cloud",
    mutates_args=(),
    schema=("(Tensor grad, Tensor scale, Tensor cloud) -> Tensor"),
)
def _scale_by_cloud_opaque(grad: Tensor, scale: Tensor, cloud: Tensor) -> Tensor:
    return _scale_by_cloud(grad, scale, cloud)


@_scale_by_cloud_opaque.register_fake
def _(grad: Tensor, scale: Tensor, cloud: Tensor) -> Tensor:
    return torch.empty_like(grad[0])


def _cloud_sum(x: Tensor, instance_ptr: Tensor) -> Tensor:
    # Not sum_of_segments: its change of dtype makes torch.compile build another graph for a batch of one cloud.
    return segment_reduce(x, "sum", instance_ptr, initial=0)


def _sums(
    points: GaussianEmbedding,
    centers: GaussianEmbedding,
    index: InstanceIndex,
    with_outside: bool,
    *,
    gradients: bool,
    upstream: Tensor | None = None,
) -> PairSums:
    """Values and derivatives by the twin, where it runs, or by tiles; see :func:`_all_clouds`."""
    gaussians = (*points.detach(), *centers.detach())
    where = index.index, index.order, index.ptr, index.instance_ptr, index.batch
    compiled = torch.compiler.is_compiling()
    return PairSums(*_all_clouds(*gaussians, *where, upstream, with_outside, gradients, compiled))


def _has_twin(*embeddings: Tensor) -> bool:
    x = embeddings[0]
    if x.device.type != "cuda" or any(t.dtype != torch.float32 for t in embeddings):
        return False
    if x.shape[-1] > MAX_TWIN_DIM:
        warn_once(f"those of the loss expect at most {MAX_TWIN_DIM} dimensions of the embedding, got {x.shape[-1]}")
        return False
    return run_on(x.device)


# An operator of its own is opaque to torch.compile, so the loop over clouds of any number and size neither breaks the
# caller's graph nor enters its shapes; the kernels or loops inside are compiled on their own, once for all sizes.
@torch.library.custom_op(
    "probemb_lib::similarity_sums",
    mutates_args=(),
    schema=(
        "(Tensor mean, Tensor log_std, Tensor c_mean, Tensor c_log_std, Tensor index, Tensor order, Tensor "
        "ptr, Tensor instance_ptr, Tensor batch, Tensor? upstream, bool with_outside, bool gradients, bool "
        "compiled) -> Tensor[]"
    ),
)
def _all_clouds(
    mean: Tensor,
    log_std: Tensor,
    c_mean: Tensor,
    c_log_std: Tensor,
    index: Tensor,
    order: Tensor,
    ptr: Tensor,
    instance_ptr: Tensor,
    batch: Tensor,
    upstream: Tensor | None,
    with_outside: bool,
    gradients: bool,
    compiled: bool,
) -> list[Tensor]:
    """Values and derivatives, cloud by cloud: the fields of a ``PairSums`` of N points and K centres.

    S, the number of derivatives, counts the sums: one for each that was asked for, or a single one weighted per
    instance with ``upstream`` (2, K); S = 0 without gradients.
    """
    if _has_twin(mean, log_std, c_mean, c_log_std):
        from probemb_lib._triton.similarity_sums import all_clouds

        return all_clouds(
            mean, log_std, c_mean, c_log_std, index, order, ptr, instance_ptr, batch, upstream, with_outside, gradients
        )
    n = mean.shape[0]
    k = c_mean.shape[0]
    sets = 0 if not gradients else 1 if upstream is not None else 1 + with_outside
    # One row a dimension has unit stride along the sums. Rows (3, D, V) of points are ½ μ, σ and σ², of centres ½ μ,
    # 2 σ and σ²: what a pair needs, with the factors that powers of two carry without rounding.
    std, c_std, member = log_std.T.exp(), c_log_std.T.exp(), index
    x = torch.stack([0.5 * mean.T, std, std * std])
    c = torch.stack([0.5 * c_mean.T, 2 * c_std, c_std * c_std])
    in_order = mean.device.type == "cpu" and torch.equal(order, torch.arange(n))  # the points of most batches are
    if not in_order:
        x, member = take(x, order), index.index_select(0, order)
    pairs = Pairs(x, c, member, torch.arange(k, device=index.device), upstream)
    sums = PairSums(
        c.new_zeros(k), c.new_zeros(k), x.new_zeros((sets, 2, *x.shape[1:])), c.new_zeros((sets, 2, *c.shape[1:]))
    )
    p, q = ptr.tolist(), instance_ptr.tolist()
    for p0, p1, k0, k1 in zip(p, p[1:], q, q[1:], strict=False):
        if p1 > p0 and k1 > k0:
            cloud = slice(p0, p1), slice(k0, k1)
            _add_cloud(pairs.part(*cloud), with_outside, compiled, sums.part(*cloud))
    similar, outside, of_points, of_centers = sums
    return [similar, outside, of_points if in_order else put(of_points, order, n), of_centers]


@_all_clouds.register_fake
def _(  # type: ignore[no-untyped-def]
    mean,
    log_std,
    c_mean,
    c_log_std,
    index,
    order,
    ptr,
    instance_ptr,
    batch,
    upstream,
    with_outside,
    gradients,
    compiled,
):
    sets = 0 if not gradients else 1 if upstream is not None else 1 + with_outside
    k = c_mean.shape[0]
    return [
        c_mean.new_empty(k),
        c_mean.new_empty(k),
        mean.new_empty((sets, 2, *mean.T.shape)),
        c_mean.new_empty((sets, 2, *c_mean.T.shape)),
    ]


def _add_cloud(cloud: Pairs, with_outside: bool, compiled: bool, sums: PairSums) -> None:
    """Add one cloud's sums, tile by tile."""
    n, k = cloud.member.shape[0], cloud.ids.shape[0]
    tile_k = min(k, MAX_TILE_CENTERS)
    on_cpu = TILE_ELEMENTS_COMPILED if compiled else TILE_ELEMENTS_CPU
    tile_n = (on_cpu if cloud.points.device.type == "cpu" else TILE_ELEMENTS_GPU) // tile_k
    tile_n = min(n, max(64, tile_n // 64 * 64))  # rows that begin on a cache line are read faster
    for k0 in range(0, k, tile_k):
        for n0 in range(0, n, tile_n):
            place = slice(n0, min(n0 + tile_n, n)), slice(k0, min(k0 + tile_k, k))
            tile = cloud.part(*place)
            # Compiled code would be made anew for a size of 1.
            fused = compiled and min(tile.ids.shape[0], tile.member.shape[0]) > 1
            add = add_fused_tile if fused else add_tile
            add(tile, with_outside, sums.part(*place))
