"""Joining of instances against its definition: all pairs of objects, each averaged anew over its parts at each step."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from cluster_oracle import log_kappa
from torch import Tensor

from probemb_lib import (
    GaussianEmbedding,
    Instances,
    cluster_tiles,
    fit_threshold,
    greedy_cluster,
    join_instances,
    margin_cluster,
)


def scene(seed: int, points: int = 60, width: int = 3) -> tuple[GaussianEmbedding, Tensor, Tensor]:
    """Embedding, probabilities and clouds of a few objects whose points vote for several places near each other."""
    draw = torch.Generator().manual_seed(seed)
    place = torch.rand(8, 3, generator=draw) * 4
    mean = place[torch.randint(8, (points,), generator=draw)] + 0.15 * torch.randn(points, 3, generator=draw)
    log_std = -1.2 + 0.5 * torch.randn(points, width, generator=draw)
    probabilities = torch.rand(points, 3, generator=draw)
    probabilities[:, 0] *= 0.2
    return GaussianEmbedding(mean, log_std), probabilities, torch.arange(points) % 2


def whole(found: Instances, parts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """μ and ln σ of the object that rows of ``found`` are parts of."""
    mean, log_std = (t.double().numpy()[parts] for t in found.embedding)
    size = found.size.numpy()[parts]
    return np.average(mean, 0, size), 0.5 * np.log(np.average(np.exp(2 * log_std), 0, size))


def definition(found: Instances, threshold: float, class_aware: bool) -> list[list[int]]:
    """Which rows of ``found`` become one."""
    objects = [[k] for k in range(len(found))]
    kind = [(int(found.batch[k]), int(found.semantic[k]) * class_aware) for k in range(len(found))]
    while True:
        best, pair = math.log(threshold), None
        for a, b in combinations(range(len(objects)), 2):
            if kind[objects[a][0]] != kind[objects[b][0]]:
                continue
            (m, s), (n, t) = whole(found, objects[a]), whole(found, objects[b])
            wide = [np.broadcast_to(of_one, m.shape) for of_one in (s, t)]
            value = float(log_kappa(np.stack([m, n]), np.stack(wide), 0)[1])
            if value >= best:
                best, pair = value, (a, b)
        if pair is None:
            return objects
        a, b = pair
        objects[a] = sorted(objects[a] + objects.pop(b))
        objects.sort()


@pytest.mark.parametrize("class_aware", [False, True])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_definition(seed: int, width: int, class_aware: bool) -> None:
    x, probabilities, batch = scene(seed, width=width)
    x = GaussianEmbedding(x.mean.double(), x.log_std.double())
    found = greedy_cluster(x, probabilities.double(), batch=batch, threshold=0.6, refine=True, class_aware=class_aware)
    joined = join_instances(found, 0.2, class_aware=class_aware)
    groups = definition(found, 0.2, class_aware)
    assert len(groups) < len(found)
    assert len(joined) == len(groups)
    label, size = found.label, found.size.double()
    for row, parts in enumerate(groups):
        members = torch.isin(label, torch.tensor(parts))
        assert torch.equal(joined.label == row, members)
        best = max(parts, key=lambda k: (float(found.score[k]), -k))
        assert joined.seed[row] == found.seed[best]
        assert joined.semantic[row] == found.semantic[best]
        assert joined.batch[row] == found.batch[parts[0]]
        expected = sum(float(size[k] * found.score[k]) for k in parts) / float(size[parts].sum())
        assert joined.score[row].item() == pytest.approx(expected, rel=1e-12)
        mean, log_std = whole(found, parts)
        np.testing.assert_allclose(joined.embedding.mean[row], mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(joined.embedding.log_std[row], log_std, rtol=1e-9, atol=1e-9)
    assert torch.equal(joined.label < 0, label < 0)


def test_an_option_of_the_clustering_and_of_its_fit() -> None:
    x, probabilities, batch = scene(0)
    found = greedy_cluster(x, probabilities, batch=batch, threshold=0.6, refine=True)
    expected = join_instances(found, 0.2)
    joined = greedy_cluster(x, probabilities, batch=batch, threshold=0.6, refine=True, join=0.2)
    assert torch.equal(joined.label, expected.label)
    least = int(expected.size.max())
    large = greedy_cluster(x, probabilities, batch=batch, threshold=0.6, refine=True, join=0.2, min_points=least)
    assert large.size.tolist() == [s for s in expected.size.tolist() if s >= least]  # counted after they are one

    numbers: list[int] = []
    one = greedy_cluster(x, probabilities, threshold=0.6, refine=True, join=0.2)

    def metric(found: list[Instances], _: Any) -> float:
        numbers.append(len(found[0]))
        return 0.0

    fit_threshold([(x, probabilities)], [None], metric, grid=(0.6,), refine=True, join=0.2)
    assert numbers == [len(one)]


def test_parts_that_are_small_alone_are_one_object_in_tiles_too() -> None:
    """Two halves of an object that no seed reaches across: 0.3 of similarity as a whole."""
    positions = torch.tensor([[0.1, 0.0], [0.2, 0.0], [0.8, 0.0], [0.9, 0.0], [9.0, 0.0], [9.1, 0.0]])
    x = GaussianEmbedding(positions, torch.full((6, 2), -1.5))
    probabilities = torch.tensor([[0.1, 0.9], [0.1, 0.8], [0.1, 0.7], [0.1, 0.7], [0.1, 0.95], [0.1, 0.95]])

    def predict(rows: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        return x.select(rows), probabilities[rows]

    apart = greedy_cluster(x, probabilities, threshold=0.6, refine=True)
    assert apart.label.tolist() == [1, 1, 2, 2, 0, 0]
    one = greedy_cluster(x, probabilities, threshold=0.6, refine=True, join=0.05, min_points=2)
    assert one.label.tolist() == [1, 1, 1, 1, 0, 0]
    tiles = cluster_tiles(
        positions, predict, tile_size=0.5, overlap=1.0, threshold=0.6, refine=True, join=0.05, min_points=3
    )
    assert tiles.label.tolist() == [0, 0, 0, 0, -1, -1]
    both = cluster_tiles(positions, predict, tile_size=20.0, overlap=0.0, threshold=0.6, refine=True, join=0.05)
    assert both.score.tolist() == sorted(both.score.tolist(), reverse=True)
    assert torch.equal(both.label, one.label)


def test_clouds_never_join_and_nothing_similar_changes_nothing() -> None:
    x = GaussianEmbedding(torch.zeros(4, 2), torch.zeros(4, 2))
    found = greedy_cluster(x, torch.tensor([[0.0, 0.9]] * 4), batch=torch.tensor([0, 0, 1, 1]), refine=True)
    assert join_instances(found, 0.01) is found
    none = found.keep(torch.zeros(2, dtype=torch.bool))
    assert len(join_instances(none, 0.5)) == 0


def test_ends_of_the_numbers() -> None:
    """κ exactly at the threshold joins; σ and means as far as the clustering takes them give no NaN."""
    x = GaussianEmbedding(torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64))
    probabilities = torch.tensor([[0.1, 0.9], [0.1, 0.8]])
    found = greedy_cluster(x, probabilities, threshold=1.0, refine=True)
    assert len(join_instances(found, math.exp(-1 / 8))) == 1
    assert len(join_instances(found, math.exp(-1 / 8) * (1 + 1e-9))) == 2
    far = GaussianEmbedding(
        torch.tensor([[1e150], [-1e150], [0.0]], dtype=torch.float64),
        torch.tensor([[300.0], [-300.0], [0.0]], dtype=torch.float64),
    )
    found = greedy_cluster(far, torch.tensor([[0.1, 0.9]] * 3), threshold=1.0, refine=True)
    joined = join_instances(found, 1e-50)
    assert torch.isfinite(joined.embedding.log_std).all()
    assert torch.isfinite(joined.score).all()


def test_errors() -> None:
    x, probabilities, batch = scene(0)
    found = greedy_cluster(x, probabilities, batch=batch, refine=True)
    with pytest.raises(ValueError, match=r"expected threshold in \(0, 1\], at least 1e-50, got 0"):
        join_instances(found, 0.0)
    with pytest.raises(TypeError, match="expected Instances, which share no points, got MarginInstances"):
        join_instances(margin_cluster(x, probabilities), 0.5)
    with pytest.raises(ValueError, match=r"expected join in \(0, 1\], at least 1e-50, got 1.5"):
        greedy_cluster(x, probabilities, refine=True, join=1.5)
    for cluster in (
        lambda: greedy_cluster(x, probabilities, join=0.2),
        lambda: cluster_tiles(x.mean, lambda rows: (x, probabilities), tile_size=1.0, overlap=0.0, join=0.2),
    ):
        with pytest.raises(ValueError, match=r"expected refine=True beside join=0.2"):
            cluster()
