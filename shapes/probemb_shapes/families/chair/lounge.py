"""Chairs for one to work or to rest in: office chairs, armchairs."""

from __future__ import annotations

import numpy as np

from probemb_shapes.families.chair.arm import bar_arms, loop_arms, no_arms, panel_arms, t_arms
from probemb_shapes.families.chair.back import (
    cross_back,
    floating_back,
    framed_cushion,
    headrest,
    ladder,
    panel_back,
    upholstered_back,
    vertical_slats,
)
from probemb_shapes.families.chair.base import (
    cantilever_base,
    front_footrest,
    leg_base,
    pedestal_base,
    rocking_base,
    sled_base,
    star_base,
)
from probemb_shapes.families.chair.plan import Plan
from probemb_shapes.families.chair.seat import cushion_on_frame, cushion_seat, slab_seat, slatted_seat
from probemb_shapes.families.chair.whole import whole_chair
from probemb_shapes.families.joinery import chance, choose, draw_bars, draw_legs
from probemb_shapes.families.tree import Node


def office_chair(rng: np.random.Generator) -> Node:
    """Soft, on a star of castors as a rule."""
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
    return whole_chair(seat(rng, plan), base(rng, plan), back(rng, plan), arms(rng, plan), head)


def armchair(rng: np.random.Generator) -> Node:
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
    return whole_chair(seat(rng, plan), base(rng, plan), back(rng, plan), arms(rng, plan), head, foot)
