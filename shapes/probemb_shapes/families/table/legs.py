"""Tables on legs: aprons, stretchers and a shelf between them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from probemb_shapes.families.joinery import Legs, caster, chance, choose, rounded_path
from probemb_shapes.families.primitives import bend, box, circle, cylinder, lathe, plate, rectangle, sweep
from probemb_shapes.families.table.cabinet import drawer
from probemb_shapes.families.table.plan import Plan
from probemb_shapes.families.tree import Node, group, leaf

Array = np.ndarray[Any, np.dtype[Any]]
Nodes = tuple[Node, ...]


def leg_base(rng: np.random.Generator, plan: Plan) -> Nodes:
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
        drawer(rng, plan, (float(a), float(b)), (plan.under - tall, plan.under - 0.003), 2 * (z + out))
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


def crossed_base(rng: np.random.Generator, plan: Plan) -> Nodes:
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
