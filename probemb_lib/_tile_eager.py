r"""One tile of the sums over points and instances, in eager torch: values and derivatives.

Derivatives in one dimension, with v = σ_i² + σ_k², r = 1/v, Δ = μ_i − μ_k, q = Δ² r:

    ∂ ln κ/∂μ_i = −½ Δ r         ∂ ln κ/∂ ln σ_i = ½ + σ_i² r (½ q − 1)

and the same with i and k exchanged for the centre. A weight w_ik = ∂f/∂ ln κ_ik, which is κ for Σ κ and κ/(1 − κ) for
Σ −ln(1 − κ), turns them into the sums' derivatives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probemb_lib.similarity import MIN_DISSIMILARITY

MAX_Q = 1e3  # of ¼ Δ² r in derivatives: κ is 0 long before, and r times more could be infinite, and 0 · ∞ NaN


class Pairs(NamedTuple):
    """T points and K centres that are compared.

    Attributes:
        points: ½ μ, σ and σ², (3, D, T).
        centers: ½ μ, 2 σ and σ², (3, D, K).
        member: (T,) number of the point's instance, −1 none.
        ids: (K,) numbers of the instances.
        upstream: (2, K) gradients of the two sums of each instance, which weigh them in one derivative; None: each
            sum has a derivative of its own.
    """

    points: Tensor
    centers: Tensor
    member: Tensor
    ids: Tensor
    upstream: Tensor | None

    def part(self, points: slice, centers: slice) -> Pairs:
        """Some of the points with some of the centres."""
        upstream = None if self.upstream is None else self.upstream[:, centers]
        return Pairs(
            self.points[..., points], self.centers[..., centers], self.member[points], self.ids[centers], upstream
        )


class PairSums(NamedTuple):
    """What is summed over pairs; of each derivative by μ and ln σ there are S.

    Attributes:
        similar: Σ_i κ, (K,).
        outside: Σ_i −ln(1 − κ) over the points outside the instance, (K,); 0 where it was not asked for.
        of_points: (S, 2, D, T).
        of_centers: (S, 2, D, K).
    """

    similar: Tensor
    outside: Tensor
    of_points: Tensor
    of_centers: Tensor

    def part(self, points: slice, centers: slice) -> PairSums:
        """Those of some points and centres, as views to add to."""
        return PairSums(
            self.similar[centers], self.outside[centers], self.of_points[..., points], self.of_centers[..., centers]
        )


def add_tile(tile: Pairs, with_outside: bool, sums: PairSums) -> None:
    """Add the sums of a tile; planes are (D, K, T) and (K, T). In place: eager torch is bound by passes over memory."""
    half_mean, std, variance = tile.points[:, :, None, :].unbind()  # (D, 1, T)
    c_half_mean, c_twice_std, c_variance = tile.centers[:, :, :, None].unbind()  # (D, K, 1)
    r = (variance + c_variance).reciprocal_()  # 1/v
    q = half_mean - c_half_mean  # ½ Δ
    t = q * r  # ½ Δ r
    q.mul_(t)  # ¼ Δ² r
    minus_q = q.sum(0).neg_()
    e = minus_q.exp()
    # β² = Π 2 σi σk r: one square root for all dimensions.
    beta2 = (r * c_twice_std).mul_(std).prod(0)
    beta = beta2.sqrt()
    kappa = e * beta
    sums.similar.add_(kappa.sum(1))

    weights = [kappa]
    if with_outside:
        is_outside = tile.member != tile.ids[:, None]
        # 1 − β = (1 − β⁴) / ((1 + β) (1 + β²)), and 1 − κ = (1 − e) + e (1 − β): nothing cancels near equality.
        one_minus_beta = _one_minus_beta4(variance, c_variance, r).div_(beta.add_(1).mul_(beta2.add_(1)))
        one_minus = torch.addcmul(minus_q.expm1_().neg_(), e, one_minus_beta)
        one_minus = torch.where(kappa < 0.25, 1 - kappa, one_minus)  # fewer roundings, where nothing cancels anyway
        above_floor = one_minus > MIN_DISSIMILARITY
        one_minus.clamp_(min=MIN_DISSIMILARITY)
        weights.append((kappa / one_minus).mul_(is_outside & above_floor))
        sums.outside.sub_(one_minus.log_().mul_(is_outside).sum(1))
    if sums.of_points.shape[0] == 0:
        return
    if tile.upstream is not None:
        combined = kappa * tile.upstream[0][:, None]
        if with_outside:
            combined += weights[1].mul_(tile.upstream[1][:, None])
        weights = [combined]
    q.clamp_(max=MAX_Q).mul_(2).sub_(1).mul_(r)  # r (½ Δ² r − 1)
    for s, weight in enumerate(weights):
        last = s == len(weights) - 1
        for j, plane in enumerate((t, q)):
            product = plane.mul_(weight) if last else plane * weight  # (D, K, T)
            over_k, over_t = product.sum(1), product.sum(2)
            if j == 0:
                sums.of_points[s, 0] -= over_k
                sums.of_centers[s, 0] += over_t
            else:
                sums.of_points[s, 1] += over_k.mul_(variance[:, 0]).add_(weight.sum(0), alpha=0.5)
                sums.of_centers[s, 1] += over_t.mul_(c_variance[:, :, 0]).add_(weight.sum(1), alpha=0.5)


def _one_minus_beta4(variance: Tensor, c_variance: Tensor, r: Tensor) -> Tensor:
    """1 − Π_d (1 − t²) with t = tanh(ln σi − ln σk) = (σi² − σk²) r, as (K, T)."""
    t2 = ((variance - c_variance).mul_(r)).square_()  # (D, K, T)
    rest = t2[0]
    for d in range(1, t2.shape[0]):
        rest.addcmul_(rest, t2[d], value=-1).add_(t2[d])  # C ← C + (1 − C) t²
    return rest
