"""Triton twin of ``_reduce`` in ``probemb_lib/segments.py``, sums and largest of segments: kernel and launches.

A program takes one row of one segment, or one of ``parts`` equal parts of it where segments are long on average; their
results are then reduced by the same kernel in a second launch. Sums are accumulated in float64 in an order that depends
on the sizes alone, without atomics: results repeat to the bit. Nothing is read back from the GPU.
"""

# mypy: ignore-errors
# Triton's language is not typed.

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

PART = 4096  # points of a part, where a segment has several
LONG = 4 * PART  # points of an average segment that is divided: below, a second launch costs more than it saves
MAX_PARTS = 256
MAX_BLOCK = 1024


def parts_of_segment(points: int, segments: int) -> int:
    """How many programs share a segment of average length."""
    average = points // segments
    return 1 if average <= LONG else min(MAX_PARTS, -(-average // PART))


def reduce_segments(x: Tensor, ptr: Tensor, largest: bool) -> Tensor:
    """The sum of each segment, or its largest, 0 of an empty one: (…, M) float32 of any strides → (…, S)."""
    count, segments = math.prod(x.shape[:-1]), ptr.shape[0] - 1
    if count * segments * x.shape[-1] == 0:
        return x.new_zeros((*x.shape[:-1], segments))
    rows, result = x.reshape(count, -1), x.new_empty((*x.shape[:-1], segments))
    parts = parts_of_segment(rows.shape[1], segments)
    block = max(32, min(MAX_BLOCK, triton.next_power_of_2(rows.shape[1] // (segments * parts))))
    with torch.cuda.device_of(x):
        if parts == 1:
            _launch(rows, ptr, result, 1, 0, largest, True, block)
        else:
            partial = x.new_empty((count, segments * parts), dtype=torch.float64)
            _launch(rows, ptr, partial, parts, 0, largest, False, block)
            _launch(partial, ptr, result, 1, parts, largest, True, triton.next_power_of_2(parts))
    return result


def _launch(
    x: Tensor, ptr: Tensor, result: Tensor, parts: int, length: int, largest: bool, last: bool, block: int
) -> None:
    segments = ptr.shape[0] - 1
    reduce_kernel[(segments * parts, x.shape[0])](
        x, ptr, result, *x.stride(), segments, parts, length, largest, last, block, enable_fp_fusion=True
    )


@triton.jit(do_not_specialize=["row_stride", "segments", "parts", "length"])
def reduce_kernel(
    x,
    ptr,
    result,
    row_stride,
    stride,
    segments,
    parts,
    length,
    LARGEST: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Reduce part p of segment s in row r: program (s · parts + p, r). Segments have ``length`` points if it is not 0,
    else those of ``ptr``. The last launch writes 0 for the largest of nothing."""
    out = tl.program_id(0)
    segment, part = out // parts, out % parts
    row = tl.program_id(1).to(tl.int64)
    if length > 0:
        begin = segment.to(tl.int64) * length
        end = begin + length
    else:
        begin, end = tl.load(ptr + segment), tl.load(ptr + segment + 1)
    share = (end - begin + parts - 1) // parts
    begin += part * share
    end = tl.minimum(begin + share, end)
    nothing = float("-inf") if LARGEST else 0.0
    reduced = tl.full((BLOCK,), nothing, tl.float64)
    blocks = ((tl.maximum(end - begin, 0) + BLOCK - 1) // BLOCK).to(tl.int32)
    for i in range(0, blocks):
        at = begin + i * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(x + row * row_stride + at * stride, mask=at < end, other=nothing).to(tl.float64)
        if LARGEST:
            reduced = tl.maximum(reduced, value)
        else:
            reduced += value
    if LARGEST:
        total = tl.max(reduced, axis=0)
        if LAST:
            total = tl.where(total == float("-inf"), 0.0, total)
    else:
        total = tl.sum(reduced, axis=0)
    tl.store(result + row * segments * parts + out, total.to(result.dtype.element_ty))
