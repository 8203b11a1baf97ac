"""Parameters of a clustering picked on validation data: the search over a grid, and that for the threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor

from probemb_lib.clustering.greedy import greedy_cluster
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.instances import Instances

Candidate = TypeVar("Candidate")
Target = TypeVar("Target")

DEFAULT_GRID = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def best_of(
    grid: Sequence[Candidate], metrics: Iterable[float], what: str = "candidate"
) -> tuple[Candidate, float, tuple[Candidate, ...], tuple[float, ...]]:
    """The candidate with the best metric. The first of equal metrics wins; NaN never does.

    Args:
        grid: the candidates.
        metrics: of each candidate, the higher the better; an iterator is not touched where the grid is empty.
        what: a candidate is, for the errors.

    Returns:
        The best candidate, its metric, all candidates and all metrics: the fields of :class:`ThresholdFit`.

    Raises:
        ValueError: an empty grid, more or fewer metrics than candidates, or all metrics are NaN.

    >>> best_of(["a", "b", "c"], [math.nan, 0.5, 0.5])
    ('b', 0.5, ('a', 'b', 'c'), (nan, 0.5, 0.5))
    """
    if len(grid) == 0:
        raise ValueError(f"expected at least one {what} in grid, got none")
    values = tuple(float(m) for m in metrics)
    if len(values) != len(grid):
        raise ValueError(f"expected a metric for each {what} in grid, {len(grid)} of them, got {len(values)}")
    numbers = [i for i, value in enumerate(values) if not math.isnan(value)]
    if not numbers:
        raise ValueError(f"expected a metric that is a number for some {what}, got NaN for all; no ground truth?")
    best = max(numbers, key=lambda i: values[i])
    return grid[best], values[best], tuple(grid), values


class ThresholdFit(NamedTuple):
    """The threshold with the best metric, and the metric of every one that was tried."""

    threshold: float
    metric: float
    grid: tuple[float, ...]
    metrics: tuple[float, ...]


def fit_threshold(
    outputs: Sequence[tuple[GaussianEmbedding, Tensor]],
    targets: Sequence[Target],
    metric: Callable[[list[Instances], Sequence[Target]], float],
    grid: Sequence[float] = DEFAULT_GRID,
    *,
    min_score: float = 0.0,
    min_points: int = 1,
    background: int | None = 0,
    class_aware: bool = False,
    refine: bool = False,
    join: float | None = None,
) -> ThresholdFit:
    """The clustering threshold τ with the best metric on validation data (section 3.4).

    Args:
        outputs: (embedding, probabilities) of each cloud.
        targets: the ground truth of each cloud, whatever ``metric`` takes.
        metric: from the instances of all clouds and their targets to a number, the higher the better.
        grid: thresholds to try, in (0, 1]. The first of equal metrics wins; NaN never does.
        min_score, min_points, background, class_aware, refine, join: see :func:`~probemb_lib.greedy_cluster`.

    Raises:
        ValueError: nothing to fit on, an empty grid, or the metric is NaN for every threshold.

    >>> import torch
    >>> x = GaussianEmbedding(torch.tensor([[0.0], [2.0], [9.0]]), torch.zeros(3, 1))  # κ of the first two: 0.61
    >>> truth = torch.tensor([0, 0, 1])
    >>> fit_threshold([(x, torch.ones(3, 1))], [truth], lambda found, truth: float((found[0].label == truth[0]).sum()),
    ...               grid=(0.9, 0.5), background=None)
    ThresholdFit(threshold=0.5, metric=3.0, grid=(0.9, 0.5), metrics=(1.0, 3.0))
    """
    if len(outputs) == 0 or len(outputs) != len(targets):
        raise ValueError(f"expected as many targets as outputs and at least one, got {len(targets)} and {len(outputs)}")

    def metric_at(threshold: float) -> float:
        found = [
            greedy_cluster(
                embedding,
                probabilities,
                threshold=threshold,
                min_score=min_score,
                min_points=min_points,
                background=background,
                class_aware=class_aware,
                refine=refine,
                join=join,
            )
            for embedding, probabilities in outputs
        ]
        return float(metric(found, targets))

    grid = tuple(float(t) for t in grid)
    return ThresholdFit(*best_of(grid, map(metric_at, grid), "threshold"))
