"""What decompresses laz files is another process, which may die."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from cloud_files import las

from probemb_adapters.clouds import laz, read_clouds


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    path = tmp_path / "a.laz"
    las(path)
    return path


def count(path: Path) -> int:
    return len(read_clouds(path)[0].pos)


def test_one_process_reads_all(cloud: Path) -> None:
    points = count(cloud)
    first = laz._current
    assert first is not None
    assert count(cloud) == points
    assert laz._current is first


def test_its_end_is_an_error_that_names_the_file(cloud: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next file is read by another."""
    points = count(cloud)
    laz._end()
    with monkeypatch.context() as patched:
        patched.setattr(laz, "_START", "import os; os._exit(3)")
        with pytest.raises(ValueError, match=r"a\.laz: damaged, decompressing its points ended with status 3"):
            count(cloud)
    assert count(cloud) == points


def test_a_fork_has_one_of_its_own(cloud: Path) -> None:
    points = count(cloud)
    mine = laz._current
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(count, [cloud, cloud]) == [points, points]
        assert count(cloud) == points
    assert laz._current is mine


def test_overwritten_points(cloud: Path) -> None:
    """Some of these end the process, some are other points, some are told by lazrs."""
    whole = cloud.read_bytes()
    points, told = count(cloud), 0
    for start in range(len(whole) // 3, len(whole) - 40, 60):
        damaged = bytearray(whole)
        damaged[start : start + 40] = b"\xff" * 40
        cloud.write_bytes(damaged)
        try:
            assert count(cloud) == points
        except ValueError as error:
            told += 1
            assert "a.laz" in str(error)  # noqa: PT017
    assert told
    cloud.write_bytes(whole)
    assert count(cloud) == points


def test_points_that_are_not_there(cloud: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probemb_adapters.clouds.las.decompressed", lambda path: bytearray(np.zeros(5, np.uint8)))
    with pytest.raises(ValueError, match=r"a\.laz: expected \d+ points by its header, got 5 bytes of them"):
        count(cloud)
