"""Heads of lamps: shade, bulb and fittings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from probemb_shapes.families.joinery import chance, choose
from probemb_shapes.families.primitives import Mesh, circle, cylinder, lathe, plate, sweep
from probemb_shapes.families.tree import Node, leaf

Array = np.ndarray[Any, np.dtype[Any]]


class Head(NamedTuple):
    """The heads of one lamp, in their own frame: attached at the origin, looking along +y.

    Attributes:
        leaves: makes the parts; every head of a lamp is alike.
        reach: length along +y.
        radius: at the widest.
    """

    leaves: Callable[[], tuple[Node, ...]]
    reach: float
    radius: float


def radii_over_height(radius: Array, height: float, scale: float, start: float) -> Array:
    """(M, 2) profile for `lathe` from ``start`` upwards, of M radii at equal steps."""
    return np.stack((radius * scale, start + height * np.linspace(0, 1, len(radius))), axis=1)


def _pleated(mesh: Mesh, folds: int, depth: float) -> Mesh:
    x, _, z = mesh.vertices.T
    wave = 1 + depth * np.sign(np.cos(np.arctan2(z, x) * folds))
    return Mesh(mesh.vertices * np.stack((wave, np.ones_like(wave), wave), 1), mesh.faces)


def ball(radius: float, segments: int = 12) -> Mesh:
    """A sphere about the origin."""
    a = np.linspace(-np.pi / 2, np.pi / 2, 9)
    profile = np.stack((np.cos(a), np.sin(a)), 1) * radius
    profile[[0, -1], 0] = 0
    return lathe(profile, segments=segments)


def bulb_mesh(form: str, size: float) -> Mesh:
    """A bulb of length about 2 ``size``, from y = 0 upwards."""
    if form == "globe":
        return ball(size).moved((0, size, 0))
    t = np.linspace(0, 1, 11)
    radius = {
        "pear": np.interp(t, (0, 0.25, 0.5, 0.7, 0.9, 1), (0.4, 0.5, 0.9, 1, 0.65, 0)),
        "candle": np.interp(t, (0, 0.15, 0.35, 0.7, 1), (0.3, 0.5, 0.62, 0.35, 0)),
        "tube": np.interp(t, (0, 0.05, 0.9, 1), (0.3, 0.45, 0.45, 0)),
    }[form]
    return lathe(radii_over_height(radius, 2.2 * size, size, 0.0), segments=12)


def _around(rng: np.random.Generator) -> tuple[Array, int, int, float]:
    """A shade around the bulb, from its wide end: radii along its height, segments, folds, height / radius."""
    t = np.linspace(0, 1, 9)
    lobes = np.linspace(0, 1, 19)
    top = rng.uniform(0.2, 0.9)
    straight = 1 + (top - 1) * t[[0, -1]]
    forms: tuple[tuple[float, tuple[Array, int]], ...] = (
        (0.3, (straight, 28)),
        (0.18, (np.ones(2), 28)),
        (0.12, (top + (1 - top) * (1 - t) ** 2, 28)),
        (0.12, (straight, int(rng.choice([4, 4, 6, 8])))),
        (0.16, (np.sin(np.pi * (0.1 + 0.8 * t)), 20)),
        (0.12, (np.sin(np.pi * (0.15 + 0.7 * lobes)) * (1 - 0.12 * np.cos(10 * np.pi * lobes)), 20)),
    )
    radius, segments = choose(rng, forms)
    folds = int(rng.integers(12, 24)) if segments == 28 and chance(rng, 0.25) else 0
    return radius, segments, folds, rng.uniform(0.7, 2.2)


def _flare(rng: np.random.Generator) -> tuple[Array, int, int, float]:
    """A shade that opens along +y: radii, segments, folds, height / radius."""
    t = np.linspace(0, 1, 9)
    narrow = rng.uniform(0.1, 0.4)
    forms: tuple[tuple[float, tuple[Array, float]], ...] = (
        (0.25, (np.sqrt(1 - (1 - t) ** 2), rng.uniform(0.5, 1.1))),
        (0.25, (np.array([0, narrow, 1.0]), rng.uniform(0.6, 1.5))),
        (0.15, (narrow + (1 - narrow) * t**2, rng.uniform(0.7, 1.6))),
        (0.15, (np.concatenate(([0], np.ones(8))), rng.uniform(1.4, 3))),
        (0.1, (np.interp(t, (0, 0.2, 0.6, 0.85, 1), (narrow, 0.7, 0.85, 0.8, 1)), rng.uniform(1.0, 1.8))),
        (0.1, (np.sqrt(1 - (1 - 1.6 * t) ** 2 * 0.95), 1.5)),
    )
    radius, ratio = choose(rng, forms)
    segments = choose(rng, ((0.85, 24), (0.08, 4), (0.07, 6)))
    return radius, segments, int(rng.integers(6, 14)) if segments == 24 and chance(rng, 0.12) else 0, ratio


def _shade(radius: Array, segments: int, folds: int, size: float, height: float, start: float) -> Mesh:
    """A sheet; a profile on the axis closes it at the attachment."""
    profile = radii_over_height(radius, height, size, start)
    if len(radius) > 2 and radius[0] == 0 and radius[1] >= 0.999:  # a flat end
        profile[1:, 1] = np.linspace(start, start + height, len(radius) - 1)
    mesh = lathe(profile, segments=2 * folds if folds else segments)
    mesh = mesh.rotated(1, 45) if segments == 4 else mesh
    return _pleated(mesh, folds, 0.04) if folds else mesh


def draw_head(rng: np.random.Generator, size: float, way: str) -> Head:
    """Heads of radius ``size``; ``way`` is `up` (standing), `down` (hanging) or `spot` (aimed)."""
    covering = {"up": 0.85, "down": 0.35, "spot": 0.08}[way]
    form = choose(rng, ((0.35, "globe"), (0.35, "pear"), (0.15, "candle"), (0.15, "tube")))
    bulb = rng.uniform(0.025, 0.04) if size > 0.07 else size * rng.uniform(0.4, 0.6)
    stem = rng.uniform(0.6, 1.6) * bulb
    socket_radius = rng.uniform(0.35, 0.6) * bulb
    sheets = chance(rng, 0.93)
    around = chance(rng, covering)
    radius, segments, folds, ratio = _around(rng) if around else _flare(rng)
    height = ratio * size
    seen = chance(rng, 0.8) or not sheets
    harp = way == "up" and around and sheets and chance(rng, 0.35)
    finial = harp and chance(rng, 0.8)
    disc = around and len(radius) == 2 and chance(rng, 0.2)
    if around:
        start = max(stem + bulb - 0.5 * height, 0.25 * stem if way == "up" else 0.0)
        start = min(start, stem + 0.3 * bulb)
        if way != "up":
            radius = radius[::-1]
    else:
        start = 0.3 * stem
    top = start + height
    scale = 1.0 if sheets else 1.6
    # The bulb stays inside its shade.
    bulb = min(bulb, 0.4 * height, 0.5 * size * float(radius.max())) if sheets else bulb

    def leaves() -> tuple[Node, ...]:
        made = [leaf("socket", cylinder((0, 0, 0), (0, stem, 0), socket_radius, segments=10))]
        if seen:
            made.append(leaf("light_bulb", bulb_mesh(form, bulb * scale).moved((0, stem, 0))))
        if sheets:
            sheet = [_shade(radius, segments, folds, size, height, start)]
            if disc:  # a diffuser closes it
                sheet.append(plate(circle(size * float(radius[-1]), 24), 0.003).moved((0, top - 0.1 * height, 0)))
            if around:  # a spider holds it
                at = top - 0.004 if harp else min(max(start + 0.02, 0.9 * stem), top)
                level = float(np.interp((at - start) / height, np.linspace(0, 1, len(radius)), radius))
                wide = 0.95 * size * level * float(np.cos(np.pi / segments))  # within an angular shade, too
                for angle in (0, 120, 240):
                    sheet.append(cylinder((0, at, 0), (wide, at, 0), 0.003, segments=6).rotated(1, angle))
            made.append(leaf("lamp_shade", *sheet))
        if harp:
            t = np.linspace(0, np.pi, 13)
            loop = np.stack(((0.35 * top) * np.sin(t), stem * 0.9 + (top - 0.9 * stem) * (1 - np.cos(t)) / 2), 1)
            right = np.stack((loop[:, 0] * 0.6, loop[:, 1], np.zeros(13)), 1)
            bar = sweep(right, circle(0.003, 6))
            made.append(leaf("harp", bar, bar.mirrored(0)))
        if finial:
            made.append(leaf("finial", ball(0.35 * bulb).moved((0, top + 0.3 * bulb, 0))))
        return tuple(made)

    return Head(leaves, top if sheets else stem + 2 * bulb * scale, size)


def draw_candle(rng: np.random.Generator) -> Head:
    """A drip pan, a candle-like socket and a bulb."""
    r, tall, pan = rng.uniform(0.008, 0.013), rng.uniform(0.05, 0.1), rng.uniform(0.025, 0.04)
    bulb, form = rng.uniform(0.014, 0.024), choose(rng, ((0.75, "candle"), (0.25, "globe")))
    shaded, pans = chance(rng, 0.3), chance(rng, 0.75)
    wide = rng.uniform(0.045, 0.07)

    def leaves() -> tuple[Node, ...]:
        made = []
        if pans:
            made.append(
                leaf("drip_pan", lathe(((0, 0), (pan, 0.25 * pan), (pan, 0.4 * pan), (0, 0.15 * pan)), segments=16))
            )
        made.append(leaf("socket", cylinder((0, 0, 0), (0, tall, 0), r, segments=10)))
        made.append(leaf("light_bulb", bulb_mesh(form, bulb).moved((0, tall, 0))))
        if shaded:
            made.append(
                leaf("lamp_shade", lathe(((wide, 0.7 * tall), (0.55 * wide, 0.7 * tall + 1.4 * wide)), segments=20))
            )
        return tuple(made)

    return Head(leaves, tall + 2.2 * bulb, max(pan, wide if shaded else 0.0))
