"""Triton twin of ``probemb_lib.similarity_sums`` for float32 on CUDA: the launches.

Nothing is read back from the GPU, so the calls may be captured in a CUDA graph. With Triton 3.3, 3.6 and the newest
the kernels are compiled for compute capability 8.0 and 9.0 and tested in the interpreter; ``make gpu`` tests and
measures on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probemb_lib._triton.similarity_kernels import GROUP, POINT_LANES, centers_kernel, pairs_kernel, table_kernel

MAX_POINTS_A_LANE = 8
MAX_REGISTERS = 128  # of the 255 of a lane, for the points and their sums; the others are for the pairs at work
MAX_ROWS = (
    4096  # for one cloud: an H100 runs 8 such warps on each of 132 multiprocessors, so that four rounds level out
)
MAX_PROGRAMS = 16384  # for all clouds, where most may find no tile in a batch of many small ones
MAX_PARTIALS = 1 << 26  # numbers, 256 MB
TABLE_BLOCK = 128


class Shape(NamedTuple):
    """What kernels are compiled for, by the names of their arguments."""

    D: int
    OUTSIDE: bool
    WEIGHTED: bool
    SETS: int  # of derivatives
    P: int  # points of a lane
    WIDTH: int  # of a centre in the table
    COLUMNS: int  # partial sums of a centre

    @classmethod
    def of(cls, dim: int, outside: bool, weighted: bool, sets: int) -> Shape:
        width = 2 * dim + groups(dim) + 2 * weighted
        if weighted:
            columns = sets * (2 * dim + 1)
        else:
            columns = 1 + outside + sets * (2 * dim + 1) - min(sets, 1)  # Σ κ is a value and a weight
        return cls(dim, outside, weighted, sets, points_a_lane(dim, outside, sets), width, columns)


def groups(dim: int) -> int:
    """Of dimensions whose roots are multiplied."""
    return -(-dim // int(GROUP.value))


def points_a_lane(dim: int, outside: bool, sets: int) -> int:
    """P: as many as registers allow, since the sums of the centres are handed from lane to lane once for P pairs."""
    registers = 2 * dim + 1 + outside + sets * (2 * dim + 1)  # μ, 2σ², root, instance; sums
    points = MAX_POINTS_A_LANE
    while points > 1 and points * registers > MAX_REGISTERS:
        points //= 2
    return points


def partial_rows(tiles: int, num_clouds: int, row_size: int) -> int:
    """Programs for each cloud, of which each writes a row of ``row_size`` partial sums.

    With so many instances that few rows fit, the GPU is not filled: 10,000 points and 100,000 instances of one cloud
    have 44 warps.
    """
    return max(1, min(tiles, MAX_ROWS, MAX_PROGRAMS // num_clouds, MAX_PARTIALS // row_size))


def all_clouds(
    mean: Tensor,
    log_std: Tensor,
    c_mean: Tensor,
    c_log_std: Tensor,
    index: Tensor,
    order: Tensor,
    ptr: Tensor,
    instance_ptr: Tensor,
    batch: Tensor,
    weights: Tensor | None,
    outside: bool,
    gradients: bool,
) -> list[Tensor]:
    """Values and derivatives of all clouds: arguments and results of ``similarity_sums._all_clouds``.

    Arguments must fit together, as ``similarity_sums`` checks: kernels would read and write beyond their memory.

    Args:
        mean, log_std: (N, D) float32 of any strides.
        c_mean, c_log_std: (K, D), likewise.
        index, order, ptr, instance_ptr, batch: of the ``InstanceIndex``.
        weights: (2, K) of the two sums; then only the derivatives are computed, and the sums are 0.

    Returns:
        ``similar`` (K,), ``outside`` (K,), and the derivatives for points (S, 2, D, N) and centres (S, 2, D, K).
    """
    (n, dim), k = mean.shape, c_mean.shape[0]
    num_valid, num_clouds = order.shape[0], ptr.shape[0] - 1
    weighted, nothing = weights is not None, k == 0 or num_valid == 0
    sets = 0 if not gradients else 1 if weighted else 1 + outside
    # What no kernel writes: rows of ignored points, and sums that were not asked for.
    new = c_mean.new_zeros if nothing or weighted or not outside else c_mean.new_empty
    similar, negative_log = new(k), new(k)
    grad = (mean.new_zeros if nothing or num_valid < n else mean.new_empty)((sets, 2, dim, n))
    c_grad = (c_mean.new_zeros if nothing else c_mean.new_empty)((sets, 2, dim, k))
    if nothing:
        return [similar, negative_log, grad, c_grad]

    shape = Shape.of(dim, outside, weighted, sets)
    tiles = -(-num_valid // (shape.P * POINT_LANES.value))  # as if all points were of one cloud
    rows = partial_rows(tiles, num_clouds, k * shape.COLUMNS)
    points = mean.new_empty((num_valid, 2 * dim + groups(dim)))
    centers = c_mean.new_empty((k, shape.WIDTH))
    partial = c_mean.new_empty((rows, k, shape.COLUMNS))
    with torch.cuda.device_of(mean):
        _tabulate(mean, log_std, order, None, points)
        _tabulate(c_mean, c_log_std, None, weights, centers)
        pairs_kernel[(rows * num_clouds,)](
            points,
            centers,
            index,
            order,
            ptr,
            instance_ptr,
            partial,
            grad,
            n,
            k,
            rows,
            *shape,
            num_warps=1,
            enable_fp_fusion=True,
        )
        centers_kernel[(k,)](
            partial, centers, batch, ptr, similar, negative_log, c_grad, k, rows, *shape, enable_fp_fusion=True
        )
    return [similar, negative_log, grad, c_grad]


def _tabulate(mean: Tensor, log_std: Tensor, order: Tensor | None, weights: Tensor | None, table: Tensor) -> None:
    count, width = table.shape
    table_kernel[(-(-count // TABLE_BLOCK),)](
        mean,
        log_std,
        table if order is None else order,
        table if weights is None else weights.contiguous(),
        table,
        count,
        *mean.stride(),
        *log_std.stride(),
        D=mean.shape[1],
        ORDERED=order is not None,
        WEIGHTED=weights is not None,
        WIDTH=width,
        BLOCK=TABLE_BLOCK,
        enable_fp_fusion=True,
    )
