"""Clustering by learnable margins against the authors' numbers and against loops."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from margin_cases import CASES, embedding_of, load
from torch import Tensor

from probemb_lib import GaussianEmbedding, Instances, MarginInstances, margin_cluster
from probemb_lib.margin import cluster


@CASES
def test_known_clusters(case: int) -> None:
    known = load("cluster", case)
    prediction = torch.tensor(known["prediction"])
    columns = prediction.flatten(1).T
    positions = torch.tensor(known["coordinates"]).flatten(1).T
    embedding = embedding_of(columns, positions, int(known["n_sigma"]))
    found = margin_cluster(embedding, columns[:, -1:].sigmoid(), min_score=float(known["threshold"]), background=None)
    assert isinstance(found, Instances)
    np.testing.assert_array_equal(found.label + 1, known["expected_instance_map"].reshape(-1))
    masks = np.unpackbits(known["expected_masks_packed"], axis=1, count=columns.shape[0]).astype(bool)
    np.testing.assert_array_equal(found.masks(), masks)
    np.testing.assert_allclose(found.score, known["expected_scores"], rtol=1e-6)
    torch.testing.assert_close(found.score, columns[found.seed, -1].sigmoid())
    torch.testing.assert_close(found.embedding, embedding.select(found.seed))
    if case == 2:  # the first instance lost points to a later one
        assert not torch.equal(found.masks(), Instances.masks(found))


@dataclass(frozen=True)
class Scene:
    """Overlapping blobs with seed values that ask for rejected, overlapping and swallowed proposals."""

    embedding: GaussianEmbedding
    probabilities: Tensor
    batch: Tensor


def scene(seed: int, n: int = 300, dim: int = 2, clouds: int = 2, classes: int = 3, isotropic: bool = False) -> Scene:
    g = torch.Generator().manual_seed(seed)
    center = 3 * torch.rand(8, dim, generator=g)
    blob = torch.randint(0, 8, (n,), generator=g)
    mean = center[blob] + 0.3 * torch.randn(n, dim, generator=g)
    log_std = 0.7 * torch.randn(n, 1 if isotropic else dim, generator=g) - 1
    probabilities = torch.round(32 * torch.rand(n, classes, generator=g)) / 32  # with ties
    return Scene(GaussianEmbedding(mean, log_std), probabilities, torch.randint(0, clouds, (n,), generator=g))


def clusters_by_loops(
    s: Scene, foreground: float, min_score: float, min_points: int, background: int | None, class_aware: bool
) -> tuple[list[int], list[tuple[int, int, list[int]]]]:
    """The last instance of each point, and (seed, class, proposal) of each instance."""
    mean = s.embedding.mean.double().tolist()
    std = s.embedding.log_std.double().exp().expand(-1, len(mean[0])).tolist()
    columns = [c for c in range(s.probabilities.shape[1]) if c != background]
    best = [max(columns, key=lambda c, row=row: row[c]) for row in s.probabilities.tolist()]
    value = [row[c] for row, c in zip(s.probabilities.tolist(), best, strict=True)]
    taking_part = [i for i in range(len(mean)) if value[i] > foreground]
    group = [(int(s.batch[i]), best[i] if class_aware else 0) for i in range(len(mean))]
    found: list[tuple[int, int, list[int]]] = []
    for name in sorted({group[i] for i in taking_part}):
        points = [i for i in taking_part if group[i] == name]
        is_open = set(points)
        while len(is_open) >= min_points and is_open:
            seed = max(sorted(is_open), key=lambda i: value[i])
            if value[seed] < min_score:
                break
            is_open.remove(seed)
            proposal = []
            for i in points:
                z = [(a - b) / c for a, b, c in zip(mean[i], mean[seed], std[seed], strict=True)]
                if math.exp(-0.5 * sum(v * v for v in z)) > 0.5:  # a power would raise where this is infinite
                    proposal.append(i)
            if len(proposal) >= min_points and sum(i in is_open for i in proposal) > 0.5 * len(proposal):
                found.append((seed, best[seed], proposal))
            is_open -= set(proposal)
    label = [-1] * len(mean)
    for k, (_, _, proposal) in enumerate(found):
        for i in proposal:
            label[i] = k
    return label, found


def check_clusters(s: Scene, **options: Any) -> MarginInstances:
    options = {"foreground": 0.5, "min_score": 0.5, "min_points": 5, "background": 0, "class_aware": True, **options}
    got = margin_cluster(s.embedding, s.probabilities, batch=s.batch, **options)
    label, found = clusters_by_loops(s, **options)
    assert got.label.tolist() == label
    assert got.seed.tolist() == [seed for seed, _, _ in found]
    assert got.semantic.tolist() == [semantic for _, semantic, _ in found]
    assert got.batch.tolist() == s.batch[got.seed].tolist()
    torch.testing.assert_close(got.score, s.probabilities[got.seed, got.semantic].float())
    torch.testing.assert_close(got.embedding, s.embedding.select(got.seed))
    masks = got.masks()
    assert masks.shape == (len(found), len(label))
    for mask, (_, _, proposal) in zip(masks, found, strict=True):
        assert mask.nonzero().squeeze(1).tolist() == proposal
    return got


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one class": {"class_aware": False},
    "no background": {"background": None},
    "other background": {"background": 2},
    "higher": {"min_score": 0.9, "foreground": 0.3},
    "all points": {"foreground": -math.inf, "min_score": -math.inf, "min_points": 1},
    "large": {"min_points": 40},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("scans", [-1, 4, 1 << 40])
@pytest.mark.parametrize(("dim", "isotropic"), [(1, False), (2, True), (3, False)])
def test_clusters_against_loops(name: str, scans: int, dim: int, isotropic: bool) -> None:
    """With the spatial index from the first seed on, from the fifth, and never."""
    s = scene(dim, dim=dim, isotropic=isotropic)
    with mock.patch.multiple(cluster, SCANS_BEFORE_INDEX=scans, MIN_POINTS_FOR_INDEX=0):
        got = check_clusters(s, **OPTIONS[name])
    if name == "all points":
        assert len(got) > 3
        assert not torch.equal(got.masks(), Instances.masks(got))


def test_the_index_is_used_when_scans_have_cost_more() -> None:
    s = scene(5, n=1500, clouds=1)
    s = replace(s, embedding=GaussianEmbedding(s.embedding.mean, s.embedding.log_std - 1.5))
    with mock.patch.object(cluster, "Grid", wraps=cluster.Grid) as grid:
        check_clusters(s, class_aware=False)
    assert grid.call_count == 1


def test_the_cluster_oracle_rejects() -> None:
    s = scene(6)
    wider = replace(s, embedding=GaussianEmbedding(s.embedding.mean, s.embedding.log_std + 0.05))
    got = margin_cluster(s.embedding, s.probabilities, batch=s.batch, min_points=5)
    label, _ = clusters_by_loops(wider, 0.5, 0.5, 5, 0, True)
    assert got.label.tolist() != label


def test_a_swallowed_instance_keeps_its_mask() -> None:
    """A later, wider proposal, more than half of it open, takes every point of an earlier one in the label map."""
    mean = torch.tensor([0.0, 0.1, -0.1, 1.0, -1.0, 1.1, -1.1, 1.2, -1.2])[:, None]
    log_std = torch.tensor([-1.0, 0, 0, 2, 0, 0, 0, 0, 0])[:, None]
    seeds_ = torch.tensor([0.9, 0.6, 0.6, 0.8, 0.6, 0.6, 0.6, 0.6, 0.6])[:, None]
    found = margin_cluster(GaussianEmbedding(mean, log_std), seeds_, background=None, min_points=3)
    assert found.label.tolist() == [1] * 9
    assert found.masks().sum(1).tolist() == [3, 9]
    assert Instances.masks(found).sum(1).tolist() == [0, 9]


def test_exactly_half_open_is_too_little() -> None:
    """Two points: the seed does not count as open, so one of two is, which is not more than half."""
    x = GaussianEmbedding(torch.zeros(2, 1), torch.zeros(2, 1))
    p = torch.tensor([[0.9], [0.8]])
    assert len(margin_cluster(x, p, background=None, min_points=1)) == 0
    x = GaussianEmbedding(torch.zeros(3, 1), torch.zeros(3, 1))
    assert len(margin_cluster(x, torch.tensor([[0.9], [0.8], [0.7]]), background=None, min_points=1)) == 1


@pytest.mark.parametrize("num_clouds", [None, 5])
def test_split(num_clouds: int | None) -> None:
    s = scene(7, clouds=3)
    whole = margin_cluster(
        s.embedding, s.probabilities, batch=s.batch + (s.batch > 0), min_points=5
    )  # cloud 1 is empty
    clouds = whole.split(num_clouds)
    assert len(clouds) == (num_clouds or 4)
    assert len(clouds[1]) == 0
    total = 0
    for b, cloud in enumerate(clouds):
        assert isinstance(cloud, MarginInstances)
        rows = s.batch + (s.batch > 0) == b
        alone = margin_cluster(s.embedding.select(rows), s.probabilities[rows], min_points=5)
        for name in ("label", "semantic", "score", "seed", "batch", "point_batch", "member", "member_ptr"):
            torch.testing.assert_close(getattr(cloud, name), getattr(alone, name))
        total += len(cloud)
    assert total == len(whole) > 2


def test_clusters_of_nothing() -> None:
    x = GaussianEmbedding(torch.zeros(0, 3), torch.zeros(0, 1))
    found = margin_cluster(x, torch.zeros(0, 2))
    assert len(found) == 0
    assert found.masks().shape == (0, 0)
    assert found.split() == []
    for batch in (None, torch.arange(200) % 2):
        found = margin_cluster(
            GaussianEmbedding(torch.zeros(200, 3), torch.zeros(200, 1)), torch.full((200, 2), 0.5), batch=batch
        )
        assert found.label.tolist() == [-1] * 200  # no seed value above one half
        assert found.masks().shape == (0, 200)


def test_extreme_numbers_are_clustered() -> None:
    s = scene(8)
    mean = s.embedding.mean.double() * torch.tensor([1e149, 1.0], dtype=torch.float64)
    log_std = torch.tensor([-300.0, 300, 0])[torch.arange(600) % 3].view(300, 2).double()
    with np.errstate(all="raise", under="ignore"):
        check_clusters(replace(s, embedding=GaussianEmbedding(mean, log_std)), min_points=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_clusters_of_half_precision(dtype: torch.dtype) -> None:
    s = scene(9)
    s = replace(s, embedding=s.embedding.to(dtype=dtype), probabilities=s.probabilities.to(dtype))
    assert check_clusters(s).score.dtype == torch.float32


def test_no_gradient_and_inputs_as_they_were() -> None:
    s = scene(10)
    x = GaussianEmbedding(*(t.requires_grad_() for t in s.embedding))
    before = [t.clone() for t in (*x, s.probabilities, s.batch)]
    found = margin_cluster(x, s.probabilities, batch=s.batch, min_points=5)
    assert not found.embedding.mean.requires_grad
    for t, b in zip((*x, s.probabilities, s.batch), before, strict=True):
        torch.testing.assert_close(t, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"foreground": math.nan}, ValueError, "expected a number for foreground, got NaN"),
        ({"min_score": math.nan}, ValueError, "expected a number for min_score, got NaN"),
        ({"min_points": 0}, ValueError, "expected min_points >= 1, got 0"),
        ({"background": 2}, ValueError, r"expected background in \[0, 2\) or None, got 2"),
        ({"batch": torch.zeros(3, dtype=torch.int64)}, ValueError, r"expected batch \(4,\)"),
        ({"probabilities": torch.zeros(4)}, ValueError, r"expected probabilities \(4, L\)"),
        ({"probabilities": torch.full((4, 2), math.nan)}, ValueError, "expected finite probabilities"),
        ({"embedding": GaussianEmbedding(torch.zeros(4), torch.zeros(4))}, ValueError, "expected mean of shape"),
    ],
)
def test_errors_of_clustering(options: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {
        "embedding": GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4, 1)),
        "probabilities": torch.zeros(4, 2),
    }
    with pytest.raises(error, match=message):
        margin_cluster(**{**arguments, **options})
