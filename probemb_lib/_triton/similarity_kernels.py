r"""Triton kernels of the fused sums: values and derivatives in one pass over the pairs, without atomics.

First ``table_kernel`` tabulates σ² and √σ of points and centres, then ``pairs_kernel`` does the work, and
``centers_kernel`` adds up what its programs found for each centre.

One warp works on one tile: P × 8 points, held in registers, against 4 centres of their cloud at a time. Of the 32 lanes
8 lie along the points and 4 along the centres, and each lane has P points, so that most of every sum is added inside a
lane: the sums of the points wait for the end of the loop over centres, those of the centres cost three shuffles for P
pairs. The shape (P, 4, 8) of all tiles is what makes Triton lay the lanes out like this, with one warp a program.

Work is divided by cloud without asking the GPU for sizes: ``rows`` programs stand ready for each cloud, program r takes
its tiles r, r + rows, …, and one whose cloud has no such tile ends at once. Each program has a row of its own for the
partial sums of the centres, which are added up in a fixed order: results repeat to the bit. Memory is O(N + K) and
these rows, at most ``MAX_PARTIALS`` numbers or one row.

The arithmetic of a pair, in one dimension, with doubled variances V = 2σ² (scaling by 2 is exact):

    r = 1 / (V_i + V_k)    Δ = μ_i − μ_k    t = Δ r    q = Δ t    u = (q − 1) r    τ = (V_i − V_k) r

    a = ½ Σ q                         κ = y exp(−a)
    y = Π √(2 σ_i 2 σ_k r)            by one 1/√ a dimension, of which r is the square
    1 − y⁴ = 1 − Π (1 − τ²)           as τ = tanh(ln σ_i − ln σ_k); added up as a sum of positive terms
    1 − κ = (1 − y⁴) / ((1 + y)(1 + y²)) + y (1 − exp(−a))    positive terms: no digit is lost near κ = 1

and its derivatives, with the weight w = ∂f/∂ ln κ, which is κ for the first sum and κ / (1 − κ) for the second:

    ∂f/∂μ_i = −Σ_k w t        ∂f/∂ ln σ_i = Σ_k w (½ + V_i u)
    ∂f/∂μ_k = +Σ_i w t        ∂f/∂ ln σ_k = Σ_i w (½ + V_k u)
"""

# mypy: ignore-errors
# Triton's language is not typed: a loop over dimensions is unrolled, and tuples grow in it.

from __future__ import annotations

import triton
import triton.language as tl

from probemb_lib.similarity import MIN_DISSIMILARITY

POINT_LANES = tl.constexpr(8)
CENTER_LANES = tl.constexpr(4)
REDUCED_ROWS = tl.constexpr(256)  # partial sums that one program adds up at a time
GROUP = tl.constexpr(3)  # dimensions whose √(2σ) are multiplied: for |ln σ| < 40 three do not overflow, six might

FLOOR = tl.constexpr(MIN_DISSIMILARITY)
LOG2_E = tl.constexpr(1.4426950408889634)
MAX_ENERGY = tl.constexpr(1e3)  # of Δ² r in derivatives


@triton.jit
def _columns(row, first: tl.constexpr, count: tl.constexpr):
    columns = ()
    for j in tl.static_range(first, first + count):
        columns += (tl.load(row + j),)
    return columns


@triton.jit
def _one_minus_kappa(kappa, y, a, one_minus_y4):
    """1 − κ with all its digits, where κ ≥ ¼ and so a < ln 4 by a polynomial for (1 − e^−a) / a (error 3e-8)."""
    p = -1.23734299e-3 + a * 1.09718054e-4
    p = 8.19746941e-3 + a * p
    p = -4.16026254e-2 + a * p
    p = 1.66652107e-1 + a * p
    p = -4.99998748e-1 + a * p
    p = 9.99999982e-1 + a * p
    root = tl.rsqrt((1.0 + y) * (1.0 + y * y))
    near = one_minus_y4 * (root * root) + y * (a * p)
    return tl.where(kappa < 0.25, 1.0 - kappa, near)


@triton.jit(do_not_specialize=["count", "mean_row", "mean_column", "log_std_row", "log_std_column"])
def table_kernel(
    mean,
    log_std,
    order,
    weights,
    table,
    count,
    mean_row,
    mean_column,
    log_std_row,
    log_std_column,
    D: tl.constexpr,
    ORDERED: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What the pairs need of a point or a centre, (count, WIDTH): μ (D), 2σ² (D), Π √(2σ) (groups), the two weights.

    In float64, as an error here is in all pairs of the row. Points are taken in their order.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = i < count
    i = i.to(tl.int64)
    row = table + i * WIDTH
    source = i
    if ORDERED:
        source = tl.load(order + i, mask=live, other=0)
    for g in tl.static_range((D + GROUP - 1) // GROUP):
        root = tl.full((BLOCK,), 1.0, tl.float64)
        for d in tl.static_range(g * GROUP, g * GROUP + GROUP):
            if d < D:
                log_s = tl.load(log_std + source * log_std_row + d * log_std_column, mask=live, other=0.0)
                s = tl.exp(log_s.to(tl.float64))
                root *= tl.sqrt(2.0 * s)
                tl.store(row + d, tl.load(mean + source * mean_row + d * mean_column, mask=live), mask=live)
                tl.store(row + D + d, (2.0 * s * s).to(tl.float32), mask=live)
        tl.store(row + 2 * D + g, root.to(tl.float32), mask=live)
    if WEIGHTED:
        for j in tl.static_range(2):
            tl.store(row + WIDTH - 2 + j, tl.load(weights + j * count + i, mask=live), mask=live)


@triton.jit(do_not_specialize=["num_points", "num_centers", "rows"])
def pairs_kernel(
    points,
    centers,
    instance,
    order,
    ptr,
    instance_ptr,
    partial,
    grad,
    num_points,
    num_centers,
    rows,
    D: tl.constexpr,
    OUTSIDE: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SETS: tl.constexpr,
    P: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Partial sums of the centres, (rows, K, COLUMNS), and derivatives of the points, (SETS, 2, N, D).

    Columns: Σ κ, Σ −ln(1 − κ) and the second set's Σ w, as far as asked for, or Σ w if weighted; then for each set and
    dimension Σ w t and Σ w u.
    """
    TILE: tl.constexpr = P * POINT_LANES
    GROUPS: tl.constexpr = (D + GROUP - 1) // GROUP
    SLOTS: tl.constexpr = 2 * D + 1  # sums of a point for each set: w, w t, w u
    cloud = tl.program_id(0) // rows
    own_row = tl.program_id(0) % rows
    begin, end = tl.load(ptr + cloud), tl.load(ptr + cloud + 1)
    k0, k1 = tl.load(instance_ptr + cloud).to(tl.int32), tl.load(instance_ptr + cloud + 1).to(tl.int32)
    tiles = ((end - begin + TILE - 1) // TILE).to(tl.int32)
    own_partial = partial + own_row.to(tl.int64) * num_centers * COLUMNS

    lane = tl.arange(0, POINT_LANES)[None, None, :]
    slot = tl.arange(0, P)[:, None, None]
    center = tl.arange(0, CENTER_LANES)[None, :, None]
    along, across = tl.arange(0, POINT_LANES)[None, :], tl.arange(0, CENTER_LANES)[:, None]
    for tile in range(own_row, tiles, rows):
        at = begin + tile * TILE + (slot * POINT_LANES + lane + 0 * center)  # (P, 4, 8)
        live = at < end
        at = tl.minimum(at, end - 1)  # the last point fills the tile: its numbers are as good as any
        point = points + at * (2 * D + GROUPS)
        x, v = _columns(point, 0, D), _columns(point, D, D)
        roots = _columns(point, 2 * D, GROUPS)
        first_root = tl.where(live, roots[0], 0.0)  # 0 takes a pair out of all sums
        if OUTSIDE:
            own = tl.load(instance + tl.load(order + at)).to(tl.int32)
        sums = ()
        for _ in tl.static_range(SETS * SLOTS):
            sums += (tl.zeros((P, CENTER_LANES, POINT_LANES), tl.float32),)

        written = tl.where(own_row == tile, k0, k1)  # nothing before the first tile
        for k in range(k0, k1, CENTER_LANES):
            column = k + center  # (1, 4, 1)
            base = centers + tl.minimum(column, k1 - 1) * WIDTH
            c_mean, c_v = _columns(base, 0, D), _columns(base, D, D)
            c_roots = _columns(base, 2 * D, GROUPS)
            t, u = (), ()
            energy, one_minus_y4, y = 0.0, 0.0, 1.0
            for g in tl.static_range(GROUPS):
                part = first_root if g == 0 else roots[g]
                for d in tl.static_range(g * GROUP, g * GROUP + GROUP):
                    if d < D:
                        variance = v[d] + c_v[d]
                        root = tl.rsqrt(variance)
                        r = root * root
                        if OUTSIDE:  # one Newton step: ½ + V u cancels where the weight κ / (1 − κ) is large
                            r += r * (1.0 - variance * r)
                        delta = x[d] - c_mean[d]
                        td = delta * r
                        q = delta * td
                        t += (td,)
                        u += (tl.minimum(q, MAX_ENERGY) * r - r,)  # 0 · ∞ would be NaN, and κ is 0 by then
                        energy = q if d == 0 else energy + q
                        part *= root
                        if OUTSIDE:
                            tau = (v[d] - c_v[d]) * r
                            tau2 = tau * tau
                            one_minus_y4 = tau2 if d == 0 else one_minus_y4 + tau2 * (1.0 - one_minus_y4)
                if g == 0:
                    y = part * tl.where(column < k1, c_roots[0], 0.0)
                else:
                    y *= part * c_roots[g]
            kappa = y * tl.exp2(energy * (-0.5 * LOG2_E))

            weights, planes = (kappa,), (kappa,)
            if OUTSIDE:
                one_minus = _one_minus_kappa(kappa, y, 0.5 * energy, one_minus_y4)
                is_outside = (own != column) & live
                above = is_outside & (one_minus > FLOOR)
                one_minus = tl.maximum(one_minus, FLOOR, propagate_nan=tl.PropagateNan.ALL)
                if not WEIGHTED:
                    planes += (tl.where(is_outside, -tl.log(one_minus), 0.0),)
                root = tl.rsqrt(one_minus)
                weights += (tl.where(above, kappa * (root * root), 0.0),)
            if WEIGHTED:
                of_sums = _columns(base, WIDTH - 2, 2)
                combined = kappa * of_sums[0]
                if OUTSIDE:
                    combined += weights[1] * of_sums[1]
                weights, planes = (combined,), (combined,)

            if SETS == 2:
                planes += (weights[1],)
            added = ()
            for j in tl.static_range(SETS):
                added += (sums[j * SLOTS] + weights[j],)
                for d in tl.static_range(D):
                    wt, wu = weights[j] * t[d], weights[j] * u[d]
                    planes += (wt, wu)
                    added += (sums[j * SLOTS + 1 + 2 * d] + wt, sums[j * SLOTS + 2 + 2 * d] + wu)
            sums = added

            of_center = own_partial + (k + across) * COLUMNS + along  # (4, 8): a lane along the points is a column
            for first in tl.static_range(0, COLUMNS, POINT_LANES):
                total = tl.zeros((CENTER_LANES, POINT_LANES), tl.float32)
                for j in tl.static_range(first, first + POINT_LANES):
                    if j < COLUMNS:
                        total = tl.where(along == j - first, tl.sum(tl.sum(planes[j], axis=0), axis=1)[:, None], total)
                in_row = first + along < COLUMNS
                total += tl.load(of_center + first, mask=in_row & (k + across < written), other=0.0)
                tl.store(of_center + first, total, mask=in_row & (k + across < k1))

        if SETS > 0:
            at = begin + tile * TILE + tl.arange(0, P)[:, None] * POINT_LANES + along  # (P, 8)
            live_row = at < end
            row = tl.load(order + at, mask=live_row, other=0) * D
            for j in tl.static_range(SETS):
                target = grad + 2 * j * num_points.to(tl.int64) * D + row
                for d in tl.static_range(D):
                    of_mean = -tl.sum(sums[j * SLOTS + 1 + 2 * d], axis=1)
                    of_log_std = tl.sum(0.5 * sums[j * SLOTS] + v[d] * sums[j * SLOTS + 2 + 2 * d], axis=1)
                    tl.store(target + d, of_mean, mask=live_row)
                    tl.store(target + num_points.to(tl.int64) * D + d, of_log_std, mask=live_row)
        tl.debug_barrier()  # the next tile reads these partial sums, in another layout perhaps from other lanes


@triton.jit(do_not_specialize=["num_centers", "rows"])
def centers_kernel(
    partial,
    centers,
    cloud_of,
    ptr,
    similar,
    negative_log,
    grad,
    num_centers,
    rows,
    D: tl.constexpr,
    OUTSIDE: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SETS: tl.constexpr,
    P: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One centre a program: the partial sums of its cloud's rows become both sums (K,) and (SETS, 2, K, D)."""
    TILE: tl.constexpr = P * POINT_LANES
    k = tl.program_id(0).to(tl.int64)
    cloud = tl.load(cloud_of + k)
    tiles = (tl.load(ptr + cloud + 1) - tl.load(ptr + cloud) + TILE - 1) // TILE
    used = tl.minimum(tiles, rows)  # the other rows were never written
    added = ()
    for _ in tl.static_range(COLUMNS):
        added += (tl.zeros((REDUCED_ROWS,), tl.float32),)
    for first in range(0, used, REDUCED_ROWS):
        row = first + tl.arange(0, REDUCED_ROWS)
        of_center = partial + (row * num_centers + k) * COLUMNS
        longer = ()
        for j in tl.static_range(COLUMNS):
            longer += (added[j] + tl.load(of_center + j, mask=row < used, other=0.0),)
        added = longer

    if not WEIGHTED:
        tl.store(similar + k, tl.sum(added[0], axis=0))
        if OUTSIDE:
            tl.store(negative_log + k, tl.sum(added[1], axis=0))
    for j in tl.static_range(SETS):
        half = 0.5 * tl.sum(added[2 * j], axis=0)
        target = grad + (2 * j * num_centers + k) * D
        for d in tl.static_range(D):
            v = tl.load(centers + k * WIDTH + D + d)
            of_mean = tl.sum(added[COLUMNS - 2 * D * (SETS - j) + 2 * d], axis=0)
            of_log_std = half + v * tl.sum(added[COLUMNS - 2 * D * (SETS - j) + 2 * d + 1], axis=0)
            tl.store(target + d, of_mean)
            tl.store(target + num_centers * D + d, of_log_std)
