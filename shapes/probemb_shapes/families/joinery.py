"""What the families share: weighted choices, and the bars and legs that one shape makes its parts of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from probemb_shapes.families.primitives import Mesh, Vector, box, circle, cylinder, merge, plate, rectangle, sweep

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")


def choose(rng: np.random.Generator, options: Sequence[tuple[float, T]]) -> T:
    """One of the options, each with its weight."""
    total = np.cumsum([weight for weight, _ in options])
    return options[int(np.searchsorted(total, rng.random() * total[-1], side="right"))][1]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with a probability."""
    return bool(rng.random() < probability)


class Bars(NamedTuple):
    """The bars of one shape: the same section for slats, stretchers, arm rests and posts.

    Attributes:
        section: (S, 2) of thickness about 1.
        size: thickness.
    """

    section: Array
    size: float

    def bar(self, start: Vector, end: Vector, size: float | None = None) -> Mesh:
        """A straight bar between two points."""
        return self.along(np.stack((np.asarray(start, np.float64), end)), size)

    def along(self, curve: Array, size: float | None = None, scale: Vector | None = None) -> Mesh:
        """A bar bent along a curve (M, 3)."""
        return sweep(curve, self.section * (self.size if size is None else size), scale=scale)

    def arch(self, start: Vector, end: Vector, rise: Vector, size: float | None = None) -> Mesh:
        """A bar between two points, bowed so that its middle is off by ``rise`` (3,)."""
        t = np.linspace(0, 1, 9)[:, None]
        a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
        return self.along(a + t * (b - a) + 4 * t * (1 - t) * np.asarray(rise, np.float64), size)


def draw_bars(rng: np.random.Generator, size: float) -> Bars:
    """Round, square, rounded or flat bars of about ``size``."""
    flat = rng.uniform(1.2, 1.9)
    sections = (
        (0.4, circle(0.5, 10)),
        (0.25, rectangle(1, 1)),
        (0.2, rectangle(1, 1, 0.22)),
        (0.15, rectangle(flat, 1 / flat)),
    )
    return Bars(choose(rng, sections), size * rng.uniform(0.75, 1.3))


class Legs(NamedTuple):
    """The legs of one shape; lengths are relative to the leg's.

    Attributes:
        section: (S, 2) of thickness about 1.
        size: thickness at the top, absolute.
        scale: (M,) thickness from the top to the floor, relative to size.
        offset: (M,) way outwards from the straight line.
        splay: way outwards of the floor end.
    """

    section: Array
    size: float
    scale: Array
    offset: Array
    splay: float

    def leg(self, top: Vector, out: Sequence[float], floor: float = 0.0) -> Mesh:
        """A leg from ``top`` (3,) down to the height ``floor``, leaning towards ``out`` (x, z)."""
        start = np.asarray(top, np.float64)
        return sweep(self.curve(start, out, floor), self.section * self.size, scale=self.scale)

    def curve(self, top: Array, out: Sequence[float], floor: float = 0.0) -> Array:
        """(M, 3) middle line of that leg, from the top."""
        t = np.linspace(0, 1, len(self.scale))[:, None]
        away = np.array([out[0], 0.0, out[1]])
        length = top[1] - floor
        return np.asarray(top - t * (0.0, length, 0.0) + (self.splay * t + self.offset[:, None]) * length * away)

    def at(self, top: Vector, out: Sequence[float], height: float) -> Array:
        """(3,) the middle of that leg at a height: where a stretcher meets it."""
        line = self.curve(np.asarray(top, np.float64), out)[::-1]
        return np.array([np.interp(height, line[:, 1], line[:, i]) for i in range(3)])


def draw_legs(rng: np.random.Generator, size: float, *, plain: bool = False) -> Legs:
    """Straight, tapered, turned, cabriole or sabre legs, of about ``size``; ``plain`` ones are not curved."""
    size = size * rng.uniform(0.75, 1.45)
    round_section = circle(0.5, 12)
    square = choose(rng, ((0.6, rectangle(1, 1)), (0.4, rectangle(1, 1, 0.2))))
    section = round_section if chance(rng, 0.45) else square
    splay = choose(rng, ((0.5, 0.0), (0.5, rng.uniform(0.03, 0.28))))
    two = np.zeros(2)

    def straight() -> Legs:
        return Legs(section, size, np.ones(2), two, splay)

    def tapered() -> Legs:
        return Legs(section, size * 1.15, np.array([1.0, rng.uniform(0.35, 0.75)]), two, splay)

    def turned() -> Legs:
        steps = 19
        t = np.linspace(0, 1, steps)
        beads = np.interp(t, np.linspace(0, 1, 8), rng.uniform(0.55, 1.1, 8))
        grooves = 1 - rng.uniform(0.0, 0.3) * (np.sin(np.pi * rng.integers(3, 9) * t) ** 2 > 0.8)
        return Legs(round_section, size * 1.3, beads * grooves, np.zeros(steps), splay * 0.6)

    def cabriole() -> Legs:
        t = np.linspace(0, 1, 11)
        sway = rng.uniform(0.04, 0.1) * (np.sin(2 * np.pi * t) + 1.2 * np.maximum(0, t - 0.8) / 0.2)
        width = np.interp(t, (0, 0.15, 0.75, 0.92, 1), (1.3, 1.4, 0.65, 0.75, 1.0))
        return Legs(section, size * 1.1, width, sway, 0.0)

    def sabre() -> Legs:
        t = np.linspace(0, 1, 8)
        sign = choose(rng, ((0.8, 1.0), (0.2, -0.6)))
        return Legs(section, size * 1.1, np.linspace(1, rng.uniform(0.55, 0.9), 8), sign * 0.25 * t**2, 0.0)

    weights = ((0.35, straight), (0.4, tapered), (0.25, turned))
    curved = ((0.08, cabriole), (0.1, sabre))
    return choose(rng, weights if plain else weights + curved)()


def corner_reach(outline: Array) -> float:
    """How far an outline (S, 2) reaches towards the corners of its bounding box: 1 a rectangle, 0.7 an ellipse."""
    around = 2 * np.abs(outline) / np.ptp(outline, axis=0)
    corner = around[np.argmin(np.abs(around[:, 0] - around[:, 1]))]
    return float(corner.min())


def rounded_path(corners: Sequence[Vector], radius: float) -> Array:
    """(M, 3) polyline through ``corners`` with its inner corners rounded: bent tubes."""
    points = [np.asarray(corner, np.float64) for corner in corners]
    path = [points[0]]
    for before, corner, after in zip(points[:-2], points[1:-1], points[2:], strict=True):
        to_before, to_after = before - corner, after - corner
        reach = min(radius, float(np.linalg.norm(to_before)) * 0.45, float(np.linalg.norm(to_after)) * 0.45)
        a = corner + to_before / np.linalg.norm(to_before) * reach
        b = corner + to_after / np.linalg.norm(to_after) * reach
        path.extend((1 - t) ** 2 * a + 2 * t * (1 - t) * corner + t**2 * b for t in (0.0, 0.25, 0.5, 0.75, 1.0))
    return np.stack([*path, points[-1]])


def caster(rng: np.random.Generator, top: Vector, radius: float) -> Mesh:
    """A twin-wheel caster under ``top``, standing on y = 0, in a random heading."""
    wheel = cylinder((-0.75 * radius, radius, 0), (-0.12 * radius, radius, 0), radius, segments=12)
    other = wheel.moved((0.87 * radius, 0, 0))
    fork = box((1.2 * radius, 0.25 * radius, 1.2 * radius), (0, 1.8 * radius, 0.3 * radius))
    end = np.asarray(top, np.float64)
    stem = cylinder((0, 1.8 * radius, 0), (0, max(float(end[1]), 2.2 * radius), 0), radius * 0.25, segments=8)
    turned = merge((wheel, other, fork, stem)).rotated(1, rng.uniform(0, 360))
    return turned.moved((end[0], 0.0, end[2]))


def panel(width: float, height: float, thickness: float, center: Vector, *, rounding: float = 0.0) -> Mesh:
    """An upright board in the x-y plane about ``center``."""
    if rounding <= 0:
        return box((width, height, thickness), center)
    return plate(rectangle(width, height, rounding), thickness).rotated(0, 90).moved(center)
