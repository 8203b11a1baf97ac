"""Cabinets: a carcass, compartments in columns, a countertop."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.joinery import chance, choose, draw_bars
from probemb_shapes.families.primitives import box, plate, rectangle
from probemb_shapes.families.storage.base import draw_base, draw_rise
from probemb_shapes.families.storage.case import Case, Cell
from probemb_shapes.families.storage.front import Style, draw_style
from probemb_shapes.families.storage.kinds import KINDS, Kind
from probemb_shapes.families.storage.opening import draw_doors, draw_drawers
from probemb_shapes.families.tree import Node, leaf


def draw_cabinet(rng: np.random.Generator) -> Node:
    """A cabinet of one of the kinds."""
    kind = choose(rng, KINDS)
    width, height, depth = (rng.uniform(*span) for span in (kind.width, kind.height, kind.depth))
    board = rng.uniform(0.014, 0.03) if chance(rng, 0.8) else rng.uniform(0.03, 0.05)
    base = choose(rng, kind.bases)
    rise = draw_rise(rng, base, height)
    case = Case(width, rise, height, depth, board)
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
            *draw_base(rng, "none" if posts else base, case),
        ),
    )


def _carcass(rng: np.random.Generator, case: Case, to_floor: bool) -> list[Node]:
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


def _posts(rng: np.random.Generator, case: Case) -> list[Node]:
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


def _columns(rng: np.random.Generator, case: Case, kind: Kind, frame: list[Node]) -> list[tuple[Cell, str]]:
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
        columns.append((Cell(left, left + width, low, high), fill))
        left += width + b
    return columns


def _fill(
    rng: np.random.Generator,
    column: Cell,
    fill: str,
    case: Case,
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
        cell = Cell(column.left, column.right, high - tall, high)
        high -= tall + case.board
        if i < len(fill) - 1:
            shelves.append(_shelf(cell, cell.low - case.board / 2, case, 0.0))
        if letter in "dD":
            drawers += draw_drawers(rng, cell, 1 if letter == "d" else None, case, style)
        elif letter in "cC":
            pair = letter == "C" and width > 0.3
            doors += draw_doors(rng, cell, pair, case, style)
            if chance(rng, 0.25) or style.ajar > 0:
                shelves += _shelves(rng, cell, case, int(rng.integers(1, 4)), behind=True)
        elif letter == "O":
            shelves += _shelves(rng, cell, case, max(1, round(tall / rng.uniform(0.22, 0.45)) - 1), behind=False)


def _shelf(cell: Cell, y: float, case: Case, setback: float) -> Node:
    size = (cell.size[0], case.board, case.depth - setback)
    return leaf("shelf", box(size, (cell.center[0], y, -setback / 2)))


def _shelves(rng: np.random.Generator, cell: Cell, case: Case, count: int, *, behind: bool) -> list[Node]:
    gaps = np.ones(count + 1) if chance(rng, 0.6) else rng.uniform(0.6, 1.4, count + 1)
    heights = cell.low + cell.size[1] * np.cumsum(gaps)[:-1] / gaps.sum()
    setback = case.depth * rng.uniform(0.05, 0.2) if behind or chance(rng, 0.3) else 0.0
    return [_shelf(cell, float(y), case, setback) for y in heights]


def _countertop(rng: np.random.Generator, case: Case, style: Style) -> tuple[Node, ...]:
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
