"""What a depth camera in a room sees: the nearest surface of each pixel.

Surfels are drawn as discs (Zwicker et al., "Surface splatting", SIGGRAPH 2001): a pixel meets a disc where its ray
meets the disc's plane within its radius, and the nearest one counts. Walls, floor and ceiling are planes around
everything, so each ray meets them where it leaves the room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from probemb_shapes.rooms.layout import Opening
from probemb_shapes.rooms.surfels import Surfels

Array = np.ndarray[Any, np.dtype[Any]]

WIDTH, HEIGHT = 160, 120
FIELD = 60.0
"""Degrees across the width, as of usual depth cameras."""

NEAREST = 0.35
"""Metres: nearer things give no depth."""

_LARGEST = 9  # pixels from the middle of a disc to its edge


class Camera(NamedTuple):
    """A pose.

    Attributes:
        pos: (3,) metres.
        axes: (3, 3) rows: to the right, down and forward of the image.
    """

    pos: Array
    axes: Array


class View(NamedTuple):
    """An image; P pixels with a surface.

    Attributes:
        surface: (P,) row of the surfel, or −1 − p on plane p of the room: floor, ceiling, walls 0 … 3.
        pos: (P, 3) where the ray meets it, metres.
        normal: (P, 3) unit normal towards the camera.
        depth: (P,) along the optical axis, metres.
        pixel: (P,) row · width + column.
    """

    surface: Array
    pos: Array
    normal: Array
    depth: Array
    pixel: Array


def look_at(pos: Array, target: Array, roll: float = 0.0) -> Camera:
    """A camera at ``pos`` that looks to ``target``, rolled by radians.

    >>> look_at(np.zeros(3), np.array([0.0, 2.0, 0.0])).axes.round(6) + 0.0
    array([[ 1.,  0.,  0.],
           [ 0.,  0., -1.],
           [ 0.,  1.,  0.]])
    """
    forward = target - pos
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    return Camera(pos, np.stack((c * right + s * down, c * down - s * right, forward)))


def render(
    camera: Camera, surfels: Surfels, size: tuple[float, float, float], openings: Sequence[Opening] = ()
) -> View:
    """What a camera inside a room sees.

    Args:
        camera: its pose.
        surfels: all things in the room.
        size: of the room.
        openings: of its walls; through them nothing is seen but what stands in them.
    """
    focal = WIDTH / 2 / np.tan(np.radians(FIELD) / 2)
    column, row = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    ray = np.stack(((column - WIDTH / 2) / focal, (row - HEIGHT / 2) / focal, np.ones_like(row)), axis=2).reshape(-1, 3)
    depth, plane = _shell(camera, ray, size, openings)
    surface = -1 - plane

    pixel, disc, z = _fragments(camera, surfels, focal)
    np.minimum.at(depth, pixel, z)
    front = np.flatnonzero(z == depth[pixel])
    surface[pixel[front]] = disc[front]

    seen = np.flatnonzero(np.isfinite(depth) & (depth > NEAREST))
    surface, direction = surface[seen], ray[seen] @ camera.axes
    planes = np.array([(0, 0, 1), (0, 0, -1), (0, -1, 0), (1, 0, 0), (0, 1, 0), (-1, 0, 0)], dtype=np.float64)
    normal = np.where((surface < 0)[:, None], planes[(-1 - surface).clip(0)], _rows(surfels.normal, surface))
    normal = np.where((normal * direction).sum(1, keepdims=True) > 0, -normal, normal)
    return View(surface, camera.pos + direction * depth[seen, None], normal, depth[seen], seen)


def _rows(values: Array, surface: Array) -> Array:
    """Of each pixel's surfel; zeros where there is no surfel at all."""
    if not len(values):
        return np.zeros((len(surface), 3))
    return np.asarray(values[surface.clip(0)])


def _shell(
    camera: Camera, ray: Array, size: tuple[float, float, float], openings: Sequence[Opening]
) -> tuple[Array, Array]:
    """Depth at which each ray leaves the room, infinite through an opening, and the plane there."""
    direction = ray @ camera.axes
    to = np.where(direction > 0, np.array(size), 0.0) - camera.pos
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(direction != 0, to / direction, np.inf)
    axis = t.argmin(1)
    depth = t[np.arange(len(t)), axis]
    positive = direction[np.arange(len(t)), axis] > 0
    plane = np.array([(3, 5), (4, 2), (0, 1)])[axis, positive.astype(np.int64)]  # west east, south north, floor ceiling
    for opening in openings:
        at = camera.pos + direction * depth[:, None]
        along = at[:, opening.wall % 2]
        through = (plane == 2 + opening.wall) & (along > opening.start) & (along < opening.end)
        depth[through & (at[:, 2] > opening.low) & (at[:, 2] < opening.high)] = np.inf
    return depth, plane


def _fragments(camera: Camera, surfels: Surfels, focal: float) -> tuple[Array, Array, Array]:
    """Pixel, surfel and depth wherever a ray meets a disc."""
    local = (surfels.pos - camera.pos) @ camera.axes.T
    reach = surfels.radius
    near = np.flatnonzero(local[:, 2] > NEAREST / 2)
    x, y = (focal * local[near, i] / local[near, 2] + n / 2 for i, n in ((0, WIDTH), (1, HEIGHT)))
    pixels = focal * reach[near] / local[near, 2]
    inside = (x > -pixels) & (x < WIDTH + pixels) & (y > -pixels) & (y < HEIGHT + pixels)
    near, x, y = near[inside], x[inside], y[inside]
    steps = np.ceil(pixels[inside]).astype(np.int64).clip(1, _LARGEST)
    normal = surfels.normal[near] @ camera.axes.T
    # Half the time of double precision, and a micrometre is enough.
    column, row, nx, ny, nz, cx, cy, cz, constant, limit = (
        a.astype(np.float32)[:, None]
        for a in (
            *(np.floor(x), np.floor(y), *normal.T, *local[near].T),
            *((normal * local[near]).sum(1), reach[near] ** 2),
        )
    )
    found: list[tuple[Array, Array, Array]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for step in np.unique(steps).tolist():
        some = np.flatnonzero(steps == step)
        offset = np.arange(-step, step + 1, dtype=np.float32)
        dx, dy = (a.ravel() for a in np.meshgrid(offset, offset))
        u, v = column[some] + dx, row[some] + dy  # (surfels, pixels of the square around each)
        across, down = (
            (u + np.float32(0.5 - WIDTH / 2)) / np.float32(focal),
            (v + np.float32(0.5 - HEIGHT / 2)) / np.float32(focal),
        )
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            z = constant[some] / (nx[some] * across + ny[some] * down + nz[some])
            away = (z * across - cx[some]) ** 2 + (z * down - cy[some]) ** 2 + (z - cz[some]) ** 2
        # False where the disc is seen from its edge
        hit = (away <= limit[some]) & (u >= 0) & (u < WIDTH) & (v >= 0) & (v < HEIGHT)
        pixel = (v[hit] * WIDTH + u[hit]).astype(np.int64)
        found.append((pixel, np.broadcast_to(near[some, None], hit.shape)[hit], z[hit]))
    pixel, disc, z = (np.concatenate(field) for field in zip(*found, strict=True))
    keep = z > NEAREST / 2
    return pixel[keep], disc[keep], z[keep].astype(np.float64)  # as the image of depths
