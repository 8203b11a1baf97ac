"""Racks of shelves between posts, and ladder shelves."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.joinery import caster, chance, choose, draw_bars
from probemb_shapes.families.primitives import box, plate, rectangle
from probemb_shapes.families.tree import Node, group, leaf


def rack(rng: np.random.Generator) -> Node:
    """Shelves between posts."""
    w, h, d = rng.uniform(0.3, 1.3), rng.uniform(0.6, 2.0), rng.uniform(0.22, 0.5)
    bars = draw_bars(rng, rng.uniform(0.018, 0.045))
    size, thick = bars.size, rng.uniform(0.012, 0.035)
    count = int(rng.integers(2, 7))
    lift = rng.uniform(0.05, 0.2)
    casters = chance(rng, 0.2)
    wheel = rng.uniform(0.02, 0.035) if casters else 0.0
    foot = 2.5 * wheel
    shelf_heights = np.linspace(foot + lift, h - (0 if chance(rng, 0.5) else 0.12), count)
    frame = [
        leaf("frame_vertical_bar", bars.bar((x * w / 2, foot, z * d / 2), (x * w / 2, h, z * d / 2)))
        for x in (-1, 1)
        for z in (-1, 1)
    ]
    if chance(rng, 0.5):  # rails under the shelves at the sides
        heights = shelf_heights if chance(rng, 0.5) else shelf_heights[[0, -1]]
        frame += [
            leaf("frame_horizontal_bar", bars.bar((x * w / 2, y, -d / 2), (x * w / 2, y, d / 2), size * 0.7))
            for x in (-1, 1)
            for y in heights
        ]
    if chance(rng, 0.35):  # crossed braces at the back
        low, high = shelf_heights[0], shelf_heights[-1]
        frame += [
            leaf("frame_horizontal_bar", bars.bar((s * w / 2, low, -d / 2), (-s * w / 2, high, -d / 2), size * 0.5))
            for s in (-1, 1)
        ]
    if chance(rng, 0.15):
        frame.append(
            leaf("back_panel", box((w, shelf_heights[-1] - shelf_heights[0], 0.008), (0, shelf_heights.mean(), -d / 2)))
        )
    form = choose(rng, ((0.6, "board"), (0.25, "slats"), (0.15, "rounded")))
    rim = rng.uniform(0.02, 0.06) if chance(rng, 0.25) else 0.0

    def shelf(y: float) -> Node:
        if form == "slats":
            slats = int(d / 0.06) + 2
            strips = [box((w, thick, 0.6 * d / slats), (0, y, -d / 2 + (i + 0.5) * d / slats)) for i in range(slats)]
            return leaf("shelf", *strips)
        if form == "rounded":
            return leaf("shelf", plate(rectangle(w + size, d + size, 0.12 * d), thick).moved((0, y, 0)))
        edges = [box((w, rim, 0.006), (0, y + rim / 2, s * d / 2)) for s in (-1, 1)] if rim else []
        return leaf("shelf", box((w, thick, d), (0, y, 0)), *edges)

    nodes = [
        leaf("caster", caster(rng, (x * w / 2, foot, z * d / 2), wheel)) for x in (-1, 1) for z in (-1, 1) if casters
    ]
    return Node(
        "storage_furniture",
        (
            Node("cabinet_frame", tuple(frame)),
            *(shelf(float(y)) for y in shelf_heights),
            *group("cabinet_base", *group("foot_base", *nodes)),
        ),
    )


def ladder(rng: np.random.Generator) -> Node:
    """Shelves that get shallower upwards, between leaning rails."""
    w, h, d = rng.uniform(0.4, 0.9), rng.uniform(1.2, 2.0), rng.uniform(0.3, 0.5)
    bars = draw_bars(rng, rng.uniform(0.025, 0.045))
    thick = rng.uniform(0.015, 0.03)
    lean = rng.uniform(0.5, 0.95) * d  # way back of the front rails over their height
    a_frame = chance(rng, 0.4)
    count = int(rng.integers(3, 6))
    heights = np.linspace(rng.uniform(0.12, 0.3), 0.9 * h, count)
    frame = []
    for s in (-1, 1):
        frame.append(leaf("frame_vertical_bar", bars.bar((s * w / 2, 0, d / 2), (s * w / 2, h, d / 2 - lean))))
        if a_frame:
            frame.append(leaf("frame_vertical_bar", bars.bar((s * w / 2, 0, -d / 2), (s * w / 2, 0.9 * h, -d / 2))))
    shelves, back = [], -d / 2
    for y in heights:
        front = d / 2 - lean * y / h
        deep = max(front - back, 0.08)
        shelves.append(leaf("shelf", box((w - bars.size, thick, deep), (0, y, front - deep / 2))))
        if chance(rng, 0.2):
            frame.append(leaf("frame_horizontal_bar", bars.bar((-w / 2, y, front), (w / 2, y, front), bars.size * 0.6)))
    return Node("storage_furniture", (Node("cabinet_frame", tuple(frame)), *shelves))
