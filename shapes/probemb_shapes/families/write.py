"""Generated furniture, written in PartNet's raw layout.

    python -m probemb_shapes.families --root .cache/generated --category Chair --shapes 1000 --seed 0

Everything reads the result through `PartNetInstances(root, "Chair", level, split)`, as it would read PartNet.
Shapes are unlimited in number: shape ``index`` of a seed is always the same one, however many are made, and
the splits take their shapes from separate ranges of the index.

As in PartNet, a shape is centred on its bounding box, its farthest point is at distance 1, y is up and the
front looks along +z.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from probemb_adapters.clouds import unit_sphere
from probemb_adapters.files import MANIFEST, missing_extra, read_manifest, replaced_folder, write_manifest
from probemb_shapes.classes import stats_files, write_stats
from probemb_shapes.families import chair, lamp, storage, table
from probemb_shapes.families.tree import Node, record, sample_points

try:
    import h5py
except ImportError as error:
    raise missing_extra("generated furniture needs h5py", "partnet", error) from error

Array = np.ndarray[Any, np.dtype[Any]]

POINTS = 10_000
SHAPES_PER_FILE = 1024
"""As in PartNet's files."""

FIRST_INDEX = {"train": 0, "val": 1_000_000_000, "test": 2_000_000_000}
"""Index of the first shape of each split."""

VERSION = 1
"""Of what is written: raise it with every change of the result, and older caches are written again."""


class Family(NamedTuple):
    """A category.

    Attributes:
        make: draws a shape.
        levels: level → its part paths.
    """

    make: Callable[[np.random.Generator], Node]
    levels: dict[int, tuple[str, ...]]


FAMILIES = {
    "Chair": Family(chair.chair, chair.LEVELS),
    "Table": Family(table.table, table.LEVELS),
    "Lamp": Family(lamp.lamp, lamp.LEVELS),
    "StorageFurniture": Family(storage.storage_furniture, storage.LEVELS),
}
"""Category, named as in PartNet, → family."""


@dataclass(frozen=True)
class GeneratedReport:
    """What was written; ``str(report)`` is a table.

    Attributes:
        shapes: split → shapes.
        parts: level → part path → parts over all splits.
        parts_per_shape: least, median and most level-3 parts of a shape.
    """

    shapes: dict[str, int]
    parts: dict[int, dict[str, int]]
    parts_per_shape: tuple[int, float, int]

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {count}" for split, count in self.shapes.items())
        least, median, most = self.parts_per_shape
        lines = [f"shapes: {counts}", f"parts a shape: {least} to {most}, median {median:g}"]
        for level, parts in self.parts.items():
            lines.append(f"level {level}: {len(parts)} classes, {sum(parts.values())} parts")
            lines += [f"  {path:80}{count:9d}" for path, count in parts.items()]
        return "\n".join(lines)


def generate(category: str, seed: int, index: int) -> Node:
    """Shape ``index`` of a category and seed: always the same, however many are made.

    Args:
        category: a key of `FAMILIES`.
        seed: not negative.
        index: not negative; `FIRST_INDEX` tells where each split begins.

    Raises:
        ValueError: no such category, or a negative number.

    >>> generate("Chair", 0, 7).name
    'chair'
    """
    return _family(category).make(_generator(category, seed, index))


def sample(category: str, seed: int, index: int, points: int = POINTS) -> tuple[Node, Array, Array]:
    """Shape ``index`` and a cloud of it, in random order: the tree, (P, 3) float32 and (P,) int32 leaf ids from 1.

    Raises:
        ValueError: as `generate`, or too few points for the parts.
    """
    root = generate(category, seed, index)
    # A stream of its own: the cloud never changes the shape.
    rng = _generator(category, seed, index, 1)
    pos, leaf = sample_points(root, points, rng)
    order = rng.permutation(len(pos))
    return root, unit_sphere(pos[order]), leaf[order].astype(np.int32)


def write_generated(
    root: str | Path,
    category: str,
    *,
    train: int,
    val: int,
    test: int,
    seed: int = 0,
    progress: Callable[[range], Iterable[int]] = iter,
) -> GeneratedReport:
    """Write shapes of a category as PartNet's raw layout into ``root``, unless they are there already.

    Several categories share one root. A complete cache is known by the `manifest.json` in the category's
    folder: version, arguments, sizes of the files. Otherwise everything is written into a temporary folder
    beside ``root``, which takes its place at the end: an interrupted writing leaves no category behind and is
    redone. Two writings with the same arguments are equal to the byte, and a longer one begins with the
    shapes of a shorter one. Of several processes one should call this before the others read.

    Args:
        root: the folder to write; `PartNetInstances(root, category, 1, 2 or 3, split)` reads it.
        category: a key of `FAMILIES`.
        train: shapes of that split; 0 for none.
        val: likewise.
        test: likewise.
        seed: not negative.
        progress: wraps the range over all shapes, such as `tqdm`.

    Raises:
        ValueError: no such category, a negative number, or no shape at all.
        FileExistsError: ``root`` holds something that was not written by this function.
    """
    root, shapes = Path(root), {"train": train, "val": val, "test": test}
    levels = _family(category).levels
    if min(shapes.values()) < 0 or sum(shapes.values()) == 0:
        raise ValueError(f"expected numbers of shapes of at least 0 and one in all, got {shapes}")
    _generator(category, seed, 0)  # a wrong seed must not cost the old cache
    made_from = {"version": VERSION, "arguments": {"seed": seed, "shapes": shapes}}
    manifest = _folder(category) / MANIFEST
    report = read_manifest(root, made_from, _stored_report, manifest)
    if report is None:
        _check_ours(root, category)
        # The category's folder, which holds the manifest, last: before it, nothing is taken for complete.
        with replaced_folder(root, [*stats_files(category, levels), _folder(category)]) as new:
            report = _write(new, category, shapes, seed, progress)
            write_stats(new, category, levels)
            write_manifest(new, made_from, vars(report), manifest)
    return report


def _family(category: str) -> Family:
    if category not in FAMILIES:
        raise ValueError(f"expected a category of {', '.join(FAMILIES)}, got {category!r}")
    return FAMILIES[category]


def _generator(category: str, seed: int, index: int, stream: int = 0) -> np.random.Generator:
    if seed < 0 or index < 0:
        raise ValueError(f"expected a seed and an index of at least 0, got seed {seed} and index {index}")
    return np.random.default_rng([seed, zlib.crc32(category.encode()), index, stream])


def _write(
    root: Path, category: str, shapes: dict[str, int], seed: int, progress: Callable[[range], Iterable[int]]
) -> GeneratedReport:
    levels = _family(category).levels
    parts = {level: Counter(dict.fromkeys(paths, 0)) for level, paths in levels.items()}
    per_shape: list[int] = []
    data = root / _folder(category)
    data.mkdir(parents=True)
    tick = iter(progress(range(sum(shapes.values()))))
    for split, count in shapes.items():
        for number, start in enumerate(range(0, count, SHAPES_PER_FILE)):
            rows = range(start, min(start + SHAPES_PER_FILE, count))
            records = []
            with h5py.File(data / f"{split}-{number:02d}.h5", "w") as file:
                pts, label = _datasets(file, len(rows))
                for row, shape in enumerate(rows):
                    next(tick)
                    index = FIRST_INDEX[split] + shape
                    tree, pts[row], label[row] = sample(category, seed, index)
                    entry = record(tree, f"{category}-{seed}-{index}")
                    records.append(entry)
                    for count_of in parts.values():
                        count_of.update(e["part_name"] for e in entry["ins_seg"] if e["part_name"] in count_of)
                    per_shape.append(sum(e["part_name"] in parts[3] for e in entry["ins_seg"]))
            text = json.dumps(records)
            (data / f"{split}-{number:02d}.json").write_text(text, encoding="utf-8")
    next(tick, None)  # lets the bar close
    return GeneratedReport(
        shapes,
        {level: dict(count_of) for level, count_of in parts.items()},
        (min(per_shape), float(np.median(per_shape)), max(per_shape)),
    )


def _datasets(file: Any, count: int) -> tuple[Any, Any]:
    # A read is one shape. Coordinates do not compress; leaf ids do.
    pts = file.create_dataset("pts", (count, POINTS, 3), "f4", chunks=(1, POINTS, 3))
    label = file.create_dataset(
        "label", (count, POINTS), "i4", chunks=(1, POINTS), compression="gzip", compression_opts=1, shuffle=True
    )
    return pts, label


def _folder(category: str) -> Path:
    return Path("ins_seg_h5") / category


def _stored_report(stored: dict[str, Any]) -> GeneratedReport:
    """JSON has text for the levels, and lists where the report has tuples."""
    parts = {int(level): counts for level, counts in stored["parts"].items()}
    least, median, most = stored["parts_per_shape"]
    return GeneratedReport(stored["shapes"], parts, (least, median, most))


def _check_ours(root: Path, category: str) -> None:
    """Nothing of another making may be overwritten, nor mixed with what is generated."""
    foreign = next(_foreign(root, category), None)
    if foreign is not None:
        raise FileExistsError(
            f"{foreign} was not written by this function (no {MANIFEST} vouches for it): pass an empty or new folder"
        )


def _foreign(root: Path, category: str) -> Iterator[Path]:
    if not root.exists():
        return
    if not root.is_dir():
        yield root
        return
    yield from (p for p in root.iterdir() if p.name not in ("ins_seg_h5", "stats"))
    data = root / "ins_seg_h5"
    folders = sorted(data.iterdir()) if data.is_dir() else []
    yield from (p for p in folders if not (p / MANIFEST).is_file())
    if not (root / _folder(category) / MANIFEST).is_file():
        # What an interrupted writing left is equal; PartNet's own file is not.
        for path, text in stats_files(category, _family(category).levels).items():
            if (root / path).is_file() and (root / path).read_text(encoding="utf-8") != text:
                yield root / path
