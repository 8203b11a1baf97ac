"""Sofas, and tub chairs, whose back runs around the seat."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from probemb_shapes.families.chair.arm import sofa_arms
from probemb_shapes.families.chair.back import wall
from probemb_shapes.families.chair.base import leg_base, pedestal_base, sofa_feet, star_base
from probemb_shapes.families.chair.plan import Plan
from probemb_shapes.families.chair.seat import cushion_seat, slab_seat
from probemb_shapes.families.chair.whole import whole_chair
from probemb_shapes.families.joinery import chance, choose, draw_bars, draw_legs
from probemb_shapes.families.primitives import bend, box, cushion, rectangle, sweep
from probemb_shapes.families.tree import Node, group, leaf

Array = np.ndarray[Any, np.dtype[Any]]
Nodes = tuple[Node, ...]


def sofa(rng: np.random.Generator) -> Node:
    """Upholstered, one to four seats, with cushions between thick arms."""
    seats = choose(rng, ((0.35, 1), (0.3, 2), (0.27, 3), (0.08, 4)))
    unit = rng.uniform(0.5, 0.75)
    width, depth = seats * unit, rng.uniform(0.5, 0.75)
    height = rng.uniform(0.34, 0.48)
    thick = rng.uniform(0.1, 0.2)
    feet = choose(rng, ((0.75, rng.uniform(0.04, 0.18)), (0.25, 0.0)))
    arm_width = rng.uniform(0.06, 0.26)
    back_thick = rng.uniform(0.1, 0.24)
    back_height = rng.uniform(0.3, 0.6)
    arm_height = back_height * rng.uniform(0.25, 0.75) if chance(rng, 0.8) else back_height
    has_arms = chance(rng, 0.88)
    outer = width + 2 * arm_width * has_arms
    under = height - thick
    legs = draw_legs(rng, 0.05, plain=True)
    plan = Plan(
        width=width,
        depth=depth,
        height=height,
        thick=thick,
        round=False,
        back=back_height,
        tilt=rng.uniform(0, 18),
        wrap=0.0,
        curl=choose(rng, ((0.7, 0.0), (0.3, rng.uniform(-0.05, 0.12)))),
        flare=0.0,
        back_depth=0.0,
        arm=arm_height,
        bars=draw_bars(rng, 0.04),
        legs=legs,
    )

    # Seat: a board or box below, cushions above; a chaise makes one seat longer.
    board = box((outer if chance(rng, 0.5) else width, under - feet, depth), (0, (under + feet) / 2, 0))
    edges = np.linspace(-width / 2, width / 2, (seats if chance(rng, 0.85) else 1) + 1)
    exponent, edge = rng.uniform(5, 16), rng.uniform(2.5, 8)
    chaise = int(rng.integers(2)) * (len(edges) - 2) if seats > 1 and chance(rng, 0.2) else -1
    cushions = []
    for i, (low, high) in enumerate(pairwise(edges)):
        longer = unit * 0.9 if i == chaise else 0.0
        size = (high - low, thick, depth + longer)
        cushions.append(
            leaf(
                "seat_single_surface",
                cushion(size, exponent=exponent, edge=edge).moved(((low + high) / 2, height - thick / 2, longer / 2)),
            )
        )
    boards = [leaf("seat_frame_board", board)]
    if chaise >= 0:
        low, high = edges[chaise], edges[chaise + 1]
        size = (high - low, under - feet, unit * 0.9)
        boards.append(
            leaf("seat_frame_board", box(size, ((low + high) / 2, (under + feet) / 2, depth / 2 + size[2] / 2)))
        )
    seat = (*group("seat_surface", *cushions), *group("seat_frame", *boards))

    # Back: an upright board or rounded bolster, with cushions that lean on it.
    back_width = outer if chance(rng, 0.6) else width
    reach = height - feet + back_height * rng.uniform(0.75, 1.0)
    low_back = back_height - reach
    whole = choose(rng, ((0.5, True), (0.5, False)))
    bulge = cushion((back_width, reach, back_thick), exponent=rng.uniform(6, 20), edge=rng.uniform(4, 16))
    behind = bulge if whole else box((back_width, reach, back_thick))
    behind = plan.lean(behind.moved((0, low_back + reach / 2 - 0.02 * reach, -back_thick / 2)))
    frame = leaf("back_holistic_frame", behind)
    loose = chance(rng, 0.7)
    soft = rng.uniform(0.1, 0.2)
    leaning = [
        leaf(
            "back_single_surface",
            plan.lean(
                cushion((high - low, back_height, soft), exponent=exponent, edge=edge).moved(
                    ((low + high) / 2, back_height / 2, soft / 2)
                )
            ),
        )
        for low, high in pairwise(edges)
    ]
    pillows = []
    for _ in range(int(rng.integers(1, 4)) if chance(rng, 0.25) else 0):
        side = rng.uniform(0.3, 0.42)
        pillow = cushion((side, side, 0.12), exponent=4.5, edge=1.6).rotated(2, rng.uniform(-25, 25))
        pillow = pillow.rotated(0, -rng.uniform(10, 30)).rotated(1, rng.uniform(-25, 25))
        at = (rng.uniform(-0.5, 0.5) * (width - side), height + side * 0.48, -depth / 2 + soft * loose + 0.14)
        pillows.append(leaf("pillow", pillow.moved(at)))
    back = (*group("back_frame", frame), *group("back_surface", *(leaning if loose else ())), *pillows)
    if not loose:
        back = (*group("back_surface", leaf("back_single_surface", behind)), *pillows)

    arms = sofa_arms(rng, plan, feet, arm_width, back_thick * rng.uniform(0, 1)) if has_arms else ()

    spread = outer / 2 if has_arms else width / 2
    base: Nodes = sofa_feet(rng, legs, spread, depth / 2, feet, 3 if spread > 0.8 and chance(rng, 0.5) else 2)
    if not feet:
        plinth = box((2 * spread * 0.96, 0.05, depth * 0.94), (0, -0.025, 0))
        base = group("foot_base", leaf("plinth", plinth))
    return whole_chair(seat, base, back, arms)


def tub_chair(rng: np.random.Generator) -> Node:
    """A round seat in a back that runs around it, closed or of spindles under a rail."""
    radius = rng.uniform(0.24, 0.36)
    size = rng.uniform(0.02, 0.035)
    plan = Plan(
        width=2 * radius,
        depth=2 * radius * rng.uniform(0.92, 1.05),
        height=rng.uniform(0.38, 0.47),
        thick=rng.uniform(0.03, 0.15),
        round=True,
        back=rng.uniform(0.22, 0.42),
        tilt=0.0,
        wrap=0.0,
        curl=0.0,
        flare=0.0,
        back_depth=0.0,
        arm=0.2,
        bars=draw_bars(rng, size),
        legs=draw_legs(rng, size * 1.3),
    )
    seat = choose(rng, ((0.5, cushion_seat), (0.5, slab_seat)))(rng, plan)
    turn = rng.uniform(150, 250)
    angle = np.deg2rad(np.linspace(-turn / 2, turn / 2, 25))
    r = radius * rng.uniform(0.95, 1.12)
    lean = rng.uniform(0.0, 0.25)
    drop = rng.uniform(0.0, 0.5)
    bottom = plan.height - plan.thick * rng.uniform(0.2, 1.0)
    top = plan.height + plan.back

    def rim(a: Array) -> Array:
        y = top - drop * plan.back * (2 * np.abs(a) / np.deg2rad(turn)) ** 2
        out = r + lean * (y - plan.height)
        return np.stack((out * np.sin(a), y, -out * np.cos(a) * plan.depth / plan.width), axis=-1)

    if chance(rng, 0.5):
        thick = rng.uniform(0.015, 0.12)
        low = np.stack((r * np.sin(angle), np.full(25, bottom), -r * np.cos(angle) * plan.depth / plan.width), axis=1)
        shell = wall(low, rim(angle), thick)
        back: Nodes = group("back_surface", leaf("back_single_surface", shell))
        if chance(rng, 0.4):
            inner = cushion((radius * 1.3, plan.back * 0.9, 0.12), exponent=6, edge=3)
            inner = bend(inner, 0, 2, min(turn * 0.4, 80)).moved((0, plan.height + plan.back * 0.42, -r * 0.72))
            back = (*back, leaf("pillow", inner))
    else:
        rail = sweep(rim(angle), rectangle(size * rng.uniform(1.0, 2.2), size * rng.uniform(0.8, 2.5)))
        count = int(rng.integers(4, 12))
        at = np.deg2rad(np.linspace(-0.47, 0.47, count) * turn)
        foot = np.stack((np.sin(at), np.zeros(count), -np.cos(at) * plan.depth / plan.width), axis=1) * radius * 0.92
        foot[:, 1] = plan.height - plan.thick * 0.5
        rods = [
            leaf("back_surface_vertical_bar", plan.bars.bar(a, b, size * 0.7))
            for a, b in zip(foot, rim(at), strict=True)
        ]
        back = (
            *group("back_frame", leaf("back_frame_horizontal_bar", rail)),
            *group("back_surface", *rods),
        )
    base = choose(rng, ((0.6, leg_base), (0.2, pedestal_base), (0.2, star_base)))
    return whole_chair(seat, base(rng, plan), back)
