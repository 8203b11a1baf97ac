r"""Triton kernels of the greedy clustering: many seeds of all clouds in a launch, without atomics.

Points lie by part (a cloud, or a class of one) and by rank: the highest score first. Within a part the next seed is the
first open point that can seed. So the first S open points of a part can be settled among themselves, whatever the
others are:

    ``settle_kernel``    one program a part. S points in registers; again and again the first that is open becomes
                         a seed and takes the open ones that are similar to it.
    ``assign_kernel``    one program for some of the other points. Each goes to the first similar one of the new
                         seeds of its part.

The comparison κ ≥ τ of float32 input is one of Π 2 σ_i σ_s / V with τ² exp(½ Σ Δ² / V), V = σ_i² + σ_s², which needs
no logarithm. With ε = 2⁻²³ and L = −ln τ, relative errors of σ (½ ε each), V (2½ ε), 1/V (2½ ε more), each factor
(7½ ε) and each Δ²/V (7 ε), of their sum (½ D ε), of the exponent (4 L ε, as it is at most 2 L) and of its power (2 ε)
add up to ε (7½ D + 2 + L (18 + D)). Within twice that and more float64 decides, and also where a number is not finite:
points out of float32's range have a NaN for their σ.
"""

# mypy: ignore-errors
# Triton's language is not typed: a loop over dimensions is unrolled, and tuples grow in it.

from __future__ import annotations

import triton
import triton.language as tl

ROUNDING = tl.constexpr(4 * 2.0**-23)
MAX_MEAN = tl.constexpr(1e18)  # in float32, whose range squares must not leave
MAX_LOG_STD = tl.constexpr(30.0)  # beside the squares of such σ, what Δ² loses by underflow is nothing
LOG2_E = tl.constexpr(1.4426950408889634)
NONE = tl.constexpr(2**31 - 2)  # of the seeds


@triton.jit
def _columns(row, first: tl.constexpr, count: tl.constexpr, live):
    columns = ()
    for j in tl.static_range(first, first + count):
        columns += (tl.load(row + j, mask=live, other=1.0),)
    return columns


@triton.jit
def _compare(x, s, seed, log_tau, D: tl.constexpr, DOUBLE: tl.constexpr):
    """κ ≥ τ of points with a seed, and where float32 cannot tell; ``seed`` is its row of the table."""
    q, ratio = 0.0, 1.0
    for d in tl.static_range(D):
        mean, std = tl.load(seed + d), tl.load(seed + D + d)
        delta = x[d] - mean
        variance = s[d] * s[d] + std * std
        if DOUBLE:
            q += delta * delta / variance
            ratio *= (2 * std) * s[d] / variance
        else:
            root = tl.rsqrt(variance)
            r = root * root
            q += (delta * delta) * r
            ratio *= ((2 * std) * s[d]) * r
    if DOUBLE:
        reaches = 0.5 * tl.log(ratio) - 0.25 * q >= log_tau
        unsure = reaches  # not asked for
    else:
        log_tau = log_tau.to(tl.float32)
        rounding = ROUNDING * (9.0 * D - log_tau * (16.0 + D))
        least = tl.exp2((2.0 * log_tau + 0.5 * q) * LOG2_E)
        reaches = ratio > least * (1.0 + rounding)
        unsure = (reaches | (ratio < least * (1.0 - rounding))) == False  # noqa: E712 - also where one is NaN
    return reaches, unsure


@triton.jit
def _decide(mean, log_std, i, seed, log_tau, live, mean_row, mean_column, log_std_row, log_std_column, D: tl.constexpr):
    """κ ≥ τ of points (rows i of the input) with a seed (a row of it) in float64."""
    q, ratio = 0.0, 1.0
    for d in tl.static_range(D):
        of_mean, of_std = mean + d * mean_column, log_std + d * log_std_column
        delta = tl.load(of_mean + i * mean_row, mask=live, other=0.0).to(tl.float64)
        delta -= tl.load(of_mean + seed * mean_row).to(tl.float64)
        s = tl.exp(tl.load(of_std + i * log_std_row, mask=live, other=0.0).to(tl.float64))
        c = tl.exp(tl.load(of_std + seed * log_std_row).to(tl.float64))
        variance = s * s + c * c
        q += delta * delta / variance
        ratio *= (2 * c) * s / variance
    return 0.5 * tl.log(ratio) - 0.25 * q >= log_tau


@triton.jit(do_not_specialize=["count", "mean_row", "mean_column", "log_std_row", "log_std_column"])
def table_kernel(
    mean,
    log_std,
    order,
    table,
    count,
    mean_row,
    mean_column,
    log_std_row,
    log_std_column,
    D: tl.constexpr,
    DOUBLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """μ and σ of the points in their order, (count, 2 D)."""
    i = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    live = i < count
    source = tl.load(order + i, mask=live, other=0)
    for d in tl.static_range(D):
        x = tl.load(mean + source * mean_row + d * mean_column, mask=live, other=0.0).to(tl.float64)
        log_s = tl.load(log_std + source * log_std_row + d * log_std_column, mask=live, other=0.0).to(tl.float64)
        s = tl.exp(log_s)
        if not DOUBLE:
            s = tl.where((tl.abs(x) <= MAX_MEAN) & (tl.abs(log_s) <= MAX_LOG_STD), s, float("nan"))
        tl.store(table + i * (2 * D) + d, x.to(table.dtype.element_ty), mask=live)
        tl.store(table + i * (2 * D) + D + d, s.to(table.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["num_points", "mean_row", "mean_column", "log_std_row", "log_std_column"])
def settle_kernel(
    mean,
    log_std,
    order,
    table,
    limit,
    left,
    ptr,
    could_seed,
    owner,
    seeds,
    found,
    finished,
    num_points,
    mean_row,
    mean_column,
    log_std_row,
    log_std_column,
    D: tl.constexpr,
    DOUBLE: tl.constexpr,
    S: tl.constexpr,
):
    """Settle the first S points that are left of a part among themselves.

    Writes their ``owner``, the place of their seed, where they have one; the places of the seeds in order, where those
    of the part begin in ``left``; how many are ``found``; and whether no other point of the part can seed.
    """
    part = tl.program_id(0)
    begin, end = tl.load(ptr + part), tl.load(ptr + part + 1)
    lane = tl.arange(0, S)
    is_open = begin + lane < end
    at = tl.load(left + begin + lane, mask=is_open, other=0)
    can_seed = tl.load(could_seed + at, mask=is_open, other=0) != 0
    tl.store(finished + part, ((end - begin <= S) | (tl.sum(can_seed.to(tl.int32), axis=0) < S)).to(tl.int8))
    x, s = _columns(table + at * (2 * D), 0, D, is_open), _columns(table + at * (2 * D), D, D, is_open)
    log_tau = tl.load(limit)

    own = tl.zeros((S,), tl.int64) + num_points
    count = 0
    best = tl.max(tl.where(can_seed & is_open, S - lane, 0), axis=0)  # S − lane of the next seed
    while best > 0:
        first = S - best
        seed = tl.load(left + begin + first)
        tl.store(seeds + begin + count, seed)
        count += 1
        reaches, unsure = _compare(x, s, table + seed * (2 * D), log_tau, D, DOUBLE)
        joins = is_open & (reaches | (lane == first))
        rank = tl.where(can_seed & is_open & (joins == 0), S - lane, 0)
        if DOUBLE:
            best = tl.max(rank, axis=0)
        else:
            unsure = unsure & is_open & (lane != first)
            best = tl.max(tl.where(unsure, S + 1, rank), axis=0)
            if best > S:  # one is: seldom
                decided = _decide(
                    mean,
                    log_std,
                    tl.load(order + at),
                    tl.load(order + seed),
                    log_tau,
                    unsure,
                    mean_row,
                    mean_column,
                    log_std_row,
                    log_std_column,
                    D,
                )
                joins = joins | (unsure & decided)
                best = tl.max(tl.where(joins, 0, rank), axis=0)
        own = tl.where(joins, seed, own)
        is_open = is_open & (joins == 0)
    tl.store(owner + at, own, mask=own < num_points)
    tl.store(found + part, count)


@triton.jit(do_not_specialize=["num_left", "num_points", "mean_row", "mean_column", "log_std_row", "log_std_column"])
def assign_kernel(
    mean,
    log_std,
    order,
    table,
    limit,
    left,
    ptr,
    part,
    owner,
    seeds,
    found,
    num_left,
    num_points,
    mean_row,
    mean_column,
    log_std_row,
    log_std_column,
    D: tl.constexpr,
    DOUBLE: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Give points that are still open to the first similar one of the seeds that their part found in this round."""
    i = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    live = i < num_left
    at = tl.load(left + i, mask=live, other=0)
    live = live & (tl.load(owner + at, mask=live, other=0) == num_points)
    own_part = tl.load(part + at, mask=live, other=0).to(tl.int32)
    x, s = _columns(table + at * (2 * D), 0, D, live), _columns(table + at * (2 * D), D, D, live)
    log_tau = tl.load(limit)

    first = tl.full((BLOCK,), NONE, tl.int32)  # similar seed, by its number in ``seeds``
    low, high = tl.min(tl.where(live, own_part, NONE), axis=0), tl.max(tl.where(live, own_part, -1), axis=0)
    for p in range(low, high + 1):
        mine = live & (own_part == p)
        k = tl.load(ptr + p).to(tl.int32)
        last = k + tl.load(found + p)
        while k < last:
            stop = tl.minimum(k + CHUNK, last)
            doubt = tl.full((BLOCK,), NONE, tl.int32)  # the first seed with which float32 cannot tell
            for j in range(k, stop):
                seed = tl.load(seeds + j)
                reaches, unsure = _compare(x, s, table + seed * (2 * D), log_tau, D, DOUBLE)
                first = tl.where(mine & reaches, tl.minimum(first, j), first)
                if not DOUBLE:
                    doubt = tl.where(mine & unsure, tl.minimum(doubt, j), doubt)
            # The nearest doubt before a similar seed; or NONE: some go on; or all are done.
            waits = tl.where(mine & (first == NONE), NONE, NONE + 1)
            nearest = tl.min(tl.where(doubt < first, doubt, waits), axis=0)
            k = tl.where(nearest == NONE, stop, last)
            if not DOUBLE:  # noqa: SIM102 - known when compiling
                if nearest < NONE:  # seldom: what is behind it is compared again
                    asks = (doubt == nearest) & (doubt < first)
                    decided = _decide(
                        mean,
                        log_std,
                        tl.load(order + at, mask=live, other=0),
                        tl.load(order + tl.load(seeds + nearest)),
                        log_tau,
                        asks,
                        mean_row,
                        mean_column,
                        log_std_row,
                        log_std_column,
                        D,
                    )
                    first = tl.where(asks & decided, nearest, first)
                    k = nearest + 1
    has_seed = first < NONE
    tl.store(owner + at, tl.load(seeds + first, mask=has_seed, other=0), mask=has_seed)
