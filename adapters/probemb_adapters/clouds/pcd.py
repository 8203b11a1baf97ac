"""Pcd of the Point Cloud Library through pypcd4: ascii, binary and compressed; colours packed in `rgb` are unpacked."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from probemb_adapters.clouds.cloud import Array, Stored
from probemb_adapters.clouds.formats import missing
from probemb_adapters.files import check_claim

_PACKING = 100  # of LZF, at most 264 bytes in 3


def read_pcd(path: Path) -> list[Stored]:
    """The points of a pcd file."""
    try:
        from pypcd4 import pypcd4
    except ImportError as error:
        raise missing(path, "pypcd4", "clouds", error) from error
    points = _check_header(path)
    table = pypcd4.PointCloud.from_path(path).pc_data
    names = table.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"{path}: expected fields x, y, z, got {', '.join(names) or 'none'}")
    table = np.atleast_1d(table)
    if len(table) != points:
        raise ValueError(f"{path}: the header claims {points} points, the file has {len(table)}: damaged or truncated?")
    properties: dict[str, Array] = {}
    for name in names:
        if name in ("rgb", "rgba") and table[name].dtype.itemsize == 4:
            packed = np.ascontiguousarray(table[name]).view(np.uint32)
            properties |= {n: (packed >> s).astype(np.uint8) for n, s in (("red", 16), ("green", 8), ("blue", 0))}
        elif name not in "xyz" and not name.startswith("#$%&~~"):  # pypcd4's name of padding
            properties[name] = np.ascontiguousarray(table[name])
    return [Stored(np.stack([table[name] for name in "xyz"], axis=1), properties)]


def _check_header(path: Path) -> int:
    """The number of points that the header claims, which fit into the file."""
    header: dict[str, list[str]] = {}
    with path.open("rb") as file:
        for line in islice(file, 100):
            key, *words = line.decode("latin-1").split() or [""]
            header[key.upper()] = words
            if key.upper() == "DATA":
                break
    lacking = [key for key in ("FIELDS", "SIZE", "POINTS", "DATA") if not header.get(key)]
    if lacking:
        raise ValueError(f"{path}: expected a header of a pcd file, got none of its lines {', '.join(lacking)}")
    points, kind = int(header["POINTS"][0]), header["DATA"][0]
    counts = header.get("COUNT", ["1"] * len(header["SIZE"]))
    if kind == "ascii":
        row = 2 * sum(map(int, counts))  # a digit and a space
    else:
        row = sum(int(size) * int(count) for size, count in zip(header["SIZE"], counts, strict=True))
    check_claim(path, points, points * row, packing=_PACKING if kind == "binary_compressed" else 1)
    return points
