"""Slow float64 truth of the method, written from the paper: loops over clouds, instances and points.

Nothing here imports the library. Labels are those of the library: ``instance`` ≥ 0 an instance, −1 none, −100 ignored;
``semantic`` ≥ 0 a class, −100 ignored. ``std`` is always (N, D).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import mpmath
import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

IGNORED = -100
FLOOR = 1e-6  # of 1 − κ inside a logarithm


# --- similarity (Eqs. 1-2)


def log_kappa(mean_x: ArrayLike, std_x: ArrayLike, mean_y: ArrayLike, std_y: ArrayLike) -> float:
    """ln ∫ √(p q) of two Gaussians (D,): ln κ = Σ ½ ln(2 s t / (s² + t²)) − (a − b)² / (4 (s² + t²))."""
    total = 0.0
    for a, s, b, t in zip(*map(np.ravel, (mean_x, std_x, mean_y, std_y)), strict=True):
        variance = float(s) ** 2 + float(t) ** 2
        gap = (float(s) - float(t)) ** 2 / variance  # 1 − 2 s t / (s² + t²)
        total += 0.5 * (math.log1p(-gap) if gap < 0.5 else math.log(2 * float(s) * float(t) / variance))
        total -= (float(a) - float(b)) ** 2 / (4 * variance)
    return total


def log_kappa_digits(mean_x: ArrayLike, log_std_x: ArrayLike, mean_y: ArrayLike, log_std_y: ArrayLike) -> mpmath.mpf:
    """The same closed form with 60 decimal digits, from ln σ."""
    with mpmath.workdps(60):
        total = mpmath.mpf(0)
        for a, u, b, v in zip(*map(np.ravel, (mean_x, log_std_x, mean_y, log_std_y)), strict=True):
            s, t = mpmath.exp(mpmath.mpf(float(u))), mpmath.exp(mpmath.mpf(float(v)))
            variance = s**2 + t**2
            delta = mpmath.mpf(float(a)) - mpmath.mpf(float(b))
            total += mpmath.log(2 * s * t / variance) / 2 - delta**2 / (4 * variance)
        return total


def log_kappa_by_integration(mean_x: ArrayLike, std_x: ArrayLike, mean_y: ArrayLike, std_y: ArrayLike) -> float:
    """ln ∫ √(p q) by quadrature; diagonal Gaussians are products, so one integral a dimension."""
    total = 0.0
    for a, s, b, t in zip(*map(np.ravel, (mean_x, std_x, mean_y, std_y)), strict=True):
        peak, width = _peak((float(a), float(s)), (float(b), float(t)))

        def root(x: float, a: float = a, s: float = s, b: float = b, t: float = t) -> float:
            return math.sqrt(scipy.stats.norm.pdf(x, a, s)) * math.sqrt(scipy.stats.norm.pdf(x, b, t))

        cuts = [peak + k * width for k in (-24, -8, -3, 0, 3, 8, 24)]
        pieces = [
            scipy.integrate.quad(root, low, high, epsabs=0, epsrel=1e-12)[0]
            for low, high in itertools.pairwise(cuts[1:-1])
        ]
        tails = [scipy.integrate.quad(root, *cut)[0] for cut in (cuts[:2], cuts[-2:])]  # under e^-32 of the whole
        total += math.log(sum(pieces) + sum(tails))
    return total


def kappa_by_integration_2d(mean_x: Array, std_x: Array, mean_y: Array, std_y: Array) -> float:
    """∫∫ √(p q) over the plane, without using that p and q are products."""

    def root(y: float, x: float) -> float:
        density = 1.0
        for mean, std in ((mean_x, std_x), (mean_y, std_y)):
            quadratic = ((x - mean[0]) / std[0]) ** 2 + ((y - mean[1]) / std[1]) ** 2
            density *= math.exp(-0.5 * quadratic) / (2 * math.pi * std[0] * std[1])
        return math.sqrt(density)

    (x, dx), (y, dy) = (_peak((mean_x[d], std_x[d]), (mean_y[d], std_y[d])) for d in range(2))
    limits = (x - 12 * dx, x + 12 * dx, y - 12 * dy, y + 12 * dy)
    value, _ = scipy.integrate.dblquad(root, *limits, epsabs=1e-12, epsrel=1e-12)
    return float(value)


def _peak(p: tuple[float, float], q: tuple[float, float]) -> tuple[float, float]:
    """Where √(p q) is largest, and the width of the peak: of two Gaussians the product is a Gaussian."""
    precision = 0.5 / p[1] ** 2 + 0.5 / q[1] ** 2
    return (0.5 * p[0] / p[1] ** 2 + 0.5 * q[0] / q[1] ** 2) / precision, precision**-0.5


# --- instances (Eq. 3)


@dataclass(frozen=True)
class Instance:
    cloud: int
    id: int
    rows: list[int]


def clouds(instance: Labels, batch: Labels | None) -> list[list[int]]:
    """The points of each cloud that are not ignored."""
    if batch is None:
        batch = np.zeros(len(instance), np.int64)
    count = int(batch.max()) + 1 if len(batch) else 0
    return [[i for i in range(len(instance)) if batch[i] == b and instance[i] != IGNORED] for b in range(count)]


def instances(instance: Labels, batch: Labels | None) -> list[Instance]:
    """The instances by cloud, then by id."""
    found = []
    for b, points in enumerate(clouds(instance, batch)):
        for k in sorted({int(instance[i]) for i in points if instance[i] >= 0}):
            found.append(Instance(b, k, [i for i in points if instance[i] == k]))
    return found


def aggregate(mean: Array, std: Array, rows: list[int], covariance: str = "mean") -> tuple[Array, Array]:
    """μ and σ of one instance."""
    n = len(rows)
    mu, variance = np.zeros(mean.shape[1]), np.zeros(mean.shape[1])
    for i in rows:
        mu = mu + mean[i] / n
        variance = variance + std[i] ** 2 / (n * n if covariance == "independent" else n)
    return mu, np.sqrt(variance)


def instance_class(semantic: Labels, rows: list[int]) -> int:
    """The class of most points, ties to the lowest; −1 if all are ignored."""
    votes: dict[int, int] = {}
    for i in rows:
        if semantic[i] != IGNORED:
            votes[int(semantic[i])] = votes.get(int(semantic[i]), 0) + 1
    return min(votes, key=lambda c: (-votes[c], c)) if votes else -1


def similarity_sums(
    mean: Array,
    std: Array,
    center_mean: Array,
    center_std: Array,
    instance: Labels,
    batch: Labels | None,
) -> tuple[Array, Array]:
    """Σ_i κ(e_i, c_k) and Σ_{i∉k} −ln max(1 − κ, floor) over the points of the instance's cloud, both (K,)."""
    similar, outside = [], []
    points = clouds(instance, batch)
    for k, one in enumerate(instances(instance, batch)):
        values = [log_kappa(mean[i], std[i], center_mean[k], center_std[k]) for i in points[one.cloud]]
        similar.append(math.fsum(math.exp(v) for v in values))
        outside.append(
            math.fsum(
                -math.log(max(-math.expm1(v), FLOOR))
                for i, v in zip(points[one.cloud], values, strict=True)
                if instance[i] != one.id
            )
        )
    return np.array(similar), np.array(outside)


# --- losses (Eqs. 4-15), each a mean over the clouds that have a valid term


@dataclass(frozen=True)
class Problem:
    """A labelled batch; ``log_std`` is (N, D) or (N, 1)."""

    mean: Array
    log_std: Array
    logits: Array
    instance: Labels
    semantic: Labels
    batch: Labels | None

    @property
    def std(self) -> Array:
        return np.exp(np.broadcast_to(self.log_std, self.mean.shape))

    def change(self, **fields: object) -> Problem:
        return replace(self, **fields)  # type: ignore[arg-type]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _by_cloud(p: Problem) -> list[tuple[list[int], list[Instance]]]:
    found = instances(p.instance, p.batch)
    return [(rows, [k for k in found if k.cloud == b]) for b, rows in enumerate(clouds(p.instance, p.batch))]


def _log_kappas(p: Problem, rows: list[int], members: list[Instance], covariance: str) -> Array:
    """(points, instances) ln κ of one cloud."""
    centers = [aggregate(p.mean, p.std, k.rows, covariance) for k in members]
    return np.array([[log_kappa(p.mean[i], p.std[i], *c) for c in centers] for i in rows]).reshape(len(rows), -1)


def instance_bce(p: Problem, covariance: str = "mean") -> float:
    """Eq. 4."""
    losses = []
    for rows, found in _by_cloud(p):
        if not found:
            continue
        table, total = _log_kappas(p, rows, found, covariance), []
        for r, i in enumerate(rows):
            for c, k in enumerate(found):
                inside = p.instance[i] == k.id
                total.append(-table[r, c] if inside else -math.log(max(-math.expm1(table[r, c]), FLOOR)))
        losses.append(math.fsum(total) / (len(rows) * len(found)))
    return _mean(losses)


def log_dice(p: Problem, per_instance: bool = False, covariance: str = "mean") -> float:
    """The second term of Eq. 5."""
    losses = []
    for rows, found in _by_cloud(p):
        if not found:
            continue
        table = _log_kappas(p, rows, found, covariance)
        inside = np.array([[p.instance[i] == k.id for k in found] for i in rows])
        if per_instance:
            losses.append(_mean([_dice(table[:, c], inside[:, c]) for c in range(len(found))]))
        else:
            losses.append(_dice(table, inside))
    return _mean(losses)


def _dice(log_kappas: Array, inside: NDArray[np.bool_]) -> float:
    above = math.log(2) + scipy.special.logsumexp(log_kappas[inside])
    return math.log(np.exp(log_kappas).sum() + inside.sum()) - float(above)


def entropy(p: Problem, reduction: str = "mean") -> float:
    """Eq. 7: the differential entropy of each Gaussian as scipy knows it, over the points that are not ignored."""
    losses = []
    for rows, _ in _by_cloud(p):
        if rows:
            values = [float(scipy.stats.norm.entropy(scale=p.std[i]).sum()) for i in rows]
            losses.append(math.fsum(values) / (len(values) if reduction == "mean" else 1))
    return _mean(losses)


def score_map(p: Problem, covariance: str = "mean") -> tuple[Array, Array]:
    """Eqs. 8-9 as written. Q of instances: (N, K) κ(e_i, c_k)·[z_i = k]; Q of classes: (N, L), the max over the
    instances of a class."""
    found = instances(p.instance, p.batch)
    per_instance = np.zeros((len(p.mean), len(found)))
    per_class = np.zeros(p.logits.shape)
    for c, k in enumerate(found):
        center = aggregate(p.mean, p.std, k.rows, covariance)
        for i in k.rows:
            per_instance[i, c] = math.exp(log_kappa(p.mean[i], p.std[i], *center))
        label = instance_class(p.semantic, k.rows)
        if label >= 0:
            per_class[:, label] = np.maximum(per_class[:, label], per_instance[:, c])
    return per_instance, per_class


def _scored(p: Problem) -> list[list[int]]:
    """The points of each cloud that are ignored neither as instance nor as class."""
    return [[i for i in rows if p.semantic[i] != IGNORED] for rows in clouds(p.instance, p.batch)]


def center_aware(
    p: Problem,
    background: int | None = 0,
    complement: bool = False,
    weight: Array | None = None,
    covariance: str = "mean",
    column: int | None = None,
) -> float:
    """Eq. 10, with the background column at 1 on points of no instance."""
    _, q = score_map(p, covariance)
    log_p = scipy.special.log_softmax(p.logits, axis=1)
    factor = np.ones(p.logits.shape[1]) if weight is None else weight
    if background is not None:
        for i in range(len(q)):
            if p.instance[i] == -1:
                q[i, background] = 1.0
            elif complement:
                q[i, background if column is None else column] += 1.0 - q[i].max()
    losses = [
        _mean([float(-(factor * q[i] * log_p[i]).sum() / p.logits.shape[1]) for i in rows])
        for rows in _scored(p)
        if rows
    ]
    return _mean(losses)


def score_cross_entropy(p: Problem, background: int | None = 0) -> float:
    """Eq. 12."""
    log_p = scipy.special.log_softmax(p.logits, axis=1)
    target = {i: instance_class(p.semantic, k.rows) for k in instances(p.instance, p.batch) for i in k.rows}
    losses = []
    for rows in _scored(p):
        values = []
        for i in rows:
            column = target.get(i, background)
            values.append(0.0 if column is None else float(-log_p[i, column]) / p.logits.shape[1])
        if rows:
            losses.append(_mean(values))
    return _mean(losses)


def seed_mse(p: Problem, background: int | None = 0, covariance: str = "mean") -> float:
    """1/N Σ_i Σ over the foreground columns of (P − Q)²."""
    _, q = score_map(p, covariance)
    square = (scipy.special.softmax(p.logits, axis=1) - q) ** 2
    columns = [c for c in range(p.logits.shape[1]) if c != background]
    return _mean([_mean([float(square[i, columns].sum()) for i in rows]) for rows in _scored(p) if rows])


def total(p: Problem, per_instance_dice: bool = False, covariance: str = "mean") -> dict[str, float]:
    """Eq. 15 with its weights."""
    parts = {
        "bce": instance_bce(p, covariance),
        "dice": log_dice(p, per_instance_dice, covariance),
        "score": center_aware(p, covariance=covariance),
        "entropy": entropy(p),
    }
    return {"loss": parts["bce"] + parts["dice"] + parts["score"] + 0.001 * parts["entropy"], **parts}


# --- gradients: the same objective broadcast over points and instances, for autograd


def broadcast_kernel(mean: Tensor, log_std: Tensor, c_mean: Tensor, c_log_std: Tensor) -> Tensor:
    """(N, K) ln κ in plain torch."""
    variance = (2 * log_std[:, None]).exp() + (2 * c_log_std[None]).exp()
    ratio = 2 * (log_std[:, None] + c_log_std[None]).exp() / variance
    return (0.5 * ratio.log() - (mean[:, None] - c_mean[None]) ** 2 / (4 * variance)).sum(-1)


def broadcast_sums(
    mean: Tensor, log_std: Tensor, c_mean: Tensor, c_log_std: Tensor, instance: Labels, batch: Labels | None
) -> tuple[Tensor, Tensor]:
    """:func:`similarity_sums` for autograd."""
    similar, outside = [], []
    points = clouds(instance, batch)
    for k, one in enumerate(instances(instance, batch)):
        rows = points[one.cloud]
        kernel = broadcast_kernel(mean[rows], log_std[rows], c_mean[k : k + 1], c_log_std[k : k + 1])[:, 0]
        not_inside = torch.tensor([bool(instance[i] != one.id) for i in rows], device=mean.device)
        similar.append(kernel.exp().sum())
        outside.append(-(-torch.expm1(kernel[not_inside])).clamp_min(FLOOR).log().sum())
    if not similar:
        nothing = 0 * (mean.sum() + log_std.sum() + c_mean.sum() + c_log_std.sum())
        return nothing.expand(0), nothing.expand(0)
    return torch.stack(similar), torch.stack(outside)


def broadcast_total(
    p: Problem, mean: Tensor, log_std: Tensor, logits: Tensor, per_instance_dice: bool = False
) -> dict[str, Tensor]:
    """:func:`total` for autograd; Q is a constant, as in Eq. 10. ``log_std`` (N, D) or (N, 1)."""
    log_std = log_std.expand_as(mean)
    log_p = logits.log_softmax(1)
    parts: dict[str, list[Tensor]] = {"bce": [], "dice": [], "score": [], "entropy": []}
    constant = math.log(2 * math.pi * math.e) / 2
    for rows, found in _by_cloud(p):
        if rows:
            parts["entropy"].append((log_std[rows] + constant).sum(1).mean())
        q = torch.zeros_like(logits)
        for i in rows:
            if p.instance[i] == -1:
                q[i, 0] = 1.0
        if found:
            c_mean = torch.stack([mean[k.rows].mean(0) for k in found])
            c_log_std = torch.stack([(2 * log_std[k.rows]).exp().mean(0).log() / 2 for k in found])
            kernel = broadcast_kernel(mean[rows], log_std[rows], c_mean, c_log_std)
            inside = torch.tensor([[bool(p.instance[i] == k.id) for k in found] for i in rows], device=mean.device)
            different = -(-torch.expm1(kernel)).clamp_min(FLOOR).log()
            parts["bce"].append(torch.where(inside, -kernel, different).mean())
            kappa, y, axes = kernel.exp(), inside.to(mean.dtype), (0,) if per_instance_dice else (0, 1)
            parts["dice"].append(-(2 * (kappa * y).sum(axes) / (kappa + y).sum(axes)).log().mean())
            for c, k in enumerate(found):
                label = instance_class(p.semantic, k.rows)
                for i in k.rows:
                    if label >= 0:
                        q[i, label] = kappa[rows.index(i), c].detach()
        scored = [i for i in rows if p.semantic[i] != IGNORED]
        if scored:
            parts["score"].append(-(q * log_p)[scored].sum(1).mean() / logits.shape[1])
    zero = mean.sum() * 0
    means = {name: torch.stack(values).mean() if values else zero for name, values in parts.items()}
    return {"loss": means["bce"] + means["dice"] + means["score"] + 0.001 * means["entropy"], **means}


# --- problems


def draw_problem(
    seed: int,
    *,
    n: int = 40,
    dim: int = 3,
    num_classes: int = 4,
    num_clouds: int = 3,
    num_instances: int = 3,
    isotropic: bool = False,
    spread: float = 0.5,
    background: bool = True,
    ignored: bool = True,
) -> Problem:
    """A batch in random order, with points of no instance and ignored points, an instance of one point, ids far
    apart, clouds of different size, one without points and one without instances (where there are more than two)."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(n, dim))
    log_std = rng.normal(-0.5, spread, (n, 1 if isotropic else dim))
    logits = rng.normal(size=(n, num_classes))
    batch = rng.choice(num_clouds, n)
    ids = np.sort(rng.choice(1000, num_instances, replace=False))
    instance = ids[rng.integers(num_instances, size=n)]
    semantic = (instance + batch) % (num_classes - 1) + 1
    noise = rng.random(n) < 0.2
    semantic[noise] = rng.integers(1, num_classes, noise.sum())
    if n:
        instance[rng.integers(n)] = 2000  # alone in its instance
    if background:
        none = rng.random(n) < 0.2
        instance[none], semantic[none] = -1, 0
        if num_clouds > 2:
            instance[batch == num_clouds - 1], semantic[batch == num_clouds - 1] = -1, 0
    if ignored:
        instance[rng.random(n) < 0.1] = IGNORED
        semantic[rng.random(n) < 0.1] = IGNORED
    if num_clouds > 2:
        batch[batch == 1] = 0  # a cloud without points
    return Problem(mean, log_std, logits, instance.astype(np.int64), semantic.astype(np.int64), batch.astype(np.int64))


# --- label images


def best_matching(iou: dict[tuple[int, int], float]) -> tuple[int, float]:
    """Of all ways to pair each true object with at most one predicted one of these candidates, and the other way round:
    the most pairs, then the greatest sum of IoU. Tries every way."""
    if not iou:
        return 0, 0.0
    true = min(a for a, _ in iou)
    rest = {pair: value for pair, value in iou.items() if pair[0] != true}
    best = best_matching(rest)  # without this one
    for (a, b), value in iou.items():
        if a == true:
            count, total = best_matching({pair: v for pair, v in rest.items() if pair[1] != b})
            best = max(best, (count + 1, total + value))
    return best


def label_image_counts(
    pred: Labels, true: Labels, threshold: float, ignored: NDArray[np.bool_] | None = None, *, strict: bool = False
) -> tuple[int, int, int, float]:
    """TP, FP, FN and the sum of IoU of one image: sets of pixels, every matching tried."""
    hidden = set() if ignored is None else set(np.flatnonzero(ignored).tolist())

    def objects(image: Labels) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for pixel, number in enumerate(np.ravel(image).tolist()):
            if number > 0:
                found.setdefault(number, set()).add(pixel)
        return found

    whole = objects(pred)
    predicted = {b: pixels - hidden for b, pixels in whole.items()}
    real = {a: pixels - hidden for a, pixels in objects(true).items() if pixels - hidden}
    iou = {}
    for a, one in real.items():
        for b, other in predicted.items():
            if one & other:
                value = len(one & other) / len(one | other)
                if value > threshold or (value == threshold and not strict):
                    iou[a, b] = value
    tp, total = best_matching(iou)
    # Above one half a predicted object has one partner at most, so which are without one is no question.
    partners = {b for _, b in iou}
    excused = [b for b in whole if b not in partners and len(whole[b] & hidden) / len(whole[b]) > 0.5]
    return tp, len(whole) - tp - len(excused), len(real) - tp, total
