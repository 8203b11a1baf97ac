"""What sigma says about errors: the numbers against constructed cases, and the command."""

import csv
from pathlib import Path

import numpy as np
import pytest
import uncertainty as uncertainty
from example_runs import run
from paths import PROJECT


def points(log_std: np.ndarray, wrong: np.ndarray, part: np.ndarray, distance: np.ndarray) -> uncertainty.Points:
    n = len(part)
    return uncertainty.Points(part, log_std, -log_std, wrong, distance, np.linspace(0, 1, n), np.arange(n) % 2 == 0)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    log_std, wrong = rng.normal(size=40), rng.random(40) < 0.3
    one = points(log_std, wrong, np.zeros(40), np.ones(40))
    expected = np.mean([a > b for a in log_std[wrong] for b in log_std[~wrong]])
    assert uncertainty.auroc(one, slice(None)) == pytest.approx(expected)
    assert np.isnan(uncertainty.auroc(one, wrong))  # all of them wrong
    assert uncertainty.auroc_of_uncertainty(one, slice(None)) == pytest.approx(1 - expected)  # −σ in this test


def test_parts_apart_from_their_size() -> None:
    """A large part with large σ that is found, and a small one that is not: over the shape σ seems to be small where
    points are wrong, within the parts it tells right from wrong."""
    part = np.repeat([0, 1], [60, 40])
    wrong = np.r_[np.arange(60) < 6, np.arange(40) < 36]
    log_std = np.where(part == 0, 5.0, -5.0) + 0.5 * wrong
    shapes = [points(log_std, wrong, part, np.ones(100))]
    assert uncertainty.of_shapes(shapes, uncertainty.auroc)[0] < 0.3
    assert uncertainty.within_parts(shapes, uncertainty.auroc)[0] == 1.0


def test_borders() -> None:
    x = np.arange(40.0)
    positions, part = np.stack([x, 0 * x], 1), (x >= 20).astype(int)
    distance = uncertainty.distance_to_other_parts(positions, part)
    np.testing.assert_allclose(distance, np.abs(x - 19.5) + 0.5)
    larger_at_borders = points(-distance, x < 0, part, distance)
    assert uncertainty.border_correlation(larger_at_borders, slice(None)) == pytest.approx(-1)
    assert np.isnan(uncertainty.distance_to_other_parts(positions, 0 * part)).all()
    alone = points(x, x < 0, 0 * part, np.full(40, np.nan))
    assert np.isnan(uncertainty.border_correlation(alone, slice(None)))


def test_reliability_of_a_calibrated_similarity() -> None:
    rng = np.random.default_rng(0)
    kappa = rng.random(100_000)
    zero = np.zeros(100_000)
    calibrated = uncertainty.Points(zero, zero, zero, zero, zero, kappa, rng.random(100_000) < kappa)
    mean, share, gap = uncertainty.reliability([calibrated])
    np.testing.assert_allclose(mean, share, atol=0.02)
    assert gap < 0.01
    _, _, gap = uncertainty.reliability([uncertainty.Points(zero, zero, zero, zero, zero, kappa, zero > 1)])
    assert gap == pytest.approx(0.5, abs=0.01)


def test_interval() -> None:
    rng = np.random.default_rng(1)
    values = np.r_[rng.normal(0.3, 0.1, 400), np.nan]
    low, high = map(float, uncertainty.interval(values, 500).split(" … "))
    assert low == pytest.approx(0.29, abs=0.011)
    assert high == pytest.approx(0.31, abs=0.011)
    assert uncertainty.interval(np.array([0.3, np.nan]), 500) == "–"


def test_command(tmp_path: Path) -> None:
    done = run(PROJECT / "studies" / "uncertainty.py", "--points", 500, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "uncertainty.csv").open(newline="", encoding="utf-8") as file:
        head, row = csv.reader(file)
    assert row[:2] == ["probabilistic", "1"]
    assert 0 < float(row[head.index("wrong, %")]) < 100
    assert all(0 <= float(row[i]) <= 1 for i, name in enumerate(head) if name.startswith(("AUROC", "reliability")))
    assert (tmp_path / "uncertainty.png").read_bytes()[:4] == b"\x89PNG"
