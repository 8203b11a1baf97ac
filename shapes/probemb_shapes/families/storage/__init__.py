"""Storage furniture: cabinets with doors and drawers, bookcases, racks."""

from __future__ import annotations

import numpy as np

from probemb_shapes.classes import levels
from probemb_shapes.families.joinery import choose
from probemb_shapes.families.storage.cabinet import draw_cabinet
from probemb_shapes.families.storage.rack import ladder, rack
from probemb_shapes.families.tree import Node, parts

LEVELS = levels(
    {
        "storage_furniture": {
            "countertop": (),
            "shelf": (),
            "cabinet_frame": (
                "top_panel",
                "bottom_panel",
                "back_panel",
                "vertical_side_panel",
                "vertical_divider_panel",
                "frame_vertical_bar",
                "frame_horizontal_bar",
            ),
            "cabinet_door": {
                "cabinet_door_surface": ("door_panel", "door_frame", "glass"),
                "handle": (),
                "hinge": (),
            },
            "drawer": {
                "drawer_box": ("drawer_front", "drawer_side", "drawer_back", "drawer_bottom"),
                "handle": (),
            },
            "cabinet_base": {
                "foot_base": ("foot", "caster"),
                "panel_base": ("base_panel",),
            },
        },
    }
)


MIN_PARTS, MAX_PARTS = 3, 40


def storage_furniture(rng: np.random.Generator) -> Node:
    """A piece of storage furniture, y up, front to +z, in metres.

    Design choices, independent of each other as far as they can be built:

    1. kind and proportions: wardrobe, bookcase, chest, nightstand, TV unit, sideboard, kitchen unit, wall unit,
       tall cabinet, cubes, rack or ladder shelf
    2. columns: number, widths, symmetry
    3. compartments of a column: drawers, doors, pairs of doors, sliding doors, open, shelves
    4. fronts: flat, framed, raised, louvred, glazed; lying over the carcass or in it
    5. handles: knob, round bar, flat bar, arch, cup, edge strip or none; lying, standing, one or two; height
    6. base: legs, feet, plinth, sled, sides to the floor, casters or none
    7. carcass: thickness, top over or between the sides, posts at the corners
    8. countertop: none, board, rounded board, cornice
    9. back panel or none
    10. drawers: number, graded heights, boxes behind the fronts
    11. doors left open by an angle, drawers by a length
    12. shelves: number, spacing, setback
    13. of a rack: posts, braces, lean

    3 to 40 parts.
    """
    while True:
        make = choose(rng, ((0.89, draw_cabinet), (0.08, rack), (0.03, ladder)))
        root = make(rng)
        if MIN_PARTS <= sum(part.node.mesh is not None for part in parts(root)) <= MAX_PARTS:
            return root
