r"""Triton kernels of the fused sums: values and derivatives in one pass over the pairs, without atomics.

First ``table_kernel`` tabulates σ² and √σ of points and centres, then ``pairs_kernel`` does the work, and
``centers_kernel`` adds up what its programs found for each centre.

One warp works on one tile: P × 8 points, held in registers, against 4 centres of their cloud at a time. Of the 32 lanes
8 lie along the points and 4 along the centres, and each lane has P points, so that most of every sum is added inside a
lane: the sums of the points wait for the end of the loop over centres, those of the centres cost three shuffles for P
pairs. The P points are tuples of tensors of shape (4, 8), not an axis: with one number a lane in every tensor there is
one way to lay them out, where versions of Triton differ in what they make of (P, 4, 8).

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
def _row(row, live, D: tl.constexpr):
    """μ (D), 2σ² (D) and Π √(2σ) (groups) of a point or a centre. The first root is 0, and so is κ, where not live."""
    columns = ()
    for j in tl.static_range(2 * D + (D + GROUP - 1) // GROUP):
        column = tl.load(row + j)
        columns += (tl.where(live, column, 0.0) if j == 2 * D else column,)
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


@triton.jit
def _pair(x, c, is_outside, D: tl.constexpr, OUTSIDE: tl.constexpr):
    """κ, −ln(1 − κ), the weight of the latter, t (D) and u (D) of two rows. Unless OUTSIDE the first three are κ."""
    t, u = (), ()
    energy, one_minus_y4, y = 0.0, 0.0, 1.0
    for g in tl.static_range((D + GROUP - 1) // GROUP):
        part = x[2 * D + g]
        for d in tl.static_range(g * GROUP, g * GROUP + GROUP):
            if d < D:
                variance = x[D + d] + c[D + d]
                root = tl.rsqrt(variance)
                r = root * root
                if OUTSIDE:  # one Newton step: ½ + V u cancels where the weight κ / (1 − κ) is large
                    r += r * (1.0 - variance * r)
                delta = x[d] - c[d]
                td = delta * r
                q = delta * td
                t += (td,)
                u += (tl.minimum(q, MAX_ENERGY) * r - r,)  # 0 · ∞ would be NaN, and κ is 0 by then
                energy = q if d == 0 else energy + q
                part *= root
                if OUTSIDE:
                    tau = (x[D + d] - c[D + d]) * r
                    tau2 = tau * tau
                    one_minus_y4 = tau2 if d == 0 else one_minus_y4 + tau2 * (1.0 - one_minus_y4)
        y = part * c[2 * D + g] if g == 0 else y * (part * c[2 * D + g])
    kappa = y * tl.exp2(energy * (-0.5 * LOG2_E))
    negative_log, weight = kappa, kappa
    if OUTSIDE:
        one_minus = _one_minus_kappa(kappa, y, 0.5 * energy, one_minus_y4)
        above = is_outside & (one_minus > FLOOR)
        one_minus = tl.maximum(one_minus, FLOOR, propagate_nan=tl.PropagateNan.ALL)
        negative_log = tl.where(is_outside, -tl.log(one_minus), 0.0)
        root = tl.rsqrt(one_minus)
        weight = tl.where(above, kappa * (root * root), 0.0)
    return kappa, negative_log, weight, t, u


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
    """Partial sums of the centres, (rows, K, COLUMNS), and derivatives of the points, (SETS, 2, D, N).

    Columns: Σ κ, Σ −ln(1 − κ) and the second set's Σ w, as far as asked for, or Σ w if weighted; then for each set and
    dimension Σ w t and Σ w u.
    """
    TILE: tl.constexpr = P * POINT_LANES
    GROUPS: tl.constexpr = (D + GROUP - 1) // GROUP
    SLOTS: tl.constexpr = 2 * D + 1  # sums of a point for each set: w, w t, w u
    HEADS: tl.constexpr = COLUMNS - 2 * D * SETS  # columns before the first Σ w t
    cloud = tl.program_id(0) // rows
    own_row = tl.program_id(0) % rows
    begin, end = tl.load(ptr + cloud), tl.load(ptr + cloud + 1)
    k0, k1 = tl.load(instance_ptr + cloud).to(tl.int32), tl.load(instance_ptr + cloud + 1).to(tl.int32)
    tiles = ((end - begin + TILE - 1) // TILE).to(tl.int32)
    own_partial = partial + own_row.to(tl.int64) * num_centers * COLUMNS

    along = tl.arange(0, POINT_LANES)[None, :] + 0 * tl.arange(0, CENTER_LANES)[:, None]  # (4, 8), as all tensors here
    across = 0 * along + tl.arange(0, CENTER_LANES)[:, None]
    for tile in range(own_row, tiles, rows):
        tile_points, of_points, sums = (), (), ()  # rows, instances and sums of P × 8 points
        for p in tl.static_range(P):
            place = begin + tile * TILE + p * POINT_LANES + along
            at = tl.minimum(place, end - 1)  # the last point fills the tile: its numbers are as good as any
            tile_points += (_row(points + at * (2 * D + GROUPS), place < end, D),)
            if OUTSIDE:
                of_points += (tl.load(instance + tl.load(order + at)).to(tl.int32),)
            for _ in tl.static_range(SETS * SLOTS):
                sums += (tl.zeros((CENTER_LANES, POINT_LANES), tl.float32),)

        written = tl.where(own_row == tile, k0, k1)  # nothing before the first tile
        for k in range(k0, k1, CENTER_LANES):
            column = k + across
            base = centers + tl.minimum(column, k1 - 1) * WIDTH
            c = _row(base, column < k1, D)
            if WEIGHTED:
                of_similar, of_outside = tl.load(base + WIDTH - 2), tl.load(base + WIDTH - 1)
            planes, added = (), ()
            for _ in tl.static_range(COLUMNS):
                planes += (tl.zeros((CENTER_LANES, POINT_LANES), tl.float32),)
            for p in tl.static_range(P):
                is_outside = of_points[p] != column if OUTSIDE else column
                kappa, negative_log, weight, t, u = _pair(tile_points[p], c, is_outside, D, OUTSIDE)
                weights, heads = (kappa, weight), (kappa, negative_log, weight)
                if WEIGHTED:
                    combined = kappa * of_similar
                    if OUTSIDE:
                        combined += weight * of_outside
                    weights, heads = (combined,), (combined,)
                longer = ()
                for j in tl.static_range(HEADS):
                    longer += (planes[j] + heads[j],)
                for j in tl.static_range(SETS):
                    added += (sums[(p * SETS + j) * SLOTS] + weights[j],)
                    for d in tl.static_range(D):
                        added += (tl.fma(weights[j], t[d], sums[(p * SETS + j) * SLOTS + 1 + 2 * d]),)
                        added += (tl.fma(weights[j], u[d], sums[(p * SETS + j) * SLOTS + 2 + 2 * d]),)
                        longer += (tl.fma(weights[j], t[d], planes[HEADS + 2 * (D * j + d)]),)
                        longer += (tl.fma(weights[j], u[d], planes[HEADS + 2 * (D * j + d) + 1]),)
                planes = longer
            if SETS > 0:
                sums = added

            of_center = own_partial + column * COLUMNS + along  # a lane along the points is a column
            for first in tl.static_range(0, COLUMNS, POINT_LANES):
                total = tl.zeros((CENTER_LANES, POINT_LANES), tl.float32)
                for j in tl.static_range(first, first + POINT_LANES):
                    if j < COLUMNS:
                        total = tl.where(along == j - first, tl.sum(planes[j], axis=1)[:, None], total)
                in_row = first + along < COLUMNS
                total += tl.load(of_center + first, mask=in_row & (column < written), other=0.0)
                tl.store(of_center + first, total, mask=in_row & (column < k1))

        for p in tl.static_range(P if SETS > 0 else 0):
            place = begin + tile * TILE + p * POINT_LANES + along
            live = place < end
            row = tl.load(order + place, mask=live, other=0)
            for j in tl.static_range(SETS):
                for first in tl.static_range(0, 2 * D, CENTER_LANES):  # a lane along the centres is a row of grad
                    total = tl.zeros((CENTER_LANES, POINT_LANES), tl.float32)
                    for i in tl.static_range(first, first + CENTER_LANES):
                        if i < D:
                            of_mean = -sums[(p * SETS + j) * SLOTS + 1 + 2 * i]
                            total = tl.where(across == i - first, tl.sum(of_mean, axis=0)[None, :], total)
                        elif i < 2 * D:
                            half = 0.5 * sums[(p * SETS + j) * SLOTS]
                            of_log_std = half + tile_points[p][i] * sums[(p * SETS + j) * SLOTS + 2 + 2 * (i - D)]
                            total = tl.where(across == i - first, tl.sum(of_log_std, axis=0)[None, :], total)
                    of_row = grad + (2 * D * j + first + across).to(tl.int64) * num_points
                    tl.store(of_row + row, total, mask=live & (first + across < 2 * D))
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
    """One centre a program: the partial sums of its cloud's rows become both sums (K,) and (SETS, 2, D, K)."""
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
        target = grad + 2 * D * j * num_centers.to(tl.int64) + k
        for d in tl.static_range(D):
            v = tl.load(centers + k * WIDTH + D + d)
            of_mean = tl.sum(added[COLUMNS - 2 * D * (SETS - j) + 2 * d], axis=0)
            of_log_std = half + v * tl.sum(added[COLUMNS - 2 * D * (SETS - j) + 2 * d + 1], axis=0)
            tl.store(target + d * num_centers.to(tl.int64), of_mean)
            tl.store(target + (D + d) * num_centers.to(tl.int64), of_log_std)
