"""The clusterings of positions: against closed-form answers and an oracle, and the fit of their parameters."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from probemb_adapters.experiments.baselines import (
    BASELINES,
    DBSCAN,
    HDBSCAN,
    BaselineFit,
    Clusters,
    MeanShift,
    fit_baseline,
)
from probemb_adapters.experiments.partnet.options import Options, resolve
from probemb_adapters.partnet import EvaluationTargets
from probemb_lib.metrics import PartNetAP

CLUSTERERS = [DBSCAN(0.5, 3), HDBSCAN(5, 3), MeanShift(2.0), MeanShift(2.0, sample=7)]


def blobs(points: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three balls of radius 0.3, ten apart, in mixed order, and their truth."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(points) % 3
    x = torch.randn(points, 3, generator=generator)
    return 0.3 * x / x.norm(dim=1, keepdim=True) + 10 * torch.eye(3)[truth], truth


def same_partition(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a[:, None] == a) == (b[:, None] == b)).all())


def targets_of(truth: torch.Tensor) -> EvaluationTargets:
    classes = torch.zeros(int(truth.max()) + 1, dtype=torch.int64)
    return EvaluationTargets(truth, classes, truth < 0)


def part_map(found: list[Clusters], targets: list[EvaluationTargets]) -> float:
    metric = PartNetAP(1)
    for clusters, target in zip(found, targets, strict=True):
        metric.update_labels(*clusters, *target)
    return float(metric.compute()["part_map"][1])


@pytest.mark.parametrize("clusterer", [DBSCAN(0.5, 3), HDBSCAN(5, 3), MeanShift(2.0), MeanShift(2.0, sample=30)])
def test_finds_blobs(clusterer):
    x, truth = blobs()
    found = clusterer(x)
    assert same_partition(found.label, truth)
    torch.testing.assert_close(found.score, torch.full((3,), 1 / 3))
    assert part_map([found], [targets_of(truth)]) == 1


@pytest.mark.parametrize(
    ("clusterer", "noise"), [(DBSCAN(0.5, 3), True), (HDBSCAN(5, 3), True), (MeanShift(2.0), False)]
)
def test_a_lone_point_is_noise_except_to_mean_shift(clusterer, noise):
    x, truth = blobs()
    x = torch.cat([torch.full((1, 3), -20.0), x])
    found = clusterer(x)
    assert same_partition(found.label[1:], truth)
    if noise:
        assert found.label[0] == -1
        torch.testing.assert_close(found.score, torch.full((3,), 20 / 61))
    else:
        torch.testing.assert_close(found.score[found.label[0]], torch.tensor(1 / 61))


def test_dbscan_with_one_sample_is_connected_components():
    x = torch.rand(300, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    count, label = connected_components(cdist(x, x) <= 0.04)
    found = DBSCAN(0.04, 1)(x)
    assert 10 < count < 290
    assert same_partition(found.label, torch.from_numpy(label))
    assert not same_partition(DBSCAN(0.05, 1)(x).label, torch.from_numpy(label))


def test_dbscan_counts_the_point_itself():
    x = torch.tensor([[0.0], [0.1], [0.2]])
    assert DBSCAN(0.15, 3)(x).label.tolist() == [0, 0, 0]  # the middle point is the core, the others its border
    assert DBSCAN(0.15, 4)(x).label.tolist() == [-1, -1, -1]


def test_hdbscan_needs_a_split():
    line = torch.arange(20.0)[:, None]
    assert HDBSCAN(5, 2)(line).label.tolist() == [-1] * 20
    line[10:] += 0.5
    assert HDBSCAN(5, 2)(line).label.bincount().tolist() == [10, 10]


def test_hdbscan_with_one_and_two_samples_is_the_same():
    x = torch.rand(200, 2, generator=torch.Generator().manual_seed(2))
    one, two, five = (HDBSCAN(10, n)(x) for n in (1, 2, 5))
    assert len(one.score) > 1
    assert torch.equal(one.label, two.label)
    assert not torch.equal(one.label, five.label)


def test_hdbscan_gives_small_clouds_no_cluster():
    x, _ = blobs()
    for clusterer in (HDBSCAN(61, 3), HDBSCAN(5, 61)):
        assert clusterer(x).label.tolist() == [-1] * 60
    assert len(HDBSCAN(5, 60)(x).label) == 60


def test_mean_shift_assigns_to_the_nearest_mode():
    x, truth = blobs()
    between = torch.tensor([[7.0, 3.0, 0.0], [0.0, 3.0, 7.0]])  # nearer to ball 0 and to ball 2
    found = MeanShift(5.0, sample=62)(torch.cat([x, between]))
    assert same_partition(found.label, torch.cat([truth, torch.tensor([0, 2])]))


def test_mean_shift_takes_modes_from_the_sample():
    x, _ = blobs(600)
    with pytest.warns(UserWarning, match="Binning data failed"):  # one point cannot be thinned out
        assert len(MeanShift(2.0, sample=1)(x).score) == 1
    assert len(MeanShift(2.0, sample=100)(x).score) == 3


def test_mean_shift_drops_modes_without_points():
    x = torch.tensor([1.0, 5, 1, 6, 7, 2, 3, 5, 0, 9, 3])[:, None]  # modes 2, 4, 5.75 and 9; no point is nearest to 4
    found = MeanShift(1.5)(x)
    assert same_partition(found.label, torch.tensor([0, 1, 0, 1, 1, 0, 0, 1, 0, 2, 0]))
    assert sorted(found.score.mul(11).round().tolist()) == [1, 4, 6]
    assert found.label.max() == 2


def test_mean_shift_leaves_the_global_generator_alone():
    x, _ = blobs(600)
    state = torch.get_rng_state()
    first = MeanShift(2.0, sample=50)(x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(MeanShift(2.0, sample=50)(x).label, first.label)


@settings(max_examples=25)
@given(
    st.integers(1, 3).flatmap(lambda d: st.lists(st.tuples(*[st.integers(0, 9)] * d), max_size=40)),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([DBSCAN(1.0, 2), HDBSCAN(2, 2), MeanShift(1.5), MeanShift(4.0, sample=5)]),
)
@pytest.mark.filterwarnings("ignore:Binning data failed")  # every point alone in its cell: scikit-learn says so
def test_contract_on_any_cloud(rows, dtype, clusterer):
    x = torch.tensor(rows, dtype=dtype).reshape(len(rows), -1 if rows else 3)
    before = x.clone()
    label, semantic, score = clusterer(x)
    assert torch.equal(x, before)
    assert (label.dtype, semantic.dtype, score.dtype) == (torch.int64, torch.int64, torch.float32)
    assert label.shape == (len(rows),)
    assert semantic.tolist() == [0] * len(score)
    assert set(label.tolist()) - {-1} == set(range(len(score)))
    count = torch.bincount(label[label >= 0], minlength=len(score))
    torch.testing.assert_close(score, count.float() / max(len(rows), 1))
    assert not isinstance(clusterer, MeanShift) or (label >= 0).all()


@pytest.mark.parametrize("clusterer", CLUSTERERS)
def test_strided_and_differentiable_positions(clusterer):
    x, _ = blobs()
    padded = torch.cat([x, x], dim=1)[:, :3].requires_grad_()
    found = clusterer(padded)
    assert torch.equal(found.label, clusterer(x).label)
    assert not found.score.requires_grad


@pytest.mark.parametrize("clusterer", CLUSTERERS)
@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (torch.zeros(3), r"expected positions \(N, D\) of floats, got \(3,\) torch.float32"),
        (torch.zeros(3, 0), r"got \(3, 0\) torch.float32"),
        (torch.zeros(3, 3, dtype=torch.int64), "got .* torch.int64"),
        (torch.tensor([[0.0, 0.0], [0.0, math.nan]]), r"expected finite positions, got \[0.0, nan\] at point 1"),
        (torch.tensor([[math.inf], [0.0]]), r"got \[inf\] at point 0"),
    ],
)
def test_bad_positions(clusterer, positions, message):
    with pytest.raises(ValueError, match=message):
        clusterer(positions)


def test_bad_parameters():
    x, _ = blobs()
    with pytest.raises(ValueError, match="sample: expected at least 1 point, got 0"):
        MeanShift(1.0, sample=0)
    for clusterer, name in [
        (DBSCAN(0.0, 1), "eps"),
        (DBSCAN(1.0, 0), "min_samples"),
        (HDBSCAN(1, 1), "min_cluster_size"),
        (HDBSCAN(2, 0), "min_samples"),
        (MeanShift(0.0), "bandwidth"),
    ]:
        with pytest.raises(ValueError, match=name):
            clusterer(x)


def test_fit_picks_by_the_metric():
    clouds, truths = zip(*(blobs(seed=seed) for seed in range(2)), strict=True)
    targets = [targets_of(truth) for truth in truths]
    grid = [DBSCAN(0.01, 3), DBSCAN(99.0, 3), DBSCAN(0.5, 3), DBSCAN(0.6, 3)]
    fit = fit_baseline(grid, clouds, targets, part_map)
    assert fit == BaselineFit(DBSCAN(0.5, 3), 1.0, tuple(grid), fit.metrics)  # the first of equal ones
    assert fit.metrics == tuple(part_map([c(x) for x in clouds], targets) for c in grid)
    assert fit.metrics[1] < 1
    assert asdict(fit.clusterer) == {"eps": 0.5, "min_samples": 3}


def test_fit_never_picks_nan():
    x, truth = blobs()
    metrics = iter([math.nan, 0.2, math.nan, 0.1])
    grid = [MeanShift(b) for b in (1.0, 2.0, 3.0, 4.0)]
    fit = fit_baseline(grid, [x], [targets_of(truth)], lambda found, targets: next(metrics))
    assert (fit.clusterer, fit.metric) == (grid[1], 0.2)


def test_fit_shows_progress():
    x, truth = blobs()
    seen = []

    def progress(clusterers):
        for clusterer in clusterers:
            seen.append(clusterer)
            yield clusterer

    grid = [DBSCAN(0.5, 3), HDBSCAN(5, 3)]
    fit_baseline(grid, [x], [targets_of(truth)], part_map, progress=progress)
    assert seen == grid


def test_fit_errors():
    x, truth = blobs()
    good = targets_of(truth)
    named = good._replace(gt_classes=torch.tensor([0, 2, 2]))
    grid = [DBSCAN(0.5, 3)]
    with pytest.raises(ValueError, match="at least one, got 0 and 0"):
        fit_baseline(grid, [], [], part_map)
    with pytest.raises(ValueError, match="as many targets as clouds and at least one, got 1 and 2"):
        fit_baseline(grid, [x, x], [good], part_map)
    with pytest.raises(ValueError, match="at least one clusterer in grid"):
        fit_baseline([], [x], [good], part_map)
    with pytest.raises(ValueError, match=r"class 0 only, .* got classes \[0, 2\] in target 1: .*class_agnostic=True"):
        fit_baseline(grid, [x, x], [good, named], part_map)
    with pytest.raises(ValueError, match="got NaN for all"):
        fit_baseline(grid, [x], [good], lambda found, targets: math.nan)


def test_grids_are_of_one_method_each():
    assert {name: {type(c) for c in grid} for name, grid in BASELINES.items()} == {
        "DBSCAN": {DBSCAN},
        "HDBSCAN": {HDBSCAN},
        "mean shift": {MeanShift},
    }
    assert all(len(set(grid)) == len(grid) for grid in BASELINES.values())


def test_grid_of_dbscan_separates_boards():
    """Two boards of 10,000 points, a tenth of the shape's radius apart."""
    generator = np.random.default_rng(0)
    truth = torch.arange(10_000) % 2
    x = torch.from_numpy(generator.uniform(-0.5, 0.5, (10_000, 3)) * [1, 0, 1]).float()
    x[:, 1] = torch.where(truth == 0, 0.05, -0.05)
    found = DBSCAN(0.05, 5)(x)
    assert DBSCAN(0.05, 5) in BASELINES["DBSCAN"]
    assert part_map([found], [targets_of(truth)]) == 1


def test_missing_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    message = r'pip install -e "\.\[baselines\]"'
    with pytest.raises(ImportError, match=message):
        DBSCAN(0.05, 5)(torch.zeros(1, 3))
    assert not resolve(Options()).baselines
    with pytest.raises(ImportError, match=message):  # before anything is trained
        resolve(Options(baselines=True))
