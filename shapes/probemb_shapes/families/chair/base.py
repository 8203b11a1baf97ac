"""Bases of chairs, legs, stars, pedestals and runners, and footrests."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.chair.plan import Plan
from probemb_shapes.families.joinery import Legs, caster, chance, choose, rounded_path
from probemb_shapes.families.primitives import box, cushion, cylinder, lathe, plate, rectangle, sweep
from probemb_shapes.families.tree import Node, group, leaf

Nodes = tuple[Node, ...]


def leg_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Three, four or six legs, with stretchers or without."""
    top = plan.height - min(plan.thick, 0.05) * 0.8
    corners = plan.corners
    if plan.width > 1.2 and chance(rng, 0.4):
        corners += [(0.0, corners[0][1]), (0.0, corners[2][1])]
    if plan.round and chance(rng, 0.2):
        r = corners[0][0] * 1.3
        corners = [(r * np.sin(a), r * np.cos(a)) for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    diagonal = chance(rng, 0.6)
    outs = []
    for x, z in corners:
        out = np.array([x / plan.width if diagonal else 0.0, z / plan.depth])
        outs.append(tuple(float(c) for c in out / max(float(np.linalg.norm(out)), 1e-9)))
    legs = plan.legs if plan.width < 0.8 else plan.legs._replace(splay=plan.legs.splay * 0.4)
    tops = [(x, top, z) for x, z in corners]
    foot = rng.uniform(0.015, 0.03) if chance(rng, 0.12) else 0.0
    nodes = [leaf("leg", legs.leg(t, o, foot)) for t, o in zip(tops, outs, strict=True)]
    if foot:
        for t, o in zip(tops, outs, strict=True):
            x, _, z = legs.curve(np.asarray(t), o, foot)[-1]
            wide = legs.size * float(legs.scale[-1]) * rng.uniform(0.6, 0.9)
            nodes.append(leaf("foot", cylinder((x, 0, z), (x, foot, z), wide, wide * 0.85, segments=12)))
    heights = rng.uniform(0.2, 0.6, 2) * top

    def between(i: int, j: int, height: float) -> Node:
        ends = legs.at(tops[i], outs[i], height), legs.at(tops[j], outs[j], height)
        return leaf("bar_stretcher", plan.bars.along(np.stack(ends), plan.bars.size * 0.75))

    if len(corners) == 4:
        kind = choose(rng, ((0.48, "none"), (0.17, "H"), (0.17, "box"), (0.06, "sides"), (0.06, "X"), (0.06, "front")))
        if kind in ("H", "sides", "box"):
            nodes += [between(0, 3, heights[0]), between(1, 2, heights[0])]
        if kind == "H":
            ends = [
                (legs.at(tops[i], outs[i], heights[0]) + legs.at(tops[j], outs[j], heights[0])) / 2
                for i, j in ((0, 3), (1, 2))
            ]
            nodes.append(leaf("bar_stretcher", plan.bars.along(np.stack(ends), plan.bars.size * 0.75)))
        if kind in ("box", "front"):
            nodes += [between(0, 1, heights[1]), between(2, 3, heights[1])]
        if kind == "X":
            nodes += [between(0, 2, heights[0]), between(1, 3, heights[0])]
    elif len(corners) == 3 and chance(rng, 0.5):
        nodes += [between(0, 1, heights[0]), between(1, 2, heights[0]), between(2, 0, heights[0])]
    return group("regular_leg_base", *nodes)


def rocking_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Four legs on two curved runners."""
    size = plan.legs.size
    top = plan.height - min(plan.thick, 0.05) * 0.8
    length = plan.depth * rng.uniform(1.2, 1.7)
    rise = length * rng.uniform(0.05, 0.12)
    z = np.linspace(-0.5, 0.5, 15) * length - 0.05 * length
    y = size * 0.4 + rise * (2 * z / length) ** 2
    nodes = []
    legs = plan.legs._replace(splay=0.0, offset=np.zeros(len(plan.legs.scale)))
    for x, leg_z in plan.corners:
        floor = float(np.interp(leg_z, z, y))
        nodes.append(leaf("leg", legs.leg((x, top, leg_z), (0.0, 0.0), floor)))
    (x, front), _, _, (rear_x, rear) = plan.corners
    runner_x = rear_x + (z - rear) / (front - rear) * (x - rear_x)
    for side in (-1, 1):
        line = np.stack((side * runner_x, y, z), axis=1)
        nodes.append(leaf("runner", sweep(line, rectangle(size * 0.8, size * 0.9))))
    if chance(rng, 0.6):
        for height, across, leg_z in ((top * 0.4, x, front), (top * 0.45, rear_x, rear)):
            ends = (-across, height, leg_z), (across, height, leg_z)
            nodes.append(leaf("bar_stretcher", plan.bars.bar(*ends, size=size * 0.6)))
    return group("regular_leg_base", *nodes)


def crossed_legs(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Folding chairs: on both sides two legs that cross, with rungs between the sides."""
    x, z = plan.width / 2 - plan.bars.size * 0.5, plan.depth / 2 * rng.uniform(0.8, 1.05)
    top = plan.height - min(plan.thick, 0.05) * 0.7
    size = plan.bars.size
    nodes = []
    for side in (-1, 1):
        for sign, inset in ((1, 0.0), (-1, size * 1.05)):
            a, b = (side * (x - inset), top, -sign * z * 0.9), (side * (x - inset), size * 0.3, sign * z)
            nodes.append(leaf("leg", plan.bars.bar(a, b)))
    for sign in (1, -1):
        u = rng.uniform(0.1, 0.3)
        y, at = u * top, sign * z * (1 - 1.9 * u)
        inner = x if sign > 0 else x - size * 1.05
        nodes.append(leaf("bar_stretcher", plan.bars.bar((-inner, y, at), (inner, y, at), size * 0.75)))
    return group("regular_leg_base", *nodes)


def sled_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """On both sides a bent bar from the seat over the floor and back to the seat."""
    size = plan.bars.size
    x, z, top = plan.width / 2 - size * 0.5, plan.depth / 2 - size * 0.5, plan.height - min(plan.thick, 0.06) * 0.8
    lean_front, lean_back = rng.uniform(-0.1, 0.12, 2) * plan.depth
    radius = choose(rng, ((0.4, 0.005), (0.6, rng.uniform(0.03, 0.12))))
    closed = chance(rng, 0.4)
    nodes = []
    for side in (-1, 1):
        corners = [
            (side * x, top, z),
            (side * x, size / 2, z + lean_front),
            (side * x, size / 2, -z - lean_back),
            (side * x, top, -z),
        ]
        if closed:
            corners.append((side * x, top, z * 0.98))
        nodes.append(leaf("sled_runner", plan.bars.along(rounded_path(corners, radius))))
    bars = ((top * 0.97, z * 0.9), (top * 0.97, -z * 0.9), (size / 2, -z * 0.8))
    for y, at in bars[: int(rng.integers(0, 4))]:
        nodes.append(leaf("bar_stretcher", plan.bars.bar((-x, y, at), (x, y, at), size * 0.8)))
    return group("sled_base", *nodes)


def cantilever_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Two bent tubes from under the seat around the front to the floor, joined at the back."""
    size = plan.bars.size
    x, z, top = plan.width / 2 - size * 0.5, plan.depth / 2, plan.height - plan.thick * 0.8
    radius = rng.uniform(0.04, 0.14)
    ahead = rng.uniform(-0.06, 0.06)
    nodes = []
    for side in (-1, 1):
        corners = (
            (side * x, top, -z * 0.9),
            (side * x, top, z),
            (side * x, size / 2, z + ahead),
            (side * x, size / 2, -z * 0.95),
        )
        nodes.append(leaf("sled_runner", plan.bars.along(rounded_path(corners, radius))))
    rear = (-x, size / 2, -z * 0.95), (x, size / 2, -z * 0.95)
    nodes.append(leaf("bar_stretcher", plan.bars.bar(*rear)))
    return group("sled_base", *nodes)


def star_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A column on four to six feet, mostly with casters, at any turn."""
    count = choose(rng, ((0.25, 4), (0.65, 5), (0.1, 6)))
    wheels = chance(rng, 0.75)
    wheel = rng.uniform(0.022, 0.035)
    low = 2.3 * wheel if wheels else rng.uniform(0.012, 0.03)
    reach = plan.width * rng.uniform(0.5, 0.68)
    hub = low + rng.uniform(0.02, 0.09)
    size = rng.uniform(0.025, 0.05)
    under = plan.height - plan.thick * 0.9
    bow = rng.uniform(-0.02, 0.03)
    turn = rng.uniform(0, 360)
    u = np.linspace(0.02, 1, 6)[:, None]
    line = u * np.array([0, 0, reach]) + (hub + u * (low - hub) + 4 * u * (1 - u) * bow) * np.array([0, 1, 0])
    foot = sweep(line, rectangle(size * rng.uniform(0.8, 1.6), size * 0.8), scale=np.linspace(1.2, 0.6, 6))
    nodes = []
    for i in range(count):
        degrees = turn + 360 * i / count
        nodes.append(leaf("star_leg", foot.rotated(1, degrees)))
        if wheels:
            angle = np.deg2rad(degrees)
            top = (reach * 0.96 * np.sin(angle), low, reach * 0.96 * np.cos(angle))
            nodes.append(leaf("wheel", caster(rng, top, wheel)))
    radius = rng.uniform(0.02, 0.035)
    sleeve = hub + (under - hub) * rng.uniform(0.35, 0.7)
    profile = [(0, hub - 0.02), (radius * 1.4, hub - 0.02), (radius * 1.3, sleeve), (radius * 0.7, sleeve)]
    column = lathe([*profile, (radius * 0.7, under), (0, under)], segments=16)
    nodes.append(leaf("central_support", column))
    if chance(rng, 0.55):
        plate_size = plan.width * rng.uniform(0.3, 0.5)
        control = box((plate_size, 0.03, plate_size * rng.uniform(0.8, 1.3)), (0, under - 0.012, 0))
        lever = cylinder(
            (plate_size * 0.3, under - 0.015, 0.04), (plan.width * 0.48, under - 0.03, 0.04), 0.006, segments=8
        )
        nodes.append(leaf("mechanical_control", *((control, lever) if chance(rng, 0.6) else (control,))))
    return group("star_leg_base", *nodes)


def pedestal_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A column on a disc, a dome or a square plate."""
    under = plan.height - plan.thick * 0.8
    foot = plan.width * rng.uniform(0.32, 0.5)
    thick, rise = rng.uniform(0.01, 0.03), rng.uniform(0.0, 0.08)
    radius = plan.width * rng.uniform(0.04, 0.09)
    if chance(rng, 0.25):
        plinth = plate(rectangle(2 * foot, 2 * foot, foot * rng.uniform(0, 0.5)), thick).moved((0, thick / 2, 0))
    else:
        t = np.linspace(0, 1, 6)
        dome = np.stack((foot + t * (radius - foot), thick + rise * t**2), axis=1)
        plinth = lathe([(0, 0), (foot, 0), *dome, (0, thick + rise)], segments=28)
    low = thick + rise * 0.9
    t = np.linspace(0, 1, 7)
    swell = np.interp(t, np.linspace(0, 1, 4), rng.uniform(0.8, 1.4, 4)) if chance(rng, 0.4) else np.ones(7)
    flare = 1 + rng.uniform(0, 2.0) * np.maximum(0, t - 0.8) / 0.2
    profile = np.stack((radius * swell * flare, low + t * (under - low)), axis=1)
    column = lathe([(0, low), *profile, (0, under)], segments=18)
    return group("pedestal_base", leaf("central_support", column), leaf("pedestal", plinth))


def panel_base(rng: np.random.Generator, plan: Plan) -> Nodes:
    """Two upright boards, for benches."""
    thick = rng.uniform(0.02, 0.06)
    height = plan.height - plan.thick
    x = plan.width / 2 * rng.uniform(0.7, 0.98) - thick / 2
    board = box((thick, height, plan.depth * rng.uniform(0.8, 1.0)), (x, height / 2, 0))
    return group("panel_base", leaf("side_panel", board), leaf("side_panel", board.mirrored(0)))


def sofa_feet(rng: np.random.Generator, legs: Legs, x: float, z: float, height: float, columns: int) -> Nodes:
    """Short feet under a sofa."""
    inset = legs.size * rng.uniform(0.6, 1.3)
    nodes = []
    if not height:
        return ()
    bun = chance(rng, 0.25)
    for at in np.linspace(-x + inset, x - inset, columns):
        for side in (-1, 1):
            end = (float(at), height + 0.01, side * (z - inset))
            if bun:
                t = np.linspace(0, np.pi, 7)
                profile = np.stack((legs.size * (0.25 + 0.45 * np.sin(t)), height * (1 - np.cos(t)) / 2), axis=1)
                foot = lathe([(0, 0), *profile, (0, height)], segments=16).moved((end[0], 0, end[2]))
            else:
                foot = legs.leg(end, (float(np.sign(at)), float(side)))
            nodes.append(leaf("foot", foot))
    return group("foot_base", *nodes)


def footrest_ring(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A ring about the column of a high stool, on spokes."""
    height = plan.height * rng.uniform(0.3, 0.45)
    radius = plan.width * rng.uniform(0.38, 0.5)
    tube = rng.uniform(0.008, 0.014)
    a = np.linspace(0, 2 * np.pi, 9)
    ring = lathe(np.stack((radius + tube * np.sin(a), height - tube * np.cos(a)), axis=1), segments=28)
    spokes = [
        cylinder((0, height, 0), (radius * np.sin(b), height, radius * np.cos(b)), tube * 0.8, segments=8)
        for b in np.arange(3) * 2 * np.pi / 3
    ]
    return (leaf("footrest_ring", ring, *spokes),)


def footrest_bar(rng: np.random.Generator, plan: Plan) -> Nodes:
    x, y, z = plan.width / 2 - plan.bars.size * 0.5, plan.height * rng.uniform(0.3, 0.45), plan.depth / 2
    return (leaf("footrest_bar", plan.bars.bar((-x, y, z), (x, y, z))),)


def front_footrest(rng: np.random.Generator, plan: Plan) -> Nodes:
    """A padded board before the seat, carried by two bars."""
    length = rng.uniform(0.3, 0.5)
    down = rng.uniform(0, 45)
    z = plan.depth / 2
    soft = cushion((plan.width * 0.9, max(plan.thick * 0.7, 0.05), length), exponent=10, edge=3)
    y = plan.height - plan.thick * 0.6
    board = soft.moved((0, 0, length / 2 + 0.03)).rotated(0, down).moved((0, y, z))
    bar = plan.bars.bar((0, -0.02, -0.1), (0, -0.02, length * 0.6), plan.bars.size * 0.7).rotated(0, down)
    nodes = [leaf("footrest_board", board)]
    nodes += [leaf("footrest_bar", bar.moved((s * plan.width * 0.3, y - 0.01, z))) for s in (-1, 1)]
    return tuple(nodes)
