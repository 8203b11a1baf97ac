"""PartNet's instance segmentation files (`ins_seg_h5`) for torch-geometric, and the paper's augmentation.

The raw layout, as PartNet publishes it:

    {root}/ins_seg_h5/{Category}/{split}-{00..}.h5     pts (B, 10000+, 3), label (B, 10000+): leaf ids
    {root}/ins_seg_h5/{Category}/{split}-{00..}.json   anno_id, ins_seg [{part_name, leaf_id_list}, ...]
    {root}/stats/after_merging_label_ids/{Category}-level-{n}.txt   one line a class: id, part path, sub_type

A shape's instances at a level are its `ins_seg` entries whose `part_name` stands in the level's file; every
other point is "other". Source: Mo et al., "PartNet", CVPR 2019, and the data set's published scripts.
"""

from __future__ import annotations

import json
import zlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from probemb_adapters.partnet._h5 import check_arrays, open_h5

try:
    from torch_geometric.data import Data
    from torch_geometric.transforms import BaseTransform, Compose, RandomFlip, RandomJitter, RandomRotate
except ImportError as error:
    raise ImportError(f'PartNet needs torch-geometric ({error}): pip install "probemb-lib[partnet]"') from error

POINTS = 10_000
"""PartNet's protocols use the first 10,000 points of a shape."""

_Float = np.ndarray[Any, np.dtype[np.float32]]
_Int = np.ndarray[Any, np.dtype[np.int64]]


class EvaluationTargets(NamedTuple):
    """One shape's ground truth, in the order in which `PartNetAP.update` takes it after the predictions.

    Attributes:
        gt_instance: (N,) int64, the row of `gt_classes` that owns the point, or −1.
        gt_classes: (G,) int64, the **0-based** class of each instance.
        other: (N,) bool, points outside every instance, which the metric removes from predictions.
    """

    gt_instance: Tensor
    gt_classes: Tensor
    other: Tensor


class PartNetShape(NamedTuple):
    """One shape in the order of its file.

    Attributes:
        pos: (P, 3) float32, the first P ≤ 10,000 points.
        instance: (P,) int64, the row of `classes` that owns the point, or −1 on other points.
        classes: (G,) int64, the **1-based** class of each instance; each has a point.
        anno_id: PartNet's annotation id.
        shape_id: {file}/{row}, such as test-00/12.
    """

    pos: _Float
    instance: _Int
    classes: _Int
    anno_id: str
    shape_id: str


class _Shape(NamedTuple):
    """Where a shape lies and what the json says of it."""

    path: Path
    row: int
    anno_id: str
    parts: tuple[tuple[int, tuple[int, ...]], ...]  # (1-based class, leaf ids) of each instance of the level
    leaves: frozenset[int]  # leaf ids named anywhere in the record, on any level


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

    def _order(self, shape: PartNetShape) -> _Int:
        """Rows of the file, in the order of the item."""
        if self.random_points:
            permutation = torch.randperm(len(shape.pos))
        else:
            # By annotation, not by position: the same order whatever else is in the split.
            generator = torch.Generator().manual_seed(zlib.crc32(shape.anno_id.encode()))
            permutation = torch.randperm(len(shape.pos), generator=generator)
        order: _Int = permutation[: self.num_points].numpy()
        return order


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
        ValueError: files contradict the layout or each other; the message names the file and the shape.
        OSError: a file is truncated or corrupt, found on opening it or on reading a shape.
        IndexError: no such item.
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
        self._shapes = [shape for path in paths for shape in _read_shapes(path, class_of, num_points)]
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


def read_classes(root: str | Path, category: str, level: int) -> tuple[str, ...]:
    """The part paths of a level, in the order of their 1-based ids.

    Raises:
        FileNotFoundError: the level has no file; the message lists the levels of the category.
        ValueError: a line has no part path, a path stands twice, or the file is empty.
    """
    folder = Path(root) / "stats" / "after_merging_label_ids"
    path = folder / f"{category}-level-{level}.txt"
    if not path.is_file():
        found = sorted(p.stem.rpartition("-")[2] for p in folder.glob(f"{category}-level-*.txt"))
        has = f"{category} has level {', '.join(found)}" if found else f"{folder} has no level of {category}"
        raise FileNotFoundError(f"{path} is missing: {has}")
    classes: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        tokens = line.split()
        if not tokens:
            continue
        if len(tokens) < 2:
            raise ValueError(f"{path}, line {number}: expected 'id part_path sub_type', got {line!r}")
        if tokens[1] in classes:
            raise ValueError(f"{path}, line {number}: {tokens[1]} stands twice")
        classes.append(tokens[1])
    if not classes:
        raise ValueError(f"{path} names no class: copy it from PartNet's stats again")
    return tuple(classes)


def evaluation_targets(data: Data) -> EvaluationTargets:
    """The ground truth of one item of `PartNetInstances` for `probemb_lib.metrics.PartNetAP`.

    ``metric.update(masks, classes, scores, *evaluation_targets(data))``; take the items of a batch with
    ``batch.to_data_list()``.

    Raises:
        ValueError: an instance id in 0 … G−1 has no point, or points of several classes (a transform dropped
            points or changed labels).

    >>> data = Data(instance=torch.tensor([0, -1, 1, 1]), semantic=torch.tensor([2, 0, 1, 1]))
    >>> evaluation_targets(data).gt_classes
    tensor([1, 0])
    """
    instance, semantic = data.instance, data.semantic
    member = instance >= 0
    base = int(semantic.max()) + 1 if len(semantic) else 1
    key = torch.unique(instance[member] * base + semantic[member])  # one key: unique of pairs is many times slower
    rows, classes = key // base, key % base
    if not torch.equal(rows, torch.arange(len(rows), device=rows.device)):
        raise ValueError(
            "expected instance ids 0 … G−1, each with a point and one class, got (instance, class) "
            f"{list(zip(rows.tolist(), classes.tolist(), strict=True))}: relabel after a transform that "
            "drops points or changes labels"
        )
    return EvaluationTargets(instance, classes - 1, ~member)


class RandomTranslate(BaseTransform):
    """Moves a whole cloud by one vector, uniform in ±``limit`` per axis, drawn from torch's global RNG.

    (torch-geometric's `RandomJitter` draws a vector for each point instead.)

    >>> data = RandomTranslate(0.01)(Data(pos=torch.zeros(4, 3)))
    >>> bool((data.pos == data.pos[0]).all()), bool((data.pos.abs() <= 0.01).all())
    (True, True)
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def forward(self, data: Data) -> Data:
        data.pos = data.pos + data.pos.new_empty(data.pos.shape[1]).uniform_(-self.limit, self.limit)
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limit})"


def paper_augmentation(*, jitter: float = 0.01, translation: float = 0.01, degrees: float = 15.0) -> Compose:
    """The augmentation of the PartNet experiments (A.2): rotation, translation and jitter of ``pos``.

    Args:
        jitter: bound of each point's own uniform displacement, per axis. The paper gives no size.
        translation: bound of the cloud's displacement, per axis; 0.01 in the paper.
        degrees: bound of the rotation about each of the three axes, in turn x, y, z; 15 in the paper.

    >>> paper_augmentation()(Data(pos=torch.rand(5, 3))).pos.shape
    torch.Size([5, 3])
    """
    rotations = [RandomRotate(degrees, axis=axis) for axis in range(3)]
    return Compose([*rotations, RandomTranslate(translation), RandomJitter(jitter)])


class RandomStretch(BaseTransform):
    """Multiplies each axis by a factor of its own, e^u with u uniform in ±``limit``, drawn from torch's global RNG.

    >>> RandomStretch(0.2)(Data(pos=torch.ones(4, 3))).pos.shape
    torch.Size([4, 3])
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def forward(self, data: Data) -> Data:
        data.pos = data.pos * data.pos.new_empty(data.pos.shape[1]).uniform_(-self.limit, self.limit).exp()
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limit})"


def upright_augmentation(*, stretch: float = 0.15, jitter: float = 0.005) -> Compose:
    """Mirrored left to right half of the time, stretched by up to e^±``stretch`` an axis, jittered; never rotated.

    For shapes that all stand upright and face one way, as PartNet's do: quicker to learn than rotated ones.

    >>> upright_augmentation()(Data(pos=torch.rand(5, 3))).pos.shape
    torch.Size([5, 3])
    """
    return Compose([RandomFlip(axis=0), RandomStretch(stretch), RandomJitter(jitter)])


def check_num_points(num_points: int) -> None:
    """Raises a ValueError unless ``num_points`` is 1 … 10,000."""
    if not 1 <= num_points <= POINTS:
        raise ValueError(f"num_points must be 1 … {POINTS} (the points that PartNet's protocols use), got {num_points}")


def check_enough(path: Path, available: int, num_points: int) -> None:
    """Raises a ValueError that names the file if its shapes have fewer points than an item shall have."""
    if available < num_points:
        raise ValueError(
            f"{path} has {available} points a shape: pass num_points={available} or fewer, not {num_points}"
        )


def split_files(layout: Path, name: str, split: str) -> list[Path]:
    """The files `{layout}/{name}/{split}-{00..}.h5`, in the order of their numbers.

    Raises:
        FileNotFoundError: there is none; the message lists what there is.
    """
    if not layout.is_dir():
        raise FileNotFoundError(
            f"{layout} is missing: root must be the folder that holds PartNet's {layout.name} and stats"
        )
    folder = layout / name
    if not folder.is_dir():
        found = sorted(p.name for p in layout.iterdir() if p.is_dir())
        raise FileNotFoundError(f"{folder} is missing: {layout} holds {', '.join(found) or 'no category'}")
    paths = sorted(folder.glob(f"{split}-*.h5"))
    if not paths:
        found = sorted({p.name.rpartition("-")[0] for p in folder.glob("*-*.h5")})
        raise FileNotFoundError(f"no {split}-*.h5 in {folder}: it holds {', '.join(found) or 'no h5 file'}")
    return paths


def _read_shapes(path: Path, class_of: dict[str, int], num_points: int) -> list[_Shape]:
    """The shapes of an h5 file, by the json beside it; both are checked, no point is read."""
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
    return [_read_record(path, row, record, class_of) for row, record in enumerate(records)]


def read_records(path: Path) -> list[Any]:
    """The records of a json file, one a shape.

    Raises:
        ValueError: it is no JSON, or no list.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): unpack it again") from error
    if not isinstance(records, list):
        raise ValueError(f"{path}: expected a list with one record a shape, got {type(records).__name__}")
    return records


def _read_record(path: Path, row: int, record: Any, class_of: dict[str, int]) -> _Shape:
    try:
        entries = [(str(e["part_name"]), tuple(map(int, e["leaf_id_list"]))) for e in record["ins_seg"]]
        anno_id = str(record["anno_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path.with_suffix('.json')}, shape {row}: expected anno_id and ins_seg, a list of "
            f"{{part_name, leaf_id_list}}, got {type(error).__name__}: {error}"
        ) from error
    return _Shape(
        path,
        row,
        anno_id,
        parts=tuple((class_of[name], leaves) for name, leaves in entries if name in class_of),
        leaves=frozenset(leaf for _, leaves in entries for leaf in leaves),
    )


def check_finite(pos: _Float, path: Path, row: int) -> None:
    """Raises a ValueError that names the file and the shape if a coordinate is not finite."""
    if not np.isfinite(pos).all():
        raise ValueError(f"{path}, shape {row}: pts holds a NaN or an infinity: unpack the file again")


def _read_points(shape: _Shape) -> tuple[_Float, _Int]:
    """Positions (P, 3) and leaf ids (P,) of the first P ≤ 10,000 points of a shape."""
    with open_h5(shape.path, f"shape {shape.row}") as file:
        pos = file["pts"][shape.row, :POINTS].astype(np.float32, copy=False)
        label = file["label"][shape.row, :POINTS].astype(np.int64, copy=False)
    check_finite(pos, shape.path, shape.row)
    if shape.leaves and shape.leaves.isdisjoint(np.unique(label).tolist()):
        raise ValueError(
            f"{shape.path}, shape {shape.row}: no label is a leaf id of the json (anno_id {shape.anno_id}): "
            "the two files are not of the same release, unpack both again"
        )
    return pos, label


def _label_points(shape: _Shape, label: _Int) -> tuple[_Int, _Int]:
    """Instance of each point, from its leaf id, and the class of each instance that has a point."""
    leaves, leaf = np.unique(label, return_inverse=True)
    column = {int(value): i for i, value in enumerate(leaves)}
    part_of_leaf = np.full(len(leaves), -1, dtype=np.int64)
    for part, (_, ids) in enumerate(shape.parts):
        part_of_leaf[[column[i] for i in ids if i in column]] = part
    return drop_empty(part_of_leaf[leaf], np.array([c for c, _ in shape.parts], dtype=np.int64))


def drop_empty(instance: _Int, classes: _Int) -> tuple[_Int, _Int]:
    """Leave out the instances without a point: (N,) rows of classes or −1, and the classes that are left.

    >>> drop_empty(np.array([2, -1, 0, 2]), np.array([7, 8, 9]))
    (array([ 1, -1,  0,  1]), array([7, 9]))
    """
    has_point = np.bincount(instance + 1, minlength=len(classes) + 1)[1:] > 0
    row = np.append(np.cumsum(has_point) - 1, -1)  # the last is for −1
    return row[instance], classes[has_point]
