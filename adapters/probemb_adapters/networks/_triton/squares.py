"""The squared distance of `_squares` in Triton, points of a program, and those that all its lanes look at."""

# mypy: ignore-errors
# Triton's language is not typed: tuples grow in a loop that is unrolled.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def squared_norm(dx, dy, dz):
    """The fused multiply-adds are written out: the compiler may choose which of two products it fuses."""
    return tl.fma(dz, dz, tl.fma(dy, dy, dx * dx))


@triton.jit
def coordinates(plane, first, points, GROUP: tl.constexpr):
    """Of a few points in a row, loaded before what is done with them, which might write; infinite past the last."""
    values = ()
    for g in tl.static_range(GROUP):
        values += (tl.load(plane + first + g, mask=first + g < points, other=float("inf")),)
    return values


@triton.jit
def own_points(of_lanes, planes, number, points, plane, LANES: tl.constexpr):
    """The point of each lane, of (B, number, 3): live, its row and coordinates; and where those of its cloud begin in
    planes (3, B, points), with ``plane`` = B points. A program has ``LANES`` points of one cloud."""
    blocks = tl.cdiv(number, LANES)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    lane = tl.program_id(0) % blocks * LANES + tl.arange(0, LANES)
    live = lane < number
    row = cloud * number + lane
    x = tl.load(of_lanes + 3 * row, mask=live, other=0.0)
    y = tl.load(of_lanes + 3 * row + 1, mask=live, other=0.0)
    z = tl.load(of_lanes + 3 * row + 2, mask=live, other=0.0)
    xs = planes + cloud * points
    ys = xs + plane
    return live, row, x, y, z, xs, ys, ys + plane
