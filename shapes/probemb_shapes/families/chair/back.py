"""Backs of chairs, with what they are carried by, and headrests."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from probemb_shapes.families.chair.plan import Plan
from probemb_shapes.families.joinery import chance, choose, rounded_path
from probemb_shapes.families.primitives import (
    Mesh,
    box,
    circle,
    cushion,
    cylinder,
    loft,
    plate,
    rectangle,
    split,
    sweep,
)
from probemb_shapes.families.tree import Node, group, leaf

Array = np.ndarray[Any, np.dtype[Any]]
Nodes = tuple[Node, ...]


def _posts(rng: np.random.Generator, plan: Plan, top: float = 1.0) -> Nodes:
    """The two posts of a back, from the seat to ``top`` of its height."""
    x = plan.width / 2 - plan.bars.size * 0.55
    t = np.linspace(-0.05, top, 7 if plan.curl else 2)[:, None]
    nodes = []
    for side in (-1, 1):
        line = np.array([side * x, 0.0, 0.0]) + t * np.array([0.0, plan.back, 0.0])
        nodes.append(leaf("back_frame_vertical_bar", plan.bars.along(plan.lean_points(line), plan.bars.size * 1.05)))
    return tuple(nodes)


def _rail(
    rng: np.random.Generator, plan: Plan, at: float, tall: float, *, over: float = 0.0, rise: float = 0.0
) -> Mesh:
    """A board or bar across the back at the height ``at`` (relative), wider than the posts by ``over``."""
    width = plan.width - 1.1 * plan.bars.size + 2 * over
    thick = plan.bars.size * 0.7
    bar = box((width, tall, thick), (0, at * plan.back, 0))
    if rise:
        bar = split(bar, 0, width / 8)
        vertices = bar.vertices.copy()
        vertices[:, 1] += rise * (1 - (2 * vertices[:, 0] / width) ** 2)
        bar = Mesh(vertices, bar.faces)
    return plan.lean(bar)


def _frame(rng: np.random.Generator, plan: Plan, *, lower: bool) -> Nodes:
    """Posts, a top rail, which may stand on the posts and be arched, and a lower rail."""
    tall = plan.bars.size * rng.uniform(0.8, 3.0)
    over = choose(rng, ((0.6, 0.0), (0.4, plan.bars.size * rng.uniform(0.6, 1.6))))
    rise = choose(rng, ((0.6, 0.0), (0.4, rng.uniform(-0.02, 0.05))))
    rails = [_rail(rng, plan, 1 - tall / 2 / plan.back, tall, over=over, rise=rise)]
    if lower:
        rails.append(_rail(rng, plan, rng.uniform(0.08, 0.3), plan.bars.size * rng.uniform(0.7, 1.6)))
    return (*_posts(rng, plan), *(leaf("back_frame_horizontal_bar", rail) for rail in rails))


def vertical_slats(rng: np.random.Generator, plan: Plan) -> Nodes:
    lower = chance(rng, 0.5)
    frame = _frame(rng, plan, lower=lower)
    count = int(rng.integers(3, 8)) if plan.width < 0.8 else int(rng.integers(7, 15))
    pitch = (plan.width - 1.5 * plan.bars.size) / count
    width = pitch * rng.uniform(0.25, 0.75)
    thick = plan.bars.size * rng.uniform(0.3, 0.6)
    low = rng.uniform(0.1, 0.28) if lower else -0.02
    square = chance(rng, 0.7)
    slats = []
    for i in range(count):
        x = pitch * (i - (count - 1) / 2)
        if square:
            slat = box((width, (0.97 - low) * plan.back, thick), (x, (0.97 + low) / 2 * plan.back, 0))
        else:
            slat = cylinder((x, low * plan.back, 0), (x, 0.97 * plan.back, 0), min(width, 0.03) / 2, segments=10)
        slats.append(leaf("back_surface_vertical_bar", plan.lean(slat)))
    return (*group("back_surface", *slats), *group("back_frame", *frame))


def ladder(rng: np.random.Generator, plan: Plan) -> Nodes:
    count = int(rng.integers(1, 6)) if plan.back > 0.28 else int(rng.integers(1, 3))
    tall = plan.back / (count + 0.6) * rng.uniform(0.25, 0.7)
    rise = choose(rng, ((0.5, 0.0), (0.5, rng.uniform(-0.4, 0.8) * tall)))
    start = rng.uniform(0.15, 0.45)
    at = np.linspace(1 - tall / 2 / plan.back, start, count + 1)[:count]
    slats = (leaf("back_surface_horizontal_bar", _rail(rng, plan, float(u), tall, rise=rise)) for u in at)
    return (*group("back_surface", *slats), *group("back_frame", *_posts(rng, plan)))


def spindles(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Thin rods that fan out from the seat to a crest rail; the outer two may be thicker."""
    count = int(rng.integers(3, 10)) if plan.width < 0.8 else int(rng.integers(8, 14))
    tall = rng.uniform(1.2, 3.5) * plan.bars.size
    fan = rng.uniform(1.0, 1.25)
    rise = choose(rng, ((0.4, 0.0), (0.6, rng.uniform(0.0, 0.06))))
    over = plan.bars.size * rng.uniform(0.5, 1.5)
    crest = leaf("back_frame_horizontal_bar", _rail(rng, plan, 1 - tall / 2 / plan.back, tall, over=over, rise=rise))
    thick = rng.uniform(0.005, 0.011)
    swell = np.array([0.8, 1.2, 1.25, 1.0, 0.7])
    rods = []
    posts: Nodes = _posts(rng, plan, 0.97) if chance(rng, 0.4) else ()
    inner = 0.42 if posts else 0.46
    for x in np.linspace(-inner, inner, count) * plan.width:
        t = np.linspace(-0.03, 1 - 0.6 * tall / plan.back, 5)
        spread = x / fan * (1 + (fan - 1) * np.clip(t, 0, 1))
        line = plan.lean_points(np.stack((spread, t * plan.back, np.zeros(5)), axis=1))
        rods.append(leaf("back_surface_vertical_bar", sweep(line, circle(thick, 10), scale=swell)))
    return (*group("back_surface", *rods), *group("back_frame", crest, *posts))


def _back_outline(rng: np.random.Generator, width: float, height: float) -> Array:
    """(S, 2) of x and y about the middle: a rounded, shield-like or oval back."""
    if chance(rng, 0.15):
        return np.asarray(circle(0.5, 28) * (width, height))
    outline = rectangle(width, height, rng.uniform(0.05, 0.49) * min(width, height))
    waist = choose(rng, ((0.5, 0.0), (0.5, rng.uniform(-0.15, 0.25))))
    up = outline[:, 1] / height + 0.5
    crown = choose(rng, ((0.6, 0.0), (0.4, rng.uniform(-0.05, 0.12)))) * height
    x = outline[:, 0] * (1 - waist * (1 - up))
    return np.stack((x, outline[:, 1] + crown * up * (1 - (outline[:, 0] * 2 / width) ** 2)), axis=1)


def panel_back(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A board, from the seat on, or carried by posts."""
    thick = rng.uniform(0.01, 0.035)
    carried = chance(rng, 0.55)
    low = rng.uniform(0.15, 0.55) if carried else -0.05
    height = (1 - low) * plan.back
    outline = _back_outline(rng, plan.width * rng.uniform(0.82, 1.02), height)
    board = plate(outline, thick).rotated(0, 90).moved((0, (1 + low) / 2 * plan.back, plan.bars.size * 0.4))
    back = group(
        "back_surface", leaf("back_single_surface", plan.lean(board.mirrored(1).moved((0, (1 + low) * plan.back, 0))))
    )
    return (*back, *group("back_frame", *_posts(rng, plan, rng.uniform(0.75, 0.95)))) if carried else back


def upholstered_back(rng: np.random.Generator, plan: Plan) -> Nodes:
    thick = rng.uniform(0.04, 0.12)
    low = choose(rng, ((0.5, -0.04), (0.5, rng.uniform(0.1, 0.35))))
    width = plan.width * rng.uniform(0.85, 1.03)
    soft = cushion((width, (1 - low) * plan.back, thick), exponent=rng.uniform(3, 14), edge=rng.uniform(2, 7))
    # The superellipsoid's outline lies in x and z; here it is wanted in x and y.
    if chance(rng, 0.7):
        flat = cushion((width, thick, (1 - low) * plan.back), exponent=rng.uniform(3, 14), edge=rng.uniform(2, 7))
        soft = flat.rotated(0, 90)
    back = group("back_surface", leaf("back_single_surface", plan.lean(soft.moved((0, (1 + low) / 2 * plan.back, 0)))))
    if low > 0:
        if chance(rng, 0.6):
            return (*back, *group("back_frame", *_posts(rng, plan, rng.uniform(0.5, 0.9))))
        return (*back, *_connectors(rng, plan, low))
    return back


def _connectors(rng: np.random.Generator, plan: Plan, low: float) -> Nodes:
    """One or two bars that carry a back from under the seat."""
    size = plan.bars.size * rng.uniform(0.9, 1.6)
    reach = low + rng.uniform(0.1, 0.3)
    count = choose(rng, ((0.6, 1), (0.4, 2)))
    wide = size * rng.uniform(1.0, 3.0) if count == 1 else size
    section = rectangle(wide, size * 0.6, 0.0)
    nodes = []
    for x in (np.arange(count) - (count - 1) / 2) * plan.width * 0.5:
        behind = -plan.back_depth - 0.03
        ends = np.array([(x, 0.05 * plan.back, behind), (x, reach * plan.back, behind + 0.01)])
        a, b = plan.lean_points(ends)
        under = np.array([x, plan.height - plan.thick - 0.01, -plan.depth * 0.1])
        corner = np.array([x, under[1], a[2]])
        nodes.append(leaf("back_connector", sweep(rounded_path((under, corner, a, b), 0.1), section[:, ::-1])))
    return tuple(nodes)


def floating_back(rng: np.random.Generator, plan: Plan) -> Nodes:
    """An office back: a shell or pad on connectors."""
    low = rng.uniform(0.12, 0.4)
    height = (1 - low) * plan.back
    width = plan.width * rng.uniform(0.8, 1.0)
    if chance(rng, 0.5):
        shape = plate(_back_outline(rng, width, height), rng.uniform(0.015, 0.04)).rotated(0, -90)
    else:
        thick = rng.uniform(0.04, 0.1)
        shape = cushion((width, thick, height), exponent=rng.uniform(3, 9), edge=rng.uniform(2, 5)).rotated(0, 90)
    surface = leaf("back_single_surface", plan.lean(shape.moved((0, (1 + low) / 2 * plan.back, 0))))
    return (*group("back_surface", surface), *_connectors(rng, plan, low))


def framed_cushion(rng: np.random.Generator, plan: Plan) -> Nodes:
    thick = rng.uniform(0.03, 0.1)
    low = rng.uniform(0.0, 0.3)
    tall = (0.95 - low) * plan.back
    width = plan.width - 2.2 * plan.bars.size
    pads = 1 if plan.width < 0.9 else int(rng.integers(2, 4))
    soft = cushion((width / pads, thick, tall), exponent=rng.uniform(5, 14), edge=rng.uniform(2, 6)).rotated(0, 90)
    at = (np.arange(pads) - (pads - 1) / 2) * width / pads
    leaves = [
        leaf("back_single_surface", plan.lean(soft.moved((x, low * plan.back + tall / 2, thick * 0.3)))) for x in at
    ]
    return (*group("back_surface", *leaves), *group("back_frame", *_frame(rng, plan, lower=low > 0.1)))


def cross_back(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Two diagonals in a frame; a long bench has several pairs."""
    frame = _frame(rng, plan, lower=False)
    low, high = rng.uniform(0.0, 0.2) * plan.back, 0.93 * plan.back
    half = plan.width / 2 - plan.bars.size
    fields = 1 if plan.width < 0.9 else int(rng.integers(2, 4))
    bow = rng.uniform(-0.2, 0.2) if chance(rng, 0.4) else 0.0
    edges = np.linspace(-half, half, fields + 1)
    nodes = []
    t = np.linspace(0, 1, 9)
    for left, right in pairwise(edges):
        for a, b in ((left, right), (right, left)):
            x = a + (b - a) * (t + bow * 4 * t * (1 - t) * 0.5)
            line = np.stack((x, low + t * (high - low), np.zeros(9)), axis=1)
            nodes.append(
                leaf("back_surface_diagonal_bar", plan.bars.along(plan.lean_points(line), plan.bars.size * 0.6))
            )
    return (*group("back_surface", *nodes), *group("back_frame", *frame))


def splat_back(rng: np.random.Generator, plan: Plan) -> Nodes:
    """One board of a vase's outline in the middle of a frame."""
    low = choose(rng, ((0.5, -0.02), (0.5, rng.uniform(0.1, 0.25))))
    t = np.linspace(0, 1, 15)
    half = np.interp(t, np.linspace(0, 1, 6), rng.uniform(0.35, 1.0, 6)) * plan.width * rng.uniform(0.12, 0.26)
    y = (low + t * (0.96 - low)) * plan.back
    outline = np.concatenate((np.stack((half, y), 1), np.stack((-half, y), 1)[::-1]))
    board = _upright(outline, plan.bars.size * 0.5)
    frame = _frame(rng, plan, lower=low > 0)
    return (*group("back_surface", leaf("back_single_surface", plan.lean(board))), *group("back_frame", *frame))


def _upright(outline: Array, thickness: float) -> Mesh:
    """The outline (S, 2) of x and y as a board about z = 0."""
    mesh = plate(np.stack((outline[:, 0], -outline[:, 1]), axis=1), thickness)
    return mesh.rotated(0, 90)


def hoop_back(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A bent bar from seat to seat around rods, a pad or nothing but a cross bar."""
    t = np.linspace(0, np.pi, 21)
    square = rng.uniform(0.45, 1.0)
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** square * (plan.width / 2 - plan.bars.size * 0.6)
    y = np.sin(t) ** square * plan.back
    hoop = plan.bars.along(plan.lean_points(np.stack((x, y, np.zeros(21)), axis=1)))
    frame = group("back_frame", leaf("back_holistic_frame", hoop))
    if chance(rng, 0.55):
        count = int(rng.integers(3, 9))
        rods = []
        for u in np.linspace(-0.82, 0.82, count):
            top = np.interp(u * plan.width / 2, x[::-1], y[::-1])
            ends = np.array([(u * plan.width / 2 * 0.9, -0.03 * plan.back, 0.0), (u * plan.width / 2, top, 0.0)])
            rods.append(
                leaf("back_surface_vertical_bar", plan.bars.along(plan.lean_points(ends), plan.bars.size * 0.55))
            )
        return (*group("back_surface", *rods), *frame)
    pad = cushion((plan.width * 0.86, 0.05, plan.back * 0.86), exponent=2 / square + 0.5, edge=3).rotated(0, 90)
    pad = plan.lean(pad.moved((0, plan.back * 0.5, 0)))
    return (*group("back_surface", leaf("back_single_surface", pad)), *frame)


def headrest(rng: np.random.Generator, plan: Plan) -> Nodes:
    width, tall, thick = plan.width * rng.uniform(0.45, 0.8), rng.uniform(0.1, 0.2), rng.uniform(0.04, 0.09)
    gap = rng.uniform(0.0, 0.1)
    soft = cushion((width, thick, tall), exponent=rng.uniform(3, 8), edge=3).rotated(0, 90)
    rest = plan.lean(soft.moved((0, plan.back + gap + tall / 2, 0.0)))
    nodes = [leaf("headrest", rest)]
    if gap > 0.02:
        for x in (0.0,) if chance(rng, 0.4) else (-width * 0.2, width * 0.2):
            ends = np.array([(x, plan.back * 0.9, 0.0), (x, plan.back + gap + tall * 0.3, 0.0)])
            nodes.append(leaf("connector", plan.bars.along(plan.lean_points(ends), 0.018)))
    return tuple(nodes)


def wall(low: Array, high: Array, thickness: float) -> Mesh:
    """An upright wall about the y-axis between two lines (M, 3), one above the other, thickened inwards."""
    inner_low, inner_high = low - _outwards(low) * thickness, high - _outwards(high) * thickness
    return loft(np.stack((low, high, inner_high, inner_low), axis=1))


def _outwards(line: Array) -> Array:
    flat = line * np.array([1.0, 0.0, 1.0])
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))
