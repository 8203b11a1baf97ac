"""Clouds from users' files, and what was found in them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from probemb_adapters.clouds import Cloud, Up, nearest, read_clouds, unit_sphere, write_instances
from probemb_lib import GaussianEmbedding, greedy_cluster

RNG = np.random.default_rng(0)
POS = RNG.normal(size=(50, 3)).astype(np.float32)
RGB = RNG.integers(0, 256, size=(50, 3), dtype=np.uint8)


def write_ply(path: Path, fields: dict[str, Any], text: bool = False) -> Path:
    vertex = np.empty(50, dtype=[(name, value.dtype) for name, value in fields.items()])
    for name, value in fields.items():
        vertex[name] = value
    PlyData([PlyElement.describe(vertex, "vertex")], text=text).write(path)
    return path


@pytest.mark.parametrize("text", [False, True])
def test_ply(tmp_path: Path, text: bool) -> None:
    fields = dict(zip("xyz", POS.T, strict=True)) | dict(zip(("red", "green", "blue"), RGB.T, strict=True))
    (cloud,) = read_clouds(write_ply(tmp_path / "chair.ply", fields, text))
    assert cloud.name == "chair"
    np.testing.assert_allclose(cloud.pos, POS, rtol=1e-6)
    np.testing.assert_array_equal(cloud.rgb, RGB)


@pytest.mark.parametrize("name", ["pos", "pts", "points", "xyz"])
def test_npz_and_h5(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "a.npz", **{name: POS, "rgb": RGB})
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file[name], file["rgb"] = np.stack([POS, POS + 1]), np.stack([RGB, RGB])
    (one,), two = read_clouds(tmp_path / "a.npz"), read_clouds(tmp_path / "b.h5")
    np.testing.assert_array_equal(one.pos, POS)
    assert [cloud.name for cloud in two] == ["b-0", "b-1"]
    np.testing.assert_array_equal(two[1].pos, POS + 1)
    np.testing.assert_array_equal(two[1].rgb, RGB)


def test_broken_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", pos=POS)
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["pts"] = POS
    write_ply(tmp_path / "whole.ply", dict(zip("xyz", POS.T, strict=True)))
    for ending in (".npz", ".h5", ".ply"):
        path = tmp_path / f"cut{ending}"
        path.write_bytes((tmp_path / f"whole{ending}").read_bytes()[:-100])
        with pytest.raises(ValueError, match=f"cut{ending} is no readable"):
            read_clouds(path)
    np.savez(tmp_path / "names.npz", cloud=POS)
    with pytest.raises(ValueError, match=r"names.npz: expected an array pos.*got cloud"):
        read_clouds(tmp_path / "names.npz")
    with pytest.raises(ValueError, match="expected vertices with x, y, z, got x"):
        read_clouds(write_ply(tmp_path / "flat.ply", {"x": POS[:, 0]}))
    for pos, message in ((POS[:, :2], r"\(N, 3\)"), (POS[:1], "at least 2 points"), (POS * np.nan, "finite")):
        np.savez(tmp_path / "bad.npz", pos=pos)
        with pytest.raises(ValueError, match=message):
            read_clouds(tmp_path / "bad.npz")
    (tmp_path / "a.obj").touch()
    with pytest.raises(ValueError, match=r"a\.obj: expected \.asc, .* or \.xyz, got \.obj"):
        read_clouds(tmp_path / "a.obj")
    with pytest.raises(FileNotFoundError, match=r"none\.ply is missing"):
        read_clouds(tmp_path / "none.ply")


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_unit_sphere_turns_up_to_y_without_mirroring(up: Up) -> None:
    x = unit_sphere(POS, up)
    np.testing.assert_allclose((x.min(0) + x.max(0)) / 2, 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1).max(), 1, rtol=1e-6)
    axis = "xyz".index(up)
    assert np.corrcoef(x[:, 1], POS[:, axis])[0, 1] > 0.999
    a, b = POS[1:4] - POS[0], x[1:4] - x[0]
    assert np.sign(np.linalg.det(a)) == np.sign(np.linalg.det(b))  # no mirror image
    distance = np.linalg.norm(POS[1:] - POS[0], axis=1) / np.linalg.norm(x[1:] - x[0], axis=1)
    np.testing.assert_allclose(distance, distance[0], rtol=1e-4)


def test_a_cloud_in_one_place() -> None:
    np.testing.assert_array_equal(unit_sphere(np.ones((4, 3))), np.zeros((4, 3)))


def test_nearest_is_the_definition() -> None:
    some = POS[::7]
    expected = np.linalg.norm(POS[:, None] - some[None], axis=2).argmin(1)
    np.testing.assert_array_equal(nearest(POS, some), expected)


def test_results_in_the_order_of_the_file(tmp_path: Path) -> None:
    side = torch.from_numpy((POS[:, 0] > 0).astype(np.float32))
    x = GaussianEmbedding(10 * side[:, None].repeat(1, 3), torch.zeros(50, 3))
    found = greedy_cluster(x, torch.rand(50, 1, generator=torch.Generator().manual_seed(0)), background=None)
    colors = np.array([[255, 0, 0], [0, 255, 0]], dtype=np.uint8)
    write_instances(tmp_path / "out", Cloud("a", POS, None), found, x, colors)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz", "out.ply"]
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_array_equal(file["instance"], found.label)
        np.testing.assert_array_equal(file["pos"], POS)
        np.testing.assert_array_equal(file["mean"], x.mean)
    vertex = PlyData.read(tmp_path / "out.ply")["vertex"]
    np.testing.assert_array_equal(vertex["instance"], found.label)
    np.testing.assert_array_equal(vertex["red"], colors[found.label, 0])
    np.testing.assert_array_equal(vertex["x"], POS[:, 0])
