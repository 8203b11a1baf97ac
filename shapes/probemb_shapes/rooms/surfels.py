"""Surfaces as surfels, small discs with a normal and a colour, in the frame of a piece of furniture.

A piece stands on z = 0, is centred in x and y, z is up and its front looks to −y. Metres. Normals have no sign: a
surface is seen from both sides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

Array = np.ndarray[Any, np.dtype[Any]]

SPACING = 0.03
"""Metres between the surfels of simple surfaces."""

_NEIGHBOURS = 8
_MAX_RADIUS = 0.09


class Surfels(NamedTuple):
    """Discs that cover a surface.

    Attributes:
        pos: (S, 3) float64, metres.
        normal: (S, 3) float64, of unit length.
        radius: (S,) float64, metres.
        rgb: (S, 3) float64 in 0 … 1.
    """

    pos: Array
    normal: Array
    radius: Array
    rgb: Array

    def moved(self, angle: float, shift: ArrayLike) -> Surfels:
        """Turned about z by ``angle`` (radians, counterclockwise), then shifted."""
        turn = rotation(angle)
        return self._replace(pos=self.pos @ turn.T + np.asarray(shift, dtype=np.float64), normal=self.normal @ turn.T)

    def scaled(self, factors: ArrayLike) -> Surfels:
        """Scaled about the origin by a factor for each axis."""
        f = np.broadcast_to(np.asarray(factors, dtype=np.float64), (3,))
        normal = self.normal / f
        normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
        return Surfels(self.pos * f, normal, self.radius * f.max(), self.rgb)

    def size(self) -> Array:
        """(3,) extent of the centres."""
        return np.asarray(np.ptp(self.pos, axis=0))


def rotation(angle: float) -> Array:
    """(3, 3) rotation about z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def joined(*surfels: Surfels) -> Surfels:
    """All of them as one."""
    return Surfels(*(np.concatenate(field) for field in zip(*surfels, strict=True)))


def from_points(pos: Array, rgb: Array) -> Surfels:
    """Surfels of points scattered over a surface: (S, 3) metres and (S, 3) uint8.

    The normal is the direction in which the nearest points spread least. A disc reaches to the fifth neighbour, so
    that discs of points scattered independently leave about one part in a hundred of the surface open.
    """
    x = pos.astype(np.float64)
    distance, neighbour = cKDTree(x).query(x, k=_NEIGHBOURS + 1)
    around = x[neighbour] - x[neighbour].mean(1, keepdims=True)
    normal = np.linalg.eigh(np.einsum("ski,skj->sij", around, around))[1][:, :, 0]
    return Surfels(x, normal, distance[:, 5].clip(0.004, _MAX_RADIUS), rgb / 255.0)


def panel(corner: ArrayLike, u: ArrayLike, v: ArrayLike, rgb: ArrayLike) -> Surfels:
    """The parallelogram from ``corner`` along ``u`` and ``v``, in one colour.

    >>> len(panel((0, 0, 0), (0.3, 0, 0), (0, 0.06, 0), (1, 1, 1)).pos)
    20
    """
    origin, along, up = (np.asarray(a, dtype=np.float64) for a in (corner, u, v))
    length = np.linalg.norm(along), np.linalg.norm(up)
    rows, columns = (max(1, int(np.ceil(n / SPACING - 1e-9))) for n in length)
    a, b = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    pos = origin + a.reshape(-1, 1) * along + b.reshape(-1, 1) * up
    normal = np.cross(along, up)
    # Half the diagonal of a tile: neighbours just meet.
    radius = 0.51 * np.hypot(length[0] / rows, length[1] / columns)
    return _uniform(pos, np.broadcast_to(normal / np.linalg.norm(normal), pos.shape), float(radius), rgb)


def box(size: ArrayLike, base: ArrayLike, rgb: ArrayLike, *, without: str = "") -> Surfels:
    """The six sides of a box; ``base`` is the middle of its underside.

    Args:
        size: (3,) metres.
        base: (3,) metres.
        rgb: (3,) in 0 … 1.
        without: sides to leave out, of "t" top, "b" underside, "f" front (−y).
    """
    (x, y, z), (cx, cy, cz) = np.asarray(size, dtype=np.float64), np.asarray(base, dtype=np.float64)
    left, front = cx - x / 2, cy - y / 2
    ex, ey, ez = np.diag((x, y, z))
    sides = {
        "b": ((left, front, cz), ex, ey),
        "t": ((left, front, cz + z), ex, ey),
        "f": ((left, front, cz), ex, ez),
        "back": ((left, front + y, cz), ex, ez),
        "left": ((left, front, cz), ey, ez),
        "right": ((left + x, front, cz), ey, ez),
    }
    return joined(*(panel(*side, rgb) for name, side in sides.items() if name not in tuple(without)))


def ellipsoid(size: ArrayLike, base: ArrayLike, rgb: ArrayLike) -> Surfels:
    """An ellipsoid of a size; ``base`` is its lowest point."""
    half = np.asarray(size, dtype=np.float64) / 2
    count = max(24, int(4 * np.pi * (half.max() * np.sort(half)[1]) / SPACING**2))
    i = np.arange(count) + 0.5  # a spiral spreads evenly over the sphere
    height, turn = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    flat = np.sqrt(1 - height**2)
    sphere = np.stack((flat * np.cos(turn), flat * np.sin(turn), height), axis=1)
    normal = sphere / half
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    pos = sphere * half + np.asarray(base, dtype=np.float64) + (0, 0, half[2])
    return _uniform(pos, normal, 0.9 * SPACING, rgb)


def cloth(width: float, height: float, base: ArrayLike, rgb: ArrayLike, *, folds: float, depth: float) -> Surfels:
    """A hanging cloth in waves; ``base`` is the middle of its lower edge.

    Args:
        width: along x, metres.
        height: metres.
        base: (3,) metres.
        rgb: (3,) in 0 … 1.
        folds: waves over the width.
        depth: from the front to the back of a wave, metres.
    """
    flat = panel((-width / 2, 0, 0), (width, 0, 0), (0, 0, height), rgb)
    phase = 2 * np.pi * folds * flat.pos[:, 0] / width
    slope = depth * np.pi * folds / width * np.cos(phase)
    normal = np.stack((slope, -np.ones_like(slope), np.zeros_like(slope)), axis=1)
    stretch = np.sqrt(1 + slope**2)
    pos = flat.pos + np.stack((0 * phase, depth / 2 * np.sin(phase), 0 * phase), axis=1)
    return Surfels(pos + np.asarray(base, dtype=np.float64), normal / stretch[:, None], flat.radius * stretch, flat.rgb)


def _uniform(pos: Array, normal: Array, radius: float, rgb: ArrayLike) -> Surfels:
    color = np.broadcast_to(np.asarray(rgb, dtype=np.float64), pos.shape)
    return Surfels(pos, np.array(normal), np.full(len(pos), radius), np.array(color))
