"""What belongs to the room itself: a corner walled off, doorways, windows with curtains, pictures."""

from __future__ import annotations

import numpy as np

from probemb_shapes.rooms import simple
from probemb_shapes.rooms.kit import Kit
from probemb_shapes.rooms.layout import Item, Opening, Piece, Room, place
from probemb_shapes.rooms.surfels import Surfels, box


def corner(room: Room) -> None:
    """A corner walled off, as in an L-shaped room."""
    size = room.rng.uniform(0.25, 0.38, 2) * room.size[:2] * (1 if room.rng.random() < 0.6 else 0.45)
    corner = room.rng.integers(0, 2, 2)
    x, y = np.where(corner == 1, np.array(room.size[:2]) - size / 2, size / 2)
    block = box((*size, room.size[2]), (0, 0, 0), (0.5, 0.5, 0.5))
    room.add(place(Piece("wall", "", block), x, y))


def door(room: Room, kit: Kit) -> None:
    """A doorway, empty or with its door shut or open."""
    rng = room.rng
    key = kit.models.keys(kit.split, "door")
    model = bool(key) and rng.random() < 0.5
    if model:
        piece = kit.piece("door", key=key[int(rng.integers(len(key)))])
    else:
        piece = Piece("door", "", simple.door(rng, rng.uniform(0.75, 0.95), rng.uniform(1.95, 2.1)))
    if piece is None:
        return
    width, deep, height = piece.surfels.size()
    for _ in range(20):
        wall = int(rng.integers(4))
        along = rng.uniform(width / 2 + 0.1, room.length(wall) - width / 2 - 0.1)
        if not _clear(room, wall, along, width, 0.8, height):
            continue
        room.openings.append(Opening(wall, along - width / 2, along + width / 2, 0.0, float(height)))
        state = rng.random()
        if state < 0.55:  # shut, or seen from the side on which it is let in
            x, y = room.wall_point(wall, along, float(rng.uniform(-0.04, 0.03)) - deep / 2 + 0.03)
            room.items.append(place(piece, x, y, 0.0, wall * np.pi / 2 + (np.pi if rng.random() < 0.5 else 0)))
        elif state < 0.85:  # open: the leaf stands into the room, hinged at one side
            opened = rng.uniform(0.45, 0.62) * np.pi
            side = 1 if rng.random() < 0.5 else -1
            angle = wall * np.pi / 2 + (opened if side > 0 else -opened)
            hinge = np.array(room.wall_point(wall, along, 0.05 + deep / 2))
            inward = np.array(room.wall_point(wall, along, 1.0)) - room.wall_point(wall, along, 0.0)
            right = np.array([-inward[1], inward[0]])
            hinge = hinge + side * right * width / 2
            x, y = hinge - side * right * np.cos(opened) * width / 2 + inward * np.sin(opened) * width / 2
            room.add(place(piece, x, y, 0.0, angle))
        _reserve(room, wall, along, width, 0.85, 0.0, float(height))
        return


def windows(room: Room, kit: Kit, *, plain: bool) -> None:
    """Up to three windows, and unless they are plain a radiator below some and curtains beside some."""
    rng = room.rng
    for wall in rng.permutation(4)[: int(rng.integers(1, 4))].tolist():
        keys = kit.models.keys(kit.split, "window")
        if keys and rng.random() < 0.3:
            piece = kit.piece("window", key=keys[int(rng.integers(len(keys)))])
        else:
            piece = Piece("window", "", simple.window(rng, rng.uniform(0.7, 2.0), rng.uniform(0.9, 1.5)))
        if piece is None:
            continue
        width, deep, height = (float(n) for n in piece.surfels.size())
        low = float(rng.uniform(0.75, 1.0))
        if room.length(wall) < width + 1.0 or low + height > room.size[2] - 0.1:
            continue
        along = float(rng.uniform(width / 2 + 0.4, room.length(wall) - width / 2 - 0.4))
        if not _clear(room, wall, along, width + 0.2, 0.1, room.size[2]):
            continue
        room.openings.append(Opening(wall, along - width / 2, along + width / 2, low, low + height))
        x, y = room.wall_point(wall, along, 0.05 - deep / 2)
        room.items.append(place(piece, x, y, low, wall * np.pi / 2))
        if not plain and rng.random() < 0.5:
            _curtains(room, wall, along, width, low + height)
        if not plain and rng.random() < 0.5:
            radiator = kit.piece("radiator")
            if radiator is not None and radiator.surfels.size()[2] < low:
                room.along_wall(radiator, wall=wall, along=along)
        _reserve(room, wall, along, width, 0.3, low + 0.1, low + height)


def _curtains(room: Room, wall: int, along: float, width: float, top: float) -> None:
    rng = room.rng
    high = min(top + 0.15, room.size[2] - 0.02)
    bottom = 0.03 if rng.random() < 0.6 else 0.7
    wide = rng.uniform(0.25, 0.5)
    color = rng.bit_generator.random_raw()  # both of one cloth
    for side in (-1, 1):
        surfels = simple.curtain(np.random.default_rng(color), wide, high - bottom)
        room.along_wall(
            Piece("curtain", "", surfels),
            wall=wall,
            along=along + side * (width / 2 + 0.05),
            z=bottom,
            out=0.06,
            tries=1,
        )


def pictures(room: Room, kit: Kit) -> None:
    for _ in range(int(room.rng.integers(0, 5))):
        piece = kit.piece("picture")
        if piece is not None:
            room.along_wall(piece, z=float(room.rng.uniform(1.25, 1.6)), out=0.005)


def _clear(room: Room, wall: int, along: float, width: float, out: float, height: float) -> bool:
    return room.free(_space(room, wall, along, width, out, 0.0, height)) and not any(
        opening.wall == wall and opening.start < along + width / 2 + 0.1 and opening.end > along - width / 2 - 0.1
        for opening in room.openings
    )


def _reserve(room: Room, wall: int, along: float, width: float, out: float, low: float, high: float) -> None:
    room.reserved.append(_space(room, wall, along, width, out, low, high))


def _space(room: Room, wall: int, along: float, width: float, out: float, low: float, high: float) -> Item:
    """An empty box before a wall."""
    x, y = room.wall_point(wall, along, out / 2)
    nothing = Surfels(np.zeros((1, 3)), np.zeros((1, 3)), np.zeros(1), np.zeros((1, 3)))
    return Item(Piece("", "", nothing), x, y, low, wall * np.pi / 2, np.array([width, out, high - low]))
