"""PartNet's network-ready files (`ins_seg_h5_for_detection`): a data set that reads them, and a writer::

    {root}/ins_seg_h5_for_detection/{Category}-{level}/{split}-{00..}.h5
        pts            (B, N, 3) float32
        gt_label       (B, N) uint8        class of each point: 0 other, else 1-based
        gt_mask        (B, 200, N) bool    instances
        gt_valid       (B, 200) bool       slots of gt_mask that hold an instance
        gt_other_mask  (B, N) bool         gt_label is 0
    {root}/ins_seg_h5_for_detection/{Category}-{level}/{split}-{00..}.json    anno_id of each shape
    {root}/stats/after_merging_label_ids/{Category}-level-{n}.txt             names of the classes

They hold the first 10,000 points of `ins_seg_h5` and the instances of one level, and say what those files say:
`PartNetDetection` and `PartNetInstances` give equal items. Source: Mo et al., "PartNet", CVPR 2019, and the data
set's published scripts.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch_geometric.data import Data

from probemb_adapters.partnet._h5 import Array, check_arrays, new_files, open_h5, write_rows
from probemb_adapters.partnet.dataset import (
    POINTS,
    PartNetDataset,
    PartNetShape,
    check_num_points,
    drop_empty,
    sample_of,
    warn_outside_the_sphere,
)
from probemb_adapters.partnet.files import (
    check_enough,
    check_finite,
    level_file,
    read_classes,
    read_records,
    split_files,
)
from probemb_adapters.partnet.instances import PartNetInstances

LAYOUT = "ins_seg_h5_for_detection"

SLOTS = 200
"""Instances, or predictions, that PartNet's files hold a shape."""

MAX_CLASSES = 255
"""Classes that the files' uint8 holds beside 0."""


class _Shape(NamedTuple):
    path: Path
    row: int
    anno_id: str


class PartNetDetection(PartNetDataset):
    """One category, level and split of PartNet, read from the network-ready files.

    Items, their order of points and all settings are those of :class:`~probemb_adapters.partnet.PartNetInstances`.
    Without a json beside an h5 file, ``anno_id`` is {file}/{row}; the fixed order of points then differs from
    that of `PartNetInstances`, as it is drawn from the ``anno_id``.

    Slots that are not valid are not looked at. Valid slots without a point, which PartNet's training files
    have, are skipped. Where masks overlap, the later slot has the points, as in ``gt_label``. A shape without
    any instance stays: all its points are other.

    Args:
        root: the folder that holds `ins_seg_h5_for_detection` and `stats`.
        category, level, split, num_points, transform, class_agnostic, random_points: as in `PartNetInstances`.

    Raises:
        FileNotFoundError: root, category, level or split is missing; the message lists what there is.
        ValueError: files contradict the layout, each other or themselves (a mask with points of two classes or
            of none, points of a class in no mask, a class that the level does not have, a coordinate that is
            not finite); the message names the file and the shape.
        OSError: a file is truncated or corrupt, found on opening it or on reading a shape.
        IndexError: no such item.

    Warns:
        UserWarning: the shapes that are looked at have no instance at all, or lie outside the unit sphere.
    """

    def __init__(
        self,
        root: str | Path,
        category: str,
        level: int,
        split: str,
        *,
        num_points: int = POINTS,
        transform: Callable[[Data], Data] | None = None,
        class_agnostic: bool = False,
        random_points: bool | None = None,
    ) -> None:
        check_num_points(num_points)
        paths = split_files(Path(root) / LAYOUT, f"{category}-{level}", split)
        part_paths = read_classes(root, category, level)
        self._part_classes = len(part_paths)
        self._shapes = [shape for path in paths for shape in _read_shapes(path, num_points)]
        _check_sample(level_file(root, category, level), len(part_paths), paths[0].parent, sample_of(self._shapes))
        super().__init__(
            part_paths,
            [f"{shape.path.stem}/{shape.row}" for shape in self._shapes],
            num_points=num_points,
            transform=transform,
            class_agnostic=class_agnostic,
            random_points=split == "train" if random_points is None else random_points,
        )

    def _read(self, index: int) -> PartNetShape:
        shape = self._shapes[index]
        path, row = shape.path, shape.row
        with open_h5(path, f"shape {row}") as file:
            pos = file["pts"][row, :POINTS].astype(np.float32, copy=False)
            label = file["gt_label"][row, :POINTS].astype(np.int64)
            other = file["gt_other_mask"][row, :POINTS]
            slots = np.flatnonzero(file["gt_valid"][row])
            masks = file["gt_mask"][row, : slots.max(initial=-1) + 1, :POINTS][slots]
        check_finite(pos, path, row)
        instance = np.full(len(pos), -1, dtype=np.int64)
        for i, mask in enumerate(masks):
            instance[mask] = i
        instance, classes = drop_empty(instance, np.zeros(len(masks), dtype=np.int64))
        member = instance >= 0
        classes[instance[member]] = label[member]
        fault = _fault(instance, classes, label, other, self._part_classes)
        if fault:
            raise ValueError(f"{path}, shape {row}: {fault}; unpack or write the file again")
        if self.class_agnostic:
            classes = np.ones_like(classes)
        return PartNetShape(pos, instance, classes, shape.anno_id, self.shape_ids[index])


def write_detection(
    root: str | Path,
    category: str,
    level: int,
    split: str,
    *,
    output: str | Path | None = None,
    num_points: int = POINTS,
) -> list[Path]:
    """Write the network-ready files of a split from `ins_seg_h5`, as :class:`PartNetDetection` reads them.

    One h5 file for each of the source, with a copy of its json; gzip, a chunk a shape. Instances without a
    point get no slot, and overlapping ones do not occur: a point belongs to the later instance, see
    :class:`~probemb_adapters.partnet.PartNetInstances`. One shape is in memory at a time. The files take
    their places when all are written: an error leaves nothing.

    Args:
        root: the folder that holds `ins_seg_h5` and `stats`.
        category, level, split: what to write.
        output: the folder in which `ins_seg_h5_for_detection` is made; by default ``root``. To read the files
            from there, copy `stats` beside them.
        num_points: the first points of each shape that are written; 10,000 in PartNet's protocols.

    Returns:
        the h5 files.

    Raises:
        FileExistsError: the folder has files of the split already.
        ValueError: a shape has more than 200 instances, or the level more than 255 classes.
        FileNotFoundError, ValueError, OSError: as `PartNetInstances`.
    """
    data = PartNetInstances(root, category, level, split, num_points=num_points)
    folder = (Path(root) if output is None else Path(output)) / LAYOUT / f"{category}-{level}"

    def arrays(shape: PartNetShape) -> dict[str, Array]:
        masks, _ = instance_slots(shape)
        label = np.append(shape.classes, 0)[shape.instance]
        return {
            "pts": shape.pos,
            "gt_label": label.astype(np.uint8),
            "gt_mask": masks,
            "gt_valid": masks.any(axis=1),
            "gt_other_mask": label == 0,
        }

    return write_split(data, Path(root) / "ins_seg_h5" / category, folder, split, arrays)


def write_split(
    data: PartNetInstances, source: Path, folder: Path, split: str, arrays: Callable[[PartNetShape], dict[str, Array]]
) -> list[Path]:
    """Write an h5 file and a json for each file of ``data`` into ``folder``, all or nothing.

    Args:
        data: what to write; its ``num_points`` first points of each shape.
        source: the folder of the data set's files, from which the json files are copied.
        folder: where the files go.
        split: the prefix of their names.
        arrays: what the file says of a shape.
    """
    if len(data.classes) > MAX_CLASSES:
        raise ValueError(f"{folder.name}: the files hold {MAX_CLASSES} classes, as uint8, not {len(data.classes)}")

    def rows(indices: list[int]) -> Iterator[dict[str, Array]]:
        for i in indices:
            shape = data.read(i)
            instance, classes = drop_empty(shape.instance[: data.num_points], shape.classes)
            first = shape._replace(pos=shape.pos[: data.num_points], instance=instance, classes=classes)
            if len(classes) > SLOTS:
                stem, _, row = shape.shape_id.rpartition("/")
                raise ValueError(
                    f"{source / stem}.h5, shape {row}: has {len(classes)} instances of the level, and PartNet's "
                    f"layout holds {SLOTS}: leave the shape out of the h5 file and its json, or use "
                    "PartNetInstances, which has no such limit"
                )
            yield arrays(first)

    written = []
    with new_files(folder, f"{split}-*.h5") as temporary:
        for stem, group in groupby(range(len(data)), key=lambda i: data.shape_ids[i].rpartition("/")[0]):
            indices = list(group)
            shutil.copyfile(source / f"{stem}.json", temporary / f"{stem}.json")
            write_rows(temporary / f"{stem}.h5", len(indices), rows(indices))
            written.append(folder / f"{stem}.h5")
    return written


def instance_slots(shape: PartNetShape) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], Array]:
    """Masks (200, N) of a shape's instances, and their 1-based classes (200,); 0 in slots without an instance."""
    slots = np.arange(SLOTS)
    classes = np.zeros(SLOTS, dtype=np.int64)
    classes[: len(shape.classes)] = shape.classes
    return shape.instance == slots[:, None], classes


def _read_shapes(path: Path, num_points: int) -> list[_Shape]:
    """The shapes of an h5 file; the heads of its arrays are checked, and the json if there is one."""
    sizes = check_arrays(
        path,
        {
            "pts": (("B", "N", 3), "floats"),
            "gt_label": (("B", "N"), "integers"),
            "gt_mask": (("B", "slots", "N"), "bool"),
            "gt_valid": (("B", "slots"), "bool"),
            "gt_other_mask": (("B", "N"), "bool"),
        },
    )
    check_enough(path, sizes["N"], num_points)
    json_path, count = path.with_suffix(".json"), sizes["B"]
    if not json_path.is_file():
        return [_Shape(path, row, f"{path.stem}/{row}") for row in range(count)]
    records = read_records(json_path)
    if len(records) != count:
        raise ValueError(
            f"{json_path} has {len(records)} records but {path.name} has {count} shapes: unpack both again"
        )
    shapes = []
    for row, record in enumerate(records):
        if not isinstance(record, dict) or "anno_id" not in record:
            raise ValueError(f"{json_path}, shape {row}: expected a record with anno_id, got {str(record)[:80]}")
        shapes.append(_Shape(path, row, str(record["anno_id"])))
    return shapes


def _check_sample(level: Path, num_classes: int, folder: Path, shapes: Sequence[_Shape]) -> None:
    """What a few shapes say against the level and the unit sphere; broken ones are for :meth:`read`."""
    clouds, highest = [], []
    for shape in shapes:
        try:
            with open_h5(shape.path, f"shape {shape.row}") as file:
                pos = file["pts"][shape.row, :POINTS].astype(np.float32, copy=False)
                highest.append(int(file["gt_label"][shape.row, :POINTS].max()))
        except (OSError, ValueError):
            continue
        if np.isfinite(pos).all():
            clouds.append(pos)
    if sum(label > num_classes for label in highest) > 0.5 * len(highest):
        raise ValueError(
            f"expected gt_label 0 … {num_classes} in {folder}, as the level has {num_classes} classes, got up to "
            f"{max(highest)}; is {level} that of these files?"
        )
    if highest and max(highest) == 0:
        warnings.warn(
            f"{folder}: expected instances, got none in the {len(highest)} shapes that were looked at: gt_label is 0, "
            "other, everywhere",
            stacklevel=3,
        )
    warn_outside_the_sphere(folder, clouds)


def _fault(instance: Array, classes: Array, label: Array, other: Array, num_classes: int) -> str:
    """What the arrays of a shape have to say against each other, or ''."""
    member = instance >= 0
    mixed = np.flatnonzero(member & (label != np.append(classes, 0)[instance]))
    if len(mixed):
        found = np.unique(label[instance == instance[mixed[0]]]).tolist()
        return f"a mask of gt_mask has points of the classes {found} of gt_label"
    if label.min() < 0 or label.max() > num_classes:
        return (
            f"expected gt_label 0 … {num_classes}, as the level has {num_classes} classes, got {label.min()} "
            f"to {label.max()}; are these the stats of the level?"
        )
    if (classes == 0).any():
        return f"{np.count_nonzero(classes == 0)} masks of gt_mask have points of class 0, other, in gt_label"
    alone = np.count_nonzero(~member & (label > 0))
    if alone:
        return f"{alone} points have a class in gt_label and no mask in gt_mask"
    wrong = np.count_nonzero(other != (label == 0))
    if wrong:
        return f"{wrong} points contradict: gt_other_mask must be where gt_label is 0"
    return ""
