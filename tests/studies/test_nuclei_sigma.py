"""What sigma says about errors on nuclei: the numbers against constructed cases."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("monai")
pytest.importorskip("tyro")

import nuclei_sigma as study
import torch

from probemb_adapters.experiments.images.model import Model, Network
from probemb_adapters.experiments.images.options import Settings
from probemb_adapters.images import LabelledImage


def pixels(sign: np.ndarray, wrong: np.ndarray, **more: np.ndarray) -> study.Pixels:
    zero = np.zeros(len(wrong))
    given = {"inside": zero, "sigma": sign, "kappa": zero, "belongs": zero > 0} | more
    return study.Pixels(wrong=wrong, signs={"sigma": sign}, **given)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    sign, wrong = rng.integers(0, 6, 50).astype(float), rng.random(50) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in sign[wrong] for b in sign[~wrong]]
    assert study.auroc(sign, wrong) == pytest.approx(np.mean(pairs))
    assert np.isnan(study.auroc(sign, wrong | True))


def test_most_pixels_decide_what_was_found() -> None:
    own = np.array([0, 0, 0, 1, 1, 2])
    true = np.array([4, 4, 0, 0, 0, 1])
    assert study.majority(own, true, 3).tolist() == [4, -1, 1]


def test_pixels_at_a_border_have_a_neighbour_of_another() -> None:
    label = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [1, 1, 0, 0]])
    assert study._same(label).tolist() == [
        [True, False, False, True],
        [True, False, False, False],
        [True, False, False, False],
    ]


def test_calibration_of_a_calibrated_similarity() -> None:
    rng = np.random.default_rng(0)
    kappa = rng.random(50_000)
    rows, gap = study.calibration([pixels(kappa, kappa > 2, kappa=kappa, belongs=rng.random(50_000) < kappa)])
    assert gap < 0.02
    assert sum(count for *_, count in rows) == 50_000
    _, gap = study.calibration([pixels(kappa, kappa > 2, kappa=kappa, belongs=kappa > 2)])
    assert gap == pytest.approx(0.5, abs=0.01)


def test_rows() -> None:
    sign = np.arange(6.0)
    images = [pixels(sign, sign > 3, inside=np.array([0, 1, 2, 3, 9, 9.0])), pixels(sign, sign < 2)]
    (row,) = study.sign_rows(images, ["a", "b"], 50)
    assert row.values[0] == pytest.approx(0.5)  # 1 and 0
    names = [row.name for row in study.border_rows(images[:1])]
    assert names == ["background", "0 to 1 pixels", "1 to 2 pixels", "2 to 4 pixels", "over 8"]
    assert study.border_rows(images[:1])[-1].values == [4.5, 100.0, 2]


def test_measure() -> None:
    """Any network: shapes, ranges, and what it says of an image of nothing."""
    torch.manual_seed(0)
    settings = Settings(width=2, offset_scale=4.0, initial_std=1.0, min_pixels=1, min_score=0.0, flips=False)
    model = Model(Network(settings).eval(), settings)
    label = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((12, 12), np.int64))
    image = LabelledImage("four", np.random.default_rng(0).random((24, 24)), label)
    for sign in (1.0, -1.0):  # of the foreground: everything, nothing
        with torch.no_grad():
            model.network.head.head.scores[-1].bias[0] = 50 * sign
        found = study.measure(model, image)
        if sign < 0:
            assert found is None
            continue
        assert found is not None
        assert len({len(v) for v in (found.wrong, found.inside, found.sigma, *found.signs.values())}) == 1
        assert bool((found.kappa <= 1).all())
        assert len(found.kappa) == len(found.belongs)
        assert float(found.inside.max()) > 0
