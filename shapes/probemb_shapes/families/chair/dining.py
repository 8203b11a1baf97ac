"""Chairs for a table or a counter: dining and bar chairs, stools, benches."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.chair.arm import bar_arms, loop_arms, no_arms, writing_arm
from probemb_shapes.families.chair.back import (
    cross_back,
    framed_cushion,
    hoop_back,
    ladder,
    panel_back,
    spindles,
    splat_back,
    upholstered_back,
    vertical_slats,
)
from probemb_shapes.families.chair.base import (
    cantilever_base,
    crossed_legs,
    footrest_bar,
    footrest_ring,
    leg_base,
    panel_base,
    pedestal_base,
    rocking_base,
    sled_base,
    star_base,
)
from probemb_shapes.families.chair.plan import Plan
from probemb_shapes.families.chair.seat import apron_seat, cushion_on_frame, cushion_seat, slab_seat, slatted_seat
from probemb_shapes.families.chair.whole import whole_chair
from probemb_shapes.families.joinery import chance, choose, draw_bars, draw_legs
from probemb_shapes.families.tree import Node

Nodes = tuple[Node, ...]


def dining_chair(rng: np.random.Generator) -> Node:
    """With a back on four legs, or on another base; one in seven is as high as a bar."""
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
    return whole_chair(seat(rng, plan), base(rng, plan), back_of(rng, plan), arms(rng, plan), foot=foot)


def stool(rng: np.random.Generator) -> Node:
    """Low or high, seldom with a low back."""
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
    return whole_chair(seat, base(rng, plan), back, foot=foot)


def bench(rng: np.random.Generator) -> Node:
    """Wide, with a back or without."""
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
    return whole_chair(seat, base, back, arms)
