"""The squared distance of `_squares` in Triton, and points that all lanes look at."""

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
