"""Clustering in tiles: against a slow definition, against the whole scene at once, and in any order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from cluster_oracle import greedy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from probemb_lib import GaussianEmbedding, Instances, greedy_cluster
from probemb_lib.clustering.tiles import _Tile, _Tiles, cluster_tiles
from probemb_lib.head import HeadOutput

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
MARGIN = 0.3  # no decision of a drawn problem is nearer to its limit, where κ = τ is 1 away


class Scene(NamedTuple):
    """Points and what a network that looks at each point alone says of them."""

    positions: Tensor
    embedding: GaussianEmbedding
    probabilities: Tensor

    def predict(self, index: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        return self.embedding.select(index), self.probabilities[index]

    def select(self, rows: Tensor) -> Scene:
        return Scene(self.positions[rows], self.embedding.select(rows), self.probabilities[rows])

    def whole(self, **options: Any) -> Instances:
        return greedy_cluster(self.embedding, self.probabilities, **options)

    def tiled(self, tile_size: float, overlap: float, **options: Any) -> Instances:
        found = cluster_tiles(self.positions, self.predict, tile_size=tile_size, overlap=overlap, **options)
        check(found, len(self.positions))
        return found


def check(found: Instances, n: int) -> None:
    """What holds of every result."""
    k = len(found)
    assert found.label.shape == found.point_batch.shape == (n,)
    assert found.semantic.shape == found.score.shape == found.seed.shape == found.batch.shape == (k,)
    assert found.embedding.mean.shape[0] == found.embedding.log_std.shape[0] == k
    for t in (found.label, found.semantic, found.seed, found.batch, found.point_batch):
        assert t.dtype == torch.int64
        assert t.device == found.label.device
    assert found.label.unique().tolist() in ([*range(k)], [-1, *range(k)])  # no instance without points
    assert found.label[found.seed].tolist() == [*range(k)]
    assert bool((found.score.diff() <= 0).all())
    assert not found.batch.any()
    assert not found.point_batch.any()


def same(got: Instances, expected: Instances) -> None:
    """Equal to the bit."""
    for name in ("label", "semantic", "score", "seed", "batch", "point_batch"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=0, atol=0)
    for a, b in zip(got.embedding, expected.embedding, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def noisy_scene(seed: int, n: int, dim: int = 3, extent: float = 8.0, classes: int = 3, ties: bool = False) -> Scene:
    """Objects everywhere, crossed by borders and close to each other; predictions that often contradict."""
    g = torch.Generator().manual_seed(seed)
    centers = (torch.rand(12, dim, generator=g) - 0.5) * extent
    of = torch.randint(0, 12, (n,), generator=g)
    positions = centers[of] + 0.4 * torch.randn(n, dim, generator=g)
    mean = centers[of] + 0.6 * torch.randn(n, dim, generator=g)
    log_std = math.log(0.4) + 0.3 * torch.randn(n, dim, generator=g)
    probabilities = torch.rand(n, classes, generator=g)
    if ties:  # a grid of positions and scores: many points that only the Gaussian tells apart, and many twins
        positions, probabilities = positions.round(), (4 * probabilities).round() / 4
        mean = (2 * mean).round() / 2
        log_std = log_std.round()
    return Scene(positions, GaussianEmbedding(mean, log_std), probabilities)


# --- against the definition


def definition(
    scene: Scene, size: float, overlap: float, axes: list[int], options: dict[str, Any]
) -> tuple[list[int], float]:
    """The labels, tile by tile with loops, where scores are distinct; and the smallest margin of a decision."""
    positions, mean, log_std, p = (t.double().numpy() for t in (scene.positions, *scene.embedding, scene.probabilities))
    n = len(positions)
    min_points = options.pop("min_points", 1)
    background = options.get("background", 0)
    stitch = options.pop("stitch_threshold", None) or options.get("threshold", 0.35)
    cells = [tuple(math.floor(x / size) for x in row[axes]) for row in positions]
    parts: list[tuple[int, list[int]]] = []  # seed, points of the cell
    margin = math.inf
    for cell in sorted(set(cells)):
        seen = [
            i
            for i in range(n)
            if all(
                c * size - overlap <= x < (c + 1) * size + overlap
                for c, x in zip(cell, positions[i, axes], strict=True)
            )
        ]
        found = greedy(mean[seen], log_std[seen], p[seen], **options)
        margin = min(margin, found.margin)
        for k, seed in enumerate(found.seed):
            points = [i for j, i in enumerate(seen) if found.label[j] == k and cells[i] == cell]
            if points:
                parts.append((seen[seed], points))
    foreground = np.delete(p, background, axis=1) if background is not None else p
    score = foreground.max(axis=1)
    columns = np.delete(np.arange(p.shape[1]), [] if background is None else background)
    semantic = columns[foreground.argmax(axis=1)]
    label = np.full(n, -1)
    if not parts:
        return label.tolist(), margin
    # One row a part; a score map that holds the seed's score in its class, and nothing elsewhere.
    seeds = np.array([seed for seed, _ in parts])
    table = np.zeros((len(parts), p.shape[1]))
    table[np.arange(len(parts)), semantic[seeds]] = score[seeds]
    joined = greedy(
        mean[seeds],
        log_std[seeds],
        table,
        threshold=stitch,
        class_aware=options.get("class_aware", False),
        background=None,
    )
    members: list[list[int]] = [[] for _ in joined.seed]
    for (_, points), k in zip(parts, joined.label, strict=True):
        members[k] += points
    best = [max(score[m]) for m in members]
    rank = 0
    for k in sorted(range(len(members)), key=lambda k: -best[k]):
        if len(members[k]) >= min_points and best[k] >= options.get("min_score", 0.0):
            label[members[k]] = rank
            rank += 1
    return label.tolist(), min(margin, joined.margin)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"background": None, "min_score": 0.6},
    {"background": 1, "class_aware": True, "threshold": 0.5},
    {"background": None, "min_points": 4, "stitch_threshold": 0.7},
    {"threshold": 0.6, "stitch_threshold": 0.2, "min_score": 0.4},
]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    dim=st.integers(1, 3),
    size=st.sampled_from([1.0, 1.7, 3.0]),
    overlap=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    options=st.sampled_from(OPTIONS),
)
def test_definition(seed: int, dim: int, size: float, overlap: float, options: dict[str, Any]) -> None:
    scene = noisy_scene(seed, 80, dim)
    axes = sorted(np.random.default_rng(seed).permutation(dim)[: 1 + seed % dim].tolist())
    label, margin = definition(scene, size, overlap, axes, dict(options))
    assume(margin > MARGIN)
    assert scene.tiled(size, overlap, axes=axes, **options).label.tolist() == label


def test_definition_can_fail() -> None:
    scene = noisy_scene(1, 80)
    label, _ = definition(scene, 1.7, 0.0, [0, 1], {})
    assert scene.tiled(1.7, 0.0).label.tolist() == label
    assert scene.tiled(1.7, 0.0, threshold=0.5).label.tolist() != label
    assert scene.tiled(1.7, 2.0).label.tolist() != label


# --- against the whole scene at once


@pytest.mark.parametrize("options", OPTIONS[:3])
@pytest.mark.parametrize("isotropic", [False, True])
def test_one_tile_is_greedy_cluster(options: dict[str, Any], isotropic: bool) -> None:
    for seed in range(3):
        scene = noisy_scene(seed, 200)
        scene = scene._replace(positions=scene.positions + 50)
        if isotropic:
            scene = scene._replace(embedding=GaussianEmbedding(scene.embedding.mean, scene.embedding.log_std[:, :1]))
        expected = scene.whole(**options)
        assert len(expected) > 10
        same(scene.tiled(100.0, 0.0, **options), expected)
        same(scene.tiled(7.0, 100.0, **options), expected)  # every tile sees everything


def test_one_tile_with_ties_is_greedy_cluster_of_points_sorted_by_position() -> None:
    scene = noisy_scene(0, 400, ties=True)
    keys = (scene.positions, *scene.embedding, scene.probabilities[:, 1:].argmax(1, keepdim=True))
    columns = torch.cat([k.double() for k in keys], dim=1)
    rows = torch.tensor(sorted(range(400), key=lambda i: columns[i].tolist()))
    scene = scene.select(rows)._replace(positions=scene.positions[rows] + 50)
    found, expected = scene.tiled(100.0, 0.0), scene.whole()
    torch.testing.assert_close(found.label, expected.label)
    torch.testing.assert_close(found.semantic, expected.semantic)
    assert not torch.equal(scene.select(torch.arange(399, -1, -1)).whole().label.flip(0), expected.label)  # rows count


def separated(g: np.random.Generator, dim: int, objects: int, size: float = 1.0) -> Scene:
    """Objects of extent 2 × size, κ ≥ 0.5 for all pairs inside, and about 0 for all others."""
    lattice = np.array(list(itertools.product(range(-3, 4), repeat=min(dim, 2))))[:, :dim]
    centers = np.zeros((objects, dim))
    centers[:, : min(dim, 2)] = g.permutation(lattice)[:objects]
    centers *= 6 * size
    of = np.repeat(np.arange(objects), g.integers(1, 25, objects))
    n = len(of)
    positions = centers[of] + size * g.uniform(-1, 1, (n, dim))
    mean = centers[of] + size * g.uniform(-0.25, 0.25, (n, dim))
    log_std = np.log(0.5 * size) + g.uniform(-0.2, 0.2, (n, dim))
    probabilities = 0.4 * g.random((n, 4))
    probabilities[np.arange(n), 1 + of % 3] = 0.5 + 0.5 * g.permutation(n) / n
    nothing = g.random(n) < 0.2
    probabilities[nothing, 0] = 1.0
    rows = g.permutation(n)
    as_tensor = [torch.from_numpy(a[rows]) for a in (positions, mean, log_std, probabilities)]
    return Scene(as_tensor[0], GaussianEmbedding(as_tensor[1], as_tensor[2]), as_tensor[3])


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    dim=st.integers(1, 4),
    size=st.floats(0.3, 9.0),
    overlap=st.one_of(st.just(0.0), st.floats(0.01, 4.0)),
    options=st.sampled_from([{}, {"class_aware": True}, {"min_points": 9}, {"threshold": 0.5}]),
    in_all_axes=st.booleans(),
)
def test_separated_instances_are_those_of_the_whole(
    seed: int, dim: int, size: float, overlap: float, options: dict[str, Any], in_all_axes: bool
) -> None:
    g = np.random.default_rng(seed)
    scene = separated(g, dim, objects=min(7, 7**dim))
    expected = scene.whole(**options)
    axes = tuple(range(min(dim, 3))) if in_all_axes else None
    same(scene.tiled(size, overlap, axes=axes, **options), expected)


def test_min_score_with_an_overlap_of_the_extent_is_that_of_the_whole() -> None:
    scene = separated(np.random.default_rng(0), 2, objects=7)
    expected = scene.whole(min_score=0.95)
    assert 0 < len(expected) < len(scene.whole())
    same(scene.tiled(1.3, 2.0, min_score=0.95), expected)
    # Without, a tile does not see the point that makes its part an instance: fewer points, but the same instances.
    found = scene.tiled(1.3, 0.0, min_score=0.95)
    torch.testing.assert_close(found.seed, expected.seed)
    lost = found.label < 0
    torch.testing.assert_close(found.label[~lost], expected.label[~lost])
    assert bool((expected.label[lost] >= 0).any())


def test_a_map_in_float64_is_that_without_its_offset() -> None:
    """As UTM coordinates; means in float32 would have lost their digits."""
    offset = torch.tensor([500_000.0, 5_400_000.0])
    scene = separated(np.random.default_rng(1), 2, objects=5)
    far = scene._replace(positions=scene.positions + offset)
    far = far._replace(embedding=GaussianEmbedding(scene.embedding.mean + offset, scene.embedding.log_std))
    assert torch.equal(far.tiled(2.0, 2.0).label, scene.tiled(2.0, 2.0).label)
    rounded = far._replace(embedding=GaussianEmbedding(far.embedding.mean.float(), far.embedding.log_std.float()))
    with pytest.raises(ValueError, match=r"the tile at .*: mean: expected float32 coordinates.*subtract an offset"):
        rounded.tiled(2.0, 2.0)


# --- refined


def counterparts(found: Instances, expected: Instances) -> Tensor:
    """The row in ``expected`` of each instance that was found, of the same points."""
    inside = found.label >= 0
    assert torch.equal(inside, expected.label >= 0)
    row = torch.empty(len(found), dtype=torch.int64).scatter(0, found.label[inside], expected.label[inside])
    assert torch.equal(row[found.label[inside]], expected.label[inside])
    return row


@pytest.mark.parametrize("options", [{}, {"class_aware": True}, {"background": None}])
def test_one_tile_is_the_refined_greedy_cluster(options: dict[str, Any]) -> None:
    """But for the order of rows and the point that stands for an instance."""
    for seed in range(3):
        scene = noisy_scene(seed, 300)
        scene = scene._replace(positions=scene.positions + 50)
        expected, plain = scene.whole(refine=True, **options), scene.whole(**options)
        found = scene.tiled(100.0, 0.0, refine=True, **options)
        assert len(found) == len(expected) > 10
        assert not torch.equal(expected.label, plain.label)
        row = counterparts(found, expected)
        torch.testing.assert_close(found.score, expected.score[row])
        torch.testing.assert_close(found.semantic, expected.semantic[row])
        torch.testing.assert_close(tuple(found.embedding), tuple(expected.embedding.select(row)))
        assert (found.score.diff() <= 0).all()


def test_members_in_several_tiles_refine_an_instance() -> None:
    """Tiles that see whole objects: class and score are those of all members, wherever they lie."""
    scene = separated(np.random.default_rng(0), 2, objects=7)
    expected = scene.whole(refine=True)
    found = scene.tiled(1.3, 2.0, refine=True)
    row = counterparts(found, expected)
    torch.testing.assert_close(found.score, expected.score[row])
    torch.testing.assert_close(found.semantic, expected.semantic[row])


@pytest.mark.parametrize(("first", "second", "expected"), [(3, 5, 0.1), (5, 3, 0.0)])
def test_the_gaussian_is_that_of_the_tile_with_most_members(first: int, second: int, expected: float) -> None:
    positions = torch.cat([torch.linspace(0.1, 0.9, first), torch.linspace(1.1, 1.9, second)])[:, None]
    log_std = iter((0.0, 0.1))  # a tile at a time

    def predict(index: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        std = torch.full((len(index), 1), next(log_std))
        return GaussianEmbedding(torch.ones(len(index), 1), std), torch.tensor([[0.1, 0.9]]).expand(len(index), 2)

    found = cluster_tiles(positions, predict, tile_size=1.0, overlap=1.0, refine=True)
    assert found.size.tolist() == [8]
    torch.testing.assert_close(found.embedding.log_std, torch.full((1, 1), expected))


def test_nothing_to_refine() -> None:
    scene = separated(np.random.default_rng(0), 2, objects=2)
    empty = scene.select(torch.zeros(0, dtype=torch.int64))._replace(positions=scene.positions[:0])
    assert len(empty.tiled(1.0, 0.0, refine=True)) == 0
    assert len(scene.tiled(1.0, 0.0, refine=True, min_points=10_000)) == 0


# --- order


def shuffled(seed: int) -> Callable[[_Tiles], Iterator[_Tile]]:
    def iterate(tiles: _Tiles) -> Iterator[_Tile]:
        return map(tiles.tile, np.random.default_rng(seed).permutation(len(tiles)).tolist())

    return iterate


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_order_of_tiles(options: dict[str, Any], ties: bool) -> None:
    scene = noisy_scene(3, 500, ties=ties)
    expected = scene.tiled(1.5, 0.4, **options)
    assert len(expected) > 5
    for seed in range(4):
        with mock.patch.object(_Tiles, "__iter__", shuffled(seed)):
            same(scene.tiled(1.5, 0.4, **options), expected)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_order_of_points(options: dict[str, Any], ties: bool) -> None:
    scene = noisy_scene(4, 500, ties=ties)
    expected = scene.tiled(1.5, 0.4, **options)
    for seed in range(4):
        rows = torch.randperm(500, generator=torch.Generator().manual_seed(seed))
        found = scene.select(rows).tiled(1.5, 0.4, **options)
        torch.testing.assert_close(found.label, expected.label[rows])
        for name in ("semantic", "score"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)
        torch.testing.assert_close(found.embedding.mean, expected.embedding.mean, rtol=0, atol=0)
        if not ties:  # of twins that nothing tells apart, any is the seed
            torch.testing.assert_close(rows[found.seed], expected.seed)


def test_predict_gets_points_in_the_same_order_whatever_their_rows() -> None:
    scene = noisy_scene(5, 200)
    orders = []
    for rows in (torch.arange(200), torch.randperm(200, generator=torch.Generator().manual_seed(0))):
        permuted = scene.select(rows)
        seen: list[list[list[float]]] = []

        def predict(
            index: Tensor, permuted: Scene = permuted, seen: list[list[list[float]]] = seen
        ) -> tuple[GaussianEmbedding, Tensor]:
            seen.append(permuted.positions[index].tolist())
            return permuted.predict(index)

        cluster_tiles(permuted.positions, predict, tile_size=2.0, overlap=0.5)
        orders.append(seen)
    assert orders[0] == orders[1]


def test_other_parts_of_the_scene_have_no_influence() -> None:
    here, there = noisy_scene(6, 300), noisy_scene(7, 300)
    shift = torch.tensor([-40.3, 55.1, 0.0])
    far = Scene(
        there.positions + shift, there.embedding._replace(mean=there.embedding.mean + shift), there.probabilities
    )
    both = Scene(*(_cat(a, b) for a, b in zip(here, far, strict=True)))
    found, alone = both.tiled(1.5, 0.4), here.tiled(1.5, 0.4)
    rows = (found.seed < 300).nonzero().squeeze(1)
    torch.testing.assert_close(found.seed[rows], alone.seed)
    torch.testing.assert_close(found.score[rows], alone.score, rtol=0, atol=0)
    number = torch.full((len(found) + 1,), -1).index_copy(0, rows, torch.arange(len(rows)))
    torch.testing.assert_close(number[found.label[:300]], alone.label)


def _cat(a: Any, b: Any) -> Any:
    return GaussianEmbedding(*map(_cat, a, b)) if isinstance(a, GaussianEmbedding) else torch.cat([a, b])


# --- what is stitched


def line(mean: list[float], score: list[float], position: list[float] | None = None, std: float = 1.0) -> Scene:
    """Points on a line with one foreground class; κ of means at a distance d is exp(−d²/8) for std 1."""
    x = torch.tensor(mean)[:, None]
    p = torch.tensor(score)[:, None]
    embedding = GaussianEmbedding(x, torch.full_like(x, math.log(std)))
    return Scene(x if position is None else torch.tensor(position)[:, None], embedding, p)


def test_an_instance_over_three_tiles() -> None:
    scene = line([4.5] * 9, [0.1 * i + 0.05 for i in range(9)], [float(i) for i in range(9)])
    found = scene.tiled(3.0, 0.0, background=None, min_points=9)  # counted over the whole
    assert found.label.tolist() == [0] * 9
    assert found.seed.tolist() == [8]
    assert scene.tiled(3.0, 0.0, background=None, min_points=10).label.tolist() == [-1] * 9


def test_no_chains() -> None:
    """κ of neighbours is 0.61, of the outer two 0.14: what the best one does not reach is another instance."""
    assert line([0.5, 2.5, 4.5], [0.9, 0.8, 0.7]).tiled(1.0, 0.0, background=None).label.tolist() == [0, 0, 1]
    assert line([0.5, 2.5, 4.5], [0.8, 0.9, 0.7]).tiled(1.0, 0.0, background=None).label.tolist() == [0, 0, 0]


def test_ties_of_score_go_to_the_lower_position() -> None:
    assert line([0.5, 2.5, 4.5], [0.9] * 3).tiled(1.0, 0.0, background=None).label.tolist() == [0, 0, 1]
    found = line([4.5, 2.5, 0.5], [0.9] * 3).tiled(1.0, 0.0, background=None)
    assert found.label.tolist() == [1, 0, 0]
    assert found.seed.tolist() == [2, 0]


def test_stitch_threshold() -> None:
    scene = line([0.5, 2.5], [0.9, 0.8])
    kappa = math.exp(-4 / 8)
    assert scene.tiled(1.0, 0.0, background=None, stitch_threshold=kappa - 1e-6).label.tolist() == [0, 0]
    assert scene.tiled(1.0, 0.0, background=None, stitch_threshold=kappa + 1e-6).label.tolist() == [0, 1]
    assert scene.tiled(1.0, 0.0, background=None, threshold=kappa + 1e-6).label.tolist() == [0, 1]


def test_class_aware() -> None:
    scene = line([0.5, 1.5], [0.9, 0.8])
    scene = scene._replace(probabilities=torch.tensor([[0.9, 0.1], [0.1, 0.8]]))
    assert scene.tiled(1.0, 0.0, background=None).label.tolist() == [0, 0]
    found = scene.tiled(1.0, 0.0, background=None, class_aware=True)
    assert found.label.tolist() == [0, 1]
    assert found.semantic.tolist() == [0, 1]


def by_tile(answers: list[tuple[list[float], list[float]]]) -> Callable[[Tensor], tuple[GaussianEmbedding, Tensor]]:
    """A network that says something else of each tile: means and scores."""
    calls = iter(answers)

    def predict(index: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        mean, score = next(calls)
        assert len(index) == len(mean)
        return GaussianEmbedding(torch.tensor(mean)[:, None], torch.zeros(len(mean), 1)), torch.tensor(score)[:, None]

    return predict


def test_seed_is_labelled_by_its_own_tile() -> None:
    """The first tile's seed is the second's point: the instances do not match, so it is not the first one's seed."""
    x = torch.tensor([[0.9], [1.1]])
    predict = by_tile([([0.0, 0.0], [0.3, 0.9]), ([50.0, 9.0], [0.8, 0.4])])  # of a tile, its own point comes first
    found = cluster_tiles(x, predict, tile_size=1.0, overlap=0.5, background=None)
    check(found, 2)
    assert found.label.tolist() == [1, 0]
    assert found.seed.tolist() == [1, 0]
    torch.testing.assert_close(found.score, torch.tensor([0.8, 0.3]))
    torch.testing.assert_close(found.embedding.mean, torch.tensor([[50.0], [0.0]]))


def test_instance_with_no_point_of_at_least_min_score_is_dropped() -> None:
    predict = by_tile([([0.0, 0.0], [0.3, 0.9]), ([50.0, 9.0], [0.8, 0.4])])
    found = cluster_tiles(
        torch.tensor([[0.9], [1.1]]), predict, tile_size=1.0, overlap=0.5, background=None, min_score=0.5
    )
    assert found.label.tolist() == [-1, 0]


def test_instance_without_points_of_its_own_vanishes() -> None:
    """It does not join others either: without the first tile's 2.5, 0.5 and 4.5 are apart."""
    x = torch.tensor([[0.9], [1.1]])
    predict = by_tile([([0.5, 2.5], [0.5, 0.9]), ([4.5, 50.0], [0.8, 0.1])])
    found = cluster_tiles(x, predict, tile_size=1.0, overlap=0.5, background=None, threshold=0.9, stitch_threshold=0.5)
    assert found.label.tolist() == [1, 0]
    assert found.score.tolist() == pytest.approx([0.8, 0.5])


# --- tiles


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    dim=st.integers(1, 3),
    size=st.sampled_from([0.5, 1.0, 2.0]),
    overlap=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_tiles_are_boxes(seed: int, dim: int, size: float, overlap: float) -> None:
    """Cells are half open, points lie exactly on borders, on both sides of the origin."""
    g = np.random.default_rng(seed)
    positions = g.integers(-8, 9, (30, dim)) / 2.0
    axes = g.permutation(dim)[: g.integers(1, dim + 1)].tolist()
    tiles = list(_Tiles(positions, axes, size, overlap))
    assert sorted(i for tile in tiles for i in tile.rows[: tile.core].tolist()) == list(range(30))
    for tile in tiles:
        assert tile.core > 0
        low = np.array(tile.corner)
        x = positions[:, axes]
        core = ((x >= low) & (x < low + size)).all(axis=1)
        box = ((x >= low - overlap) & (x < low + size + overlap)).all(axis=1)
        assert sorted(tile.rows[: tile.core]) == np.flatnonzero(core).tolist()
        assert sorted(tile.rows) == np.flatnonzero(box).tolist()


def test_axes() -> None:
    g = torch.Generator().manual_seed(0)
    scene = noisy_scene(0, 60, 3)._replace(positions=torch.rand(60, 3, generator=g) * 3)
    calls = {axes: _calls(scene, axes) for axes in (None, (0, 1), (2,), (0, 1, 2))}
    assert calls[None] == calls[0, 1] == 9
    assert calls[2,] == 3
    assert calls[0, 1, 2] > 9
    assert _calls(scene._replace(positions=scene.positions[:, :1]), None) == 3


def _calls(scene: Scene, axes: tuple[int, ...] | None) -> int:
    predict = mock.Mock(side_effect=scene.predict)
    cluster_tiles(scene.positions, predict, tile_size=1.0, overlap=0.0, axes=axes)
    return predict.call_count


def test_a_larger_scene_has_no_larger_tiles() -> None:
    """Rooms side by side: the network sees no more at once, and every point as often as the tiles overlap."""
    g = torch.Generator().manual_seed(0)
    room = torch.rand(500, 3, generator=g) * 4
    largest = []
    for rooms in (3, 9):
        positions = torch.cat([room + torch.tensor([4.0 * i, 0.0, 0.0]) for i in range(rooms)])
        scene = Scene(
            positions, GaussianEmbedding(positions, torch.zeros(len(positions), 1)), torch.ones(500 * rooms, 1)
        )
        sizes: list[int] = []

        def predict(index: Tensor, scene: Scene = scene, sizes: list[int] = sizes) -> tuple[GaussianEmbedding, Tensor]:
            sizes.append(len(index))
            return scene.predict(index)

        cluster_tiles(positions, predict, tile_size=4.0, overlap=1.0, background=None)
        assert len(sizes) == rooms
        largest.append(max(sizes))
    assert largest[0] == largest[1] < 1000


def test_progress() -> None:
    scene = line([0.5, 2.5, 2.6, 9.5], [0.9, 0.8, 0.7, 0.6])
    done: list[tuple[int, int]] = []
    scene.tiled(1.0, 0.0, background=None, progress=lambda i, n: done.append((i, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]


# --- little or nothing in it


@pytest.mark.parametrize("dim", [1, 3])
def test_no_points(dim: int) -> None:
    found = cluster_tiles(torch.zeros(0, dim), mock.Mock(side_effect=AssertionError), tile_size=1.0, overlap=0.5)
    check(found, 0)
    assert found.embedding.mean.shape == (0, dim)


def test_no_foreground() -> None:
    scene = noisy_scene(0, 100)
    nothing = scene._replace(probabilities=torch.tensor([[0.9, 0.1]]).repeat(100, 1))
    found = nothing.tiled(1.0, 0.5)
    assert len(found) == 0
    assert found.embedding.mean.shape == (0, 3)
    # In one tile of two
    half = line([0.5, 2.5], [0.9, 0.8])._replace(probabilities=torch.tensor([[0.2, 0.9], [0.8, 0.3]]))
    assert half.tiled(1.0, 0.0).label.tolist() == [0, -1]
    half = half._replace(probabilities=half.probabilities.flip(0))
    assert half.tiled(1.0, 0.0).label.tolist() == [-1, 0]


# --- input


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_dtypes_of_positions(dtype: torch.dtype) -> None:
    scene = line([0.0, 2.0, 30.0], [0.9, 0.8, 0.7])
    scene = scene._replace(positions=scene.positions.to(dtype))
    assert scene.tiled(1.0, 0.0, background=None).label.tolist() == [0, 0, 1]


def test_half_precision_predictions() -> None:
    scene = line([0.0, 2.0, 30.0], [0.9, 0.8, 0.7])
    half = scene._replace(embedding=scene.embedding.to(dtype=torch.float16), probabilities=scene.probabilities.half())
    found = half.tiled(1.0, 0.0, background=None)
    assert found.label.tolist() == [0, 0, 1]
    assert found.score.dtype == found.embedding.mean.dtype == torch.float32


def test_input_is_left_alone_and_no_gradient_is_kept() -> None:
    scene = noisy_scene(0, 200)
    wide = torch.stack([scene.positions, scene.positions], dim=2)[:, :, 0].requires_grad_()  # not contiguous
    weight = torch.ones(1, requires_grad=True)
    before = [t.detach().clone() for t in (wide, *scene.embedding, scene.probabilities)]

    def predict(index: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        assert not torch.is_grad_enabled()
        embedding, probabilities = scene.predict(index)
        return embedding, probabilities * weight

    found = cluster_tiles(wide, predict, tile_size=1.5, overlap=0.5)
    same(found, scene.tiled(1.5, 0.5))
    assert not found.score.requires_grad
    for a, b in zip(before, (wide, *scene.embedding, scene.probabilities), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("network", DEVICES)
@pytest.mark.parametrize("points", DEVICES)
def test_devices(points: str, network: str) -> None:
    """The network may be elsewhere than the points; the result is where the points are."""
    scene = noisy_scene(1, 300)
    embedding, probabilities = scene.embedding.to(network), scene.probabilities.to(network)
    positions = scene.positions.to(points)

    def predict(index: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        assert index.device == positions.device
        index = index.to(network)
        return embedding.select(index), probabilities[index]

    found = cluster_tiles(positions, predict, tile_size=1.5, overlap=0.5)
    assert found.label.device == found.embedding.mean.device == positions.device
    check(found, 300)
    torch.testing.assert_close(found.label.cpu(), scene.tiled(1.5, 0.5).label)


# --- errors


def wrong_positions(value: float) -> Tensor:
    x = torch.zeros(4, 2)
    x[1, 1] = value
    x[3, 0] = 0.0 if math.isfinite(value) else math.nan  # the first is named
    return x


@pytest.mark.parametrize(
    ("positions", "error", "message"),
    [
        (np.zeros((3, 2)), TypeError, "positions: expected a torch.Tensor, got ndarray"),
        (torch.zeros(3, 2, dtype=torch.bool), TypeError, "expected floating point or integers, got torch.bool"),
        (torch.zeros(3, 2, dtype=torch.complex64), TypeError, "got torch.complex64"),
        (torch.zeros(3), ValueError, r"expected positions \(N, D\) with D >= 1, got \(3,\)"),
        (torch.zeros(3, 0), ValueError, r"got \(3, 0\)"),
        (wrong_positions(math.nan), ValueError, r"expected finite positions, got \[0.0, nan\] at point 1"),
        (wrong_positions(-math.inf), ValueError, r"got \[0.0, -inf\] at point 1"),
        (
            wrong_positions(5_400_000.0),
            ValueError,
            "positions: expected float32 .*finer than 1/1024 of tile_size, 1, got",
        ),
    ],
)
def test_wrong_positions(positions: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cluster_tiles(positions, mock.Mock(side_effect=AssertionError), tile_size=1.0, overlap=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_size": 0.0}, "expected a finite tile_size > 0, in the unit of the positions, got 0.0"),
        ({"tile_size": math.nan}, "got nan"),
        ({"tile_size": math.inf}, "got inf"),
        ({"tile_size": 1e-300}, r"less than 2\^53 tiles from the origin to any point, got 1e-300 for .* 0.5 to 2.5"),
        ({"overlap": -0.1}, "expected a finite overlap >= 0, in the unit of the positions, got -0.1"),
        ({"overlap": math.inf}, "got inf"),
        ({"axes": ()}, r"expected distinct axes in \[0, 1\), at least one, got \(\)"),
        ({"axes": (0, 0)}, r"got \(0, 0\)"),
        ({"axes": (1,)}, r"got \(1,\)"),
        ({"axes": (-1,)}, r"got \(-1,\)"),
        ({"threshold": 0.0}, r"expected threshold in \(0, 1\], at least 1e-50, got 0.0"),
        ({"stitch_threshold": 1.1}, r"expected stitch_threshold in \(0, 1\], at least 1e-50, got 1.1"),
        ({"min_score": math.nan}, "expected a number for min_score, got NaN"),
        ({"min_points": 0}, "expected min_points >= 1, got 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    """All of them before the network runs."""
    scene = line([0.5, 2.5], [0.9, 0.8])
    arguments: dict[str, Any] = {"tile_size": 1.0, "overlap": 0.0, "background": None, **options}
    with pytest.raises(ValueError, match=message):
        cluster_tiles(scene.positions, mock.Mock(side_effect=AssertionError), **arguments)


def gaussians(n: int, dim: int = 1, columns: int = 1) -> GaussianEmbedding:
    return GaussianEmbedding(torch.zeros(n, dim), torch.zeros(n, columns))


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (HeadOutput(gaussians(2), torch.zeros(2, 2)), TypeError, "got HeadOutput, which holds logits; return output"),
        (gaussians(2), TypeError, "expected a pair of GaussianEmbedding and Tensor, got GaussianEmbedding"),
        ((gaussians(2), None), TypeError, "expected a pair of GaussianEmbedding and Tensor, got tuple"),
        (torch.zeros(2, 2), TypeError, "got Tensor"),
        ((gaussians(3), torch.ones(3, 2)), ValueError, "expected 2 rows, one for each of index, got 3"),
        ((gaussians(2), torch.ones(3, 2)), ValueError, r"expected probabilities \(2, L\) with L >= 1, got \(3, 2\)"),
        ((gaussians(2, 3, 2), torch.ones(2, 2)), ValueError, r"expected log_std of shape \(2, 3\) or \(2, 1\)"),
        ((gaussians(2), torch.ones(2, 2).long()), TypeError, "expected floating-point probabilities"),
        ((gaussians(2), torch.ones(2, 1)), ValueError, "expected a foreground column beside the background"),
        ((gaussians(2), torch.tensor([[1.0, 1.0], [1.0, math.nan]])), ValueError, r"got \[1.0, nan\] at point 1"),
    ],
)
def test_wrong_predictions(result: Any, error: type[Exception], message: str) -> None:
    positions = torch.tensor([[-1.5], [-2.0]])
    with pytest.raises(error, match=r"prediction for the tile at \(-2\): .*" + message):
        cluster_tiles(positions, lambda index: result, tile_size=1.0, overlap=0.0)


@pytest.mark.parametrize("second", [(2, 2, 3), (3, 1, 3), (3, 3, 4)])
def test_tiles_that_do_not_fit_each_other(second: tuple[int, int, int]) -> None:
    layouts = iter([(3, 3, 3), second])

    def predict(index: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        dim, columns, classes = next(layouts)
        return gaussians(len(index), dim, columns), torch.ones(len(index), classes)

    message = r"tile at \(5\): expected as many columns of mean, log_std and probabilities as for the tiles before, "
    with pytest.raises(ValueError, match=message + r"\(3, 3, 3\), got " + str(second).replace("(", r"\(")[:-1]):
        cluster_tiles(torch.tensor([[0.5], [5.5]]), predict, tile_size=1.0, overlap=0.0)


def test_means_that_a_tile_was_centred_for() -> None:
    """The usual slip: the network sees positions about its tile, and its means come back about the tile as well."""
    positions = torch.arange(40.0)[:, None] / 4 + torch.tensor([0.0, 5.0])

    def predict(index: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        x = positions[index]
        return GaussianEmbedding(x - x.mean(0) * wrong, torch.full((len(x), 1), -3.0)), torch.ones(len(x), 1)

    options: dict[str, Any] = {"tile_size": 2.5, "overlap": 0.5, "axes": (0,), "background": None}
    wrong = 0.0
    assert len(cluster_tiles(positions, predict, **options)) > 4
    wrong = 1.0
    message = (
        r"the tile at \(2.5\): mean: expected absolute coordinates, within 3.5 .* got all 3.625 or farther .*: add"
    )
    with pytest.raises(ValueError, match=message):
        cluster_tiles(positions, predict, **options)


def test_errors_of_the_network_are_its_own() -> None:
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        cluster_tiles(
            torch.zeros(1, 1), mock.Mock(side_effect=RuntimeError("out of memory")), tile_size=1.0, overlap=0.0
        )
