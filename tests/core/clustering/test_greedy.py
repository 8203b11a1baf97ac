"""Greedy clustering against known answers and against its definition, label for label, by every way it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from cluster_cases import MARGIN, Problem, agree, at_distance, equal, problems
from cluster_oracle import greedy, log_kappa
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from paths import TEST_DATA
from torch import Tensor

from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    greedy_cluster,
    log_bhattacharyya,
    margin_cluster,
    refine_instances,
)
from probemb_lib.clustering import _index, _rounds
from probemb_lib.clustering import greedy as greedy_module
from probemb_lib.clustering import grid as grid_module
from probemb_lib.clustering._index import greedy_indexed
from probemb_lib.clustering._rounds import greedy_rounds

DATA = TEST_DATA / "greedy_clustering"
CASES = [f"case_{i:02}" for i in range(8)]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def greedy_plain(
    mean: Tensor, log_std: Tensor, score: Tensor, group: Tensor | None, tau: float, min_score: float
) -> tuple[Tensor, Tensor]:
    """The way of a GPU, for one cloud."""
    return greedy_rounds(mean.T, log_std.T, score, None, group, tau, min_score)


quick = settings(max_examples=120, deadline=None, derandomize=True)


def test_agree_can_fail() -> None:
    x = GaussianEmbedding(torch.tensor([[0.0], [0.1]]), torch.zeros(2, 1))
    p = torch.tensor([[0.5], [0.6]])
    expected = greedy(x.mean.numpy(), x.log_std.numpy(), p.numpy(), background=None)
    agree(greedy_cluster(x, p, background=None), expected)
    with pytest.raises(AssertionError):
        agree(greedy_cluster(x, p, background=None, threshold=1.0), expected)
    with pytest.raises(AssertionError):
        agree(greedy_cluster(x, p.flip(0), background=None), expected)


# --- known answers


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_known_answers(case: str, device: str) -> None:
    with np.load(DATA / f"{case}.npz") as z:
        data = dict(z)
    embedding = GaussianEmbedding(torch.tensor(data["mean"]), torch.tensor(data["sigma"]).log()).to(device)
    probabilities = torch.tensor(data["prob"], device=device)
    excluded = bool(data["exclude_background"])
    found = greedy_cluster(
        embedding,
        probabilities if excluded else probabilities[:, 1:],
        threshold=float(data["tau"]),
        min_score=0.0 if np.isnan(data["min_score"]) else float(data["min_score"]),
        background=0 if excluded else None,
    )
    equal(found.label, data["expected_label"])
    equal(found.seed, data["expected_seed"])
    equal(found.semantic + (0 if excluded else 1), data["expected_class"])
    equal(found.score, data["expected_score"])
    equal(found.embedding.mean, data["mean"][data["expected_seed"]])


# --- drawn problems


@contextmanager
def index_at_once(**limits: float) -> Iterator[None]:
    """Build the spatial index before the first seed, however few the points are."""
    of_grid = {name: value for name, value in limits.items() if hasattr(grid_module, name)}
    of_loop = {name: value for name, value in limits.items() if name not in of_grid}
    with (
        mock.patch.multiple(grid_module, **{"MAX_GRID_AXES": grid_module.MAX_GRID_AXES, **of_grid}),
        mock.patch.multiple(_index, SCANS_BEFORE_INDEX=-1, MIN_POINTS_FOR_INDEX=0, MIN_POINTS_A_ROW=1e-9, **of_loop),
    ):
        yield


def arguments(problem: Problem) -> tuple[Any, ...]:
    """Of both loops, in numpy: one cloud, all points eligible."""
    mean = problem.mean.T.astype(np.float64)
    log_std = np.broadcast_to(problem.log_std.T.astype(np.float64), mean.shape)
    options = problem.options
    return mean, log_std, problem.probabilities.max(1), None, options["threshold"], options["min_score"]


@quick
@given(problems())
def test_definition(problem: Problem) -> None:
    expected = problem.expected()
    assume(expected.margin > MARGIN)
    agree(problem.found(), expected)


@quick
@given(problems())
def test_definition_with_index(problem: Problem) -> None:
    expected = problem.expected()
    assume(expected.margin > MARGIN)
    with index_at_once():
        agree(problem.found(), expected)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"MAX_GRID_ROWS": 1},  # most boxes fall back to a scan
        {"MAX_GRID_ROWS": 0},  # all do
        {"MAX_CELLS_PER_AXIS": 2},
        {"MAX_CELLS_PER_AXIS": 3, "MAX_GRID_AXES": 1},
        {"MAX_GRID_AXES": 2, "FIRST_SEEDS": 1},  # the ranking goes in steps of 1, 4, 16, ...
    ],
    ids=str,
)
@settings(quick, max_examples=60)
@given(problem=problems(plain_options=True))
def test_indexed_loop(limits: dict[str, int], problem: Problem) -> None:
    expected = problem.expected()
    assume(expected.margin > MARGIN)
    with index_at_once(**limits):
        label, seed = greedy_indexed(*arguments(problem))
    np.testing.assert_array_equal(label, expected.label)
    np.testing.assert_array_equal(seed, expected.seed)


@settings(quick, max_examples=120)
@given(problems(plain_options=True))
def test_plain_loop(problem: Problem) -> None:
    expected = problem.expected()
    assume(expected.margin > MARGIN)
    mean, log_std, score, group, tau, min_score = arguments(problem)
    tensors = (torch.tensor(t) for t in (mean, log_std, score))
    label, seed = greedy_plain(*tensors, group, tau, min_score)
    equal(label, expected.label)
    equal(seed, expected.seed)


@settings(quick, max_examples=80)
@given(problems(), st.booleans())
def test_plain_loop_with_groups(problem: Problem, indexed: bool) -> None:
    """Groups as class_aware makes them, in both loops."""
    group = problem.probabilities.argmax(1)
    options = {"threshold": problem.options["threshold"], "min_score": -math.inf, "background": None}
    expected = greedy(problem.mean, problem.log_std, problem.probabilities, class_aware=True, **options)
    assume(expected.margin > MARGIN)
    mean, log_std, score, _, tau, _ = arguments(problem)
    if indexed:
        with index_at_once():
            label, seed = map(torch.from_numpy, greedy_indexed(mean, log_std, score, group, tau, -math.inf))
    else:
        tensors = (torch.tensor(t) for t in (mean, log_std, score, group))
        label, seed = greedy_plain(*tensors, tau, -math.inf)
    equal(label, expected.label)
    equal(seed, expected.seed)


def scene(n: int, instances: int, *, dim: int = 3, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean (D, n), log_std (D, n), score (n,): blobs of σ = 0.1 in a cube of unit density."""
    rng = np.random.default_rng(n + instances)
    center = rng.random((instances, dim)) * instances ** (1 / dim)
    own = rng.integers(0, instances, n)
    mean = center[own] + rng.normal(size=(n, dim)) * 0.07
    return mean.T.copy(), (math.log(0.1) + rng.normal(size=(n, dim)) * spread).T.copy(), rng.random(n)


@pytest.mark.parametrize(
    ("n", "instances", "spread"),
    [(6000, 40, 0.1), (3000, 300, 0.1), (1500, 150, 1.5), (1200, 1200, 0.1)],
    ids=["some", "many", "unequal", "singletons"],
)
def test_loops_agree_on_scenes(n: int, instances: int, spread: float) -> None:
    """With the index as it is used, built when the loop is under way."""
    mean, log_std, score = scene(n, instances, spread=spread)
    with mock.patch.object(_index, "Grid", wraps=grid_module.Grid) as grid:
        label, seed = greedy_indexed(mean, log_std, score, None, 0.35, 0.0)
    assert grid.call_count == 1
    with in_rounds():  # smaller ones are quicker on a CPU
        expected_label, expected_seed = greedy_plain(*map(torch.tensor, (mean, log_std, score)), None, 0.35, 0.0)
    equal(torch.from_numpy(label), expected_label)
    equal(torch.from_numpy(seed), expected_seed)


def test_scan_and_index_alternate() -> None:
    """Boxes of few rows use the index, others scan: what one assigns, the other must not find again."""
    mean, log_std, score = scene(1200, 120, spread=1.0)
    answers = []

    class Grid(grid_module.Grid):
        def rows(self, *args: Any) -> Any:
            answers.append(super().rows(*args))
            return answers[-1]

    with index_at_once(MAX_GRID_ROWS=9), mock.patch.object(_index, "Grid", Grid):
        label, seed = greedy_indexed(mean, log_std, score, None, 0.35, 0.0)
    fallbacks = sum(a is None for a in answers)
    assert 50 < fallbacks < len(answers) - 50
    expected_label, expected_seed = greedy_plain(*map(torch.tensor, (mean, log_std, score)), None, 0.35, 0.0)
    equal(torch.from_numpy(label), expected_label)
    equal(torch.from_numpy(seed), expected_seed)


# --- rounds, the way of a GPU


@contextmanager
def in_rounds(**limits: int) -> Iterator[None]:
    """Cluster tensors on a CPU as those on a GPU."""
    with (
        mock.patch.object(greedy_module, "_cluster_clouds", greedy_rounds),
        mock.patch.multiple(_rounds, **{"PAIRS": 1 << 16, **limits}),
    ):
        yield


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"MAX_CANDIDATES": 1},  # a seed a round
        {"MAX_CANDIDATES": 4, "STEPS": 1},  # most rounds end before all candidates are decided
        {"PAIRS": 40},  # few candidates, and few points compared at a time
        {"PAIRS": 1},
    ],
    ids=str,
)
@settings(quick, max_examples=30)
@given(problem=problems())
def test_definition_in_rounds(limits: dict[str, int], problem: Problem) -> None:
    """All clouds of a batch, and all options."""
    expected = problem.expected()
    assume(expected.margin > MARGIN)
    with in_rounds(**limits):
        agree(problem.found(), expected)


@contextmanager
def counted_rounds() -> Iterator[mock.Mock]:
    settle = _rounds._Points._settle
    with mock.patch.object(_rounds._Points, "_settle", autospec=True, side_effect=settle) as rounds:
        yield rounds


@pytest.mark.parametrize("candidates", [1024, 300, 20, 1])
def test_rounds_are_few(candidates: int) -> None:
    """At most n / S, and at most one an instance; and a last one that finds none."""
    mean, log_std, score = scene(2000, 40, spread=0.1)
    expected, _ = greedy_indexed(mean, log_std, score, None, 0.35, 0.0)
    with mock.patch.object(_rounds, "MAX_CANDIDATES", candidates), counted_rounds() as rounds:
        label, seed = greedy_plain(*map(torch.tensor, (mean, log_std, score)), None, 0.35, 0.0)
    equal(label, expected)
    assert rounds.call_count <= min(math.ceil(2000 / candidates), len(seed)) + 1


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_chain(steps: int) -> None:
    """Each point is similar to the one before it only: every other is a seed, and each decision waits for the last."""
    n = 40
    mean = torch.arange(n, dtype=torch.float64)[None] * 2
    score = torch.linspace(1, 0.5, n, dtype=torch.float64)
    with mock.patch.object(_rounds, "STEPS", steps), counted_rounds() as rounds:
        label, seed = greedy_plain(mean, torch.zeros(1, n, dtype=torch.float64), score, None, 0.5, 0.0)
    equal(label, torch.arange(n) // 2)
    equal(seed, torch.arange(0, n, 2))
    assert 2 <= rounds.call_count <= n / steps + 2


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_members_wait_for_seeds_that_are_not_decided(steps: int) -> None:
    """Whether the third point is a seed takes two steps; the fourth is one at once, but the fifth is the third's."""
    mean = torch.tensor([[0.0, 2, 4, 8, 6]], dtype=torch.float64)
    score = torch.linspace(1, 0.5, 5, dtype=torch.float64)
    with mock.patch.object(_rounds, "STEPS", steps):
        label, seed = greedy_plain(mean, torch.zeros(1, 5, dtype=torch.float64), score, None, 0.5, 0.0)
    equal(label, [0, 0, 1, 2, 1])
    equal(seed, [0, 2, 3])


def test_ragged_clouds_in_rounds() -> None:
    """Clouds of 0 to 700 points, in no order, with classes; the numbers of clouds are not consecutive."""
    rng = np.random.default_rng(0)
    cloud = rng.permutation(np.repeat([0, 3, 4, 10**12], [1, 700, 40, 300]))
    mean, log_std, _ = scene(cloud.size, 60, spread=0.5)
    x = GaussianEmbedding(torch.from_numpy(mean.T.copy()), torch.from_numpy(log_std.T.copy()))
    p = torch.from_numpy(rng.dirichlet(np.ones(5), cloud.size).round(1))  # many ties
    options = {"batch": torch.from_numpy(cloud), "class_aware": True, "min_score": 0.4, "min_points": 2}
    expected = greedy_cluster(x, p, **options)
    assert len(expected) > 50
    with in_rounds():
        found = greedy_cluster(x, p, **options)
    for name in ("label", "semantic", "score", "seed", "batch"):
        equal(getattr(found, name), getattr(expected, name))


# --- decisions next to the threshold


@pytest.mark.parametrize("way", ["scan", "index", "rounds"])
@pytest.mark.parametrize(
    ("tau", "spread", "shift"),
    [(0.35, 0.1, 0.0), (0.35, 0.7, 100.0), (0.999, 0.01, 0.0), (1e-12, 2.0, 0.0), (1e-40, 5.0, 0.0), (0.5, 0.1, 1e6)],
)
@pytest.mark.parametrize("dim", [1, 3, 6])
def test_next_to_the_threshold(dim: int, tau: float, spread: float, shift: float, way: str) -> None:
    """Points in float32 whose κ with the seed is τ but for the rounding of their coordinates."""
    rng = np.random.default_rng(dim)
    log_std = (spread * rng.uniform(-1, 1, (3000, dim))).astype(np.float32)
    log_std[0] = 0
    d, variance = np.abs(log_std.astype(float)), np.exp(2 * log_std.astype(float)) + 1
    slack = -math.log(tau) - 0.5 * np.log(np.cosh(d)).sum(1)
    log_std[slack < 0] = 0
    direction = rng.normal(size=(3000, dim))
    distance = np.sqrt(4 * np.maximum(slack, 0) / np.square(direction / np.sqrt(variance)).sum(1))[:, None]
    mean = (shift + direction * distance).astype(np.float32)
    mean[0] = shift
    score = np.where(np.arange(3000) == 0, 0.9, 0.1).astype(np.float32)

    log_k = log_kappa(mean.astype(float), log_std.astype(float), 0)
    clear = np.abs(log_k - math.log(tau)) > 1e-12 * (1 - math.log(tau))
    clear[0] = True
    x = GaussianEmbedding(torch.from_numpy(mean[clear]), torch.from_numpy(log_std[clear]))
    p = torch.from_numpy(score[clear])[:, None]
    expected = np.where(log_k[clear] >= math.log(tau), 0, -1)
    assert clear.mean() > 0.9
    with {"scan": nullcontext, "index": index_at_once, "rounds": in_rounds}[way]():
        found = greedy_cluster(x, p, background=None, threshold=tau, min_score=0.5)
    equal(found.label, expected)
    if shift < 1e6:  # where the spacing of coordinates is large, few are near τ
        assert 100 < expected.sum() + len(expected) < len(expected) - 100
        in_float32 = log_bhattacharyya(x, x.select(torch.tensor([0])))[:, 0] >= math.log(tau)
        assert not torch.equal(in_float32, torch.from_numpy(expected == 0))  # so float64 must have decided


# --- κ exactly τ

WAYS: dict[str, Callable[[], Any]] = {"scan": nullcontext, "index": index_at_once, "rounds": in_rounds}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("delta", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("dim", [1, 3])
def test_kappa_is_tau(dim: int, delta: float, way: str) -> None:
    """With σ = 1, ln κ = −Δ²/8: κ = τ joins, whichever side of it τ is rounded to. A millionth below does not."""
    mean = torch.zeros(3, dim)
    mean[1:, -1] = torch.tensor([delta, -delta])
    x, p = GaussianEmbedding(mean, torch.zeros(3, 1)), torch.tensor([[0.9], [0.5], [0.5]])
    tau = math.exp(-(delta**2) / 8)
    for threshold in (tau, math.nextafter(tau, 1), math.nextafter(tau, 0)):
        for dtype in (torch.float32, torch.float64):
            with WAYS[way]():
                equal(greedy_cluster(x.to(dtype=dtype), p, background=None, threshold=threshold).label, [0, 0, 0])
    with WAYS[way]():
        found = greedy_cluster(x, p, background=None, threshold=tau * (1 + 1e-6))
    equal(found.label, [0, 1, 2])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tau", [1e-12, 0.05, 0.35, 0.9])
@pytest.mark.parametrize("dim", [1, 2, 3, 6])
def test_random_gaussians_with_kappa_tau(dim: int, tau: float, way: str) -> None:
    """All are members; three times as far below τ as the rule goes, none is."""
    step = 1e-13 * dim * (1 - math.log(tau))
    x, score = at_distance(dim, 2000, tau, 0.0)
    exact = log_kappa(x.mean.numpy(), x.log_std.numpy(), 0)
    assert (exact[1:] < math.log(tau)).mean() > 0.1  # rounding alone would part them
    with WAYS[way]():
        equal(greedy_cluster(x, score, background=None, threshold=tau, min_score=0.5).label, [0] * 2000)
    x, score = at_distance(dim, 2000, tau, -3 * step)
    with WAYS[way]():
        found = greedy_cluster(x, score, background=None, threshold=tau, min_score=0.5)
    equal(found.label, [0] + [-1] * 1999)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_pairs_with_tau_their_kappa(dtype: type) -> None:
    """τ is κ of two of the points, rounded: every way finds the labels of the definition."""
    rng = np.random.default_rng(1)
    for dim in (1, 2, 3, 6):
        for _ in range(100):
            mean, log_std = rng.normal(size=(2, 12, dim)).astype(dtype) * 0.7
            score = rng.random((12, 1)).astype(dtype)
            best = int(score.argmax())
            other = int(rng.integers(12))
            tau = min(1.0, math.exp(log_kappa(mean.astype(float), log_std.astype(float), best)[other]))
            problem = Problem(mean, log_std, score, None, {"threshold": tau, "background": None})
            expected = problem.expected()
            assert expected.margin > MARGIN
            assert expected.label[other] == expected.label[best]
            for way in WAYS.values():
                with way():
                    agree(problem.found(), expected)


# --- large problems, and where an index cannot help


def hard(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean (D, n), log_std (D, n), score (n,) in float32."""
    rng = np.random.default_rng(0)
    n = 1500
    mean, log_std, score = rng.random((3, n)) * 4, rng.normal(size=(3, n)) * 0.1 - 2, rng.random(n)
    if name == "all equal":
        mean[:], log_std[:], score[:] = 1, 0, 0.5
    elif name == "one place":
        mean[:], log_std = 1, rng.uniform(-6.9, 6.9, (3, n))
    elif name == "sigma from 1e-3 to 1e3":
        log_std = rng.uniform(-6.9, 6.9, (3, n))
    elif name == "two sizes":
        log_std = rng.choice([-4.0, 1.0], (1, n), p=[0.8, 0.2]) + np.zeros((3, 1))
    elif name == "own instances":
        log_std[:] = -7
    elif name == "one instance":
        log_std[:] = 3
    elif name == "a point far away":
        mean[:, 1] = [1e9, -1e9, 1e9]
    elif name == "equal scores":
        score[:] = score[0]
    elif name == "nearly equal sigma":
        mean[:], log_std = 1, 1 + np.array([[0], [1e-4], [0]]) * rng.random((3, n))
    return mean.astype(np.float32), log_std.astype(np.float32), score.astype(np.float32)


HARD = {
    "all equal": 1.0,
    "one place": 0.35,
    "sigma from 1e-3 to 1e3": 0.35,
    "two sizes": 0.35,
    "own instances": 0.35,
    "one instance": 0.35,
    "a point far away": 0.35,
    "equal scores": 0.35,
    "nearly equal sigma": 1 - 1e-11,
}


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("name", HARD)
def test_hard_problems(name: str, at_once: bool) -> None:
    mean, log_std, score = hard(name)
    with index_at_once() if at_once else nullcontext():
        label, seed = greedy_indexed(mean, log_std, score, None, HARD[name], 0.0)
    with in_rounds():  # smaller ones are quicker on a CPU
        expected_label, expected_seed = greedy_plain(*map(torch.tensor, (mean, log_std, score)), None, HARD[name], 0.0)
    equal(torch.from_numpy(label), expected_label)
    equal(torch.from_numpy(seed), expected_seed)
    assert (len(seed) == 1) == (name in ("all equal", "one instance"))


@contextmanager
def counted_comparisons() -> Iterator[list[int]]:
    similar, sizes = _index._Left._similar, []

    def count(self: _index._Left, near: np.ndarray, *args: Any) -> np.ndarray:
        sizes.append(near.size)
        return similar(self, near, *args)

    with mock.patch.object(_index._Left, "_similar", count):
        yield sizes


def test_comparisons_grow_like_the_points() -> None:
    """At a fixed density a seed looks at its neighbourhood only, however many points and instances there are."""
    a_point = []
    for instances in (60, 240, 960):
        n = 20 * instances
        with counted_comparisons() as sizes:
            greedy_indexed(*scene(n, instances, spread=0.1), None, 0.35, 0.0)
        a_point.append(sum(sizes) / n)
    assert max(a_point) < 8
    assert a_point[2] < 1.3 * a_point[1]


@pytest.mark.parametrize(("name", "most"), [("one place", 0.35), ("a point far away", 0.02)])
def test_the_grid_finds_what_tells_points_apart(name: str, most: float) -> None:
    """σ where all lie in one place; and a single point does not make its cells useless."""
    mean, log_std, score = hard(name)
    with index_at_once(), counted_comparisons() as sizes:
        _, seed = greedy_indexed(mean, log_std, score, None, 0.35, 0.0)
    assert sum(sizes) < most * score.size * len(seed)


def test_many_small_clouds() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.integers(0, 500, 2000)
    x = GaussianEmbedding(torch.from_numpy(rng.random((2000, 2))), torch.full((2000, 1), -1.5, dtype=torch.float64))
    score = torch.from_numpy(rng.random((2000, 1)))
    found = greedy_cluster(x, score, batch=torch.from_numpy(cloud), background=None)
    with in_rounds():
        other = greedy_cluster(x, score, batch=torch.from_numpy(cloud), background=None)
    equal(found.label, other.label)
    alone = greedy_cluster(x.select(torch.from_numpy(cloud == 7)), score[cloud == 7], background=None)
    equal(found.split()[7].label, alone.label)
    assert bool((found.batch.diff() >= 0).all())


# --- the parts of the index


@quick
@given(
    st.floats(-300, 300), st.floats(0, 600), st.floats(-700, 0), st.floats(1e-50, 1) | st.sampled_from([1e-6, 0.35, 1])
)
def test_reach_holds_every_member(log_seed: float, log_ratio_max: float, below: float, tau: float) -> None:
    """The farthest Δ with κ ≥ τ, of any σ up to the largest, is within reach."""
    log_max = min(log_seed + log_ratio_max, 300.0)
    log_std = max(log_max + below, -300.0)
    d = abs(log_std - log_seed)
    half_log_cosh = 0.5 * (
        math.log1p(2 * math.sinh(d / 2) ** 2) if d < 1 else d - math.log(2) + math.log1p(math.exp(-2 * d))
    )
    slack = -math.log(tau) - half_log_cosh
    assume(slack >= 0)
    farthest = 2 * math.hypot(math.exp(log_std), math.exp(log_seed)) * math.sqrt(slack)
    reach = _index._Reach(math.log(tau))(np.exp([log_seed]), np.exp([log_max]))
    # Of float64: σ² at ln σ = 300 is known to 1e-13; slack, a difference, to 1e-13 of the larger number.
    assert farthest <= reach[0] * (1 + 1e-12) + 2 * math.exp(max(log_std, log_seed)) * math.sqrt(1e-13)


@pytest.mark.parametrize("tau", [1e-6, 0.05, 0.35, 0.8, 0.999])
@pytest.mark.parametrize("log_ratio", [0.0, 0.1, 1.0, 2.0, 50.0])
def test_reach_is_tight(tau: float, log_ratio: float) -> None:
    d = np.linspace(min(-1.0, log_ratio), log_ratio, 200_001) if log_ratio < 2 else np.linspace(-1, 60, 200_001)
    d = d[d <= log_ratio]
    slack = -math.log(tau) - 0.5 * np.log(np.cosh(d))
    farthest = np.sqrt(np.max(4 * (1 + np.exp(2 * d)) * np.maximum(slack, 0)))
    reach = _index._Reach(math.log(tau))(np.ones(1), np.exp([log_ratio]))[0]
    assert farthest <= reach <= 1.15 * farthest


@quick
@given(problems(max_points=20), st.integers(1, 3), st.sampled_from([1, 3, 64, 1024]), st.floats(0, 3))
def test_rows_hold_the_box(problem: Problem, axes: int, cells: int, log_reach: float) -> None:
    """Every point of a box, its border included, is in the rows of cells."""
    mean = problem.mean.T.astype(np.float64)
    extent = np.ptp(mean, axis=1)
    with mock.patch.multiple(grid_module, MAX_GRID_AXES=axes, MAX_CELLS_PER_AXIS=cells, MAX_GRID_ROWS=1 << 40):
        grid = grid_module.Grid(mean, extent * 10**-log_reach)
        assert sorted(grid.order) == list(range(mean.shape[1]))
        for i in range(mean.shape[1]):
            for reach in (extent / 7, np.abs(mean[:, i] - mean[:, 0]), np.zeros(len(mean)), extent * 1e30):
                rows = grid.rows(mean[:, i], reach)
                assert rows is not None
                near = grid.order[grid_module.ranges(*rows)]
                center = mean[:, [i]]
                inside = ((mean >= center - reach[:, None]) & (mean <= center + reach[:, None])).all(0)
                assert set(np.flatnonzero(inside)) <= set(near.tolist())
                assert len(set(near.tolist())) == near.size


def test_rows_leave_points_out() -> None:
    """An index that proposes everything would pass the test above."""
    mean, _, _ = scene(5000, 500)
    grid = grid_module.Grid(mean, np.full(3, 0.3))
    rows = grid.rows(mean[:, 0], np.full(3, 0.3))
    assert rows is not None
    near = grid_module.ranges(*rows)
    inside = (np.abs(mean - mean[:, [0]]) <= 0.3).all(0)
    assert inside.sum() <= near.size <= 8 * inside.sum() + 20


def test_largest_grid() -> None:
    """More than 2¹⁶ cells: keys are sorted in two passes, the largest near 2³⁰."""
    rng = np.random.default_rng(0)
    mean = rng.random((3, 4000))
    grid = grid_module.Grid(mean, np.full(3, 1e-6))
    assert grid.count.tolist() == [1024, 1024, 1024]
    assert np.all(np.diff(grid.key) >= 0)
    cell = np.minimum((mean - mean.min(1)[:, None]) / np.ptp(mean, axis=1)[:, None] * 1024, 1023).astype(np.int64)
    np.testing.assert_allclose(
        grid.key,
        (cell[0, grid.order] * 1024 + cell[1, grid.order]) * 1024 + cell[2, grid.order],
        rtol=0,
        atol=(1 << 20) + (1 << 10) + 1,
    )  # float rounding may move a point by a cell


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])
def test_the_grid_is_the_same_in_every_unit(unit: float) -> None:
    """With a point so far away that it does not count for the cells."""
    mean = np.random.default_rng(0).random((2, 1000))
    mean[:, 7] = 1e3
    one, other = grid_module.Grid(mean, np.full(2, 0.05)), grid_module.Grid(unit * mean, np.full(2, unit * 0.05))
    assert (one.count > 10).all()
    np.testing.assert_array_equal(other.count, one.count)
    np.testing.assert_array_equal(other.order, one.order)


def test_coordinates_of_the_grid_are_not_rounded() -> None:
    """μ and ln σ as they came. Near τ = 1, what a logarithm of σ in float32 loses is as large as a cell."""
    rng = np.random.default_rng(0)
    mean, log_std = rng.random((2, 2, 50)).astype(np.float32)
    with index_at_once(), mock.patch.object(_index, "Grid", wraps=grid_module.Grid) as grid:
        greedy_indexed(mean, log_std, rng.random(50), None, 0.35, 0.0)
    np.testing.assert_array_equal(grid.call_args.args[0], np.concatenate([mean, log_std]))


@pytest.mark.parametrize("count", [1, 2, 10, 60, 99, 100, 101])
def test_best(count: int) -> None:
    """Equal scores by row, and no more of them than asked for."""
    rng = np.random.default_rng(count)
    score = rng.integers(0, 4, 200) / 4
    rows = np.sort(rng.choice(200, 100, replace=False))
    np.testing.assert_array_equal(
        _index._best(score, rows, count), rows[np.argsort(-score[rows], kind="stable")][:count]
    )


# --- properties


def blobs(n: int = 200, *, dtype: torch.dtype = torch.float32) -> tuple[GaussianEmbedding, Tensor]:
    """Eight blobs, all scores distinct."""
    g = torch.Generator().manual_seed(n)
    center = torch.randn(8, 3, generator=g) * 4
    mean = center[torch.arange(n) % 8] + 0.3 * torch.randn(n, 3, generator=g)
    score = (torch.randperm(n, generator=g) + 1) / (n + 1)
    other = torch.rand(n, 2, generator=g) * 0.5
    embedding = GaussianEmbedding(mean.to(dtype), (0.2 * torch.randn(n, 3, generator=g) - 0.7).to(dtype))
    return embedding, torch.cat([other * score[:, None], score[:, None]], 1).to(dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_order_of_points_does_not_matter(device: str) -> None:
    x, p = blobs()
    x, p = x.to(device), p.to(device)
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(1)).to(device)
    one, other = greedy_cluster(x, p), greedy_cluster(x.select(order), p[order])
    equal(other.label, one.label[order].cpu())
    equal(order[other.seed], one.seed.cpu())
    equal(other.score, one.score.cpu())


@pytest.mark.parametrize("device", DEVICES)
def test_batch_is_one_call_for_each_cloud(device: str) -> None:
    x, p = blobs(240)
    x, p = x.to(device), p.to(device)
    batch = torch.randint(0, 3, (240,), generator=torch.Generator().manual_seed(2)).to(device) * 2  # 1, 3 are empty
    clouds = greedy_cluster(x, p, batch=batch, min_points=3).split(6)
    assert len(clouds) == 6
    for b, cloud in enumerate(clouds):
        alone = greedy_cluster(x.select(batch == b), p[batch == b], min_points=3)
        for name in ("label", "semantic", "score", "seed", "batch", "point_batch"):
            equal(getattr(cloud, name), getattr(alone, name).cpu())
        equal(cloud.embedding.mean, alone.embedding.mean.cpu())
        equal(cloud.embedding.log_std, alone.embedding.log_std.cpu())
    assert [len(c) > 0 for c in clouds] == [True, False, True, False, True, False]


def test_scale_of_space_does_not_matter() -> None:
    x, p = blobs()
    scaled = GaussianEmbedding(x.mean.double() * 1e-20, x.log_std.double() + math.log(1e-20))
    equal(greedy_cluster(scaled, p).label, greedy_cluster(x, p).label)


def test_members_are_similar_to_their_seed_and_seeds_to_no_earlier_one() -> None:
    x, p = blobs()
    found = greedy_cluster(x, p, background=None, threshold=0.5)
    kappa = log_bhattacharyya(x, found.embedding).exp()
    assert kappa[torch.arange(len(p)), found.label].min() >= 0.5 - 1e-6
    assert kappa[found.seed].tril(-1).max() < 0.5 + 1e-6
    assert bool((found.score.diff() <= 0).all())


def test_equal_gaussians_join_at_threshold_one() -> None:
    """κ of equal Gaussians is 1 to the last digit, in both loops, whatever σ is."""
    g = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(300, 3, generator=g).double(), (torch.randn(300, 3, generator=g) * 5).double()
    twice = GaussianEmbedding(mean.repeat(2, 1), log_std.repeat(2, 1))
    expected = torch.arange(300).repeat(2)
    score = torch.linspace(1, 0.1, 600).double()
    equal(greedy_cluster(twice, score[:, None], threshold=1.0, background=None).label, expected)
    label, _ = greedy_plain(twice.mean.T, twice.log_std.T, score, None, 1.0, 0.0)
    equal(label, expected)


def test_min_score_is_compared_in_the_dtype_of_the_scores() -> None:
    """0.7 as float32 is less than 0.7 as float64, and yet it reaches min_score = 0.7."""
    x = GaussianEmbedding(torch.tensor([[0.0], [9.0]]), torch.zeros(2, 1))
    score = torch.tensor([0.7, 0.6999999])
    equal(greedy_cluster(x, score[:, None], min_score=0.7, background=None).label, [0, -1])
    label, _ = greedy_plain(x.mean.T.double(), x.log_std.T.double(), score, None, 0.35, 0.7)
    equal(label, [0, -1])


def test_ties() -> None:
    """Of equal scores the lowest point is the seed, of equal classes the lowest; ties with column 0 are background."""
    x = GaussianEmbedding(torch.tensor([[0.0], [0.1], [9.0], [20.0]]), torch.zeros(4, 1))
    p = torch.tensor([[0.1, 0.4, 0.4], [0.1, 0.2, 0.4], [0.3, 0.2, 0.4], [0.4, 0.4, 0.2]])
    found = greedy_cluster(x, p)
    equal(found.label, [0, 0, 1, -1])
    equal(found.seed, [0, 2])
    equal(found.semantic, [1, 2])
    found = greedy_cluster(x, p.flip(1), background=2)  # a tie with a later background column is foreground
    equal(found.label, [0, 0, 1, 2])
    equal(found.semantic, [0, 0, 1])


def test_options() -> None:
    x = GaussianEmbedding(torch.tensor([[0.0], [0.1], [0.2], [9.0]]), torch.zeros(4, 1))
    p = torch.tensor([[0.0, 0.9, 0.1], [0.0, 0.3, 0.7], [0.0, 0.6, 0.2], [0.0, 0.5, 0.0]])
    equal(greedy_cluster(x, p).label, [0, 0, 0, 1])
    equal(greedy_cluster(x, p, class_aware=True).label, [0, 1, 0, 2])
    equal(greedy_cluster(x, p, class_aware=True, min_points=2).label, [0, -1, 0, -1])
    equal(greedy_cluster(x, p, class_aware=True, min_score=0.6).label, [0, 1, 0, -1])
    equal(greedy_cluster(x, p, min_points=5).label, [-1, -1, -1, -1])
    assert len(greedy_cluster(x, p, min_score=1.0)) == 0
    # min_score bounds seeds, not members.
    equal(greedy_cluster(x, p, min_score=0.8).label, [0, 0, 0, -1])


# --- tensors


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_devices(dtype: torch.dtype, device: str) -> None:
    x, p = blobs(dtype=dtype)
    found = greedy_cluster(x.to(device), p.to(device))
    wide = torch.promote_types(dtype, torch.float32)
    expected = greedy_cluster(x.to(dtype=wide), p.to(wide))
    equal(found.label, expected.label)
    equal(found.score, expected.score)  # of dtype `wide`
    assert found.embedding.mean.dtype == found.embedding.log_std.dtype == dtype
    for t in (found.label, found.semantic, found.seed, found.batch, found.point_batch):
        assert t.dtype == torch.int64
        assert t.device.type == device
    assert found.score.device.type == found.embedding.mean.device.type == device
    assert found.masks().device.type == device


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32])
def test_batch_of_narrow_integers(dtype: torch.dtype) -> None:
    x, p = blobs()
    batch = torch.arange(200) % 3
    expected = greedy_cluster(x, p, batch=batch)
    found = greedy_cluster(x, p, batch=batch.to(dtype))
    equal(found.label, expected.label)
    equal(found.point_batch, batch)


def test_cloud_numbers_may_be_large() -> None:
    x, p = blobs(20)
    batch = torch.where(torch.arange(20) < 10, 3, 10**15)
    found = greedy_cluster(x, p, batch=batch)
    equal(found.label, greedy_cluster(x, p, batch=(batch > 3).long()).label)
    equal(found.batch.unique(), [3, 10**15])


def test_non_contiguous_and_unchanged_inputs() -> None:
    x, p = blobs()
    expected = greedy_cluster(x, p)
    wide = torch.stack([x.mean, x.log_std], dim=2)
    strided = GaussianEmbedding(wide[..., 0], wide[..., 1])
    p_strided = p.T.contiguous().T
    copies = [t.clone() for t in (wide, p_strided)]
    equal(greedy_cluster(strided, p_strided).label, expected.label)
    torch.testing.assert_close([wide, p_strided], copies, rtol=0, atol=0)


def test_inputs_with_gradients() -> None:
    x, p = blobs(dtype=torch.float64)
    x = GaussianEmbedding(x.mean.requires_grad_(), x.log_std[:, :1].contiguous().requires_grad_())
    found = greedy_cluster(x, p.requires_grad_(), background=None)
    for t in (found.label, found.score, *found.embedding, found.masks()):
        assert not t.requires_grad
    assert found.embedding.log_std.shape == (len(found), 1)  # as it came
    one = GaussianEmbedding(torch.randn(9, 1, dtype=torch.float64, requires_grad=True), torch.zeros(9, 1))
    assert len(greedy_cluster(one, torch.rand(9, 1, requires_grad=True), background=None)) >= 1


def test_isotropic_is_anisotropic_with_equal_columns() -> None:
    x, p = blobs()
    isotropic = GaussianEmbedding(x.mean, x.log_std[:, :1])
    equal(
        greedy_cluster(isotropic, p).label,
        greedy_cluster(GaussianEmbedding(x.mean, x.log_std[:, :1].repeat(1, 3)), p).label,
    )


@pytest.mark.parametrize("batch", [None, torch.zeros(0, dtype=torch.int64)], ids=["no batch", "batch"])
@pytest.mark.parametrize("background", [None, 0])
def test_no_points(batch: Tensor | None, background: int | None) -> None:
    found = greedy_cluster(
        GaussianEmbedding(torch.zeros(0, 3), torch.zeros(0, 1)),
        torch.zeros(0, 4),
        batch=batch,
        background=background,
        min_points=2,
        class_aware=True,
    )
    assert len(found) == 0
    assert found.masks().shape == (0, 0)
    assert found.label.shape == found.point_batch.shape == (0,)
    assert found.embedding.mean.shape == (0, 3)
    assert found.split() == []
    assert [len(c) for c in found.split(2)] == [0, 0]
    label, seed = greedy_plain(torch.zeros(3, 0), torch.zeros(3, 0), torch.zeros(0), None, 0.35, 0.0)
    assert label.shape == seed.shape == (0,)


def test_one_point_and_only_background() -> None:
    x = GaussianEmbedding(torch.zeros(1, 3), torch.zeros(1, 3))
    equal(greedy_cluster(x, torch.tensor([[0.2, 0.8]])).label, [0])
    found = greedy_cluster(x, torch.tensor([[0.8, 0.2]]))
    equal(found.label, [-1])
    assert found.masks().shape == (0, 1)
    assert [len(c) for c in found.split()] == [0]


# --- Instances


def test_masks() -> None:
    x, p = blobs()
    found = greedy_cluster(x, p, min_points=10)
    masks = found.masks()
    assert masks.shape == (len(found), 200)
    for k in range(len(found)):
        equal(masks[k], found.label == k)
    assert masks.sum() == (found.label >= 0).sum() > 0


def test_split_of_an_unsorted_batch() -> None:
    """Labels, seeds and points count from 0 within each cloud; cloud 1 is empty, cloud 3 has nothing to cluster."""
    x = GaussianEmbedding(torch.tensor([[0.0], [5.0], [0.1], [9.0], [5.1], [0.0]]), torch.zeros(6, 1))
    p = torch.tensor([[0, 0.5], [0, 0.6], [0, 0.9], [0, 0.95], [0, 0.7], [0.9, 0.1]])
    found = greedy_cluster(x, p, batch=torch.tensor([2, 0, 2, 2, 0, 3]))
    equal(found.label, [2, 0, 2, 1, 0, -1])
    equal(found.seed, [4, 3, 2])
    equal(found.batch, [0, 2, 2])
    zero, one, two, three = found.split()
    equal(zero.label, [0, 0])
    equal(zero.seed, [1])
    assert len(one) == one.label.numel() == 0
    equal(two.label, [1, 1, 0])
    equal(two.seed, [2, 1])
    equal(two.batch, [0, 0])
    equal(two.score, torch.tensor([0.95, 0.9]))
    equal(two.embedding.mean, torch.tensor([[9.0], [0.1]]))
    equal(two.point_batch, [0, 0, 0])
    equal(three.label, [-1])
    assert len(found.split(6)) == 6
    with pytest.raises(ValueError, match="num_clouds >= 4, as many as the batch has, got 3"):
        found.split(3)


# --- errors

X = GaussianEmbedding(torch.zeros(3, 2), torch.zeros(3, 2))
P = torch.full((3, 2), 0.5)
NAN, INF = float("nan"), float("inf")


def with_value(t: Tensor, value: float) -> Tensor:
    return t.index_put((torch.tensor(1), torch.tensor(0)), torch.tensor(value, dtype=t.dtype))


@pytest.mark.parametrize(
    ("error", "message", "arguments", "options"),
    [
        (ValueError, r"threshold in \(0, 1\].* got 0", (X, P), {"threshold": 0}),
        (ValueError, r"threshold in \(0, 1\].* got 1.5", (X, P), {"threshold": 1.5}),
        (ValueError, r"at least 1e-50, got 1e-60", (X, P), {"threshold": 1e-60}),
        (ValueError, "threshold.* got nan", (X, P), {"threshold": NAN}),
        (ValueError, "min_score, got NaN", (X, P), {"min_score": NAN}),
        (ValueError, "min_points >= 1, got 0", (X, P), {"min_points": 0}),
        (ValueError, r"\(3, L\) with L >= 1, got \(3,\)", (X, P[:, 0]), {}),
        (ValueError, r"\(3, L\) with L >= 1, got \(2, 2\)", (X, P[:2]), {}),
        (ValueError, r"\(3, L\) with L >= 1, got \(3, 0\)", (X, P[:, :0]), {"background": None}),
        (TypeError, "floating-point probabilities, got torch.int64", (X, P.long()), {}),
        (TypeError, "probabilities on cpu, got meta", (X, P.to("meta")), {}),
        (ValueError, r"background in \[0, 2\) or None, got 2", (X, P), {"background": 2}),
        (ValueError, r"background in \[0, 2\) or None, got -1", (X, P), {"background": -1}),
        (ValueError, "got 1 column; pass background=None", (X, P[:, :1]), {}),
        (ValueError, r"batch \(3,\) on cpu, got \(2,\)", (X, P), {"batch": torch.zeros(2, dtype=torch.int64)}),
        (ValueError, r"batch \(3,\) on cpu, got \(3, 1\)", (X, P), {"batch": torch.zeros(3, 1, dtype=torch.int64)}),
        (ValueError, "on cpu, got .* on meta", (X, P), {"batch": torch.zeros(3, dtype=torch.int64, device="meta")}),
        (TypeError, "integers, got torch.float32", (X, P), {"batch": torch.zeros(3)}),
        (TypeError, "integers, got torch.bool", (X, P), {"batch": torch.zeros(3, dtype=torch.bool)}),
        (TypeError, "integers, got torch.complex64", (X, P), {"batch": torch.zeros(3, dtype=torch.complex64)}),
        (ValueError, "cloud numbers >= 0 in batch, got -1", (X, P), {"batch": torch.tensor([0, -1, 0])}),
        (ValueError, r"log_std of shape \(3, 2\) or \(3, 1\)", (GaussianEmbedding(X.mean, torch.zeros(3)), P), {}),
        (TypeError, "floating-point mean", (GaussianEmbedding(X.mean.long(), X.log_std), P), {}),
        (TypeError, r"got a tensor \(3, 2\); of a head's output pass output.embedding", (X.mean, P), {}),
        (TypeError, "expected a GaussianEmbedding of mean and log_std, got HeadOutput", (HeadOutput(X, P), P), {}),
        (TypeError, "probabilities: expected a torch.Tensor, got ndarray: torch.from_numpy", (X, P.numpy()), {}),
        (TypeError, "batch: expected a torch.Tensor, got ndarray", (X, P), {"batch": np.zeros(3, dtype=np.int64)}),
    ],
)
def test_errors(error: type[Exception], message: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    with pytest.raises(error, match=message):
        greedy_cluster(*arguments, **options)


@pytest.mark.parametrize("background", [0, None])
@pytest.mark.parametrize("cluster", [greedy_cluster, margin_cluster])
def test_logits_are_refused(cluster: Any, background: int | None) -> None:
    logits = torch.tensor([[-3.2, 7.1], [0.0, 1.0], [0.5, 0.5]])
    message = r"probabilities in \[0, 1\], got values from -3.2 to 7.1: pass output.probabilities \(the softmax"
    with pytest.raises(ValueError, match=message):
        cluster(X, logits, background=background)
    found = greedy_cluster(X, P, background=background)
    with pytest.raises(ValueError, match=message):
        refine_instances(X, logits, found, background=background)
    cluster(X, torch.tensor([[0.0, 1.0 + 1e-4], [0.9, 0.9], [-1e-4, 0.1]]))  # rounding, and rows that do not sum to one


class Carrying(Tensor):
    """A host's class, as MONAI's MetaTensor, whose results are of it again."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("refine", [False, True])
def test_tensor_subclasses_are_unwrapped(refine: bool) -> None:
    x, p = blobs(240)
    batch = torch.arange(240) % 2
    expected = greedy_cluster(x, p, batch=batch, refine=refine)
    carrying = GaussianEmbedding(*(t.as_subclass(Carrying) for t in x))
    found = greedy_cluster(carrying, p.as_subclass(Carrying), batch=batch.as_subclass(Carrying), refine=refine)
    for name in ("label", "semantic", "score", "seed", "batch", "point_batch"):
        assert type(getattr(found, name)) is Tensor
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)
    assert [type(t) for t in found.embedding] == [Tensor, Tensor]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["mean", "log_std", "probabilities"])
def test_infinities_and_nan(name: str, value: float) -> None:
    tensors = {"mean": X.mean, "log_std": X.log_std, "probabilities": P}
    tensors[name] = with_value(tensors[name], value)
    with pytest.raises(ValueError, match=rf"expected finite {name}.*, got \[{value}, .*\] at point 1"):
        greedy_cluster(GaussianEmbedding(tensors["mean"], tensors["log_std"]), tensors["probabilities"])


@pytest.mark.parametrize(
    ("name", "value", "limit"), [("log_std", -301, "300"), ("log_std", 301, "300"), ("mean", -1e200, "1e")]
)
def test_numbers_whose_squares_are_infinite(name: str, value: float, limit: str) -> None:
    x = X.to(dtype=torch.float64)
    x = x._replace(**{name: with_value(getattr(x, name), value)})
    with pytest.raises(ValueError, match=rf"expected finite {name} within ±{limit}.* at point 1"):
        greedy_cluster(x, P)


@pytest.mark.parametrize("loop", ["indexed", "plain"])
def test_numbers_at_the_limits(loop: str) -> None:
    """Nothing overflows: no warning, and the definition's labels."""
    mean = np.array([[0, 1e150, -1e150, 0, 1e130, 0]]).T
    log_std = np.array([[300.0, 300, 300, -300, 300, -299.5]]).T
    score = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]]).T
    for tau in (1e-50, 0.35, 1.0):
        expected = greedy(mean, log_std, score, threshold=tau, background=None)
        with np.errstate(all="raise", under="ignore"), index_at_once():
            if loop == "indexed":
                label, _ = map(torch.from_numpy, greedy_indexed(mean.T, log_std.T, score[:, 0], None, tau, 0.0))
            else:
                label, _ = greedy_plain(*map(torch.tensor, (mean.T, log_std.T, score[:, 0])), None, tau, 0.0)
        equal(label, expected.label)
