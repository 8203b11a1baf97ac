"""Doors and drawers that close a compartment."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.joinery import chance
from probemb_shapes.families.primitives import box, cylinder
from probemb_shapes.families.storage.case import Case, Cell
from probemb_shapes.families.storage.front import Style, handles_on
from probemb_shapes.families.tree import Node, leaf


def _front_size(cell: Cell, case: Case, style: Style) -> tuple[float, float, float]:
    """Width, height and back of the front that closes an opening."""
    w, h = cell.size
    grow = 0.45 * case.board * 2 if style.overlay else -0.004
    return w + grow, h + grow, case.depth / 2 - (0.0 if style.overlay else style.thickness)


def draw_doors(rng: np.random.Generator, cell: Cell, pair: bool, case: Case, style: Style) -> list[Node]:
    """One door, or a pair, hinged or sliding; some of them open."""
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


def draw_drawers(rng: np.random.Generator, cell: Cell, count: int | None, case: Case, style: Style) -> list[Node]:
    """Drawers one above the other, as many as suit the height where ``count`` is None; some of them open."""
    height = cell.size[1]
    if count is None:
        count = int(np.clip(round(height / rng.uniform(0.14, 0.3)), 2, 6))
    share = np.ones(count) if chance(rng, 0.6) else np.linspace(1, rng.uniform(1.2, 2.0), count)
    heights = height * share / share.sum()
    made, high = [], cell.high
    for tall in heights:
        one = Cell(cell.left, cell.right, high - tall, high)
        out = rng.uniform(0.1, 0.6) * case.depth if chance(rng, style.ajar * 0.7) else 0.0
        made.append(_drawer(one, out, count > 1, case, style))
        high -= tall
    return made


def _drawer(cell: Cell, out: float, stacked: bool, case: Case, style: Style) -> Node:
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
