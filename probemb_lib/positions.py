"""What positions must be before a network sees them: fine enough for their type, and without strays.

A floating-point type has steps of eps · |x| at a coordinate x: float32, with 24 bits, of 0.5 m at a northing of
5,400,000. So an offset goes first::

    offset = far_offset(pos)                      # float64; zero where the cloud lies about the origin
    x = (pos - offset).astype(np.float32)         # for the network
    pos_again = x.astype(np.float64) + offset     # in the frame of the file

Readers, writers, :func:`~probemb_lib.check_batch` and the heads share the two rules here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE = 1 / 8
"""Steps of a type must be finer than this share of the distance of neighbouring points."""

FAR = 10
"""Times its extent; nearer to the origin, an offset would gain float32 less than five of its 24 bits."""

STRAY = 20
"""A stray point lies more than so many times as far from the median as 99 % of the points."""

_SINGLE = 2.0**-23  # eps of float32: what is coarser loses digits anywhere
_SAMPLE = 2_000


def far_offset(pos: NDArray[Any]) -> NDArray[np.float64]:
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
    near = np.abs(middle).max() <= FAR * (high - low).max()
    return np.zeros(pos.shape[1]) if near else np.asarray(np.round(middle))


def coarse_step(eps: float, farthest: float, distance: float, extent: float = 0.0) -> float | None:
    """The steps of a type at the farthest coordinate where they are coarse, else None.

        step = eps · farthest > COARSE · distance

    float32 and better are fine wherever the cloud lies about the origin, as there is nothing to subtract.

    Args:
        eps: of the type, such as 2⁻²³ of float32.
        farthest: the largest coordinate, without its sign.
        distance: of neighbouring points at different places.
        extent: of the cloud along its longest axis; 0 where it is not known.

    >>> coarse_step(2**-23, farthest=2**22, distance=0.02, extent=100)
    0.5
    >>> coarse_step(2**-23, farthest=5, distance=0.02, extent=10)
    """
    if eps <= _SINGLE and farthest <= FAR * extent:
        return None
    step = eps * farthest
    return step if step > COARSE * distance else None


def check_digits(pos: NDArray[Any], what: str) -> None:
    """Refuse positions whose type is coarse against the distances of the points (:func:`coarse_step`).

    Integers, float64 and float32 clouds about the origin always pass; float64 that float32 holds exactly, of fractions,
    came from it and is taken for it.

    Args:
        pos: (N, 3), any dtype.
        what: begins the message, such as the file.

    Raises:
        ValueError: they are; the message has the way out.
    """
    if pos.dtype.kind != "f" or len(pos) < 2:
        return
    if pos.dtype.itemsize >= 8:
        with np.errstate(over="ignore"):
            single = pos.astype(np.float32)
        if not np.array_equal(single, pos) or np.array_equal(np.round(pos), pos):
            return
        pos = single
    farthest = float(np.abs(pos).max())
    extent = float((pos.max(0).astype(np.float64) - pos.min(0)).max())
    eps = float(np.finfo(pos.dtype).eps)
    if coarse_step(eps, farthest, 0.0, extent) is None:  # whatever the distance: it is not asked for
        return
    places = np.unique(pos, axis=0).astype(np.float64)
    some = np.random.default_rng(0).permutation(len(places))[:_SAMPLE]
    distance = median_spacing(nearest_others(places, some)[1]) if len(places) > 1 else 0.0
    step = coarse_step(eps, farthest, distance, extent)
    if step is not None:
        raise ValueError(
            f"{what}: expected positions that {pos.dtype} can tell apart, got coordinates up to {farthest:.9g}, where "
            f"its numbers are {step:.3g} apart, and points {distance:.3g} apart at {len(places)} places of {len(pos)}: "
            "digits are lost. Take the float64 positions again and subtract an offset before the cast "
            "(probemb_lib.positions.far_offset); files with doubles, scaled integers or text are read in float64"
        )


def stray_rows(pos: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of the points (N, D) that lie far outside: more than STRAY times as far from the median as 99 % of them.

    >>> stray_rows(np.array([[float(i), 0, 0] for i in range(20)] + [[1e4, 0, 0]])).tolist()
    [20]
    """
    distance = np.linalg.norm(pos - np.median(pos, axis=0), axis=1)
    usual = np.percentile(distance, 99, method="lower")
    return np.flatnonzero(distance > STRAY * usual) if usual > 0 else np.zeros(0, np.int64)


def nearest_others(pos: NDArray[Any], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The row of the nearest other point for some ``rows`` of points (N, D), N > 1, and its distance: both (M,).

    >>> nearest_others(np.array([[0.0], [3.0], [1.0]]), np.array([0, 1]))
    (array([2, 2]), array([1., 2.]))
    """
    from scipy.spatial import cKDTree  # loaded by whom it serves: the package is imported without

    distance, nearest = cKDTree(pos, balanced_tree=False, compact_nodes=False).query(pos[rows], k=2)
    other = np.where(nearest[:, 0] == rows, 1, 0)  # of equal points either comes first
    each = np.arange(len(rows))
    return nearest[each, other], distance[each, other]


def median_spacing(distance: NDArray[np.float64]) -> float:
    """Of distances of :func:`nearest_others`, without those of points at one place; NaN where there are no others."""
    apart = distance[distance > 0]
    return float(np.median(apart)) if len(apart) else float("nan")
