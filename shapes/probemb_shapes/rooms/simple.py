"""Simple objects made from boxes and cloths, for classes of which the source has few models or none.

Each is a function from a random generator to surfels. Sizes are of continuous range: no two are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probemb_shapes.rooms.surfels import SPACING, Surfels, box, cloth, ellipsoid, joined, panel

Array = np.ndarray[Any, np.dtype[Any]]
Generator = np.random.Generator

_WOODS = ((0.45, 0.30, 0.18), (0.62, 0.45, 0.28), (0.78, 0.64, 0.45), (0.30, 0.20, 0.14), (0.88, 0.87, 0.84))
_WHITES = ((0.93, 0.93, 0.91), (0.86, 0.87, 0.88), (0.90, 0.86, 0.78))
_GREYS = ((0.12, 0.12, 0.13), (0.35, 0.36, 0.38), (0.70, 0.71, 0.72))


def wood(rng: Generator) -> Array:
    """(3,) a colour of wood or of its paint."""
    return _near(rng, _WOODS)


def fabric(rng: Generator) -> Array:
    """(3,) any colour, mostly pale."""
    grey = rng.uniform(0.25, 0.9)
    return np.asarray((grey + rng.uniform(-0.25, 0.25, 3) * rng.random()).clip(0.05, 0.95))


def door(rng: Generator, width: float, height: float) -> Surfels:
    """A leaf with a handle, and panels let into it or glass."""
    color = wood(rng) if rng.random() < 0.6 else _near(rng, _WHITES)
    leaf = box((width, 0.045, height), (0, 0, 0), color)
    handle = box((0.12, 0.16, 0.03), (width / 2 - 0.1, 0, 1.0), _near(rng, _GREYS))
    parts = [leaf, handle]
    rows = int(rng.integers(0, 4))
    for row in range(rows):
        tall = (height - 0.3) / rows - 0.1
        size = (width - 0.3, 0.055, tall)
        parts.append(box(size, (0, 0, 0.2 + row * (tall + 0.1)), color * 0.9))
    return joined(*parts)


def window(rng: Generator, width: float, height: float) -> Surfels:
    """A frame with bars. The glass is missing, as sensors see through it, but for some that is drawn shut."""
    color = _near(rng, _WHITES) if rng.random() < 0.7 else wood(rng)
    bar, deep = rng.uniform(0.05, 0.09), 0.07
    parts = [box((width, deep, bar), (0, 0, z), color) for z in (0.0, height - bar)]
    columns = int(rng.integers(2, 4))
    xs = np.linspace(-width / 2 + bar / 2, width / 2 - bar / 2, columns + 1)
    parts += [box((bar, deep, height), (x, 0, 0), color) for x in xs]
    if rng.random() < 0.5:
        parts.append(box((width, deep, bar), (0, 0, height * rng.uniform(0.4, 0.7)), color))
    parts.append(box((width + 0.06, 0.2, 0.03), (0, -0.05, -0.03), color))  # the sill
    if rng.random() < 0.4:
        low = rng.uniform(0.2, 0.7) * height
        parts.append(panel((-width / 2, 0, low), (width, 0, 0), (0, 0, height - low), fabric(rng)))
    return joined(*parts)


def picture(rng: Generator) -> Surfels:
    """A framed picture of a few fields of colour."""
    width, height = rng.uniform(0.35, 1.1), rng.uniform(0.35, 0.85)
    back = box((width, 0.03, height), (0, 0, 0), _near(rng, _WOODS + _GREYS), without="f")
    front = panel((-width / 2, -0.015, 0), (width, 0, 0), (0, 0, height), (1, 1, 1))
    fields = np.stack([fabric(rng) for _ in range(5)])
    seeds = rng.uniform((-width / 2, 0), (width / 2, height), (5, 2))
    nearest = np.linalg.norm(front.pos[:, None, [0, 2]] - seeds, axis=2).argmin(1)
    inside = (abs(front.pos[:, 0]) < width / 2 - 0.05) & (abs(front.pos[:, 2] - height / 2) < height / 2 - 0.05)
    front = front._replace(rgb=np.where(inside[:, None], fields[nearest], back.rgb[:1]))
    return joined(back, front)


def curtain(rng: Generator, width: float, height: float) -> Surfels:
    """A curtain that hangs in folds."""
    folds = max(2.0, width / rng.uniform(0.12, 0.22))
    return cloth(width, height, (0, 0, 0), fabric(rng), folds=folds, depth=rng.uniform(0.05, 0.1))


def shower_curtain(rng: Generator) -> Surfels:
    """A curtain in shallow folds under a rail."""
    width, height = rng.uniform(0.7, 1.5), rng.uniform(1.7, 1.95)
    hung = curtain(rng, width, height)
    return joined(hung, box((width, 0.03, 0.03), (0, 0, height), _near(rng, _GREYS)))


def counter(rng: Generator, width: float, depth: float, hole: tuple[float, float, float] | None) -> Surfels:
    """A worktop; ``hole`` is x, width and depth of an opening for a sink."""
    slab = box((width, depth, 0.04), (0, 0, 0), _near(rng, _GREYS + _WOODS))
    if hole is None:
        return slab
    x, wide, deep = hole
    keep = (abs(slab.pos[:, 0] - x) > wide / 2) | (abs(slab.pos[:, 1]) > deep / 2)
    return Surfels(*(field[keep] for field in slab))


def basin(rng: Generator, width: float, depth: float) -> Surfels:
    """A sink to be let into a worktop: z = 0 is the underside of its bowl."""
    color = _near(rng, _GREYS[2:] + _WHITES)
    high = rng.uniform(0.14, 0.2)
    bowl = box((width - 0.05, depth - 0.05, high), (0, 0, 0), color, without="t")
    rim = _rim(width, depth, 0.05, high, color)
    tap = joined(
        box((0.03, 0.03, 0.22), (0, depth / 2 - 0.02, high), _GREYS[2]),
        box((0.03, 0.16, 0.03), (0, depth / 2 - 0.1, high + 0.2), _GREYS[2]),
    )
    return joined(bowl, rim, tap)


def sink(rng: Generator) -> Surfels:
    """A wash basin on a foot or a small cabinet."""
    width, depth, height = rng.uniform(0.45, 0.7), rng.uniform(0.38, 0.5), rng.uniform(0.78, 0.88)
    white = _near(rng, _WHITES)
    bowl = box((width, depth, 0.16), (0, 0, height - 0.16), white, without="t")
    inner = box((width - 0.12, depth - 0.12, 0.12), (0, 0, height - 0.12), white, without="t")
    tap = box((0.03, 0.12, 0.12), (0, depth / 2 - 0.08, height), _GREYS[2])
    foot = (0.18, 0.2) if rng.random() < 0.6 else (width - 0.06, depth - 0.06)
    under = box((*foot, height - 0.16), (0, 0.03, 0), white if foot[0] < 0.3 else wood(rng))
    return joined(bowl, inner, _rim(width, depth, 0.06, height, white), tap, under)


def bathtub(rng: Generator) -> Surfels:
    """A tub with straight sides."""
    width, depth, height = rng.uniform(1.5, 1.8), rng.uniform(0.68, 0.82), rng.uniform(0.48, 0.62)
    white = _near(rng, _WHITES)
    outside = box((width, depth, height), (0, 0, 0), white, without="t")
    inside = box((width - 0.16, depth - 0.16, height - 0.12), (0, 0, 0.12), white, without="t")
    tap = box((0.14, 0.05, 0.05), (-width / 2 + 0.12, 0, height + 0.1), _GREYS[2])
    return joined(outside, inside, _rim(width, depth, 0.08, height, white), tap)


def toilet(rng: Generator) -> Surfels:
    """A bowl, a seat and a cistern."""
    width, height, white = rng.uniform(0.36, 0.42), rng.uniform(0.38, 0.44), _near(rng, _WHITES)
    deep = rng.uniform(0.44, 0.52)
    foot = box((0.2, 0.4, height * 0.6), (0, 0, 0), white)
    bowl = ellipsoid((width, deep, height * 0.9), (0, -0.12, height * 0.1), white)
    seat = ellipsoid((width, deep, 0.06), (0, -0.12, height - 0.03), white)
    tank = box((width, 0.18, rng.uniform(0.34, 0.42)), (0, deep / 2 - 0.04, height - 0.02), white)
    return joined(foot, bowl, seat, tank)


def refrigerator(rng: Generator) -> Surfels:
    """A cabinet of two doors, one above the other."""
    width, depth, height = rng.uniform(0.55, 0.8), rng.uniform(0.58, 0.72), rng.uniform(1.4, 1.9)
    color = _near(rng, _WHITES + _GREYS[1:])
    split = height * rng.uniform(0.3, 0.7)
    parts = [box((width, depth, height), (0, 0, 0), color)]
    for low, high in ((0.08, split), (split + 0.02, height)):
        parts.append(box((width - 0.01, 0.06, high - low - 0.01), (0, -depth / 2 - 0.03, low), color * 0.96))
        parts.append(box((0.03, 0.05, 0.3), (width / 2 - 0.07, -depth / 2 - 0.08, (low + high) / 2), _GREYS[1]))
    return joined(*parts)


def bookshelf(rng: Generator) -> Surfels:
    """Boards between two sides, books on most of them."""
    width, depth, height = rng.uniform(0.6, 1.4), rng.uniform(0.26, 0.38), rng.uniform(1.0, 2.1)
    color, board = wood(rng), 0.025
    boards = int(rng.integers(3, 7))
    parts = [box((board, depth, height), (x, 0, 0), color) for x in (-(width - board) / 2, (width - board) / 2)]
    parts.append(panel((-width / 2, depth / 2, 0), (width, 0, 0), (0, 0, height), color * 0.9))
    levels = np.linspace(0.05, height - board, boards)
    parts += [box((width, depth, board), (0, 0, z), color) for z in levels]
    for z, above in zip(levels[:-1] + board, levels[1:], strict=True):
        x, end = -width / 2 + 0.03, width / 2 - 0.03 - rng.uniform(0, 0.6) * width
        while x < end:
            thick, tall = rng.uniform(0.03, 0.08), rng.uniform(0.6, 0.9) * (above - z)
            parts.append(box((thick, depth * 0.7, tall), (x + thick / 2, 0.02, z), fabric(rng), without="b"))
            x += thick
    return joined(*parts)


def nightstand(rng: Generator) -> Surfels:
    """A small chest of two drawers."""
    size = rng.uniform((0.38, 0.34, 0.4), (0.52, 0.44, 0.6))
    color = wood(rng)
    front = [
        box((size[0] - 0.05, 0.02, size[2] / 2 - 0.05), (0, -size[1] / 2 - 0.01, z), color * 0.9)
        for z in (0.04, size[2] / 2)
    ]
    return joined(box(size, (0, 0, 0), color), *front)


def monitor(rng: Generator) -> Surfels:
    """A screen on a foot."""
    width, black = rng.uniform(0.42, 0.65), np.array(_GREYS[0])
    screen = box((width, 0.04, width * 0.6), (0, 0, 0.12), black)
    return joined(screen, box((0.05, 0.04, 0.14), (0, 0.02, 0), black), box((0.24, 0.18, 0.015), (0, 0.02, 0), black))


def tv(rng: Generator) -> Surfels:
    """A large flat screen on a foot."""
    return monitor(rng).scaled(rng.uniform(1.6, 2.0))


def laptop(rng: Generator) -> Surfels:
    """An open laptop."""
    color = _near(rng, _GREYS)
    base = box((0.34, 0.24, 0.02), (0, 0, 0), color)
    return joined(base, panel((-0.17, 0.12, 0.02), (0.34, 0, 0), (0, rng.uniform(0.02, 0.1), 0.22), color))


def books(rng: Generator) -> Surfels:
    """A pile of books."""
    parts, z = [], 0.0
    for _ in range(int(rng.integers(1, 5))):
        size = rng.uniform((0.16, 0.2, 0.02), (0.24, 0.3, 0.05))
        parts.append(box(size, (*rng.uniform(-0.02, 0.02, 2), z), fabric(rng)).moved(rng.uniform(-0.2, 0.2), (0, 0, 0)))
        z += size[2]
    return joined(*parts)


def carton(rng: Generator) -> Surfels:
    """A box of cardboard or plastic."""
    color = np.array((0.66, 0.50, 0.33)) if rng.random() < 0.6 else fabric(rng)
    return box(rng.uniform((0.2, 0.18, 0.12), (0.5, 0.4, 0.4)), (0, 0, 0), color * rng.uniform(0.8, 1.1))


def pillow(rng: Generator) -> Surfels:
    """A pillow that lies."""
    return ellipsoid(rng.uniform((0.4, 0.35, 0.12), (0.65, 0.45, 0.2)), (0, 0, 0), fabric(rng))


def lamp(rng: Generator) -> Surfels:
    """A lamp for a table: a foot and a shade."""
    height, wide = rng.uniform(0.35, 0.6), rng.uniform(0.2, 0.34)
    foot = box((0.14, 0.14, 0.03), (0, 0, 0), _near(rng, _GREYS))
    stem = box((0.03, 0.03, height - 0.18), (0, 0, 0.03), _near(rng, _GREYS))
    return joined(foot, stem, ellipsoid((wide, wide, 0.24), (0, 0, height - 0.24), _near(rng, _WHITES)))


SIMPLE: dict[str, Callable[[Generator], Surfels]] = {
    **{"picture": picture, "shower curtain": shower_curtain, "sink": sink, "bathtub": bathtub, "toilet": toilet},
    **{"refrigerator": refrigerator, "bookshelf": bookshelf, "nightstand": nightstand, "monitor": monitor, "tv": tv},
    **{"laptop": laptop, "books": books, "box": carton, "pillow": pillow, "lamp": lamp},
}
"""Raw category → what makes one. Doors, windows, curtains and counters are made to measure besides."""

SIMPLE_CLASSES = frozenset(
    (
        *("door", "window", "bookshelf", "picture", "counter", "curtain", "refrigerator", "shower curtain"),
        *("toilet", "sink", "bathtub"),
    )
)
"""ScanNet classes with simple objects."""


def _rim(width: float, depth: float, wide: float, z: float, rgb: Array) -> Surfels:
    """The flat edge of a bowl."""
    edge = panel((-width / 2, -depth / 2, z), (width, 0, 0), (0, depth, 0), rgb)
    inner = np.array((width, depth)) / 2 - wide - SPACING / 2
    keep = (abs(edge.pos[:, :2]) > inner).any(1)
    return Surfels(*(field[keep] for field in edge))


def _near(rng: Generator, colors: tuple[tuple[float, float, float], ...]) -> Array:
    base = np.array(colors[int(rng.integers(len(colors)))])
    return np.asarray((base * rng.uniform(0.88, 1.08) + rng.normal(0, 0.015, 3)).clip(0.03, 0.97))
