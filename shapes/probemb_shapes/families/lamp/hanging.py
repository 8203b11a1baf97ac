"""Lamps on ceilings and walls, and lanterns."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.joinery import chance, choose, draw_bars
from probemb_shapes.families.lamp.fittings import Parts, draw_disc, head_at, placed, suspended
from probemb_shapes.families.lamp.head import ball, bulb_mesh, draw_candle, draw_head, radii_over_height
from probemb_shapes.families.primitives import Mesh, box, circle, cylinder, lathe, plate, rectangle, sweep
from probemb_shapes.families.tree import leaf


def pendant(rng: np.random.Generator) -> Parts:
    """One head, or several in a row or a ring."""
    count = choose(rng, ((0.45, 1), (0.1, 2), (0.2, 3), (0.1, 4), (0.08, 5), (0.07, 7)))
    size = rng.uniform(0.1, 0.28) if count == 1 else rng.uniform(0.06, 0.15)
    head = draw_head(rng, size, "down")
    thin = rng.uniform(0.002, 0.006)
    form = choose(rng, ((0.6, "cord"), (0.25, "rod"), (0.15, "chain"))) if count < 3 else "cord"
    length = rng.uniform(0.25, 1.1)
    make, high = draw_disc(rng, rng.uniform(0.04, 0.09))
    nodes: Parts = []
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
        nodes += suspended(rng, spot, low, form, thin)
        nodes += head_at(head, i, (spot[0], low, spot[2]), (0, -1, 0))
    return nodes


def chandelier(rng: np.random.Generator) -> Parts:
    """Arms around a hub, in one or two tiers, with a head on each."""
    thin = rng.uniform(0.005, 0.012)
    make, high = draw_disc(rng, rng.uniform(0.05, 0.09))
    length = rng.uniform(0.15, 0.6)
    nodes: Parts = [("lamp_base/mount", leaf("ceiling_canopy", make().mirrored(1).moved((0, high, 0))))]
    nodes += suspended(rng, np.zeros(3), -length, choose(rng, ((0.4, "chain"), (0.6, "rod"))), 0.5 * thin)
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
            nodes += head_at(head, number, end, (0, upward, 0))
            number += 1
    return nodes


def wall_lamp(rng: np.random.Generator) -> Parts:
    """A plate with one to three arms."""
    count = choose(rng, ((0.6, 1), (0.3, 2), (0.1, 3)))
    wide, tall, thick = rng.uniform(0.06, 0.13), rng.uniform(0.08, 0.3), rng.uniform(0.012, 0.03)
    form = choose(rng, ((0.4, "round"), (0.6, "square")))
    if form == "round":
        mount = plate(circle(wide / 1.5, 24), thick).rotated(0, 90)
    else:
        mount = plate(rectangle(wide, tall, 0.0 if chance(rng, 0.5) else 0.3 * wide), thick).rotated(0, 90)
    nodes: Parts = [("lamp_base/mount", leaf("wall_plate", mount))]
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
        nodes += head_at(head, i, end, aim)
    return nodes


def ceiling_lamp(rng: np.random.Generator) -> Parts:
    """A bowl, a track with spots, or tubes."""
    form = choose(rng, ((0.35, "bowl"), (0.45, "track"), (0.2, "tubes")))
    if form == "bowl":
        radius, deep = rng.uniform(0.12, 0.25), rng.uniform(0.06, 0.15)
        make, high = draw_disc(rng, radius * rng.uniform(0.7, 1.05))
        a = np.linspace(-np.pi / 2, 0, 9)
        bowl = np.stack((radius * np.cos(a), deep * np.sin(a)), 1)
        bowl[0, 0] = 0
        nodes: Parts = [
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
        nodes += head_at(head, i, (x, -drop, 0), (rng.uniform(-0.7, 0.7), -1, rng.uniform(-0.5, 1)))
    return nodes


def lantern(rng: np.random.Generator) -> Parts:
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
    make, rise = draw_disc(rng, rng.uniform(0.1, 0.16))
    if form == "hung":
        length = rng.uniform(0.2, 0.6)
        mount = ("lamp_base/mount", leaf("ceiling_canopy", make().scaled(0.6).mirrored(1).moved((0, 0.6 * rise, 0))))
        hung = suspended(rng, np.zeros(3), -length, choose(rng, ((0.5, "chain"), (0.5, "rod"))), 0.004)
        at = (0.0, -length - tall - roof - 0.03, 0.0)
        return [mount, *hung, *(("lamp_head/0", node) for node in placed(head, at))]
    nodes: Parts = [("lamp_base/holistic_base", leaf("base_part", make()))]
    if form == "post":
        post = rng.uniform(0.8, 2.0)
        radius = rng.uniform(0.015, 0.03)
        pole = cylinder((0, rise, 0), (0, rise + post, 0), radius, radius * rng.uniform(0.6, 1.0))
        nodes.append(("lamp_body", leaf("pole", pole)))
        rise += post
    return nodes + [("lamp_head/0", node) for node in placed(head, (0, rise + 0.01, 0))]
