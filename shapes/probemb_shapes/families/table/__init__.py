"""Tables: dining, side, coffee and bar tables, desks with drawers, trestles, drop leaves, glass tops.

Lengths are about metres. The top's middle is over x = z = 0, the front looks along +z, the floor is y = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from probemb_shapes.classes import levels
from probemb_shapes.families.joinery import chance, choose
from probemb_shapes.families.primitives import box
from probemb_shapes.families.table.base import panel_base, pedestal_base, post_base, sled_base, trestle_base
from probemb_shapes.families.table.cabinet import block_feet, draw_cabinet, drawer
from probemb_shapes.families.table.legs import crossed_base, leg_base
from probemb_shapes.families.table.plan import Plan, draw_plan
from probemb_shapes.families.table.top import draw_top, hutch
from probemb_shapes.families.tree import Node, group, leaf, parts

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


def _dining_table(rng: np.random.Generator) -> Node:
    depth = rng.uniform(0.65, 1.1)
    width = depth * choose(rng, ((0.35, 1.0), (0.65, rng.uniform(1.1, 2.4))))
    plan = draw_plan(rng, width, depth, rng.uniform(0.68, 0.8), curved=0.4)
    bases: tuple[tuple[float, Callable[[np.random.Generator, Plan], Nodes]], ...] = (
        (0.52, leg_base),
        (0.17, pedestal_base),
        (0.12, trestle_base),
        (0.07, sled_base),
        (0.06, panel_base),
        (0.06, crossed_base),
    )
    return _table(draw_top(rng, plan), choose(rng, bases)(rng, plan))


def _coffee_table(rng: np.random.Generator) -> Node:
    depth = rng.uniform(0.35, 0.75)
    width = depth * choose(rng, ((0.35, 1.0), (0.65, rng.uniform(1.1, 2.3))))
    cabinet = chance(rng, 0.28)
    plan = draw_plan(rng, width, depth, rng.uniform(0.3, 0.6), curved=0.0 if cabinet else 0.45)
    if cabinet:
        low = rng.uniform(0.0, 0.35) * plan.height
        x, z = plan.width / 2 - plan.inset * 0.5, plan.depth - plan.inset
        base = draw_cabinet(rng, plan, (-x, x), (low, plan.under), z)
        return _table(draw_top(rng, plan), (*base, *block_feet(rng, plan, low)))
    bases: tuple[tuple[float, Callable[[np.random.Generator, Plan], Nodes]], ...] = (
        (0.55, leg_base),
        (0.15, pedestal_base),
        (0.1, sled_base),
        (0.1, panel_base),
        (0.1, crossed_base),
    )
    return _table(draw_top(rng, plan), choose(rng, bases)(rng, plan))


def _bar_table(rng: np.random.Generator) -> Node:
    depth = rng.uniform(0.4, 0.7)
    width = depth * choose(rng, ((0.6, 1.0), (0.4, rng.uniform(1.1, 2.0))))
    plan = draw_plan(rng, width, depth, rng.uniform(0.85, 1.15), curved=0.6)
    base = choose(rng, ((0.5, pedestal_base), (0.35, leg_base), (0.15, crossed_base)))
    return _table(draw_top(rng, plan), base(rng, plan))


def _desk(rng: np.random.Generator) -> Node:
    """Drawers or doors on one or both sides, or in the apron; other sides on legs or panels."""
    width, depth = rng.uniform(0.9, 1.8), rng.uniform(0.45, 0.8)
    plan = draw_plan(rng, width, depth, rng.uniform(0.68, 0.78), curved=0.0)
    top = draw_top(rng, plan)
    if chance(rng, 0.22):
        top = (*top, *hutch(rng, plan))
    kind = choose(rng, ((0.3, "right"), (0.12, "left"), (0.25, "both"), (0.18, "none"), (0.15, "posts")))
    x, z = plan.width / 2 - plan.inset, plan.depth - 2 * plan.inset
    base: Nodes
    if kind == "posts":
        base = post_base(rng, plan)
    elif kind == "none":
        base = leg_base(rng, plan) if chance(rng, 0.6) else panel_base(rng, plan)
    else:
        unit = plan.width * rng.uniform(0.2, 0.34)
        low = choose(rng, ((0.5, rng.uniform(0.0, 0.05)), (0.5, rng.uniform(0.1, 0.25))))
        sides = {"right": (1,), "left": (-1,), "both": (-1, 1)}[kind]
        units = tuple(
            draw_cabinet(rng, plan, (min(s * x, s * (x - unit)), max(s * x, s * (x - unit))), (low, plan.under), z)
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
            base = (*base, drawer(rng, plan, (left, right), (plan.under - 0.11, plan.under - 0.005), z))
        elif chance(rng, 0.2):
            tray = box(
                ((right - left) * 0.94, 0.018, z * 0.6),
                ((left + right) / 2, plan.under - 0.11, z * rng.uniform(0.2, 0.4)),
            )
            base = (*base, leaf("keyboard_tray", tray))
    return _table(top, base)
