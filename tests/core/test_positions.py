"""Offsets, coarse steps and stray points, at the borders of their rules."""

from __future__ import annotations

import numpy as np
import pytest

from probemb_lib.positions import COARSE, FAR, STRAY, coarse_step, far_offset, stray_rows


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


def test_strays_are_more_than_twenty_times_as_far() -> None:
    """The middle is 0 and 99 % of the points are within 1 of it."""
    ring = np.repeat([[1.0, 0], [-1, 0], [0, 1], [0, -1]], 50, axis=0)
    assert stray_rows(np.concatenate([ring, [[STRAY, 0]]])).tolist() == []
    assert stray_rows(np.concatenate([ring, [[1.01 * STRAY, 0]]])).tolist() == [200]
    assert stray_rows(np.zeros((5, 3))).tolist() == []
