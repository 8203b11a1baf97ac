"""What lamps share: how leaves are placed, feet and canopies, cords and chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from probemb_shapes.families.joinery import chance, choose
from probemb_shapes.families.lamp.head import Head
from probemb_shapes.families.primitives import Mesh, circle, cylinder, lathe, plate, rectangle, sweep
from probemb_shapes.families.tree import Node, leaf

Array = np.ndarray[Any, np.dtype[Any]]
Point = Sequence[float] | Array
# Pairs of the inner nodes' path below the root, and a leaf; heads are numbered: lamp_head/0, lamp_head/1 …
Parts = list[tuple[str, Node]]


def placed(nodes: Sequence[Node], at: Point, direction: Point = (0.0, 1.0, 0.0)) -> list[Node]:
    """Leaves turned so that +y looks along ``direction``, then moved."""
    x, y, z = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    tilt, heading = np.degrees(np.arccos(np.clip(y, -1, 1))), np.degrees(np.arctan2(z, x))
    return [
        Node(node.name, mesh=node.mesh.rotated(2, -tilt).rotated(1, -heading).moved(at)) for node in nodes if node.mesh
    ]


def head_at(head: Head, number: int, at: Point, direction: Point) -> Parts:
    """A head whose axis looks along ``direction``, the ``number``-th of its lamp."""
    return [(f"lamp_head/{number}", node) for node in placed(head.leaves(), at, direction)]


def draw_disc(rng: np.random.Generator, radius: float) -> tuple[Callable[[], Mesh], float]:
    """A round or square foot, from y = 0; and its height."""
    h = rng.uniform(0.06, 0.3) * radius
    form = choose(rng, ((0.35, "disc"), (0.2, "dome"), (0.2, "stepped"), (0.25, "square")))
    rounding = 0.0 if chance(rng, 0.6) else 0.3 * radius
    inner = rng.uniform(0.2, 0.7)

    def make() -> Mesh:
        if form == "disc":
            return cylinder((0, 0, 0), (0, h, 0), radius, segments=28)
        if form == "square":
            return plate(rectangle(1.8 * radius, 1.8 * radius, rounding), h).moved((0, h / 2, 0))
        if form == "stepped":
            corners = ((0, 0), (radius, 0), (radius, 0.4 * h), (inner * radius, 0.5 * h), (inner * radius, h), (0, h))
            return lathe(corners, segments=28)
        a = np.linspace(0, np.pi / 2, 7)
        arc = np.stack((radius * np.cos(a), h * 0.2 + 1.3 * h * np.sin(a)), 1)
        arc[-1, 0] = 0
        return lathe(np.concatenate((((0, 0), (radius, 0)), arc)), segments=28)

    return make, h * 1.5 if form == "dome" else h


def power_cord(rng: np.random.Generator, start: Point) -> Parts:
    """A cord that winds away over the floor."""
    t = np.linspace(0, 1, 25)
    length = rng.uniform(0.15, 0.45)
    swing = rng.uniform(0.02, 0.08) * np.sin(t * rng.uniform(4, 11))
    x, _, z = np.asarray(start, np.float64)
    curve = np.stack((x + swing, np.full(25, 0.004), z - t * length), 1)
    return [("", leaf("power_cord", sweep(curve, circle(0.003, 6))))]


def _chain(top: float, low: float, link: float) -> list[Mesh]:
    """Oval links, each turned against the last, from height ``top`` down to ``low``."""
    count = max(1, round((top - low) / (1.5 * link)))
    pitch = (top - low) / count
    a = np.linspace(0, 2 * np.pi, 13)
    made = []
    for i in range(count):
        loop = np.stack((0.32 * pitch * np.cos(a), low + (i + 0.5) * pitch + 0.62 * pitch * np.sin(a), 0 * a), 1)
        made.append(sweep(loop, circle(0.07 * pitch, 6)).rotated(1, 90.0 * (i % 2)))
    return made


def suspended(rng: np.random.Generator, at: Array, low: float, form: str, thin: float) -> Parts:
    """What a head hangs on, from ``at`` down to the height ``low``."""
    if form == "chain":
        links = _chain(float(at[1]), low, 6 * thin + 0.03)[:8]
        step = (float(at[1]) - low) / max(len(links), 1)
        links = _chain(float(at[1]), low, step / 1.5)
        return [("suspension", leaf("chain_link", link.moved((at[0], 0, at[2])))) for link in links]
    rod = cylinder(at, (at[0], low, at[2]), thin * (1.0 if form == "cord" else 2.2), segments=8)
    return [("suspension", leaf("cord", rod))]
