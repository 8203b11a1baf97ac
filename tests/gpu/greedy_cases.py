"""The Triton twin of the greedy clustering, against its definition: loops in float64, label for label.

On a machine with a GPU these run there (`make gpu`), elsewhere in Triton's interpreter, in a process of their own that
tests/core/test_triton_greedy.py starts, since Triton reads TRITON_INTERPRET when it is imported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from cluster_cases import MARGIN, Problem, agree, at_distance, equal, problems
from cluster_oracle import greedy, log_kappa
from hypothesis import assume, given, settings
from torch.utils._python_dispatch import TorchDispatchMode

from probemb_lib import GaussianEmbedding, Instances, greedy_cluster
from probemb_lib._triton import greedy as launches
from probemb_lib.clustering import _rounds
from probemb_lib.clustering import greedy as greedy_module

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = ("table_kernel", "settle_kernel", "assign_kernel")


@pytest.fixture(autouse=True, scope="module")
def twin() -> Iterator[None]:
    """In the interpreter, let tensors on a CPU go the way of a GPU and its kernels."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setattr(greedy_module, "_cluster_clouds", _rounds.greedy_rounds)
            patch.setattr(_rounds, "_has_twin", lambda mean: True)
        yield


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Launches of each kernel."""
    count: Counter[str] = Counter()

    class Launcher:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(launches, name)

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            count[self.name] += 1
            launch: Callable[..., None] = self.kernel[grid]
            return launch

    for name in KERNELS:
        monkeypatch.setattr(launches, name, Launcher(name))
    return count


def sized(patch: pytest.MonkeyPatch, candidates: int, block: int = 16, chunk: int = 4) -> None:
    """Sizes under which few points take several rounds, programs and chunks; of few kinds, as each is compiled."""
    for name, value in (("CANDIDATES", candidates), ("BLOCK", block), ("CHUNK", chunk)):
        patch.setattr(launches, name, value)


def found(problem: Problem) -> Instances:
    embedding = GaussianEmbedding(torch.tensor(problem.mean), torch.tensor(problem.log_std)).to(DEVICE)
    batch = None if problem.batch is None else torch.tensor(problem.batch, device=DEVICE)
    return greedy_cluster(embedding, torch.tensor(problem.probabilities, device=DEVICE), batch=batch, **problem.options)


def random_problem(seed: int, n: int, dim: int, dtype: type = np.float32, **options: Any) -> Problem:
    """Points of which some are similar, in clouds of very different size and in no order, with equal scores."""
    rng = np.random.default_rng(seed)
    batch = rng.choice([0, 3, 4, 10**12], n, p=[0.7, 0.2, 0.05, 0.05])
    mean, log_std = rng.normal(size=(2, n, dim)) * np.array([[[2.0]], [[0.3]]]) / math.sqrt(dim)
    return Problem(mean.astype(dtype), log_std.astype(dtype), rng.dirichlet(np.ones(4), n).round(1), batch, options)


# --- the definition


@pytest.mark.parametrize("candidates", [4, 128])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=problems(max_points=24))
def test_definition(candidates: int, problem: Problem) -> None:
    """All options, geometries and dtypes; with few candidates the others are assigned, round after round."""
    expected = problem.expected()
    assume(expected.margin > MARGIN)
    with pytest.MonkeyPatch.context() as patch:
        sized(patch, candidates)
        agree(found(problem), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", range(1, 9))
def test_dimensions(dim: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, 4)
    problem = random_problem(dim, 50, dim, dtype, min_points=1 + dim % 2)
    expected = problem.expected()
    assert expected.margin > MARGIN
    agree(found(problem), expected)


@pytest.mark.parametrize("class_aware", [False, True])
@pytest.mark.parametrize("min_score", [-math.inf, 0.6, 2.0])
@pytest.mark.parametrize("background", [None, 0, 3])
def test_options(class_aware: bool, min_score: float, background: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, 4)
    problem = random_problem(0, 60, 2, class_aware=class_aware, min_score=min_score, background=background)
    agree(found(problem), problem.expected())


def test_strides_and_isotropic(monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, 4)
    problem = random_problem(5, 40, 3)
    one_std = problem._replace(log_std=problem.log_std[:, :1])
    agree(found(one_std), one_std.expected())
    wide = torch.tensor(np.stack([problem.mean, problem.log_std], axis=2), device=DEVICE)
    batch = torch.tensor(problem.batch, device=DEVICE)
    x = GaussianEmbedding(wide[..., 0], wide[..., 1])
    agree(greedy_cluster(x, torch.tensor(problem.probabilities, device=DEVICE), batch=batch), problem.expected())


def test_few_points() -> None:
    """None, one, and only background."""
    x = GaussianEmbedding(torch.zeros(1, 3, device=DEVICE), torch.zeros(1, 3, device=DEVICE))
    nothing = torch.zeros(0, dtype=torch.int64, device=DEVICE)
    none = greedy_cluster(x.select(nothing), torch.zeros(0, 2, device=DEVICE), batch=nothing, class_aware=True)
    assert len(none) == none.label.numel() == 0
    equal(greedy_cluster(x, torch.tensor([[0.2, 0.8]], device=DEVICE)).label, [0])
    equal(greedy_cluster(x, torch.tensor([[0.8, 0.2]], device=DEVICE)).label, [-1])


# --- decisions of float64


@pytest.mark.parametrize("candidates", [4, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [1e-45, 1e-12, 0.35, 0.9])
@pytest.mark.parametrize("dim", [1, 3, 6])
def test_kappa_near_tau(
    dim: int, tau: float, dtype: torch.dtype, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """κ of all points with the seed is τ: in float64 they are members, in float32 by what rounding made of them."""
    monkeypatch.setattr(launches, "CANDIDATES", candidates)
    x, score = at_distance(dim, 1000, tau, 0.0)
    x, score = x.to(dtype=dtype), score.to(dtype)
    if dtype == torch.float32:
        exact = log_kappa(x.mean.double().numpy(), x.log_std.double().numpy(), 0)
        step = 1e-13 * dim * (1 - math.log(tau))
        expected = np.where(exact >= math.log(tau) - step, 0, -1)
        assert np.abs(exact - math.log(tau) + step).min() > MARGIN * step
        assert 100 < (expected == 0).sum() < 900
    else:
        expected = np.zeros(1000)
    x, score = x.to(DEVICE), score.to(DEVICE)
    equal(greedy_cluster(x, score, background=None, threshold=tau, min_score=0.5).label, expected.astype(np.int64))


def test_kappa_below_tau(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "CANDIDATES", 128)
    x, score = at_distance(3, 1000, 0.35, -3e-13 * 3 * (1 - math.log(0.35)))
    label = greedy_cluster(x.to(DEVICE), score.to(DEVICE), background=None, threshold=0.35, min_score=0.5).label
    equal(label, [0] + [-1] * 999)


@pytest.mark.parametrize("delta", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("candidates", [4, 128])
def test_lattice(candidates: int, dtype: type, delta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours at exactly τ, the seed of a point one of several: it is the first."""
    sized(monkeypatch, candidates)
    rng = np.random.default_rng(2)
    for tau in (math.exp(-(delta**2) / 8), math.nextafter(math.exp(-(delta**2) / 8), 1)):
        mean = rng.integers(0, 5, (50, 2)).astype(dtype)
        probabilities = rng.random((50, 1)).astype(dtype)
        problem = Problem(mean, np.zeros((50, 2), dtype), probabilities, None, {"threshold": tau, "background": None})
        agree(found(problem), problem.expected())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tau", [1e-50, 0.35, 1.0])
def test_extreme_numbers(tau: float, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares that float32 lacks, and all that the checks of the input let through."""
    sized(monkeypatch, 4)
    far, wide = (1e150, 300.0) if dtype == np.float64 else (1e38, 300.0)
    mean = np.array([[0, far, -far, 0, far / 1e20, 0, 3, 1e17, 0, 0, 9e17, 1e-13, 2e-13, 1e-15]]).T.astype(dtype)
    log_std = np.array([[wide, wide, wide, -wide, wide, 0.5 - wide, 0, 29, 30, 31, 38, -29, -30, -31]]).T.astype(dtype)
    probabilities = np.linspace(0.9, 0.1, 14)[:, None].astype(dtype)
    problem = Problem(mean, log_std, probabilities, None, {"threshold": tau, "background": None})
    agree(found(problem), problem.expected())


def test_equal_gaussians_join_at_threshold_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, 4)
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        mean, log_std = np.tile(rng.normal(size=(2, 20, 3)) * [[[1.0]], [[5.0]]], (1, 2, 1)).astype(dtype)
        score = np.linspace(1, 0.1, 40)[:, None]
        problem = Problem(mean, log_std, score, None, {"threshold": 1.0, "background": None})
        equal(found(problem).label, [*range(20)] * 2)


# --- cost


class ReadBacks(TorchDispatchMode):
    """Operators whose result has a size that the host must ask for, and numbers that it reads one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, (first, *others) = func.overloadpacket.__name__, (*args, None)
        masked = name == "index" and any(t is not None and t.dtype == torch.bool for t in others[0])
        self.count += masked or name in ("nonzero", "_local_scalar_dense", "_unique2", "unique_consecutive")
        return func(first, *others[:-1], **(kwargs or {}))


@pytest.mark.parametrize(("candidates", "rounds"), [(256, 1), (128, 2)])
def test_launches_and_read_backs(
    candidates: int, rounds: int, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 seeds of two clouds: a round is at most two launches and one read-back."""
    monkeypatch.setattr(launches, "CANDIDATES", candidates)
    rng = np.random.default_rng(0)
    place, cloud = np.repeat(np.arange(200) * 10.0, 2), np.repeat([0, 1], 200)
    order = rng.permutation(400)
    x = GaussianEmbedding(torch.tensor(place[order, None]), torch.zeros(400, 1)).to(DEVICE, torch.float32)
    batch, score = torch.tensor(cloud[order], device=DEVICE), torch.rand(400, 1, device=DEVICE)
    x = GaussianEmbedding(x.mean + torch.rand(400, 1, device=DEVICE) * 0.1, x.log_std)
    with ReadBacks() as read_backs:
        result = greedy_cluster(x, score, batch=batch, background=None)
    assert len(result) == 200
    assert counted["table_kernel"] == 1
    assert 1 <= counted["settle_kernel"] <= rounds
    assert counted["assign_kernel"] <= counted["settle_kernel"]
    assert read_backs.count == counted["settle_kernel"] + 2  # parts; seeds. One more is the list of all numbers' ends


def test_definition_can_fail() -> None:
    """What the tests above compare is told apart."""
    problem = random_problem(1, 30, 2)
    other = greedy(problem.mean, problem.log_std, problem.probabilities, batch=problem.batch, threshold=0.9)
    with pytest.raises(AssertionError):
        agree(found(problem), other)
