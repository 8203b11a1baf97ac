"""Settings from data: the lengths that a head is told, in the unit of the positions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from probemb_lib._labelled import Floats, Labelled, labelled
from probemb_lib.aggregate import index_instances
from probemb_lib.gaussian import plain_tensor


class SuggestedSettings(NamedTuple):
    """What :func:`suggest_settings` reads from labelled clouds; lengths in the unit of the positions.

    Attributes:
        offset_scale: of the heads.
        initial_std: of :class:`~probemb_lib.ProbabilisticHead`.
        spacing: median distance of a point to its nearest neighbour at another place; NaN where each point is there
            twice.
        smallest: points of the smallest instance.
        min_points: of the clusterings, a start: a fifth of a small instance, so that noise is none.
        unit: what the positions are where they show it, in words: "0 to 1", "unit sphere", "pixels or voxels"; else
            "unknown".
    """

    offset_scale: float
    initial_std: float
    spacing: float
    smallest: int
    min_points: int
    unit: str


def suggest_settings(positions: Tensor, instance: Tensor, batch: Tensor | None = None) -> SuggestedSettings:
    """Settings of a head from labelled clouds: one batch, or better some clouds of the training set packed together.

    An instance's radius holds 98 % of its points, so that a stray label counts for nothing.

        offset_scale = the radius that 95 % of the instances have at most
        initial_std  = half the median radius
        min_points   = a fifth of the points that 2 % of the instances have at most

    so that a centre is in reach of all points of the largest instances, and points of neighbouring instances of equal
    size, whose centres are four σ or more apart, begin with κ ≤ exp(−2).

    Args:
        positions: (N, D), one unit for all axes.
        instance: (N,) ids, −1 none, −100 ignored.
        batch: (N,) cloud of each point; None is one cloud.

    Raises:
        TypeError, ValueError: shapes or types are not these, or no instance has an extent.

    >>> import torch
    >>> from probemb_lib.convert import grid_positions
    >>> pixels = grid_positions((64, 64), batch_size=1)  # four squares of 32 pixels
    >>> instance = (pixels[:, 0] // 32 * 2 + pixels[:, 1] // 32).long()
    >>> settings = suggest_settings(pixels, instance)
    >>> round(settings.offset_scale), round(settings.initial_std), settings.spacing, settings.unit
    (20, 10, 1.0, 'pixels or voxels')
    >>> settings.smallest, settings.min_points
    (1024, 204)
    """
    positions = plain_tensor(positions, "positions")
    index = index_instances(instance, batch)
    if positions.ndim != 2 or positions.shape[1] < 1 or positions.shape[0] != index.index.shape[0]:
        raise ValueError(f"expected positions ({index.index.shape[0]}, D), got {tuple(positions.shape)}")
    clouds = labelled(positions, instance, None, batch)
    table = clouds.table
    radius = table.radius[table.radius > 0]
    if not len(radius):
        raise ValueError(
            f"expected instances with an extent, got {len(table.size)} instances in {len(clouds.positions)} points "
            "with finite positions: probemb_lib.check_batch says what is wrong with the labels"
        )
    return SuggestedSettings(
        offset_scale=_round(np.quantile(radius, 0.95, method="higher")),
        initial_std=_round(0.5 * np.median(radius)),
        spacing=_round(clouds.spacing),
        smallest=int(table.size.min()),
        min_points=max(1, int(np.quantile(table.size, 0.02, method="lower")) // 5),
        unit=_unit(clouds),
    )


def _round(x: float | np.floating) -> float:
    """To three digits: numbers to write down."""
    return float(f"{x:.3g}")


def _unit(clouds: Labelled) -> str:
    x: Floats = clouds.positions
    low, high = x.min(axis=0), x.max(axis=0)
    extent = float((high - low).max())
    reach = float(np.linalg.norm(x, axis=1).max())
    if low.min() >= 0 and high.max() <= 1 and extent > 0.5:
        return "0 to 1"
    if 0.5 < reach <= 1.15:
        return "unit sphere"
    if bool((x == np.round(x)).all()) and extent >= 2:
        return "pixels or voxels"
    far = " far from the origin, as of a map: subtract an offset" if np.abs(x).max() > 100 * extent else ""
    return f"unknown{far}"  # the same numbers may be metres of a room or micrometres of cells
