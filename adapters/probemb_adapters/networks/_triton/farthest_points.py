"""Farthest-point sampling as one Triton kernel: one program a cloud, which keeps all of it in registers if it fits.

Each step takes the sample m, then for all points i, in the arithmetic of `_squares`,

    d_i ← min(d_i, |x_i − x_m|²)        m ← argmax_i d_i, of equal ones the lowest index

A lane goes through its points in ascending order and keeps the first of equal ones; among the
lanes the lowest index is chosen in a second reduction.
"""

# mypy: ignore-errors
# Triton's language is not typed: tuples grow in a loop that is unrolled.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from probemb_adapters.networks._triton.squares import squared_norm

POINTS_A_LANE = 4  # of a chunk: loads of 16 bytes
REGISTERS = 80  # of 128 that a lane has with 16 warps, for x, y, z and d of each of its points


@triton.jit
def _square(x, y, z, xs, ys, zs, sample):
    return squared_norm(x - tl.load(xs + sample), y - tl.load(ys + sample), z - tl.load(zs + sample))


@triton.jit
def _first_of_largest(value, index):
    return tl.min(tl.where(value == tl.max(value, 0), index, 0x7FFFFFFF), 0)


@triton.jit(do_not_specialize=["plane", "points", "count"])
def in_registers_kernel(planes, first, samples, plane, points, count, CHUNK: tl.constexpr, CHUNKS: tl.constexpr):
    """planes (3, B, N) with ``plane`` = B N, first (B,), samples (B, count)."""
    cloud = tl.program_id(0).to(tl.int64)
    xs = planes + cloud * points
    ys = xs + plane
    zs = ys + plane
    lane = tl.arange(0, CHUNK)
    x = ()
    y = ()
    z = ()
    d = ()
    for c in tl.static_range(CHUNKS):
        i = c * CHUNK + lane
        x += (tl.load(xs + i, mask=i < points, other=0.0),)
        y += (tl.load(ys + i, mask=i < points, other=0.0),)
        z += (tl.load(zs + i, mask=i < points, other=0.0),)
        d += (tl.where(i < points, float("inf"), -1.0).to(planes.dtype.element_ty),)  # −1 is never the largest
    sample = tl.load(first + cloud).to(tl.int32)
    for m in range(count):
        tl.store(samples + cloud * count + m, sample.to(tl.int64))
        nearer = ()
        for c in tl.static_range(CHUNKS):
            nearer += (tl.minimum(d[c], _square(x[c], y[c], z[c], xs, ys, zs, sample)),)
        d = nearer
        largest = d[0]
        index = lane
        for c in tl.static_range(1, CHUNKS):
            larger = d[c] > largest
            largest = tl.where(larger, d[c], largest)
            index = tl.where(larger, c * CHUNK + lane, index)
        sample = _first_of_largest(largest, index)


@triton.jit(do_not_specialize=["count"])
def in_memory_kernel(planes, distance, first, samples, plane, points, count, CHUNK: tl.constexpr):
    """The same chunk by chunk with distances (B, N), infinite to begin with, in global memory."""
    cloud = tl.program_id(0).to(tl.int64)
    xs = planes + cloud * points
    ys = xs + plane
    zs = ys + plane
    ds = distance + cloud * points
    lane = tl.arange(0, CHUNK)
    sample = tl.load(first + cloud).to(tl.int32)
    for m in range(count):
        tl.store(samples + cloud * count + m, sample.to(tl.int64))
        largest = tl.full((CHUNK,), -1.0, planes.dtype.element_ty)
        index = lane
        for start in range(0, points, CHUNK):
            i = start + lane
            live = i < points
            x, y, z = tl.load(xs + i, mask=live), tl.load(ys + i, mask=live), tl.load(zs + i, mask=live)
            d = tl.minimum(tl.load(ds + i, mask=live, other=-1.0), _square(x, y, z, xs, ys, zs, sample))
            tl.store(ds + i, d, mask=live)
            larger = live & (d > largest)
            largest = tl.where(larger, d, largest)
            index = tl.where(larger, i, index)
        sample = _first_of_largest(largest, index)
        tl.debug_barrier()  # the distances are written before any warp reads them again


def shape(points: int, itemsize: int) -> tuple[int, int, int]:
    """Warps, points of a chunk, and chunks, 0 where they do not fit the registers."""
    warps = 4 if points * itemsize <= 2**12 else 8 if points * itemsize <= 2**14 else 16
    chunk = 32 * warps * POINTS_A_LANE
    chunks = triton.cdiv(points, chunk)
    return warps, chunk, chunks if chunks * POINTS_A_LANE * itemsize <= REGISTERS else 0


def farthest(positions: Tensor, first: Tensor, count: int) -> Tensor:
    """As `all_clouds.farthest`."""
    batch, points, _ = positions.shape
    planes = positions.permute(2, 0, 1).contiguous()
    samples = first.new_empty(batch, count)
    warps, chunk, chunks = shape(points, positions.element_size())
    with torch.cuda.device_of(positions):
        if chunks > 0:
            in_registers_kernel[(batch,)](
                planes, first, samples, batch * points, points, count, CHUNK=chunk, CHUNKS=chunks, num_warps=warps
            )
        else:
            distance = torch.full_like(planes[0], torch.inf)
            in_memory_kernel[(batch,)](
                planes, distance, first, samples, batch * points, points, count, CHUNK=chunk, num_warps=warps
            )
    return samples
