"""The tile of ``_tile_eager.py`` as loops that torch.compile fuses: one pass, in which no plane is stored twice."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from probemb_lib._tile_eager import MAX_Q, Pairs, PairSums
from probemb_lib.similarity import MIN_DISSIMILARITY


class FusedSums(NamedTuple):
    """Sums of a tile, one for each that was asked for, and their derivatives; the weights κ and κ/(1 − κ), (K, T), are
    returned only to be stored: both sums then read them, and no exponential is taken twice."""

    sums: list[Tensor]  # (K,)
    of_points: list[Tensor]  # (2, D, T)
    of_centers: list[Tensor]  # (2, D, K)
    weights: list[Tensor]


FusedTile = Callable[[Pairs, bool, int], FusedSums]


def add_fused_tile(tile: Pairs, with_outside: bool, sums: PairSums) -> None:
    """Add the sums of a tile of at least two points and two centres."""
    # Slices of a larger batch, and a K or T that equals D or 2, would otherwise be compiled anew.
    upstream = None if tile.upstream is None else tile.upstream.contiguous()
    tile = tile._replace(points=tile.points.contiguous(), centers=tile.centers.contiguous(), upstream=upstream)
    for t in (tile.points, tile.centers, tile.upstream):
        if t is not None:
            torch._dynamo.mark_static(t, list(range(t.ndim - 1)))
    sets = sums.of_points.shape[0]
    variant = compiled_tile(tile.points.shape[1], tile.points.dtype, with_outside, upstream is not None, sets)
    fused = variant(tile, with_outside, sets)
    sums.similar.add_(fused.sums[0])
    if with_outside:
        sums.outside.add_(fused.sums[1])
    for s in range(sets):
        sums.of_points[s] += fused.of_points[s]
        sums.of_centers[s] += fused.of_centers[s]


def fused_tile(tile: Pairs, with_outside: bool, sets: int) -> FusedSums:
    """Values and ``sets`` derivatives. Planes are (K, T); D is unrolled, and points lie along the last axis, so that
    every loop vectorizes."""
    x, c = tile.points, tile.centers
    dim = x.shape[1]
    r, t, q, factors, tanh = [], [], [], [], []
    for d in range(dim):
        half_mean, std, variance = (row[None, :] for row in x[:, d])
        c_half_mean, c_twice_std, c_variance = (row[:, None] for row in c[:, d])
        r.append(1 / (variance + c_variance))
        half_delta = half_mean - c_half_mean
        t.append(half_delta * r[d])
        q.append(half_delta * t[d])
        factors.append(std * c_twice_std * r[d])
        tanh.append((variance - c_variance) * r[d])
    minus_q, beta2 = -functools.reduce(torch.add, q), functools.reduce(torch.mul, factors)
    e, beta = torch.exp(minus_q), torch.sqrt(beta2)
    kappa = e * beta
    weights, sums = [kappa], [kappa.sum(1)]
    if with_outside:
        is_outside = tile.member[None, :] != tile.ids[:, None]
        one_minus_beta4 = functools.reduce(lambda c, t2: c + (1 - c) * t2, [a * a for a in tanh])
        one_minus = e * one_minus_beta4 / ((1 + beta) * (1 + beta2)) - torch.expm1(minus_q)
        one_minus = torch.where(kappa < 0.25, 1 - kappa, one_minus)
        sums.append(-torch.where(is_outside, one_minus.clamp_min(MIN_DISSIMILARITY).log(), 0.0).sum(1))
        weights.append(torch.where(is_outside & (one_minus > MIN_DISSIMILARITY), kappa / one_minus, 0.0))
    if tile.upstream is not None:
        combined = weights[0] * tile.upstream[0][:, None]
        weights = [combined + weights[1] * tile.upstream[1][:, None] if with_outside else combined]
    of_points: list[Tensor] = []
    of_centers: list[Tensor] = []
    for weight in weights[:sets]:
        for axis, sign, v, result in ((0, -1, x[2], of_points), (1, 1, c[2], of_centers)):
            half = 0.5 * weight.sum(axis)
            of_mean = [sign * (weight * t[d]).sum(axis) for d in range(dim)]
            of_log_std = [v[d] * (weight * r[d] * (2 * q[d].clamp_max(MAX_Q) - 1)).sum(axis) + half for d in range(dim)]
            result.append(torch.stack([torch.stack(of_mean), torch.stack(of_log_std)]))
    return FusedSums(sums, of_points, of_centers, weights)


@functools.cache
def compiled_tile(dim: int, dtype: torch.dtype, with_outside: bool, weighted: bool, sets: int) -> FusedTile:
    """``fused_tile`` compiled once for all sizes. Each variant is a function of its own, as torch.compile counts the
    compilations of a function and gives up after some."""
    variant = types.FunctionType(fused_tile.__code__.replace(), fused_tile.__globals__)
    return torch.compile(variant, dynamic=True, fullgraph=True)
