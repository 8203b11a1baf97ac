"""The open furniture data of this project (`data/furniture_parts`), written in PartNet's raw layout.

    python -m probemb_shapes.furniture --source data/furniture_parts --root .cache/furniture

writes the category `Furniture` once; afterwards everything reads it through `PartNetInstances`, as it would
read PartNet. Models, authors and licences: `data/README.md` and `data/ATTRIBUTION.md`.

Level 1 has one class, `furniture/part`. Level 3 has the classes of the parts, `furniture/leg` and so on;
classes with fewer than 20 parts over all objects and parts without a telling name are `furniture/other_part`.

As in PartNet, a shape is centred on its bounding box, its farthest point is at distance 1, and y is up. The
front of an object looks along +z. (The source is in metres, z up, the front to −y.)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from probemb_adapters.clouds import unit_sphere
from probemb_adapters.files import LICENCES, missing_extra, read_manifest, replaced_folder, write_manifest
from probemb_shapes.classes import write_stats

try:
    import h5py
except ImportError as error:
    raise missing_extra("the furniture data needs h5py", "partnet", error) from error

Array = np.ndarray[Any, np.dtype[Any]]

CATEGORY = "Furniture"
SPLITS = ("train", "val", "test")
LIBRARIES = ("cc0", "ccby", "katorlegaz", "furniture_bench")
POINTS = 10_000
MIN_PARTS = 20
"""A class with fewer parts over all objects is merged into `furniture/other_part`."""

VERSION = 1
"""Of what is written: raise it with every change of the result, and older caches are written again."""

PART = "furniture/part"
OTHER_PART = "furniture/other_part"

# Objects that must be on the same side of the split. Two reasons:
# - near-duplicates: the mean distance of 512 points of one object to the 10,000 points of the other, averaged
#   over both directions, smallest over the four quarter turns about the vertical, is at most 0.03 in the unit
#   sphere (sampling alone gives about 0.01). Computed for all pairs; these are the connected components.
#   tests/shapes/test_furniture.py computes it again across the splits.
# - sets: models that ATTRIBUTION.md lists under one source, or as one set by one author, share parts and
#   style; juniorBed and lettoCloud have the sheets of the pack of bed1 and bed2.
GROUPS: dict[str, tuple[str, ...]] = {
    "flat panels": (
        "cc0-showerDoor",
        "ccby-radiatorAndTowels",
        "katorlegaz-exterior-door-01",
        "katorlegaz-exterior-door-02",
        "katorlegaz-exterior-door-03",
        "katorlegaz-exterior-door-05",
        "katorlegaz-exterior-door-07",
        "katorlegaz-screen-door",
        "katorlegaz-window-01",
        "katorlegaz-window-08",
    ),
    "kitchen": (
        "ccby-chairWithCushion",
        "ccby-hangingLight",
        "ccby-hood",
        "ccby-kitchenDrawersCabinet",
        "ccby-kitchenGlassDoorCabinet",
        "ccby-kitchenIsland",
        "ccby-kitchenLowerCabinet",
        "ccby-kitchenSink",
        "ccby-kitchenSmallLowerCabinet",
        "ccby-kitchenSmallUpperCabinet",
        "ccby-kitchenTools",
        "ccby-kitchenUpperCabinet",
        "ccby-largeStove",
        "ccby-microwave",
        "ccby-radio",
        "ccby-table",
        # boxes of the proportions of kitchenSmallUpperCabinet, and the twin of one of them
        "cc0-speaker2",
        "cc0-speaker3",
        "katorlegaz-fridge",
    ),
    "bedroom": (
        "cc0-bed1",
        "cc0-bed2",
        "ccby-bedsideTable",
        "ccby-juniorBed",
        "ccby-lettoCloud",
        "ccby-wardrobe",
    ),
    "wardrobes": ("cc0-wardrobeWithSlidingDoors", "ccby-wardrobe2"),
    "bathroom": ("cc0-toiletPaperDispenser", "cc0-toiletsUnit", "cc0-washbasin"),
    "bathroom_hardy": ("ccby-bath_jay_hardy", "ccby-toilets_unit_jay_hardy", "ccby-washbasin_jay_hardy"),
    "oak": ("cc0-oakChair", "cc0-oakTable"),
    "expedit": ("cc0-shelves", "cc0-verticalShelves"),
    "winchester": ("cc0-winchesterArmchair", "cc0-winchesterSofa"),
    "ziemys": ("cc0-chairWithCushion", "cc0-table"),
    "cabinets": ("cc0-highCabinet", "cc0-sinkCabinet"),
    "posts": ("katorlegaz-classic-lamppost", "katorlegaz-park-light"),
    "fluorescent": ("katorlegaz-fluorescent", "katorlegaz-fluorescent-strip"),
    "bench": ("furniture_bench-desk", "furniture_bench-square_table"),
}
_GROUP_OF = {member: name for name, members in GROUPS.items() for member in members}

# Chosen among 100,000 by one criterion: objects and the parts of each class spread about as 70 : 10 : 20.
_SALT = 62698


class FurnitureObject(NamedTuple):
    """One object of the source.

    Attributes:
        anno_id: `{library}-{name}`.
        pos: (10000, 3) float32 metres, z up.
        rgb: (10000, 3) uint8.
        instance: (10000,) part of each point, 0 … K−1.
        classes: class name of each part, length K.
    """

    anno_id: str
    pos: Array
    rgb: Array
    instance: Array
    classes: tuple[str, ...]


@dataclass(frozen=True)
class FurnitureReport:
    """What was written; ``str(report)`` is a table.

    Attributes:
        shapes: objects per split.
        parts: level-3 part path → split → parts.
        merged: classes that went into `furniture/other_part` for being rare, and their parts.
    """

    shapes: dict[str, int]
    parts: dict[str, dict[str, int]]
    merged: dict[str, int]

    def __str__(self) -> str:
        totals = {split: sum(count[split] for count in self.parts.values()) for split in SPLITS}
        rows = [("shapes", self.shapes), ("parts", totals), *self.parts.items()]
        lines = [f"{'':24}" + "".join(f"{split:>8}" for split in SPLITS) + f"{'all':>8}"]
        for name, count in rows:
            cells = [*(count[split] for split in SPLITS), sum(count.values())]
            lines.append(f"{name:24}" + "".join(f"{cell:8d}" for cell in cells))
        merged = ", ".join(f"{name} {count}" for name, count in self.merged.items()) or "none"
        return "\n".join([*lines, f"in {OTHER_PART}, under {MIN_PARTS} parts each: {merged}"])


def split_of(anno_id: str) -> str:
    """The split of an object: `train`, `val` or `test`, about 70 : 10 : 20, the same for a whole group.

    By a hash of the group's name, or of the object's where it stands alone; no other object matters.

    >>> split_of("cc0-oakChair") == split_of("cc0-oakTable")
    True
    """
    key = f"{_SALT}:{_GROUP_OF.get(anno_id, anno_id)}"
    u = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
    return "train" if u < 0.7 else "val" if u < 0.8 else "test"


def read_furniture(source: str | Path) -> list[FurnitureObject]:
    """The objects of the four npz files, in their order.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is unreadable or its arrays contradict `data/README.md`.
    """
    return [item for library in LIBRARIES for item in _read_library(_library_path(Path(source), library))]


def write_furniture(
    source: str | Path,
    root: str | Path,
    *,
    progress: Callable[[list[FurnitureObject]], Iterable[FurnitureObject]] = iter,
) -> FurnitureReport:
    """Write the objects of ``source`` as PartNet's raw layout into ``root``, unless they are there already.

    A complete cache is known by `manifest.json`: version, checksums of the source, sizes of the files.
    Otherwise everything is written into a temporary folder beside ``root``, which takes its place at the end:
    an interrupted writing leaves nothing under ``root`` and is redone. Two writings of the same source are
    equal to the byte. Of several processes one should call this before the others read.

    Args:
        source: the folder of the npz files.
        root: the folder to write; `PartNetInstances(root, "Furniture", 1 or 3, split)` reads it.
        progress: wraps the list of objects, such as `tqdm`.

    Raises:
        FileNotFoundError: a file of the source is missing.
        FileExistsError: ``root`` holds something that was not written by this function.
        ValueError: a file of the source is unreadable or contradicts `data/README.md`.
    """
    source, root = Path(source), Path(root)
    checksums = {p.name: _sha256(p) for p in (_library_path(source, library) for library in LIBRARIES)}
    made_from = {"version": VERSION, "source": checksums, "licences": LICENCES}
    report = read_manifest(root, made_from, lambda stored: FurnitureReport(**stored))
    if report is None:
        with replaced_folder(root) as new:
            report = _write(read_furniture(source), new, progress)
            write_manifest(new, made_from, vars(report))
    return report


def _library_path(source: Path, library: str) -> Path:
    path = source / f"{library}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: source must be the folder data/furniture_parts of this project, with "
            f"{', '.join(f'{name}.npz' for name in LIBRARIES)}"
        )
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_library(path: Path) -> list[FurnitureObject]:
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
    except (BadZipFile, OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no readable npz file ({error}): take it from the repository again") from error
    needed = ("pos", "rgb", "instance", "ptr", "object_name", "part_ptr", "part_class", "classes")
    missing = [name for name in needed if name not in data]
    if missing:
        raise ValueError(f"{path} has no array {', '.join(missing)}: take it from the repository again")
    objects = []
    for i, name in enumerate(data["object_name"]):
        points = slice(data["ptr"][i], data["ptr"][i + 1])
        instance = data["instance"][points]
        part_class = data["part_class"][data["part_ptr"][i] : data["part_ptr"][i + 1]]
        if data["pos"][points].shape != (POINTS, 3) or not np.array_equal(
            np.unique(instance), np.arange(len(part_class))
        ):
            raise ValueError(
                f"{path}, object {name}: expected {POINTS} points over the parts 0 … {len(part_class) - 1}, "
                f"got pos {data['pos'][points].shape} and parts {np.unique(instance).tolist()}"
            )
        objects.append(
            FurnitureObject(
                anno_id=f"{path.stem}-{name}",
                pos=data["pos"][points],
                rgb=data["rgb"][points],
                instance=instance,
                classes=tuple(str(data["classes"][c]) for c in part_class),
            )
        )
    return objects


def _part_paths(objects: Sequence[FurnitureObject]) -> tuple[dict[str, str], dict[str, int]]:
    """Class name → level-3 part path, `other_part` last, and the counts of the rare classes."""
    count = Counter(name for item in objects for name in item.classes)
    kept = sorted(name for name in count if name != "other" and count[name] >= MIN_PARTS)
    rare = sorted(name for name in count if name != "other" and count[name] < MIN_PARTS)
    paths = {name: f"furniture/{name}" for name in kept} | dict.fromkeys([*rare, "other"], OTHER_PART)
    return paths, {name: count[name] for name in rare}


def _write(
    objects: list[FurnitureObject],
    root: Path,
    progress: Callable[[list[FurnitureObject]], Iterable[FurnitureObject]],
) -> FurnitureReport:
    path_of, merged = _part_paths(objects)
    level_3 = tuple(dict.fromkeys(path_of.values()))
    write_stats(root, CATEGORY, {1: (PART,), 3: level_3})
    data = root / "ins_seg_h5" / CATEGORY
    data.mkdir(parents=True)
    shapes = {split: sum(split_of(item.anno_id) == split for item in objects) for split in SPLITS}
    parts = {path: dict.fromkeys(SPLITS, 0) for path in level_3}
    records: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    files = {split: h5py.File(data / f"{split}-00.h5", "w") for split in SPLITS}
    try:
        for split, file in files.items():
            for name, width, dtype in (("pts", (3,), "f4"), ("rgb", (3,), "u1"), ("label", (), "i4")):
                shape, chunk = (shapes[split], POINTS, *width), (1, POINTS, *width)  # a read is one shape
                file.create_dataset(name, shape, dtype, maxshape=(None, *shape[1:]), chunks=chunk, compression="gzip")
        for item in progress(objects):
            split = split_of(item.anno_id)
            row = len(records[split])
            # The source is ordered by part; models take the first points of a neighbourhood.
            order = np.random.default_rng(zlib.crc32(item.anno_id.encode())).permutation(POINTS)
            x = unit_sphere(item.pos[order])
            files[split]["pts"][row] = np.stack((x[:, 0], x[:, 2], -x[:, 1]), axis=1)  # z up -> y up
            files[split]["rgb"][row] = item.rgb[order]
            files[split]["label"][row] = item.instance[order] + 1
            records[split].append(_record(item, path_of))
            for name in item.classes:
                parts[path_of[name]][split] += 1
    finally:
        for file in files.values():
            file.close()
    for split in SPLITS:
        (data / f"{split}-00.json").write_text(json.dumps(records[split]), encoding="utf-8")
    return FurnitureReport(shapes, parts, merged)


def _record(item: FurnitureObject, path_of: dict[str, str]) -> dict[str, Any]:
    """A shape's entry of the json: each part is a leaf, and an instance on level 1 and on level 3."""
    parts = [(leaf, path_of[name]) for leaf, name in enumerate(item.classes, start=1)]
    return {
        "anno_id": item.anno_id,
        "ins_seg": [{"part_name": p, "leaf_id_list": [leaf]} for leaf, path in parts for p in (PART, path)],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: write the cache and show what is in it."""
    parser = argparse.ArgumentParser(description="Write the open furniture data in PartNet's raw layout.")
    parser.add_argument("--source", type=Path, default=Path("data/furniture_parts"), help="folder of the npz files")
    parser.add_argument("--root", type=Path, default=Path(".cache/furniture"), help="folder to write")
    options = parser.parse_args(arguments)
    try:
        from tqdm import tqdm as progress
    except ImportError:  # only the bar is missing
        progress = iter
    report = write_furniture(options.source, options.root, progress=progress)
    sys.stdout.write(f"{report}\n{options.root}\n")


if __name__ == "__main__":
    main()
