"""Sums over segments: points sorted so that those of one instance, or of one cloud, lie together.

Points lie along the last axis, (…, N): arithmetic on a row of them vectorizes, and so do sums. Segment sums and their
transpose (one column repeated over its segment) are each other's derivative. Nothing here scatters with atomics, so
results repeat to the bit on every device. Sums are accumulated in float64: by torch, where a thread of a GPU would add
up a segment alone, and there by Triton kernels (``_triton/segments.py``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probemb_lib.twins import run_on

SEGMENTS_RUN_ON = ("cpu", "cuda")
"""Devices with a `torch.segment_reduce`; for others, such as Apple's, points go to the CPU and sums come back."""


def _take(x: Tensor, index: Tensor) -> Tensor:
    if x.device.type != "cpu" or x.ndim == 1:
        return x.index_select(-1, index)
    # On a CPU index_select along the last axis is fast for a matrix only.
    return x.flatten(0, -2).index_select(1, index).view(*x.shape[:-1], index.shape[0])


def _put(x: Tensor, index: Tensor, length: int) -> Tensor:
    result = x.new_zeros((*x.shape[:-1], length))
    if x.device.type != "cpu":
        return result.index_copy_(-1, index, x)
    return result.scatter_(-1, index.expand_as(x), x)  # three times faster there


# Opaque to torch.compile: fused into arithmetic, a gather would keep Inductor from vectorizing all of it. The schemas
# of operators are written out, as torch before 2.7 does not read annotations that are strings.
@torch.library.custom_op("probemb_lib::take", mutates_args=(), schema="(Tensor x, Tensor index) -> Tensor")
def _take_opaque(x: Tensor, index: Tensor) -> Tensor:
    return _take(x, index)


@_take_opaque.register_fake
def _(x: Tensor, index: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], index.shape[0]))


@torch.library.custom_op(
    "probemb_lib::put",
    mutates_args=(),
    schema=("(Tensor x, Tensor index, SymInt length) -> Tensor"),
)
def _put_opaque(x: Tensor, index: Tensor, length: int) -> Tensor:
    return _put(x, index, length)


@_put_opaque.register_fake
def _(x: Tensor, index: Tensor, length: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], length))


def take(x: Tensor, index: Tensor) -> Tensor:
    """x[..., index] without a derivative."""
    result: Tensor = (_take_opaque if torch.compiler.is_compiling() else _take)(x, index)
    return result


def put(x: Tensor, index: Tensor, length: int) -> Tensor:
    """The transpose of :func:`take` for distinct indices: zeros (…, length) with x at ``index``."""
    result: Tensor = (_put_opaque if torch.compiler.is_compiling() else _put)(x, index, length)
    return result


class _GatherPoints(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.length = x.shape[-1]
        return take(x, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _ScatterPoints.apply(grad, *ctx.saved_tensors, ctx.length), None


class _ScatterPoints(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, length: int) -> Tensor:
        ctx.save_for_backward(rows)
        return put(x, rows, length)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _GatherPoints.apply(grad, *ctx.saved_tensors), None, None


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
        return take(x, segment)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _SegmentSum.apply(grad, *ctx.saved_tensors), None, None


def sum_of_segments(x: Tensor, ptr: Tensor) -> Tensor:
    """Σ over each segment, without a derivative; see :func:`segment_sum`."""
    return _reduced(x, ptr, False)


def max_of_segments(x: Tensor, ptr: Tensor) -> Tensor:
    """The largest of each segment, (M,) → (S,), without a derivative; 0 of an empty one."""
    return _reduced(x, ptr, True)


def has_twin(x: Tensor) -> bool:
    """Whether Triton kernels take the place of torch: for float32 on a GPU where they run."""
    return x.device.type == "cuda" and x.dtype == torch.float32 and run_on(x.device)


def segment_reduce(x: Tensor, kind: str, ptr: Tensor, *, initial: float | None = None, wide: bool = False) -> Tensor:
    """`torch.segment_reduce` over segments of the last axis, on any device: (…, M) → (…, S), without a derivative.

    Args:
        wide: computed in float64.
    """
    here = x if x.device.type in SEGMENTS_RUN_ON else x.cpu()  # before the cast: Apple's has no float64 either
    values, offsets = here.double() if wide else here, ptr.to(here.device).expand(*x.shape[:-1], -1)
    result = torch.segment_reduce(
        values.contiguous(), kind, offsets=offsets.contiguous(), axis=x.ndim - 1, initial=initial
    )
    return result.to(x.dtype).to(x.device)


def _reduced(x: Tensor, ptr: Tensor, largest: bool) -> Tensor:
    opaque = x.device.type == "cuda" and torch.compiler.is_compiling()
    result: Tensor = (_reduce_opaque if opaque else _reduce)(x, ptr, largest)
    return result


def _reduce(x: Tensor, ptr: Tensor, largest: bool) -> Tensor:
    if has_twin(x):
        from probemb_lib._triton.segments import reduce_segments

        return reduce_segments(x, ptr, largest)
    if largest:
        result = segment_reduce(x, "max", ptr, initial=-math.inf)
        return result.masked_fill(result == -math.inf, 0)
    return segment_reduce(x, "sum", ptr, initial=0, wide=True)


# Opaque to torch.compile, which has no kernel of its own for segments.
_reduce_opaque = torch.library.custom_op(
    "probemb_lib::reduce_segments", _reduce, mutates_args=(), schema="(Tensor x, Tensor ptr, bool largest) -> Tensor"
)


@_reduce_opaque.register_fake
def _(x: Tensor, ptr: Tensor, largest: bool) -> Tensor:
    return x.new_empty((*x.shape[:-1], ptr.shape[0] - 1))


def gather_points(x: Tensor, rows: Tensor) -> Tensor:
    """x[..., rows] of distinct ``rows`` (M,): (…, N) → (…, M)."""
    result: Tensor = _GatherPoints.apply(x, rows)
    return result


def segment_sum(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """Σ over each segment: (…, M) → (…, S).

    Args:
        x: points sorted by segment, (…, M).
        ptr: (S+1,) int64; segment s owns the points ptr[s]:ptr[s+1].
        segment: (M,) int64, the segment of each point (the same fact as ``ptr``).
    """
    result: Tensor = _SegmentSum.apply(x, ptr, segment)
    return result


def expand_segments(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """Each segment's column repeated over its members: (…, S) → (…, M). Arguments as in :func:`segment_sum`."""
    result: Tensor = _ExpandSegments.apply(x, ptr, segment)
    return result


def segment_logsumexp(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """ln Σ exp(x) over each segment: (M,) → (S,); an empty segment gives 0, with gradient 0."""
    peak = max_of_segments(x.detach(), ptr)
    total = segment_sum((x - take(peak, segment)).exp(), ptr, segment)
    is_empty = ptr[1:] == ptr[:-1]
    return peak + (total + is_empty).log()
