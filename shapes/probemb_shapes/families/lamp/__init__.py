"""Lamps: standing on a table or the floor, hanging, on walls and ceilings, desk lamps with joints."""

from __future__ import annotations

import numpy as np

from probemb_shapes.classes import levels
from probemb_shapes.families.joinery import choose
from probemb_shapes.families.lamp.fittings import Parts
from probemb_shapes.families.lamp.hanging import ceiling_lamp, chandelier, lantern, pendant, wall_lamp
from probemb_shapes.families.lamp.standing import desk_lamp, floor_lamp, table_lamp
from probemb_shapes.families.tree import Node, group, parts

LEVELS = levels(
    {
        "lamp": {
            "lamp_base": {
                "holistic_base": ("base_part",),
                "leg_base": ("leg",),
                "mount": ("ceiling_canopy", "wall_plate", "rail"),
            },
            "lamp_body": ("pole", "body_solid", "body_joint", "hub"),
            "suspension": ("cord", "chain_link"),
            "lamp_arm": ("arm_bar", "arm_curved_bar", "arm_joint"),
            "lamp_head": ("lamp_shade", "light_bulb", "socket", "harp", "finial", "drip_pan", "shade_frame", "glass"),
            "power_cord": (),
        },
    }
)


MIN_PARTS, MAX_PARTS = 3, 40


def lamp(rng: np.random.Generator) -> Node:
    """A lamp, y up, in metres.

    Design choices, independent of each other as far as they can be built:

    1. kind: table, floor, desk, pendant, chandelier, wall, flush or track on the ceiling, lantern
    2. base: disc, square, stepped, domed, or legs; ceiling or wall mount
    3. body: pole, vase, stacked solids, block, several segments
    4. arms: number, straight, curved or jointed at random bends
    5. shade: cone, drum, bell, dome, globe, spot, pleated, lobed, square, six-sided, bare bulb
    6. shade's proportions and which way it looks
    7. bulb: globe, pear, candle, tube, and whether one sees it
    8. fittings: socket, harp, finial, drip pan
    9. number of heads, their arrangement: one, a row, a ring, two rings
    10. suspension: cord, rod or chain, equal or different lengths
    11. section and thickness of bars
    12. power cord or none

    3 to 40 parts.
    """
    kinds = (
        (0.25, table_lamp),
        (0.17, floor_lamp),
        (0.13, desk_lamp),
        (0.14, pendant),
        (0.12, chandelier),
        (0.09, wall_lamp),
        (0.06, ceiling_lamp),
        (0.04, lantern),
    )
    while True:
        nodes = choose(rng, kinds)(rng)
        root = Node("lamp", _gathered(nodes))
        if MIN_PARTS <= sum(part.node.mesh is not None for part in parts(root)) <= MAX_PARTS:
            return root


def _gathered(nodes: Parts) -> tuple[Node, ...]:
    """Leaves under their inner nodes: one base, one body, all arms together, but every head of its own."""
    tops: dict[str, Parts] = {}
    for path, node in nodes:
        top = path if path.startswith("lamp_head/") else path.split("/")[0]
        tops.setdefault(top, []).append((path, node))
    made: list[Node] = []
    for top, below in tops.items():
        if not top:
            made += [node for _, node in below]
        elif top.startswith("lamp_head/"):
            made.append(Node("lamp_head", tuple(node for _, node in below)))
        else:
            inner: list[tuple[Node, ...]] = []
            for path in dict.fromkeys(path for path, _ in below):
                leaves = tuple(node for other, node in below if other == path)
                inner.append(group(path.partition("/")[2], *leaves) if "/" in path else leaves)
            made.append(Node(top, tuple(node for some in inner for node in some)))
    return tuple(made)
