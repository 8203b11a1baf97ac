"""The geometry of `point_geometry` for all clouds at once: the way on GPUs, in few launches that never wait.

On CUDA one Triton kernel an operation. Without Triton, plain torch: distances are tabulated for as many centres, or
queries, of each cloud as give B·m·N ≤ tile, at least one, and a table, its differences and the ranks in it are the only
large tensors. Nothing is read back. Everything is given checked and without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probemb_adapters.networks._squares import covariance_of, in_all_clouds, squared_distance, squared_norm
from probemb_lib.twins import run_on

MOST_NEAREST = 8  # of the Triton kernel, which keeps them in registers


def farthest(positions: Tensor, first: Tensor, count: int) -> Tensor:
    """Farthest points (B, count) from positions (B, N, 3) and the first samples (B,)."""
    if positions.is_cuda and run_on(positions.device):
        from probemb_adapters.networks._triton.farthest_points import farthest as by_kernel

        return by_kernel(positions, first, count)
    batch, points, _ = positions.shape
    planes = positions.permute(2, 0, 1).contiguous()
    columns, cloud = planes.flatten(1), torch.arange(batch, device=positions.device) * points
    difference = torch.empty_like(planes)
    distance = torch.full_like(planes[0], torch.inf)  # squared, to the nearest sample so far
    samples = [first]
    for _ in range(1, count):
        last = columns.index_select(1, cloud + samples[-1])  # (3, B)
        torch.sub(planes, last[..., None], out=difference)
        torch.minimum(distance, squared_norm(difference), out=distance)
        samples.append(distance.argmax(1))
    return torch.stack(samples, 1)


def balls(centers: Tensor, positions: Tensor, radius: float, count: int, tile: int) -> Tensor:
    """The first points in each ball: (B, M, 3), (B, N, 3) -> (B, M, count)."""
    if centers.is_cuda and run_on(centers.device):
        from probemb_adapters.networks._triton.balls import balls as by_kernel

        return by_kernel(centers, positions, radius, count)
    planes = positions.permute(2, 0, 1).contiguous()
    return torch.cat([_balls(some, planes, radius, count) for some in _steps(centers, planes, tile)], 1)


def _balls(centers: Tensor, planes: Tensor, radius: float, count: int) -> Tensor:
    """The same for coordinates (3, B, N), from all distances."""
    square = squared_distance(centers, planes)  # (B, M, N)
    inside = square < radius * radius  # which is rounded to the dtype of the squares
    rank = inside.cumsum(2, dtype=torch.int32)  # how many are inside up to here
    slot = torch.arange(1, count + 1, dtype=torch.int32, device=rank.device)
    index = torch.searchsorted(rank, slot.expand(*rank.shape[:2], count).contiguous())  # N where there are fewer
    missing = index == planes.shape[2]
    first = torch.where(missing[..., :1], square.argmin(2, keepdim=True), index[..., :1])
    return torch.where(missing, first, index)


def nearest(queries: Tensor, positions: Tensor, k: int, tile: int) -> tuple[Tensor, Tensor]:
    """Squared distances and indices of the nearest: (B, N, 3), (B, M, 3) -> (B, N, k) twice."""
    if queries.is_cuda and k <= MOST_NEAREST and run_on(queries.device):
        from probemb_adapters.networks._triton.nearest import nearest as by_kernel

        return by_kernel(queries, positions, k)
    planes = positions.permute(2, 0, 1).contiguous()
    found = [_nearest(some, planes, k) for some in _steps(queries, planes, tile)]
    squares, indices = zip(*found, strict=True)
    return torch.cat(squares, 1), torch.cat(indices, 1)


def _nearest(queries: Tensor, planes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """k times the least, which of equal ones is the first; torch's topk leaves open which of them it takes."""
    square = squared_distance(queries, planes).clamp_max_(torch.finfo(planes.dtype).max)
    squares, indices = [], []
    for _ in range(k):
        least, index = square.min(2, keepdim=True)
        squares.append(least)
        indices.append(index)
        square.scatter_(2, index, torch.inf)  # taken
    return torch.cat(squares, 2), torch.cat(indices, 2)


def covariance(positions: Tensor, radius: float, count: int, tile: int) -> Tensor:
    """Of the neighbours of each point: (B, N, 3) -> (B, N, 6)."""
    columns, parts = positions.flatten(0, 1).t().contiguous(), []
    size = max(1, tile // (8 * len(positions) * count))  # about as many numbers a neighbour are held
    for some in torch.split(positions, size, 1):
        rows = in_all_clouds(balls(some, positions, radius, count, tile), positions.shape[1])
        parts.append(covariance_of(columns, some, rows, radius))
    return torch.cat(parts, 1)


def _steps(points: Tensor, planes: Tensor, tile: int) -> Sequence[Tensor]:
    """Points (B, M, 3) a few at a time, so that their distances to all others of their clouds are a tile."""
    some: Sequence[Tensor] = points.split(max(1, tile // planes[0].numel()), 1)
    return some
