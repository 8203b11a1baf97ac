"""The clustering threshold fitted with PartNet AP, and how equal and missing metrics are treated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from probemb_lib import GaussianEmbedding, Instances, ThresholdFit, fit_threshold, greedy_cluster
from probemb_lib.clustering import best_of
from probemb_lib.clustering.fit import DEFAULT_GRID
from probemb_lib.metrics import PartNetAP

Target = tuple[Tensor, Tensor]  # row of the ground truth of each point, class of each row, 0-based


def cloud(seed: int, parts: int = 4, each: int = 40) -> tuple[tuple[GaussianEmbedding, Tensor], Target]:
    """Parts 1 apart, σ = 0.3. Within a part κ ≥ 0.77; between parts it is about exp(−1 / 0.72) = 0.25."""
    g = torch.Generator().manual_seed(seed)
    own = torch.arange(parts).repeat(each)
    mean = torch.zeros(parts * each, 3)
    mean[:, 0] = own + 0.2 * (torch.rand(parts * each, generator=g) - 0.5)
    embedding = GaussianEmbedding(mean, torch.full((parts * each, 1), 0.3).log())
    semantic = own % 2
    confidence = 0.6 + 0.3 * torch.rand(parts * each, generator=g)
    probabilities = torch.stack([1 - confidence, confidence * (semantic == 0), confidence * (semantic == 1)], 1)
    return (embedding, probabilities), (own, torch.arange(parts) % 2)


def part_map(found: list[Instances], targets: Sequence[Target]) -> float:
    """PartNet's part mAP at IoU 0.5; column 1 of the probabilities is class 0."""
    metric = PartNetAP(num_classes=2, iou_thresholds=(0.5,))
    for instances, (gt_instance, gt_classes) in zip(found, targets, strict=True):
        metric.update_labels(instances.label, instances.semantic - 1, instances.score, gt_instance, gt_classes)
    return float(metric.compute()["part_map"][0])


def test_partnet_ap_finds_the_gap() -> None:
    outputs, targets = zip(*(cloud(seed) for seed in range(3)), strict=True)
    fit = fit_threshold(outputs, targets, part_map, grid=(0.1, 0.5, 0.7, 0.999))
    # 0.1 joins the parts, 0.999 splits them.
    assert fit.threshold == 0.5
    assert fit.metric == 1.0
    assert fit.metrics[1] == fit.metrics[2] == 1.0
    assert max(fit.metrics[0], fit.metrics[3]) < 0.2
    # And it is what clustering and evaluating at that threshold gives.
    for threshold, metric in zip(fit.grid, fit.metrics, strict=True):
        found = [greedy_cluster(*output, threshold=threshold) for output in outputs]
        assert part_map(found, targets) == metric


def test_default_grid_holds_the_threshold_of_the_paper() -> None:
    output, target = cloud(0)
    fit = fit_threshold([output], [target], lambda found, targets: -len(found[0]))
    assert fit.grid == DEFAULT_GRID
    assert 0.35 in fit.grid
    assert len(fit.metrics) == len(fit.grid)


def test_first_of_equal_metrics() -> None:
    output, target = cloud(0)
    assert fit_threshold([output], [target], lambda found, targets: 2.0, grid=(0.5, 0.3, 0.7)).threshold == 0.5
    fit = fit_threshold([output], [target], part_map, grid=(0.5, 0.4, 0.1))
    assert fit.metrics[0] == fit.metrics[1] > fit.metrics[2]
    assert fit.threshold == 0.5


@pytest.mark.parametrize(
    ("values", "threshold"),
    [
        ({0.2: float("nan"), 0.4: 0.1, 0.6: float("nan")}, 0.4),
        ({0.2: float("nan"), 0.4: float("-inf"), 0.6: float("nan")}, 0.4),
        ({0.2: -3.0, 0.4: float("nan"), 0.6: -1.0}, 0.6),
    ],
)
def test_nan_never_wins(values: dict[float, float], threshold: float) -> None:
    output, target = cloud(0)
    metrics = iter(values.values())
    fit = fit_threshold([output], [target], lambda found, targets: next(metrics), grid=tuple(values))
    assert fit.threshold == threshold
    assert fit.metric == values[threshold]


@pytest.mark.parametrize(
    "options", [{"min_score": 0.6}, {"min_points": 2}, {"background": None}, {"class_aware": True}], ids=str
)
def test_options_reach_the_clustering(options: dict[str, Any]) -> None:
    x = GaussianEmbedding(torch.tensor([[0.0], [0.1], [9.0], [20.0]]), torch.zeros(4, 1))
    p = torch.tensor([[0.0, 0.9, 0.1], [0.0, 0.3, 0.7], [0.1, 0.5, 0.0], [0.6, 0.2, 0.2]])
    calls: list[list[Instances]] = []

    def record(found: list[Instances], targets: Sequence[None]) -> Tensor:
        calls.append(found)
        return torch.tensor(0.0)  # anything that float() takes

    fit_threshold([(x, p), (x, p)], [None, None], record, grid=[0.5], **options)
    expected = greedy_cluster(x, p, threshold=0.5, **options)
    for found in calls[0]:
        torch.testing.assert_close(found.label, expected.label, rtol=0, atol=0)
    assert not torch.equal(expected.label, greedy_cluster(x, p, threshold=0.5).label)  # the option matters


def test_errors() -> None:
    output, target = cloud(0)
    with pytest.raises(ValueError, match="at least one, got 0 and 0"):
        fit_threshold([], [], part_map)
    with pytest.raises(ValueError, match="as many targets as outputs and at least one, got 1 and 2"):
        fit_threshold([output, output], [target], part_map)
    with pytest.raises(ValueError, match="at least one threshold in grid, got none"):
        fit_threshold([output], [target], part_map, grid=())
    with pytest.raises(ValueError, match=r"threshold in \(0, 1\]"):
        fit_threshold([output], [target], part_map, grid=(0.5, 1.5))
    with pytest.raises(ValueError, match="got NaN for all; no ground truth"):
        fit_threshold(
            [output], [(torch.full_like(target[0], -1), target[1])], part_map, min_score=0.95, grid=(0.5, 0.6)
        )


# --- the search over any grid


def test_best_of_metrics_that_are_known() -> None:
    grid = ["a", "b", "c", "d"]
    assert best_of(grid, [0.1, 0.7, 0.7, 0.2]) == ("b", 0.7, tuple(grid), (0.1, 0.7, 0.7, 0.2))
    assert best_of(range(2), iter([torch.tensor(-1.0), torch.tensor(-2.0)])) == (0, -1.0, (0, 1), (-1.0, -2.0))
    assert best_of(grid, [math.nan, -math.inf, math.nan, -math.inf])[:2] == ("b", -math.inf)
    fit = ThresholdFit(*best_of((0.3, 0.4), (0.5, 0.6), "threshold"))
    assert fit == ThresholdFit(threshold=0.4, metric=0.6, grid=(0.3, 0.4), metrics=(0.5, 0.6))


def test_best_of_errors() -> None:
    with pytest.raises(ValueError, match="expected at least one margin in grid, got none"):
        best_of([], pytest.fail, "margin")  # type: ignore[arg-type]  # which is not iterated over
    for metrics in ([], [0.1], [0.1, 0.2, 0.3]):
        with pytest.raises(ValueError, match=f"a metric for each candidate in grid, 2 of them, got {len(metrics)}"):
            best_of(["a", "b"], metrics)
    with pytest.raises(ValueError, match="a number for some candidate, got NaN for all; no ground truth"):
        best_of(["a", "b"], [math.nan, math.nan])
