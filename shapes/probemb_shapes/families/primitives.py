"""Triangle meshes of the solids that furniture is made of.

Every solid is closed and its faces are counter-clockwise seen from outside, except where `lathe` says so.
y is up; lengths have no unit. Nothing here draws random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Points = Array | Sequence[Sequence[float]]
Vector = Array | Sequence[float]


class Mesh(NamedTuple):
    """A triangle mesh; the methods return new meshes.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64, rows of ``vertices``.
    """

    vertices: Array
    faces: Array

    @property
    def area(self) -> Array:
        """(F,) areas of the faces.

        >>> float(box((1, 2, 3)).area.sum())
        22.0
        """
        a, b, c = self.vertices[self.faces.T]
        return _norm(_cross(b - a, c - a)) / 2

    def moved(self, offset: Vector) -> Mesh:
        """Translated by ``offset`` (3,)."""
        return Mesh(self.vertices + np.asarray(offset, np.float64), self.faces)

    def scaled(self, factors: Vector | float) -> Mesh:
        """Scaled about the origin by one factor, or by one an axis.

        Raises:
            ValueError: a factor is not positive; `mirrored` reflects.
        """
        scale = np.asarray(factors, np.float64)
        if not (scale > 0).all():
            raise ValueError(f"factors must be positive, got {factors}: use mirrored(axis) for a reflection")
        return Mesh(self.vertices * scale, self.faces)

    def rotated(self, axis: int, degrees: float, center: Vector = (0.0, 0.0, 0.0)) -> Mesh:
        """Turned about the line through ``center`` along ``axis``: 0 turns y to z, 1 z to x, 2 x to y."""
        angle = np.deg2rad(degrees)
        c, s = np.cos(angle), np.sin(angle)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = c
        turn[i, j], turn[j, i] = -s, s
        middle = np.asarray(center, np.float64)
        return Mesh((self.vertices - middle) @ turn.T + middle, self.faces)

    def mirrored(self, axis: int) -> Mesh:
        """Reflected in the plane through the origin across ``axis``; faces still face outwards."""
        signs = np.ones(3)
        signs[axis] = -1
        return Mesh(self.vertices * signs, self.faces[:, ::-1])


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of all the faces.

    Raises:
        ValueError: there is no mesh.
    """
    if not meshes:
        raise ValueError("merge expects at least one mesh, got none")
    start = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + offset for mesh, offset in zip(meshes, start[:-1], strict=True)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


_CORNERS = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_BOX_QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
_BOX_FACES = np.array([f for a, b, c, d in _BOX_QUADS for f in ((a, b, c), (a, c, d))])


def box(size: Vector, center: Vector = (0.0, 0.0, 0.0)) -> Mesh:
    """A cuboid with edges ``size`` along the axes."""
    return Mesh(_CORNERS * np.asarray(size, np.float64) + np.asarray(center, np.float64), _BOX_FACES)


def cylinder(start: Vector, end: Vector, radius: float, end_radius: float | None = None, *, segments: int = 16) -> Mesh:
    """A round bar between two points, or a frustum where ``end_radius`` differs."""
    ends = None if end_radius is None else np.array([1.0, end_radius / radius])
    return sweep(np.stack((np.asarray(start, np.float64), end)), circle(radius, segments), scale=ends)


def sweep(curve: Points, section: Points, *, scale: Vector | None = None) -> Mesh:
    """A section swept along a curve, with flat caps: bent bars, curved legs, arched slats.

    The section's first coordinate starts along world x and its second along z (made perpendicular to the
    curve). Where the curve starts within 45° of the x-axis, the first starts along z and the second along y. From
    there the frame is carried along the curve without twist.

    Args:
        curve: (M, 3), M ≥ 2 distinct successive points.
        section: (S, 2) polygon, star-shaped about the mean of its points.
        scale: (M,) factors of the section along the curve.

    Raises:
        ValueError: the curve has fewer than 2 points, or equal successive points.
    """
    path = np.asarray(curve, np.float64)
    outline = _counter_clockwise(section)
    step = np.diff(path, axis=0)
    if len(path) < 2 or not (np.abs(step).max(1) > 0).all():
        raise ValueError(f"a curve needs 2 or more points, successive ones distinct, got {len(path)}: {path.tolist()}")
    step = step / _norm(step)[:, None]
    tangent = np.concatenate((step[:1], step[:-1] + step[1:], step[-1:]))  # (M, 3)
    tangent = tangent / np.maximum(_norm(tangent), 1e-9)[:, None]
    sideways = abs(tangent[0, 0]) > 0.7072
    first = np.empty_like(tangent)
    along = np.array([0.0, 0.0, 1.0]) if sideways else np.array([1.0, 0.0, 0.0])
    for i, t in enumerate(tangent):
        along = along - (along @ t) * t
        along = along / np.sqrt(along @ along)
        first[i] = along
    second = _cross(first, tangent)
    if (second[0, 1] if sideways else second[0, 2]) < 0:
        second = -second
    if np.dot(_cross(first[:1], second[:1])[0], tangent[0]) < 0:
        outline = outline[::-1]  # seen along the curve the outline must run the same way for outward faces
    size = np.ones(len(path)) if scale is None else np.asarray(scale, np.float64)
    flat = outline * size[:, None, None]  # (M, S, 2)
    rings = path[:, None] + flat[..., :1] * first[:, None] + flat[..., 1:] * second[:, None]
    return loft(rings)


def loft(rings: Array) -> Mesh:
    """The surface through successive closed polygons, with flat caps.

    Seen along the way from the first to the last, the polygons run clockwise where x, y, z are right-handed.

    Args:
        rings: (M, S, 3); the first and last star-shaped about the mean of their points.
    """
    ends = rings[[0, -1]].mean(1)
    return Mesh(np.concatenate((rings.reshape(-1, 3), ends)), _tube_faces(*rings.shape[:2]))


def lathe(profile: Points, *, segments: int = 24) -> Mesh:
    """A surface of revolution about the y-axis: shades, turned legs, knobs, rings.

    Closed where the profile begins and ends on the axis, or is a closed loop (first point equal to last).
    Otherwise the ends stay open and the surface is a thin sheet, such as a lamp shade. With the profile going
    upwards the faces face outwards.

    Args:
        profile: (M, 2) pairs (radius ≥ 0, height).
        segments: steps around the axis.

    Raises:
        ValueError: a radius is negative.
    """
    line = np.asarray(profile, np.float64)
    if (line[:, 0] < 0).any():
        raise ValueError(f"the radii of a profile must not be negative, got {line[:, 0].tolist()}")
    ring = circle(1.0, segments)  # (S, 2)
    radius, height = line.T
    x, z = radius[:, None] * ring[:, 0], radius[:, None] * ring[:, 1]
    vertices = np.stack((x, np.broadcast_to(height[:, None], x.shape), z), axis=-1).reshape(-1, 3)
    return Mesh(vertices, _lathe_faces(len(line), segments, tuple((radius == 0).nonzero()[0].tolist())))


def plate(outline: Points, thickness: float, *, holes: Sequence[Points] = ()) -> Mesh:
    """A flat outline in the x-z plane, extruded along y about y = 0: table tops, seats, frames.

    Args:
        outline: (S, 2), star-shaped about the mean of its points.
        thickness: along y.
        holes: at most one, inside the outline and with as many points; point i faces point i of the outline.

    Raises:
        ValueError: more than one hole, or one with another number of points.
    """
    half = np.array([0.0, thickness / 2, 0.0])
    rim = _counter_clockwise(outline)[::-1]  # x to z is clockwise seen from above
    flat = np.stack((rim[:, 0], np.zeros(len(rim)), rim[:, 1]), axis=1)
    if not holes:
        mean = flat.mean(0)
        return Mesh(np.concatenate((flat - half, flat + half, (mean - half, mean + half))), _tube_faces(2, len(rim)))
    if len(holes) > 1 or len(holes[0]) != len(rim):
        raise ValueError(
            f"plate takes one hole with as many points as the outline ({len(rim)}), got {[len(h) for h in holes]}"
        )
    gap = _counter_clockwise(holes[0])[::-1]
    inner = np.stack((gap[:, 0], np.zeros(len(gap)), gap[:, 1]), axis=1)
    rings = np.concatenate((flat - half, flat + half, inner + half, inner - half))
    return Mesh(rings, _ring_faces(4, len(rim)))


def cushion(size: Vector, *, exponent: float = 4.0, edge: float | None = None) -> Mesh:
    """A superellipsoid about the origin, with extents ``size``: seats, pillows.

    With half extents a, b, c: (|x/a|ᵖ + |z/c|ᵖ)^(q/p) + |y/b|^q = 1.

    Args:
        size: (3,).
        exponent: p of the outline seen from above; 2 is an ellipse, more is squarer.
        edge: q of the rounding over the edge, by default p.
    """
    p, q = exponent, exponent if edge is None else edge
    unit, faces = _cube_grid(8)
    level = (np.abs(unit[:, 0]) ** p + np.abs(unit[:, 2]) ** p) ** (1 / p)
    level = (level**q + np.abs(unit[:, 1]) ** q) ** (1 / q)
    return Mesh(unit / level[:, None] * (np.asarray(size, np.float64) / 2), faces)


def circle(radius: float, segments: int = 16) -> Array:
    """(segments, 2) points of a circle, counter-clockwise."""
    return np.asarray(radius * _unit_circle(segments))


def rectangle(width: float, depth: float, rounding: float = 0.0) -> Array:
    """(4, 2) corners of a rectangle, or (16, 2) points with corners of radius ``rounding``.

    Raises:
        ValueError: the rounding is over half the shorter side.
    """
    if rounding > min(width, depth) / 2 * (1 + 1e-9):
        raise ValueError(f"rounding {rounding} is over half the shorter side of {width} x {depth}: make it smaller")
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    if rounding <= 0:
        return np.asarray(signs * (width / 2, depth / 2))
    angle = np.deg2rad(np.arange(4)[:, None] * 90 + np.arange(4) * 30)  # (4 corners, 4)
    arcs = np.stack((np.cos(angle), np.sin(angle)), axis=-1) * rounding
    return np.asarray(signs[:, None] * (np.array([width / 2, depth / 2]) - rounding) + arcs).reshape(-1, 2)


def bend(mesh: Mesh, axis: int, towards: int, degrees: float) -> Mesh:
    """The mesh rolled along ``axis`` onto a circular arc of ``degrees``: curved backs and fronts.

    The middle stays; for positive degrees both ends move to the positive side of ``towards``. Lengths are kept
    halfway between the mesh's bounds along ``towards``. Faces are split as the arc needs.

    Raises:
        ValueError: the two axes are equal, or the mesh is so thick that its inner side would fold over.
    """
    if axis == towards:
        raise ValueError(f"axis and towards must be two axes, got {axis} twice")
    if degrees == 0:
        return mesh
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    radius = (high[axis] - low[axis]) / np.deg2rad(degrees)  # negative: the other way
    if abs(radius) <= (high[towards] - low[towards]) / 2:
        raise ValueError(
            f"a thickness of {high[towards] - low[towards]:g} folds over on an arc of radius {abs(radius):g}: bend less"
        )
    mesh = split(mesh, axis, float(high[axis] - low[axis]) / np.ceil(abs(degrees) / 10))
    middle = (low + high) / 2
    angle = (mesh.vertices[:, axis] - middle[axis]) / radius
    distance = radius - (mesh.vertices[:, towards] - middle[towards])  # from the arc's centre
    vertices = mesh.vertices.copy()
    vertices[:, axis] = middle[axis] + distance * np.sin(angle)
    vertices[:, towards] = middle[towards] + radius - distance * np.cos(angle)
    return Mesh(vertices, mesh.faces)


def split(mesh: Mesh, axis: int, limit: float) -> Mesh:
    """The same surface with edges halved until none is longer than ``limit`` along ``axis``: for what curves it.

    Vertices are no longer shared between faces.

    Raises:
        ValueError: the limit is not positive.
    """
    if not limit > 0:
        raise ValueError(f"limit must be positive, got {limit}")
    limit *= 1 + 1e-9
    todo, done = mesh.vertices[mesh.faces], []  # triangles (F, 3, 3)
    while len(todo):
        following = np.roll(todo, -1, axis=1)
        long = np.abs(following[..., axis] - todo[..., axis]) > limit  # (F, 3): edge i from corner i to i + 1
        count = long.sum(1)
        done.append(todo[count == 0])
        middle = (todo + following) / 2
        # Of two or more long edges the longest spans the others: halving these leaves no open seams, since each
        # edge is judged by its own length, equal for both of its faces.
        pieces: list[Array] = []
        for marks in range(1, 8):
            chosen = (long @ np.array([1, 2, 4])) == marks
            if chosen.any():
                corner = np.concatenate((todo[chosen], middle[chosen]), axis=1)  # (F', 6, 3)
                pieces.extend(corner[:, list(face)] for face in _SPLITS[marks])
        todo = np.concatenate(pieces) if pieces else todo[:0]
    soup = np.concatenate(done).reshape(-1, 3)
    return Mesh(soup, np.arange(len(soup)).reshape(-1, 3))


def _cross(a: Array, b: Array) -> Array:
    # np.cross spends more time on its axes than on these few rows.
    return np.stack(
        (
            a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1],
            a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2],
            a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0],
        ),
        axis=1,
    )


def _norm(x: Array) -> Array:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", x, x)))


def _counter_clockwise(outline: Points) -> Array:
    polygon = np.asarray(outline, np.float64)
    x, y = polygon.T
    return polygon if x @ (np.roll(y, -1) - np.roll(y, 1)) >= 0 else polygon[::-1]


@lru_cache(maxsize=64)
def _unit_circle(segments: int) -> Array:
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    return np.stack((np.cos(angle), np.sin(angle)), axis=1)


@lru_cache(maxsize=256)
def _strip_faces(rings: int, segments: int) -> Array:
    """Two triangles for each quad between successive rings of ``segments`` points."""
    i, j = np.divmod(np.arange((rings - 1) * segments), segments)
    k = (j + 1) % segments
    a, b, c, d = i * segments + j, i * segments + k, (i + 1) * segments + k, (i + 1) * segments + j
    return np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1)))


@lru_cache(maxsize=256)
def _tube_faces(rings: int, segments: int) -> Array:
    """The strip, and fans about the last two vertices that close its first and last ring."""
    j = np.arange(segments)
    k = (j + 1) % segments
    last, center = (rings - 1) * segments, rings * segments
    bottom = np.stack((k, j, np.full(segments, center)), 1)
    top = np.stack((last + j, last + k, np.full(segments, center + 1)), 1)
    return np.concatenate((_strip_faces(rings, segments), bottom, top))


@lru_cache(maxsize=64)
def _ring_faces(rings: int, segments: int) -> Array:
    """The strip whose last ring is joined to its first."""
    return np.asarray(_strip_faces(rings + 1, segments) % (rings * segments))


@lru_cache(maxsize=256)
def _lathe_faces(rings: int, segments: int, poles: tuple[int, ...]) -> Array:
    """The strip without the empty triangles at rings of radius 0, turned outwards."""
    faces = _strip_faces(rings, segments)[:, ::-1]
    on_pole = np.isin(faces // segments, poles)
    ring = faces // segments
    empty = [(on_pole[:, i] & (ring[:, i] == ring[:, j])) for i, j in ((0, 1), (1, 2), (2, 0))]
    return np.ascontiguousarray(faces[~np.any(empty, axis=0)])


@lru_cache(maxsize=8)
def _cube_grid(n: int) -> tuple[Array, Array]:
    """Vertices on the surface of [−1, 1]³ and faces, n × n quads a side; seams are not shared."""
    # Tangents spread the directions evenly after the projection onto a round shape.
    t = np.tan(np.linspace(-np.pi / 4, np.pi / 4, n + 1))
    u, v = (g.ravel() for g in np.meshgrid(t, t, indexing="ij"))
    a = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    quad = np.concatenate((np.stack((a, a + n + 1, a + n + 2), 1), np.stack((a, a + n + 2, a + 1), 1)))
    vertices: list[Array] = []
    faces: list[Array] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            side = np.empty((len(u), 3))
            side[:, axis], side[:, (axis + 1) % 3], side[:, (axis + 2) % 3] = sign, u, v
            faces.append((quad if sign > 0 else quad[:, ::-1]) + len(vertices) * len(u))
            vertices.append(side)
    return np.concatenate(vertices), np.concatenate(faces)


# Corners 0 1 2 and middles 3 (of 0-1), 4 (of 1-2), 5 (of 2-0); bit i of the key is edge i.
_SPLITS: dict[int, tuple[tuple[int, int, int], ...]] = {
    1: ((0, 3, 2), (3, 1, 2)),
    2: ((0, 1, 4), (0, 4, 2)),
    3: ((0, 3, 2), (3, 4, 2), (3, 1, 4)),
    4: ((0, 1, 5), (5, 1, 2)),
    5: ((0, 3, 5), (3, 1, 5), (5, 1, 2)),
    6: ((0, 1, 5), (5, 1, 4), (5, 4, 2)),
    7: ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)),
}
