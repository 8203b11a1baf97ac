"""Triton twin of the rounds of ``probemb_lib.clustering``: the launches, for float32 and float64 on CUDA.

A round is two launches and one read-back, that of the points that are left. 10,000 points of 40 blobs take two rounds,
1,000,000 of 2,000 blobs ten. A launch for each seed would be simpler, but takes the host longer than the GPU.

Compiled for compute capability 8.0 and 9.0 and tested in Triton's interpreter; ``make gpu`` tests on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probemb_lib._triton.greedy_kernels import assign_kernel, settle_kernel, table_kernel

CANDIDATES = 1024  # of a part in a round: four a lane, in registers
WARPS = 8
TABLE_BLOCK = 256
BLOCK = 512  # points of a program of four warps: what it loads of a seed serves four points a lane
CHUNK = 64  # seeds that are compared before points in doubt are decided
MIN_LOG_TAU = -40.0  # in float32, whose range κ² must not leave


def first_similar_seeds(
    mean: Tensor, log_std: Tensor, order: Tensor, part: Tensor, ptr: Tensor, could_seed: Tensor, log_tau: float
) -> Tensor:
    """Greedy clustering of points by part and rank: arguments and results as of ``clustering._rounds``.

    Args:
        mean, log_std: (n, D) float32 or float64 of any strides.
        order: (n,) rows by part, then by rank; in this order:
        part: (n,) 0 to P − 1.
        ptr: (P + 1,) where the parts begin.
        could_seed: (n,) bool, first in each part.

    Returns:
        (n,) place in the order of each point's seed, n for none.
    """
    n, dim = mean.shape
    double = mean.dtype == torch.float64 or log_tau < MIN_LOG_TAU
    table = mean.new_empty((n, 2 * dim), dtype=torch.float64 if double else torch.float32)
    limit = mean.new_full((1,), log_tau, dtype=torch.float64)  # an argument would be float32
    owner, left, every_part = order.new_full((n,), n), torch.arange(n, device=order.device), None
    found = order.new_empty(len(ptr) - 1, dtype=torch.int32)
    finished = order.new_empty(len(ptr) - 1, dtype=torch.int8)
    strides = (*mean.stride(), *log_std.stride())
    points = (mean, log_std, order, table, limit)
    options = {"D": dim, "DOUBLE": double, "enable_fp_fusion": True}
    with torch.cuda.device_of(mean):
        table_kernel[(-(-n // TABLE_BLOCK),)](mean, log_std, order, table, n, *strides, **options, BLOCK=TABLE_BLOCK)
        while True:
            seeds = torch.empty_like(left)
            settle_kernel[(len(found),)](
                *points,
                left,
                ptr,
                could_seed.view(torch.int8),
                owner,
                seeds,
                found,
                finished,
                n,
                *strides,
                **options,
                S=CANDIDATES,
                num_warps=WARPS,
            )
            if len(left) > CANDIDATES:
                assign_kernel[(-(-len(left) // BLOCK),)](
                    *points,
                    left,
                    ptr,
                    part,
                    owner,
                    seeds,
                    found,
                    len(left),
                    n,
                    *strides,
                    **options,
                    BLOCK=BLOCK,
                    CHUNK=CHUNK,
                )
            is_left = (owner[left] == n) & (finished[part[left]] == 0)
            left = left[is_left.nonzero().squeeze(1)]  # the read-back of a round
            if len(left) == 0:
                return owner
            if every_part is None:
                every_part = torch.arange(len(ptr), device=ptr.device)
            ptr = torch.searchsorted(part[left], every_part)
