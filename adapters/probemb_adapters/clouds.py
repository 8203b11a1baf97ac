"""Clouds from a user's own files, without labels, and what was found in them written beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
from scipy.spatial import cKDTree

from probemb_adapters.files import replaced_file
from probemb_lib import GaussianEmbedding, Instances

try:
    from plyfile import PlyData, PlyElement, PlyParseError
except ImportError as error:
    raise ImportError(f"reading clouds needs plyfile ({error}): pip install plyfile") from error

Array = np.ndarray[Any, np.dtype[Any]]
Up = Literal["x", "y", "z"]

POSITION_NAMES = ("pos", "pts", "points", "xyz")
"""Names of an array of positions in npz and h5 files, the first that is there counts."""

# Rows: the axes of the file that become x, y (up), z, without mirroring.
_TO_Y_UP: dict[Up, Array] = {
    "x": np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "y": np.eye(3, dtype=np.int64),
    "z": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
}


class Cloud(NamedTuple):
    """One cloud of a file.

    Attributes:
        name: the file's stem, with the row where a file holds several.
        pos: (N, 3) float32, as in the file.
        rgb: (N, 3) uint8, or None.
    """

    name: str
    pos: Array
    rgb: Array | None


def read_clouds(path: str | Path) -> list[Cloud]:
    """The clouds of a `.ply` (vertices x, y, z), `.npz` or `.h5` file (an array `pos`, `pts`, `points` or `xyz`).

    Arrays are (N, 3), or (B, N, 3) for B clouds, as PartNet's files have them. Colours are read from the properties
    red, green, blue of a ply and from arrays `rgb`, where they are 8-bit.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, no positions, or positions that are not finite.
    """
    path = Path(path)
    readers = {".ply": _read_ply, ".npz": _read_npz, ".h5": _read_h5, ".hdf5": _read_h5}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected a file .ply, .npz or .h5")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    pos, rgb = readers[path.suffix.lower()](path)
    if pos.ndim not in (2, 3) or pos.shape[-1] != 3 or pos.dtype.kind not in "fiu":
        raise ValueError(f"{path}: expected positions (N, 3) or (B, N, 3), got {pos.shape} {pos.dtype}")
    if pos.shape[-2] < 2:
        raise ValueError(f"{path}: expected at least 2 points, got {pos.shape[-2]}")
    if not np.isfinite(pos).all():
        raise ValueError(f"{path}: expected finite positions, got {(~np.isfinite(pos)).sum()} that are NaN or infinite")
    if rgb is not None and (rgb.shape != pos.shape or rgb.dtype != np.uint8):
        rgb = None
    if pos.ndim == 2:
        return [Cloud(path.stem, pos.astype(np.float32), rgb)]
    return [
        Cloud(f"{path.stem}-{row}", pos[row].astype(np.float32), None if rgb is None else rgb[row])
        for row in range(len(pos))
    ]


def _read_ply(path: Path) -> tuple[Array, Array | None]:
    try:
        vertex = PlyData.read(path)["vertex"].data
    except (PlyParseError, KeyError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no readable ply file with vertices ({error}): damaged or truncated?") from error
    names = vertex.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"{path}: expected vertices with x, y, z, got {', '.join(names) or 'none'}")
    pos = np.stack([vertex[name] for name in "xyz"], axis=1)
    colors = ("red", "green", "blue")
    return pos, np.stack([vertex[name] for name in colors], axis=1) if set(colors) <= set(names) else None


def _read_npz(path: Path) -> tuple[Array, Array | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*POSITION_NAMES, "rgb") if name in file}
            return arrays[_position_name(path, list(file.files))], arrays.get("rgb")
    except (BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"{path} is no readable npz file ({error}): damaged or truncated?") from error


def _read_h5(path: Path) -> tuple[Array, Array | None]:
    try:
        import h5py  # of the partnet extra; scans are ply files
    except ImportError as error:
        raise ImportError(f"{path}: reading h5 files needs h5py ({error}): pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            name = _position_name(path, list(file))
            return file[name][()], file["rgb"][()] if "rgb" in file else None
    except OSError as error:
        raise ValueError(f"{path} is no readable HDF5 file ({error}): damaged or truncated?") from error


def _position_name(path: Path, names: list[str]) -> str:
    for name in POSITION_NAMES:
        if name in names:
            return name
    raise ValueError(f"{path}: expected an array {', '.join(POSITION_NAMES)}, got {', '.join(names) or 'none'}")


def unit_sphere(pos: Array, up: Up = "y") -> Array:
    """PartNet's frame: centred on the bounding box, the farthest point at distance 1, y up. (N, 3) -> (N, 3) float32.

    >>> unit_sphere(np.array([[0.0, 0, 0], [0, 0, 4]]), up="z")
    array([[ 0., -1.,  0.],
           [ 0.,  1.,  0.]], dtype=float32)
    """
    x = pos.astype(np.float64) @ _TO_Y_UP[up].T
    x = x - (x.min(0) + x.max(0)) / 2
    radius = np.linalg.norm(x, axis=1).max()
    return np.asarray(x / (radius or 1), dtype=np.float32) + np.float32(0)  # no negative zeros


def nearest(pos: Array, some: Array) -> Array:
    """For each of (N, 3) points the row of the nearest of ``some``, whose results it takes; (N,) int64."""
    return np.asarray(cKDTree(some).query(pos)[1], dtype=np.int64)


def write_instances(
    path: str | Path, cloud: Cloud, found: Instances, embedding: GaussianEmbedding, colors: Array
) -> None:
    """What was found in a cloud, one row a point in the order of its file: `{path}.npz`, and `{path}.ply` to look at.

    The npz holds pos (N, 3), label (N,) int64 (−1 none), semantic (K,), score (K,), mean (N, D), log_std (N, D | 1).

    Args:
        path: without ending.
        colors: (K, 3) uint8 of the instances; points of none are grey.
    """
    label = found.label.cpu().numpy()
    with replaced_file(f"{path}.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            pos=cloud.pos,
            label=label,
            semantic=found.semantic.cpu().numpy(),
            score=found.score.cpu().numpy(),
            mean=embedding.mean.cpu().numpy(),
            log_std=embedding.log_std.cpu().numpy(),
        )
    fields = [(name, "f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertex = np.empty(len(label), dtype=[*fields, ("instance", "i4")])
    painted = np.vstack([colors, np.full((1, 3), 200)]).astype(np.uint8)[label]
    for i, (name, color) in enumerate(zip("xyz", ("red", "green", "blue"), strict=True)):
        vertex[name], vertex[color] = cloud.pos[:, i], painted[:, i]
    vertex["instance"] = label
    with replaced_file(f"{path}.ply") as temporary:
        PlyData([PlyElement.describe(vertex, "vertex")]).write(temporary)
