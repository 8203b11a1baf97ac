"""Types of rooms, and what stands in them.

Each type is a function that furnishes a `Room` by a `Kit`, which draws the pieces from the models of one side of the
split. What finds no free place stays out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probemb_shapes.rooms import fixtures, simple
from probemb_shapes.rooms.kit import Kit
from probemb_shapes.rooms.layout import Item, Piece, Room, place
from probemb_shapes.rooms.models import Models

Array = np.ndarray[Any, np.dtype[Any]]


def furnished(models: Models, split: str, rng: np.random.Generator) -> tuple[str, Room]:
    """A room of a drawn type, furnished; the name of the type first."""
    names, weights = list(ROOMS), np.array([weight for weight, _, _ in ROOMS.values()])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    _, (low, high), furnish = ROOMS[name]
    width, depth = rng.uniform(low, high, 2)
    room, kit = Room((float(width), float(depth), float(rng.uniform(2.4, 2.9))), rng), Kit(models, split, rng)
    if name != "bathroom" and rng.random() < 0.3:
        fixtures.corner(room)
    fixtures.door(room, kit)
    if name != "bathroom" or rng.random() < 0.4:
        fixtures.windows(room, kit, plain=name == "kitchen")
    furnish(room, kit)
    fixtures.pictures(room, kit)
    return name, room


# --- helpers of the types


def _stand(room: Room, kit: Kit, category: str, chance: float = 1.0, wall: int | None = None) -> Item | None:
    """A piece along a wall."""
    if room.rng.random() >= chance:
        return None
    piece = kit.piece(category)
    return None if piece is None else room.along_wall(piece, wall=wall)


def _lay(room: Room, kit: Kit, category: str, support: Item | None, chance: float = 1.0, turn: float = 0.5) -> None:
    """A piece on top of another."""
    if support is not None and room.rng.random() < chance:
        piece = kit.piece(category)
        if piece is not None:
            room.on_top(piece, support, turn=turn)


def _clutter(room: Room, kit: Kit, support: Item | None, most: int) -> None:
    """Small things on top of another."""
    for _ in range(int(room.rng.integers(0, most + 1))):
        _lay(room, kit, ("books", "box", "lamp", "books")[int(room.rng.integers(4))], support)


def _chairs(room: Room, kit: Kit, table: Item, category: str, share: float) -> None:
    """Seats of one model around a table, at a share of its places."""
    key = kit.key(category)
    for side in range(4):
        length = table.size[side % 2]
        places = int(length // 0.62) if length > 0.55 else 0
        for i in range(places):
            piece = kit.piece(category, key=key, scaled=False)
            if piece is not None and room.rng.random() < share:
                along = (i + 0.5) / places * length - length / 2 + room.rng.normal(0, 0.03)
                room.before(piece, table, side, float(along))


def _dining_set(room: Room, kit: Kit, share: float = 0.8) -> Item | None:
    piece = kit.piece("table")
    table = None if piece is None else room.anywhere(piece, border=0.9, gap=0.5)
    if table is not None:
        _chairs(room, kit, table, "chair", share)
        _clutter(room, kit, table, 2)
    return table


def _work_place(room: Room, kit: Kit, desk: Item) -> None:
    """A seat before a desk, a screen on it."""
    seat = kit.piece("office chair" if room.rng.random() < 0.7 else "chair")
    if seat is not None:
        room.before(seat, desk, 0, float(room.rng.uniform(-0.2, 0.2)))
    if desk.size[2] < 1.0:
        _lay(room, kit, "monitor" if room.rng.random() < 0.7 else "laptop", desk, 0.9, turn=0.15)
        _clutter(room, kit, desk, 3)


def _desk(room: Room, kit: Kit) -> None:
    desk = _stand(room, kit, "desk")
    if desk is not None:
        _work_place(room, kit, desk)


def _facing_desks(room: Room, kit: Kit) -> None:
    """Two desks of one model back to back in the room."""
    key = kit.key("desk")
    first = kit.piece("desk", key=key, scaled=False)
    item = None if first is None else room.anywhere(first, border=1.2, gap=0.6)
    second = kit.piece("desk", key=key, scaled=False)
    if item is None or second is None:
        return
    back = np.array([-np.sin(item.angle), np.cos(item.angle)]) * (item.size[1] + 0.004)
    other = room.add(place(second, item.x + back[0], item.y + back[1], 0.0, item.angle + np.pi), touching=(item,))
    _work_place(room, kit, item)
    if other is not None:
        _work_place(room, kit, other)


def _stack(room: Room, kit: Kit, category: str, chance: float) -> None:
    """Two or three of one model on top of each other."""
    if room.rng.random() >= chance:
        return
    key = kit.key(category)
    piece = kit.piece(category, key=key, scaled=False)
    below = None if piece is None else room.along_wall(piece)
    for _ in range(int(room.rng.integers(1, 3))):
        piece = kit.piece(category, key=key, scaled=False)
        if below is None or piece is None:
            return
        below = room.add(place(piece, below.x, below.y, below.top, below.angle), touching=(below,))


def _row(room: Room, kit: Kit, wall: int) -> None:
    """A line of kitchen cabinets that touch, a worktop on them, a sink in it, a refrigerator beside, cabinets above."""
    rng = room.rng
    end, start = room.length(wall) - 0.02, 0.02
    fridge = kit.piece("refrigerator")
    if fridge is not None:
        wide = float(fridge.surfels.size()[0])
        if room.along_wall(fridge, wall=wall, along=start + wide / 2, out=0.0) is not None:
            start += wide + 0.005
    at, row = start, []
    for _ in range(12):
        washer = rng.random() < 0.12
        piece = kit.piece("washing machine" if washer else "kitchen cabinet", scaled=False)
        if piece is None:
            continue
        wide = float(piece.surfels.size()[0])
        if at + wide > end:
            break
        item = room.along_wall(piece, wall=wall, along=at + wide / 2, out=0.0, tries=1)
        if item is not None:
            row.append(item)
        elif row:
            break
        at += wide + (0.002 if item is not None else 0.1)
        if item is None:
            start = at
    if row:
        begin, stop = start, max(_ends(room, wall, item)[1] for item in row)
        _worktop(room, kit, wall, begin, stop, max(item.top for item in row))
        at = begin
        for _ in range(8):
            piece = kit.piece("upper cabinet", scaled=False)
            if piece is None:
                break
            wide = float(piece.surfels.size()[0])
            if at + wide > stop + 0.2:
                break
            if rng.random() < 0.85:
                room.along_wall(piece, wall=wall, along=at + wide / 2, z=1.45, out=0.0, tries=1)
            at += wide + 0.002


def _ends(room: Room, wall: int, item: Item) -> tuple[float, float]:
    along = item.corners()[:, wall % 2]
    return float(along.min()), float(along.max())


def _worktop(room: Room, kit: Kit, wall: int, start: float, stop: float, z: float) -> None:
    rng, wide, deep = room.rng, stop - start, 0.63
    hole = None
    if wide > 1.0:
        hole = (
            float(rng.uniform(-0.5, 0.5) * (wide - 0.9)),
            float(rng.uniform(0.45, 0.6)),
            float(rng.uniform(0.36, 0.44)),
        )
    slab = Piece("counter", "", simple.counter(rng, wide, deep, hole))
    item = room.along_wall(slab, wall=wall, along=(start + stop) / 2, z=z, out=0.0, tries=1)
    if item is None:
        return
    if hole is not None:
        bowl = place(Piece("sink", "", simple.basin(rng, hole[1] + 0.04, hole[2] + 0.04)), 0, 0)
        # Let in: its rim lies on the worktop, so it is no place where the boxes are apart.
        x, y = rotation_of(item) @ np.array([hole[0], 0.0]) + (item.x, item.y)
        rim = np.median(bowl.piece.surfels.pos[abs(bowl.piece.surfels.normal[:, 2]) > 0.9, 2])
        room.items.append(bowl._replace(x=float(x), y=float(y), z=item.top + 0.012 - float(rim), angle=item.angle))
    for _ in range(int(rng.integers(0, 4))):
        _lay(room, kit, "box" if rng.random() < 0.6 else "books", item)


def rotation_of(item: Item) -> Array:
    """(2, 2) rotation of an item in the plan."""
    c, s = np.cos(item.angle), np.sin(item.angle)
    return np.array([[c, -s], [s, c]])


# --- the types


def office(room: Room, kit: Kit) -> None:
    """Desks along the walls or facing each other, office chairs, filing cabinets, shelves."""
    if room.rng.random() < 0.5:
        _facing_desks(room, kit)
    for _ in range(int(room.rng.integers(2, 5))):
        _desk(room, kit)
    for category, chance in (
        ("bookshelf", 0.8),
        ("bookshelf", 0.5),
        ("cabinet", 0.6),
        ("sofa", 0.25),
        ("wardrobe", 0.3),
    ):
        _stand(room, kit, category, chance)
    for _ in range(2):
        _clutter(room, kit, _stand(room, kit, "filing cabinet", 0.6), 1)
    _stack(room, kit, "crate", 0.3)
    _stand(room, kit, "trash can", 0.8)
    if room.rng.random() < 0.3:
        _dining_set(room, kit, 0.6)


def living_room(room: Room, kit: Kit) -> None:
    """A sofa with a low table before it and armchairs around, a television opposite, a piano, shelves."""
    rng = room.rng
    sofa = _stand(room, kit, "sofa")
    if sofa is not None:
        for _ in range(int(rng.integers(0, 3))):
            _lay(room, kit, "pillow", sofa)
        table = kit.piece("coffee table")
        if table is None:
            table = kit.piece("table")  # there is none on this side of the split: a table, lowered
            if table is not None:
                low = rng.uniform(0.4, 0.48) / table.surfels.size()[2]
                table = table._replace(category="coffee table", surfels=table.surfels.scaled((0.8, 0.8, low)))
        if table is not None:
            out = sofa.size[1] / 2 + rng.uniform(0.3, 0.45) + table.surfels.size()[1] / 2
            x, y = rotation_of(sofa) @ np.array([0.0, -out]) + (sofa.x, sofa.y)
            low_table = room.add(place(table, x, y, 0.0, sofa.angle))
            if low_table is not None:
                _clutter(room, kit, low_table, 2)
                for side in (1, 3, 0):
                    seat = kit.piece("armchair")
                    if seat is not None and rng.random() < 0.6:
                        room.before(seat, low_table, side, tucked=False)
        opposite = (round(sofa.angle / (np.pi / 2)) + 2) % 4
        stand = _stand(room, kit, "tv stand" if rng.random() < 0.6 else "chest", 0.8, wall=opposite)
        _lay(room, kit, "tv", stand, 0.8, turn=0.05)
    _stand(room, kit, "sofa", 0.5)
    for category, chance in (("bookshelf", 0.6), ("piano", 0.3), ("cabinet", 0.5), ("chest", 0.3), ("armchair", 0.5)):
        item = _stand(room, kit, category, chance)
        if item is not None and category in ("cabinet", "chest"):
            _clutter(room, kit, item, 2)
        if item is not None and category == "piano":
            bench = kit.piece("bench")
            if bench is not None:
                room.before(bench, item, 0)
    if rng.random() < 0.35:
        _dining_set(room, kit)


def bedroom(room: Room, kit: Kit) -> None:
    """A bed or two with their heads to the wall, nightstands, a wardrobe, a desk."""
    rng = room.rng
    for _ in range(1 if rng.random() < 0.75 else 2):
        bed = _stand(room, kit, "bed")
        if bed is None:
            continue
        wall = round(bed.angle / (np.pi / 2)) % 4
        start, end = _ends(room, wall, bed)
        for at in (start - 0.27, end + 0.27):
            piece = kit.piece("nightstand")
            if piece is not None and rng.random() < 0.7:
                stand = room.along_wall(piece, wall=wall, along=at, tries=1)
                _lay(room, kit, "lamp", stand, 0.6)
        for _ in range(int(rng.integers(0, 3))):
            _lay(room, kit, "pillow", bed)
    for category, chance in (("wardrobe", 0.8), ("cabinet", 0.5), ("chest", 0.4), ("bookshelf", 0.35)):
        item = _stand(room, kit, category, chance)
        _lay(room, kit, "box", item, 0.4)
    if rng.random() < 0.5:
        _desk(room, kit)
    for category, chance in (
        ("armchair", 0.35),
        ("chair", 0.4),
        ("trash can", 0.3),
        ("treadmill", 0.1),
        ("bench", 0.2),
    ):
        _stand(room, kit, category, chance)


def kitchen(room: Room, kit: Kit) -> None:
    """One or two rows of cabinets under a worktop, a table with chairs."""
    doorways = {opening.wall for opening in room.openings if opening.low == 0}
    walls = [wall for wall in room.rng.permutation(4).tolist() if wall not in doorways]
    for wall in walls[: 1 if room.rng.random() < 0.5 else 2]:
        _row(room, kit, wall)
    if room.rng.random() < 0.8:
        _dining_set(room, kit)
    for category, chance in (("trash can", 0.7), ("cabinet", 0.4), ("refrigerator", 0.2), ("washing machine", 0.3)):
        _stand(room, kit, category, chance)
    _stack(room, kit, "crate", 0.2)


def bathroom(room: Room, kit: Kit) -> None:
    """A bathtub with its curtain, a toilet, a sink."""
    rng = room.rng
    tub = _stand(room, kit, "bathtub", 0.85)
    piece = kit.piece("shower curtain")
    if tub is not None and piece is not None and rng.random() < 0.8:
        # Hangs just outside the rim.
        out = tub.size[1] / 2 + piece.surfels.size()[1] / 2 + 0.005
        room_along = max(0.0, (tub.size[0] - piece.surfels.size()[0]) / 2)
        x, y = rotation_of(tub) @ np.array([rng.uniform(-room_along, room_along), -out]) + (tub.x, tub.y)
        room.add(place(piece, x, y, 0.12, tub.angle))
    for category, chance in (("toilet", 0.95), ("toilet", 0.1), ("sink", 0.95), ("sink", 0.25)):
        _stand(room, kit, category, chance)
    for category, chance in (("washing machine", 0.4), ("trash can", 0.6), ("cabinet", 0.3), ("radiator", 0.4)):
        item = _stand(room, kit, category, chance)
        if item is not None and category == "washing machine":
            _lay(room, kit, "box", item, 0.4)


def meeting_room(room: Room, kit: Kit) -> None:
    """Tables with many chairs, cabinets along the walls."""
    first = _dining_set(room, kit, 0.95)
    if first is not None and room.rng.random() < 0.5:
        # A second table of its model against its side
        shift = rotation_of(first) @ np.array([0.0, first.size[1] + 0.004])
        table = room.add(
            place(first.piece, first.x + shift[0], first.y + shift[1], 0.0, first.angle), touching=(first,)
        )
        if table is not None:
            _chairs(room, kit, table, "chair", 0.8)
    for category, chance in (
        *(("cabinet", 0.7), ("cabinet", 0.4), ("bookshelf", 0.6), ("chair", 0.7), ("chair", 0.7), ("desk", 0.3)),
        *(("trash can", 0.6), ("sofa", 0.2), ("chair", 0.5)),
    ):
        _stand(room, kit, category, chance)


def cafe(room: Room, kit: Kit) -> None:
    """Several tables with chairs, a counter, a sofa, sometimes a game."""
    for _ in range(int(room.rng.integers(2, 6))):
        _dining_set(room, kit, 0.7)
    game = kit.piece("game table")
    if game is not None and room.rng.random() < 0.3:
        room.anywhere(game, border=1.0, gap=0.4)
    for category, chance in (
        ("sofa", 0.5),
        ("refrigerator", 0.4),
        ("bench", 0.5),
        ("trash can", 0.7),
        ("cabinet", 0.4),
    ):
        _stand(room, kit, category, chance)
    _stack(room, kit, "crate", 0.4)


ROOMS: dict[str, tuple[float, tuple[float, float], Callable[[Room, Kit], None]]] = {
    "office": (0.2, (3.0, 5.4), office),
    "living room": (0.2, (3.6, 5.8), living_room),
    "bedroom": (0.18, (3.2, 5.0), bedroom),
    "kitchen": (0.16, (2.8, 5.0), kitchen),
    "bathroom": (0.13, (2.2, 3.2), bathroom),
    "meeting room": (0.08, (3.4, 5.4), meeting_room),
    "cafe": (0.08, (4.5, 7.0), cafe),
}
"""Type → how often, least and largest width and depth in metres, and what furnishes it."""
