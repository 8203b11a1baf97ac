"""What cabinets stand on: plinths, feet, legs, sleds, casters."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.joinery import caster, chance, choose, draw_bars, draw_legs, rounded_path
from probemb_shapes.families.primitives import Mesh, box, cushion, cylinder
from probemb_shapes.families.storage.case import Case
from probemb_shapes.families.tree import Node, group, leaf


def draw_rise(rng: np.random.Generator, base: str, height: float) -> float:
    """Height of the carcass above the floor."""
    spans = {
        "legs": (0.1, min(0.35, 0.4 * height)),
        "feet": (0.03, 0.1),
        "plinth": (0.04, 0.12),
        "sled": (0.08, min(0.25, 0.35 * height)),
        "sides": (0.03, 0.12),
        "casters": (0.06, 0.1),
    }
    return rng.uniform(*spans[base]) if base in spans else 0.0


def draw_base(rng: np.random.Generator, base: str, case: Case) -> tuple[Node, ...]:
    """The base that carries the case; none where the case stands on the floor or hangs."""
    w, d, rise = case.width, case.depth, case.floor
    if base == "plinth":
        back = rng.uniform(0.0, 0.12) * d
        if chance(rng, 0.4):
            solid = box((w * rng.uniform(0.9, 1), rise, d - back), (0, rise / 2, -back / 2))
            return group("cabinet_base", *group("panel_base", leaf("base_panel", solid)))
        t, front = case.board, d / 2 - back - case.board / 2
        panels = [leaf("base_panel", box((w, rise, t), (0, rise / 2, front)))]
        panels += [
            leaf("base_panel", box((t, rise, d - back - t), (s * (w - t) / 2, rise / 2, -(back + t) / 2)))
            for s in (-1, 1)
        ]
        return group("cabinet_base", *group("panel_base", *panels))
    if base == "sides":
        back = rng.uniform(0.0, 0.12) * d
        kick = box((w - 2 * case.board, rise, case.board), (0, rise / 2, d / 2 - back - case.board / 2))
        return group("cabinet_base", *group("panel_base", leaf("base_panel", kick)))
    if base == "none":
        return ()
    inset = rng.uniform(0.02, 0.12)
    xs = [-(w / 2) * (1 - inset), (w / 2) * (1 - inset)]
    if w > 1.5 and chance(rng, 0.5):
        xs.insert(1, 0.0)
    z = d / 2 * (1 - inset)
    if base == "sled":
        bars = draw_bars(rng, rng.uniform(0.02, 0.04))
        half = bars.size / 2
        feet = [
            leaf("foot", bars.along(rounded_path([(x, rise, -z), (x, half, -z), (x, half, z), (x, rise, z)], 0.04)))
            for x in (xs[0], xs[-1])
        ]
        return group("cabinet_base", *group("foot_base", *feet))
    corners = [(x, s * z) for x in xs for s in (-1, 1)]
    if base == "casters":
        nodes = [leaf("caster", caster(rng, (x, rise, z), rise * 0.4)) for x, z in corners]
        return group("cabinet_base", *group("foot_base", *nodes))
    if base == "legs":
        legs = draw_legs(rng, rng.uniform(0.03, 0.055))
        nodes = [leaf("foot", legs.leg((x, rise, z), (np.sign(x) * 0.7, np.sign(z) * 0.7))) for x, z in corners]
        return group("cabinet_base", *group("foot_base", *nodes))
    size = rng.uniform(0.04, 0.08)
    form = choose(rng, ((0.35, "block"), (0.25, "round"), (0.2, "bun"), (0.2, "taper")))
    ends = rng.uniform(0.4, 0.8)

    def foot(x: float, z: float) -> Mesh:
        if form == "block":
            return box((size, rise, size), (x, rise / 2, z))
        if form == "round":
            return cylinder((x, 0, z), (x, rise, z), size / 2)
        if form == "taper":
            return cylinder((x, 0, z), (x, rise, z), size / 2 * ends, size / 2)
        return cushion((size * 1.3, rise, size * 1.3), exponent=2.2).moved((x, rise / 2, z))

    return group("cabinet_base", *group("foot_base", *(leaf("foot", foot(x, z)) for x, z in corners)))
