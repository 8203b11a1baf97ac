"""Whether a cloud is in the unit of the training's: its size and the distances of its points tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probemb_adapters.clouds import Cloud
from probemb_adapters.clouds.cloud import radius
from probemb_adapters.experiments.own_clouds.data import Frame
from probemb_lib.positions import median_spacing, nearest_others

_ANOTHER_UNIT = 300  # times as large or as small as the training's clouds: metres are 1,000 millimetres
_UNUSUAL = 20  # times as large or small: asked about, whatever the distances of the points are
_APART = 1.5  # times as large, and points as many times farther apart than any of the training's: feet are 3.3 a metre
_NONE = 0.95  # of the points in no instance
_MEASURED = 16  # clouds
_POINTS = 1_000  # of a cloud


def spacing(cloud: Cloud) -> float:
    """The usual distance of a point to the nearest at another place; NaN where all lie at one."""
    rows = np.arange(0, len(cloud.pos), max(1, len(cloud.pos) // _POINTS))
    return median_spacing(nearest_others(cloud.pos, rows)[1])


def measure(clouds: Sequence[Cloud]) -> tuple[float, ...]:
    """The smallest radius, the least and the largest spacing of training clouds; nothing where points have none."""
    spacings = [spacing(cloud) for cloud in clouds[:: max(1, -(-len(clouds) // _MEASURED))]]
    found = min(map(radius, clouds)), min(spacings), max(spacings)
    return tuple(float(f"{x:.3g}") for x in found) if np.all(np.array(found) > 0) else ()


def times_as_large(cloud: Cloud, frame: Frame) -> float:
    """The size of a cloud against the largest of the training, without stray points.

    Raises:
        ValueError: it can only be in another unit.
    """
    times = radius(cloud) / frame.unit
    if not 1 / _ANOTHER_UNIT < times < _ANOTHER_UNIT:
        raise ValueError(
            f"{cloud.name}: expected a cloud in the unit of the training's, the largest of which is {2 * frame.unit:g} "
            f"across, got one that is {2 * times * frame.unit:.3g} across: scale its positions to that unit, or cut it"
        )
    return times


def unit_doubt(cloud: Cloud, frame: Frame, measured: Sequence[float], none: float) -> str | None:
    """A sentence where a cloud seems to be in another unit than the training's, and what to do; else None.

    A larger scene is as dense as the training's clouds, in another unit its points are as many times farther apart.

    Args:
        measured: of the training, by :func:`measure`; without, its size alone tells.
        none: the fraction of its points that were found in no instance.
    """
    size = radius(cloud)
    times = size / frame.unit
    across = f"{cloud.name} is {2 * size:.3g} across, the largest cloud of the training {2 * frame.unit:.3g}"
    way = (
        "is it in another unit? Then multiply its positions by what one of its units is in the training's, such as "
        "0.1 for decimetres where that was in metres, and predict again"
    )
    if measured:
        smallest, least, most = measured
        own = spacing(cloud)
        if own > _APART * most and times > _APART:
            return f"{across}, and its points lie {own / most:.2g} times as far apart: {way}"
        if own < least / _APART and size < smallest / _APART:
            return f"{across}, and its points lie {least / own:.2g} times as close together: {way}"
    if not 1 / _UNUSUAL < times < _UNUSUAL:
        return f"{across}: {way}"
    return f"{across}, and {none:.0%} of its points are in no instance: {way}" if none >= _NONE else None
