"""What every evaluator keeps goes into an npz file of plain arrays, and comes back to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probemb_lib.metrics import LabelImageAP, PanopticQuality, PartNetAP, ScanNetAP

Update = Callable[[Any, np.random.Generator], None]
N = 400


def parts(metric: PartNetAP, rng: np.random.Generator) -> None:
    masks = rng.random((4, N)) < 0.4
    metric.update(
        masks, rng.integers(0, 3, 4), rng.random(4, np.float32), rng.integers(-1, 3, N), rng.integers(0, 3, 3)
    )


def scene(metric: ScanNetAP, rng: np.random.Generator) -> None:
    metric.update(rng.random((3, N)) < 0.5, np.array([5, 39, 5]), rng.random(3), 5000 + rng.integers(0, 3, N))


def image(metric: LabelImageAP, rng: np.random.Generator) -> None:
    metric.update(rng.integers(0, 4, (20, 20)), rng.integers(0, 4, (20, 20)))


def panoptic(metric: PanopticQuality, rng: np.random.Generator) -> None:
    true, pred = (np.repeat(rng.integers(0, 4, (4, 5)), 20).reshape(20, 20) for _ in range(2))
    metric.update(pred, true, np.where(pred > 0, 1, 0), np.where(true > 0, 1, 0))


EVALUATORS: dict[str, tuple[Callable[[], Any], Callable[[], Any], Update]] = {
    "PartNetAP": (lambda: PartNetAP(3), lambda: PartNetAP(4), parts),
    "ScanNetAP": (ScanNetAP, lambda: ScanNetAP(min_region_size=7), scene),
    "LabelImageAP": (LabelImageAP, lambda: LabelImageAP((0.3,)), image),
    "PanopticQuality": (lambda: PanopticQuality(2), lambda: PanopticQuality(3), panoptic),
}


@pytest.mark.parametrize("clouds", [0, 1, 5])
@pytest.mark.parametrize("name", EVALUATORS)
def test_there_and_back(name: str, clouds: int, tmp_path: Path) -> None:
    make, _, update = EVALUATORS[name]
    rng = np.random.default_rng(0)
    metric = make()
    for _ in range(clouds):
        update(metric, rng)
    np.savez(tmp_path / "state.npz", **metric.state_dict())
    again = make()
    update(again, rng)  # goes
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        again.load_state_dict(state)
    assert len(again) == clouds
    np.testing.assert_equal(again.compute(), metric.compute())
    update(again, np.random.default_rng(1))  # and goes on
    update(metric, np.random.default_rng(1))
    np.testing.assert_equal(again.compute(), metric.compute())


@pytest.mark.parametrize("name", EVALUATORS)
def test_states_of_others_are_refused(name: str) -> None:
    make, other, update = EVALUATORS[name]
    metric = make()
    update(metric, np.random.default_rng(0))
    state = metric.state_dict()
    with pytest.raises(ValueError, match=r"state: expected .*; make the evaluator as it was made for the state"):
        other().load_state_dict(state)
    with pytest.raises(ValueError, match=f"expected the state of a {name}, got nothing"):
        make().load_state_dict({})
    cut = {key: values for key, values in state.items() if not key.endswith("_ptr")} | {"clouds": np.array(9)}
    with pytest.raises(ValueError, match=r"state: expected .* of 9 "):
        make().load_state_dict(cut)
