"""Where things stand: a rectangular room with pieces that do not run into each other.

The room spans [0, width] × [0, depth] × [0, height], the floor is z = 0. Walls count from 0: north (y = depth), west,
south, east. What stands along wall k is turned by k quarter turns, so that its front looks into the room. A place
along a wall is told by x for north and south and by y for west and east.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from probemb_shapes.rooms.surfels import Surfels, rotation

Array = np.ndarray[Any, np.dtype[Any]]

TOLERANCE = 0.01
"""Metres by which boxes may overlap: what touches does not collide."""

TUCKED = 0.04
"""Share of a tucked chair's surface that may lie in 5 cm cells of the table."""

_CELL = 0.05


class Piece(NamedTuple):
    """Something to be placed, in its own frame, see `surfels`.

    Attributes:
        category: raw category.
        model: the key of its model in the source, "" for a simple object.
        surfels: its surface.
    """

    category: str
    model: str
    surfels: Surfels


class Item(NamedTuple):
    """A piece in its place.

    Attributes:
        piece: what it is.
        x: of its middle, metres.
        y: of its middle, metres.
        z: of its underside, metres.
        angle: radians, counterclockwise.
        size: (3,) along its own axes, metres.
    """

    piece: Piece
    x: float
    y: float
    z: float
    angle: float
    size: Array

    @property
    def top(self) -> float:
        """Height of its upper end."""
        return self.z + float(self.size[2])

    def corners(self) -> Array:
        """(4, 2) corners of its footprint, in order."""
        unit = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        return np.asarray((unit * self.size[:2]) @ rotation(self.angle)[:2, :2].T + (self.x, self.y))

    def surfels(self) -> Surfels:
        """Its surface in the room."""
        return self.piece.surfels.moved(self.angle, (self.x, self.y, self.z))


class Opening(NamedTuple):
    """A hole in a wall: from ``start`` to ``end`` along wall ``wall``, from ``low`` to ``high`` above the floor."""

    wall: int
    start: float
    end: float
    low: float
    high: float


def place(piece: Piece, x: float, y: float, z: float = 0.0, angle: float = 0.0) -> Item:
    """A piece with the middle of its footprint at x, y and its lowest point at z."""
    low, high = piece.surfels.pos.min(0), piece.surfels.pos.max(0)
    shift = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    surfels = piece.surfels._replace(pos=piece.surfels.pos - shift)
    return Item(piece._replace(surfels=surfels), float(x), float(y), float(z), float(angle), high - low)


def overlap(a: Item, b: Item, margin: float = -TOLERANCE) -> bool:
    """Whether the boxes of two items come closer than ``margin``; negative: whether they overlap by as much."""
    if a.z >= b.top + margin or b.z >= a.top + margin:
        return False
    p, q = a.corners(), b.corners()
    for corners in (p, q):
        for axis in (corners[1] - corners[0], corners[2] - corners[1]):
            length = float(np.linalg.norm(axis))
            if length < 1e-9:
                continue
            u, v = p @ axis / length, q @ axis / length
            if u.min() >= v.max() + margin or v.min() >= u.max() + margin:
                return False
    return True


def shared_cells(a: Item, b: Item) -> float:
    """The share of the 5 cm cells of ``a``'s surface that hold some of ``b``'s, too."""
    cells, others = (np.unique(_cell_keys(item.surfels().pos)) for item in (a, b))
    return float(np.isin(cells, others).mean())


class Room:
    """A room being furnished.

    Args:
        size: (3,) width, depth and height, metres.
        rng: draws the places.

    Attributes:
        items: what is in the room, in the order of placing.
        openings: holes in its walls.
        reserved: boxes that stay free, before doors and windows.
    """

    def __init__(self, size: tuple[float, float, float], rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        self.items: list[Item] = []
        self.openings: list[Opening] = []
        self.reserved: list[Item] = []

    def length(self, wall: int) -> float:
        """Of a wall, metres."""
        return self.size[wall % 2]

    def wall_point(self, wall: int, along: float, out: float) -> tuple[float, float]:
        """The point ``along`` a wall and ``out`` of it into the room."""
        width, depth, _ = self.size
        return ((along, depth - out), (out, along), (along, out), (width - out, along))[wall]

    def free(self, item: Item, *, touching: tuple[Item, ...] = (), gap: float = -TOLERANCE) -> bool:
        """Whether an item lies in the room and clear of all others but those of ``touching``."""
        corners = item.corners()
        inside = (corners >= -TOLERANCE).all() and (corners <= np.array(self.size[:2]) + TOLERANCE).all()
        if not inside or item.top > self.size[2] + TOLERANCE:
            return False
        others = [other for other in self.items if not any(other is one for one in touching)]
        return not any(overlap(item, other, gap) for other in others) and not any(
            overlap(item, other) for other in self.reserved
        )

    def add(self, item: Item, *, touching: tuple[Item, ...] = (), gap: float = -TOLERANCE) -> Item | None:
        """Put an item there if it is `free`; else None."""
        if not self.free(item, touching=touching, gap=gap):
            return None
        self.items.append(item)
        return item

    def along_wall(
        self,
        piece: Piece,
        *,
        wall: int | None = None,
        along: float | None = None,
        z: float = 0.0,
        out: float | None = None,
        tries: int = 40,
    ) -> Item | None:
        """Stand or hang a piece with its back to a wall, at a drawn place unless it is given; None where none is free.

        Args:
            piece: what to place.
            wall: 0 … 3, or any.
            along: its middle along the wall, or anywhere.
            z: height of its underside.
            out: distance of its back from the wall; by default drawn from 0 to 4 cm.
            tries: places to try.
        """
        placed = place(piece, 0, 0)
        width, deep, _ = placed.size
        for _ in range(tries):
            k = int(self.rng.integers(4)) if wall is None else wall
            room = self.length(k) - width
            at = width / 2 + self.rng.random() * room if along is None else along
            if room < 0:
                continue
            if along is None and self.rng.random() < 0.5:  # in a corner, or against what stands there
                starts = [0.02, self.length(k) - 0.02 - width]
                for other in self.items:
                    if self._stands_along(other, k):
                        ends = other.corners()[:, k % 2]
                        starts += [float(ends.max()) + 0.003, float(ends.min()) - 0.003 - width]
                at = starts[int(self.rng.integers(len(starts)))] + width / 2
            back = self.rng.uniform(0, 0.04) if out is None else out
            x, y = self.wall_point(k, at, back + deep / 2)
            item = self.add(placed._replace(x=float(x), y=float(y), z=z, angle=k * np.pi / 2))
            if item is not None:
                return item
        return None

    def _stands_along(self, item: Item, wall: int) -> bool:
        """Whether an item stands on the floor with its back to a wall."""
        axis = 1 - wall % 2
        edge = self.size[axis] if wall in (0, 3) else 0.0
        return item.z < 0.01 and bool((abs(item.corners()[:, axis] - edge) < 0.06).sum() == 2)

    def anywhere(self, piece: Piece, *, border: float = 0.5, gap: float = 0.0, tries: int = 30) -> Item | None:
        """Stand a piece away from the walls, at any angle near a quarter turn."""
        width, depth, _ = self.size
        placed = place(piece, 0, 0)
        for _ in range(tries):
            x, y = self.rng.uniform(border, width - border), self.rng.uniform(border, depth - border)
            angle = int(self.rng.integers(4)) * np.pi / 2 + self.rng.normal(0, 0.08)
            item = self.add(placed._replace(x=float(x), y=float(y), angle=float(angle)), gap=gap)
            if item is not None:
                return item
        return None

    def on_top(self, piece: Piece, support: Item, *, turn: float = 0.5, tries: int = 8) -> Item | None:
        """Lay a piece on another, its footprint within the other's."""
        placed = place(piece, 0, 0)
        size = placed.size
        for _ in range(tries):
            angle = support.angle + self.rng.normal(0, turn)
            room = (support.size[:2] - np.hypot(size[0], size[1]) * 0.75) / 2
            if room.min() < 0:
                angle, room = support.angle, (support.size[:2] - size[:2]) / 2
            if room.min() < 0:
                return None
            x, y = rotation(support.angle)[:2, :2] @ self.rng.uniform(-room, room)
            level = surface_below(support, support.x + x, support.y + y, float(size[:2].max()) / 2)
            if level is None or level < 0.3 * support.top:
                continue
            candidate = placed._replace(x=support.x + float(x), y=support.y + float(y), z=level, angle=float(angle))
            item = self.add(candidate, touching=(support,))
            if item is not None:
                return item
        return None

    def before(self, piece: Piece, table: Item, side: int, along: float = 0.0, tucked: bool = True) -> Item | None:
        """A seat before side 0 … 3 of a table (0: its front), facing it, as far under it as it goes without a clash.

        Args:
            piece: the seat.
            table: what it faces.
            side: 0 front, 1 right, 2 back, 3 left.
            along: from the middle of the side, metres.
            tucked: False to keep the boxes apart.
        """
        out = np.array([(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)])[side]
        seat = place(piece, 0, 0)
        reach, deep = table.size[(side + 1) % 2] / 2, seat.size[1]
        across = np.array([-out[1], out[0]])
        turn = rotation(table.angle)[:2, :2]
        # A seat's front, −y, looks against ``out``.
        angle = table.angle + (side + 2) * np.pi / 2 + self.rng.normal(0, 0.12)
        start = self.rng.uniform(-0.65, 0.2) if tucked else 0.1
        for pull in np.arange(start, 0.45, 0.12):
            x, y = turn @ (out * (reach + deep * (0.5 + pull)) + across * along) + (table.x, table.y)
            item = seat._replace(x=float(x), y=float(y), angle=float(angle))
            clash = overlap(item, table) and (not tucked or shared_cells(item, table) > TUCKED)
            placed = None if clash else self.add(item, touching=(table,))
            if placed is not None:
                return placed
        return None


def surface_below(support: Item, x: float, y: float, reach: float) -> float | None:
    """The height of an item's surface around x, y: what a thing laid there would lie on. None where there is little."""
    pos = support.surfels().pos
    near = np.hypot(pos[:, 0] - x, pos[:, 1] - y) < max(reach, 0.08)
    if near.sum() < 4:
        return None
    return float(np.quantile(pos[near, 2], 0.98))


def _cell_keys(pos: Array) -> Array:
    cell = np.floor(pos / _CELL).astype(np.int64) + 1024
    return np.asarray((cell[:, 0] * 4096 + cell[:, 1]) * 4096 + cell[:, 2])
