"""Coordinates of files that no network can take: not finite, too large, or far outside of the rest."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from probemb_lib.positions import STRAY, stray_rows

Array = np.ndarray[Any, np.dtype[Any]]


def check_range(pos: Array, what: str) -> None:
    """Refuse float64 positions that are not finite, or not finite in float32 once they are centred.

    Raises:
        ValueError: a coordinate is; the message names the first.
    """
    finite = np.isfinite(pos).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"{what}: expected finite positions, got {np.count_nonzero(~finite)} points with a coordinate that is NaN "
            f"or infinite, the first at row {row}: {pos[row].tolist()}; remove them"
        )
    middle = np.median(pos, axis=0)
    with np.errstate(over="ignore"):
        large = np.abs(pos - middle).max(axis=1) > 1e18  # squares are finite in float32
    if large.any():
        row = int(np.argmax(large))
        raise ValueError(
            f"{what}: expected positions that are finite as float32, squares of distances included, got "
            f"{pos[row].tolist()} at row {row}; remove such points ({np.count_nonzero(large)})"
        )


def warn_of_strays(pos: Array, what: str) -> None:
    """Warn of points far outside (:func:`~probemb_lib.positions.stray_rows`)."""
    stray = stray_rows(pos)
    if len(stray):
        places = "; ".join(f"row {row} at {pos[row].tolist()}" for row in stray[:3])
        more = f" and {len(stray) - 3} more" if len(stray) > 3 else ""
        warnings.warn(
            f"{what}: stray points, more than {STRAY} times as far out as 99 % of the points: {places}{more}; they "
            "set the scale of the whole cloud, so remove them unless they are meant",
            stacklevel=3,
        )
