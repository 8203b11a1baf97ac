"""Ball query as one Triton kernel: a lane a centre, which walks along the points of its cloud until its ball is full.

A warp of 32 centres is a program and ends with its last ball. Where a ball is empty it walks again, for the nearest.
"""

# mypy: ignore-errors
# Triton's language is not typed.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from probemb_adapters.networks._triton.squares import coordinates, own_points, squared_norm

LANES = 32


@triton.jit(do_not_specialize=["num_centers", "points", "plane", "count"])
def balls_kernel(
    centers, planes, limit, index, num_centers, points, plane, count, LANES: tl.constexpr, GROUP: tl.constexpr
):
    """centers (B, M, 3), planes (3, B, N) with ``plane`` = B N, limit (), index (B, M, count)."""
    live, row, x, y, z, xs, ys, zs = own_points(centers, planes, num_centers, points, plane, LANES)
    most = tl.load(limit)
    ball = index + row * count

    found = tl.where(live, 0, count)
    first = tl.full((LANES,), 0, tl.int32)
    j = 0
    while (j < points) & (tl.min(found, 0) < count):
        px = coordinates(xs, j, points, GROUP)
        py = coordinates(ys, j, points, GROUP)
        pz = coordinates(zs, j, points, GROUP)
        for g in tl.static_range(GROUP):
            inside = (squared_norm(x - px[g], y - py[g], z - pz[g]) < most) & (found < count)
            tl.store(ball + found, tl.full((LANES,), 0, tl.int64) + (j + g), mask=inside)
            first = tl.where(inside & (found == 0), j + g, first)
            found += inside.to(tl.int32)
        j += GROUP

    if tl.min(found, 0) == 0:
        nearest = tl.full((LANES,), float("inf"), x.dtype)
        for i in range(points):
            square = squared_norm(x - tl.load(xs + i), y - tl.load(ys + i), z - tl.load(zs + i))
            nearer = square < nearest
            nearest = tl.where(nearer, square, nearest)
            first = tl.where(nearer & (found == 0), i, first)

    for slot in range(tl.min(found, 0), count):
        tl.store(ball + slot, first.to(tl.int64), mask=slot >= found)


def balls(centers: Tensor, positions: Tensor, radius: float, count: int) -> Tensor:
    """As `all_clouds.balls`."""
    batch, num_centers, _ = centers.shape
    points = positions.shape[1]
    planes = positions.permute(2, 0, 1).contiguous()
    limit = torch.full((), radius * radius, dtype=torch.float64, device=planes.device).to(planes.dtype)
    index = torch.empty(batch, num_centers, count, dtype=torch.int64, device=planes.device)
    programs = batch * triton.cdiv(num_centers, LANES)
    with torch.cuda.device_of(planes):
        balls_kernel[(programs,)](
            centers.contiguous(),
            planes,
            limit,
            index,
            num_centers,
            points,
            batch * points,
            count,
            LANES=LANES,
            GROUP=8,
            num_warps=1,
        )
    return index
