"""What the layouts of PartNet's files share as a data set: a shape, the order of its points, the item."""

from __future__ import annotations

import warnings
import zlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset
from torch_geometric.data import Data

POINTS = 10_000
"""PartNet's protocols use the first 10,000 points of a shape."""

SAMPLE = 5
"""Shapes of a split that are looked at when it is opened, where all would take long."""

SPHERE = 1.05
"""Largest radius that rounding leaves of the unit sphere."""

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Int = np.ndarray[Any, np.dtype[np.int64]]
AnyShape = TypeVar("AnyShape")


class PartNetShape(NamedTuple):
    """One shape in the order of its file.

    Attributes:
        pos: (P, 3) float32, the first P ≤ 10,000 points.
        instance: (P,) int64, the row of `classes` that owns the point, or −1 on other points.
        classes: (G,) int64, the **1-based** class of each instance; each has a point.
        anno_id: PartNet's annotation id.
        shape_id: {file}/{row}, such as test-00/12.
    """

    pos: Float32
    instance: Int
    classes: Int
    anno_id: str
    shape_id: str


class PartNetDataset(Dataset[Data]):
    """What the layouts of PartNet's files share: the order of the points, the item, its transform.

    A layout derives from it and says how to read a shape; see :class:`PartNetInstances` for the item.

    Args:
        part_paths: the part paths of the level, in the order of their ids.
        shape_ids: {file}/{row} of each shape.
        num_points, transform, class_agnostic, random_points: as in :class:`PartNetInstances`.

    Attributes:
        classes: part paths; class c of ``semantic`` is ``classes[c - 1]``.
        shape_ids: {file}/{row} of each item.
    """

    def __init__(
        self,
        part_paths: tuple[str, ...],
        shape_ids: Sequence[str],
        *,
        num_points: int,
        transform: Callable[[Data], Data] | None,
        class_agnostic: bool,
        random_points: bool,
    ) -> None:
        self.classes = ("part",) if class_agnostic else part_paths
        self.shape_ids = tuple(shape_ids)
        self.num_points = num_points
        self.transform = transform
        self.class_agnostic = class_agnostic
        self.random_points = random_points

    @property
    def num_classes(self) -> int:
        """Columns of the score: the part classes and column 0, the background ("other")."""
        return len(self.classes) + 1

    def __len__(self) -> int:
        return len(self.shape_ids)

    def __getitem__(self, index: int) -> Data:
        shape = self.read(index)
        order = self._order(shape)
        instance, classes = drop_empty(shape.instance[order], shape.classes)
        data = Data(
            pos=torch.from_numpy(shape.pos[order]),
            instance=torch.from_numpy(instance),
            semantic=torch.from_numpy(np.append(classes, 0)[instance]),  # the last is for −1: other
            other=torch.from_numpy(instance < 0),
            point=torch.from_numpy(order),
            anno_id=shape.anno_id,
            shape_id=shape.shape_id,
        )
        return data if self.transform is None else self.transform(data)

    def read(self, index: int) -> PartNetShape:
        """A shape as it lies in the file: its first 10,000 points in their order, no transform.

        Raises:
            IndexError: no such shape.
            ValueError, OSError: as the data set.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"shape {index} of a split of {len(self)}")
        return self._read(index)

    @abstractmethod
    def _read(self, index: int) -> PartNetShape: ...

    def _order(self, shape: PartNetShape) -> Int:
        """Rows of the file, in the order of the item."""
        if self.random_points:
            permutation = torch.randperm(len(shape.pos))
        else:
            # By annotation, not by position: the same order whatever else is in the split.
            generator = torch.Generator().manual_seed(zlib.crc32(shape.anno_id.encode()))
            permutation = torch.randperm(len(shape.pos), generator=generator)
        order: Int = permutation[: self.num_points].numpy()
        return order


def sample_of(shapes: Sequence[AnyShape]) -> list[AnyShape]:
    """A few shapes, from the first to the last.

    >>> sample_of(range(9))
    [0, 2, 4, 6, 8]
    """
    rows = np.linspace(0, len(shapes) - 1, min(SAMPLE, len(shapes))).round().astype(int)
    return [shapes[row] for row in rows]


def warn_outside_the_sphere(folder: Path, clouds: Sequence[Float32]) -> None:
    """Warns of shapes beyond PartNet's unit sphere, for which network and head are made."""
    radii = [float(np.linalg.norm(pos, axis=1).max()) for pos in clouds]
    outside = [radius for radius in radii if radius > SPHERE]
    if outside:
        warnings.warn(
            f"{folder}: expected shapes in the unit sphere, as PartNet's are, got {len(outside)} of {len(radii)} that "
            f"were looked at outside, as far as {max(outside):.3g}: centre each shape and divide it by its largest "
            "distance from the centre, or give the head an offset_scale, and the network radii, in their unit",
            stacklevel=4,  # who opens the data set
        )


def check_num_points(num_points: int) -> None:
    """Raises a ValueError unless ``num_points`` is 1 … 10,000."""
    if not 1 <= num_points <= POINTS:
        raise ValueError(f"num_points must be 1 … {POINTS} (the points that PartNet's protocols use), got {num_points}")


def drop_empty(instance: Int, classes: Int) -> tuple[Int, Int]:
    """Leave out the instances without a point: (N,) rows of classes or −1, and the classes that are left.

    >>> drop_empty(np.array([2, -1, 0, 2]), np.array([7, 8, 9]))
    (array([ 1, -1,  0,  1]), array([7, 9]))
    """
    has_point = np.bincount(instance + 1, minlength=len(classes) + 1)[1:] > 0
    row = np.append(np.cumsum(has_point) - 1, -1)  # the last is for −1
    return row[instance], classes[has_point]
