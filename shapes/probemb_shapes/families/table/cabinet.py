"""Cabinets under tables: drawers, doors and open shelves in a carcass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from probemb_shapes.families.joinery import chance, choose
from probemb_shapes.families.primitives import box
from probemb_shapes.families.table.plan import Plan
from probemb_shapes.families.tree import Node, group, leaf

Nodes = tuple[Node, ...]


def drawer(
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


def draw_cabinet(
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
                nodes.append(drawer(rng, plan, field, (float(c), float(d)), face))
            elif i:
                board = box((float(b - a) - t, t * 0.8, depth * 0.95), (float(a + b) / 2, float(c), -0.02 * depth))
                nodes.append(leaf("shelf", board))
            elif kind == "mixed" and rows > 1:
                nodes.append(_door(rng, plan, field, (float(c), float(cuts[-2])), face, 1))
    return (*group("cabinet_frame", *frame), *nodes)


def block_feet(rng: np.random.Generator, plan: Plan, height: float) -> Nodes:
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
