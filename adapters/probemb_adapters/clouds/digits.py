"""Positions keep their digits: float32 has 24 bits, 0.5 m at a northing of 5,400,000, so an offset goes first.

offset = far_offset(pos)                      # float64; zero where the cloud lies about the origin
x = (pos - offset).astype(np.float32)         # for the network
pos_again = x.astype(np.float64) + offset     # in the frame of the file
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

Array = np.ndarray[Any, np.dtype[Any]]

_FAR = 10  # times its extent; nearer to the origin, an offset would gain float32 no more than three of its 24 bits
_COARSE = 0.1  # of the distance between neighbours
_STRAY = 20  # times the distance within which 99 % of the points lie
_SAMPLE = 2_000


def far_offset(pos: Array) -> Array:
    """What to subtract from positions (N, 3), in float64, before they become float32: (3,) float64.

    Zero where the cloud lies within ten times its extent of the origin, which costs float32 next to nothing; else the
    middle of its bounding box in whole units, so that a grid of voxels whose size divides one stays where it was.

    >>> far_offset(np.array([[500_000.25, 5_400_000.0, 300.0], [500_002.25, 5_400_001.0, 301.0]])).tolist()
    [500001.0, 5400000.0, 300.0]
    >>> far_offset(np.array([[0.0, 0, 0], [4, 5, 2.5]])).tolist()
    [0.0, 0.0, 0.0]
    """
    low, high = pos.min(0).astype(np.float64), pos.max(0).astype(np.float64)
    middle = low / 2 + high / 2  # their sum may be infinite
    near = np.abs(middle).max() <= _FAR * (high - low).max()
    return np.zeros(3) if near else np.asarray(np.round(middle))


def check_digits(pos: Array, what: str) -> None:
    """Refuse positions of low precision, far from the origin, that are coarse against the distances of the points.

    Coarse: the dtype's spacing at the largest coordinate is more than a tenth of the median distance from a point to
    the nearest at another place. float64, integers, and clouds about the origin always pass.

    Args:
        pos: (N, 3), any dtype.
        what: begins the message, such as the file.

    Raises:
        ValueError: they are; the message has the way out.
    """
    if pos.dtype.kind != "f" or pos.dtype.itemsize >= 8 or len(pos) < 2:
        return
    largest = np.abs(pos).max()
    extent = np.float64((pos.max(0).astype(np.float64) - pos.min(0)).max())
    if largest <= _FAR * extent:
        return
    places = np.unique(pos, axis=0).astype(np.float64)
    spacing, distance = float(np.spacing(largest)), 0.0
    if len(places) > 1:
        some = places[np.random.default_rng(0).permutation(len(places))[:_SAMPLE]]
        distance = float(np.median(cKDTree(places).query(some, k=2)[0][:, 1]))
        if spacing <= _COARSE * distance:
            return
    raise ValueError(
        f"{what}: expected positions that {pos.dtype} can tell apart, got coordinates up to {largest:.9g}, where its "
        f"numbers are {spacing:.3g} apart, and points {distance:.3g} apart at {len(places)} places of {len(pos)}: "
        "digits are lost. Take the float64 positions again and subtract an offset before the cast "
        "(probemb_adapters.clouds.far_offset); files with doubles, scaled integers or text are read in float64"
    )


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
    """Warn of points farther from the median than 20 times the distance within which 99 % of the points lie."""
    distance = np.linalg.norm(pos - np.median(pos, axis=0), axis=1)
    usual = np.percentile(distance, 99, method="lower")
    stray = np.flatnonzero(distance > _STRAY * usual) if usual > 0 else np.zeros(0, np.int64)
    if len(stray):
        places = "; ".join(f"row {row} at {pos[row].tolist()}" for row in stray[:3])
        more = f" and {len(stray) - 3} more" if len(stray) > 3 else ""
        warnings.warn(
            f"{what}: stray points, more than {_STRAY} times as far out as 99 % of the points: {places}{more}; they "
            "set the scale of the whole cloud, so remove them unless they are meant",
            stacklevel=3,
        )
