"""Positions far from the origin keep their digits, or it is said that they lost them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement
from scipy.spatial import cKDTree

from probemb_adapters.clouds import check_digits, far_offset, read_clouds, unit_sphere

MIDDLE = np.array([2, 1, 1])  # of the box of 4 x 3 x 2, in whole metres
UTM = np.array([500_000, 5_400_000, 300])
POS = np.round(np.random.default_rng(0).random((3_000, 3)) * [4, 3, 2], 3)
DISTANCE = float(np.median(cKDTree(POS).query(POS, k=2)[0][:, 1]))  # 9 cm


def test_utm_is_the_origin() -> None:
    np.testing.assert_allclose(unit_sphere(POS + UTM), unit_sphere(POS), rtol=0, atol=1e-7)
    offset = far_offset(POS + UTM)
    np.testing.assert_array_equal(offset, UTM + MIDDLE)
    np.testing.assert_allclose((POS + UTM - offset).astype(np.float32), POS - MIDDLE, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 3.0, 9.0])
def test_near_the_origin_nothing_is_subtracted(shift: float) -> None:
    assert not far_offset(POS + shift).any()
    assert not far_offset(np.ones((4, 3)) * 0).any()
    check_digits((POS + shift).astype(np.float32), "a")


def test_coarse_is_more_than_an_eighth_of_the_usual_distance() -> None:
    limit = DISTANCE / 8 * 2**23
    fine, coarse = POS + 0.9 * limit, POS + 1.1 * limit
    check_digits(fine.astype(np.float32), "a")
    with pytest.raises(ValueError, match=r"a: expected positions that float32 can tell apart, .*positions\.far_offset"):
        check_digits(coarse.astype(np.float32), "a")
    check_digits(coarse, "a")
    with pytest.raises(ValueError, match="a: expected positions that float32 can tell apart"):
        check_digits(coarse.astype(np.float32).astype(np.float64), "a")
    check_digits(np.round(coarse), "a")  # a grid of whole numbers
    check_digits(coarse.astype(np.int64), "a")


def test_the_unit_sphere_needs_the_digits() -> None:
    with pytest.raises(ValueError, match="unit_sphere: expected positions that float32 can tell apart"):
        unit_sphere((POS + UTM).astype(np.float32))


def test_all_points_in_one_place_far_away() -> None:
    with pytest.raises(ValueError, match="at 1 places of 4"):
        check_digits(np.full((4, 3), 5e6, np.float32), "a")
    check_digits(np.zeros((4, 3), np.float32), "a")
    check_digits(np.full((1, 3), 5e6, np.float32), "a")


@pytest.mark.parametrize("ending", ["ply", "npz", "npy"])
def test_readers_refuse_what_has_lost_its_digits(tmp_path: Path, ending: str) -> None:
    pos, path = (POS + UTM).astype(np.float32), tmp_path / f"a.{ending}"
    if ending == "ply":
        vertex = pos.view([(axis, "f4") for axis in "xyz"])[:, 0]
        PlyData([PlyElement.describe(vertex, "vertex")]).write(path)
    elif ending == "npz":
        np.savez(path, pos=pos)
    else:
        np.save(path, pos)
    with pytest.raises(ValueError, match=rf"a\.{ending}: expected positions that float32 can tell apart"):
        read_clouds(path)


def test_an_extent_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match=r"expected positions of finite extent, got coordinates -1e\+300 to 1e\+300"):
        unit_sphere(np.array([[0, -1e300, 0], [0, 1e300, 0]]))


@pytest.mark.parametrize("points", [20, 3_000])
def test_a_stray_point_is_named(tmp_path: Path, points: int) -> None:
    pos = POS[:points].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.savez(tmp_path / "a.npz", pos=pos)
        read_clouds(tmp_path / "a.npz")
    pos[7] = [500, 0, 0]
    np.savez(tmp_path / "a.npz", pos=pos)
    with pytest.warns(UserWarning, match=r"a\.npz: stray points, .*: row 7 at \[500\.0, 0\.0, 0\.0\]; they"):
        read_clouds(tmp_path / "a.npz")
    if points > 1_000:
        pos[10:14] = [0, 900, 0]
        np.savez(tmp_path / "a.npz", pos=pos)
        with pytest.warns(UserWarning, match="row 10 at .* row 11 at .* and 2 more; they"):
            read_clouds(tmp_path / "a.npz")
