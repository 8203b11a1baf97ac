"""Chairs: dining and office chairs, armchairs, sofas, stools and benches, drawn part by part.

Lengths are about metres. The seat is about x = z = 0, the front looks along +z, the floor is y = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from probemb_shapes.classes import levels
from probemb_shapes.families.chair.dining import bench, dining_chair, stool
from probemb_shapes.families.chair.lounge import armchair, office_chair
from probemb_shapes.families.chair.sofa import sofa, tub_chair
from probemb_shapes.families.joinery import choose
from probemb_shapes.families.tree import Node

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
        (0.38, dining_chair),
        (0.14, office_chair),
        (0.2, sofa),
        (0.11, armchair),
        (0.06, tub_chair),
        (0.06, stool),
        (0.05, bench),
    )
    return choose(rng, kinds)(rng)
