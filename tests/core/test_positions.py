"""Offsets, coarse steps and stray points, at the borders of their rules."""

from __future__ import annotations

import numpy as np
import pytest

from probemb_lib.positions import COARSE, FAR, STRAY, check_digits, coarse_step, far_offset, stray_rows


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_offset_from_ten_times_the_extent_on(sign: int) -> None:
    cloud = np.array([[-5.0, 0, 0], [5, 3, 2.5]])
    near, far = (cloud + np.array([sign * (FAR * 10 + more), 0, 0]) for more in (0, 0.25))
    assert far_offset(near).tolist() == [0, 0, 0]
    assert far_offset(far).tolist() == [sign * 100, 2, 1]  # whole units; halves to the even one
    bits = np.log2(np.abs(near).max() / np.abs(near - near.mean(0)).max())
    assert 4 < bits < 5  # what this spares float32 at most


def test_a_single_point_and_large_ones() -> None:
    assert far_offset(np.array([[7, -3, 0]])).tolist() == [7, -3, 0]
    assert np.isfinite(far_offset(np.array([[1.7e308, 0, 0], [1.6e308, 0, 0]]))).all()


def test_steps_are_coarse_from_an_eighth_on() -> None:
    eps = 2.0**-23
    step = eps * 2**20
    assert coarse_step(eps, 2**20, step / COARSE) is None
    assert coarse_step(eps, 2**20, 0.999 * step / COARSE) == step
    assert coarse_step(eps, 2**20, 0.0, extent=2**20 / FAR) is None  # about the origin
    assert coarse_step(2.0**-10, 2**20, 0.0, extent=2**20) == 2**10  # half precision is coarse there, too


FAR_AWAY = np.array([4e6, 0, 0])
LINE = np.stack([np.arange(40) * 0.01, np.zeros(40), np.zeros(40)], axis=1)  # a point each centimetre


def test_positions_that_their_type_cannot_tell_apart() -> None:
    """Refused from float32 and from float64 that held float32; the message has the numbers and the way out."""
    far = (LINE + FAR_AWAY).astype(np.float32)  # 0.25 apart there, so that all 40 fall on two places
    for pos in (far, far.astype(np.float64) + np.array([0, 0.5, 0])):
        with pytest.raises(
            ValueError,
            match=r"a\.ply: .* float32 can tell apart, got coordinates up to 4000000\.5, .* 0\.477 apart, and points "
            r"0\.25 apart at 3 places of 40: digits are lost.*subtract an offset before the cast",
        ):
            check_digits(pos, "a.ply")
    with pytest.raises(ValueError, match="points 0 apart at 1 places of 40"):
        check_digits(np.broadcast_to(far[:1], (40, 3)), "a.ply")


def test_positions_that_pass() -> None:
    metres = LINE.astype(np.float32)
    check_digits(metres, "about the origin")
    check_digits(metres[:1] + np.float32(4e6), "one point")
    check_digits(LINE + FAR_AWAY, "float64")
    check_digits((100 * LINE + 100 * FAR_AWAY).round().astype(np.int64), "integers")
    check_digits(np.round(100 * LINE) + np.array([2.0**26, 0, 0]), "whole numbers in float64")
    check_digits((100 * LINE + FAR_AWAY / 8).astype(np.float32), "steps of 0.06 between points 1 apart")


def test_strays_are_more_than_twenty_times_as_far() -> None:
    """The middle is 0 and 99 % of the points are within 1 of it."""
    ring = np.repeat([[1.0, 0], [-1, 0], [0, 1], [0, -1]], 50, axis=0)
    assert stray_rows(np.concatenate([ring, [[STRAY, 0]]])).tolist() == []
    assert stray_rows(np.concatenate([ring, [[1.01 * STRAY, 0]]])).tolist() == [200]
    assert stray_rows(np.zeros((5, 3))).tolist() == []
