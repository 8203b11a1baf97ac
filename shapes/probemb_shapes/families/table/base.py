"""Other bases of tables: posts, trestles, sleds, panels and pedestals."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.joinery import chance, choose, panel, rounded_path
from probemb_shapes.families.primitives import box, lathe, plate, rectangle, sweep
from probemb_shapes.families.table.plan import Plan
from probemb_shapes.families.tree import Node, group, leaf

Nodes = tuple[Node, ...]


def post_base(rng: np.random.Generator, plan: Plan) -> Nodes:
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


def trestle_base(rng: np.random.Generator, plan: Plan) -> Nodes:
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


def sled_base(rng: np.random.Generator, plan: Plan) -> Nodes:
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


def panel_base(rng: np.random.Generator, plan: Plan) -> Nodes:
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


def pedestal_base(rng: np.random.Generator, plan: Plan) -> Nodes:
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
