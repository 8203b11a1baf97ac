"""What the parts of one chair agree on: sizes, sections and where the back leans."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from probemb_shapes.families.joinery import Bars, Legs, corner_reach
from probemb_shapes.families.primitives import Mesh, circle, rectangle, split

Array = np.ndarray[Any, np.dtype[Any]]


class Plan(NamedTuple):
    """What the parts of one chair agree on.

    Attributes:
        width, depth: of the seat.
        height: of the seat's top.
        thick: of the seat.
        round: the seat is round or oval.
        back: height of the back above the seat.
        tilt: of the back, degrees backwards.
        wrap: how far the sides of the back come forward, relative to the width.
        curl: how far the top of the back falls backward, relative to its height.
        flare: widening of the back from the seat to the top, relative to the width.
        back_depth: half the depth of the back at the seat.
        arm: height of the arms above the seat.
        bars, legs: sections of bars and legs.
        rounding: radius of the seat's corners, relative to its shorter side.
        narrower: how much narrower the seat is at the back, relative to the width.
    """

    width: float
    depth: float
    height: float
    thick: float
    round: bool
    back: float
    tilt: float
    wrap: float
    curl: float
    flare: float
    back_depth: float
    arm: float
    bars: Bars
    legs: Legs
    rounding: float = 0.0
    narrower: float = 0.0

    @property
    def outline(self) -> Array:
        """(S, 2) the seat seen from above."""
        w, d = self.width, self.depth
        if self.round:
            return np.asarray(circle(0.5, 28) * (w, d))
        outline = rectangle(w, d, self.rounding * min(w, d))
        x = outline[:, 0] * (1 - self.narrower * (0.5 - outline[:, 1] / d))
        return np.stack((x, outline[:, 1]), axis=1)

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Where legs stand, (x, z): two at the front, two at the back, around the seat."""
        reach = corner_reach(self._replace(narrower=0.0).outline)
        x, z = (reach * side / 2 - self.legs.size * 0.6 for side in (self.width, self.depth))
        rear = x if self.round else x * (1 - self.narrower)
        return [(x, z), (-x, z), (-rear, -z), (rear, -z)]

    def fitted(self) -> Plan:
        """With a back that stands on the seat where that is round."""
        return self._replace(narrower=0.4, back_depth=self.back_depth + 0.1 * self.depth) if self.round else self

    def lean(self, mesh: Mesh) -> Mesh:
        """A part of the back, built upright about z = 0 on the seat's top at y = 0, in its place."""
        if self.wrap:
            mesh = split(mesh, 0, self.width / 8)
        if self.curl:
            mesh = split(mesh, 1, self.back / 6)
        return Mesh(self.lean_points(mesh.vertices), mesh.faces)

    def lean_points(self, points: Array) -> Array:
        """The same for points (N, 3)."""
        x, y, z = points.T
        u = np.clip(y / self.back, 0, None)
        x = x * (1 - self.narrower + self.flare * u)
        z = z + self.wrap * self.width * (2 * x / self.width) ** 2 - self.curl * self.back * u**2
        angle = np.deg2rad(self.tilt)
        y, z = y * np.cos(angle) + z * np.sin(angle), z * np.cos(angle) - y * np.sin(angle)
        return np.stack((x, y + self.height, z - self.depth / 2 + self.back_depth), axis=1)
