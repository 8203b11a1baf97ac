"""Storage furniture: cabinets with doors and drawers, bookcases, racks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from probemb_shapes.classes import levels
from probemb_shapes.families.joinery import (
    caster,
    chance,
    choose,
    draw_bars,
    draw_legs,
    rounded_path,
)
from probemb_shapes.families.primitives import (
    Mesh,
    box,
    cushion,
    cylinder,
    plate,
    rectangle,
)
from probemb_shapes.families.storage.front import Style, draw_style, handles_on
from probemb_shapes.families.tree import Node, group, leaf, parts

Array = np.ndarray[Any, np.dtype[Any]]

LEVELS = levels(
    {
        "storage_furniture": {
            "countertop": (),
            "shelf": (),
            "cabinet_frame": (
                "top_panel",
                "bottom_panel",
                "back_panel",
                "vertical_side_panel",
                "vertical_divider_panel",
                "frame_vertical_bar",
                "frame_horizontal_bar",
            ),
            "cabinet_door": {
                "cabinet_door_surface": ("door_panel", "door_frame", "glass"),
                "handle": (),
                "hinge": (),
            },
            "drawer": {
                "drawer_box": ("drawer_front", "drawer_side", "drawer_back", "drawer_bottom"),
                "handle": (),
            },
            "cabinet_base": {
                "foot_base": ("foot", "caster"),
                "panel_base": ("base_panel",),
            },
        },
    }
)

MIN_PARTS, MAX_PARTS = 3, 40


class _Kind(NamedTuple):
    """Spans of the proportions in metres and of the number of columns, and what the columns hold."""

    width: tuple[float, float]
    height: tuple[float, float]
    depth: tuple[float, float]
    columns: tuple[int, int]
    fills: str  # of a column, one letter a compartment from the top; oftener where listed repeatedly
    bases: tuple[tuple[float, str], ...]
    countertop: float  # probability


# d one drawer, D a stack of drawers, c door, C pair of doors, o open, O open with shelves
_LEGGED = ((0.25, "legs"), (0.25, "feet"), (0.2, "plinth"), (0.1, "sled"), (0.1, "sides"), (0.1, "none"))
_STANDING = ((0.35, "plinth"), (0.25, "sides"), (0.2, "feet"), (0.2, "none"))
_KINDS: tuple[tuple[float, _Kind], ...] = (
    # wardrobe
    (0.14, _Kind((0.8, 2.0), (1.7, 2.3), (0.5, 0.65), (1, 3), "C C C c c CD CD oC cd O", _STANDING, 0.3)),
    # bookcase
    (0.17, _Kind((0.4, 1.6), (0.8, 2.2), (0.22, 0.4), (1, 3), "O O O O O O OC OC Od oOc", _STANDING, 0.3)),
    # chest of drawers
    (0.14, _Kind((0.5, 1.4), (0.6, 1.3), (0.38, 0.55), (1, 2), "D D D D D dC oD Dd", _LEGGED, 0.6)),
    # nightstand
    (
        0.1,
        _Kind(
            (0.32, 0.6),
            (0.4, 0.75),
            (0.32, 0.5),
            (1, 1),
            "d d d do do do D D dc dc oc oo",
            (*_LEGGED, (0.15, "casters")),
            0.6,
        ),
    ),
    # TV unit
    (0.12, _Kind((1.0, 2.2), (0.32, 0.65), (0.33, 0.5), (2, 4), "o o o c c D D od od C oo", _LEGGED, 0.4)),
    # sideboard
    (0.12, _Kind((0.9, 2.0), (0.7, 1.0), (0.38, 0.55), (2, 4), "dc dc dc c c c D D C C O", _LEGGED, 0.6)),
    # kitchen unit
    (
        0.09,
        _Kind(
            (0.4, 1.8),
            (0.8, 0.92),
            (0.52, 0.65),
            (1, 3),
            "dc dc dc C C c c D D dC",
            ((0.7, "plinth"), (0.3, "legs")),
            0.95,
        ),
    ),
    # wall unit
    (0.07, _Kind((0.4, 1.2), (0.35, 0.9), (0.22, 0.4), (1, 3), "c c c C C C O Co", ((1, "none"),), 0.1)),
    # tall cabinet
    (0.1, _Kind((0.35, 0.75), (1.5, 2.2), (0.3, 0.65), (1, 1), "cc cc oc oc cD cD coc OC Odc CdC CC", _STANDING, 0.2)),
    # cubes
    (
        0.05,
        _Kind(
            (0.4, 1.5),
            (0.4, 1.8),
            (0.3, 0.42),
            (1, 4),
            "oo oo oo oo ooo ooo ooo ooo oco odo oooo",
            (*_STANDING, (0.2, "casters"), (0.3, "legs")),
            0.1,
        ),
    ),
)


class _Case(NamedTuple):
    """The inside of a carcass: x in ±width/2, y from floor to top, z in ±depth/2."""

    width: float
    floor: float
    top: float
    depth: float
    board: float


class _Cell(NamedTuple):
    """A compartment's clear opening."""

    left: float
    right: float
    low: float
    high: float

    @property
    def size(self) -> tuple[float, float]:
        return self.right - self.left, self.high - self.low

    @property
    def center(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.low + self.high) / 2


def storage_furniture(rng: np.random.Generator) -> Node:
    """A piece of storage furniture, y up, front to +z, in metres.

    Design choices, independent of each other as far as they can be built:

    1. kind and proportions: wardrobe, bookcase, chest, nightstand, TV unit, sideboard, kitchen unit, wall unit,
       tall cabinet, cubes, rack or ladder shelf
    2. columns: number, widths, symmetry
    3. compartments of a column: drawers, doors, pairs of doors, sliding doors, open, shelves
    4. fronts: flat, framed, raised, louvred, glazed; lying over the carcass or in it
    5. handles: knob, round bar, flat bar, arch, cup, edge strip or none; lying, standing, one or two; height
    6. base: legs, feet, plinth, sled, sides to the floor, casters or none
    7. carcass: thickness, top over or between the sides, posts at the corners
    8. countertop: none, board, rounded board, cornice
    9. back panel or none
    10. drawers: number, graded heights, boxes behind the fronts
    11. doors left open by an angle, drawers by a length
    12. shelves: number, spacing, setback
    13. of a rack: posts, braces, lean

    3 to 40 parts.
    """
    while True:
        make = choose(rng, ((0.89, _cabinet), (0.08, _rack), (0.03, _ladder)))
        root = make(rng)
        if MIN_PARTS <= sum(part.node.mesh is not None for part in parts(root)) <= MAX_PARTS:
            return root


# ---- cabinets


def _cabinet(rng: np.random.Generator) -> Node:
    kind = choose(rng, _KINDS)
    width, height, depth = (rng.uniform(*span) for span in (kind.width, kind.height, kind.depth))
    board = rng.uniform(0.014, 0.03) if chance(rng, 0.8) else rng.uniform(0.03, 0.05)
    base = choose(rng, kind.bases)
    rise = _rise(rng, base, height)
    case = _Case(width, rise, height, depth, board)
    style = draw_style(rng)
    back = chance(rng, 0.88)
    posts = base in ("legs", "feet") and chance(rng, 0.25)

    frame = _posts(rng, case) if posts else _carcass(rng, case, base == "sides")
    if back:
        frame.append(
            leaf("back_panel", box((width, height - rise, 0.008), (0, (height + rise) / 2, -depth / 2 - 0.004)))
        )
    shelves: list[Node] = []
    doors: list[Node] = []
    drawers: list[Node] = []
    for cell, fill in _columns(rng, case, kind, frame):
        _fill(rng, cell, fill, case, style, shelves, doors, drawers)
    countertop = _countertop(rng, case, style) if chance(rng, kind.countertop) else ()
    return Node(
        "storage_furniture",
        (
            *countertop,
            Node("cabinet_frame", tuple(frame)),
            *shelves,
            *doors,
            *drawers,
            *_base(rng, "none" if posts else base, case),
        ),
    )


def _rise(rng: np.random.Generator, base: str, height: float) -> float:
    """Height of the carcass above the floor."""
    spans = {
        "legs": (0.1, min(0.35, 0.4 * height)),
        "feet": (0.03, 0.1),
        "plinth": (0.04, 0.12),
        "sled": (0.08, min(0.25, 0.35 * height)),
        "sides": (0.03, 0.12),
        "casters": (0.06, 0.1),
    }
    return rng.uniform(*spans[base]) if base in spans else 0.0


def _carcass(rng: np.random.Generator, case: _Case, to_floor: bool) -> list[Node]:
    w, d, b = case.width, case.depth, case.board
    over = chance(rng, 0.5)  # the top lies over the sides
    low, high = 0.0 if to_floor else case.floor, case.top - b * over
    sides = [
        leaf("vertical_side_panel", box((b, high - low, d), (s * (w - b) / 2, (low + high) / 2, 0))) for s in (-1, 1)
    ]
    across = w if over else w - 2 * b
    return [
        leaf("top_panel", box((across, b, d), (0, case.top - b / 2, 0))),
        leaf("bottom_panel", box((w - 2 * b, b, d), (0, case.floor + b / 2, 0))),
        *sides,
    ]


def _posts(rng: np.random.Generator, case: _Case) -> list[Node]:
    """Posts at the corners that go on as the legs, and panels between them."""
    w, d, b = case.width, case.depth, case.board
    size = rng.uniform(1.2, 2.2) * b
    bars = draw_bars(rng, size)
    made = []
    for x in (-1, 1):
        for z in (-1, 1):
            at = (x * (w - size) / 2, z * (d - size) / 2)
            made.append(leaf("frame_vertical_bar", bars.bar((at[0], 0, at[1]), (at[0], case.top, at[1]), size)))
    middle, tall = (case.floor + case.top) / 2, case.top - case.floor
    made += [leaf("vertical_side_panel", box((b, tall, d - 2 * size), (x * (w - b) / 2, middle, 0))) for x in (-1, 1)]
    made.append(leaf("top_panel", box((w, b, d), (0, case.top - b / 2, 0))))
    made.append(leaf("bottom_panel", box((w - 2 * b, b, d), (0, case.floor + b / 2, 0))))
    if chance(rng, 0.4):
        made += [
            leaf("frame_horizontal_bar", bars.bar((-w / 2 + size, y, z), (w / 2 - size, y, z), size * 0.8))
            for y in (case.floor / 2,)
            for z in (-(d - size) / 2, (d - size) / 2)
        ]
    return made


def _columns(rng: np.random.Generator, case: _Case, kind: _Kind, frame: list[Node]) -> list[tuple[_Cell, str]]:
    """The columns and their fills; dividers between them are added to the frame."""
    count = int(rng.integers(kind.columns[0], kind.columns[1] + 1, 2).min())  # fewer are more usual
    share = np.ones(count) if chance(rng, 0.6) else rng.uniform(0.6, 1.4, count)
    if chance(rng, 0.7):
        share = share + share[::-1]
    b = case.board
    clear = case.width - (count + 1) * b
    widths = clear * share / share.sum()
    fills = [str(rng.choice(kind.fills.split())) for _ in range(count)]
    alike = choose(rng, ((0.45, "all"), (0.35, "mirrored"), (0.2, "free")))
    if alike == "all":
        fills = fills[:1] * count
    elif alike == "mirrored":
        fills = [fills[min(i, count - 1 - i)] for i in range(count)]
    columns, left = [], -case.width / 2 + b
    low, high = case.floor + b, case.top - b
    for i, (width, fill) in enumerate(zip(widths, fills, strict=True)):
        if i > 0:
            at = (left - b / 2, (low + high) / 2, 0)
            frame.append(leaf("vertical_divider_panel", box((b, high - low, case.depth), at)))
        columns.append((_Cell(left, left + width, low, high), fill))
        left += width + b
    return columns


def _fill(
    rng: np.random.Generator,
    column: _Cell,
    fill: str,
    case: _Case,
    style: Style,
    shelves: list[Node],
    doors: list[Node],
    drawers: list[Node],
) -> None:
    """Boards between the compartments of a column, and what they hold."""
    width, height = column.size
    weights = {"d": 0.35, "D": 1.0, "c": 1.0, "C": 1.0, "o": 0.7, "O": 1.2}
    if len(set(fill)) == 1:
        share = np.ones(len(fill))
    else:
        share = np.array([weights[letter] for letter in fill]) * rng.uniform(0.7, 1.3, len(fill))
    boards = (len(fill) - 1) * case.board
    heights = (height - boards) * share / share.sum()
    high = column.high
    for i, (letter, tall) in enumerate(zip(fill, heights, strict=True)):
        cell = _Cell(column.left, column.right, high - tall, high)
        high -= tall + case.board
        if i < len(fill) - 1:
            shelves.append(_shelf(cell, cell.low - case.board / 2, case, 0.0))
        if letter in "dD":
            drawers += _drawers(rng, cell, 1 if letter == "d" else None, case, style)
        elif letter in "cC":
            pair = letter == "C" and width > 0.3
            doors += _doors(rng, cell, pair, case, style)
            if chance(rng, 0.25) or style.ajar > 0:
                shelves += _shelves(rng, cell, case, int(rng.integers(1, 4)), behind=True)
        elif letter == "O":
            shelves += _shelves(rng, cell, case, max(1, round(tall / rng.uniform(0.22, 0.45)) - 1), behind=False)


def _shelf(cell: _Cell, y: float, case: _Case, setback: float) -> Node:
    size = (cell.size[0], case.board, case.depth - setback)
    return leaf("shelf", box(size, (cell.center[0], y, -setback / 2)))


def _shelves(rng: np.random.Generator, cell: _Cell, case: _Case, count: int, *, behind: bool) -> list[Node]:
    gaps = np.ones(count + 1) if chance(rng, 0.6) else rng.uniform(0.6, 1.4, count + 1)
    heights = cell.low + cell.size[1] * np.cumsum(gaps)[:-1] / gaps.sum()
    setback = case.depth * rng.uniform(0.05, 0.2) if behind or chance(rng, 0.3) else 0.0
    return [_shelf(cell, float(y), case, setback) for y in heights]


def _countertop(rng: np.random.Generator, case: _Case, style: Style) -> tuple[Node, ...]:
    w, d = case.width, case.depth + 0.008
    out = rng.uniform(0.005, 0.05)
    thick = rng.uniform(0.012, 0.05)
    front = style.thickness + rng.uniform(0, 0.04)  # covers fronts that lie over the carcass
    center = (0, case.top + thick / 2, (front - 0.008) / 2)
    form = choose(rng, ((0.5, "board"), (0.3, "rounded"), (0.2, "cornice")))
    if form == "board":
        return (leaf("countertop", box((w + 2 * out, thick, d + front), center)),)
    if form == "rounded":
        corner = rng.uniform(0.01, 0.08) * min(w, d)
        return (leaf("countertop", plate(rectangle(w + 2 * out, d + front, corner), thick).moved(center)),)
    steps = [
        box(
            (w + 2 * out * s, thick / 2, d + front * s), (0, case.top + thick * (0.25 + 0.5 * i), front * s / 2 - 0.004)
        )
        for i, s in enumerate((0.5, 1.3))
    ]
    return (leaf("countertop", *steps),)


# ---- fronts


def _front_size(cell: _Cell, case: _Case, style: Style) -> tuple[float, float, float]:
    """Width, height and back of the front that closes an opening."""
    w, h = cell.size
    grow = 0.45 * case.board * 2 if style.overlay else -0.004
    return w + grow, h + grow, case.depth / 2 - (0.0 if style.overlay else style.thickness)


def _doors(rng: np.random.Generator, cell: _Cell, pair: bool, case: _Case, style: Style) -> list[Node]:
    w, h, z = _front_size(cell, case, style)
    x, y = cell.center
    if pair and chance(rng, 0.15) and w > 0.8:  # sliding, one behind the other
        lap = 0.52 * w
        return [
            _door(style, lap, h, (x + s * (w - lap) / 2, y, z + (s > 0) * style.thickness), s < 0, 0.0) for s in (-1, 1)
        ]
    hinge_left = chance(rng, 0.5)
    leaves = [(x, w, hinge_left)] if not pair else [(x - w / 4, w / 2 - 0.002, True), (x + w / 4, w / 2 - 0.002, False)]
    made = []
    for at, width, left in leaves:
        angle = rng.uniform(8, 110) if chance(rng, style.ajar) else 0.0
        made.append(_door(style, width, h, (at, y, z), left, angle))
    return made


def _door(style: Style, w: float, h: float, at: tuple[float, float, float], left: bool, angle: float) -> Node:
    """A door about ``at``, hinged on its left or right, open by an angle."""
    surface = style.front(w, h)
    handles = [leaf("handle", mesh) for mesh in handles_on(style, w, h, door=True, right=left)]
    edge = -w / 2 if left else w / 2
    hinges = []
    if style.hinges:
        hinges = [
            leaf(
                "hinge",
                cylinder((edge, y - 0.03, style.thickness), (edge, y + 0.03, style.thickness), 0.007, segments=8),
            )
            for y in (-0.36 * h, 0.36 * h)
        ]
    nodes = [*surface, *handles, *hinges]
    turned = [
        Node(n.name, mesh=n.mesh.rotated(1, -angle if left else angle, (edge, 0, 0)).moved(at)) for n in nodes if n.mesh
    ]
    count = len(surface)
    return Node("cabinet_door", (Node("cabinet_door_surface", tuple(turned[:count])), *turned[count:]))


def _drawers(rng: np.random.Generator, cell: _Cell, count: int | None, case: _Case, style: Style) -> list[Node]:
    height = cell.size[1]
    if count is None:
        count = int(np.clip(round(height / rng.uniform(0.14, 0.3)), 2, 6))
    share = np.ones(count) if chance(rng, 0.6) else np.linspace(1, rng.uniform(1.2, 2.0), count)
    heights = height * share / share.sum()
    made, high = [], cell.high
    for tall in heights:
        one = _Cell(cell.left, cell.right, high - tall, high)
        out = rng.uniform(0.1, 0.6) * case.depth if chance(rng, style.ajar * 0.7) else 0.0
        made.append(_drawer(one, out, count > 1, case, style))
        high -= tall
    return made


def _drawer(cell: _Cell, out: float, stacked: bool, case: _Case, style: Style) -> Node:
    w, h, z = _front_size(cell, case, style)
    h = cell.size[1] - 0.005 if stacked else h
    x, y = cell.center
    at = (x, y, z + out)
    front = leaf("drawer_front", *(node.mesh for node in style.front(w, h) if node.mesh is not None))
    nodes = [front]
    if style.boxes or out > 0:
        t, inner, deep = 0.012, cell.size[0] - 0.03, case.depth * 0.88
        tall, low = 0.7 * cell.size[1], -0.4 * cell.size[1]
        middle = low + tall / 2
        nodes += [leaf("drawer_side", box((t, tall, deep), (s * (inner - t) / 2, middle, -deep / 2))) for s in (-1, 1)]
        nodes.append(leaf("drawer_back", box((inner - 2 * t, tall, t), (0, middle, -deep + t / 2))))
        nodes.append(leaf("drawer_bottom", box((inner - 2 * t, t, deep - t), (0, low + t / 2, -(deep - t) / 2))))
    handles = [leaf("handle", mesh) for mesh in handles_on(style, w, h, door=False)]
    moved = [Node(n.name, mesh=n.mesh.moved(at)) for n in (*nodes, *handles) if n.mesh]
    return Node("drawer", (Node("drawer_box", tuple(moved[: len(nodes)])), *moved[len(nodes) :]))


# ---- bases


def _base(rng: np.random.Generator, base: str, case: _Case) -> tuple[Node, ...]:
    w, d, rise = case.width, case.depth, case.floor
    if base == "plinth":
        back = rng.uniform(0.0, 0.12) * d
        if chance(rng, 0.4):
            solid = box((w * rng.uniform(0.9, 1), rise, d - back), (0, rise / 2, -back / 2))
            return group("cabinet_base", *group("panel_base", leaf("base_panel", solid)))
        t, front = case.board, d / 2 - back - case.board / 2
        panels = [leaf("base_panel", box((w, rise, t), (0, rise / 2, front)))]
        panels += [
            leaf("base_panel", box((t, rise, d - back - t), (s * (w - t) / 2, rise / 2, -(back + t) / 2)))
            for s in (-1, 1)
        ]
        return group("cabinet_base", *group("panel_base", *panels))
    if base == "sides":
        back = rng.uniform(0.0, 0.12) * d
        kick = box((w - 2 * case.board, rise, case.board), (0, rise / 2, d / 2 - back - case.board / 2))
        return group("cabinet_base", *group("panel_base", leaf("base_panel", kick)))
    if base == "none":
        return ()
    inset = rng.uniform(0.02, 0.12)
    xs = [-(w / 2) * (1 - inset), (w / 2) * (1 - inset)]
    if w > 1.5 and chance(rng, 0.5):
        xs.insert(1, 0.0)
    z = d / 2 * (1 - inset)
    if base == "sled":
        bars = draw_bars(rng, rng.uniform(0.02, 0.04))
        half = bars.size / 2
        feet = [
            leaf("foot", bars.along(rounded_path([(x, rise, -z), (x, half, -z), (x, half, z), (x, rise, z)], 0.04)))
            for x in (xs[0], xs[-1])
        ]
        return group("cabinet_base", *group("foot_base", *feet))
    corners = [(x, s * z) for x in xs for s in (-1, 1)]
    if base == "casters":
        nodes = [leaf("caster", caster(rng, (x, rise, z), rise * 0.4)) for x, z in corners]
        return group("cabinet_base", *group("foot_base", *nodes))
    if base == "legs":
        legs = draw_legs(rng, rng.uniform(0.03, 0.055))
        nodes = [leaf("foot", legs.leg((x, rise, z), (np.sign(x) * 0.7, np.sign(z) * 0.7))) for x, z in corners]
        return group("cabinet_base", *group("foot_base", *nodes))
    size = rng.uniform(0.04, 0.08)
    form = choose(rng, ((0.35, "block"), (0.25, "round"), (0.2, "bun"), (0.2, "taper")))
    ends = rng.uniform(0.4, 0.8)

    def foot(x: float, z: float) -> Mesh:
        if form == "block":
            return box((size, rise, size), (x, rise / 2, z))
        if form == "round":
            return cylinder((x, 0, z), (x, rise, z), size / 2)
        if form == "taper":
            return cylinder((x, 0, z), (x, rise, z), size / 2 * ends, size / 2)
        return cushion((size * 1.3, rise, size * 1.3), exponent=2.2).moved((x, rise / 2, z))

    return group("cabinet_base", *group("foot_base", *(leaf("foot", foot(x, z)) for x, z in corners)))


# ---- racks


def _rack(rng: np.random.Generator) -> Node:
    """Shelves between posts."""
    w, h, d = rng.uniform(0.3, 1.3), rng.uniform(0.6, 2.0), rng.uniform(0.22, 0.5)
    bars = draw_bars(rng, rng.uniform(0.018, 0.045))
    size, thick = bars.size, rng.uniform(0.012, 0.035)
    count = int(rng.integers(2, 7))
    lift = rng.uniform(0.05, 0.2)
    casters = chance(rng, 0.2)
    wheel = rng.uniform(0.02, 0.035) if casters else 0.0
    foot = 2.5 * wheel
    shelf_heights = np.linspace(foot + lift, h - (0 if chance(rng, 0.5) else 0.12), count)
    frame = [
        leaf("frame_vertical_bar", bars.bar((x * w / 2, foot, z * d / 2), (x * w / 2, h, z * d / 2)))
        for x in (-1, 1)
        for z in (-1, 1)
    ]
    if chance(rng, 0.5):  # rails under the shelves at the sides
        heights = shelf_heights if chance(rng, 0.5) else shelf_heights[[0, -1]]
        frame += [
            leaf("frame_horizontal_bar", bars.bar((x * w / 2, y, -d / 2), (x * w / 2, y, d / 2), size * 0.7))
            for x in (-1, 1)
            for y in heights
        ]
    if chance(rng, 0.35):  # crossed braces at the back
        low, high = shelf_heights[0], shelf_heights[-1]
        frame += [
            leaf("frame_horizontal_bar", bars.bar((s * w / 2, low, -d / 2), (-s * w / 2, high, -d / 2), size * 0.5))
            for s in (-1, 1)
        ]
    if chance(rng, 0.15):
        frame.append(
            leaf("back_panel", box((w, shelf_heights[-1] - shelf_heights[0], 0.008), (0, shelf_heights.mean(), -d / 2)))
        )
    form = choose(rng, ((0.6, "board"), (0.25, "slats"), (0.15, "rounded")))
    rim = rng.uniform(0.02, 0.06) if chance(rng, 0.25) else 0.0

    def shelf(y: float) -> Node:
        if form == "slats":
            slats = int(d / 0.06) + 2
            strips = [box((w, thick, 0.6 * d / slats), (0, y, -d / 2 + (i + 0.5) * d / slats)) for i in range(slats)]
            return leaf("shelf", *strips)
        if form == "rounded":
            return leaf("shelf", plate(rectangle(w + size, d + size, 0.12 * d), thick).moved((0, y, 0)))
        edges = [box((w, rim, 0.006), (0, y + rim / 2, s * d / 2)) for s in (-1, 1)] if rim else []
        return leaf("shelf", box((w, thick, d), (0, y, 0)), *edges)

    nodes = [
        leaf("caster", caster(rng, (x * w / 2, foot, z * d / 2), wheel)) for x in (-1, 1) for z in (-1, 1) if casters
    ]
    return Node(
        "storage_furniture",
        (
            Node("cabinet_frame", tuple(frame)),
            *(shelf(float(y)) for y in shelf_heights),
            *group("cabinet_base", *group("foot_base", *nodes)),
        ),
    )


def _ladder(rng: np.random.Generator) -> Node:
    """Shelves that get shallower upwards, between leaning rails."""
    w, h, d = rng.uniform(0.4, 0.9), rng.uniform(1.2, 2.0), rng.uniform(0.3, 0.5)
    bars = draw_bars(rng, rng.uniform(0.025, 0.045))
    thick = rng.uniform(0.015, 0.03)
    lean = rng.uniform(0.5, 0.95) * d  # way back of the front rails over their height
    a_frame = chance(rng, 0.4)
    count = int(rng.integers(3, 6))
    heights = np.linspace(rng.uniform(0.12, 0.3), 0.9 * h, count)
    frame = []
    for s in (-1, 1):
        frame.append(leaf("frame_vertical_bar", bars.bar((s * w / 2, 0, d / 2), (s * w / 2, h, d / 2 - lean))))
        if a_frame:
            frame.append(leaf("frame_vertical_bar", bars.bar((s * w / 2, 0, -d / 2), (s * w / 2, 0.9 * h, -d / 2))))
    shelves, back = [], -d / 2
    for y in heights:
        front = d / 2 - lean * y / h
        deep = max(front - back, 0.08)
        shelves.append(leaf("shelf", box((w - bars.size, thick, deep), (0, y, front - deep / 2))))
        if chance(rng, 0.2):
            frame.append(leaf("frame_horizontal_bar", bars.bar((-w / 2, y, front), (w / 2, y, front), bars.size * 0.6)))
    return Node("storage_furniture", (Node("cabinet_frame", tuple(frame)), *shelves))
