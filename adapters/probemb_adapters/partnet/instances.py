"""PartNet's instance segmentation files (`ins_seg_h5`) for torch-geometric.

The raw layout, as PartNet publishes it:

    {root}/ins_seg_h5/{Category}/{split}-{00..}.h5     pts (B, 10000+, 3), label (B, 10000+): leaf ids
    {root}/ins_seg_h5/{Category}/{split}-{00..}.json   anno_id, ins_seg [{part_name, leaf_id_list}, ...]
    {root}/stats/after_merging_label_ids/{Category}-level-{n}.txt   one line a class: id, part path, sub_type

A shape's instances at a level are its `ins_seg` entries whose `part_name` stands in the level's file; every
other point is "other". Source: Mo et al., "PartNet", CVPR 2019, and the data set's published scripts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch_geometric.data import Data

from probemb_adapters.partnet._h5 import check_arrays, open_h5
from probemb_adapters.partnet.dataset import (
    POINTS,
    Float32,
    Int,
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

UNNAMED = 0.5
"""Points of a split whose leaf no record names: more are no remains of PartNet's merging. Half of it is a warning."""


class _Shape(NamedTuple):
    """Where a shape lies and what the json says of it."""

    path: Path
    row: int
    anno_id: str
    parts: tuple[tuple[int, tuple[int, ...]], ...]  # (1-based class, leaf ids) of each instance of the level
    leaves: frozenset[int]  # leaf ids named anywhere in the record, on any level


class PartNetInstances(PartNetDataset):
    """One category, level and split of PartNet, read from the published files; nothing is cached on disk.

    An item is a `torch_geometric.data.Data` of N = ``num_points`` points::

        pos        (N, 3) float32  coordinates, in PartNet's unit sphere
        instance   (N,) int64      0 … G−1, or −1 on other points; instances without a point are skipped
        semantic   (N,) int64      0 other, else 1-based position in classes
        other      (N,) bool       instance is −1
        point      (N,) int64      row of the point in the file
        anno_id    str             PartNet's annotation id
        shape_id   str             {file}/{row}, such as test-00/12

    Points come in random order, because PointNet++'s ball query takes the first 64 inside a ball: with
    ``random_points`` a new order, and for ``num_points`` < 10,000 a new subset, at each access (torch's
    global RNG); without it the same order each time, drawn from the ``anno_id``: fewer points are a prefix.

    Where two instances of a level share a leaf, the later one has its points, as in PartNet's own `gt_label`.
    A shape without any instance at the level stays: all its points are other. A leaf id that no record names
    is other too: PartNet's merging of classes leaves such leaves.

    Files are opened at each access and closed again, so the data set can be forked and pickled to workers.
    The chunks of PartNet's files span several shapes and a read takes about 20 ms: use ``num_workers``.

    Seeding: points, translation and jitter draw from torch's global RNG; `RandomRotate` of torch-geometric
    draws from Python's `random`. `torch_geometric.seed_everything` seeds both. In workers the DataLoader
    seeds both from its ``generator``, so equal generators and equal ``num_workers`` give equal batches.

    Args:
        root: the folder that holds `ins_seg_h5` and `stats`.
        category: such as `Chair`.
        level: 1, 2 or 3, as far as the category has it.
        split: `train`, `val` or `test`.
        num_points: points per item, 1 … 10,000.
        transform: called on each item, for example `paper_augmentation()`.
        class_agnostic: every part has class 1 and ``classes`` is `("part",)`.
        random_points: a new order at each access; by default for the split `train` only.

    Attributes:
        classes: part paths; class c of ``semantic`` is ``classes[c - 1]``.

    Raises:
        FileNotFoundError: root, category, level or split is missing; the message lists what there is.
        ValueError: files contradict the layout or each other; the message names the file and the shape. No shape has a
            part of the level, or most points of the shapes that are looked at have leaf ids that no record names.
        OSError: a file is truncated or corrupt, found on opening it or on reading a shape.
        IndexError: no such item.

    Warns:
        UserWarning: most leaves are in no part of the level, many leaf ids in no record, or shapes that are looked at
            outside the unit sphere.
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
        paths = split_files(Path(root) / "ins_seg_h5", category, split)
        part_paths = read_classes(root, category, level)
        class_of = {path: 1 if class_agnostic else c for c, path in enumerate(part_paths, start=1)}
        names: set[str] = set()
        self._shapes = [shape for path in paths for shape in _read_shapes(path, class_of, num_points, names)]
        _check_level(level_file(root, category, level), part_paths, names, self._shapes, paths[0].parent)
        _check_sample(paths[0].parent, split, sample_of(self._shapes))
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
        pos, label = _read_points(shape)
        instance, classes = _label_points(shape, label)
        return PartNetShape(pos, instance, classes, shape.anno_id, self.shape_ids[index])


def _read_shapes(path: Path, class_of: dict[str, int], num_points: int, names: set[str]) -> list[_Shape]:
    """The shapes of an h5 file, by the json beside it; both are checked, no point is read. ``names`` gets the parts."""
    json_path = path.with_suffix(".json")
    if not json_path.is_file():
        raise FileNotFoundError(f"{json_path} is missing: PartNet has it beside {path.name}")
    records = read_records(json_path)
    sizes = check_arrays(path, {"pts": (("B", "N", 3), "floats"), "label": (("B", "N"), "integers")})
    check_enough(path, sizes["N"], num_points)
    count = sizes["B"]
    if len(records) != count:
        raise ValueError(
            f"{json_path} has {len(records)} records but {path.name} has {count} shapes: unpack both again"
        )
    return [_read_record(path, row, record, class_of, names) for row, record in enumerate(records)]


def _check_level(
    level: Path, part_paths: Sequence[str], names: set[str], shapes: Sequence[_Shape], folder: Path
) -> None:
    """A level of other names than the shapes' trains on nothing, and evaluates to 0 or NaN."""
    others = sorted(name for name in names if not any(path.startswith(f"{name}/") for path in part_paths))
    if others and names.isdisjoint(part_paths):
        raise ValueError(
            f"{level} names {_some(part_paths)}, but the parts of the shapes in {folder} are {_some(others)}: no shape "
            "has a part of the level. Is it the file of another category, or from before PartNet's merging?"
        )
    named = sum(len({leaf for _, leaves in shape.parts for leaf in leaves}) for shape in shapes)
    share = named / max(1, sum(len(shape.leaves) for shape in shapes))
    if others and share < 0.5:
        missing = sorted(set(others) - set(part_paths))
        warnings.warn(
            f"{level}: {share:.0%} of the leaves of the shapes in {folder} belong to a part of the level, all else is "
            f"other; it does not name {_some(missing)}: is it the file of these shapes?",
            stacklevel=3,
        )


def _check_sample(folder: Path, split: str, shapes: Sequence[_Shape]) -> None:
    """What a few shapes say against their records and the unit sphere; broken ones are for :meth:`read`."""
    clouds: list[Float32] = []
    unnamed: list[float] = []
    for shape in shapes:
        try:
            pos, label = _read_arrays(shape)
        except (OSError, ValueError):
            continue
        if np.isfinite(pos).all():
            clouds.append(pos)
        if shape.leaves:
            unnamed.append(1 - float(np.isin(label, list(shape.leaves)).mean()))
    share = float(np.mean(unnamed)) if unnamed else 0.0
    if share > 0.5 * UNNAMED:
        message = (
            f"{folder}, {split}: {share:.0%} of the points of the {len(unnamed)} shapes that were looked at have a "
            "leaf id that the json does not name, and would be other: the h5 and json files are not of the same "
            "release (a merged json beside an unmerged tree?), unpack both again"
        )
        if sum(of_shape > UNNAMED for of_shape in unnamed) > 0.5 * len(unnamed):
            raise ValueError(message)
        warnings.warn(message, stacklevel=3)
    warn_outside_the_sphere(folder, clouds)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _read_record(path: Path, row: int, record: Any, class_of: dict[str, int], names: set[str]) -> _Shape:
    try:
        entries = [(str(e["part_name"]), tuple(map(int, e["leaf_id_list"]))) for e in record["ins_seg"]]
        anno_id = str(record["anno_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path.with_suffix('.json')}, shape {row}: expected anno_id and ins_seg, a list of "
            f"{{part_name, leaf_id_list}}, got {type(error).__name__}: {error}"
        ) from error
    names.update(name for name, _ in entries)
    return _Shape(
        path,
        row,
        anno_id,
        parts=tuple((class_of[name], leaves) for name, leaves in entries if name in class_of),
        leaves=frozenset(leaf for _, leaves in entries for leaf in leaves),
    )


def _read_points(shape: _Shape) -> tuple[Float32, Int]:
    """Positions (P, 3) and leaf ids (P,) of the first P ≤ 10,000 points of a shape, checked against its record."""
    pos, label = _read_arrays(shape)
    check_finite(pos, shape.path, shape.row)
    if shape.leaves and shape.leaves.isdisjoint(np.unique(label).tolist()):
        raise ValueError(
            f"{shape.path}, shape {shape.row}: no label is a leaf id of the json (anno_id {shape.anno_id}): "
            "the two files are not of the same release, unpack both again"
        )
    return pos, label


def _read_arrays(shape: _Shape) -> tuple[Float32, Int]:
    with open_h5(shape.path, f"shape {shape.row}") as file:
        pos = file["pts"][shape.row, :POINTS].astype(np.float32, copy=False)
        return pos, file["label"][shape.row, :POINTS].astype(np.int64, copy=False)


def _label_points(shape: _Shape, label: Int) -> tuple[Int, Int]:
    """Instance of each point, from its leaf id, and the class of each instance that has a point."""
    leaves, leaf = np.unique(label, return_inverse=True)
    column = {int(value): i for i, value in enumerate(leaves)}
    part_of_leaf = np.full(len(leaves), -1, dtype=np.int64)
    for part, (_, ids) in enumerate(shape.parts):
        part_of_leaf[[column[i] for i in ids if i in column]] = part
    return drop_empty(part_of_leaf[leaf], np.array([c for c, _ in shape.parts], dtype=np.int64))
