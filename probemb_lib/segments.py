"""Sums over segments: rows sorted so that those of one instance, or of one cloud, lie together.

Segment sums and their transpose (one row repeated over its segment) are each other's derivative. Nothing here
scatters with atomics, so results repeat to the bit on every device. Sums are accumulated in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


# Opaque to torch.compile: fused into arithmetic, a gather would keep Inductor from vectorizing all of it.
@torch.library.custom_op("probemb_lib::take_rows", mutates_args=())
def _take_rows_opaque(x: Tensor, rows: Tensor) -> Tensor:
    return x.index_select(0, rows)


@_take_rows_opaque.register_fake
def _(x: Tensor, rows: Tensor) -> Tensor:
    return x.new_empty((rows.shape[0], *x.shape[1:]))


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """x[rows] without a derivative."""
    if torch.compiler.is_compiling():
        result: Tensor = _take_rows_opaque(x, rows)
        return result
    return x.index_select(0, rows)


class _GatherRows(torch.autograd.Function):
    """x[rows] for distinct rows: the derivative is a copy, not an accumulation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.length = x.shape[0]
        return take_rows(x, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grad.new_zeros((ctx.length, *grad.shape[1:])).index_copy(0, rows, grad), None


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
        ctx.save_for_backward(ptr, segment)
        return sum_of_segments(x, ptr)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _ExpandSegments.apply(grad, *ctx.saved_tensors), None, None


class _ExpandSegments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
        ctx.save_for_backward(ptr, segment)
        return take_rows(x, segment)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _SegmentSum.apply(grad, *ctx.saved_tensors), None, None


def sum_of_segments(x: Tensor, ptr: Tensor) -> Tensor:
    """Σ of the rows of each segment, without a derivative; see :func:`segment_sum`."""
    return torch.segment_reduce(_wide(x).contiguous(), "sum", offsets=ptr, axis=0, initial=0).to(x.dtype)


def sum_of_row_segments(x: Tensor, ptr: Tensor) -> Tensor:
    """The same for each row of x, whose columns are sorted by segment: (R, M) → (R, S)."""
    offsets = ptr.expand(x.shape[0], -1).contiguous()
    return torch.segment_reduce(_wide(x), "sum", offsets=offsets, axis=1, initial=0).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()  # MPS has no float64


def gather_columns(mean: Tensor, log_std: Tensor, rows: Tensor) -> Tensor:
    """Some rows of μ and ln σ, each (N, D), with one row a dimension: (2, D, M). Without a derivative."""
    dim = mean.shape[1]
    columns = [t[:, d].index_select(0, rows) for t in (mean, log_std) for d in range(dim)]  # faster than to transpose
    return torch.stack(columns).view(2, dim, rows.shape[0])


def gather_rows(x: Tensor, rows: Tensor) -> Tensor:
    """x[rows] of distinct ``rows`` (M,): (N, …) → (M, …)."""
    result: Tensor = _GatherRows.apply(x, rows)
    return result


def segment_sum(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """Σ of the rows of each segment: (M, …) → (S, …).

    Args:
        x: rows sorted by segment, shape (M, …).
        ptr: (S+1,) int64; segment s owns rows ptr[s]:ptr[s+1].
        segment: (M,) int64, the segment of each row (the same fact as ``ptr``).
    """
    result: Tensor = _SegmentSum.apply(x, ptr, segment)
    return result


def expand_segments(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """Each segment's row repeated over its members: (S, …) → (M, …). Arguments as in :func:`segment_sum`."""
    result: Tensor = _ExpandSegments.apply(x, ptr, segment)
    return result


def segment_logsumexp(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """ln Σ exp(x) over each segment: (M,) → (S,); an empty segment gives 0, with gradient 0."""
    low = torch.finfo(x.dtype).min
    peak = torch.segment_reduce(x.detach(), "max", offsets=ptr, axis=0, initial=low).clamp_max(0.5 * -low)
    peak = torch.where(ptr.diff() > 0, peak, 0.0)
    total = segment_sum((x - peak.index_select(0, segment)).exp(), ptr, segment)
    return torch.where(ptr.diff() > 0, peak + torch.where(ptr.diff() > 0, total, 1.0).log(), 0.0)


def mean_over_clouds(per_cloud: Tensor, has_term: Tensor, like: Tensor) -> Tensor:
    """Mean of the clouds' terms over the clouds that have one; without any, a zero that still carries a gradient.

    Args:
        per_cloud: (B,), finite also where ``has_term`` is false.
        has_term: (B,) bool.
        like: a tensor of the graph that the zero hangs on, so that all processes of a run see the same graph.
    """
    total = torch.where(has_term, per_cloud, 0.0).sum()
    return total / has_term.sum().clamp_min(1) + like[:0].sum()
