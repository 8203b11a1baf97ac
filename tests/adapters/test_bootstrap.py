"""Paired bootstrap intervals: where they must hold zero, where not, and their middle."""

import numpy as np
import pytest

from probemb_adapters.experiments.bootstrap import paired_bootstrap
from probemb_lib.metrics import PartNetAP

Metrics = dict[tuple[str, int], PartNetAP]


def drawn(seed: int, found: float, shapes: int = 30) -> PartNetAP:
    """Shapes of two parts, each found or not."""
    rng = np.random.default_rng(seed)
    metric = PartNetAP(1)
    truth, zero = np.array([0, 0, 1, 1]), np.zeros(2, np.int64)
    for _ in range(shapes):
        label = np.where(np.repeat(rng.random(2) < found, 2), truth, -1)
        metric.update_labels(label, zero, rng.random(2), truth, zero)
    return metric


def runs(first_seed: int, found: float) -> Metrics:
    return {(data, n): drawn(first_seed + 10 * i + n, found) for i, data in enumerate("AB") for n in range(3)}


def bootstrap(ours: Metrics, theirs: Metrics) -> tuple[float, float, float]:
    low, middle, high = paired_bootstrap(ours, theirs, resamples=60)
    values = [100 * (ours[run].compute()["part_map"][1] - theirs[run].compute()["part_map"][1]) for run in ours]
    assert middle == pytest.approx(np.mean(values))
    return low, middle, high


def test_intervals() -> None:
    low, middle, high = bootstrap(runs(0, 0.9), runs(100, 0.4))
    assert 0 < low < middle < high
    low, middle, high = bootstrap(runs(0, 0.6), runs(100, 0.6))
    assert low < 0 < high
    assert bootstrap(runs(0, 0.6), runs(0, 0.6)) == (0, 0, 0)


def test_trainings_are_drawn_too() -> None:
    """Two trainings that differ widely: an interval over shapes alone would not reach either of them."""
    ours = {("A", 0): drawn(0, 1.0), ("A", 1): drawn(1, 0.2)}
    theirs = {("A", 0): drawn(2, 0.5), ("A", 1): drawn(3, 0.5)}
    low, middle, high = bootstrap(ours, theirs)
    assert low < -20 < middle < 40 < high


def test_data_sets_weigh_the_same() -> None:
    ours = {("A", 0): drawn(0, 1.0), ("B", 0): drawn(1, 0.0), ("B", 1): drawn(2, 0.0)}
    theirs = {run: drawn(3, 0.0) for run in ours}
    of_a = 100 * (ours["A", 0].compute()["part_map"][1] - theirs["A", 0].compute()["part_map"][1])
    assert of_a > 90
    assert paired_bootstrap(ours, theirs, resamples=2)[1] == pytest.approx(of_a / 2)


def test_shapes_without_ground_truth() -> None:
    """A resample that draws no shape with parts has no mAP, and does not make the interval one."""
    metrics = {}
    for name, found in (("ours", 1.0), ("theirs", 0.0)):
        metric = drawn(0, found, shapes=1)
        for _ in range(2):
            metric.update_labels(
                np.full(4, -1), np.zeros(0, np.int64), np.zeros(0), np.full(4, -1), np.zeros(0, np.int64)
            )
        metrics[name] = {("A", 0): metric}
    low, middle, high = paired_bootstrap(metrics["ours"], metrics["theirs"], resamples=40)
    assert 90 < low <= middle <= high


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least one"):
        paired_bootstrap({}, {})
    with pytest.raises(ValueError, match="the same runs"):
        paired_bootstrap({("A", 0): drawn(0, 1)}, {("A", 1): drawn(0, 1)})
    with pytest.raises(ValueError, match=r"at least one, got \[0\]"):
        paired_bootstrap({("A", 0): PartNetAP(1)}, {("A", 0): PartNetAP(1)})
    with pytest.raises(ValueError, match="A: expected metrics of the same clouds, at least one, got"):
        paired_bootstrap({("A", 0): drawn(0, 1)}, {("A", 0): drawn(0, 1, shapes=3)})
