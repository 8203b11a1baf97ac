"""Seats of chairs: boards, cushions, slats and their frames."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.chair.plan import Plan
from probemb_shapes.families.joinery import chance, choose, corner_reach
from probemb_shapes.families.primitives import Mesh, bend, box, circle, cushion, plate, rectangle
from probemb_shapes.families.tree import Node, group, leaf

Nodes = tuple[Node, ...]


def slab_seat(rng: np.random.Generator, plan: Plan) -> Nodes:
    """One board, flat or curved into a saddle."""
    thick = min(plan.thick, 0.05)
    board = plate(plan.outline, thick)
    if plan.width < 0.7 and chance(rng, 0.4):
        axis = int(choose(rng, ((0.5, 0), (0.5, 2))))
        board = bend(board, axis, 1, rng.uniform(10, 40))
        board = board.moved((0, -thick / 2 - (board.vertices[:, 1].max() - thick / 2) * 0.5, 0))
    else:
        board = board.moved((0, -thick / 2, 0))
    return group("seat_surface", leaf("seat_single_surface", board.moved((0, plan.height, 0))))


def _soft(rng: np.random.Generator, plan: Plan, thick: float) -> Mesh:
    exponent = 2.0 if plan.round else rng.uniform(4, 14)
    return cushion((plan.width, thick, plan.depth), exponent=exponent, edge=rng.uniform(2, 7))


def cushion_seat(rng: np.random.Generator, plan: Plan) -> Nodes:
    """One upholstered volume."""
    thick = max(plan.thick, 0.05)
    return group(
        "seat_surface", leaf("seat_single_surface", _soft(rng, plan, thick).moved((0, plan.height - thick / 2, 0)))
    )


def cushion_on_frame(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A cushion on a board or on four bars."""
    soft = rng.uniform(0.03, 0.08) + 0.3 * plan.thick
    under = plan.height - soft * 0.9
    top = leaf("seat_single_surface", _soft(rng, plan, soft).moved((0, plan.height - soft / 2, 0)))
    if plan.round or chance(rng, 0.4):
        thick = rng.uniform(0.012, 0.04)
        outline = (
            circle(0.5, 24) * np.array([plan.width, plan.depth]) if plan.round else rectangle(plan.width, plan.depth)
        )
        board = plate(outline * rng.uniform(0.9, 1.05), thick).moved((0, under - thick / 2, 0))
        return (*group("seat_surface", top), *group("seat_frame", leaf("seat_frame_board", board)))
    return (*group("seat_surface", top), *group("seat_frame", *_frame_bars(rng, plan, under)))


def apron_seat(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A board on four bars."""
    thick = min(plan.thick, 0.03)
    board = plate(plan.outline, thick).moved((0, plan.height - thick / 2, 0))
    return (
        *group("seat_surface", leaf("seat_single_surface", board)),
        *group("seat_frame", *_frame_bars(rng, plan, plan.height - thick)),
    )


def slatted_seat(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Bars across the seat, or along it, on bars below."""
    along_x = plan.width > 0.8 or chance(rng, 0.5)
    w, d, size = plan.width, plan.depth, plan.bars.size
    length, across = (w, d) if along_x else (d, w)
    count = int(rng.integers(3, 8)) if across < 0.8 else int(rng.integers(6, 10))
    pitch = across / count
    thick = size * rng.uniform(0.4, 0.8)
    bar = box((length, thick, pitch * rng.uniform(0.55, 0.9)), (0, plan.height - thick / 2, 0))
    bar = bar if along_x else bar.rotated(1, 90)
    step = np.array([0.0, 0.0, pitch]) if along_x else np.array([pitch, 0.0, 0.0])
    bars = [leaf("seat_surface_bar", bar.moved(step * (i - (count - 1) / 2))) for i in range(count)]
    return (*group("seat_surface", *bars), *group("seat_frame", *_frame_bars(rng, plan, plan.height - thick)))


def _frame_bars(rng: np.random.Generator, plan: Plan, top: float) -> Nodes:
    size = plan.bars.size
    deep = rng.uniform(0.8, 2.4) * size
    thick = size * rng.uniform(0.45, 0.8)
    reach = corner_reach(plan.outline)
    x, z = reach * (1 - plan.narrower) * plan.width / 2 - size * 0.6, reach * plan.depth / 2 - size * 0.6
    bars = [box((2 * x, deep, thick), (0, top - deep / 2, s * z)) for s in (1, -1)]
    bars += [box((thick, deep, 2 * z), (s * x, top - deep / 2, 0)) for s in (1, -1)]
    return tuple(leaf("seat_frame_bar", bar) for bar in bars)
