"""Pictures of scanned rooms: from above and at a slant, in their colours and by object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probemb_adapters.files import missing_extra
from probemb_adapters.report.pictures import instance_colors
from probemb_shapes.rooms.scan import Scan

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing_extra("pictures need matplotlib", "viz", error) from error

Array = np.ndarray[Any, np.dtype[Any]]


def contact_sheet(path: str | Path, scans: Sequence[Scan], *, columns: int = 2, pixels: int = 300) -> Path:
    """Three views of each scan side by side: from above, at a slant, and that by object.

    Args:
        path: the image to write; its ending chooses the format.
        scans: at least one.
        columns: scans side by side.
        pixels: width and height of a view.

    Returns:
        ``path``.

    Raises:
        ValueError: no scan, column or pixel.
    """
    if not scans or min(columns, pixels) < 1:
        raise ValueError(
            f"expected at least one scan, column and pixel, got {len(scans)} scans, {columns} columns, {pixels} pixels"
        )
    tiles = []
    for scan in scans:
        by_object = np.vstack((instance_colors(max(1, len(scan.categories))), np.full(3, 0.6)))[scan.instance]
        stuff = np.array([c in ("wall", "floor", "ceiling") for c in scan.categories] + [False])[scan.instance]
        by_object[stuff] = 0.85
        colors = scan.rgb / 255.0
        views = (render(scan, colors, pixels, tilt=90), render(scan, colors, pixels), render(scan, by_object, pixels))
        tiles.append(np.hstack(views))
    tiles += [np.ones_like(tiles[0])] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
    figure = Figure(figsize=(sheet.shape[1] / 100, sheet.shape[0] / 100), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(sheet, interpolation="none")
    axis.set_axis_off()
    figure.savefig(path, dpi=100)
    return Path(path)


def render(scan: Scan, colors: Array, pixels: int = 300, *, turn: float = 35.0, tilt: float = 50.0) -> Array:
    """A scan from outside, without its ceiling and the walls in front.

    Args:
        scan: of V vertices.
        colors: (V, 3) in 0 … 1.
        pixels: width and height.
        turn: degrees by which one sees it turned about the vertical, 0 … 90.
        tilt: degrees by which one looks down on it.

    Returns:
        (pixels, pixels, 3) RGB in [0, 1], white where there is nothing.
    """
    pos = scan.pos @ scan.axis_alignment[:3, :3].T + scan.axis_alignment[:3, 3]
    names = np.array([*scan.categories, ""])[scan.instance]
    before = (names == "wall") & (pos[:, :2] < pos[:, :2].min(0) + 0.15).any(1) & (tilt < 90)
    shown = (names != "ceiling") & ~before
    pos, colors = pos[shown], colors[shown]
    a, b = np.radians(turn if tilt < 90 else 0.0), np.radians(tilt)
    x = pos[:, 0] * np.cos(a) - pos[:, 1] * np.sin(a)
    away = pos[:, 0] * np.sin(a) + pos[:, 1] * np.cos(a)
    y, depth = pos[:, 2] * np.cos(b) + away * np.sin(b), away * np.cos(b) - pos[:, 2] * np.sin(b)
    scale = 0.96 * pixels / max(float(np.ptp(x)), float(np.ptp(y)))
    column = np.floor((x - (x.max() + x.min()) / 2) * scale + pixels / 2).astype(np.int64)
    row = np.floor(((y.max() + y.min()) / 2 - y) * scale + pixels / 2).astype(np.int64)
    order = np.argsort(-depth, kind="stable")  # the nearest vertex of a pixel is written last
    image = np.ones((pixels, pixels, 3))
    reach = max(1, round(0.035 * scale))
    surface = np.full((pixels, pixels), np.inf)
    for i in range(reach):
        for j in range(reach):
            r, c = (row[order] + i).clip(0, pixels - 1), (column[order] + j).clip(0, pixels - 1)
            candidate = np.full((pixels, pixels), np.inf)
            candidate[r, c] = depth[order]
            color = np.ones((pixels, pixels, 3))
            color[r, c] = colors[order]
            nearer = candidate < surface
            surface[nearer], image[nearer] = candidate[nearer], color[nearer]
    return image
