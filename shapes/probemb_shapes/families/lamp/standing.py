"""Lamps that stand on a table, the floor or a desk."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.joinery import chance, choose, draw_bars, draw_legs
from probemb_shapes.families.lamp.fittings import Parts, draw_disc, head_at, power_cord
from probemb_shapes.families.lamp.head import ball, draw_head, radii_over_height
from probemb_shapes.families.primitives import box, cylinder, lathe, merge
from probemb_shapes.families.tree import Node, leaf


def table_lamp(rng: np.random.Generator) -> Parts:
    """A body on a foot, under one shade or two."""
    radius = rng.uniform(0.06, 0.11)
    make, y = draw_disc(rng, radius)
    nodes: Parts = [("lamp_base/holistic_base", leaf("base_part", make()))]
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
        nodes += head_at(head, 0, (0, y, 0), (0, 1, 0))
    else:
        out = head.radius * rng.uniform(1.1, 1.5)
        for i, s in enumerate((-1, 1)):
            nodes.append(("lamp_arm", leaf("arm_bar", cylinder((0, y - thin, 0), (s * out, y, 0), 0.6 * thin))))
            nodes += head_at(head, i, (s * out, y, 0), (0, 1, 0))
    return nodes + (power_cord(rng, (0, 0, -radius)) if chance(rng, 0.25) else [])


def floor_lamp(rng: np.random.Generator) -> Parts:
    """A pole or a tripod, straight, bent over, or with heads around it."""
    tall = rng.uniform(1.1, 1.8)
    thin = rng.uniform(0.008, 0.02)
    radius = rng.uniform(0.11, 0.18)
    nodes: Parts = []
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
        make, y = draw_disc(rng, radius)
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
        nodes += head_at(head, 0, (0, y, 0), (0, 1, 0))
    elif form == "arc":
        reach, bars = rng.uniform(0.4, 1.0), draw_bars(rng, 2 * thin)
        t = np.linspace(0, np.pi * rng.uniform(0.75, 0.95), 17)
        curve = np.stack((reach * (1 - np.cos(t)) / 2, y + (tall - y) * np.sin(t) ** 0.7, 0 * t), 1)
        nodes.append(("lamp_body", leaf("pole", bars.along(curve))))
        nodes += head_at(draw_head(rng, rng.uniform(0.1, 0.22), "down"), 0, curve[-1], (0, -1, 0))
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
            nodes += head_at(head, i, end, aim)
    return nodes + (power_cord(rng, (0, 0, -radius)) if chance(rng, 0.2) else [])


def desk_lamp(rng: np.random.Generator) -> Parts:
    """Bars that turn in joints; nothing reaches below the desk."""
    while True:
        nodes = _jointed_lamp(rng)
        if min(float(node.mesh.vertices[:, 1].min()) for _, node in nodes if node.mesh) > -0.01:
            return nodes


def _jointed_lamp(rng: np.random.Generator) -> Parts:
    """The bars lie in one upright plane; the head may leave it."""
    radius = rng.uniform(0.07, 0.12)
    clamp = chance(rng, 0.15)
    thin = rng.uniform(0.005, 0.011)
    nodes: Parts = []
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
        make, y = draw_disc(rng, radius)
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
    nodes += head_at(head, 0, at, (np.sin(down), np.cos(down), rng.uniform(-0.3, 0.3)))
    spin = rng.uniform(-180, 180)
    nodes = [(name, Node(n.name, mesh=n.mesh.rotated(1, spin))) for name, n in nodes if n.mesh]
    return nodes + (power_cord(rng, (0, 0, -radius)) if chance(rng, 0.25) else [])
