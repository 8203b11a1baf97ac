"""Kinds of cabinets: proportions, and what their columns hold."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """Spans of the proportions in metres and of the number of columns, and what the columns hold."""

    width: tuple[float, float]
    height: tuple[float, float]
    depth: tuple[float, float]
    columns: tuple[int, int]
    fills: str  # of a column, one letter a compartment from the top; oftener where listed repeatedly
    bases: tuple[tuple[float, str], ...]
    countertop: float  # probability


# d one drawer, D a stack of drawers, c door, C pair of doors, o open, O open with shelves
_LEGGED = ((0.25, "legs"), (0.25, "feet"), (0.2, "plinth"), (0.1, "sled"), (0.1, "sides"), (0.1, "none"))
_STANDING = ((0.35, "plinth"), (0.25, "sides"), (0.2, "feet"), (0.2, "none"))
KINDS: tuple[tuple[float, Kind], ...] = (
    # wardrobe
    (0.14, Kind((0.8, 2.0), (1.7, 2.3), (0.5, 0.65), (1, 3), "C C C c c CD CD oC cd O", _STANDING, 0.3)),
    # bookcase
    (0.17, Kind((0.4, 1.6), (0.8, 2.2), (0.22, 0.4), (1, 3), "O O O O O O OC OC Od oOc", _STANDING, 0.3)),
    # chest of drawers
    (0.14, Kind((0.5, 1.4), (0.6, 1.3), (0.38, 0.55), (1, 2), "D D D D D dC oD Dd", _LEGGED, 0.6)),
    # nightstand
    (
        0.1,
        Kind(
            (0.32, 0.6),
            (0.4, 0.75),
            (0.32, 0.5),
            (1, 1),
            "d d d do do do D D dc dc oc oo",
            (*_LEGGED, (0.15, "casters")),
            0.6,
        ),
    ),
    # TV unit
    (0.12, Kind((1.0, 2.2), (0.32, 0.65), (0.33, 0.5), (2, 4), "o o o c c D D od od C oo", _LEGGED, 0.4)),
    # sideboard
    (0.12, Kind((0.9, 2.0), (0.7, 1.0), (0.38, 0.55), (2, 4), "dc dc dc c c c D D C C O", _LEGGED, 0.6)),
    # kitchen unit
    (
        0.09,
        Kind(
            (0.4, 1.8),
            (0.8, 0.92),
            (0.52, 0.65),
            (1, 3),
            "dc dc dc C C c c D D dC",
            ((0.7, "plinth"), (0.3, "legs")),
            0.95,
        ),
    ),
    # wall unit
    (0.07, Kind((0.4, 1.2), (0.35, 0.9), (0.22, 0.4), (1, 3), "c c c C C C O Co", ((1, "none"),), 0.1)),
    # tall cabinet
    (0.1, Kind((0.35, 0.75), (1.5, 2.2), (0.3, 0.65), (1, 1), "cc cc oc oc cD cD coc OC Odc CdC CC", _STANDING, 0.2)),
    # cubes
    (
        0.05,
        Kind(
            (0.4, 1.5),
            (0.4, 1.8),
            (0.3, 0.42),
            (1, 4),
            "oo oo oo oo ooo ooo ooo ooo oco odo oooo",
            (*_STANDING, (0.2, "casters"), (0.3, "legs")),
            0.1,
        ),
    ),
)
