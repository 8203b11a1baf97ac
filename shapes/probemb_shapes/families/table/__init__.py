"""Tables: dining, side, coffee and bar tables, desks with drawers, trestles, drop leaves, glass tops.

Lengths are about metres. The top's middle is over x = z = 0, the front looks along +z, the floor is y = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from probemb_shapes.classes import levels
from probemb_shapes.families.joinery import (
    Bars,
    Legs,
    caster,
    chance,
    choose,
    corner_reach,
    draw_bars,
    draw_legs,
    panel,
    rounded_path,
)
from probemb_shapes.families.primitives import (
    Mesh,
    bend,
    box,
    circle,
    cylinder,
    lathe,
    plate,
    rectangle,
    sweep,
)
from probemb_shapes.families.tree import Node, group, leaf, parts

Array = np.ndarray[Any, np.dtype[Any]]
Nodes = tuple[Node, ...]

LEVELS = levels(
    {
        "table": {
            "tabletop": {
                "tabletop_surface": ("board", "glass"),
                "tabletop_frame": ("bar", "rim"),
                "tabletop_dropleaf": (),
                "hutch": ("vertical_panel", "shelf", "back_panel"),
            },
            "table_base": {
                "regular_leg_base": ("leg", "apron", "bar_stretcher", "foot", "caster"),
                "trestle_base": ("leg", "foot", "bar_stretcher"),
                "sled_base": ("sled_runner", "bar_stretcher"),
                "pedestal_base": ("central_support", "pedestal", "foot"),
                "panel_base": ("vertical_panel", "back_panel", "bar_stretcher"),
                "cabinet_frame": (
                    "vertical_side_panel",
                    "vertical_divider_panel",
                    "horizontal_panel",
                    "back_panel",
                    "foot",
                ),
                "drawer": ("drawer_front", "drawer_box", "handle"),
                "cabinet_door": ("door_board", "handle"),
                "keyboard_tray": (),
                "shelf": (),
            },
        },
    }
)


MAX_PARTS = 40
"""A table with more leaves, such as a desk with all its drawers' boxes, is drawn again."""


class Plan(NamedTuple):
    """What the parts of one table agree on.

    Attributes:
        outline: (S, 2) of the top.
        width, depth: of the top.
        height: of its surface.
        thick: of the top.
        inset: from the top's edge to the base.
        round: the base stands on a circle or oval.
        bars, legs: sections of bars and legs.
        handle: makes the handle of every drawer or door, about the origin and towards +z, for its width.
    """

    outline: Array
    width: float
    depth: float
    height: float
    thick: float
    inset: float
    round: bool
    bars: Bars
    legs: Legs
    handle: Callable[[float], Mesh] | None

    @property
    def under(self) -> float:
        """Height of the top's lower side."""
        return self.height - self.thick

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Where legs stand, (x, z), around the table."""
        reach = corner_reach(self.outline)
        x, z = (reach * side / 2 - self.inset - self.legs.size / 2 for side in (self.width, self.depth))
        return [(x, z), (-x, z), (-x, -z), (x, -z)]


def table(rng: np.random.Generator) -> Node:
    """A table, y up, in metres.

    Design choices, independent of each other as far as they can be built:

    1. kind: dining, coffee, bar table, desk
    2. outline of the top: rectangle, rounded, boat, round, oval, superellipse, octagon
    3. construction of the top: one board, planks, frame with glass, rim, drop leaves
    4. base: legs, pedestal, trestle, panels, sled, crossed legs, cabinet, columns
    5. form of the legs: straight, tapered, splayed, turned, curved
    6. section and thickness of bars
    7. apron: none, plain, with drawers
    8. stretchers and their layout
    9. shelf below the top
    10. cabinets: number and side, drawers or doors, some of them open
    11. what stands on a desk: hutch, keyboard tray
    12. feet: none, pads, castors
    13. proportions: height, width and depth

    3 to 40 parts.
    """
    kinds: tuple[tuple[float, Callable[[np.random.Generator], Node]], ...] = (
        (0.38, _dining_table),
        (0.28, _coffee_table),
        (0.26, _desk),
        (0.08, _bar_table),
    )
    while True:
        shape = choose(rng, kinds)(rng)
        if parts(shape)[0].leaves.stop <= MAX_PARTS + 1:
            return shape


def _table(top: Nodes, base: Nodes) -> Node:
    return Node("table", (*group("tabletop", *top), *group("table_base", *base)))


# ----------------------------------------------------------------------------------------------------------- kinds


def _dining_table(rng: np.random.Generator) -> Node:
    depth = rng.uniform(0.65, 1.1)
    width = depth * choose(rng, ((0.35, 1.0), (0.65, rng.uniform(1.1, 2.4))))
    plan = _plan(rng, width, depth, rng.uniform(0.68, 0.8), curved=0.4)
    bases: tuple[tuple[float, Callable[[np.random.Generator, Plan], Nodes]], ...] = (
        (0.52, _leg_base),
        (0.17, _pedestal_base),
        (0.12, _trestle_base),
        (0.07, _sled_base),
        (0.06, _panel_base),
        (0.06, _crossed_base),
    )
    return _table(_top(rng, plan), choose(rng, bases)(rng, plan))


def _coffee_table(rng: np.random.Generator) -> Node:
    depth = rng.uniform(0.35, 0.75)
    width = depth * choose(rng, ((0.35, 1.0), (0.65, rng.uniform(1.1, 2.3))))
    cabinet = chance(rng, 0.28)
    plan = _plan(rng, width, depth, rng.uniform(0.3, 0.6), curved=0.0 if cabinet else 0.45)
    if cabinet:
        low = rng.uniform(0.0, 0.35) * plan.height
        x, z = plan.width / 2 - plan.inset * 0.5, plan.depth - plan.inset
        base = _cabinet(rng, plan, (-x, x), (low, plan.under), z)
        return _table(_top(rng, plan), (*base, *_block_feet(rng, plan, low)))
    bases: tuple[tuple[float, Callable[[np.random.Generator, Plan], Nodes]], ...] = (
        (0.55, _leg_base),
        (0.15, _pedestal_base),
        (0.1, _sled_base),
        (0.1, _panel_base),
        (0.1, _crossed_base),
    )
    return _table(_top(rng, plan), choose(rng, bases)(rng, plan))


def _bar_table(rng: np.random.Generator) -> Node:
    depth = rng.uniform(0.4, 0.7)
    width = depth * choose(rng, ((0.6, 1.0), (0.4, rng.uniform(1.1, 2.0))))
    plan = _plan(rng, width, depth, rng.uniform(0.85, 1.15), curved=0.6)
    base = choose(rng, ((0.5, _pedestal_base), (0.35, _leg_base), (0.15, _crossed_base)))
    return _table(_top(rng, plan), base(rng, plan))


def _desk(rng: np.random.Generator) -> Node:
    """Drawers or doors on one or both sides, or in the apron; other sides on legs or panels."""
    width, depth = rng.uniform(0.9, 1.8), rng.uniform(0.45, 0.8)
    plan = _plan(rng, width, depth, rng.uniform(0.68, 0.78), curved=0.0)
    top = _top(rng, plan)
    if chance(rng, 0.22):
        top = (*top, *_hutch(rng, plan))
    kind = choose(rng, ((0.3, "right"), (0.12, "left"), (0.25, "both"), (0.18, "none"), (0.15, "posts")))
    x, z = plan.width / 2 - plan.inset, plan.depth - 2 * plan.inset
    base: Nodes
    if kind == "posts":
        base = _post_base(rng, plan)
    elif kind == "none":
        base = _leg_base(rng, plan) if chance(rng, 0.6) else _panel_base(rng, plan)
    else:
        unit = plan.width * rng.uniform(0.2, 0.34)
        low = choose(rng, ((0.5, rng.uniform(0.0, 0.05)), (0.5, rng.uniform(0.1, 0.25))))
        sides = {"right": (1,), "left": (-1,), "both": (-1, 1)}[kind]
        units = tuple(
            _cabinet(rng, plan, (min(s * x, s * (x - unit)), max(s * x, s * (x - unit))), (low, plan.under), z)
            for s in sides
        )
        base = tuple(node for nodes in units for node in nodes)
        ends: list[tuple[float, float]] = []
        if low:
            inset = plan.legs.size / 2
            for s in sides:
                edges = (s * (x - inset), s * (x - unit + inset))
                ends += [(e, side * (z / 2 - inset)) for e in edges for side in (1, -1)]
        foot = tuple(leaf("foot", plan.legs.leg((a, low + 0.005, b), (0.0, 0.0))) for a, b in ends)
        base = (*base, *group("cabinet_frame", *foot))
        if len(sides) == 1:
            other = -sides[0] * x
            if chance(rng, 0.5):
                inset = plan.legs.size / 2
                at = other + sides[0] * inset
                legs = [leaf("leg", plan.legs.leg((at, plan.under, s * (z / 2 - inset)), (0.0, 0.0))) for s in (1, -1)]
                base = (*base, *group("regular_leg_base", *legs))
            else:
                thick = rng.uniform(0.018, 0.05)
                board = box((thick, plan.under, z), (other + sides[0] * thick / 2, plan.under / 2, 0))
                base = (*base, *group("panel_base", leaf("vertical_panel", board)))
        left = -x + unit * (-1 in sides)
        right = x - unit * (1 in sides)
        if chance(rng, 0.45):
            tall = rng.uniform(0.3, 0.9) * plan.under
            size = (right - left, tall, 0.016)
            back = box(size, ((left + right) / 2, plan.under - tall / 2, -z / 2 + rng.uniform(0.02, 0.1)))
            base = (*base, *group("panel_base", leaf("back_panel", back)))
        if chance(rng, 0.3):
            base = (*base, _drawer(rng, plan, (left, right), (plan.under - 0.11, plan.under - 0.005), z))
        elif chance(rng, 0.2):
            tray = box(
                ((right - left) * 0.94, 0.018, z * 0.6),
                ((left + right) / 2, plan.under - 0.11, z * rng.uniform(0.2, 0.4)),
            )
            base = (*base, leaf("keyboard_tray", tray))
    return _table(top, base)


def _plan(rng: np.random.Generator, width: float, depth: float, height: float, *, curved: float) -> Plan:
    """Draws the rest; ``curved`` is the probability of a round or oval top."""
    is_curved = chance(rng, curved)
    if is_curved:
        outline = circle(0.5, 40) * np.array([width, depth])
        if chance(rng, 0.2):  # between an ellipse and a rectangle
            outline = np.sign(outline) * np.abs(2 * outline / (width, depth)) ** 0.6 * np.array([width, depth]) / 2
        if chance(rng, 0.08):
            outline = circle(0.54, int(rng.integers(6, 9))) * np.array([width, depth])
    else:
        rounding = choose(rng, ((0.5, 0.0), (0.35, rng.uniform(0.01, 0.1)), (0.15, rng.uniform(0.1, 0.49))))
        outline = rectangle(width, depth, rounding * depth)
        if chance(rng, 0.08):
            bulge = rng.uniform(-0.12, 0.1)
            t = np.linspace(-0.5, 0.5, 12)
            long = np.stack((t * width, depth / 2 * (1 + bulge * (1 - 4 * t**2))), axis=1)
            outline = np.concatenate((long, -long))
    size = rng.uniform(0.03, 0.075) * min(1.0, 0.55 + height * 0.55)
    return Plan(
        outline=outline,
        width=width,
        depth=depth,
        height=height,
        thick=choose(rng, ((0.8, rng.uniform(0.012, 0.045)), (0.2, rng.uniform(0.045, 0.09)))),
        inset=choose(rng, ((0.4, 0.0), (0.6, rng.uniform(0.01, 0.1) * depth))),
        round=is_curved,
        bars=draw_bars(rng, size * 0.75),
        legs=draw_legs(rng, size, plain=height > 0.9),
        handle=_draw_handle(rng),
    )


# ------------------------------------------------------------------------------------------------------------- tops


def _top(rng: np.random.Generator, plan: Plan) -> Nodes:
    rectangular = len(plan.outline) == 4
    options: list[tuple[float, Callable[[np.random.Generator, Plan], Nodes]]] = [(0.62, _board_top), (0.12, _glass_top)]
    if rectangular:
        options += [(0.12, _plank_top), (0.06, _tray_top)]
    if len(plan.outline) == 4 or plan.round:
        options.append((0.1, _leaf_top))
    return choose(rng, options)(rng, plan)


def _board(plan: Plan, outline: Array, thick: float, low: float = 0.0) -> Mesh:
    """The outline as a board whose top is ``low`` under the table's."""
    return plate(outline, thick).moved((0, plan.height - low - thick / 2, 0))


def _board_top(rng: np.random.Generator, plan: Plan) -> Nodes:
    """One board, or two layers, the lower one smaller."""
    if chance(rng, 0.2):
        lower = _board(plan, plan.outline * rng.uniform(0.85, 0.97), plan.thick * 0.5, plan.thick * 0.5)
        upper = _board(plan, plan.outline, plan.thick * 0.5)
        return (
            *group("tabletop_surface", leaf("board", upper)),
            *group("tabletop_frame", leaf("rim", lower)),
        )
    return group("tabletop_surface", leaf("board", _board(plan, plan.outline, plan.thick)))


def _glass_top(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A pane on or in a frame."""
    inside = plan.outline * rng.uniform(0.75, 0.93)
    pane = leaf("glass", _board(plan, inside * 1.01, plan.thick * rng.uniform(0.25, 0.6)))
    rim = plate(plan.outline, plan.thick, holes=[inside]).moved((0, plan.height - plan.thick / 2, 0))
    return (*group("tabletop_surface", pane), *group("tabletop_frame", leaf("rim", rim)))


def _plank_top(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Planks side by side, along or across, sometimes between end boards."""
    along = chance(rng, 0.7)
    length, across = (plan.width, plan.depth) if along else (plan.depth, plan.width)
    count = int(rng.integers(3, 8))
    pitch = across / count
    gap = rng.uniform(0.0, 0.18) * pitch
    ends = rng.uniform(0.04, 0.09) if along and chance(rng, 0.35) else 0.0
    plank = box((length - 2 * ends, plan.thick, pitch - gap), (0, plan.height - plan.thick / 2, 0))
    plank = plank if along else plank.rotated(1, 90)
    step = np.array([0, 0, pitch]) if along else np.array([pitch, 0, 0])
    planks = [leaf("board", plank.moved(step * (i - (count - 1) / 2))) for i in range(count)]
    end = box((ends, plan.thick, plan.depth), ((length - ends) / 2, plan.height - plan.thick / 2, 0)) if ends else None
    bars = (leaf("bar", end), leaf("bar", end.mirrored(0))) if end is not None else ()
    return (*group("tabletop_surface", *planks), *group("tabletop_frame", *bars))


def _tray_top(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A board with a raised edge of four bars."""
    wide, tall = rng.uniform(0.012, 0.05), plan.thick + rng.uniform(0.005, 0.05)
    y = plan.under + tall / 2
    x, z = plan.width / 2 - wide / 2, plan.depth / 2 - wide / 2
    bars = [box((plan.width, tall, wide), (0, y, s * z)) for s in (1, -1)]
    bars += [box((wide, tall, plan.depth - 2 * wide), (s * x, y, 0)) for s in (1, -1)]
    board = _board(plan, rectangle(plan.width - 2 * wide, plan.depth - 2 * wide), plan.thick)
    return (
        *group("tabletop_surface", leaf("board", board)),
        *group("tabletop_frame", *(leaf("bar", bar) for bar in bars)),
    )


def _leaf_top(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A middle board with one or two leaves, raised or hanging."""
    cut = plan.width / 2 * rng.uniform(0.45, 0.75)
    x, z = plan.outline.T
    if plan.round:
        a = np.linspace(-1, 1, 15) * np.arccos(2 * cut / plan.width)
        wing = np.stack((plan.width / 2 * np.cos(a), plan.depth / 2 * np.sin(a)), axis=1)
        edge = abs(float(wing[0, 1]))
        t = np.linspace(-1, 1, 15) * (np.pi / 2 - np.arccos(2 * cut / plan.width))
        front = np.stack((plan.width / 2 * np.sin(t), plan.depth / 2 * np.cos(t)), axis=1)
        middle = np.concatenate((front, -front))
    else:
        edge = float(z.max())
        wing = np.array([(cut, -edge), (x.max(), -edge), (x.max(), edge), (cut, edge)])
        middle = rectangle(2 * cut, plan.depth)
    degrees = choose(rng, ((0.4, 0.0), (0.6, rng.uniform(70, 90))))
    flap = plate(wing, plan.thick).moved((0, plan.height - plan.thick / 2, 0))
    flap = flap.rotated(2, -degrees, (cut, plan.height - plan.thick, 0))
    flaps = (leaf("tabletop_dropleaf", flap), leaf("tabletop_dropleaf", flap.mirrored(0)))
    board = _board(plan, middle, plan.thick)
    return (*group("tabletop_surface", leaf("board", board)), *flaps)


def _hutch(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Shelves on the back of a desk."""
    tall, deep = rng.uniform(0.15, 0.6), plan.depth * rng.uniform(0.25, 0.45)
    wide = plan.width * choose(rng, ((0.7, rng.uniform(0.9, 1.0)), (0.3, rng.uniform(0.35, 0.6))))
    thick = rng.uniform(0.015, 0.025)
    middle = choose(rng, ((0.6, 0.0), (0.4, rng.choice((-1, 1)) * (plan.width - wide) / 2)))
    z = -plan.depth / 2 + deep / 2
    sides = np.linspace(-wide / 2 + thick / 2, wide / 2 - thick / 2, int(rng.integers(2, 5)))
    nodes = [leaf("vertical_panel", box((thick, tall, deep), (middle + x, plan.height + tall / 2, z))) for x in sides]
    for u in np.linspace(1, 0, int(rng.integers(1, 4)), endpoint=False):
        y = plan.height + u * tall - thick / 2
        nodes.append(
            leaf("shelf", box((wide - 2 * thick * (u < 1), thick, deep * rng.uniform(0.85, 1.0)), (middle, y, z)))
        )
    if chance(rng, 0.5):
        back = box((wide, tall, 0.01), (middle, plan.height + tall / 2, -plan.depth / 2 + 0.005))
        nodes.append(leaf("back_panel", back))
    return group("hutch", *nodes)


# ------------------------------------------------------------------------------------------------------------ bases


def _leg_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Four (or three, six) legs; apron, drawers in it, stretchers and a shelf as it comes."""
    corners = plan.corners
    size = plan.legs.size
    three = plan.round and chance(rng, 0.2)
    if three:
        corners = [
            (corners[0][0] * 1.25 * np.sin(a), corners[0][1] * 1.25 * np.cos(a)) for a in np.arange(3) * 2 * np.pi / 3
        ]
    elif plan.width > 1.5 and chance(rng, 0.2):
        corners = [*corners, (0.0, corners[0][1]), (0.0, corners[2][1])]
    legs = plan.legs._replace(splay=plan.legs.splay * min(1.0, plan.inset * 12 / plan.depth + 0.25))
    outs = []
    for x, z in corners:
        far = max(float(np.hypot(x, z)), 1e-9)
        outs.append((x / far, z / far))
    rolling = chance(rng, 0.07)
    wheel = rng.uniform(0.02, 0.035)
    capped = not rolling and chance(rng, 0.1)
    floor = 2.2 * wheel if rolling else rng.uniform(0.02, 0.05) if capped else 0.0
    tops = [np.array([x, plan.under, z]) for x, z in corners]
    nodes = [leaf("leg", legs.leg(top, out, floor)) for top, out in zip(tops, outs, strict=True)]
    for top, way in zip(tops, outs, strict=True):
        x, _, z = legs.curve(top, way, floor)[-1]
        if rolling:
            nodes.append(leaf("caster", caster(rng, (x, floor, z), wheel)))
        if capped:
            wide = size * float(legs.scale[-1]) * 0.65
            nodes.append(leaf("foot", cylinder((x, 0, z), (x, floor, z), wide, wide * 0.9, segments=12)))
    more: Nodes = ()
    if not three:
        if chance(rng, 0.62):
            apron, more = _apron(rng, plan)
            nodes += apron
        nodes += _stretchers(rng, plan, legs, tops[:4], outs[:4])
    if not rolling and chance(rng, 0.25):
        more = (*more, _low_shelf(rng, plan, legs, tops, outs))
    return (*group("regular_leg_base", *nodes), *more)


def _apron(rng: np.random.Generator, plan: Plan) -> tuple[list[Node], Nodes]:
    """Boards between the legs under the top; a row of drawers may take the front's place."""
    (x, z), *_ = plan.corners
    tall, thick = rng.uniform(0.04, 0.12), rng.uniform(0.014, 0.028)
    drawers = int(rng.integers(1, 4)) if not plan.round and plan.width > 0.4 and chance(rng, 0.3) else 0
    tall = max(tall, 0.08) if drawers else tall
    y = plan.under - tall / 2
    out = plan.legs.size / 2 * rng.uniform(-0.2, 0.8)
    boards = [box((2 * x, tall, thick), (0, y, -z - out))]
    if not drawers:
        front = boards[0].mirrored(2)
        boards.append(front)
    boards += [box((thick, tall, 2 * z), (s * (x + out), y, 0)) for s in (1, -1)]
    if chance(rng, 0.12) and not drawers:
        arch = bend(box((2 * x, thick, thick)), 0, 1, -rng.uniform(15, 40))
        boards = [arch.moved((0, y, s * (z + out))) for s in (1, -1)] + boards[2:]
    edges = np.linspace(-x, x, drawers + 1) if drawers else np.zeros(1)
    fronts = tuple(
        _drawer(rng, plan, (float(a), float(b)), (plan.under - tall, plan.under - 0.003), 2 * (z + out))
        for a, b in pairwise(edges)
    )
    return [leaf("apron", board) for board in boards], fronts


def _stretchers(
    rng: np.random.Generator, plan: Plan, legs: Legs, tops: list[Array], outs: list[tuple[float, float]]
) -> list[Node]:
    kind = choose(rng, ((0.55, "none"), (0.15, "H"), (0.15, "box"), (0.08, "X"), (0.07, "sides")))
    height = rng.uniform(0.08, 0.45) * plan.under
    at = [legs.at(top, out, height) for top, out in zip(tops, outs, strict=True)]
    pairs: list[tuple[Array, Array]] = []
    if kind in ("H", "box", "sides"):
        pairs += [(at[0], at[3]), (at[1], at[2])]
    if kind == "H":
        pairs.append(((at[0] + at[3]) / 2, (at[1] + at[2]) / 2))
    if kind == "box":
        pairs += [(at[0], at[1]), (at[2], at[3])]
    if kind == "X":
        pairs += [(at[0], at[2]), (at[1], at[3])]
    return [leaf("bar_stretcher", plan.bars.bar(a, b, plan.bars.size * 0.85)) for a, b in pairs]


def _low_shelf(
    rng: np.random.Generator, plan: Plan, legs: Legs, tops: list[Array], outs: list[tuple[float, float]]
) -> Node:
    """A board between the legs."""
    height = rng.uniform(0.15, 0.5) * plan.under
    at = np.abs([legs.at(top, out, height) for top, out in zip(tops, outs, strict=True)]).max(0)
    thick = rng.uniform(0.01, 0.03)
    outline = rectangle(2 * at[0], 2 * at[2]) if not plan.round else circle(1.0, 32) * at[[0, 2]] * 1.2
    return leaf("shelf", plate(outline, thick).moved((0, height, 0)))


def _post_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """T- or C-shaped desk legs: a post on a long foot on both sides, joined by a beam."""
    size = plan.bars.size * rng.uniform(1.0, 1.5)
    x = plan.width / 2 * rng.uniform(0.72, 0.92)
    length = plan.depth * rng.uniform(0.75, 0.95)
    z = rng.uniform(-0.3, 0.0) * length
    foot_tall = rng.uniform(0.02, 0.05)
    foot = box((size * rng.uniform(0.8, 1.4), foot_tall, length), (x, foot_tall / 2, 0))
    post = box((size, plan.under - 2 * foot_tall, size * rng.uniform(1.0, 2.5)), (x, plan.under / 2, z))
    arm = box((size * 0.9, foot_tall, length * 0.9), (x, plan.under - foot_tall / 2, 0))
    nodes = [leaf("leg", post), leaf("leg", post.mirrored(0)), leaf("foot", foot), leaf("foot", foot.mirrored(0))]
    nodes += [leaf("bar_stretcher", arm), leaf("bar_stretcher", arm.mirrored(0))]
    y = plan.under * rng.uniform(0.25, 0.9)
    beam = box((2 * x, rng.uniform(0.03, 0.35), 0.02), (0, y, z))
    if chance(rng, 0.75):
        nodes.append(leaf("bar_stretcher", beam.moved((0, min(0.0, plan.under - beam.vertices[:, 1].max()), 0))))
    return group("trestle_base", *nodes)


def _trestle_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """On both sides an A, an X or a board on a foot; a beam between them."""
    x = plan.width / 2 * rng.uniform(0.6, 0.88)
    z = plan.depth / 2 * rng.uniform(0.6, 0.9)
    size = plan.bars.size * rng.uniform(1.0, 1.5)
    kind = choose(rng, ((0.35, "A"), (0.35, "X"), (0.3, "post")))
    foot_tall = size * rng.uniform(0.8, 1.4) if kind == "post" else 0.0
    nodes = []
    for side in (-1, 1):
        if kind == "post":
            wide = rng.uniform(0.3, 0.45) * plan.depth
            nodes.append(
                leaf("leg", box((size, plan.under - foot_tall, wide), (side * x, (plan.under + foot_tall) / 2, 0)))
            )
            nodes.append(leaf("foot", box((size * 1.5, foot_tall, 2 * z), (side * x, foot_tall / 2, 0))))
        else:
            top_z = 0.15 * z if kind == "A" else -z
            for sign in (-1, 1):
                inset = 0.5 * size * sign * (kind == "X")
                a = (side * x + inset, plan.under, sign * top_z)
                nodes.append(leaf("leg", plan.bars.bar(a, (side * x + inset, 0.0, sign * z), size)))
        if kind == "A" and chance(rng, 0.6):
            u = rng.uniform(0.2, 0.5)
            at = z - u * (z - 0.15 * z)
            ends = (side * x, u * plan.under, -at), (side * x, u * plan.under, at)
            nodes.append(leaf("bar_stretcher", plan.bars.bar(*ends, size=size * 0.8)))
    y = plan.under * (0.5 if kind == "X" else rng.uniform(0.2, 0.9))
    over = rng.uniform(1.0, 1.12)
    nodes.append(leaf("bar_stretcher", box((2 * x * over, size * rng.uniform(0.8, 2.2), size * 0.8), (0, y, 0))))
    return group("trestle_base", *nodes)


def _crossed_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Legs that cross in the middle, as of a tripod or a tray table, or hairpins of bent wire."""
    x, z = abs(plan.corners[0][0]), abs(plan.corners[0][1])
    if chance(rng, 0.5):
        wire = rng.uniform(0.006, 0.012)
        nodes = []
        spread, away = rng.uniform(0.04, 0.08), rng.uniform(0.0, 0.05)
        for cx, cz in plan.corners:
            sx, sz = float(np.sign(cx)), float(np.sign(cz))
            foot = (cx + sx * away, wire, cz + sz * away)
            corners = ((cx - sx * spread, plan.under, cz), foot, (cx, plan.under, cz - sz * spread))
            nodes.append(leaf("leg", sweep(rounded_path(corners, 0.02), circle(wire, 8))))
        return group("regular_leg_base", *nodes)
    count = choose(rng, ((0.5, 4), (0.5, 3)))
    turn = np.pi / 4 if count == 4 else 0.0
    waist = rng.uniform(0.3, 0.7)
    nodes = []
    reach = np.array([x, z]) * (1.0 if plan.round else 0.95)
    offset = rng.uniform(1.0, 1.8) * plan.bars.size
    for i in range(count):
        a = turn + 2 * np.pi * i / count
        out = np.array([np.sin(a), np.cos(a)]) * (np.sqrt(2) if count == 4 else 1.0)
        side = np.array([out[1], -out[0]]) / np.hypot(*out) * offset * 0.5
        longer = max(waist, 1 - waist)
        above, below = side - out * reach * (1 - waist) / longer, side + out * reach * waist / longer
        nodes.append(leaf("leg", plan.bars.bar((above[0], plan.under, above[1]), (below[0], 0.0, below[1]))))
    if chance(rng, 0.5):
        radius = plan.bars.size * rng.uniform(0.9, 1.8)
        tube = plan.bars.size * 0.25
        b = np.linspace(0, 2 * np.pi, 9)
        y = plan.under * waist
        ring = lathe(np.stack((radius + tube * np.sin(b), y - tube * np.cos(b)), axis=1), segments=20)
        nodes.append(leaf("bar_stretcher", ring))
    return group("regular_leg_base", *nodes)


def _sled_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """On both sides a bent or square frame that stands on its lower bar."""
    size = plan.bars.size
    (x, z), *_ = plan.corners
    narrow = rng.uniform(0.7, 1.0)
    radius = choose(rng, ((0.5, 0.004), (0.5, rng.uniform(0.03, 0.15))))
    closed = chance(rng, 0.5)
    nodes = []
    for side in (-1, 1):
        low, high = (narrow, 1.0) if chance(rng, 0.5) else (1.0, narrow)
        corners = [
            (side * x, plan.under - size / 2 * closed, z * high),
            (side * x, size / 2, z * low),
            (side * x, size / 2, -z * low),
            (side * x, plan.under - size / 2 * closed, -z * high),
        ]
        if closed:
            corners.append((side * x, plan.under - size / 2, z * high * 0.99))
        nodes.append(leaf("sled_runner", plan.bars.along(rounded_path(corners, radius))))
    for y, at in ((plan.under - size, 0.0), (size / 2, 0.0), (plan.under * 0.4, -z * 0.95))[: int(rng.integers(0, 4))]:
        nodes.append(leaf("bar_stretcher", plan.bars.bar((-x, y, at), (x, y, at))))
    more: Nodes = ()
    if chance(rng, 0.25):
        height = rng.uniform(0.2, 0.5) * plan.under
        more = (leaf("shelf", box((2 * x, rng.uniform(0.01, 0.025), 2 * z * narrow), (0, height, 0))),)
    return (*group("sled_base", *nodes), *more)


def _panel_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Two boards at the sides, a back or a beam between them, shelves."""
    thick = rng.uniform(0.02, 0.07)
    x = plan.width / 2 * rng.uniform(0.7, 0.99) * (0.75 if plan.round else 1.0) - thick / 2
    deep = plan.depth * rng.uniform(0.75, 0.99) * (0.7 if plan.round else 1.0)
    lean = choose(rng, ((0.7, 0.0), (0.3, rng.uniform(-12, 12))))
    tall = plan.under / np.cos(np.deg2rad(lean))
    shape = panel(deep, tall, thick, (0, 0, 0), rounding=choose(rng, ((0.8, 0.0), (0.2, 0.08)))).rotated(1, 90)
    board = shape.rotated(2, lean).moved((x, plan.under / 2, 0))
    nodes = [leaf("vertical_panel", board), leaf("vertical_panel", board.mirrored(0))]
    if chance(rng, 0.35):
        size = 2 * x, plan.under * rng.uniform(0.3, 0.95), rng.uniform(0.012, 0.03)
        nodes.append(leaf("back_panel", box(size, (0, plan.under - size[1] / 2, rng.uniform(-0.45, 0.0) * deep))))
    elif chance(rng, 0.4):
        bar = plan.bars.bar((-x, plan.under * 0.4, 0), (x, plan.under * 0.4, 0))
        nodes.append(leaf("bar_stretcher", bar))
    shelves = int(rng.integers(1, 3)) if not lean and chance(rng, 0.4) else 0
    heights = np.sort(rng.uniform(0.08, 0.75, shelves)) * plan.under
    shelf = [leaf("shelf", box((2 * x, rng.uniform(0.012, 0.03), deep * 0.97), (0, y, 0))) for y in heights]
    return (*group("panel_base", *nodes), *shelf)


def _pedestal_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """One column, or two under a long top, each on a disc, a block or curved feet."""
    columns = 2 if plan.width > 1.7 * plan.depth else 1
    at = np.array([0.0]) if columns == 1 else np.array([-1, 1]) * plan.width * rng.uniform(0.24, 0.32)
    reach = plan.depth * rng.uniform(0.24, 0.42)
    radius = plan.depth * rng.uniform(0.03, 0.09)
    feet = chance(rng, 0.55)
    count = choose(rng, ((0.3, 3), (0.6, 4), (0.1, 5)))
    hub = rng.uniform(0.1, 0.3) * plan.under if feet else 0.0
    thick = rng.uniform(0.012, 0.04)
    low = hub * 0.6 if feet else thick
    t = np.linspace(0, 1, 21)
    if chance(rng, 0.5):
        swell = np.interp(t, np.linspace(0, 1, 8), rng.uniform(0.5, 1.4, 8))
    else:
        swell = (
            1
            + rng.uniform(0, 1.5) * np.maximum(0, 2 * t - 1) ** 4
            + rng.uniform(0, 1.5) * np.maximum(0, 1 - 3 * t) ** 2
        )
    profile = np.stack((radius * swell, low + t * (plan.under - low)), axis=1)
    square = chance(rng, 0.2)
    turn = rng.uniform(0, 2 * np.pi) if plan.round else np.pi / 4
    section = rectangle(radius * rng.uniform(0.6, 1.2), radius * rng.uniform(0.7, 1.5))
    knee = rng.uniform(-0.2, 0.4) * hub
    u = np.linspace(0, 1, 9)
    nodes = []
    for x in at:
        if square:
            column = box((2 * radius, plan.under - low, 2 * radius), (0, (plan.under + low) / 2, 0))
        else:
            column = lathe([(0, low), *profile, (0, plan.under)], segments=20)
        nodes.append(leaf("central_support", column.moved((x, 0, 0))))
        if feet:
            y = hub + (section[:, 1].max() - hub) * u ** rng.uniform(0.8, 1.8) + knee * np.sin(np.pi * u)
            z = radius * 0.5 + u * reach
            foot = sweep(np.stack((np.zeros(9), y, z), axis=1), section, scale=np.linspace(1.1, 0.7, 9))
            for i in range(count):
                degrees = np.rad2deg(turn) + 360 * i / count
                nodes.append(leaf("foot", foot.rotated(1, float(degrees)).moved((x, 0, 0))))
        elif chance(rng, 0.6) or columns == 2:
            rise = rng.uniform(0.0, 0.06)
            v = np.linspace(0, 1, 6)
            dome = np.stack((reach + v * (radius - reach), thick + rise * v**2), axis=1)
            disc = lathe([(0, 0), (reach, 0), *dome, (0, thick + rise)], segments=32)
            nodes.append(leaf("pedestal", disc.moved((x, 0, 0))))
        else:
            block = plate(rectangle(2 * reach, 2 * reach, reach * rng.uniform(0, 0.6)), thick)
            nodes.append(leaf("pedestal", block.moved((x, thick / 2, 0))))
    return group("pedestal_base", *nodes)


# --------------------------------------------------------------------------------------------------------- cabinets


def _draw_handle(rng: np.random.Generator) -> Callable[[float], Mesh] | None:
    """A knob, a bow, a bar or none, for all drawers and doors of a table."""
    size = rng.uniform(0.01, 0.018)
    length = rng.uniform(0.07, 0.14)
    wide = rng.uniform(0.25, 0.7)

    def knob(width: float) -> Mesh:
        profile = [
            (0, 0),
            (0.4 * size, 0),
            (0.4 * size, size),
            (size, 1.3 * size),
            (0.8 * size, 2 * size),
            (0, 2.2 * size),
        ]
        return lathe(profile, segments=12).rotated(0, 90)

    def bow(width: float) -> Mesh:
        half = min(length, 0.6 * width) / 2
        corners = ((-half, 0, -0.002), (-half, 0, 2 * size), (half, 0, 2 * size), (half, 0, -0.002))
        return sweep(rounded_path(corners, size), circle(size * 0.35, 8))

    def bar(width: float) -> Mesh:
        return box((wide * width, size, size), (0, 0, size / 2))

    options: tuple[tuple[float, Callable[[float], Mesh] | None], ...] = (
        (0.35, knob),
        (0.3, bow),
        (0.2, bar),
        (0.15, None),
    )
    return choose(rng, options)


def _drawer(
    rng: np.random.Generator, plan: Plan, across: tuple[float, float], up: tuple[float, float], depth: float
) -> Node:
    """A drawer whose front fills a field of the front at z = depth / 2; sometimes pulled out, with its box."""
    gap = 0.003
    width, height = across[1] - across[0] - 2 * gap, up[1] - up[0] - 2 * gap
    x, y = sum(across) / 2, sum(up) / 2
    out = rng.uniform(0.05, 0.5) * depth if chance(rng, 0.06) else 0.0
    z = depth / 2 + out
    thick = 0.018
    nodes = [leaf("drawer_front", box((width, height, thick), (x, y, z)))]
    if out or chance(rng, 0.5):
        deep = depth * 0.85
        low = 0.75 * height
        floor = box((width * 0.92, 0.006, deep), (x, y - height * 0.4, z - deep / 2))
        sides = [box((0.012, low, deep), (x + s * width * 0.46, y - height * 0.05, z - deep / 2)) for s in (-1, 1)]
        back = box((width * 0.92, low, 0.012), (x, y - height * 0.05, z - deep))
        nodes.append(leaf("drawer_box", floor, *sides, back))
    if plan.handle is not None:
        pulls = (-0.25, 0.25) if width > 0.6 else (0.0,)
        for u in pulls:
            nodes.append(leaf("handle", plan.handle(width / len(pulls)).moved((x + u * width, y, z + thick / 2))))
    return Node("drawer", tuple(nodes))


def _door(
    rng: np.random.Generator,
    plan: Plan,
    across: tuple[float, float],
    up: tuple[float, float],
    depth: float,
    hinge: int,
) -> Node:
    """A door in the same kind of field, hinged on the left (−1) or right (1), sometimes ajar."""
    gap, thick = 0.003, 0.018
    width, height = across[1] - across[0] - 2 * gap, up[1] - up[0] - 2 * gap
    x, y, z = sum(across) / 2, sum(up) / 2, depth / 2
    pieces = [("door_board", box((width, height, thick), (x, y, z)))]
    if plan.handle is not None:
        grip = plan.handle(height * 0.5).rotated(2, 90)
        pieces.append(("handle", grip.moved((x - hinge * width * 0.4, y + height * 0.1, z + thick / 2))))
    degrees = hinge * rng.uniform(10, 100) if chance(rng, 0.08) else 0.0
    line = (x + hinge * width / 2, y, z)
    return Node("cabinet_door", tuple(leaf(name, mesh.rotated(1, degrees, line)) for name, mesh in pieces))


def _cabinet(
    rng: np.random.Generator, plan: Plan, across: tuple[float, float], up: tuple[float, float], depth: float
) -> Nodes:
    """A carcass of panels, its columns filled with drawers, doors or open shelves."""
    t = rng.uniform(0.014, 0.028)
    (left, right), (low, high) = across, up
    x, y = (left + right) / 2, (low + high) / 2
    width, height = right - left, high - low
    frame = [leaf("vertical_side_panel", box((t, height, depth), (s, y, 0))) for s in (left + t / 2, right - t / 2)]
    frame.append(leaf("horizontal_panel", box((width - 2 * t, t, depth), (x, low + t / 2, 0))))
    if chance(rng, 0.7):
        frame.append(leaf("back_panel", box((width - 2 * t, height - t, 0.01), (x, y + t / 2, -depth / 2 + 0.006))))
    columns = 1 if width < 0.5 else int(rng.integers(1, 4)) if width < 1.2 else int(rng.integers(2, 4))
    edges = np.linspace(left + t / 2, right - t / 2, columns + 1)
    frame += [
        leaf("vertical_divider_panel", box((t, height - t, depth * 0.97), (e, y + t / 2, -0.015 * depth)))
        for e in edges[1:-1]
    ]
    overlay = chance(rng, 0.4)  # fronts before the carcass, not inside it
    face = depth + 0.018 if overlay else depth - 0.02
    nodes: list[Node] = []
    for a, b in pairwise(edges):
        margin = t / 2 * (not overlay)
        field = (float(a) + margin, float(b) - margin)
        rows = min(int(rng.integers(1, 5)), max(1, int(height / 0.12)))
        cuts = np.linspace(low + t * (not overlay), high - 0.002, rows + 1)
        kind = choose(rng, ((0.45, "drawers"), (0.25, "door"), (0.15, "mixed"), (0.15, "open")))
        if kind == "door":
            hinge = -1 if a < x else 1
            nodes.append(_door(rng, plan, field, (float(cuts[0]), float(cuts[-1])), face, hinge))
            continue
        for i, (c, d) in enumerate(pairwise(cuts)):
            if kind == "drawers" or (kind == "mixed" and i == rows - 1):
                nodes.append(_drawer(rng, plan, field, (float(c), float(d)), face))
            elif i:
                board = box((float(b - a) - t, t * 0.8, depth * 0.95), (float(a + b) / 2, float(c), -0.02 * depth))
                nodes.append(leaf("shelf", board))
            elif kind == "mixed" and rows > 1:
                nodes.append(_door(rng, plan, field, (float(c), float(cuts[-2])), face, 1))
    return (*group("cabinet_frame", *frame), *nodes)


def _block_feet(rng: np.random.Generator, plan: Plan, height: float) -> Nodes:
    """Feet under a cabinet's corners."""
    if height < 0.01:
        return ()
    x, z = (plan.width - plan.inset) / 2 - plan.legs.size * 0.6, (plan.depth - plan.inset) / 2 - plan.legs.size * 0.6
    return group(
        "cabinet_frame",
        *(
            leaf("foot", plan.legs.leg((sx * x, height + 0.004, sz * z), (float(sx), float(sz))))
            for sx in (1, -1)
            for sz in (1, -1)
        ),
    )
