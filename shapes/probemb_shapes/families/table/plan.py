"""What the parts of one table agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from probemb_shapes.families.joinery import Bars, Legs, chance, choose, corner_reach, draw_bars, draw_legs, rounded_path
from probemb_shapes.families.primitives import Mesh, box, circle, lathe, rectangle, sweep

Array = np.ndarray[Any, np.dtype[Any]]


class Plan(NamedTuple):
    """What the parts of one table agree on.

    Attributes:
        outline: (S, 2) of the top.
        width, depth: of the top.
        height: of its surface.
        thick: of the top.
        inset: from the top's edge to the base.
        round: the base stands on a circle or oval.
        bars, legs: sections of bars and legs.
        handle: makes the handle of every drawer or door, about the origin and towards +z, for its width.
    """

    outline: Array
    width: float
    depth: float
    height: float
    thick: float
    inset: float
    round: bool
    bars: Bars
    legs: Legs
    handle: Callable[[float], Mesh] | None

    @property
    def under(self) -> float:
        """Height of the top's lower side."""
        return self.height - self.thick

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Where legs stand, (x, z), around the table."""
        reach = corner_reach(self.outline)
        x, z = (reach * side / 2 - self.inset - self.legs.size / 2 for side in (self.width, self.depth))
        return [(x, z), (-x, z), (-x, -z), (x, -z)]


def draw_plan(rng: np.random.Generator, width: float, depth: float, height: float, *, curved: float) -> Plan:
    """Draws the rest; ``curved`` is the probability of a round or oval top."""
    is_curved = chance(rng, curved)
    if is_curved:
        outline = circle(0.5, 40) * np.array([width, depth])
        if chance(rng, 0.2):  # between an ellipse and a rectangle
            outline = np.sign(outline) * np.abs(2 * outline / (width, depth)) ** 0.6 * np.array([width, depth]) / 2
        if chance(rng, 0.08):
            outline = circle(0.54, int(rng.integers(6, 9))) * np.array([width, depth])
    else:
        rounding = choose(rng, ((0.5, 0.0), (0.35, rng.uniform(0.01, 0.1)), (0.15, rng.uniform(0.1, 0.49))))
        outline = rectangle(width, depth, rounding * depth)
        if chance(rng, 0.08):
            bulge = rng.uniform(-0.12, 0.1)
            t = np.linspace(-0.5, 0.5, 12)
            long = np.stack((t * width, depth / 2 * (1 + bulge * (1 - 4 * t**2))), axis=1)
            outline = np.concatenate((long, -long))
    size = rng.uniform(0.03, 0.075) * min(1.0, 0.55 + height * 0.55)
    return Plan(
        outline=outline,
        width=width,
        depth=depth,
        height=height,
        thick=choose(rng, ((0.8, rng.uniform(0.012, 0.045)), (0.2, rng.uniform(0.045, 0.09)))),
        inset=choose(rng, ((0.4, 0.0), (0.6, rng.uniform(0.01, 0.1) * depth))),
        round=is_curved,
        bars=draw_bars(rng, size * 0.75),
        legs=draw_legs(rng, size, plain=height > 0.9),
        handle=_draw_handle(rng),
    )


def _draw_handle(rng: np.random.Generator) -> Callable[[float], Mesh] | None:
    """A knob, a bow, a bar or none, for all drawers and doors of a table."""
    size = rng.uniform(0.01, 0.018)
    length = rng.uniform(0.07, 0.14)
    wide = rng.uniform(0.25, 0.7)

    def knob(width: float) -> Mesh:
        profile = [
            (0, 0),
            (0.4 * size, 0),
            (0.4 * size, size),
            (size, 1.3 * size),
            (0.8 * size, 2 * size),
            (0, 2.2 * size),
        ]
        return lathe(profile, segments=12).rotated(0, 90)

    def bow(width: float) -> Mesh:
        half = min(length, 0.6 * width) / 2
        corners = ((-half, 0, -0.002), (-half, 0, 2 * size), (half, 0, 2 * size), (half, 0, -0.002))
        return sweep(rounded_path(corners, size), circle(size * 0.35, 8))

    def bar(width: float) -> Mesh:
        return box((wide * width, size, size), (0, 0, size / 2))

    options: tuple[tuple[float, Callable[[float], Mesh] | None], ...] = (
        (0.35, knob),
        (0.3, bow),
        (0.2, bar),
        (0.15, None),
    )
    return choose(rng, options)
