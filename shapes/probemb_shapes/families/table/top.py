"""Tops of tables: boards, planks, glass, drop leaves; and the hutch on a desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probemb_shapes.families.joinery import chance, choose
from probemb_shapes.families.primitives import Mesh, box, plate, rectangle
from probemb_shapes.families.table.plan import Plan
from probemb_shapes.families.tree import Node, group, leaf

Array = np.ndarray[Any, np.dtype[Any]]
Nodes = tuple[Node, ...]


def draw_top(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A top that suits the outline."""
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


def hutch(rng: np.random.Generator, plan: Plan) -> Nodes:
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
