"""Lamps: standing on a table or the floor, hanging, on walls and ceilings, desk lamps with joints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from probemb_shapes.classes import levels
from probemb_shapes.families.joinery import chance, choose, draw_bars, draw_legs
from probemb_shapes.families.lamp.head import Head, ball, bulb_mesh, draw_candle, draw_head, radii_over_height
from probemb_shapes.families.primitives import (
    Mesh,
    box,
    circle,
    cylinder,
    lathe,
    merge,
    plate,
    rectangle,
    sweep,
)
from probemb_shapes.families.tree import Node, group, leaf, parts

Array = np.ndarray[Any, np.dtype[Any]]
Point = Sequence[float] | Array

LEVELS = levels(
    {
        "lamp": {
            "lamp_base": {
                "holistic_base": ("base_part",),
                "leg_base": ("leg",),
                "mount": ("ceiling_canopy", "wall_plate", "rail"),
            },
            "lamp_body": ("pole", "body_solid", "body_joint", "hub"),
            "suspension": ("cord", "chain_link"),
            "lamp_arm": ("arm_bar", "arm_curved_bar", "arm_joint"),
            "lamp_head": ("lamp_shade", "light_bulb", "socket", "harp", "finial", "drip_pan", "shade_frame", "glass"),
            "power_cord": (),
        },
    }
)

MIN_PARTS, MAX_PARTS = 3, 40

# Pairs of the inner nodes' path below the root, and a leaf; heads are numbered: lamp_head/0, lamp_head/1 …
_Parts = list[tuple[str, Node]]


def lamp(rng: np.random.Generator) -> Node:
    """A lamp, y up, in metres.

    Design choices, independent of each other as far as they can be built:

    1. kind: table, floor, desk, pendant, chandelier, wall, flush or track on the ceiling, lantern
    2. base: disc, square, stepped, domed, or legs; ceiling or wall mount
    3. body: pole, vase, stacked solids, block, several segments
    4. arms: number, straight, curved or jointed at random bends
    5. shade: cone, drum, bell, dome, globe, spot, pleated, lobed, square, six-sided, bare bulb
    6. shade's proportions and which way it looks
    7. bulb: globe, pear, candle, tube, and whether one sees it
    8. fittings: socket, harp, finial, drip pan
    9. number of heads, their arrangement: one, a row, a ring, two rings
    10. suspension: cord, rod or chain, equal or different lengths
    11. section and thickness of bars
    12. power cord or none

    3 to 40 parts.
    """
    kinds = (
        (0.25, _table_lamp),
        (0.17, _floor_lamp),
        (0.13, _desk_lamp),
        (0.14, _pendant),
        (0.12, _chandelier),
        (0.09, _wall_lamp),
        (0.06, _ceiling_lamp),
        (0.04, _lantern),
    )
    while True:
        nodes = choose(rng, kinds)(rng)
        root = Node("lamp", _gathered(nodes))
        if MIN_PARTS <= sum(part.node.mesh is not None for part in parts(root)) <= MAX_PARTS:
            return root


def _gathered(nodes: _Parts) -> tuple[Node, ...]:
    """Leaves under their inner nodes: one base, one body, all arms together, but every head of its own."""
    tops: dict[str, _Parts] = {}
    for path, node in nodes:
        top = path if path.startswith("lamp_head/") else path.split("/")[0]
        tops.setdefault(top, []).append((path, node))
    made: list[Node] = []
    for top, below in tops.items():
        if not top:
            made += [node for _, node in below]
        elif top.startswith("lamp_head/"):
            made.append(Node("lamp_head", tuple(node for _, node in below)))
        else:
            inner: list[tuple[Node, ...]] = []
            for path in dict.fromkeys(path for path, _ in below):
                leaves = tuple(node for other, node in below if other == path)
                inner.append(group(path.partition("/")[2], *leaves) if "/" in path else leaves)
            made.append(Node(top, tuple(node for some in inner for node in some)))
    return tuple(made)


def _placed(nodes: Sequence[Node], at: Point, direction: Point = (0.0, 1.0, 0.0)) -> list[Node]:
    """Leaves turned so that +y looks along ``direction``, then moved."""
    x, y, z = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    tilt, heading = np.degrees(np.arccos(np.clip(y, -1, 1))), np.degrees(np.arctan2(z, x))
    return [
        Node(node.name, mesh=node.mesh.rotated(2, -tilt).rotated(1, -heading).moved(at)) for node in nodes if node.mesh
    ]


def _head_at(head: Head, number: int, at: Point, direction: Point) -> _Parts:
    return [(f"lamp_head/{number}", node) for node in _placed(head.leaves(), at, direction)]


# ---- bases and mounts


def _disc(rng: np.random.Generator, radius: float) -> tuple[Callable[[], Mesh], float]:
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


def _power_cord(rng: np.random.Generator, start: Point) -> _Parts:
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


# ---- standing lamps


def _table_lamp(rng: np.random.Generator) -> _Parts:
    radius = rng.uniform(0.06, 0.11)
    make, y = _disc(rng, radius)
    nodes: _Parts = [("lamp_base/holistic_base", leaf("base_part", make()))]
    if chance(rng, 0.25):  # little feet
        nodes = [(name, Node(n.name, mesh=n.mesh.moved((0, 0.015, 0)))) for name, n in nodes if n.mesh]
        y += 0.015
        nodes += [
            ("lamp_base/leg_base", leaf("leg", ball(0.012).moved((0.75 * radius * sx, 0.012, 0.75 * radius * sz))))
            for sx in (-1, 1)
            for sz in (-1, 1)
        ]
    tall = rng.uniform(0.12, 0.4)
    body = choose(rng, ((0.3, "vase"), (0.25, "pole"), (0.25, "stack"), (0.1, "block"), (0.1, "twin")))
    wide = rng.uniform(0.6, 1.3) * radius
    thin = rng.uniform(0.006, 0.014)
    if body == "vase":
        knots = np.concatenate(([rng.uniform(0.4, 1)], rng.uniform(0.35, 1.0, 4), [rng.uniform(0.12, 0.3)]))
        t = np.linspace(0, 1, 15)
        smooth = np.interp(t, np.linspace(0, 1, 6), knots)
        smooth = np.convolve(np.pad(smooth, 2, mode="edge"), np.ones(5) / 5, mode="valid")
        profile = np.concatenate(([(0, y)], radii_over_height(smooth, tall, wide, y), [(0, y + tall)]))
        segments = choose(rng, ((0.8, 24), (0.1, 4), (0.1, 8)))
        nodes.append(("lamp_body", leaf("body_solid", lathe(profile, segments=segments))))
    elif body == "stack":
        count = int(rng.integers(2, 7))
        alike = chance(rng, 0.5)
        bead = ball(tall / count / 2, 16)
        for i in range(count):
            part = tall / count
            middle = y + (i + 0.5) * part
            if alike or chance(rng, 0.5):
                nodes.append(("lamp_body", leaf("body_solid", bead.moved((0, middle, 0)))))
            else:
                r = wide * rng.uniform(0.2, 0.6)
                solid = cylinder((0, middle - part / 2, 0), (0, middle + part / 2, 0), r, r * rng.uniform(0.6, 1.4))
                nodes.append(("lamp_body", leaf("body_solid", solid)))
    elif body == "block":
        side = wide * rng.uniform(0.6, 1.0)
        nodes.append(("lamp_body", leaf("body_solid", box((side, tall, side), (0, y + tall / 2, 0)))))
    elif body == "twin":
        gap = rng.uniform(0.2, 0.6) * radius
        for s in (-1, 1):
            nodes.append(("lamp_body", leaf("pole", cylinder((s * gap, y, 0), (s * gap, y + tall, 0), thin))))
        bar = cylinder((-gap * 1.2, y + tall, 0), (gap * 1.2, y + tall, 0), thin)
        nodes.append(("lamp_body", leaf("body_joint", bar)))
    else:
        nodes.append(("lamp_body", leaf("pole", cylinder((0, y, 0), (0, y + tall, 0), thin))))
        if chance(rng, 0.4):
            nodes.append(
                ("lamp_body", leaf("body_joint", ball(2 * thin).moved((0, y + tall * rng.uniform(0.2, 0.8), 0))))
            )
    y += tall
    heads = choose(rng, ((0.85, 1), (0.15, 2)))
    size = max(rng.uniform(1.0, 2.1) * radius, 0.08)
    head = draw_head(rng, size if heads == 1 else 0.6 * size, "up")
    if heads == 1:
        nodes += _head_at(head, 0, (0, y, 0), (0, 1, 0))
    else:
        out = head.radius * rng.uniform(1.1, 1.5)
        for i, s in enumerate((-1, 1)):
            nodes.append(("lamp_arm", leaf("arm_bar", cylinder((0, y - thin, 0), (s * out, y, 0), 0.6 * thin))))
            nodes += _head_at(head, i, (s * out, y, 0), (0, 1, 0))
    return nodes + (_power_cord(rng, (0, 0, -radius)) if chance(rng, 0.25) else [])


def _floor_lamp(rng: np.random.Generator) -> _Parts:
    tall = rng.uniform(1.1, 1.8)
    thin = rng.uniform(0.008, 0.02)
    radius = rng.uniform(0.11, 0.18)
    nodes: _Parts = []
    tripod = chance(rng, 0.28)
    if tripod:
        count = choose(rng, ((0.75, 3), (0.25, 4)))
        meet = tall * choose(rng, ((0.5, 1.0), (0.5, rng.uniform(0.15, 0.9))))
        spread = rng.uniform(0.14, 0.32) * max(meet, 0.5)
        legs = draw_legs(rng, 2 * thin, plain=True)._replace(splay=spread / meet)
        turn = rng.uniform(0, 2 * np.pi)
        for i in range(count):
            a = turn + 2 * np.pi * i / count
            out = (np.cos(a), np.sin(a))
            mesh = legs.leg((0.6 * thin * out[0], meet, 0.6 * thin * out[1]), out)
            nodes.append(("lamp_base/leg_base", leaf("leg", mesh)))
        nodes.append(("lamp_body", leaf("body_joint", cylinder((0, meet - 0.02, 0), (0, meet + 0.02, 0), 2.5 * thin))))
        y = meet + 0.02
    else:
        make, y = _disc(rng, radius)
        nodes.append(("lamp_base/holistic_base", leaf("base_part", make())))
    form = "straight" if tripod else choose(rng, ((0.55, "straight"), (0.2, "arc"), (0.25, "tree")))
    if tall - y > 0.1 and form != "arc":
        count = int(rng.integers(1, 4))
        for i in range(count):
            low, high = (y + (tall - y) * (i + k) / count for k in (0, 1))
            nodes.append(("lamp_body", leaf("pole", cylinder((0, low, 0), (0, high, 0), thin * (1 - 0.15 * i)))))
            if i < count - 1 and chance(rng, 0.6):
                nodes.append(("lamp_body", leaf("body_joint", ball(1.6 * thin).moved((0, high, 0)))))
        y = tall
    if form == "straight":
        head = draw_head(rng, rng.uniform(0.12, 0.26), "up")
        nodes += _head_at(head, 0, (0, y, 0), (0, 1, 0))
    elif form == "arc":
        reach, bars = rng.uniform(0.4, 1.0), draw_bars(rng, 2 * thin)
        t = np.linspace(0, np.pi * rng.uniform(0.75, 0.95), 17)
        curve = np.stack((reach * (1 - np.cos(t)) / 2, y + (tall - y) * np.sin(t) ** 0.7, 0 * t), 1)
        nodes.append(("lamp_body", leaf("pole", bars.along(curve))))
        nodes += _head_at(draw_head(rng, rng.uniform(0.1, 0.22), "down"), 0, curve[-1], (0, -1, 0))
    else:
        count = int(rng.integers(2, 6))
        head = draw_head(rng, rng.uniform(0.06, 0.11), "spot")
        same = chance(rng, 0.5)
        spin, first = rng.uniform(0, 360), rng.uniform(0.55, 0.75)
        for i in range(count):
            a = np.radians(spin + 360 / count * i)
            base = np.array([0, tall if same else tall * (first + (1 - first) * i / max(count - 1, 1)), 0])
            end = base + np.array([np.cos(a), rng.uniform(-0.1, 0.5), np.sin(a)]) * rng.uniform(0.18, 0.35)
            nodes.append(("lamp_arm", leaf("arm_bar", cylinder(base, end, 0.6 * thin, segments=10))))
            nodes.append(("lamp_arm", leaf("arm_joint", ball(1.1 * thin).moved(end))))
            aim = np.array([np.cos(a), rng.uniform(-1.2, 1.2), np.sin(a)])
            nodes += _head_at(head, i, end, aim)
    return nodes + (_power_cord(rng, (0, 0, -radius)) if chance(rng, 0.2) else [])


def _desk_lamp(rng: np.random.Generator) -> _Parts:
    """Bars that turn in joints; nothing reaches below the desk."""
    while True:
        nodes = _jointed_lamp(rng)
        if min(float(node.mesh.vertices[:, 1].min()) for _, node in nodes if node.mesh) > -0.01:
            return nodes


def _jointed_lamp(rng: np.random.Generator) -> _Parts:
    """The bars lie in one upright plane; the head may leave it."""
    radius = rng.uniform(0.07, 0.12)
    clamp = chance(rng, 0.15)
    thin = rng.uniform(0.005, 0.011)
    nodes: _Parts = []
    if clamp:
        y = 0.09
        body = merge(
            (
                box((0.05, 0.015, 0.06), (0, y - 0.008, 0)),
                box((0.05, 0.015, 0.06)),
                box((0.05, y, 0.012), (0, y / 2, -0.03)),
            )
        )
        nodes.append(("lamp_base/holistic_base", leaf("base_part", body)))
    else:
        make, y = _disc(rng, radius)
        nodes.append(("lamp_base/holistic_base", leaf("base_part", make())))
    count = int(rng.integers(2, 4))
    equal = chance(rng, 0.6)
    length = rng.uniform(0.16, 0.32)
    double = chance(rng, 0.35)
    joint = choose(rng, ((0.5, "ball"), (0.5, "pin")))
    wide = rng.uniform(2.0, 3.2) * thin
    bars = draw_bars(rng, 2 * thin)
    at = np.array([0.0, y, 0.0])
    lift = rng.uniform(0, 20) if chance(rng, 0.6) else rng.uniform(20, 50)
    lean = lift
    for i in range(count):
        part = length if equal else length * rng.uniform(0.5, 1.3)
        way = np.array([np.sin(np.radians(lean)), np.cos(np.radians(lean)), 0.0])
        end = at + part * way
        pole = i == 0
        if double and not pole:
            bar = cylinder(at, end, 0.6 * thin, segments=8)
            nodes += [("lamp_arm", leaf("arm_bar", bar.moved((0, 0, s * wide)))) for s in (-1, 1)]
        else:
            nodes.append(("lamp_body" if pole else "lamp_arm", leaf("pole" if pole else "arm_bar", bars.bar(at, end))))
        reach = wide + thin
        knuckle = ball(wide) if joint == "ball" else cylinder((0, 0, -reach), (0, 0, reach), 1.6 * thin, segments=12)
        nodes.append(("lamp_arm", leaf("arm_joint", knuckle.moved(end))))
        at = end
        turn = rng.uniform(25, 95)
        lean = lean - turn if i == 0 and count == 3 and chance(rng, 0.6) else lean + turn
    head = draw_head(rng, rng.uniform(0.055, 0.1), "spot")
    down = np.radians(rng.uniform(95, 190))
    nodes += _head_at(head, 0, at, (np.sin(down), np.cos(down), rng.uniform(-0.3, 0.3)))
    spin = rng.uniform(-180, 180)
    nodes = [(name, Node(n.name, mesh=n.mesh.rotated(1, spin))) for name, n in nodes if n.mesh]
    return nodes + (_power_cord(rng, (0, 0, -radius)) if chance(rng, 0.25) else [])


# ---- hanging lamps


def _hung(rng: np.random.Generator, at: Array, low: float, form: str, thin: float) -> _Parts:
    """What a head hangs on, from ``at`` down to the height ``low``."""
    if form == "chain":
        links = _chain(float(at[1]), low, 6 * thin + 0.03)[:8]
        step = (float(at[1]) - low) / max(len(links), 1)
        links = _chain(float(at[1]), low, step / 1.5)
        return [("suspension", leaf("chain_link", link.moved((at[0], 0, at[2])))) for link in links]
    rod = cylinder(at, (at[0], low, at[2]), thin * (1.0 if form == "cord" else 2.2), segments=8)
    return [("suspension", leaf("cord", rod))]


def _pendant(rng: np.random.Generator) -> _Parts:
    count = choose(rng, ((0.45, 1), (0.1, 2), (0.2, 3), (0.1, 4), (0.08, 5), (0.07, 7)))
    size = rng.uniform(0.1, 0.28) if count == 1 else rng.uniform(0.06, 0.15)
    head = draw_head(rng, size, "down")
    thin = rng.uniform(0.002, 0.006)
    form = choose(rng, ((0.6, "cord"), (0.25, "rod"), (0.15, "chain"))) if count < 3 else "cord"
    length = rng.uniform(0.25, 1.1)
    make, high = _disc(rng, rng.uniform(0.04, 0.09))
    nodes: _Parts = []
    row = count > 1 and chance(rng, 0.6)
    if row:
        gap = head.radius * rng.uniform(2.2, 3.2)
        spots = [np.array([(i - (count - 1) / 2) * gap, 0.0, 0.0]) for i in range(count)]
        rail = box(((count - 1) * gap + 0.1, 0.03, 0.06), (0, 0.015, 0))
        nodes.append(("lamp_base/mount", leaf("rail", rail)))
    elif count > 1:
        ring = head.radius * max(1.25 / np.sin(np.pi / count), 1.3)
        turn = rng.uniform(0, 2 * np.pi)
        angles = turn + 2 * np.pi * np.arange(count) / count
        spots = [np.array([ring * np.cos(a), 0.0, ring * np.sin(a)]) for a in angles]
        plate_mesh = cylinder((0, 0, 0), (0, 0.03, 0), ring * 1.15, segments=28)
        nodes.append(("lamp_base/mount", leaf("ceiling_canopy", plate_mesh)))
    else:
        spots = [np.zeros(3)]
        nodes.append(("lamp_base/mount", leaf("ceiling_canopy", make().mirrored(1).moved((0, high, 0)))))
    uneven = chance(rng, 0.5)
    for i, spot in enumerate(spots):
        low = -length * (rng.uniform(0.5, 1.2) if uneven else 1.0)
        nodes += _hung(rng, spot, low, form, thin)
        nodes += _head_at(head, i, (spot[0], low, spot[2]), (0, -1, 0))
    return nodes


def _chandelier(rng: np.random.Generator) -> _Parts:
    thin = rng.uniform(0.005, 0.012)
    make, high = _disc(rng, rng.uniform(0.05, 0.09))
    length = rng.uniform(0.15, 0.6)
    nodes: _Parts = [("lamp_base/mount", leaf("ceiling_canopy", make().mirrored(1).moved((0, high, 0))))]
    nodes += _hung(rng, np.zeros(3), -length, choose(rng, ((0.4, "chain"), (0.6, "rod"))), 0.5 * thin)
    tall = rng.uniform(0.12, 0.35)
    knots = rng.uniform(0.15, 1.0, 9)
    turned = radii_over_height(knots, tall, rng.uniform(0.025, 0.05), -tall - length)
    hub = np.concatenate(([(0, -tall - length)], turned, [(0, -length)]))
    nodes.append(("lamp_body", leaf("hub", lathe(hub, segments=16))))
    if chance(rng, 0.5):
        nodes.append(("lamp_body", leaf("body_joint", ball(0.02).moved((0, -length - tall - 0.015, 0)))))
    candles = chance(rng, 0.5)
    way = choose(rng, ((0.6, "up"), (0.4, "down")))
    head = draw_candle(rng) if candles else draw_head(rng, rng.uniform(0.05, 0.09), way)
    upward = 1.0 if candles or chance(rng, 0.6) else -1.0
    curved = chance(rng, 0.75)
    bars = draw_bars(rng, 1.6 * thin)
    tiers = choose(rng, ((0.8, 1), (0.2, 2)))
    number = 0
    for tier in range(tiers):
        count = int(rng.integers(3, 9 if tiers == 1 else 6))
        reach = rng.uniform(0.22, 0.45) * (1 - 0.35 * tier)
        reach = max(reach, head.radius * 1.2 / np.sin(np.pi / count))
        start = -length - tall * (0.8 - 0.5 * tier)
        rise, sway = rng.uniform(-0.03, 0.15), rng.uniform(0.05, 0.16)
        t = np.linspace(0, 1, 13)
        wave = rise * t - sway * np.sin(np.pi * t * rng.uniform(1.0, 1.6))
        line = np.stack((reach * t, start + (wave if curved else rise * t), 0 * t), 1)
        arm = bars.along(line if curved else line[[0, -1]])
        turn = rng.uniform(0, 360)
        for i in range(count):
            angle = turn + 360 / count * i
            a = np.radians(angle)
            end = np.array([reach * np.cos(a), line[-1, 1], -reach * np.sin(a)])
            nodes.append(("lamp_arm", leaf("arm_curved_bar" if curved else "arm_bar", arm.rotated(1, angle))))
            nodes += _head_at(head, number, end, (0, upward, 0))
            number += 1
    return nodes


# ---- on walls and ceilings


def _wall_lamp(rng: np.random.Generator) -> _Parts:
    count = choose(rng, ((0.6, 1), (0.3, 2), (0.1, 3)))
    wide, tall, thick = rng.uniform(0.06, 0.13), rng.uniform(0.08, 0.3), rng.uniform(0.012, 0.03)
    form = choose(rng, ((0.4, "round"), (0.6, "square")))
    if form == "round":
        mount = plate(circle(wide / 1.5, 24), thick).rotated(0, 90)
    else:
        mount = plate(rectangle(wide, tall, 0.0 if chance(rng, 0.5) else 0.3 * wide), thick).rotated(0, 90)
    nodes: _Parts = [("lamp_base/mount", leaf("wall_plate", mount))]
    way = choose(rng, ((0.55, "up"), (0.25, "down"), (0.2, "spot")))
    head = draw_head(rng, rng.uniform(0.05, 0.11), way)
    thin = rng.uniform(0.005, 0.011)
    reach = max(rng.uniform(0.06, 0.22), head.radius * 1.1 + thick)
    rise, curved = rng.uniform(-0.05, 0.1), chance(rng, 0.6)
    bars = draw_bars(rng, 2 * thin)
    jointed = chance(rng, 0.3)
    for i in range(count):
        side = (i - (count - 1) / 2) * head.radius * rng.uniform(2.1, 2.5)
        start, end = np.array([0.15 * side, 0, thick / 2]), np.array([side, rise, reach])
        if curved:
            t = np.linspace(0, 1, 11)[:, None]
            sag = rng.uniform(0.4, 1.2) * reach * (0.0 if jointed else 0.5)
            line = start + t * (end - start) - np.sin(np.pi * t) * np.array([0.0, sag, 0.0])
            nodes.append(("lamp_arm", leaf("arm_curved_bar", bars.along(line))))
        else:
            nodes.append(("lamp_arm", leaf("arm_bar", bars.bar(start, end))))
        if jointed or way == "spot":
            nodes.append(("lamp_arm", leaf("arm_joint", ball(2 * thin).moved(end))))
        aim = {"up": (0.0, 1.0, 0.0), "down": (0.0, -1.0, 0.0)}.get(
            way, (rng.uniform(-0.4, 0.4), rng.uniform(-1, 1), rng.uniform(0.2, 1))
        )
        nodes += _head_at(head, i, end, aim)
    return nodes


def _ceiling_lamp(rng: np.random.Generator) -> _Parts:
    form = choose(rng, ((0.35, "bowl"), (0.45, "track"), (0.2, "tubes")))
    if form == "bowl":
        radius, deep = rng.uniform(0.12, 0.25), rng.uniform(0.06, 0.15)
        make, high = _disc(rng, radius * rng.uniform(0.7, 1.05))
        a = np.linspace(-np.pi / 2, 0, 9)
        bowl = np.stack((radius * np.cos(a), deep * np.sin(a)), 1)
        bowl[0, 0] = 0
        nodes: _Parts = [
            ("lamp_base/mount", leaf("ceiling_canopy", make().mirrored(1).moved((0, high, 0)))),
            ("lamp_head/0", leaf("lamp_shade", lathe(bowl, segments=choose(rng, ((0.8, 28), (0.2, 4)))))),
        ]
        bulb = bulb_mesh(choose(rng, ((0.5, "globe"), (0.5, "pear"))), 0.3 * deep).rotated(0, 180)
        for i in range(int(rng.integers(1, 4))):
            a_i = 2.1 * i
            at = (0.45 * radius * np.cos(a_i), 0, 0.45 * radius * np.sin(a_i))
            nodes.append(("lamp_head/0", leaf("light_bulb", bulb.moved(at))))
        if chance(rng, 0.6):
            nodes.append(("lamp_head/0", leaf("finial", ball(0.09 * radius).moved((0, -deep - 0.05 * radius, 0)))))
        return nodes
    length, wide, high = rng.uniform(0.5, 1.3), rng.uniform(0.02, 0.14), rng.uniform(0.015, 0.05)
    count = int(rng.integers(1, 5))
    if form == "tubes":
        r = rng.uniform(0.01, 0.018)
        wide = max(wide, 3.2 * r * count)
        nodes = [("lamp_base/mount", leaf("rail", box((length, high, wide), (0, high / 2, 0))))]
        for i in range(count):
            z = (i - (count - 1) / 2) * 3 * r
            ends = [box((0.02, 3 * r, 2.2 * r), (s * (length / 2 - 0.02), -1.5 * r, z)) for s in (-1, 1)]
            tube = cylinder((-length / 2 + 0.03, -1.6 * r, z), (length / 2 - 0.03, -1.6 * r, z), r, segments=12)
            nodes.append((f"lamp_head/{i}", leaf("light_bulb", tube)))
            nodes += [(f"lamp_head/{i}", leaf("socket", end)) for end in ends]
        if chance(rng, 0.5):
            flare = [(s * wide / 2, 0.0, s * wide, -4 * r) for s in (-1, 1)]
            sides = [
                sweep(
                    ((-length / 2, 0, 0), (length / 2, 0, 0)), ((z0, y0), (z1, y1), (z1, y1 - 0.004), (z0, y0 - 0.004))
                )
                for z0, y0, z1, y1 in flare
            ]
            nodes.append((f"lamp_head/{count}", leaf("lamp_shade", *sides)))
        return nodes
    count += 1
    nodes = [("lamp_base/mount", leaf("rail", box((length, high, 0.5 * wide), (0, high / 2, 0))))]
    head = draw_head(rng, rng.uniform(0.035, min(0.08, 0.4 * length / count)), "spot")
    drop = rng.uniform(0.03, 0.1)
    for i in range(count):
        x = length * ((i + 0.5) / count - 0.5)
        nodes.append(("lamp_arm", leaf("arm_bar", cylinder((x, 0, 0), (x, -drop, 0), 0.006, segments=8))))
        nodes.append(("lamp_arm", leaf("arm_joint", ball(0.012).moved((x, -drop, 0)))))
        nodes += _head_at(head, i, (x, -drop, 0), (rng.uniform(-0.7, 0.7), -1, rng.uniform(-0.5, 1)))
    return nodes


def _lantern(rng: np.random.Generator) -> _Parts:
    """A glazed cage with a roof: on a post, on a foot, or hanging."""
    sides = choose(rng, ((0.6, 4), (0.4, 6)))
    tall, low, high = rng.uniform(0.2, 0.35), rng.uniform(0.06, 0.12), rng.uniform(0.08, 0.16)
    angles = np.arange(sides) * 2 * np.pi / sides + np.pi / sides
    way = np.stack((np.cos(angles), np.sin(angles)), 1)
    feet = np.stack((low * way[:, 0], np.zeros(sides), low * way[:, 1]), 1)
    tops = np.stack((high * way[:, 0], np.full(sides, tall), high * way[:, 1]), 1)
    bars = draw_bars(rng, rng.uniform(0.008, 0.014))
    spin = 180 / sides if sides == 4 else 30.0
    roof = rng.uniform(0.06, 0.14)
    cage = [bars.bar(a, b) for a, b in zip(feet, tops, strict=True)]
    panes = []
    for i in range(sides):
        corners = np.stack((feet[i], feet[i - 1], tops[i - 1], tops[i]))
        panes.append(Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]])))
    head = [
        leaf("socket", cylinder((0, 0, 0), (0, 0.2 * tall, 0), 0.016, segments=10)),
        leaf("light_bulb", bulb_mesh(choose(rng, ((0.5, "pear"), (0.5, "candle"))), 0.035).moved((0, 0.2 * tall, 0))),
        leaf(
            "shade_frame",
            *cage,
            lathe(((0, -0.01), (1.1 * low, -0.01), (1.1 * low, 0.008), (0, 0.008)), segments=sides).rotated(1, spin),
        ),
        leaf(
            "lamp_shade",
            lathe(((1.2 * high, tall), (0.3 * high, tall + roof), (0, tall + roof)), segments=sides).rotated(1, spin),
        ),
        leaf("finial", ball(0.02).moved((0, tall + roof + 0.012, 0))),
    ]
    head += [leaf("glass", pane) for pane in panes]
    form = choose(rng, ((0.4, "post"), (0.35, "hung"), (0.25, "foot")))
    make, rise = _disc(rng, rng.uniform(0.1, 0.16))
    if form == "hung":
        length = rng.uniform(0.2, 0.6)
        mount = ("lamp_base/mount", leaf("ceiling_canopy", make().scaled(0.6).mirrored(1).moved((0, 0.6 * rise, 0))))
        hung = _hung(rng, np.zeros(3), -length, choose(rng, ((0.5, "chain"), (0.5, "rod"))), 0.004)
        at = (0.0, -length - tall - roof - 0.03, 0.0)
        return [mount, *hung, *(("lamp_head/0", node) for node in _placed(head, at))]
    nodes: _Parts = [("lamp_base/holistic_base", leaf("base_part", make()))]
    if form == "post":
        post = rng.uniform(0.8, 2.0)
        radius = rng.uniform(0.015, 0.03)
        pole = cylinder((0, rise, 0), (0, rise + post, 0), radius, radius * rng.uniform(0.6, 1.0))
        nodes.append(("lamp_body", leaf("pole", pole)))
        rise += post
    return nodes + [("lamp_head/0", node) for node in _placed(head, (0, rise + 0.01, 0))]
