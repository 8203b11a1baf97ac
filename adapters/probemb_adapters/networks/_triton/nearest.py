"""Nearest neighbours as one Triton kernel: a lane a query, which keeps the k nearest so far in registers, in order.

A point comes before the first that is farther, so of equally far points the lowest index comes first.
"""

# mypy: ignore-errors
# Triton's language is not typed: tuples grow in loops that are unrolled.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from probemb_adapters.networks._triton.squares import coordinates, own_points, squared_norm

LANES = 128


@triton.jit(do_not_specialize=["num_queries", "points", "plane"])
def nearest_kernel(
    queries,
    planes,
    squares,
    index,
    num_queries,
    points,
    plane,
    K: tl.constexpr,
    LARGEST: tl.constexpr,
    LANES: tl.constexpr,
    GROUP: tl.constexpr,
):
    """queries (B, N, 3), planes (3, B, M) with ``plane`` = B M, squares and index (B, N, K)."""
    live, row, x, y, z, xs, ys, zs = own_points(queries, planes, num_queries, points, plane, LANES)

    nearest = ()
    place = ()
    for _ in tl.static_range(K):
        nearest += (tl.full((LANES,), float("inf"), x.dtype),)
        place += (tl.full((LANES,), 0, tl.int32),)
    for j in range(0, points, GROUP):
        px = coordinates(xs, j, points, GROUP)
        py = coordinates(ys, j, points, GROUP)
        pz = coordinates(zs, j, points, GROUP)
        for g in tl.static_range(GROUP):
            square = tl.minimum(squared_norm(x - px[g], y - py[g], z - pz[g]), LARGEST)
            point = tl.full((LANES,), 0, tl.int32) + (j + g)
            before = square < nearest[0]
            shifted = ()
            shifted_place = ()
            for s in tl.static_range(K):
                before = before | (square < nearest[s])  # what was there and all after it move on
                shifted += (tl.where(before, square, nearest[s]),)
                shifted_place += (tl.where(before, point, place[s]),)
                square = tl.where(before, nearest[s], square)
                point = tl.where(before, place[s], point)
            nearest = shifted
            place = shifted_place
    for s in tl.static_range(K):
        tl.store(squares + row * K + s, nearest[s], mask=live)
        tl.store(index + row * K + s, place[s].to(tl.int64), mask=live)


def nearest(queries: Tensor, positions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `all_clouds.nearest`."""
    batch, num_queries, _ = queries.shape
    points = positions.shape[1]
    planes = positions.permute(2, 0, 1).contiguous()
    squares = planes.new_empty(batch, num_queries, k)
    index = torch.empty_like(squares, dtype=torch.int64)
    programs = batch * triton.cdiv(num_queries, LANES)
    with torch.cuda.device_of(planes):
        nearest_kernel[(programs,)](
            queries.contiguous(),
            planes,
            squares,
            index,
            num_queries,
            points,
            batch * points,
            K=k,
            LARGEST=torch.finfo(planes.dtype).max,
            LANES=LANES,
            GROUP=4,
            num_warps=LANES // 32,
        )
    return squares, index
