"""What the clusterings ask of their input, and how a point's best foreground class is read from its probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probemb_lib.gaussian import GaussianEmbedding, plain_tensor

# Within these limits, far beyond any use, no float64 number of the clustering overflows or underflows.
MAX_LOG_STD = 300.0
MAX_MEAN = 1e150
MIN_THRESHOLD = 1e-50
ROUNDING = 1e-3  # by which probabilities, and means of them in half precision, may leave [0, 1]
TIE = 1e-13  # of ln κ, for each dimension and unit of 1 − ln τ: 25 times the rounding errors in float64


def best_foreground(probabilities: Tensor, background: int | None) -> tuple[Tensor, Tensor]:
    """The highest foreground score of each point (N,) and its column (N,), ties to the lowest."""
    n = probabilities.shape[0]
    if background is not None:
        probabilities = probabilities.clone()
        probabilities[:, background] = -math.inf
    if n == 0:
        return probabilities.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=probabilities.device)
    score, semantic = probabilities.max(dim=1)
    return score, semantic


def check_threshold(threshold: float, name: str = "threshold") -> None:
    """Check a threshold of κ.

    Raises:
        ValueError: it is not in (0, 1], or below 1e-50.
    """
    if not MIN_THRESHOLD <= threshold <= 1:
        raise ValueError(f"expected {name} in (0, 1], at least {MIN_THRESHOLD}, got {threshold}")


def log_threshold(threshold: float, dim: int) -> float:
    """What ln κ of Gaussians of dimension D, in float64, must reach: ln τ − 1e-13 D (1 − ln τ).

    The difference is many times what formulas and libraries differ by when they round, so that κ = τ always joins, and
    all ways of computing κ find the same labels.
    """
    log_tau = math.log(threshold)
    return log_tau - TIE * dim * (1 - log_tau)


def check_limits(min_score: float, min_points: int) -> None:
    """Check what a seed and an instance must reach.

    Raises:
        ValueError: ``min_score`` is NaN, or ``min_points`` is below 1.
    """
    if math.isnan(min_score):
        raise ValueError("expected a number for min_score, got NaN; -inf is no limit")
    if min_points < 1:
        raise ValueError(f"expected min_points >= 1, got {min_points}")


def check_join(join: float | None, refine: bool) -> None:
    """Check the threshold of instances that become one.

    Raises:
        ValueError: it is no threshold, or instances are not refined: they have their seeds' Gaussians then, which
            the clustering has told apart.
    """
    if join is not None:
        check_threshold(join, "join")
        if not refine:
            raise ValueError(f"expected refine=True beside join={join}: instances are compared by all of their members")


def check_clustering(
    x: GaussianEmbedding,
    probabilities: Tensor,
    background: int | None,
    batch: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Check the input of a clustering: shapes, dtypes, devices, the background, and that all numbers are usable.

    Returns:
        probabilities and batch as plain tensors.

    Raises:
        TypeError, ValueError: see :func:`~probemb_lib.greedy_cluster`.
    """
    n = x.mean.shape[0]
    probabilities = plain_tensor(probabilities, "probabilities")
    batch = None if batch is None else plain_tensor(batch, "batch")
    if probabilities.ndim != 2 or probabilities.shape[0] != n or probabilities.shape[1] < 1:
        raise ValueError(f"expected probabilities ({n}, L) with L >= 1, got {tuple(probabilities.shape)}")
    if not probabilities.is_floating_point():
        raise TypeError(f"expected floating-point probabilities, got {probabilities.dtype}")
    if probabilities.device != x.mean.device:
        raise TypeError(f"expected probabilities on {x.mean.device}, got {probabilities.device}")
    num_classes = probabilities.shape[1]
    if background is not None and not 0 <= background < num_classes:
        raise ValueError(f"expected background in [0, {num_classes}) or None, got {background}")
    if background is not None and num_classes < 2:
        raise ValueError("expected a foreground column beside the background, got 1 column; pass background=None?")
    if batch is not None:
        if batch.shape != (n,) or batch.device != x.mean.device:
            raise ValueError(f"expected batch ({n},) on {x.mean.device}, got {tuple(batch.shape)} on {batch.device}")
        if batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool:
            raise TypeError(f"batch: expected integers, got {batch.dtype}")
        batch = batch.long()  # torch compares no uint16
    if n == 0:
        return probabilities, batch
    limits = {"mean": MAX_MEAN, "log_std": MAX_LOG_STD, "probabilities": math.inf}
    values = (*x, probabilities)
    ends = [end for t in values for end in t.aminmax()]  # NaN if there is one
    lowest, *ends = torch.stack([ends[0] if batch is None else batch.min(), *ends]).tolist()  # the only read-back
    if batch is not None and lowest < 0:
        raise ValueError(f"expected cloud numbers >= 0 in batch, got {int(batch.min())}")
    for (name, limit), t, low, high in zip(limits.items(), values, ends[::2], ends[1::2], strict=True):
        if not (-limit <= low and high <= limit and math.isfinite(low) and math.isfinite(high)):
            row = int((~(t.abs() <= limit) | t.isinf()).any(dim=1).nonzero()[0])
            within = "" if limit == math.inf else f" within ±{limit:g}"
            raise ValueError(f"expected finite {name}{within}, got {t[row].tolist()} at point {row}")
    if low < -ROUNDING or high > 1 + ROUNDING:  # of the probabilities, which come last
        raise ValueError(
            f"expected probabilities in [0, 1], got values from {low:.3g} to {high:.3g}: pass output.probabilities "
            "(the softmax; the sigmoid of a LearnableMarginHead), not the logits"
        )
    return probabilities, batch
