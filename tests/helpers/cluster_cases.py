"""Problems of the greedy clustering, and what is compared of their results."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from cluster_oracle import Clusters, greedy
from hypothesis import strategies as st
from torch import Tensor

from probemb_lib import GaussianEmbedding, Instances, greedy_cluster

# No decision of a drawn problem is nearer to its limit than this share of the distance to κ = τ. Rounding takes 0.1.
MARGIN = 0.3


def equal(got: Tensor, expected: Any) -> None:
    """Same shape and values, exactly; integers are int64."""
    expected = torch.as_tensor(expected)
    expected = expected if expected.is_floating_point() or expected.dtype == torch.bool else expected.long()
    torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=0)


def agree(found: Instances, expected: Clusters) -> None:
    """All that the definition says of the result."""
    equal(found.label, expected.label)
    equal(found.seed, expected.seed)
    equal(found.semantic, expected.semantic)
    equal(found.score, expected.score)
    equal(found.batch, expected.batch)


class Problem(NamedTuple):
    """The arguments of greedy_cluster, in numpy."""

    mean: np.ndarray
    log_std: np.ndarray
    probabilities: np.ndarray
    batch: np.ndarray | None
    options: dict[str, Any]

    def expected(self) -> Clusters:
        return greedy(self.mean, self.log_std, self.probabilities, batch=self.batch, **self.options)

    def found(self) -> Instances:
        embedding = GaussianEmbedding(torch.tensor(self.mean), torch.tensor(self.log_std))
        batch = None if self.batch is None else torch.tensor(self.batch)
        return greedy_cluster(embedding, torch.tensor(self.probabilities), batch=batch, **self.options)


def lattice(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Many duplicates, and points on the borders of cells."""
    return rng.integers(0, 5, (n, dim)).astype(float)


def crowd(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Nearly all in one place, a few very far."""
    return rng.normal(size=(n, dim)) * np.where(rng.random((n, 1)) < 0.1, 1e4, 0.1)


# The unit of length of each geometry is about 1 times the second number.
GEOMETRIES: dict[str, tuple[Callable[[np.random.Generator, int, int], np.ndarray], float]] = {
    "cloud": (lambda rng, n, dim: rng.random((n, dim)) * 4, 1.0),
    "blobs": (
        lambda rng, n, dim: rng.normal(size=(6, dim))[rng.integers(0, 6, n)] * 4 + rng.normal(size=(n, dim)),
        1.0,
    ),
    "one place": (lambda rng, n, dim: np.ones((n, dim)), 1.0),
    "line": (lambda rng, n, dim: rng.random((n, 1)) * 20 * rng.normal(size=dim), 1.0),
    "axis": (lambda rng, n, dim: rng.random((n, 1)) * 20 * (np.arange(dim) == dim - 1), 1.0),
    "far away": (lambda rng, n, dim: 1e6 + rng.random((n, dim)) * 4, 1.0),
    "tiny": (lambda rng, n, dim: rng.random((n, dim)) * 4e-6, 1e-6),
    "enormous": (lambda rng, n, dim: rng.random((n, dim)) * 4e30, 1e30),
    "lattice": (lattice, 1.0),
    "crowd": (crowd, 1.0),
}
SIGMAS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "equal": lambda rng, n, dim: np.full((n, dim), -1.0),
    "isotropic": lambda rng, n, dim: rng.normal(size=(n, 1)) - 1,
    "similar": lambda rng, n, dim: rng.normal(size=(n, dim)) * 0.1 - 0.5,
    "lognormal": lambda rng, n, dim: rng.normal(size=(n, dim)) * 1.5 - 1,
    "wild": lambda rng, n, dim: rng.uniform(-12, 12, (n, dim)),
    "one huge": lambda rng, n, dim: np.where(np.arange(n)[:, None] == n // 2, 9.0, -3.0) + np.zeros(dim),
    "one tiny": lambda rng, n, dim: np.where(np.arange(n)[:, None] == n // 2, -9.0, 0.0) + np.zeros(dim),
    "needles": lambda rng, n, dim: rng.choice([-5.0, 5.0], (n, dim)),
    "two levels": lambda rng, n, dim: rng.choice([-0.5, 0.0], (n, dim)),
}
SCORES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "softmax": lambda rng, n, classes: rng.dirichlet(np.ones(classes), n),
    "ties": lambda rng, n, classes: rng.integers(0, 5, (n, classes)) / 4,
    "all equal": lambda rng, n, classes: np.full((n, classes), 0.5),
    "unnormalised": lambda rng, n, classes: 0.5 + np.arctan(rng.normal(size=(n, classes)) * 10) / math.pi,
}
TAUS = (1e-50, 1e-6, 0.05, 0.35, 0.35, 0.8, 0.999, 1.0)


@st.composite
def problems(draw: st.DrawFn, *, plain_options: bool = False, max_points: int = 40) -> Problem:
    """plain_options: one cloud, no background, no class-awareness, all instances kept."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    n, dim = draw(st.integers(1, max_points), label="n"), draw(st.sampled_from([1, 2, 3, 6]), label="dim")
    place, unit = GEOMETRIES[draw(st.sampled_from(sorted(GEOMETRIES)), label="geometry")]
    sigma = SIGMAS[draw(st.sampled_from(sorted(SIGMAS)), label="sigma")]
    scores = SCORES[draw(st.sampled_from(sorted(SCORES)), label="scores")]
    dtype = draw(st.sampled_from([np.float32, np.float64]), label="dtype")
    classes = draw(st.integers(1 if plain_options else 2, 4), label="classes")
    options = {
        "threshold": draw(st.sampled_from(TAUS), label="tau"),
        "min_score": draw(st.sampled_from([-math.inf, 0.0, 0.3, 0.5]), label="min_score"),
        "background": None,
    }
    batch = None
    if not plain_options:
        options["background"] = draw(st.sampled_from([None, *range(classes)]), label="background")
        options["class_aware"] = draw(st.booleans(), label="class_aware")
        options["min_points"] = draw(st.sampled_from([1, 2, 5]), label="min_points")
        clouds = draw(st.sampled_from([None, [0, 1], [2, 0, 7]]), label="clouds")
        batch = None if clouds is None else rng.choice(clouds, n)
    return Problem(
        place(rng, n, dim).astype(dtype),
        (sigma(rng, n, dim) + math.log(unit)).astype(dtype),
        scores(rng, n, classes).astype(dtype),
        batch,
        options,
    )


def at_distance(dim: int, n: int, tau: float, excess: float) -> tuple[GaussianEmbedding, Tensor]:
    """The first point is the seed; ln κ of the others with it is ln τ + excess but for rounding."""
    rng = np.random.default_rng(dim)
    log_std = rng.normal(size=(n, dim)) * 0.3
    shape = 0.5 * np.log(np.cosh(log_std - log_std[0])).sum(1)
    slack = -math.log(tau) - excess - shape
    log_std[slack < 0], shape[slack < 0] = log_std[0], 0
    slack = -math.log(tau) - excess - shape
    variance = np.exp(2 * log_std) + np.exp(2 * log_std[0])
    direction = rng.normal(size=(n, dim))
    mean = direction * np.sqrt(4 * slack / (direction**2 / variance).sum(1))[:, None]
    mean[0] = 0
    score = torch.full((n, 1), 0.1, dtype=torch.float64)
    score[0] = 0.9
    return GaussianEmbedding(torch.from_numpy(mean), torch.from_numpy(log_std)), score
