"""Fronts of storage furniture: what doors and drawers look like, and their handles."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from probemb_shapes.families.joinery import Bars, chance, choose, panel
from probemb_shapes.families.primitives import Mesh, box, circle, cushion, cylinder, lathe, merge
from probemb_shapes.families.tree import Node, leaf


class Style(NamedTuple):
    """What all fronts of one shape have in common."""

    front: Callable[[float, float], tuple[Node, ...]]  # width, height → leaves about the origin, back at z = 0
    thickness: float
    overlay: bool
    handle: Callable[[], Mesh] | None  # along x about the origin, back at z = 0
    handle_reach: float  # handle's half length over the front's width, at most
    handle_height: float  # of a door's handle, 0 at its middle, ±1 at its ends
    upright: bool  # doors' handles stand
    pair: bool  # wide drawers have two
    ajar: float  # probability that a door or a drawer is open
    boxes: bool  # drawers show their boxes
    hinges: bool


def draw_style(rng: np.random.Generator) -> Style:
    """The fronts and handles of one shape."""
    thickness = rng.uniform(0.014, 0.026)
    front = choose(rng, ((0.42, _flat), (0.22, _framed), (0.14, _raised), (0.08, _louvred), (0.14, _glazed)))
    border = rng.uniform(0.035, 0.08)
    handle, reach = _handle(rng)
    return Style(
        front=lambda w, h: front(w, h, thickness, border),
        thickness=thickness,
        overlay=chance(rng, 0.6),
        handle=handle,
        handle_reach=reach,
        handle_height=choose(rng, ((0.5, 0.0), (0.25, rng.uniform(0.3, 0.8)), (0.25, -rng.uniform(0.3, 0.8)))),
        upright=chance(rng, 0.75),
        pair=chance(rng, 0.4),
        ajar=choose(rng, ((0.6, 0.0), (0.4, rng.uniform(0.2, 0.8)))),
        boxes=chance(rng, 0.3),
        hinges=chance(rng, 0.2),
    )


def _flat(w: float, h: float, t: float, border: float) -> tuple[Node, ...]:
    return (leaf("door_panel", panel(w, h, t, (0, 0, t / 2))),)


def _border(w: float, h: float, t: float, b: float) -> list[Mesh]:
    """Two stiles and two rails."""
    stiles = [box((b, h, t), (s * (w - b) / 2, 0, t / 2)) for s in (-1, 1)]
    return stiles + [box((w - 2 * b, b, t), (0, s * (h - b) / 2, t / 2)) for s in (-1, 1)]


def _framed(w: float, h: float, t: float, border: float) -> tuple[Node, ...]:
    b = min(border, 0.2 * w, 0.2 * h)
    field = box((w - 2 * b, h - 2 * b, 0.4 * t), (0, 0, 0.3 * t))
    return (leaf("door_panel", *_border(w, h, t, b), field),)


def _raised(w: float, h: float, t: float, border: float) -> tuple[Node, ...]:
    b = min(border, 0.2 * w, 0.2 * h)
    field = panel(
        w - 2 * b, h - 2 * b, 0.4 * t, (0, 0, t * 1.2), rounding=0.25 * min(w - 2 * b, h - 2 * b) * (b / border)
    )
    return (leaf("door_panel", box((w, h, t), (0, 0, t / 2)), field),)


def _louvred(w: float, h: float, t: float, border: float) -> tuple[Node, ...]:
    b = min(border, 0.2 * w, 0.2 * h)
    count = int(np.clip((h - 2 * b) / 0.045, 2, 24))
    pitch = (h - 2 * b) / count
    slats = [
        box((w - 2 * b, pitch * 1.1, 0.25 * t)).rotated(0, -35).moved((0, -h / 2 + b + (i + 0.5) * pitch, t / 2))
        for i in range(count)
    ]
    return (leaf("door_panel", *_border(w, h, t, b), *slats),)


def _glazed(w: float, h: float, t: float, border: float) -> tuple[Node, ...]:
    b = min(border, 0.2 * w, 0.2 * h)
    bars = _border(w, h, t, b)
    if border > 0.055:  # glazing bars
        rows = max(1, round((h - 2 * b) / 0.35))
        bars += [box((w - 2 * b, 0.3 * b, t), (0, -h / 2 + b + (h - 2 * b) * i / rows, t / 2)) for i in range(1, rows)]
    glass = box((w - 2 * b, h - 2 * b, 0.15 * t), (0, 0, 0.5 * t))
    return leaf("door_frame", *bars), leaf("glass", glass)


def _handle(rng: np.random.Generator) -> tuple[Callable[[], Mesh] | None, float]:
    """The handle of a shape and half its length."""
    length, out = rng.uniform(0.08, 0.3), rng.uniform(0.02, 0.045)
    thick = rng.uniform(0.007, 0.016)

    def knob() -> Mesh:
        r = 1.6 * thick
        profile = ((0, 0), (0.5 * r, 0), (0.4 * r, 0.4 * out), (r, 0.6 * out), (0.95 * r, 0.9 * out), (0, out))
        return lathe(profile, segments=14).rotated(0, 90)

    def ball() -> Mesh:
        r = 1.5 * thick
        neck = cylinder((0, 0, 0), (0, 0, r), 0.5 * r, segments=8)
        return merge((neck, cushion((2 * r, 2 * r, 2 * r), exponent=2).moved((0, 0, 1.6 * r))))

    def bar() -> Mesh:
        ends = [
            cylinder((s * 0.38 * length, 0, 0), (s * 0.38 * length, 0, out), 0.4 * thick, segments=8) for s in (-1, 1)
        ]
        return merge((cylinder((-length / 2, 0, out), (length / 2, 0, out), thick / 2, segments=10), *ends))

    def flat() -> Mesh:
        ends = [box((thick, thick, out), (s * (length - thick) / 2, 0, out / 2)) for s in (-1, 1)]
        return merge((box((length, thick * 1.2, 0.5 * thick), (0, 0, out)), *ends))

    def arch() -> Mesh:
        bars = Bars(circle(0.5, 8), thick)
        return bars.arch((-length / 2, 0, 0), (length / 2, 0, 0), (0, 0, out))

    def cup() -> Mesh:
        a = np.linspace(0, np.pi / 2, 5)
        return lathe(np.stack((np.cos(a), np.sin(a)), 1), segments=14).scaled((length / 4, 0.8 * out, out))

    def strip() -> Mesh:
        return box((length * 1.6, 0.6 * thick, out), (0, 0, out / 2))

    forms: tuple[tuple[float, tuple[Callable[[], Mesh] | None, float]], ...] = (
        (0.2, (knob, 2 * thick)),
        (0.15, (ball, 2 * thick)),
        (0.2, (bar, length / 2)),
        (0.14, (flat, length / 2)),
        (0.13, (arch, length / 2)),
        (0.08, (cup, length / 4)),
        (0.1, (strip, 0.8 * length)),
        (0.1, (None, 0.0)),
    )
    return choose(rng, forms)


def handles_on(style: Style, w: float, h: float, *, door: bool, right: bool = True) -> list[Mesh]:
    """On a front about the origin whose face is at the style's thickness; a door's is at its free edge."""
    if style.handle is None:
        return []
    room = 0.45 * (h if door and style.upright else w)
    handle = style.handle()
    if style.handle_reach > room:
        handle = handle.scaled((room / style.handle_reach, 1, 1))
    reach = min(style.handle_reach, room)
    z = style.thickness
    if not door:
        at = (-0.27, 0.27) if style.pair and w > 0.6 and reach < 0.2 * w else (0.0,)
        return [handle.moved((x * w, 0, z)) for x in at]
    edge = min(0.045, 0.15 * w)
    side = 1.0 if right else -1.0
    if style.upright:
        y = style.handle_height * (h / 2 - reach - 0.03) if h / 2 - reach > 0.03 else 0.0
        return [handle.rotated(2, 90).moved((side * (w / 2 - edge), y, z))]
    y = style.handle_height * max(h / 2 - 0.05, 0.0)
    return [handle.moved((side * (w / 2 - max(edge, reach)), y, z))]
