"""Chairs: dining and office chairs, armchairs, sofas, stools and benches, drawn part by part.

Lengths are about metres. The seat is about x = z = 0, the front looks along +z, the floor is y = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from probemb_shapes.classes import levels
from probemb_shapes.families.chair.arm import (
    bar_arms,
    loop_arms,
    no_arms,
    panel_arms,
    sofa_arms,
    t_arms,
    writing_arm,
)
from probemb_shapes.families.chair.back import (
    cross_back,
    floating_back,
    framed_cushion,
    headrest,
    hoop_back,
    ladder,
    panel_back,
    spindles,
    splat_back,
    upholstered_back,
    vertical_slats,
    wall,
)
from probemb_shapes.families.chair.base import (
    cantilever_base,
    crossed_legs,
    footrest_bar,
    footrest_ring,
    front_footrest,
    leg_base,
    panel_base,
    pedestal_base,
    rocking_base,
    sled_base,
    sofa_feet,
    star_base,
)
from probemb_shapes.families.chair.plan import Plan
from probemb_shapes.families.chair.seat import apron_seat, cushion_on_frame, cushion_seat, slab_seat, slatted_seat
from probemb_shapes.families.joinery import chance, choose, draw_bars, draw_legs
from probemb_shapes.families.primitives import bend, box, cushion, rectangle, sweep
from probemb_shapes.families.tree import Node, group, leaf

Array = np.ndarray[Any, np.dtype[Any]]
Nodes = tuple[Node, ...]

LEVELS = levels(
    {
        "chair": {
            "chair_head": ("headrest", "connector"),
            "chair_back": {
                "back_surface": (
                    "back_single_surface",
                    "back_surface_vertical_bar",
                    "back_surface_horizontal_bar",
                    "back_surface_diagonal_bar",
                ),
                "back_frame": ("back_frame_vertical_bar", "back_frame_horizontal_bar", "back_holistic_frame"),
                "back_connector": (),
                "pillow": (),
            },
            "chair_arm": (
                "arm_horizontal_bar",
                "arm_near_vertical_bar",
                "arm_sofa_style",
                "arm_holistic_frame",
                "arm_writing_table",
            ),
            "chair_base": {
                "regular_leg_base": ("leg", "bar_stretcher", "runner", "foot"),
                "star_leg_base": ("star_leg", "wheel", "central_support", "mechanical_control"),
                "pedestal_base": ("pedestal", "central_support"),
                "foot_base": ("foot", "plinth"),
                "sled_base": ("sled_runner", "bar_stretcher"),
                "panel_base": ("side_panel",),
            },
            "chair_seat": {
                "seat_surface": ("seat_single_surface", "seat_surface_bar"),
                "seat_frame": ("seat_frame_bar", "seat_frame_board"),
            },
            "footrest": ("footrest_bar", "footrest_ring", "footrest_board"),
        },
    }
)


def chair(rng: np.random.Generator) -> Node:
    """A chair, y up, in metres.

    Design choices, independent of each other as far as they can be built:

    1. kind: dining or bar chair, office chair, sofa, open armchair, tub or Windsor chair, stool, bench
    2. seat: plan (square, rounded, trapezoid, round), board, cushion, slats, frame with an upholstered pad
    3. back: panel, slats upright or across, spindles, frame with a pad, upholstered, hoop, none
    4. the back's tilt, wrap, curl and flare
    5. arms: none, bars, bent tubes, pads on posts, a writing tablet, sofa arms
    6. base: legs straight, tapered, splayed, turned or curved; rockers, crossed legs, sled, cantilever, star, pedestal
    7. stretchers: none, H, box, X, around, and their heights
    8. section and thickness of bars: round, square or flat
    9. headrest: none, pad, cushion
    10. footrest: none, ring, board, raised
    11. seats of a sofa: one to four, chaise, loose pillows, plinth or feet
    12. proportions: height, width and depth

    3 to 40 parts.
    """
    kinds: tuple[tuple[float, Callable[[np.random.Generator], Node]], ...] = (
        (0.38, _dining_chair),
        (0.14, _office_chair),
        (0.2, _sofa),
        (0.11, _armchair),
        (0.06, _tub_chair),
        (0.06, _stool),
        (0.05, _bench),
    )
    return choose(rng, kinds)(rng)


def _chair(seat: Nodes, base: Nodes, back: Nodes = (), arms: Nodes = (), head: Nodes = (), foot: Nodes = ()) -> Node:
    """The parts under PartNet's names; each arm is an instance of its own."""
    return Node(
        "chair",
        (
            *group("chair_head", *head),
            *group("chair_back", *back),
            *arms,
            *group("chair_seat", *seat),
            *group("chair_base", *base),
            *group("footrest", *foot),
        ),
    )


def _dining_chair(rng: np.random.Generator) -> Node:
    width = rng.uniform(0.38, 0.54)
    bar_chair = chance(rng, 0.15)
    height = rng.uniform(0.6, 0.8) if bar_chair else rng.uniform(0.4, 0.5)
    size = choose(rng, ((0.7, rng.uniform(0.024, 0.042)), (0.3, rng.uniform(0.016, 0.026))))
    back = rng.uniform(0.22, 0.4) if bar_chair or chance(rng, 0.2) else rng.uniform(0.4, 0.68)
    plan = Plan(
        width=width,
        depth=width * rng.uniform(0.86, 1.12),
        height=height,
        thick=rng.uniform(0.015, 0.07),
        round=chance(rng, 0.12),
        back=back,
        tilt=rng.uniform(0, 18),
        wrap=choose(rng, ((0.55, 0.0), (0.45, rng.uniform(0.03, 0.16)))),
        curl=choose(rng, ((0.6, 0.0), (0.4, rng.uniform(0.03, 0.14)))),
        flare=choose(rng, ((0.5, 0.0), (0.5, rng.uniform(-0.16, 0.12)))),
        back_depth=size / 2 + rng.uniform(0, 0.015),
        arm=rng.uniform(0.17, 0.27),
        bars=draw_bars(rng, size),
        legs=draw_legs(rng, size * 1.1),
        rounding=choose(rng, ((0.3, 0.0), (0.7, rng.uniform(0.05, 0.45)))),
        narrower=choose(rng, ((0.55, 0.0), (0.45, rng.uniform(0.05, 0.25)))),
    ).fitted()
    seat = choose(
        rng,
        ((0.4, slab_seat), (0.2, cushion_seat), (0.2, cushion_on_frame), (0.12, slatted_seat), (0.1, apron_seat)),
    )
    back_of = choose(
        rng,
        (
            (0.18, vertical_slats),
            (0.15, ladder),
            (0.13, spindles),
            (0.12, panel_back),
            (0.12, upholstered_back),
            (0.1, framed_cushion),
            (0.08, cross_back),
            (0.08, splat_back),
            (0.07, hoop_back),
        ),
    )
    arms = choose(rng, ((0.72, no_arms), (0.18, bar_arms), (0.06, loop_arms), (0.02, writing_arm)))
    base = choose(
        rng,
        (
            (0.76, leg_base),
            (0.07, sled_base),
            (0.05, cantilever_base),
            (0.05, crossed_legs),
            (0.04, rocking_base),
            (0.03, pedestal_base),
        ),
    )
    foot = footrest_bar(rng, plan) if bar_chair and base is sled_base else ()
    return _chair(seat(rng, plan), base(rng, plan), back_of(rng, plan), arms(rng, plan), foot=foot)


def _office_chair(rng: np.random.Generator) -> Node:
    width = rng.uniform(0.44, 0.56)
    plan = Plan(
        width=width,
        depth=width * rng.uniform(0.88, 1.05),
        height=rng.uniform(0.42, 0.58),
        thick=rng.uniform(0.04, 0.11),
        round=chance(rng, 0.06),
        back=rng.uniform(0.38, 0.78),
        tilt=rng.uniform(2, 16),
        wrap=choose(rng, ((0.3, 0.0), (0.7, rng.uniform(0.04, 0.2)))),
        curl=choose(rng, ((0.4, 0.0), (0.6, rng.uniform(-0.06, 0.1)))),
        flare=rng.uniform(-0.2, 0.08),
        back_depth=rng.uniform(0.0, 0.05),
        arm=rng.uniform(0.18, 0.26),
        bars=draw_bars(rng, rng.uniform(0.02, 0.035)),
        legs=draw_legs(rng, 0.03),
        rounding=choose(rng, ((0.3, 0.0), (0.7, rng.uniform(0.05, 0.45)))),
        narrower=choose(rng, ((0.55, 0.0), (0.45, rng.uniform(0.05, 0.25)))),
    ).fitted()
    seat = choose(rng, ((0.6, cushion_seat), (0.25, slab_seat), (0.15, cushion_on_frame)))
    back = choose(rng, ((0.45, floating_back), (0.25, upholstered_back), (0.15, framed_cushion), (0.15, panel_back)))
    arms = choose(rng, ((0.25, no_arms), (0.45, t_arms), (0.3, loop_arms)))
    base = choose(rng, ((0.82, star_base), (0.1, pedestal_base), (0.08, cantilever_base)))
    head = headrest(rng, plan) if chance(rng, 0.3) else ()
    return _chair(seat(rng, plan), base(rng, plan), back(rng, plan), arms(rng, plan), head)


def _armchair(rng: np.random.Generator) -> Node:
    """Low, deep and open: lounge chairs of a bar frame with cushions."""
    width = rng.uniform(0.52, 0.72)
    size = rng.uniform(0.025, 0.055)
    plan = Plan(
        width=width,
        depth=width * rng.uniform(0.85, 1.2),
        height=rng.uniform(0.32, 0.44),
        thick=rng.uniform(0.06, 0.16),
        round=False,
        back=rng.uniform(0.4, 0.75),
        tilt=rng.uniform(8, 30),
        wrap=choose(rng, ((0.7, 0.0), (0.3, rng.uniform(0.02, 0.12)))),
        curl=choose(rng, ((0.7, 0.0), (0.3, rng.uniform(0.03, 0.12)))),
        flare=choose(rng, ((0.7, 0.0), (0.3, rng.uniform(-0.1, 0.1)))),
        back_depth=rng.uniform(0.02, 0.08),
        arm=rng.uniform(0.16, 0.26),
        bars=draw_bars(rng, size),
        legs=draw_legs(rng, size),
    )
    seat = choose(rng, ((0.5, cushion_seat), (0.3, cushion_on_frame), (0.2, slatted_seat)))
    back = choose(
        rng,
        (
            (0.35, framed_cushion),
            (0.25, upholstered_back),
            (0.15, vertical_slats),
            (0.15, ladder),
            (0.1, cross_back),
        ),
    )
    arms = choose(rng, ((0.15, no_arms), (0.5, bar_arms), (0.2, loop_arms), (0.15, panel_arms)))
    base = choose(
        rng,
        (
            (0.5, leg_base),
            (0.15, sled_base),
            (0.12, cantilever_base),
            (0.08, rocking_base),
            (0.08, pedestal_base),
            (0.07, star_base),
        ),
    )
    head = headrest(rng, plan) if chance(rng, 0.15) else ()
    foot = front_footrest(rng, plan) if chance(rng, 0.12) else ()
    return _chair(seat(rng, plan), base(rng, plan), back(rng, plan), arms(rng, plan), head, foot)


def _sofa(rng: np.random.Generator) -> Node:
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
    return _chair(seat, base, back, arms)


def _tub_chair(rng: np.random.Generator) -> Node:
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
    return _chair(seat, base(rng, plan), back)


def _stool(rng: np.random.Generator) -> Node:
    width = rng.uniform(0.28, 0.46)
    high = chance(rng, 0.55)
    size = rng.uniform(0.022, 0.045)
    plan = Plan(
        width=width,
        depth=width * choose(rng, ((0.6, 1.0), (0.4, rng.uniform(0.7, 1.0)))),
        height=rng.uniform(0.58, 0.82) if high else rng.uniform(0.38, 0.5),
        thick=rng.uniform(0.02, 0.1),
        round=chance(rng, 0.6),
        back=rng.uniform(0.1, 0.25),
        tilt=rng.uniform(0, 12),
        wrap=rng.uniform(0.05, 0.2),
        curl=0.0,
        flare=0.0,
        back_depth=size / 2,
        arm=0.2,
        bars=draw_bars(rng, size * 0.8),
        legs=draw_legs(rng, size, plain=True),
        rounding=rng.uniform(0.0, 0.45),
    ).fitted()
    seat = choose(rng, ((0.4, slab_seat), (0.4, cushion_seat), (0.2, cushion_on_frame)))(rng, plan)
    base = choose(rng, ((0.55, leg_base), (0.2, pedestal_base), (0.15, star_base), (0.1, sled_base)))
    foot: Nodes = ()
    if high and base in (pedestal_base, star_base):
        foot = footrest_ring(rng, plan)
    back = choose(rng, ((0.5, panel_back), (0.5, ladder)))(rng, plan) if chance(rng, 0.25) else ()
    return _chair(seat, base(rng, plan), back, foot=foot)


def _bench(rng: np.random.Generator) -> Node:
    width = rng.uniform(0.9, 1.8)
    size = rng.uniform(0.035, 0.07)
    plan = Plan(
        width=width,
        depth=rng.uniform(0.3, 0.5),
        height=rng.uniform(0.38, 0.48),
        thick=rng.uniform(0.02, 0.08),
        round=False,
        back=rng.uniform(0.3, 0.5),
        tilt=rng.uniform(0, 15),
        wrap=0.0,
        curl=choose(rng, ((0.7, 0.0), (0.3, 0.08))),
        flare=0.0,
        back_depth=size / 2,
        arm=rng.uniform(0.18, 0.26),
        bars=draw_bars(rng, size * 0.7),
        legs=draw_legs(rng, size, plain=True),
    )
    seat = choose(rng, ((0.3, slab_seat), (0.3, cushion_on_frame), (0.4, slatted_seat)))(rng, plan)
    base = choose(rng, ((0.6, leg_base), (0.2, panel_base), (0.2, sled_base)))(rng, plan)
    back: Nodes = ()
    arms: Nodes = ()
    if chance(rng, 0.6):
        backs = ((0.35, ladder), (0.35, vertical_slats), (0.15, framed_cushion), (0.15, cross_back))
        back = choose(rng, backs)(rng, plan)
        arms = bar_arms(rng, plan) if chance(rng, 0.5) else ()
    return _chair(seat, base, back, arms)
