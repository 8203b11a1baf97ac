"""E57 through pye57: each scan of the file is a cloud, by its pose in the frame of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from probemb_adapters.clouds.cloud import Stored
from probemb_adapters.clouds.formats import missing
from probemb_adapters.files import check_claim

_PACKING = 100  # a coordinate of few values takes few bits


def read_e57(path: Path) -> list[Stored]:
    """The scans of an e57 file, with intensity and colours; points that the scanner marks as invalid are left out."""
    try:
        from pye57 import E57
    except ImportError as error:
        raise missing(path, "pye57", "e57", error) from error
    clouds = []
    with E57(str(path)) as file:
        for scan in range(file.scan_count):
            points = file.get_header(scan).point_count
            check_claim(path, points, 12 * points, packing=_PACKING)
            data = file.read_scan(scan, intensity=True, colors=True, row_column=True, ignore_missing_fields=True)
            pos = np.stack([data.pop(f"cartesian{axis}") for axis in "XYZ"], axis=1)
            colours = {f"color{name.title()}": name for name in ("red", "green", "blue")}
            clouds.append(Stored(pos, {colours.get(n, n): a for n, a in data.items() if not n.startswith("spher")}))
    if not clouds:
        raise ValueError(f"{path}: expected a scan, got none")
    return clouds
