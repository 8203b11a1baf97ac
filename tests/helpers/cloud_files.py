"""A small cloud in a file of each format that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import laspy
import numpy as np
import pye57
from plyfile import PlyData, PlyElement
from pypcd4 import Encoding, PointCloud

N = 60
RNG = np.random.default_rng(0)
LOCAL = np.round(RNG.random((N, 3)) * 4, 3)
POS = np.round(LOCAL + np.array([500_000, 5_400_000, 300]), 3)  # UTM, millimetres
RGB = RNG.integers(0, 256, size=(N, 3), dtype=np.uint8)
INSTANCE = np.arange(N) % 5
SEMANTIC = np.arange(N) % 3
INTENSITY = RNG.integers(0, 200, N).astype(np.uint16)
NAMES = ("x", "y", "z", "red", "green", "blue", "intensity", "instance", "class")
COLUMNS = [*POS.T, *RGB.T, INTENSITY, INSTANCE.astype(np.int32), SEMANTIC.astype(np.uint8)]


def structured(names: tuple[str, ...] = NAMES) -> np.ndarray[Any, Any]:
    table = np.empty(N, dtype=[(name, c.dtype) for name, c in zip(NAMES, COLUMNS, strict=True) if name in names])
    for name in names:
        table[name] = COLUMNS[NAMES.index(name)]
    return table


def ply(byte_order: str, text: bool = False) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        face = np.array([([0, 1, 2],), ([2, 3, 4],)], dtype=[("vertex_indices", "i4", (3,))])
        elements = [PlyElement.describe(structured(), "vertex"), PlyElement.describe(face, "face")]
        PlyData(elements, byte_order=byte_order, text=text, comments=["scanned in May"]).write(path)

    return write


def las(path: Path) -> None:
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.offsets, header.scales = [500_000, 5_400_000, 0], [0.001] * 3
    header.add_extra_dim(laspy.ExtraBytesParams("instance", "int32"))
    cloud = laspy.LasData(header)
    cloud.xyz = POS
    cloud.red, cloud.green, cloud.blue = 257 * RGB.T.astype(np.uint16)
    cloud.intensity, cloud["instance"], cloud.classification = INTENSITY, INSTANCE, SEMANTIC
    cloud.gps_time = np.arange(N) / 7
    cloud.write(path)


def text(delimiter: str, header: str | None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        rows = [delimiter.join(str(value) for value in row) for row in zip(*(c.tolist() for c in COLUMNS), strict=True)]
        lines = rows if header is None else [header + delimiter.join(NAMES), *rows]
        path.write_text("\n".join(lines) + "\n")

    return write


def pts(path: Path) -> None:
    rows = zip(*POS.T.tolist(), INTENSITY.tolist(), *RGB.T.tolist(), strict=True)
    path.write_text("\n".join([str(N), *(" ".join(map(str, row)) for row in rows)]))


def pcd(encoding: Encoding) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        packed = (RGB.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)).astype(np.uint32)
        fields = ("x", "y", "z", "rgb", "intensity", "instance", "class")
        columns = [*POS.T, packed, *COLUMNS[6:]]
        PointCloud.from_points(columns, fields, [c.dtype for c in columns]).save(path, encoding=encoding)

    return write


def npy(path: Path) -> None:
    np.save(path, structured())


def matrix(path: Path) -> None:
    np.save(path, np.stack([c.astype(np.float64) for c in COLUMNS], axis=1))


def arrays() -> dict[str, Any]:
    return {"rgb": RGB, "points": POS, "instance": INSTANCE, "class": SEMANTIC, "intensity": INTENSITY, "unit": "m"}


def npz(path: Path) -> None:
    np.savez_compressed(path, **arrays())


def h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, value in arrays().items():
            file[name] = value
        file.create_group("more")["pos"] = np.zeros(3)


def e57(path: Path) -> None:
    """By its pose in UTM: pye57 writes coordinates in single precision."""
    data = {f"cartesian{axis}": LOCAL[:, i] for i, axis in enumerate("XYZ")}
    data |= {f"color{name}": RGB[:, i] for i, name in enumerate(("Red", "Green", "Blue"))}
    with pye57.E57(str(path), mode="w") as file:
        file.write_scan_raw(
            data, rotation=np.array([1.0, 0, 0, 0]), translation=np.array([500_000.0, 5_400_000.0, 300.0])
        )


class Format(NamedTuple):
    """A file to write and read: its name, its writer, whether it has labels, whether its own format is written."""

    name: str
    write: Callable[[Path], None]
    labels: bool = True
    written: bool = True
    columns: tuple[str, ...] | None = None


FORMATS = {
    "ply, little-endian": Format("a.ply", ply("<")),
    "ply, big-endian": Format("a.PLY", ply(">")),
    "ply, ascii": Format("a.ply", ply("=", text=True)),
    "las": Format("a.las", las),
    "laz": Format("a.laz", las),
    "xyz": Format("a.xyz", text(" ", None), columns=NAMES),
    "txt, comment": Format("a.txt", text(" ", "//")),
    "txt, tabs": Format("a.txt", text("\t", "")),
    "csv": Format("a.csv", text(",", "")),
    "csv, semicolons": Format("a.csv", text(";", "")),
    "asc": Format("a.asc", text(" ", "# ")),
    "pts": Format("a.pts", pts, labels=False, written=False),
    "pcd, ascii": Format("a.pcd", pcd(Encoding.ASCII), written=False),
    "pcd, binary": Format("a.pcd", pcd(Encoding.BINARY), written=False),
    "pcd, compressed": Format("a.pcd", pcd(Encoding.BINARY_COMPRESSED), written=False),
    "npy": Format("a.npy", npy, written=False),
    "npy, matrix": Format("a.npy", matrix, written=False, columns=NAMES),
    "npz": Format("a.npz", npz),
    "h5": Format("a.h5", h5, written=False),
    "e57": Format("a.e57", e57, labels=False, written=False),
}
