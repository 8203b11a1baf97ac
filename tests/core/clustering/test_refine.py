"""Refinement against its definition in loops and float64, and what it promises beyond the numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cluster_oracle import log_kappa
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from probemb_lib import (
    GaussianEmbedding,
    Instances,
    aggregate_instances,
    fit_threshold,
    greedy_cluster,
    index_instances,
    log_bhattacharyya,
    margin_cluster,
    refine_instances,
)
from probemb_lib.clustering import refine

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def definition(
    x: GaussianEmbedding, probabilities: Tensor, found: Instances, background: int | None, reassign: bool = True
) -> tuple[np.ndarray, list[int], list[float], float]:
    """Labels, classes, scores, and how far the two most similar instances of any point are apart in ln κ."""
    mean, log_std = (t.double().numpy() for t in x)
    log_std = np.broadcast_to(log_std, mean.shape)
    p, label, cloud = probabilities.double().numpy(), found.label.numpy(), found.batch.numpy()
    n = len(label)
    rows = range(len(found))
    center = {
        k: (mean[label == k].mean(0), 0.5 * np.log(np.exp(2 * log_std[label == k]).mean(0)))
        if reassign
        else (found.embedding.mean[k].double().numpy(), found.embedding.log_std[k].double().numpy())
        for k in rows
        if (label == k).any()
    }

    def similarity(i: int, k: int) -> float:
        m, s = center[k]
        s = np.broadcast_to(s, m.shape)
        return float(log_kappa(np.stack([m, mean[i]]), np.stack([s, log_std[i]]), 0)[1])

    new, margin = label.copy(), math.inf
    if reassign:
        for i in np.flatnonzero(label >= 0):
            candidates = sorted(((similarity(i, k), -k) for k in center if cloud[k] == cloud[label[i]]), reverse=True)
            new[i] = -candidates[0][1]
            if len(candidates) > 1:
                margin = min(margin, candidates[0][0] - candidates[1][0])
    semantic, score, row = [], [], {}
    for k in rows:
        members = np.flatnonzero(new == k)
        if not len(members):
            continue
        row[k] = len(row)
        average = p[members].mean(0)
        columns = [c for c in range(p.shape[1]) if c != background]
        best = max(columns, key=lambda c: (average[c], -c))
        kappa = np.mean([math.exp(similarity(i, k)) for i in members])
        of_cloud = int((found.point_batch.numpy() == cloud[k]).sum())
        semantic.append(best)
        score.append(average[best] * kappa * (len(members) / of_cloud) ** 0.25)
    return np.array([row.get(k, -1) for k in new[:n]], dtype=np.int64), semantic, score, margin


def clouds(
    seed: int, n: int = 120, dim: int = 3, width: int | None = None, classes: int = 3, num_clouds: int = 1
) -> tuple[GaussianEmbedding, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    centers = 2 * torch.randn((7, dim), generator=g)
    own = torch.randint(7, (n,), generator=g)
    x = GaussianEmbedding(
        centers[own] + 0.4 * torch.randn((n, dim), generator=g),
        0.4 * torch.randn((n, width or dim), generator=g) - 0.7,
    )
    return x, torch.rand((n, classes), generator=g).softmax(1), torch.randint(num_clouds, (n,), generator=g)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 80),
    st.integers(1, 4),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([0.1, 0.4, 0.8]),
    st.booleans(),
)
def test_definition(
    seed: int,
    n: int,
    dim: int,
    isotropic: bool,
    num_clouds: int,
    background: int | None,
    tau: float,
    reassign: bool,
) -> None:
    x, p, batch = clouds(seed, n, dim, 1 if isotropic else dim, num_clouds=num_clouds)
    found = greedy_cluster(x, p, batch=batch, threshold=tau, background=background)
    refined = refine_instances(x, p, found, background=background, reassign=reassign)
    label, semantic, score, margin = definition(x, p, found, background, reassign)
    assert refined.semantic.tolist() == semantic
    np.testing.assert_allclose(refined.score.double().numpy(), score, rtol=2e-5)
    if margin > 1e-5:  # the Gaussians of instances are float32
        np.testing.assert_array_equal(refined.label.numpy(), label)
    assert refined.batch.tolist() == sorted(refined.batch.tolist())
    assert bool((refined.batch[refined.label[refined.label >= 0]] == batch[refined.label >= 0]).all())


@pytest.mark.parametrize("device", DEVICES)
def test_blocks_and_bounds_leave_nothing_out(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Against all pairs, to the label, with blocks of every size; float64, so that there is nothing to round."""
    x, p, batch = clouds(1, 4000, num_clouds=3)
    x = x.to(device, torch.float64)
    p, batch = p.to(device), batch.to(device)
    found = greedy_cluster(x, p, batch=batch, threshold=0.7, background=None)
    assert len(found) > 60
    index = index_instances(found.label)
    log_k = log_bhattacharyya(x, aggregate_instances(x, index))
    log_k[batch[:, None] != found.batch[index.id][None]] = -math.inf
    expected = log_k.argmax(1)
    for block, pairs in ((refine.BLOCK, refine.PAIRS_AT_ONCE), (7, 11), (300, 1)):
        monkeypatch.setattr(refine, "BLOCK", block)
        monkeypatch.setattr(refine, "PAIRS_AT_ONCE", pairs)
        refined = refine_instances(x, p, found, background=None)
        number = torch.unique(expected, return_inverse=True)[1]
        torch.testing.assert_close(refined.label, number, rtol=0, atol=0)
    assert (refined.label != found.label).any()


def test_ties_go_to_the_lower_row_and_column() -> None:
    x = GaussianEmbedding(torch.tensor([[-2.0], [2.0], [0.0], [2.0]]), torch.zeros(4, 1))
    two = instances(x, torch.tensor([0, 1, -1, 1]))
    assert refine_instances(x, torch.full((4, 3), 0.5), two, background=None).semantic.tolist() == [0, 0]
    assert refine_instances(x, torch.full((4, 3), 0.5), two, background=0).semantic.tolist() == [1, 1]
    # Two instances with the same Gaussian: all points go to the first, and the second is gone.
    x = GaussianEmbedding(torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]), torch.zeros(4, 1))
    refined = refine_instances(x, torch.ones(4, 1), instances(x, torch.tensor([0, 0, 1, 1])), background=None)
    assert refined.label.tolist() == [0, 0, 0, 0]
    assert len(refined) == 1


def instances(x: GaussianEmbedding, label: Tensor) -> Instances:
    k = int(label.max()) + 1
    seed = torch.stack([(label == i).nonzero()[0, 0] for i in range(k)])
    zero = torch.zeros_like(seed)
    return Instances(label, zero, torch.ones(k), seed, zero, x.select(seed), torch.zeros_like(label))


def test_points_without_instance_stay_out() -> None:
    x, p, batch = clouds(2, num_clouds=2)
    found = greedy_cluster(x, p, batch=batch, threshold=0.6, min_points=3, min_score=0.35)
    assert 0 < int((found.label < 0).sum()) < 120
    refined = refine_instances(x, p, found)
    torch.testing.assert_close(refined.label < 0, found.label < 0, rtol=0, atol=0)


def test_score_of_one_instance() -> None:
    """P̄ κ̄ (n/N)^¼ by hand: two points ±1 around their mean, σ = 1, of three points."""
    x = GaussianEmbedding(torch.tensor([[-1.0], [1.0], [50.0]]), torch.zeros(3, 1))
    p = torch.tensor([[0.2, 0.8], [0.6, 0.4], [1.0, 0.0]])
    refined = refine_instances(x, p, instances(x, torch.tensor([0, 0, -1])))
    assert refined.score.tolist() == pytest.approx([0.6 * math.exp(-1 / 8) * (2 / 3) ** 0.25])
    kept = refine_instances(x, p, instances(x, torch.tensor([0, 0, -1])), reassign=False)  # against the first point
    assert kept.score.tolist() == pytest.approx([0.6 * (1 + math.exp(-4 / 8)) / 2 * (2 / 3) ** 0.25])


def test_options_of_the_clustering() -> None:
    x, p, batch = clouds(3, num_clouds=2)
    plain = greedy_cluster(x, p, batch=batch, threshold=0.5)
    expected = refine_instances(x, p, plain)
    found = greedy_cluster(x, p, batch=batch, threshold=0.5, refine=True)
    torch.testing.assert_close(found.label, expected.label, rtol=0, atol=0)
    torch.testing.assert_close(found.score, expected.score, rtol=0, atol=0)
    # Small instances are dropped after their points had the choice.
    large = greedy_cluster(x, p, batch=batch, threshold=0.5, refine=True, min_points=4)
    sizes = torch.bincount(found.label[found.label >= 0])
    assert 0 < len(large) == int((sizes >= 4).sum()) < len(found)
    calls: list[Any] = []
    fit_threshold([(x, p)], [None], lambda f, t: calls.append(f[0]) or 0.0, grid=[0.5], refine=True)
    one = greedy_cluster(x, p, threshold=0.5, refine=True)
    torch.testing.assert_close(calls[0].score, one.score, rtol=0, atol=0)


@pytest.mark.parametrize("log_std", [46.0, 140.0, -60.0, -140.0])
@pytest.mark.parametrize("pairs", [refine.PAIRS_AT_ONCE, 1])
def test_sigma_whose_square_float32_does_not_have(monkeypatch: pytest.MonkeyPatch, log_std: float, pairs: int) -> None:
    """The same groups and scores as with σ = 1, in other units; points with such σ do not spoil their cloud."""
    monkeypatch.setattr(refine, "PAIRS_AT_ONCE", pairs)
    mean, p = torch.tensor([[0.0], [0.1], [100.0], [100.1], [50.0]]), torch.ones(5, 1)
    unit = math.exp(log_std) if abs(log_std) < 85 else 0.0  # beyond, no float32 mean tells the points apart
    x = GaussianEmbedding(mean * unit, torch.full((5, 1), log_std))
    refined = greedy_cluster(x, p, background=None, refine=True)
    assert refined.label.tolist() == ([0, 0, 1, 1, 2] if unit else [0] * 5)
    plain = greedy_cluster(GaussianEmbedding(mean if unit else 0 * mean, torch.zeros(5, 1)), p, background=None)
    scores = refine_instances(
        GaussianEmbedding(mean if unit else 0 * mean, torch.zeros(5, 1)), p, plain, background=None
    ).score
    torch.testing.assert_close(refined.score, scores)
    one = GaussianEmbedding(mean, torch.tensor([[0.0], [0.0], [0.0], [0.0], [log_std]]))
    assert greedy_cluster(one, p, background=None, refine=True).label.tolist() == [0, 0, 1, 1, 2]


def test_cloud_numbers_far_apart() -> None:
    x, p = GaussianEmbedding(torch.zeros(3, 1), torch.zeros(3, 1)), torch.ones(3, 1)
    found = greedy_cluster(x, p, batch=torch.tensor([10**12, 0, 10**12]), background=None, refine=True)
    assert found.label.tolist() == [1, 0, 1]
    assert found.score.tolist() == [1, 1]


def test_nothing_found_and_no_points() -> None:
    x, p, _ = clouds(4)
    none = greedy_cluster(x, p, min_score=2.0)
    assert len(refine_instances(x, p, none)) == 0
    assert len(greedy_cluster(x.select(torch.zeros(0, dtype=torch.int64)), p[:0], refine=True)) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x, p, _ = clouds(5)
    half = greedy_cluster(x.to(dtype=dtype), p.to(dtype), threshold=0.5, refine=True)
    full = greedy_cluster(x.to(dtype=dtype).to(dtype=torch.float32), p.to(dtype).float(), threshold=0.5, refine=True)
    assert half.score.dtype == torch.float32
    torch.testing.assert_close(half.label, full.label, rtol=0, atol=0)
    torch.testing.assert_close(half.score, full.score, rtol=0, atol=0)


def test_errors() -> None:
    x, p, _ = clouds(6)
    found = greedy_cluster(x, p, threshold=0.5)
    with pytest.raises(ValueError, match=r"expected probabilities \(120, L\)"):
        refine_instances(x, p[:-1], found)
    with pytest.raises(ValueError, match="expected instances sorted by cloud"):
        refine_instances(x, p, replace(found, batch=torch.arange(len(found)).flip(0)))
    with pytest.raises(TypeError, match="expected Instances, which share no points, got MarginInstances"):
        refine_instances(x, p, margin_cluster(x, p, min_points=2))
    rows = torch.arange(100)
    with pytest.raises(ValueError, match=r"expected instances of 100 points, got \(120,\)"):
        refine_instances(x.select(rows), p[:100], found)
    with pytest.raises(TypeError, match="expected instances on cpu, got meta"):
        refine_instances(x, p, found.to("meta"))
    with pytest.raises(ValueError, match=f"expected labels under {len(found)}"):
        refine_instances(x, p, replace(found, label=found.label + 1))
    flat = GaussianEmbedding(found.embedding.mean[:, :2], found.embedding.log_std[:, :2])
    with pytest.raises(ValueError, match="expected instances of dimension 3, got 2"):
        refine_instances(x, p, replace(found, embedding=flat))
    with pytest.raises(ValueError, match="expected finite mean"):
        refine_instances(GaussianEmbedding(x.mean * math.nan, x.log_std), p, found)
    with pytest.raises(ValueError, match="expected background"):
        refine_instances(x, p, found, background=7)
