"""What PartNet's layouts share on the disk: h5 files of a split, records beside them, names of the classes.

    {root}/{layout}/{name}/{split}-{00..}.h5                        see `instances`, `detection` and `predictions`
    {root}/{layout}/{name}/{split}-{00..}.json                      one record a shape
    {root}/stats/after_merging_label_ids/{Category}-level-{n}.txt   one line a class: id, part path, sub_type

Source: Mo et al., "PartNet", CVPR 2019, and the data set's published scripts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from probemb_adapters.files import readable
from probemb_adapters.partnet._h5 import Array


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


def level_file(root: str | Path, category: str, level: int) -> Path:
    """Where the classes of a level stand."""
    return Path(root) / "stats" / "after_merging_label_ids" / f"{category}-level-{level}.txt"


def read_classes(root: str | Path, category: str, level: int) -> tuple[str, ...]:
    """The part paths of a level, in the order of their 1-based ids.

    Raises:
        FileNotFoundError: the level has no file; the message lists the levels of the category.
        ValueError: ids do not count from 1, a line has no part path, a path stands twice, or the file is empty.
    """
    path = level_file(root, category, level)
    folder = path.parent
    if not path.is_file():
        found = sorted(p.stem.rpartition("-")[2] for p in folder.glob(f"{category}-level-*.txt"))
        has = f"{category} has level {', '.join(found)}" if found else f"{folder} has no level of {category}"
        raise FileNotFoundError(f"{path} is missing: {has}")
    with readable(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    classes: list[str] = []
    for number, line in enumerate(lines, start=1):
        tokens = line.split()
        if not tokens:
            continue
        own_id = len(classes) + 1
        if len(tokens) < 2 or tokens[0] != str(own_id):
            raise ValueError(
                f"{path}, line {number}: expected 'id part_path sub_type' with the id {own_id}, got {line!r}: copy it "
                "from PartNet's stats again"
            )
        if tokens[1] in classes:
            raise ValueError(f"{path}, line {number}: {tokens[1]} stands twice")
        classes.append(tokens[1])
    if not classes:
        raise ValueError(f"{path} names no class: copy it from PartNet's stats again")
    return tuple(classes)


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


def check_enough(path: Path, available: int, num_points: int) -> None:
    """Raises a ValueError that names the file if its shapes have fewer points than an item shall have."""
    if available < num_points:
        raise ValueError(
            f"{path} has {available} points a shape: pass num_points={available} or fewer, not {num_points}"
        )


def check_finite(pos: Array, path: Path, row: int) -> None:
    """Raises a ValueError that names the file and the shape if a coordinate is not finite."""
    if not np.isfinite(pos).all():
        raise ValueError(f"{path}, shape {row}: pts holds a NaN or an infinity: unpack the file again")
