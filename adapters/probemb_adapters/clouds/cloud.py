"""A cloud as it lies in its file: float64 positions, colours, normals, labels, and all other properties of points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from probemb_lib.positions import check_digits

Array = np.ndarray[Any, np.dtype[Any]]
Up = Literal["x", "y", "z"]

_INSIDE = 1, 99  # per cent of the coordinates: stray points move and scale nothing

# Rows: the axes of the file that become x, y (up), z, without mirroring.
_TO_Y_UP: dict[Up, Array] = {
    "x": np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "y": np.eye(3, dtype=np.int64),
    "z": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
}


class Stored(NamedTuple):
    """The points of a file as a reader of one format gives them.

    Attributes:
        pos: (N, 3) in the dtype of the file; float64 where the file has decimals or scaled integers.
        properties: every other property of the points by its name, (N, …), in the order of the file.
        layout: what the format's writer needs to write the points back as they were; None where nothing writes it.
        class_names: of the numbers of classes, where the file has them beside the points.
    """

    pos: Array
    properties: dict[str, Array]
    layout: Any = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Cloud:
    """One cloud of a file.

    Attributes:
        name: the file's stem, under a folder the path in it without ending; with the row where a file holds several.
        pos: (N, 3) float64, as in the file; subtract an offset before the cast to float32, see `far_offset`.
        rgb: (N, 3) uint8, or None.
        normals: (N, 3) float32, or None.
        instance: (N,) int64, or None.
        semantic: (N,) int64, or None.
        class_names: of the numbers in ``semantic``, where the file has them: its classes are words, or there is an
            array `class_names`.
        properties: every property of the points but the positions by its name in the file, (N, …), in its dtype and
            order; colours, normals and labels are among them.
        notes: a line each on what was taken for colours and labels, and on what was not used.
        path: the file; None for a cloud made by hand.
        stored: the dtype of the positions in the file.
        layout: of the file, for the writer of its format.
    """

    name: str
    pos: Array
    rgb: Array | None = None
    normals: Array | None = None
    instance: Array | None = None
    semantic: Array | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)
    properties: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    path: Path | None = None
    stored: np.dtype[Any] = field(default=np.dtype(np.float64))
    layout: Any = field(default=None, repr=False)


def y_up(pos: Array, up: Up) -> Array:
    """Positions (N, 3) turned so that the axis ``up`` becomes y, without mirroring.

    >>> y_up(np.array([[1, 2, 3]]), "z").tolist()
    [[1, 3, -2]]
    """
    return pos @ _TO_Y_UP[up].T


def unit_sphere(pos: Array, up: Up = "y") -> Array:
    """PartNet's frame: centred on the bounding box, the farthest point at distance 1, y up. (N, 3) -> (N, 3) float32.

    Raises:
        ValueError: the extent of the positions is not finite, or they have lost their digits, see `check_digits`.

    >>> unit_sphere(np.array([[0.0, 0, 0], [0, 0, 4]]), up="z")
    array([[ 0., -1.,  0.],
           [ 0.,  1.,  0.]], dtype=float32)
    """
    check_digits(pos, "unit_sphere")
    x = y_up(pos.astype(np.float64), up)
    x = x - (x.min(0) + x.max(0)) / 2
    with np.errstate(over="ignore"):
        radius = np.linalg.norm(x, axis=1).max()
    if not np.isfinite(radius):
        raise ValueError(f"expected positions of finite extent, got coordinates {pos.min():g} to {pos.max():g}")
    return np.asarray(x / (radius or 1), dtype=np.float32) + np.float32(0)  # no negative zeros


def nearest(pos: Array, some: Array) -> Array:
    """For each of (N, 3) points the row of the nearest of ``some``, whose results it takes; (N,) int64."""
    return np.asarray(cKDTree(some).query(pos)[1], dtype=np.int64)


def middle(pos: Array) -> Array:
    """(3,) of the box around positions (N, 3) without stray points."""
    low, high = np.percentile(pos, _INSIDE, axis=0)
    return np.asarray((low + high) / 2)


def centred(pos: Array) -> Array:
    """Positions from their :func:`middle`."""
    return np.asarray(pos - middle(pos))


def radius(cloud: Cloud) -> float:
    """Of the cloud around its middle, without stray points, in the unit of the file."""
    return float(np.percentile(np.linalg.norm(centred(cloud.pos), axis=1), _INSIDE[1]))
