r"""Lovász hinge of every instance against all points of its cloud (Berman et al., CVPR 2018), instance by instance.

Point i is in instance k of p points where φ_ik = exp(−½ Σ_d z_d²) > ½, z_d = (e_id − c_kd)/σ_kd. With logits 2φ − 1 the
hinge errors are

    m_i = 2 − 2 φ_ik inside the instance,     m_i = 2 φ_ik outside,

never negative. In descending order of m, with I points inside and O outside before point i, the loss Σ m_i w_i has the
increments of the Jaccard loss 1 − (p − I)/(p + O) as weights, here without a difference of nearly equal numbers:

    w_i = 1/(p + O) inside,     w_i = (p − I) / ((p + O)(p + O + 1)) outside.

They are constants in differentiation, and 0 for every point outside whose error is at most the smallest one inside:
those are left out, exactly. Votes are sorted along one axis, so that the others are looked for in a window of it.
Derivatives are summed in the same pass as the values, and no instance leaves anything behind: memory is O(N + K).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probemb_lib.aggregate import InstanceIndex
from probemb_lib.segments import segment_reduce


def lovasz_hinge(mean: Tensor, center: Tensor, log_std: Tensor, index: InstanceIndex) -> Tensor:
    """Σ over the instances of a cloud of their Lovász hinge: (B,).

    Args:
        mean: (N, D) votes e, float32 or float64.
        center: (K, D) c, in the order of ``index``.
        log_std: (K, D) ln σ.
        index: ignored points take no part; points of no instance are outside of all.

    Backward works once: a second differentiation raises an error.
    """
    result: Tensor = _LovaszHinge.apply(mean, center, log_std, index)
    return result


class _LovaszHinge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, center: Tensor, log_std: Tensor, index: InstanceIndex) -> Tensor:
        value, *grads = _all_instances(
            mean.detach(),
            center.detach(),
            log_std.detach(),
            index.index,
            index.order,
            index.ptr,
            index.instance_ptr,
            index.member,
            index.member_ptr,
            any(ctx.needs_input_grad[:3]),
        )
        ctx.save_for_backward(*grads, index.point_batch, index.batch)
        return segment_reduce(value, "sum", index.instance_ptr, initial=0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        of_mean, of_center, of_log_std, point_batch, batch = ctx.saved_tensors
        of_instance = upstream.index_select(0, batch)[:, None]
        return (
            of_mean * upstream.index_select(0, point_batch)[:, None],
            of_center * of_instance,
            of_log_std * of_instance,
            None,
        )


# An operator of its own is opaque to torch.compile: the loop over instances does not enter the caller's graph.
@torch.library.custom_op(
    "probemb_lib::lovasz_hinge",
    mutates_args=(),
    schema=(
        "(Tensor mean, Tensor center, Tensor log_std, Tensor index, Tensor order, Tensor ptr, Tensor "
        "instance_ptr, Tensor member, Tensor member_ptr, bool gradients) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _all_instances(
    mean: Tensor,
    center: Tensor,
    log_std: Tensor,
    index: Tensor,
    order: Tensor,
    ptr: Tensor,
    instance_ptr: Tensor,
    member: Tensor,
    member_ptr: Tensor,
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss of each instance (K,), and its derivatives by mean, center and ln σ (zeros without ``gradients``)."""
    value = mean.new_zeros(center.shape[0])
    of_mean = torch.zeros_like(mean, memory_format=torch.contiguous_format)
    of_center, of_log_std = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (center, log_std))
    if member.numel() == 0:
        return value, of_mean, of_center, of_log_std
    inverse = torch.exp(-log_std)
    own = index.index_select(0, member)
    own_z = ((mean.index_select(0, member) - center.index_select(0, own)) * inverse.index_select(0, own)).T  # (D, M)
    own_error = -2 * torch.expm1(-0.5 * own_z.square().sum(0))  # 2 − 2 φ, exact also near φ = 1
    least = segment_reduce(own_error, "min", member_ptr)
    reach = _reach(least, center, log_std)
    place = torch.empty_like(index)  # of a point in its sorted cloud

    p, q, m = ptr.tolist(), instance_ptr.tolist(), member_ptr.tolist()
    for p0, p1, k0, k1 in zip(p, p[1:], q, q[1:], strict=False):
        if k0 == k1:
            continue
        rows = order[p0:p1]
        x = mean.index_select(0, rows).T  # (D, n)
        axis = int((x.amax(1) - x.amin(1)).argmax())
        along, sorting = x[axis].sort(stable=True)
        rows, x = rows[sorting], x[:, sorting].contiguous()
        place[rows] = torch.arange(p1 - p0, device=rows.device)
        of = index.index_select(0, rows)
        of_x = torch.zeros_like(x)
        window = torch.stack([center[k0:k1, axis] - reach[k0:k1, axis], center[k0:k1, axis] + reach[k0:k1, axis]])
        for k, a, b in zip(range(k0, k1), *torch.searchsorted(along, window).tolist(), strict=True):
            inside = slice(m[k], m[k + 1])
            z = (x[:, a:b] - center[k, :, None]) * inverse[k, :, None]
            error = 2 * torch.exp(-0.5 * z.square().sum(0))
            others = ((of[a:b] != k) & (error > least[k])).nonzero().squeeze(1)
            z = torch.cat([own_z[:, inside], z[:, others]], dim=1)  # (D, m)
            # Of equal errors those inside come first: any order gives the same loss.
            error, ranking = torch.cat([own_error[inside], error[others]]).sort(descending=True, stable=True)
            is_inside = ranking < m[k + 1] - m[k]
            weight = _jaccard_increments(is_inside, error.dtype)
            value[k] = (error * weight).sum()  # no matrix product: autocast would round it
            if gradients:
                signed = torch.empty_like(weight)
                signed[ranking] = torch.where(is_inside, -2.0, 2.0) * weight  # by φ
                slope = signed * torch.exp(-0.5 * z.square().sum(0))  # by ln φ = −½ Σ z²
                by_vote = -slope * z * inverse[k, :, None]
                of_x.index_add_(1, torch.cat([place[member[inside]], others + a]), by_vote)
                of_center[k] = -by_vote.sum(1)
                of_log_std[k] = (z.square() * slope).sum(1)
        of_mean[rows] = of_x.T
    return value, of_mean, of_center, of_log_std


@_all_instances.register_fake
def _(  # type: ignore[no-untyped-def]
    mean, center, log_std, index, order, ptr, instance_ptr, member, member_ptr, gradients
):
    of_mean, of_center, of_log_std = (
        torch.empty_like(t, memory_format=torch.contiguous_format) for t in (mean, center, log_std)
    )
    return mean.new_empty(center.shape[0]), of_mean, of_center, of_log_std


def _reach(least: Tensor, center: Tensor, log_std: Tensor) -> Tensor:
    """How far from a center, along each axis, 2 φ exceeds ``least``; more rather than less where it is rounded."""
    limits = torch.finfo(least.dtype)
    squared = -2 * torch.log(least.clamp_min(limits.tiny * limits.eps) / 2)  # from there on φ underflows
    std = torch.exp(log_std)
    return 1.001 * torch.sqrt(squared.clamp_min(0) + 1e-3)[:, None] * std + 4 * limits.eps * center.abs()


def _jaccard_increments(inside: Tensor, dtype: torch.dtype) -> Tensor:
    """How much the Jaccard loss grows with each point, in the order given: (m,)."""
    found = inside.cumsum(0)
    union = found[-1] + torch.arange(1, inside.shape[0] + 1, device=inside.device) - found  # p + O, itself included
    missed, union = (found[-1] - found).to(dtype), union.to(dtype)
    return torch.where(inside, 1 / union, missed / (union * (union - 1)))
