"""A picture of generated furniture: each shape with a colour a level-3 part, shaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from probemb_adapters.files import missing_extra
from probemb_adapters.report.pictures import instance_colors
from probemb_shapes.families.tree import Node, sample_points
from probemb_shapes.families.write import FAMILIES, generate

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing_extra("pictures need matplotlib", "viz", error) from error

Array = np.ndarray[Any, np.dtype[Any]]


def contact_sheet(
    path: str | Path,
    *,
    categories: Sequence[str] = tuple(FAMILIES),
    rows: int = 2,
    columns: int = 8,
    seed: int = 0,
    pixels: int = 200,
) -> Path:
    """The first shapes of a seed, ``rows`` of ``columns`` for each category, written as an image.

    Args:
        path: the image to write; its ending chooses the format.
        categories: keys of `FAMILIES`.
        rows: at least one, a category.
        columns: at least one.
        seed: of the shapes.
        pixels: width and height of a shape.

    Returns:
        ``path``.

    Raises:
        ValueError: no category, row or column, or an unknown category.
    """
    if not categories or min(rows, columns, pixels) < 1:
        raise ValueError(
            f"expected at least one category, row, column and pixel, got {len(categories)}, {rows}, {columns}, {pixels}"
        )
    images = [
        np.hstack([render(generate(name, seed, row * columns + i), pixels) for i in range(columns)])
        for name in categories
        for row in range(rows)
    ]
    sheet = np.vstack(images)
    figure = Figure(figsize=(sheet.shape[1] / 100, sheet.shape[0] / 100), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(sheet, interpolation="none")
    axis.set_axis_off()
    figure.savefig(path, dpi=100)
    return Path(path)


def render(root: Node, pixels: int = 200, *, turn: float = 30.0, tilt: float = 18.0) -> Array:
    """A shape seen from the front, as an image.

    The visible points of a dense cloud, shaded by the slope of their depth.

    Args:
        root: the shape.
        pixels: width and height.
        turn: degrees by which one sees its right-hand side.
        tilt: degrees by which one looks down on it.

    Returns:
        (pixels, pixels, 3) RGB in [0, 1], white where there is nothing.
    """
    points = 20 * pixels * pixels
    pos, leaf = sample_points(root, points, np.random.default_rng(0))
    pos = pos - (pos.max(0) + pos.min(0)) / 2
    a, b = np.radians(turn), np.radians(tilt)
    x = pos[:, 0] * np.cos(a) - pos[:, 2] * np.sin(a)
    z = pos[:, 0] * np.sin(a) + pos[:, 2] * np.cos(a)
    y, depth = pos[:, 1] * np.cos(b) - z * np.sin(b), pos[:, 1] * np.sin(b) + z * np.cos(b)
    scale = 0.92 * pixels / max(float(np.ptp(x)), float(np.ptp(y)))
    column = np.floor((x - (x.max() + x.min()) / 2) * scale + pixels / 2).astype(np.int64).clip(0, pixels - 1)
    row = np.floor(((y.max() + y.min()) / 2 - y) * scale + pixels / 2).astype(np.int64).clip(0, pixels - 1)
    order = np.argsort(depth, kind="stable")  # the nearest point of a pixel is written last
    cell = (row * pixels + column)[order]
    surface = np.full(pixels * pixels, depth.min() * scale)
    surface[cell] = depth[order] * scale
    color = np.ones((pixels * pixels, 3))
    color[cell] = 0.2 + 0.8 * instance_colors(int(leaf.max()) + 1)[leaf[order] - 1]
    # Closing fills the pixels whose only points lie behind the surface.
    slope = np.gradient(ndimage.grey_closing(surface.reshape(pixels, pixels), 3))
    down, right = (s.clip(-4, 4) for s in slope)
    normal = np.stack((-right, down, np.ones_like(right)), axis=2)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    shade = 0.4 + 0.6 * ndimage.gaussian_filter((normal @ np.array((-0.35, 0.6, 0.72))).clip(0, 1), 0.7)
    shade[(color == 1).all(1).reshape(pixels, pixels)] = 1
    image: Array = color.reshape(pixels, pixels, 3) * shade[:, :, None]
    return image
